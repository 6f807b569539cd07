# SPDX-License-Identifier: BSD-3-Clause
"""Options that the formula in PyTorch's operators does not have, as others that it has: a mask that
begins at some key and a bias by distance, each over all keys."""

from __future__ import annotations

import torch
from torch import Tensor

from libattention._library import Error, lib
from libattention._torch_options import TorchOptions, per_batch, places, positions, widened


def written_out(query: Tensor, key: Tensor, options: TorchOptions) -> TorchOptions:
    """The options with attn_mask and bias of all keys in place of mask_start and position_bias."""
    rows, keys = query.shape[-2], key.shape[-2]
    mask, bias = options.attn_mask, options.bias
    if options.mask_start is not None:
        if mask is None:
            raise Error(lib.ATTN_ERROR_VALUE, "mask_start: expected None without attn_mask")
        mask = _padded(mask, options.mask_start, keys)
    if options.position_bias is not None:
        added = _by_distance(widened(options.position_bias), rows, keys, options)
        added = added[0] if max(query.dim(), key.dim()) == 2 else added
        bias = added if bias is None else added + bias
    return options._replace(attn_mask=mask, bias=bias, mask_start=None, position_bias=None)


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
