# SPDX-License-Identifier: BSD-3-Clause
"""OpenVINO: its ScaledDotProductAttention operator in a model for the CPU plugin."""

import ctypes
import sys

import numpy as np

from peers.cells import (
    ADDITIVE_MASK,
    AVERAGED_WEIGHTS,
    BFLOAT16,
    CAUSAL,
    FLOAT16,
    FLOAT32,
    RAGGED,
    Cell,
)
from peers.contestant import Contestant, NotOffered, Prepared
from peers.inputs import Array, Inputs, visible_as_mask, widened

# Its import reports usage over the network from a process that may stay behind. Without this module
# it does not, which it allows for.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402
from openvino import Node  # noqa: E402
from openvino import opset13 as operators  # noqa: E402


PRECISIONS = {FLOAT32: "f32", BFLOAT16: "bf16", FLOAT16: "f16"}


class OpenVino(Contestant):
    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.core = openvino.Core()

    def describe(self) -> dict[str, str]:
        return {
            "version": openvino.__version__.split("-")[0],
            "configuration": "CPU plugin, latency hint, inference_num_threads, "
            "inference_precision of the cell's type; ScaledDotProductAttention-13",
        }

    def prepare(self, cell: Cell, inputs: Inputs) -> Prepared:
        if cell.is_backward:
            raise NotOffered("it does not train")
        if cell.option == RAGGED:
            raise NotOffered("its operator takes sequences padded to one length")
        if cell.heads != cell.kv_heads:
            raise NotOffered(
                "its operator has no grouped queries: keys and values would have to be repeated"
            )
        if cell.option == AVERAGED_WEIGHTS:
            raise NotOffered("its operator does not return weights")
        if cell.is_multihead and cell.dtype != FLOAT32:
            raise NotOffered("measured in float32 only, as a model whose constants it may convert")
        feeds, outputs, how = _multihead(cell, inputs) if cell.is_multihead else _sdpa(cell, inputs)
        return self._compile(feeds, outputs, how, PRECISIONS[cell.dtype])

    def _compile(
        self, feeds: dict[Node, Array], result: Node, how: str, precision: str
    ) -> Prepared:
        options = {
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = openvino.Model([result], list(feeds), "cell")
        request = self.core.compile_model(model, "CPU", options).create_infer_request()
        for index, array in enumerate(feeds.values()):
            request.set_input_tensor(index, _tensor(array))
        kept = list(feeds.values())
        return Prepared(
            request.infer,
            lambda: [_array(request.get_output_tensor(0))][: len(kept)],
            how,
        )


def _parameter(array: Array) -> Node:
    kind = openvino.Type.bf16 if array.dtype == np.uint16 else array.dtype
    return operators.parameter(list(array.shape), kind)


def _bits(tensor: openvino.Tensor) -> Array:
    """The memory of a tensor of bfloat16, which NumPy has no name for."""
    memory = (ctypes.c_uint16 * tensor.size).from_address(tensor.data.ctypes.data)
    return np.frombuffer(memory, np.uint16).reshape(tuple(tensor.shape))


def _tensor(array: Array) -> openvino.Tensor:
    if array.dtype != np.uint16:
        return openvino.Tensor(array, shared_memory=True)
    tensor = openvino.Tensor(openvino.Type.bf16, openvino.Shape(array.shape))
    _bits(tensor)[:] = array
    return tensor


def _array(tensor: openvino.Tensor) -> Array:
    """A copy, in float32."""
    is_bfloat16 = tensor.element_type == openvino.Type.bf16
    return widened(_bits(tensor) if is_bfloat16 else tensor.data).copy()


def _sdpa(cell: Cell, inputs: Inputs) -> tuple[dict[Node, Array], Node, str]:
    feeds = {_parameter(array): array for array in (inputs.query, inputs.key, inputs.value)}
    how = f"ScaledDotProductAttention-13, causal={cell.option == CAUSAL}"
    mask = visible_as_mask(cell, inputs)
    if mask is not None:
        mask = np.broadcast_to(mask, (*mask.shape[:-2], cell.queries, cell.keys)).copy()
        feeds[_parameter(mask)] = mask
        how += f", {'additive' if cell.option == ADDITIVE_MASK else 'bool'} mask {mask.shape}"
    return (
        feeds,
        operators.scaled_dot_product_attention(*feeds, causal=cell.option == CAUSAL),
        how,
    )


def _heads_first(cell: Cell, node: Node) -> Node:
    split = operators.reshape(
        node, np.array([cell.batch, cell.queries, cell.heads, cell.head_dim]), False
    )
    return operators.transpose(split, np.array([0, 2, 1, 3]))


def _linear(node: Node, weight: Array, bias: Array) -> Node:
    product = operators.matmul(node, operators.constant(weight), False, True)
    return operators.add(product, operators.constant(bias))


def _multihead(cell: Cell, inputs: Inputs) -> tuple[dict[Node, Array], Node, str]:
    values = inputs.parameters
    query = _parameter(inputs.query)
    weights = np.split(values["in_proj_weight"], 3)
    biases = np.split(values["in_proj_bias"], 3)
    projected = [
        _heads_first(cell, _linear(query, weight, bias))
        for weight, bias in zip(weights, biases, strict=True)
    ]
    context = operators.scaled_dot_product_attention(*projected, causal=False)
    merged = operators.reshape(
        operators.transpose(context, np.array([0, 2, 1, 3])),
        np.array(inputs.query.shape),
        False,
    )
    result = _linear(merged, values["out_proj.weight"], values["out_proj.bias"])
    return (
        {query: inputs.query},
        result,
        "MatMul, Add, ScaledDotProductAttention-13, MatMul, Add",
    )
