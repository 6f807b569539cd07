# SPDX-License-Identifier: BSD-3-Clause
"""One call of transformers' attention interface: who may compute it, and the three who do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from libattention._context import Context
from libattention._torch_options import score_dtype
from libattention._torch_ordinary import reason_to_ask_pytorch
from libattention.integrations._hf_architectures import Use, use_of
from libattention.integrations._hf_masks import explicit_mask
from libattention.integrations._hf_stored import memory_of, numbers_of, places
from libattention.integrations._step_dropout import step_dropout

Found = tuple[torch.Tensor, Optional[torch.Tensor]]
SUPPORTED = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Call(NamedTuple):
    """The arguments of attention_forward, settled."""

    module: nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    dropout: float
    scaling: Any
    is_causal: bool
    bias: torch.Tensor | None
    softcap: float | None
    sinks: torch.Tensor | None
    weights: bool
    options: dict[str, Any]
    drops: bool
    context: Context | None = None

    def tensors(self) -> Iterator[torch.Tensor]:
        """Those that are not left out; of keys and values the memory that is read."""
        stored = (memory_of(self.key), memory_of(self.value))
        given = (self.query, *stored, self.mask, self.bias, self.sinks)
        return (one for one in given if one is not None)

    def for_pytorch(self) -> Call:
        """The same with keys and values as ordinary tensors."""
        return self._replace(key=numbers_of(self.key), value=numbers_of(self.value))


def reason_against(call: Call) -> str | None:
    """Why libattention cannot compute a call whose formula it knows; None: it can."""
    if call.dropout > 0 and not (call.drops and call.dropout < 1):
        return "dropout"
    tensors = tuple(call.tensors())
    reason = reason_to_ask_pytorch(tensors, may_want_gradient=True)
    if reason is not None:
        return f"a tensor {reason}"
    if not all(one.device.type == "cpu" and one.layout == torch.strided for one in tensors):
        return "a tensor that is not in the CPU's memory"
    return _reason_of_numbers(call)


def _reason_of_numbers(call: Call) -> str | None:
    """Dtypes and shapes."""
    inputs = (call.query, call.key, call.value)
    if call.query.dtype not in SUPPORTED or any(one.dtype != call.query.dtype for one in inputs):
        return f"{str(call.query.dtype).removeprefix('torch.')} query, key or value"
    if any(one.dim() != 4 or one.shape[0] != call.query.shape[0] for one in inputs):
        return "query, key and value that broadcast"
    if call.mask is not None and not (
        call.mask.dtype == torch.bool or call.mask.is_floating_point()
    ):
        return "a mask of integers"
    if not isinstance(call.scaling, (int, float, type(None))):
        return "a scaling that is a tensor"
    return None


def computed(call: Call, attention: Callable[..., Any]) -> Found:
    """By libattention, whose function is given."""
    dtype, (rows, keys) = call.query.dtype, (call.query.shape[2], call.key.shape[2])
    results = attention(
        call.query,
        **places(call.query, call.key, call.value),
        attn_mask=_added(call.mask, dtype),
        is_causal=call.is_causal and call.mask is None,
        # Without a mask rows begin at the first key, but a single one is the last of a cache.
        query_offset=keys - 1 if rows == 1 else 0,
        scale=call.scaling,
        enable_gqa=call.query.shape[1] != call.key.shape[1],
        bias=_added(call.bias, dtype),
        softcap=call.softcap or 0.0,
        sinks=_added(call.sinks, dtype),
        dropout=step_dropout(call.dropout) if call.dropout > 0 else None,
        return_weights=call.weights,
        context=call.context,
    )
    output, weights = results if call.weights else (results, None)
    return output.transpose(1, 2).contiguous(), weights


def _added(tensor: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """As it may be added to the scores of a query of this dtype."""
    if tensor is None or tensor.dtype in (torch.bool, dtype):
        return tensor
    return tensor.to(score_dtype(dtype))


def computed_by_sdpa(call: Call) -> Found:
    """By transformers' "sdpa"; see is_known_to_sdpa."""
    found: Found = sdpa_attention_forward(
        call.module,
        call.query,
        call.key,
        call.value,
        call.mask,
        dropout=call.dropout,
        scaling=call.scaling,
        is_causal=call.is_causal,
    )
    return found


def is_known_to_sdpa(call: Call) -> bool:
    """Whether transformers' "sdpa" computes the same: it knows neither softcap nor sinks nor
    weights, makes one (N, H, L, S) tensor of mask and bias, and is right only for the models that
    it is offered for.
    """
    if any(one is not None for one in (call.bias, call.softcap, call.sinks)) or call.weights:
        return False
    return use_of(getattr(call.module, "config", None)) == Use.AS_SDPA


def computed_eagerly(call: Call, own: Callable[..., Any] | None) -> Found:
    """By the eager attention of the model's own, or by its formula where it has none."""
    call = call._replace(mask=explicit_mask(call.query, call.key, call.mask, call.is_causal))
    if own is None:
        return eager_formula(call)
    named = {"position_bias": call.bias, "softcap": call.softcap, "s_aux": call.sinks}
    found: Found = own(
        call.module,
        call.query,
        call.key,
        call.value,
        call.mask,
        scaling=call.scaling,
        dropout=call.dropout,
        **{name: value for name, value in named.items() if value is not None},
        **call.options,
    )
    return found


def eager_formula(call: Call) -> Found:
    """What transformers' eager attentions have in common, with every option, differentiable."""
    groups = call.query.shape[1] // call.key.shape[1]
    key, value = (one.repeat_interleave(groups, dim=1) for one in (call.key, call.value))
    scaling = call.query.shape[-1] ** -0.5 if call.scaling is None else call.scaling
    scores = call.query @ key.transpose(-1, -2) * scaling
    if call.softcap is not None:
        scores = torch.tanh(scores / call.softcap) * call.softcap
    for added in (call.bias, call.mask):
        scores = scores if added is None else scores + added
    if call.sinks is not None:
        sinks = call.sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks.to(scores.dtype)], dim=-1)
    weights = scores.softmax(-1)[..., : key.shape[2]].to(value.dtype)
    weights = nn.functional.dropout(weights, call.dropout)
    return (weights @ value).transpose(1, 2).contiguous(), weights
