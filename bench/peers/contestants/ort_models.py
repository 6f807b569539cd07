# SPDX-License-Identifier: BSD-3-Clause
"""The ONNX models with which ONNX Runtime may compute a cell: every way it has, for the fastest
one to be taken.

A model's inputs are `feeds` in the layout its operator wants; laying them out is done once,
outside of the timing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from peers.cells import (
    AVERAGED_WEIGHTS,
    CAUSAL,
    FLOAT32,
    FULL,
    INT8_TENSOR,
    INTEGERS,
    LENGTHS,
    PAGES,
    Cell,
)
from peers.inputs import Array, Inputs, lengths_as_mask, visible_as_mask, widened

CONTRIB = "com.microsoft"
_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.bool_): TensorProto.BOOL,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
}


def _same(array: Array) -> Array:
    return array


@dataclass
class Candidate:
    """One model and what turns its results into our layout."""

    how: str
    nodes: list[onnx.NodeProto]
    feeds: dict[str, Array]
    outputs: dict[str, tuple[int, ...]]
    constants: dict[str, Array] = field(default_factory=dict)
    opset: int = 23
    restore: Callable[[Array], Array] = _same
    # The first output's; it is followed by those that are written where a feed lies.
    dtype: np.dtype = np.dtype(np.float32)
    in_place: dict[str, str] = field(default_factory=dict)
    # Read by the runtime when the session is made.
    environment: dict[str, str] = field(default_factory=dict)

    def model(self) -> bytes:
        inputs = [
            helper.make_tensor_value_info(name, _TYPES[array.dtype], array.shape)
            for name, array in self.feeds.items()
        ]
        outputs = [
            helper.make_tensor_value_info(name, _TYPES[self.dtype], shape)
            for name, shape in self.outputs.items()
        ]
        outputs += [
            helper.make_tensor_value_info(
                name, _TYPES[self.feeds[feed].dtype], self.feeds[feed].shape
            )
            for name, feed in self.in_place.items()
        ]
        constants = [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in self.constants.items()
        ]
        graph = helper.make_graph(self.nodes, "cell", inputs, outputs, constants)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(CONTRIB, 1)]
        # The runtime may be older than the package that writes the model.
        return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def candidates(cell: Cell, inputs: Inputs) -> Iterator[Candidate]:
    if cell.is_multihead:
        yield _multihead_standard(cell, inputs)
        if cell.option != AVERAGED_WEIGHTS:
            yield _multihead_contrib(cell, inputs)
        return
    if _is_grouped_query_attention(cell):
        yield _grouped(cell, inputs, "flash attention where it has it", {})
        yield _grouped(cell, inputs, "no flash attention", {"ORT_GQA_DISABLE_FLASH_ATTENTION": "1"})
    if cell.dtype != FLOAT32 or cell.option == INT8_TENSOR:
        return
    yield _standard(cell, inputs)
    if inputs.key_lengths is not None:
        yield _standard_with_lengths(cell, inputs, inputs.key_lengths)
    if cell.heads == cell.kv_heads:
        yield _contrib(cell, inputs)


def _output_shape(cell: Cell) -> tuple[int, ...]:
    return (cell.batch, cell.heads, cell.queries, cell.value_dim)


def _standard(cell: Cell, inputs: Inputs) -> Candidate:
    """The standard's operator, with a mask for what it has no option for."""
    feeds = {"query": inputs.query, "key": inputs.key, "value": inputs.value}
    mask = visible_as_mask(cell, inputs)
    if mask is not None:
        if mask.ndim == 4:
            mask = np.ascontiguousarray(
                np.broadcast_to(mask, (cell.batch, 1, cell.queries, cell.keys))
            )
        feeds["mask"] = mask
    node = helper.make_node(
        "Attention", list(feeds), ["output"], is_causal=int(cell.option == CAUSAL)
    )
    text = "" if mask is None else f", {mask.dtype} mask {mask.shape}"
    return Candidate(f"Attention-23{text}", [node], feeds, {"output": _output_shape(cell)})


def _standard_with_lengths(cell: Cell, inputs: Inputs, lengths: Array) -> Candidate:
    feeds = {
        "query": inputs.query,
        "key": inputs.key,
        "value": inputs.value,
        "lengths": lengths,
    }
    node = helper.make_node(
        "Attention", ["query", "key", "value", "", "", "", "lengths"], ["output"]
    )
    return Candidate(
        "Attention-24, nonpad_kv_seqlen", [node], feeds, {"output": _output_shape(cell)}, opset=24
    )


def _heads_last(array: Array) -> Array:
    """(batch, heads, length, width) -> (batch, length, heads * width)."""
    batch, heads, length, width = array.shape
    return np.ascontiguousarray(array.transpose(0, 2, 1, 3)).reshape(batch, length, heads * width)


def _contrib(cell: Cell, inputs: Inputs) -> Candidate:
    feeds = {
        name: _heads_last(array)
        for name, array in (("query", inputs.query), ("key", inputs.key), ("value", inputs.value))
    }
    names = [*feeds, "", "", ""]
    how = "contrib MultiHeadAttention"
    if cell.option == LENGTHS:
        exists = lengths_as_mask(cell)[:, 0, 0, :]
        feeds["padding"] = exists.astype(np.int32)
        names[4] = "padding"
        how += ", key_padding_mask (batch, keys)"
    else:
        mask = visible_as_mask(cell, inputs)
        if mask is not None:
            feeds["bias"] = _additive(mask)[None, None]
            names[5] = "bias"
            how += f", attention_bias {feeds['bias'].shape}"
    node = helper.make_node(
        "MultiHeadAttention",
        names,
        ["output"],
        domain=CONTRIB,
        num_heads=cell.heads,
        unidirectional=int(cell.option == CAUSAL),
    )
    shape = (cell.batch, cell.queries, cell.heads * cell.value_dim)

    def restore(array: Array) -> Array:
        return array.reshape(cell.batch, cell.queries, cell.heads, cell.value_dim).transpose(
            0, 2, 1, 3
        )

    return Candidate(how, [node], feeds, {"output": shape}, restore=restore)


