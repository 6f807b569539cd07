# SPDX-License-Identifier: BSD-3-Clause
"""OpenVINO: its attention operators in a model for the CPU plugin."""

import time
from collections.abc import Iterator

import numpy as np

from peers.cells import ADDITIVE_MASK, AVERAGED_WEIGHTS, CAUSAL, FLOAT32, RAGGED, Cell
from peers.contestants import openvino_pages
from peers.contestants.contestant import Contestant, NotOffered, Prepared
from peers.contestants.openvino_tensors import (
    PRECISIONS,
    Node,
    array_of,
    openvino,
    operators,
    options_for,
    parameter,
    tensor_of,
)
from peers.inputs import Array, Inputs, visible_as_mask

TRIALS = 3


class OpenVino(Contestant):
    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.core = openvino.Core()

    def describe(self) -> dict[str, str]:
        return {
            "version": openvino.__version__.split("-")[0],
            "configuration": "CPU plugin, latency hint, inference_num_threads, "
            "inference_precision of the cell's type; the faster of ScaledDotProductAttention-13 "
            f"and PagedAttention over shuffled pages of {openvino_pages.PAGE_ROWS} rows",
        }

    def prepare(self, cell: Cell, inputs: Inputs) -> Prepared:
        if cell.is_backward:
            raise NotOffered("it does not train")
        if cell.option == RAGGED:
            raise NotOffered("its operators take sequences padded to one length, or causal ones")
        if cell.option == AVERAGED_WEIGHTS:
            raise NotOffered("its operator does not return weights")
        if cell.is_multihead and cell.dtype != FLOAT32:
            raise NotOffered("measured in float32 only, as a model whose constants it may convert")
        refusals = [
            "its operator without pages has no grouped queries: keys and values would have to be "
            "repeated; that with pages is always causal, of one sequence and width"
        ]
        best = min(self._ways(cell, inputs, refusals), key=_fastest, default=None)
        if best is None:
            raise NotOffered(refusals[-1])
        return best

    def _ways(self, cell: Cell, inputs: Inputs, refusals: list[str]) -> Iterator[Prepared]:
        if cell.is_multihead:
            yield self._compile(*_multihead(cell, inputs), PRECISIONS[cell.dtype])
        elif cell.heads == cell.kv_heads:
            yield self._compile(*_sdpa(cell, inputs), PRECISIONS[cell.dtype])
        if openvino_pages.takes(cell):
            yield from self._paged(cell, inputs, refusals)

    def _paged(self, cell: Cell, inputs: Inputs, refusals: list[str]) -> Iterator[Prepared]:
        try:
            call = openvino_pages.PagedCall(cell, inputs, self.core, self.threads)
        except RuntimeError as error:  # bfloat16 where the processor has no instructions for it.
            reason = str(error).strip().splitlines()[-1][:200]
            refusals.append(f"its operator with pages does not take it here: {reason}")
            return
        yield Prepared(call, call.outputs, "PagedAttention")

    def _compile(
        self, feeds: dict[Node, Array], result: Node, how: str, precision: str
    ) -> Prepared:
        model = openvino.Model([result], list(feeds), "cell")
        options = options_for(self.threads, precision)
        request = self.core.compile_model(model, "CPU", options).create_infer_request()
        for index, array in enumerate(feeds.values()):
            request.set_input_tensor(index, tensor_of(array))
        kept = list(feeds.values())
        return Prepared(
            request.infer,
            lambda: [array_of(request.get_output_tensor(0))][: len(kept)],
            how,
        )


def _fastest(way: Prepared) -> float:
    seconds = []
    for _ in range(1 + TRIALS):
        start = time.perf_counter()
        way.call()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _sdpa(cell: Cell, inputs: Inputs) -> tuple[dict[Node, Array], Node, str]:
    feeds = {parameter(array): array for array in (inputs.query, inputs.key, inputs.value)}
    how = f"ScaledDotProductAttention-13, causal={cell.option == CAUSAL}"
    mask = visible_as_mask(cell, inputs)
    if mask is not None:
        mask = np.broadcast_to(mask, (*mask.shape[:-2], cell.queries, cell.keys)).copy()
        feeds[parameter(mask)] = mask
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
    query = parameter(inputs.query)
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
