# SPDX-License-Identifier: BSD-3-Clause
"""The options of attention, of its own function and inside a layer alike, as the C struct."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

from libattention._abi import ffi
from libattention._context import number_of
from libattention._library import lib
from libattention._tensors import BOOL, Views, described, integers

Normalizer = Literal["softmax", "sigmoid", "linear"]
NORMALIZERS = {
    "softmax": lib.ATTN_NORMALIZER_SOFTMAX,
    "sigmoid": lib.ATTN_NORMALIZER_SIGMOID,
    "linear": lib.ATTN_NORMALIZER_LINEAR,
}
# What C calls otherwise.
OPTION_NAMES = {"mask": "attn_mask", "window_left": "window", "window_right": "window"}
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


NO_OPTIONS = Options()


def make_params(options: Options, views: Views, bool_mask: int) -> Any:
    """The options as an attn_sdpa_params. `bool_mask` is what a bool mask means, an
    attn_mask_kind."""
    params = ffi.new("attn_sdpa_params *")
    params.struct_size = ffi.sizeof("attn_sdpa_params")
    params.is_causal = options.is_causal
    params.enable_gqa = options.enable_gqa
    params.align_end = options.align_end
    params.softcap = options.softcap
    params.normalizer = number_of("normalizer", options.normalizer, NORMALIZERS)
    if options.scale is not None:
        params.set |= lib.ATTN_SDPA_SET_SCALE
        params.scale = options.scale
    if tuple(options.window) != EVERY_KEY:
        params.set |= lib.ATTN_SDPA_SET_WINDOW
        params.window_left, params.window_right = options.window
    if options.attn_mask is not None:
        params.mask, params.mask_kind = add_mask(views, options.attn_mask, "attn_mask", bool_mask)
    if options.bias is not None:
        params.bias = views.add_array(options.bias, "bias")
    for name in ("query_offset", "key_lengths"):
        values = getattr(options, name)
        if values is not None:
            setattr(params, name, views.add_array(integers(values), name))
    for name in ("sinks", "alibi_slopes"):
        values = getattr(options, name)
        if values is not None:
            if isinstance(values, (list, tuple)):
                values = np.asarray(values, dtype=np.float32)
            setattr(params, name, views.add_array(values, name))
    return params


def add_mask(views: Views, mask: Any, name: str, bool_mask: int) -> tuple[Any, int]:
    """A view of the mask, and its attn_mask_kind: that of bool ones is given, others are added."""
    view = described(mask, name)
    kind = bool_mask if view.dtype == BOOL else lib.ATTN_MASK_ADDITIVE
    return views.add(view, mask, name), kind