def _is_grouped_query_attention(cell: Cell) -> bool:
    """The contrib operator is causal, queries at the end of the keys, and has its own forms of
    integers."""
    sees_all = cell.queries == 1 and cell.option in (FULL, PAGES, INT8_TENSOR)
    is_causal = cell.option == CAUSAL and cell.queries == cell.keys
    return (sees_all or is_causal) and cell.head_dim == cell.value_dim


def _grouped(cell: Cell, inputs: Inputs, way: str, environment: dict[str, str]) -> Candidate:
    """Over a cache that new rows are stored in, as a decoder's graph has it: the rows of the
    queries' own positions are fed, and are in the cache already."""
    new = cell.keys - cell.queries
    feeds = {
        "query": _heads_last(inputs.query),
        "key": _heads_last(inputs.key[:, :, new:]),
        "value": _heads_last(inputs.value[:, :, new:]),
        "past_key": inputs.integers.get("key", inputs.key).copy(),
        "past_value": inputs.integers.get("value", inputs.value).copy(),
        "last_position": np.full(cell.batch, cell.keys - 1, np.int32),
        "total_length": np.array([cell.keys], np.int32),
    }
    names = list(feeds)
    options: dict[str, Any] = {}
    if cell.option in INTEGERS:
        feeds |= {
            "key_scale": inputs.integers["key_scale"].reshape(1),
            "value_scale": inputs.integers["value_scale"].reshape(1),
        }
        names += [""] * 5 + ["key_scale", "value_scale"]
        options = {
            "k_quant_type": "PER_TENSOR",
            "v_quant_type": "PER_TENSOR",
            "kv_cache_bit_width": 8,
        }
    in_place = {"present_key": "past_key", "present_value": "past_value"}
    node = helper.make_node(
        "GroupQueryAttention",
        names,
        ["output", *in_place],
        domain=CONTRIB,
        num_heads=cell.heads,
        kv_num_heads=cell.kv_heads,
        **options,
    )
    shape = (cell.batch, cell.queries, cell.heads * cell.value_dim)

    def restore(array: Array) -> Array:
        rows = array.reshape(cell.batch, cell.queries, cell.heads, cell.value_dim)
        return widened(rows.transpose(0, 2, 1, 3))

    return Candidate(
        f"contrib GroupQueryAttention, cache in place, {way}",
        [node],
        feeds,
        {"output": shape},
        restore=restore,
        dtype=feeds["query"].dtype,
        in_place=in_place,
        environment=environment,
    )


def _additive(mask: Array) -> Array:
    if mask.dtype != np.bool_:
        return mask
    return np.where(mask, np.float32(0), np.float32(-np.inf))


def _multihead_constants(inputs: Inputs) -> dict[str, Array]:
    parameters = inputs.parameters
    return {
        "in_weight": parameters["in_proj_weight"].T,
        "in_bias": parameters["in_proj_bias"],
        "out_weight": parameters["out_proj.weight"].T,
        "out_bias": parameters["out_proj.bias"],
    }


def _out_projection() -> list[onnx.NodeProto]:
    return [
        helper.make_node("MatMul", ["context", "out_weight"], ["projected"]),
        helper.make_node("Add", ["projected", "out_bias"], ["output"]),
    ]


def _multihead_standard(cell: Cell, inputs: Inputs) -> Candidate:
    outputs: dict[str, tuple[int, ...]] = {"output": inputs.query.shape}
    attention_outputs = ["context"]
    options: dict[str, Any] = {"q_num_heads": cell.heads, "kv_num_heads": cell.heads}
    averaging = []
    constants = _multihead_constants(inputs) | {
        "parts": np.array([cell.embed_dim] * 3, dtype=np.int64)
    }
    if cell.option == AVERAGED_WEIGHTS:
        outputs["weights"] = (cell.batch, cell.queries, cell.keys)
        attention_outputs += ["", "", "head_weights"]
        options["qk_matmul_output_mode"] = 3
        constants["head_axis"] = np.array([1], dtype=np.int64)
        averaging = [
            helper.make_node("ReduceMean", ["head_weights", "head_axis"], ["weights"], keepdims=0)
        ]
    nodes = [
        helper.make_node("MatMul", ["query", "in_weight"], ["packed_product"]),
        helper.make_node("Add", ["packed_product", "in_bias"], ["packed"]),
        helper.make_node("Split", ["packed", "parts"], ["q", "k", "v"], axis=2),
        helper.make_node("Attention", ["q", "k", "v"], attention_outputs, **options),
        *averaging,
        *_out_projection(),
    ]
    how = "MatMul, Add, Split, Attention-23, MatMul, Add"
    if averaging:
        how += "; weights from qk_matmul_output by ReduceMean"
    return Candidate(how, nodes, {"query": inputs.query}, outputs, constants)


def _multihead_contrib(cell: Cell, inputs: Inputs) -> Candidate:
    """ONNX Runtime's own operator does the projections of query, key and value too."""
    nodes = [
        helper.make_node(
            "Attention",
            ["query", "in_weight", "in_bias"],
            ["context"],
            domain=CONTRIB,
            num_heads=cell.heads,
        ),
        *_out_projection(),
    ]
    outputs = {"output": inputs.query.shape}
    return Candidate(
        "contrib Attention, MatMul, Add",
        nodes,
        {"query": inputs.query},
        outputs,
        _multihead_constants(inputs),
    )
