# SPDX-License-Identifier: BSD-3-Clause
"""Scaled dot-product attention."""

from __future__ import annotations

from functools import lru_cache
from operator import is_
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np

from libattention._abi import ffi
from libattention._context import Context, handle_of
from libattention._library import Error, lib, raise_last_error, string, unsupported
from libattention._tensors import BOOL, Views, integers, kind_of

NORMALIZERS = {"softmax": 0, "sigmoid": 1, "none": 2}
ENGINE_NAMES = {1: "blas", 2: "fused"}
GEMM_NAMES = {1: "blas", 2: "native"}
PACKED = {1: "query", 2: "key", 4: "value", 8: "output"}

# What C calls otherwise.
NAMES = {
    "mask": "attn_mask",
    "window_left": "window",
    "window_right": "window",
    "output": "out",
    "lse": "return_lse",
    "weights": "return_weights",
}
MOST_VIEWS = 12


class Options(NamedTuple):
    """Everything but query, key, value and what comes out."""

    attn_mask: Any
    is_causal: bool
    scale: float | None
    enable_gqa: bool
    query_offset: Any
    key_lengths: Any
    window: tuple[int, int]
    softcap: float
    sinks: Any
    alibi_slopes: Any
    normalizer: str


# Compared by identity: arrays are not compared, and objects that are merely equal only cost time.
EVERY_KEY = (-1, -1)
NO_SOFTCAP = 0.0
NO_OPTIONS = Options(
    None, False, None, False, None, None, EVERY_KEY, NO_SOFTCAP, None, None, "softmax"
)


def make_params(options: Options, views: Views) -> Any:
    """The options as the C struct."""
    params = ffi.new("attn_sdpa_params *")
    params.struct_size = ffi.sizeof("attn_sdpa_params")
    params.is_causal = options.is_causal
    params.softcap = options.softcap
    params.normalizer = _normalizer_number(options.normalizer)
    if options.scale is not None:
        params.flags |= lib.ATTN_SDPA_SET_SCALE
        params.scale = options.scale
    if options.enable_gqa:
        params.flags |= lib.ATTN_SDPA_ENABLE_GQA
    if tuple(options.window) != EVERY_KEY:
        params.flags |= lib.ATTN_SDPA_SET_WINDOW
        params.window_left, params.window_right = options.window
    if options.attn_mask is not None:
        mask = kind_of(options.attn_mask, "attn_mask").describe(
            options.attn_mask, "attn_mask", False
        )
        params.mask = views.add(mask, options.attn_mask, "attn_mask")
        params.mask_kind = (
            lib.ATTN_MASK_BOOL_INCLUDE if mask.dtype == BOOL else lib.ATTN_MASK_ADDITIVE
        )
    for name in ("query_offset", "key_lengths"):
        values = getattr(options, name)
        if values is not None:
            setattr(params, name, views.add_array(integers(values, name), name))
    for name in ("sinks", "alibi_slopes"):
        values = getattr(options, name)
        if values is not None:
            if isinstance(values, (list, tuple)):
                values = np.asarray(values, dtype=np.float32)
            setattr(params, name, views.add_array(values, name))
    return params


