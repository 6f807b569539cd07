# SPDX-License-Identifier: BSD-3-Clause
"""Options that the formula in PyTorch's operators does not have, as others that it has: a mask that
begins at some key, a mask by blocks and a bias by distance, each over all keys; dropout as factors
of the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from libattention._library import Error, lib, unsupported
from libattention._options import block_lengths
from libattention._torch_options import (
    DROPOUT,
    TorchOptions,
    per_batch,
    places,
    positions,
    score_dtype,
    widened,
)
from libattention._torch_ordinary import reason_there_are_no_numbers
from libattention._torch_shapes import shape_of_scores

# Of TorchOptions.
WRITTEN_OUT = ("mask_start", "block_mask", "position_bias")


def written_out(query: Tensor, key: Tensor, options: TorchOptions) -> TorchOptions:
    """The options with attn_mask and bias of all keys in place of mask_start, block_mask and
    position_bias."""
    rows, keys = query.shape[-2], key.shape[-2]
    mask, bias = options.attn_mask, options.bias
    if options.mask_start is not None:
        if mask is None:
            raise Error(lib.ATTN_ERROR_VALUE, "mask_start: expected None without attn_mask")
        mask = _padded(mask, options.mask_start, keys)
    if options.block_mask is not None:
        mask = _in_blocks(mask, options.block_mask, rows, keys, options)
    if options.position_bias is not None:
        added = _by_distance(widened(options.position_bias), rows, keys, options)
        added = added[0] if max(query.dim(), key.dim()) == 2 else added
        bias = added if bias is None else added + bias
    return options._replace(
        attn_mask=mask, bias=bias, mask_start=None, block_mask=None, position_bias=None
    )


def _refuse_unknown_blocks(blocks: Tensor) -> None:
    """Refuses values that a later version may have a meaning for, as the library does."""
    if reason_there_are_no_numbers((blocks,)) is None and blocks.numel() > 0:
        largest = int(blocks.max())
        if largest > lib.ATTN_BLOCK_MASKED:
            text = f"expected elements of enum attn_block (0 to 2), got {largest}"
            raise unsupported(f"block_mask: {text}")


def _in_blocks(
    mask: Tensor | None, blocks: Tensor, rows: int, keys: int, options: TorchOptions
) -> Tensor:
    """(..., L, S): hidden, visible, or the mask, block by block."""
    lengths = block_lengths((options.block_rows, options.block_columns))
    if blocks.dtype != torch.uint8 or blocks.dim() == 0:
        text = f"block_mask: expected dtype uint8 and rank 1 and up, got {blocks.dtype}"
        raise Error(lib.ATTN_ERROR_DTYPE, text)
    _refuse_unknown_blocks(blocks)
    axes = (rows, keys) if blocks.dim() > 1 else (keys,)
    for axis, count in enumerate(axes, -len(axes)):
        length, of_one = blocks.shape[axis], lengths[axis]
        needed = -(-count // of_one)
        if length not in (1, needed):
            text = f"block_mask: expected {needed} or 1 on axis {axis}, got {length}"
            raise Error(lib.ATTN_ERROR_SHAPE, text)
        if length > 1:
            number = torch.arange(count, device="cpu") // of_one
            blocks = blocks.index_select(axis, number)
    if mask is None:
        seen: Tensor = blocks != lib.ATTN_BLOCK_HIDDEN
        return seen.expand(*blocks.shape[:-1], keys)
    is_bool = mask.dtype == torch.bool
    shown, hidden = (True, False) if is_bool else (0.0, -torch.inf)
    asked = torch.where(blocks == lib.ATTN_BLOCK_MASKED, mask, shown)
    return torch.where(blocks == lib.ATTN_BLOCK_HIDDEN, hidden, asked)


def _padded(mask: Tensor, start: Tensor, keys: int) -> Tensor:
    """(..., L, S): keys before the mask's columns are visible, those behind them hidden."""
    is_bool = mask.dtype == torch.bool
    shown, hidden = (True, False) if is_bool else (0.0, -torch.inf)
    last = mask.shape[-1]
    column = places(keys) - per_batch(start)
    while mask.dim() < column.dim():
        mask = mask[None]
    padded = torch.nn.functional.pad(mask, (0, 1), value=hidden)
    inside = column.clamp(0, last).expand(*(1,) * (mask.dim() - column.dim()), *column.shape)
    found = torch.take_along_dim(padded, inside, dim=-1)
    return torch.where(column < 0, shown, found)


def _by_distance(table: Tensor, rows: int, keys: int, options: TorchOptions) -> Tensor:
    """(H or 1, L, S), or (..., H or 1, L, S) where positions differ from batch to batch."""
    if table.dim() != 2 or table.shape[1] % 2 == 0:
        text = f"position_bias: expected shape (Hq, 2 R + 1), got {tuple(table.shape)}"
        raise Error(lib.ATTN_ERROR_SHAPE, text)
    reach = table.shape[1] // 2
    distance = places(keys) - positions(rows, keys, options)
    column = distance.clamp(-reach, reach) + reach
    # The axes of heads come before those of rows and columns, which are the index's.
    found = table[:, column]
    return found if column.dim() == 2 else found.movedim(0, -3).squeeze(-4)


def factors_of_dropout(query: Tensor, key: Tensor, value: Tensor, options: TorchOptions) -> Tensor:
    """(..., L, S) of all batches and heads: 0, or 1 / (1 - probability), as the library drops: of
    sigmoid's weights of scores of 0, which are all a half."""
    shape, keys = shape_of_scores(query, key, value, options)
    dtype: Any = score_dtype(query.dtype)
    rows, columns = (torch.zeros((*one, 0), dtype=dtype, device="cpu") for one in (shape, (keys,)))
    numbers = {name: getattr(options, name) for name in DROPOUT}
    further = {"normalizer": "sigmoid", "return_weights": True, **numbers}
    found = torch.ops.libattention.sdpa(rows, columns, columns, **further)
    weights: Tensor = found[2]
    return 2 * weights
