# SPDX-License-Identifier: BSD-3-Clause
"""The arguments of libattention::sdpa, as its operators and the formula in PyTorch's take them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from libattention._options import Options

HALVES = (torch.bfloat16, torch.float16)


class TorchOptions(NamedTuple):
    """The options of libattention::sdpa, in the order of its schema."""

    attn_mask: Tensor | None = None
    bias: Tensor | None = None
    query_offset: Tensor | None = None
    key_lengths: Tensor | None = None
    sinks: Tensor | None = None
    alibi_slopes: Tensor | None = None
    mask_start: Tensor | None = None
    position_bias: Tensor | None = None
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False
    align_end: bool = False
    window_left: int = -1
    window_right: int = -1
    softcap: float = 0.0
    normalizer: str = "softmax"


# The operator's tensors: those of a call, then those of its options.
TENSORS = ("query", "key", "value", *TorchOptions._fields[:8])
NUM_TENSORS = len(TENSORS)
# Of the schema, by which PyTorch leaves arguments out that are like them.
DEFAULTS = (None, None, None, *TorchOptions())
_SHARED = [name for name in TorchOptions._fields if not name.startswith("window")]


def library_options(options: TorchOptions) -> Options:
    """As the function of all arrays takes them."""
    return Options(
        **{name: getattr(options, name) for name in _SHARED},
        window=(options.window_left, options.window_right),
    )


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of the scores of a query of this dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def widened(tensor: Tensor) -> Tensor:
    """16 bits as float32; what is wider stays, and types that do not go together are refused."""
    return tensor.float() if tensor.dtype in HALVES else tensor


def per_batch(values: Tensor) -> Tensor:
    """Numbers over the batch axes, or one for all, beside axes of heads, rows and columns."""
    return values[..., None, None, None] if values.dim() else values[None, None]


def places(length: int) -> Tensor:
    """0, 1, ..., whatever the default device."""
    return torch.arange(length, device="cpu")


def positions(rows: int, keys: int, options: TorchOptions) -> Tensor:
    """Where each row stands among the keys: (L, 1), or (..., 1, L, 1) by batch."""
    position = places(rows)[:, None]
    if options.align_end:
        lengths = options.key_lengths
        return position + (keys - rows if lengths is None else per_batch(lengths - rows))
    if options.query_offset is not None:
        return position + per_batch(options.query_offset)
    return position
