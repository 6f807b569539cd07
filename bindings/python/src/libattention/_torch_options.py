# SPDX-License-Identifier: BSD-3-Clause
"""The arguments of libattention::sdpa, as its operators and the formula in PyTorch's take them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from libattention._backward import Call
from libattention._dropout import Dropout, checked_dropout
from libattention._kv import KV
from libattention._options import EVERY_KEY, Options, block_lengths

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
    block_mask: Tensor | None = None
    query_starts: Tensor | None = None
    key_starts: Tensor | None = None
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False
    align_end: bool = False
    window_left: int = -1
    window_right: int = -1
    softcap: float = 0.0
    normalizer: str = "softmax"
    block_rows: int = 0
    block_columns: int = 0
    dropout: float = 0.0
    dropout_seed: int = 0
    dropout_offset: int = 0
    dropout_batch: int = 0
    dropout_head: int = 0
    dropout_row: int = 0
    dropout_column: int = 0


# The operator's tensors: those of a call, then those of its options.
TENSORS = ("query", "key", "value", *TorchOptions._fields[:11])
NUM_TENSORS = len(TENSORS)
# Of the schema, by which PyTorch leaves arguments out that are like them.
DEFAULTS = (None, None, None, *TorchOptions())
# Options of the library's by the same names.
_SHARED = sorted({*TorchOptions._fields} & {*Options._fields} - {"dropout"})
DROPOUT = ("dropout", *(f"dropout_{name}" for name in Dropout._fields[1:]))


def torch_options(
    options: Options, query_starts: Tensor | None = None, key_starts: Tensor | None = None
) -> TorchOptions:
    """As the operators take them; arrays are tensors."""
    before, after = options.window
    rows, columns = (0, 0) if options.block_size is None else block_lengths(options.block_size)
    dropout = options.dropout
    numbers = (0.0, 0, 0, 0, 0, 0, 0) if dropout is None else checked_dropout(dropout)
    shared: dict[str, Any] = {name: getattr(options, name) for name in _SHARED}
    return TorchOptions(
        **shared,
        query_starts=query_starts,
        key_starts=key_starts,
        window_left=before,
        window_right=after,
        block_rows=rows,
        block_columns=columns,
        **{name: _signed(number) for name, number in zip(DROPOUT, numbers)},
    )


def _signed(number: Any) -> Any:
    """Unsigned numbers of 64 bits as those of a schema: by their bits."""
    return number - 2**64 if number >= 2**63 else number


def library_call(query: Tensor, key: Tensor, value: Tensor, options: TorchOptions) -> Call:
    """As the functions of all arrays take it."""
    shared: dict[str, Any] = {name: getattr(options, name) for name in _SHARED}
    window = (options.window_left, options.window_right)
    given = Options(**shared)._replace(window=EVERY_KEY if window == EVERY_KEY else window)
    if options.block_rows or options.block_columns:
        given = given._replace(block_size=(options.block_rows, options.block_columns))
    if options.dropout:
        probability, seed, offset, *place = (getattr(options, name) for name in DROPOUT)
        streams = (seed % 2**64, offset % 2**64)
        given = given._replace(dropout=Dropout(probability, *streams, *place))
    if options.key_starts is None:
        return Call(query, key, value, given, None, options.query_starts)
    kv = KV(key, value, starts=options.key_starts, lengths=options.key_lengths)
    return Call(query, None, None, given._replace(key_lengths=None), kv, options.query_starts)


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of the scores of a query of this dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def multiplies_tiles() -> bool:
    """Whether PyTorch multiplies tiles of bfloat16 in hardware (AMX)."""
    told = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return told is not None and bool(told())


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