def _normalizer_number(name: str) -> int:
    if name not in NORMALIZERS:
        expected = ", ".join(map(repr, NORMALIZERS))
        raise Error(lib.ATTN_ERROR_VALUE, f"normalizer: expected one of {expected}, got {name!r}")
    return NORMALIZERS[name]


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape; the first one if there is none, which the C library then refuses."""
    if all(shape == shapes[0] for shape in shapes):
        return shapes[0]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        return shapes[0]


@lru_cache(maxsize=1024)
def output_shape(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], enable_gqa: bool
) -> tuple[int, ...]:
    """(batch axes, Hq, L, Ev). Where the inputs do not fit, any shape: the C library refuses
    them."""
    if min(len(query), len(key), len(value)) < 2:
        return query
    tail = (query[-2], value[-1])
    leads = [shape[:-2] for shape in (query, key, value)]
    if enable_gqa and all(leads):
        return (*_broadcast(*[lead[:-1] for lead in leads]), leads[0][-1], *tail)
    return (*_broadcast(*leads), *tail)


def _refuse_dropout() -> NoReturn:
    raise unsupported("dropout_p: expected 0, there is no dropout: this is inference")


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    query_offset: Any = None,
    key_lengths: Any = None,
    window: tuple[int, int] = EVERY_KEY,
    softcap: float = NO_SOFTCAP,
    sinks: Any = None,
    alibi_slopes: Any = None,
    normalizer: Literal["softmax", "sigmoid", "none"] = "softmax",
    return_lse: bool = False,
    return_weights: bool = False,
    out: Any = None,
    context: Context | None = None,
) -> Any:
    """Computes normalise(scale * query @ key^T, softcap, ALiBi, mask) @ value.

    It is torch.nn.functional.scaled_dot_product_attention, with the options of the field beside
    PyTorch's. All of them compose.

    Args:
        query: (..., Hq, L, E), ranks 2 to 8; float32 or float64 as key and value
        key: (..., Hk, S, E)
        value: (..., Hv, S, Ev)
        attn_mask: broadcastable to (..., Hq, L, S). Bool: True takes part; float: added
        dropout_p: must be 0
        is_causal: row i sees keys up to i + query_offset; composes with attn_mask
        scale: of the scores; None: 1 / sqrt(E)
        enable_gqa: Hq is a multiple of Hk and of Hv
        query_offset: position of row 0 among the keys: a number, or int64 over the batch axes;
            S - 1 where one row is decoded over S cached keys
        key_lengths: keys at or past it do not exist: a number, or int64 over the batch axes
        window: so many keys before and after a row's position are seen; -1: all
        softcap: > 0: scores are softcap * tanh(score / softcap)
        sinks: (Hq) or (1): one more logit in the denominator
        alibi_slopes: (Hq) or (1): scores lose slope * distance
        normalizer: what makes weights of scores
        return_lse: also return (..., Hq, L), the logarithms of the rows' sums
        return_weights: also return (..., Hq, L, S)
        out: where to put the output, (..., Hq, L, Ev); must not overlap an input
        context: threads, engine and kernels; None: the default

    Returns:
        The output (..., Hq, L, Ev), of the kind and dtype of query; with return_lse or
        return_weights (output, lse), (output, weights) or (output, lse, weights).

    A row that sees nothing is 0 (lse -inf). The GIL is released while computing.

    Raises:
        Error: the first argument that does not fit, by name.
    """
    if dropout_p != 0:
        _refuse_dropout()
    options = (
        attn_mask,
        is_causal,
        scale,
        enable_gqa,
        query_offset,
        key_lengths,
        window,
        softcap,
        sinks,
        alibi_slopes,
        normalizer,
    )
    views = Views(MOST_VIEWS)
    kind = kind_of(query, "query")
    described = kind.describe(query, "query", False)
    described_key = kind_of(key, "key").describe(key, "key", False)
    described_value = kind_of(value, "value").describe(value, "value", False)
    query_view = views.add(described, query, "query")
    key_view = views.add(described_key, key, "key")
    value_view = views.add(described_value, value, "value")
    dtype = described.dtype
    shape = output_shape(described.shape, described_key.shape, described_value.shape, enable_gqa)
    if out is None:
        output, described_output = kind.empty(shape, dtype, query)
        output_view = views.add(described_output, output, "out")
    else:
        output, output_view = out, views.add_array(out, "out", True)
    results = [output]
    params = ffi.NULL
    if return_lse or return_weights or not all(map(is_, options, NO_OPTIONS)):
        params = make_params(Options._make(options), views)
    if return_lse:
        lse, view = kind.empty(shape[:-1], dtype, query)
        params.lse = views.add(view, lse, "return_lse")
        results.append(lse)
    if return_weights:
        weights, view = kind.empty((*shape[:-1], described_key.shape[-2]), dtype, query)
        params.weights = views.add(view, weights, "return_weights")
        results.append(weights)
    views.finish()
    handle = ffi.NULL if context is None else handle_of(context)
    status = lib.attn_sdpa(
        handle, query_view, key_view, value_view, params, output_view, ffi.NULL, 0
    )
    if status:
        raise_last_error(status, NAMES)
    return output if len(results) == 1 else tuple(results)


def explain(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    query_offset: Any = None,
    key_lengths: Any = None,
    window: tuple[int, int] = EVERY_KEY,
    softcap: float = NO_SOFTCAP,
    sinks: Any = None,
    alibi_slopes: Any = None,
    normalizer: Literal["softmax", "sigmoid", "none"] = "softmax",
    context: Context | None = None,
) -> dict[str, Any]:
    """What scaled_dot_product_attention would run for the same arguments, and why.

    Returns:
        engine, gemm, kernels, reason (a sentence), row_block and num_blocks (how the rows are cut),
        workspace_bytes, copies (the tensors that go through scratch memory), and
        depends_on_blas_threads.
    """
    if dropout_p != 0:
        _refuse_dropout()
    options = Options(
        attn_mask,
        is_causal,
        scale,
        enable_gqa,
        query_offset,
        key_lengths,
        window,
        softcap,
        sinks,
        alibi_slopes,
        normalizer,
    )
    views = Views(MOST_VIEWS)
    inputs = {"query": query, "key": key, "value": value}
    found = [kind_of(array, name).describe(array, name, False) for name, array in inputs.items()]
    arguments = [views.add(view, array, name) for view, (name, array) in zip(found, inputs.items())]
    params = make_params(options, views)
    shape = output_shape(*[view.shape for view in found], enable_gqa)
    output, view = kind_of(query, "query").empty(shape, found[0].dtype, query)
    report = ffi.new("attn_sdpa_report *", {"struct_size": ffi.sizeof("attn_sdpa_report")})
    arguments += [params, views.add(view, output, "out"), report]
    views.finish()
    status = lib.attn_sdpa_explain(handle_of(context), *arguments)
    if status:
        raise_last_error(status, NAMES)
    return {
        "engine": ENGINE_NAMES[report.engine],
        "gemm": GEMM_NAMES[report.gemm],
        "kernels": string(report.kernels),
        "reason": string(report.reason),
        "row_block": report.row_block,
        "num_blocks": report.num_blocks,
        "workspace_bytes": report.workspace_bytes,
        "copies": [name for bit, name in PACKED.items() if report.packs & bit],
        "depends_on_blas_threads": bool(report.depends_on_blas_threads),
    }
