# SPDX-License-Identifier: BSD-3-Clause
"""The options of attention, of its own function and inside a layer alike, as the C struct."""

from __future__ import annotations

from operator import index
from typing import Any, Literal, NamedTuple, TypedDict

from libattention._abi import ffi
from libattention._context import number_of
from libattention._dropout import Dropout, dropout_struct
from libattention._dtypes import (
    BIAS,
    BLOCKS,
    BOOL,
    DATA,
    INTEGERS,
    MASK_OF_HIDDEN,
    MASK_OF_SEEN,
)
from libattention._library import Error, assign, lib
from libattention._tensors import Views, described, floats, integers

Normalizer = Literal["softmax", "sigmoid", "linear"]
NORMALIZERS = {
    "softmax": lib.ATTN_NORMALIZER_SOFTMAX,
    "sigmoid": lib.ATTN_NORMALIZER_SIGMOID,
    "linear": lib.ATTN_NORMALIZER_LINEAR,
}
ScoreStage = Literal["scaled", "capped", "masked"]
SCORE_STAGES = {
    "scaled": lib.ATTN_SCORE_SCALED,
    "capped": lib.ATTN_SCORE_CAPPED,
    "masked": lib.ATTN_SCORE_MASKED,
}
# What C calls otherwise.
OPTION_NAMES = {
    "mask": "attn_mask",
    "window_left": "window",
    "window_right": "window",
    "block_rows": "block_size",
    "block_columns": "block_size",
}
EVERY_KEY = (-1, -1)
NO_SOFTCAP = 0.0


class Options(NamedTuple):
    """Everything but query, key, value and what comes out."""

    attn_mask: Any = None
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False
    bias: Any = None
    query_offset: Any = None
    key_lengths: Any = None
    align_end: bool = False
    window: tuple[int, int] = EVERY_KEY
    softcap: float = NO_SOFTCAP
    sinks: Any = None
    alibi_slopes: Any = None
    normalizer: Normalizer = "softmax"
    mask_start: Any = None
    position_bias: Any = None
    block_mask: Any = None
    block_size: int | tuple[int, int] | None = None
    dropout: Dropout | None = None


class FurtherOptions(TypedDict, total=False):
    """Those that PyTorch's functions do not have."""

    bias: Any
    query_offset: Any
    key_lengths: Any
    align_end: bool
    window: tuple[int, int]
    softcap: float
    sinks: Any
    alibi_slopes: Any
    normalizer: Normalizer
    mask_start: Any
    position_bias: Any
    block_mask: Any
    block_size: int | tuple[int, int] | None
    dropout: Dropout | None


NO_OPTIONS = Options()


def make_params(options: Options, views: Views, bool_mask: int) -> Any:
    """The options as an attn_sdpa_params. `bool_mask` is what a bool mask means, an
    attn_mask_kind."""
    params = ffi.new("attn_sdpa_params *")
    params.struct_size = ffi.sizeof("attn_sdpa_params")
    for name in ("is_causal", "enable_gqa", "align_end"):
        assign(params, name, getattr(options, name), name, "True or False")
    assign(params, "softcap", options.softcap, "softcap", "a number")
    params.normalizer = number_of("normalizer", options.normalizer, NORMALIZERS)
    if options.scale is not None:
        params.set |= lib.ATTN_SDPA_SET_SCALE
        assign(params, "scale", options.scale, "scale", "a number or None")
    if options.window is not EVERY_KEY:
        _set_window(params, options.window)
    if options.attn_mask is not None:
        params.mask, params.mask_kind = add_mask(views, options.attn_mask, "attn_mask", bool_mask)
    if options.bias is not None:
        params.bias = views.add_array(options.bias, "bias", BIAS)
    if options.position_bias is not None:
        table = options.position_bias
        params.position_bias = views.add_array(table, "position_bias", BIAS)
    if options.block_mask is not None:
        params.block_mask = views.add_array(options.block_mask, "block_mask", BLOCKS)
    if options.block_size is not None:
        params.block_rows, params.block_columns = block_lengths(options.block_size)
    if options.dropout is not None:
        params.dropout = views.keep(dropout_struct(options.dropout))
    for name in ("query_offset", "key_lengths", "mask_start"):
        values = getattr(options, name)
        if values is not None:
            setattr(params, name, views.add_array(integers(values, name), name, INTEGERS))
    for name in ("sinks", "alibi_slopes"):
        values = getattr(options, name)
        if values is not None:
            setattr(params, name, views.add_array(floats(values, name), name, DATA))
    return params


def block_lengths(size: Any) -> tuple[int, int]:
    """Rows and keys of a block, of a pair or of one number for both."""
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    try:
        rows, keys = (index(one) for one in pair)
    except (TypeError, ValueError) as error:
        text = f"block_size: expected rows and keys of a block, or a number for both, got {size!r}"
        raise Error(lib.ATTN_ERROR_VALUE, text) from error
    if not (0 < rows < 2**63 and 0 < keys < 2**63):
        text = f"block_size: expected 1 and up, got {size!r}"
        raise Error(lib.ATTN_ERROR_VALUE, text)
    return rows, keys


def _set_window(params: Any, window: Any) -> None:
    try:
        before, after = window
    except (TypeError, ValueError) as error:
        text = (
            "window: expected how many keys before and after its position a row sees, "
            f"(before, after), -1 for all; got {window!r}"
        )
        if isinstance(window, int):
            text += f"; that is ({window}, 0) without keys after, ({window}, {window}) with as many"
        raise Error(lib.ATTN_ERROR_VALUE, text) from error
    assign(params, "window_left", before, "window", "a pair of integers")
    assign(params, "window_right", after, "window", "a pair of integers")
    if (before, after) != EVERY_KEY:
        params.set |= lib.ATTN_SDPA_SET_WINDOW
    else:
        params.window_left = params.window_right = 0


def add_mask(views: Views, mask: Any, name: str, bool_mask: int) -> tuple[Any, int]:
    """A view of the mask, and its attn_mask_kind: that of bool ones is given, others are added."""
    is_of_seen = bool_mask == lib.ATTN_MASK_BOOL_INCLUDE
    view = described(mask, name, MASK_OF_SEEN if is_of_seen else MASK_OF_HIDDEN)
    kind = bool_mask if view.dtype == BOOL else lib.ATTN_MASK_ADDITIVE
    return views.add(view, name), kind
