# SPDX-License-Identifier: BSD-3-Clause
"""Hugging Face transformers with attn_implementation="libattention"."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from libattention._attention import scaled_dot_product_attention

NAME = "libattention"


def register(name: str = NAME) -> str:
    """Offers libattention to every model: from_pretrained(..., attn_implementation="libattention").

    In training (gradients or dropout) transformers' "sdpa" computes instead. Models must be on the
    CPU, in float32 or float64.

    Args:
        name: another one, if that is taken

    Returns:
        The name.
    """
    AttentionInterface.register(name, attention_forward)
    AttentionMaskInterface.register(name, sdpa_mask)
    return name


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    output_attentions: bool = False,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What transformers calls for each layer.

    Args:
        module: the attention layer
        query: (N, H, L, E)
        key: (N, Hk, S, E)
        value: (N, Hk, S, Ev)
        attention_mask: (N, 1, L, S), bool (True takes part) or added; None: causal or everything
        dropout: 0 but in training
        scaling: of the scores
        is_causal: None: the module's
        position_bias: (N or 1, H, L, S), added to the scores
        softcap: of the scores
        s_aux: (H), sinks
        output_attentions: also return the weights
        options: of other implementations

    Returns:
        The output (N, L, H, Ev), and the weights (N, H, L, S) or None.
    """
    if dropout > 0 or (torch.is_grad_enabled() and query.requires_grad):
        found: tuple[torch.Tensor, torch.Tensor | None] = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            position_bias=position_bias,
            **options,
        )
        return found
    rows, keys = query.shape[2], key.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    with torch.no_grad():
        results = scaled_dot_product_attention(
            query,
            key,
            value,
            _combined(attention_mask, position_bias),
            is_causal=bool(causal) and attention_mask is None,
            # Without a mask rows begin at the first key, but a single one is the last of a cache.
            query_offset=keys - 1 if rows == 1 else 0,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
            softcap=softcap or 0.0,
            sinks=s_aux,
            return_weights=output_attentions,
        )
    output, weights = results if output_attentions else (results, None)
    return output.transpose(1, 2).contiguous(), weights


def _combined(mask: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor | None:
    """One mask of both."""
    if bias is None or mask is None:
        return mask if bias is None else bias
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, float("-inf"))
    return mask + bias
