# SPDX-License-Identifier: BSD-3-Clause
"""The masks that transformers makes for a model with libattention."""

from __future__ import annotations

from typing import Any

import torch
from transformers.masking_utils import eager_mask, sdpa_mask

from libattention.integrations._hf_architectures import Use, use_of

# An attribute of masks that say nothing but causality from the first key on. "sdpa" leaves such
# masks out and relies on layers to know that they are causal; some do not, and see everything.
_CAUSAL = "libattention_is_causal"


def attention_mask(*arguments: Any, config: Any = None, **options: Any) -> torch.Tensor | None:
    """A bool mask for models all of whose attention is known to read those; for all others the mask
    that is added. Both are left out only where everything is seen.

    Args:
        arguments: transformers', as they are
        config: the model's
        options: transformers', as they are

    Returns:
        (N, 1, L, S), or None.
    """
    options["config"] = config
    if torch.compiler.is_compiling() or not _reads_bool(config):
        found: torch.Tensor | None = eager_mask(*arguments, **options)
        return found
    found = sdpa_mask(*arguments, **options)
    if found is None:
        found = sdpa_mask(*arguments, **{**options, "allow_is_causal_skip": False})
        if found is not None:
            setattr(found, _CAUSAL, True)
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


def is_causal_alone(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor) -> bool:
    """Whether a mask is one of those for which causality may stand. What was cut from one is not,
    and a single row is no work with its mask.
    """
    if query.shape[-2] == 1 or not getattr(mask, _CAUSAL, False):
        return False
    return mask.shape[-2:] == (query.shape[-2], key.shape[-2])


def is_causal_without_mask(module: torch.nn.Module, is_causal: bool | None) -> bool:
    """Never in a model, whose masks are not left out; elsewhere as "sdpa" has it."""
    config = getattr(module, "config", None)
    if use_of(config) is not None:
        return False
    return bool(getattr(module, "is_causal", config is None) if is_causal is None else is_causal)


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
