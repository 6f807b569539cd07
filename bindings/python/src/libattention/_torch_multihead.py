# SPDX-License-Identifier: BSD-3-Clause
"""Multi-head attention made of PyTorch's projections and libattention::sdpa."""

from __future__ import annotations

import torch
from torch import Tensor

SCHEMA = (
    "multihead(Tensor query, Tensor key, Tensor value, int num_heads, Tensor q_proj_weight, "
    "Tensor k_proj_weight, Tensor v_proj_weight, Tensor? in_proj_bias, Tensor out_proj_weight, "
    "Tensor? out_proj_bias, Tensor? attn_mask=None, Tensor? bias=None, "
    "Tensor? key_lengths=None, bool is_causal=False, *, bool return_weights=False) "
    "-> (Tensor output, Tensor lse, Tensor weights)"
)


def multihead(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    q_proj_weight: Tensor,
    k_proj_weight: Tensor,
    v_proj_weight: Tensor,
    in_proj_bias: Tensor | None,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    attn_mask: Tensor | None = None,
    bias: Tensor | None = None,
    key_lengths: Tensor | None = None,
    is_causal: bool = False,
    *,
    return_weights: bool = False,
) -> tuple[Tensor, ...]:
    """Of (N, L, E) and (N, S, ...): projections by PyTorch, with the parameters where they lie.

    Masks are those of sdpa: True takes part. It is made of differentiable operators.
    """
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    heads = [
        torch.nn.functional.linear(one, weight, added)
        .unflatten(-1, (num_heads, -1))
        .transpose(-3, -2)
        for one, weight, added in zip((query, key, value), weights, biases)
    ]
    found = torch.ops.libattention.sdpa(
        *heads,
        attn_mask,
        bias,
        key_lengths=key_lengths,
        is_causal=is_causal,
        return_weights=return_weights,
    )
    joined = found[0].transpose(-3, -2).flatten(-2)
    return torch.nn.functional.linear(joined, out_proj_weight, out_proj_bias), found[1], found[2]
