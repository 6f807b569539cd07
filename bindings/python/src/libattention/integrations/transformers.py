# SPDX-License-Identifier: BSD-3-Clause
"""Hugging Face transformers with attn_implementation="libattention".

The numbers are those of the model without it, or an Error says what is refused.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.utils import output_capturing

from libattention._attention import scaled_dot_product_attention
from libattention._context import Context
from libattention._library import unsupported
from libattention.integrations import _hf_architectures as architectures
from libattention.integrations._hf_cache import AttentionCache
from libattention.integrations._hf_calls import (
    Call,
    computed,
    computed_by_sdpa,
    computed_eagerly,
    is_known_to_sdpa,
    reason_against,
)
from libattention.integrations._hf_counts import Count, count, report
from libattention.integrations._hf_formulas import agrees
from libattention.integrations._hf_masks import (
    attention_mask,
    is_causal_alone,
    is_causal_without_mask,
)
from libattention.integrations._hf_own import own_attention, parameters_of

__all__ = [
    "NAME",
    "AttentionCache",
    "Count",
    "attention_forward",
    "attention_mask",
    "register",
    "report",
]

NAME = "libattention"

# What layers hand over for other implementations, or on the way to somewhere else: eager attention
# has the same numbers with it and without, since a mask says what it says.
WITHOUT_EFFECT = frozenset(
    {
        "cache_position",
        "cu_seq_lens_k",
        "cu_seq_lens_q",
        "deterministic",
        "max_length_k",
        "max_length_q",
        "num_items_in_batch",
        "output_hidden_states",
        "output_router_logits",
        "position_ids",
        "return_dict",
        "sliding_window",
        "use_cache",
    }
)


def register(name: str = NAME, *, dropout: bool = False, context: Context | None = None) -> str:
    """Offers libattention to every model: from_pretrained(..., attn_implementation="libattention").

    Architectures whose attention does not go through transformers' attention interface are loaded
    with "eager", and a warning names them. Gradients are computed here, too. With dropout (but see
    there), under autocast, in dtypes that are not float32, float64, bfloat16 or float16, off the
    CPU, and while a model is traced or compiled, transformers' own attention computes. `report`
    tells what was computed by whom.

    Args:
        name: another one, if that is taken
        dropout: whether calls with dropout are computed here, too, in training: by weights that are
            other ones than PyTorch drops. PyTorch's default generator draws a seed for each call,
            so that torch.manual_seed says what is dropped
        context: threads, engine and kernels; None: PyTorch's threads, as many as
            torch.get_num_threads() says at each call

    Returns:
        The name.

    Raises:
        Error: this version of transformers has no place where a name is checked.
    """
    architectures.install_guard()
    architectures.names.add(name)
    forward = partial(attention_forward, drops=dropout, context=context)
    is_usual = not dropout and context is None
    AttentionInterface.register(name, attention_forward if is_usual else forward)
    AttentionMaskInterface.register(name, attention_mask)
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
    output_attentions: bool | None = False,
    drops: bool = False,
    context: Context | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What transformers calls for each layer.

    Args:
        module: the attention layer
        query: (N, H, L, E)
        key: (N, Hk, S, E)
        value: (N, Hk, S, Ev)
        attention_mask: (N, 1, L, S), bool (True takes part) or added; None: see is_causal
        dropout: counts in training
        scaling: of the scores
        is_causal: whether a call without a mask is causal; None: the module's. In models that
            were loaded so it has no effect, as in "eager": their masks say it
        position_bias: (N or 1, H, L, S), added to the scores
        softcap: of the scores
        s_aux: (H), sinks
        output_attentions: also return the weights, as is done where the model is to return them
        drops: whether a call with dropout is computed here
        context: as in register
        options: of other implementations

    Returns:
        The output (N, L, H, Ev), and the weights (N, H, L, S) or None.

    Raises:
        Error: an option that is not known, by name.
    """
    kind: Any = type(module)  # which mypy does not take for hashable
    own = own_attention(kind)
    if attention_mask is not None:
        is_causal = is_causal_alone(query, key, attention_mask)
    else:
        is_causal = is_causal_without_mask(module, is_causal)
    call = Call(
        module,
        query,
        key,
        value,
        None if is_causal else attention_mask,
        dropout if module.training else 0.0,
        scaling,
        is_causal,
        position_bias,
        softcap,
        s_aux,
        bool(output_attentions)
        or _are_attentions_recorded()
        or kind.__module__ in architectures.unasked,
        _known_options(module, own, options),
        drops,
        context,
    )
    reason = reason_against(call)
    if reason is None and own is not None and (call.options or not agrees(call, own)):
        count(module, "an attention formula of its own")
        return computed_eagerly(call.for_pytorch(), own)
    count(module, reason)
    if reason is None:
        return computed(call, scaled_dot_product_attention)
    call = call.for_pytorch()
    if not call.options and is_known_to_sdpa(call):
        return computed_by_sdpa(call)
    return computed_eagerly(call, own)


def _known_options(module: torch.nn.Module, own: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Those with an effect that only the layer's own eager attention knows."""
    given = {
        name: option
        for name, option in options.items()
        if option is not None and name not in WITHOUT_EFFECT
    }
    for name in list(given):
        if own is not None and name in parameters_of(own):
            continue
        if name in architectures.inputs:
            del given[name]
        else:
            raise unsupported(
                f"{name}: is an option of {type(module).__name__} that libattention does not know; "
                'load the model with attn_implementation="eager"'
            )
    return given


def _are_attentions_recorded() -> bool:
    """Whether the model that is running was asked for attentions. Most models do not hand the wish
    on to their layers: they collect what layers return anyway in "eager".
    """
    collector: Any = output_capturing._active_collector
    recorded = collector.get()
    return recorded is not None and any(name.endswith("attentions") for name in recorded)
