# SPDX-License-Identifier: BSD-3-Clause
"""OpenVINO's PagedAttention, which its servers of language models run: always causal, grouped
queries, keys and values in pages of 32 rows that lie in any order.

A call also writes the rows of its own tokens, as in a server: one row where one token decodes.
"""

from collections.abc import Sequence

import numpy as np

from peers.cells import CAUSAL, FULL, INTEGERS, PAGES, Cell
from peers.contestants.openvino_tensors import (
    PRECISIONS,
    array_of,
    kind_of,
    openvino,
    operators,
    options_for,
    tensor_of,
)
from peers.inputs import Array, Inputs

PAGE_ROWS = 32
# What its operator would use for caches that rotate or are thinned out, which these are not.
_BLOCK_OF_SPARSE, _STRIDE_OF_SPARSE = 64, 8


def takes(cell: Cell) -> bool:
    """Causal, or one query, which sees all; one cache of one sequence."""
    if cell.is_multihead or cell.is_backward or cell.head_dim != cell.value_dim:
        return False
    sees_as_causal = cell.option == CAUSAL or (
        cell.queries == 1 and cell.option in (FULL, PAGES, *INTEGERS)
    )
    return sees_as_causal and cell.batch == 1


class PagedCall:
    def __init__(self, cell: Cell, inputs: Inputs, core: openvino.Core, threads: int) -> None:
        self.cell = cell
        query, key, value = (_tokens(array) for array in (inputs.query, inputs.key, inputs.value))
        self._request, caches = _compile(cell, kind_of(query), core, threads)
        pages = np.random.default_rng(0).permutation(-(-cell.keys // PAGE_ROWS))
        self._kept = [
            self._set(f"cache.{name}", _of_pages(port, len(pages))) for name, port in caches
        ]
        self._fill_pages(key, value, pages)
        past = cell.keys - cell.queries
        self._feed(query, key[past:], value[past:], [past], pages, [0, len(pages)], cell.keys)

    def __call__(self) -> None:
        self._request.infer()

    def outputs(self) -> list[Array]:
        cell = self.cell
        rows = array_of(self._request.get_output_tensor(0))
        rows = rows.reshape(1, cell.queries, cell.heads, cell.head_dim)
        return [rows.transpose(0, 2, 1, 3).copy()]

    def _set(self, name: str, tensor: openvino.Tensor) -> openvino.Tensor:
        self._request.set_tensor(name, tensor)
        return tensor

    def _fill_pages(self, key: Array, value: Array, pages: Array) -> None:
        """One call in which each page is a sequence of its own, so that none attends to more."""
        cell = self.cell
        queries = np.zeros((cell.keys, cell.heads * cell.head_dim), key.dtype)
        each = np.arange(len(pages) + 1)
        starts = np.minimum(each * PAGE_ROWS, cell.keys)
        self._feed(queries, key, value, each[:-1] * 0, pages, each, PAGE_ROWS, starts)
        self._request.infer()

    def _feed(
        self,
        query: Array,
        key: Array,
        value: Array,
        past: Sequence[int],
        pages: Array,
        first_page: Sequence[int],
        longest: int,
        starts: Array | None = None,
    ) -> None:
        """Tokens (rows, heads * head_dim) of sequences that have `past` rows in their pages."""
        integers = {
            "past_lens": past,
            "subsequence_begins": [0, len(query)] if starts is None else starts,
            "block_indices": pages,
            "block_indices_begins": first_page,
            "max_context_len": longest,
        }
        self._fed = [
            self._set(name, tensor_of(array))
            for name, array in (("query", query), ("key", key), ("value", value))
        ]
        for name, numbers in integers.items():
            self._set(name, openvino.Tensor(np.array(numbers, np.int32)))


def _tokens(array: Array) -> Array:
    """(1, heads, length, width) -> (length, heads * width)."""
    return np.ascontiguousarray(array[0].transpose(1, 0, 2).reshape(array.shape[2], -1))


def _parameter(name: str, shape: list[int], kind: openvino.Type) -> openvino.Node:
    node = operators.parameter(openvino.PartialShape(shape), kind)
    node.set_friendly_name(name)
    node.output(0).get_tensor().set_names({name})
    return node


def _of_pages(port: openvino.Output, pages: int) -> openvino.Tensor:
    """A cache of the type and shape that the compiled model chose, but for its number of pages."""
    shape = port.get_partial_shape()
    shape[0] = pages
    return openvino.Tensor(port.get_element_type(), shape.to_shape())


def _compile(
    cell: Cell, kind: openvino.Type, core: openvino.Core, threads: int
) -> tuple[openvino.InferRequest, list[tuple[str, openvino.Output]]]:
    """A request for a model of this one operator, and the ports of its caches."""
    width, kv_width = cell.heads * cell.head_dim, cell.kv_heads * cell.head_dim
    inputs = [
        _parameter("query", [-1, width], kind),
        _parameter("key", [-1, kv_width], kind),
        _parameter("value", [-1, kv_width], kind),
        _parameter("cache.key", [-1, PAGE_ROWS, -1], openvino.Type.dynamic),
        _parameter("cache.value", [-1, PAGE_ROWS, -1], openvino.Type.dynamic),
        *(
            _parameter(name, [-1], openvino.Type.i32)
            for name in (
                "past_lens",
                "subsequence_begins",
                "block_indices",
                "block_indices_begins",
            )
        ),
        _parameter("max_context_len", [], openvino.Type.i32),
    ]
    sources = [*inputs[:9], *_settings(cell)]
    sources.insert(12, inputs[9])
    attention = openvino.op._PagedAttentionExtension([node.output(0) for node in sources])
    for name in ("k", "v"):
        attention.get_rt_info()[f"num_{name}_heads"] = cell.kv_heads
        attention.get_rt_info()[f"{name}_head_size"] = cell.head_dim
    precision = PRECISIONS[cell.dtype]
    options = options_for(threads, precision) | dict.fromkeys(
        ("KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION"), precision
    )
    model = openvino.Model([operators.result(attention.output(0))], inputs, "cell")
    compiled = core.compile_model(model, "CPU", options)
    caches = [(name, compiled.input(f"cache.{name}")) for name in ("key", "value")]
    return compiled.create_infer_request(), caches


def _settings(cell: Cell) -> list[openvino.Node]:
    """Inputs 9 to 27 but for max_context_len: the scale; neither window, slopes, scores, rotation,
    thinning, sinks nor what else the operator has. Where an empty tensor says "none" a scalar
    would not: with a scalar score_aggregation_window it returns without computing."""
    kinds = openvino.Type

    def constant(value: float, kind: openvino.Type) -> openvino.Node:
        return operators.constant(np.array(value), dtype=kind)

    def none(kind: openvino.Type) -> openvino.Node:
        return operators.constant(np.zeros(0), dtype=kind)

    return [
        constant(cell.head_dim**-0.5, kinds.f32),
        constant(0, kinds.i32),
        none(kinds.f32),
        *(none(kinds.i32) for _ in range(3)),
        *(none(kinds.f32) for _ in range(2)),
        constant(_BLOCK_OF_SPARSE, kinds.i32),
        constant(_STRIDE_OF_SPARSE, kinds.i32),
        none(kinds.f32),
        constant(0, kinds.i32),
        *(none(kinds.i32) for _ in range(4)),
        none(kinds.u8),
        none(kinds.i32),
    ]
