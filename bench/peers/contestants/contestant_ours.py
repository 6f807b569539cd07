# SPDX-License-Identifier: BSD-3-Clause
"""libattention through its C interface, as a program would use it: workspace and outputs
allocated once."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_size_t, c_void_p
from pathlib import Path

import numpy as np

from peers.cells import (
    ADDITIVE_MASK,
    AVERAGED_WEIGHTS,
    CAUSAL,
    DOCUMENTS,
    DOCUMENTS_BLOCKS,
    INTEGERS,
    PAGES,
    RAGGED,
    WINDOW,
    Cell,
)
from peers.contestants import abi
from peers.contestants.contestant import Call, Contestant, Prepared
from peers.inputs import Array, Inputs, empty, starts_of, widened

ENGINES = {1: "blas", 2: "fused"}

# Where the launcher says that the library is.
LIBRARY_VARIABLE = "ATTENTION_BENCH_LIBRARY"


class Ours(Contestant):
    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.library = abi.Library(Path(os.environ[LIBRARY_VARIABLE]))
        self.context = c_void_p()
        config = abi.ContextConfig(num_threads=threads)
        self.library.call("attn_context_create", byref(config), byref(self.context))

    def describe(self) -> dict[str, str]:
        info = abi.ContextInfo()
        self.library.call("attn_context_describe", self.context, byref(info))
        kernels, blas = info.kernels.decode(), info.blas.decode()
        return {
            "version": self.library.version(),
            "kernels": kernels,
            "blas": blas,
            "configuration": f"the default engine, kernels {kernels}, BLAS {blas}; workspace given",
        }

    def prepare(self, cell: Cell, inputs: Inputs) -> Prepared:
        if cell.is_backward:
            return self._backward(cell, inputs)
        return self._multihead(cell, inputs) if cell.is_multihead else self._sdpa(cell, inputs)

    def _workspace(self, name: str, *arguments: object) -> np.ndarray:
        needed = c_size_t()
        self.library.call(name, self.context, *arguments, byref(needed))
        return np.empty(needed.value, dtype=np.uint8)

    def _checked(self, name: str, *arguments: object) -> Call:
        """A call without arguments; a failure is noticed outside of the timed loop by the first
        one."""
        self.library.call(name, self.context, *arguments)
        function, context = self.library.function(name), self.context
        return lambda: function(context, *arguments)

    def _sdpa(self, cell: Cell, inputs: Inputs) -> Prepared:
        output = empty((*inputs.query.shape[:-1], cell.value_dim), cell.dtype)
        arrays = [inputs.query, inputs.key, inputs.value, output]
        query, key, value, result = (byref(abi.view(array)) for array in arrays)
        params = _sdpa_params(cell, inputs)
        cache = _cache(cell, inputs)
        if cache:
            key = value = None
            views = {name: abi.pointer_to(abi.view(array)) for name, array in cache.items()}
            params.kv = ctypes.pointer(abi.Kv(**views))
        if cell.option == RAGGED:
            params.query_starts = views["starts"]
        arguments = [query, key, value, byref(params), result]
        workspace = self._workspace("attn_sdpa_workspace_bytes", *arguments)
        report = abi.SdpaReport()
        self.library.call("attn_sdpa_explain", self.context, *arguments, byref(report))
        call = self._checked("attn_sdpa", *arguments, workspace.ctypes.data, workspace.nbytes)
        engine = ENGINES.get(report.engine, str(report.engine))
        how = f"attn_sdpa, {engine} engine: {report.reason.decode()}"
        kept = (arrays, cache, params, workspace, inputs)
        return Prepared(call, lambda: [widened(output)][: len(kept)], how)

    def _backward(self, cell: Cell, inputs: Inputs) -> Prepared:
        """The forward pass is done once, for output and lse."""
        inputs_of = [inputs.query, inputs.key, inputs.value]
        output = empty((*inputs.query.shape[:-1], cell.value_dim), cell.dtype)
        lse = np.empty(inputs.query.shape[:-1], dtype=np.float32)
        results = [empty(array.shape, cell.dtype) for array in inputs_of]
        query, key, value, out = (byref(abi.view(array)) for array in [*inputs_of, output])
        params = _sdpa_params(cell, inputs)
        params.lse = abi.pointer_to(abi.view(lse))
        arguments = [query, key, value, byref(params), out]
        self.library.call("attn_sdpa", self.context, *arguments, None, 0)
        names = ("output", "query", "key", "value")
        arrays = [inputs.gradient, *results]
        views = {n: abi.pointer_to(abi.view(one)) for n, one in zip(names, arrays, strict=True)}
        gradients = abi.SdpaGradients(**views)
        arguments.append(byref(gradients))
        workspace = self._workspace("attn_sdpa_backward_workspace_bytes", *arguments)
        call = self._checked(
            "attn_sdpa_backward", *arguments, workspace.ctypes.data, workspace.nbytes
        )
        kept = (inputs, output, lse, params, gradients, workspace)
        return Prepared(
            call,
            lambda: [widened(one) for one in results][: len(kept)],
            "attn_sdpa_backward, the forward pass done before",
        )

    def _layer(self, cell: Cell, parameters: dict[str, Array]) -> c_void_p:
        config = abi.MhaConfig(
            embed_dim=cell.embed_dim,
            num_heads=cell.heads,
            batch_first=1,
            dtype=abi.dtype_of(parameters["in_proj_weight"]),
        )
        layer = c_void_p()
        self.library.call("attn_mha_create", self.context, byref(config), byref(layer))
        for name, values in parameters.items():
            self.library.call(
                "attn_mha_load_parameter",
                self.context,
                layer,
                name.encode(),
                byref(abi.view(values)),
                None,
            )
        return layer

    def _multihead(self, cell: Cell, inputs: Inputs) -> Prepared:
        layer = _OwnedLayer(self.library, self._layer(cell, inputs.parameters))
        outputs = [empty((cell.batch, cell.queries, cell.embed_dim), cell.dtype)]
        params = abi.MhaParams()
        if cell.option == AVERAGED_WEIGHTS:
            outputs.append(empty((cell.batch, cell.queries, cell.keys), cell.dtype))
            attention = abi.SdpaParams(weights=abi.pointer_to(abi.view(outputs[1])))
            params.attention = ctypes.pointer(attention)
        query, result = byref(abi.view(inputs.query)), byref(abi.view(outputs[0]))
        arguments = [layer.handle, query, query, query, byref(params), result]
        workspace = self._workspace("attn_mha_workspace_bytes", *arguments)
        call = self._checked(
            "attn_mha_forward", *arguments, workspace.ctypes.data, workspace.nbytes
        )
        kept = (layer, params, workspace, inputs)
        return Prepared(
            call,
            lambda: [widened(output) for output in outputs][: len(kept)],
            "attn_mha_forward, parameters copied into the layer",
        )


class _OwnedLayer:
    """Frees the layer with the cell."""

    def __init__(self, library: abi.Library, handle: c_void_p) -> None:
        self.library = library
        self.handle = handle

    def __del__(self) -> None:
        self.library.destroy_layer(self.handle)


PAGE_ROWS = 16


def _in_pages(rows: Array, table: Array) -> Array:
    """(heads, keys, width) as pages (pages, heads, PAGE_ROWS, width), page j at table[j]."""
    heads, keys, width = rows.shape
    pages = np.empty((len(table), heads, PAGE_ROWS, width), rows.dtype)
    split = rows.reshape(heads, keys // PAGE_ROWS, PAGE_ROWS, width)
    pages[table] = split.transpose(1, 0, 2, 3)
    return pages


def _cache(cell: Cell, inputs: Inputs) -> dict[str, Array]:
    """The fields of attn_kv; none where keys and values are plain tensors."""
    if cell.option in INTEGERS:
        return inputs.integers
    if cell.option == RAGGED:
        return {"key": inputs.key, "value": inputs.value, "starts": starts_of(cell)}
    if cell.option != PAGES:
        return {}
    table = np.random.default_rng(0).permutation(cell.keys // PAGE_ROWS).astype(np.int32)
    return {
        "key": _in_pages(inputs.key[0], table),
        "value": _in_pages(inputs.value[0], table),
        "page_table": table[None],
    }


def _set_blocks(cell: Cell, params: abi.SdpaParams) -> None:
    """A block for each pair of documents, which are of equal length."""
    blocks = np.eye(DOCUMENTS, dtype=np.uint8)  # ATTN_BLOCK_VISIBLE is 1
    params.block_mask = abi.pointer_to(abi.view(blocks))
    params.block_rows = cell.queries // DOCUMENTS
    params.block_columns = cell.keys // DOCUMENTS


def _sdpa_params(cell: Cell, inputs: Inputs) -> abi.SdpaParams:
    params = abi.SdpaParams()
    if cell.heads != cell.kv_heads:
        params.enable_gqa = 1
    if cell.option == CAUSAL:
        params.is_causal = 1
    if cell.option == WINDOW:
        params.set |= abi.SET_WINDOW
        params.window_left, params.window_right = cell.window_left, cell.window_right
    if inputs.key_lengths is not None:
        params.key_lengths = abi.pointer_to(abi.view(inputs.key_lengths))
    if cell.option == DOCUMENTS_BLOCKS:
        _set_blocks(cell, params)
    elif inputs.mask is not None:
        params.mask_kind = (
            abi.MASK_ADDITIVE if cell.option == ADDITIVE_MASK else abi.MASK_BOOL_INCLUDE
        )
        params.mask = abi.pointer_to(abi.view(inputs.mask))
    return params
