# SPDX-License-Identifier: BSD-3-Clause
"""Options that the operator does not have, as others that it has: a mask that begins at some key, a
bias by distance and a mask by blocks, each over all keys. PyTorch differentiates the way there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from libattention._attention import explain
from libattention._library import Error, lib
from libattention._options import Options, block_lengths
from libattention._torch_eager import TorchOptions, per_batch, positions, score_dtype
from libattention._torch_ordinary import reason_there_are_no_numbers


def refuse_misfits(query: Tensor, key: Tensor, value: Tensor, options: Options) -> None:
    """Refuses what the library would, by the names that the caller knows; where there are no
    numbers, or autocast makes others of the types, that is left to written_out."""
    if torch.is_autocast_enabled("cpu"):
        return
    if reason_there_are_no_numbers((query, key, value, *options)) is None:
        with torch.no_grad():
            explain(query, key, value, **options._asdict())


def written_out(query: Tensor, key: Tensor, options: Options) -> Options:
    """The options, of which all arrays are tensors, with attn_mask and bias of all keys in place of
    mask_start, position_bias and block_mask."""
    rows, keys = query.shape[-2], key.shape[-2]
    mask, bias = options.attn_mask, options.bias
    if options.mask_start is not None:
        if mask is None:
            raise Error(lib.ATTN_ERROR_VALUE, "mask_start: expected None without attn_mask")
        mask = _padded(mask, options.mask_start, keys)
    if options.position_bias is not None:
        heads = query.shape[-3] if query.dim() > 2 else 1
        added = _by_distance(options.position_bias, (heads, rows, keys), options)
        added = added[0] if max(query.dim(), key.dim()) == 2 else added
        bias = added if bias is None else _sum(added, bias, score_dtype(query.dtype))
    if options.block_mask is not None:
        mask = _in_blocks(mask, options.block_mask, rows, keys, options.block_size)
    return options._replace(
        attn_mask=mask,
        bias=bias,
        mask_start=None,
        position_bias=None,
        block_mask=None,
        block_size=None,
    )


def _sum(added: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded as little as where the library adds one after the other."""
    _refuse_unless_float(bias, "bias")
    return added.to(dtype) + bias.to(dtype)


def _refuse_unless_float(tensor: Tensor, name: str) -> None:
    if not tensor.is_floating_point():
        raise Error(lib.ATTN_ERROR_DTYPE, f"{name}: expected a float dtype, got {tensor.dtype}")


def _padded(mask: Tensor, start: Tensor, keys: int) -> Tensor:
    """(..., L, S): keys before the mask's columns are visible, those behind them hidden."""
    is_bool = mask.dtype == torch.bool
    if not is_bool:
        _refuse_unless_float(mask, "attn_mask")
    shown, hidden = (True, False) if is_bool else (0.0, -torch.inf)
    last = mask.shape[-1]
    column = torch.arange(keys, device=mask.device) - per_batch(start).to(mask.device)
    while mask.dim() < column.dim():
        mask = mask[None]
    padded = torch.nn.functional.pad(mask, (0, 1), value=hidden)
    inside = column.clamp(0, last).expand(*(1,) * (mask.dim() - column.dim()), *column.shape)
    found = torch.take_along_dim(padded, inside, dim=-1)
    return torch.where(column < 0, shown, found)


def _in_blocks(
    mask: Tensor | None, blocks: Tensor, rows: int, keys: int, block_size: Any
) -> Tensor:
    """(..., L, S): hidden, visible, or the mask, block by block."""
    lengths = block_lengths(block_size)
    if blocks.dtype != torch.uint8 or blocks.dim() == 0:
        text = f"block_mask: expected dtype uint8 and rank 1 and up, got {blocks.dtype}"
        raise Error(lib.ATTN_ERROR_DTYPE, text)
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
        return (blocks != lib.ATTN_BLOCK_HIDDEN).expand(*blocks.shape[:-1], keys)
    is_bool = mask.dtype == torch.bool
    shown, hidden = (True, False) if is_bool else (0.0, -torch.inf)
    asked = torch.where(blocks == lib.ATTN_BLOCK_MASKED, mask, shown)
    return torch.where(blocks == lib.ATTN_BLOCK_HIDDEN, hidden, asked)


def _by_distance(table: Tensor, sizes: tuple[int, int, int], options: Options) -> Tensor:
    """(H or 1, L, S), or (..., H or 1, L, S) where positions differ from batch to batch."""
    heads, rows, keys = sizes
    given = TorchOptions(
        query_offset=options.query_offset,
        key_lengths=options.key_lengths,
        align_end=options.align_end,
    )
    _refuse_unless_float(table, "position_bias")
    if table.dim() != 2 or table.shape[1] % 2 == 0 or table.shape[0] not in (1, heads):
        text = f"expected shape (Hq={heads} or 1, 2 R + 1), got {tuple(table.shape)}"
        raise Error(lib.ATTN_ERROR_SHAPE, f"position_bias: {text}")
    reach = table.shape[1] // 2
    distance = torch.arange(keys, device="cpu") - positions(rows, keys, given)
    column = distance.clamp(-reach, reach) + reach
    # The axes of heads come before those of rows and columns, which are the index's.
    found = table[:, column]
    return found if column.dim() == 2 else found.movedim(0, -3).squeeze(-4)
