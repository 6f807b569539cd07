# SPDX-License-Identifier: BSD-3-Clause
"""The formula of attention in PyTorch's operators, with every option: what tangents and second
derivatives are computed by, and what the library's own results are compared with."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from libattention._library import unsupported
from libattention._torch_options import TorchOptions, per_batch, places, positions, widened
from libattention._torch_written_out import WRITTEN_OUT, factors_of_dropout, written_out


class Results(NamedTuple):
    """Of a call: lse is None where the weights are no softmax."""

    output: Tensor
    lse: Tensor | None
    weights: Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, options: TorchOptions) -> Results:
    """Attention (..., Hq, L, E) over (..., Hk, S, E) and (..., Hv, S, Ev), stored whole: L x S.

    Args:
        query: of the rows
        key: of the columns
        value: of the columns
        options: see libattention.scaled_dot_product_attention

    Returns:
        Output and weights in query's dtype, and the log-sum-exp in that of the scores.
    """
    dtype = query.dtype
    given = (query, key, value)
    if options.query_starts is not None or options.key_starts is not None:
        raise unsupported(
            "query_starts, kv.starts: are not known to the formula in PyTorch's operators, which "
            "computes tangents and second derivatives"
        )
    if any(getattr(options, name) is not None for name in WRITTEN_OUT):
        options = written_out(query, key, options)
    query, key, value = (widened(one) for one in (query, key, value))
    rows, keys = query.shape[-2], key.shape[-2]
    visible = _visible(rows, keys, options)
    if options.key_lengths is not None:
        # What lies behind a sequence may be anything, and 0 times NaN is NaN.
        exists = per_batch(options.key_lengths) > places(keys)
        key = torch.where(exists.mT, key, 0)
        value = torch.where(exists.mT, value, 0)
    if options.enable_gqa:
        heads = query.shape[-3]
        key = key.repeat_interleave(heads // key.shape[-3], dim=-3)
        value = value.repeat_interleave(heads // value.shape[-3], dim=-3)
    scale = query.shape[-1] ** -0.5 if options.scale is None else options.scale
    scores = _with_options(scale * (query @ key.mT), options)
    weights, lse = _normalized(scores, visible, options)
    if options.dropout:
        weights = weights * factors_of_dropout(*given, options)
    return Results((weights @ value).to(dtype), lse, weights.to(dtype))


def _visible(rows: int, keys: int, options: TorchOptions) -> Tensor | None:
    """Which columns a row sees by position; None: all."""
    conditions = []
    column = places(keys)
    position = positions(rows, keys, options)
    if options.key_lengths is not None:
        conditions.append(column < per_batch(options.key_lengths))
    if options.is_causal:
        conditions.append(column <= position)
    if options.window_left >= 0:
        conditions.append(column >= position - options.window_left)
    if options.window_right >= 0:
        conditions.append(column <= position + options.window_right)
    if options.attn_mask is not None and options.attn_mask.dtype == torch.bool:
        conditions.append(options.attn_mask)
    for added in (options.attn_mask, options.bias):
        if added is not None and added.dtype != torch.bool:
            conditions.append(added != -torch.inf)
    visible = None
    for condition in conditions:
        visible = condition if visible is None else visible & condition
    return visible


def _with_options(scores: Tensor, options: TorchOptions) -> Tensor:
    """Softcap, ALiBi, bias and an additive mask, in this order.

    What is of 16 bits is widened before it is repeated: gradients are summed before they are
    rounded.
    """
    if options.softcap:
        scores = options.softcap * torch.tanh(scores / options.softcap)
    if options.alibi_slopes is not None:
        rows, keys = scores.shape[-2:]
        distance = (positions(rows, keys, options) - places(keys)).abs()
        slopes = options.alibi_slopes.to(scores.dtype)
        scores = scores - slopes[:, None, None] * distance
    for added in (options.bias, options.attn_mask):
        if added is not None and added.dtype != torch.bool:
            finite = torch.where(added == -torch.inf, 0, added)
            scores = scores + finite.to(scores.dtype)
    return scores


def _normalized(
    scores: Tensor, visible: Tensor | None, options: TorchOptions
) -> tuple[Tensor, Tensor | None]:
    """Weights, 0 where a row does not see, and the softmax's log-sum-exp."""
    hidden: Any = None if visible is None else ~visible
    if options.normalizer != "softmax":
        weights = torch.sigmoid(scores) if options.normalizer == "sigmoid" else scores
        return (weights if hidden is None else torch.where(hidden, 0, weights)), None
    if hidden is not None:
        scores = torch.where(hidden, -torch.inf, scores)
    terms = scores
    if options.sinks is not None:
        sink = options.sinks.to(scores.dtype)[:, None, None].expand(*scores.shape[:-1], 1)
        terms = torch.cat([scores, sink], dim=-1)
    if terms.shape[-1] == 0:
        return scores, scores.new_full(scores.shape[:-1], -torch.inf)
    lse = torch.logsumexp(terms, dim=-1)
    # A row that sees nothing has no gradient, not one of NaN.
    is_empty = torch.isneginf(lse)
    weights = torch.exp(scores - torch.where(is_empty, 0, lse)[..., None])
    return weights, lse
