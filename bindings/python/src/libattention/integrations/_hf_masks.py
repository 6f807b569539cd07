# SPDX-License-Identifier: BSD-3-Clause
"""The masks that transformers makes for a model with libattention."""

from __future__ import annotations

from typing import Any

import torch
from transformers.masking_utils import eager_mask, sdpa_mask

from libattention.integrations._hf_architectures import Use, use_of


def attention_mask(*arguments: Any, config: Any = None, **options: Any) -> torch.Tensor | None:
    """A bool mask, or none where it would say nothing but causality, for models all of whose
    attention is known to read those; for all others the mask that is added, and is always there.

    Args:
        arguments: transformers', as they are
        config: the model's
        options: transformers', as they are

    Returns:
        (N, 1, L, S), or None.
    """
    make = sdpa_mask if _reads_bool(config) else eager_mask
    found: torch.Tensor | None = make(*arguments, config=config, **options)
    return found


def _reads_bool(config: Any) -> bool:
    """A mask made for a whole model may reach its parts, some of which may not be computed here."""
    if config is None or use_of(config) != Use.AS_SDPA:
        return False
    parts = (getattr(config, name, None) for name in getattr(config, "sub_configs", ()))
    return all(
        part is None or use_of(part) in (None, Use.AS_SDPA)
        for part in parts
    )  # fmt: skip


def is_omitted_as_causal(module: torch.nn.Module, is_causal: bool | None) -> bool:
    """Whether a layer without a mask is causal: as "sdpa" understands it where masks may be left
    out, never where "eager" is the model, which has no such option.
    """
    config = getattr(module, "config", None)
    if config is not None and use_of(config) != Use.AS_SDPA:
        return False
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def explicit_mask(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, is_causal: bool
) -> torch.Tensor | None:
    """What a mask and causality say together, as a mask that is added, which is all that "eager"
    reads.
    """
    if mask is None and is_causal and query.shape[2] > 1:
        shape = (query.shape[2], key.shape[2])
        mask = torch.ones(shape, dtype=torch.bool, device=query.device).tril()[None, None]
    if mask is None or mask.dtype != torch.bool:
        return mask
    zero = torch.zeros((), dtype=query.dtype, device=query.device)
    return torch.where(mask, zero, torch.finfo(query.dtype).min)
