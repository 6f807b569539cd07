# SPDX-License-Identifier: BSD-3-Clause
"""Shapes of what libattention::sdpa returns, where there are no numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from libattention._torch_options import TorchOptions


def shape_of_scores(
    query: Tensor, key: Tensor, value: Tensor, options: TorchOptions
) -> tuple[tuple[Any, ...], Any]:
    """Batch axes, heads and rows, and the number of keys, of a call's scores."""
    heads: list[Any] = [one.shape[-3:-2] for one in (query, key, value)]
    batches: list[Any] = [one.shape[:-3] for one in (query, key, value)]
    if options.enable_gqa:
        heads[1:] = [query.shape[-3:-2] for _ in heads[1:]]
    if options.query_starts is not None:
        batches = []
    elif options.key_starts is not None:
        batches.append((options.key_starts.shape[0] - 1,))
        heads.append((1,))
    leading = [(*batch, *head) for batch, head in zip(batches, heads)]
    shape = torch.broadcast_shapes(*(leading or heads))
    return (*shape, query.shape[-2]), _num_keys(key, options)


def _num_keys(key: Tensor, options: TorchOptions) -> Any:
    """Of sequences that lie one behind the other the columns of what has some, or all rows."""
    if options.key_starts is None:
        return key.shape[-2]
    mask = options.attn_mask if options.mask_start is None else None
    for one in (mask, options.bias):
        if one is not None and one.dim() > 0 and one.shape[-1] != 1:
            return one.shape[-1]
    blocks = options.block_mask
    if blocks is not None and blocks.dim() > 0 and blocks.shape[-1] != 1:
        return min(blocks.shape[-1] * options.block_columns, key.shape[-2])
    return key.shape[-2]
