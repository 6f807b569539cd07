# SPDX-License-Identifier: BSD-3-Clause
"""Multi-head attention in PyTorch: of ordinary tensors whose gradients are wanted one call of the
library's layer, and one of its gradients; of others PyTorch's projections and libattention::sdpa.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from libattention._context import Context
from libattention._dropout import Dropout
from libattention._options import Options
from libattention._torch_layer_calls import LayerCall, is_layer
from libattention._torch_library import number_of_context
from libattention._torch_options import torch_options
from libattention._torch_ordinary import (
    reason_there_are_no_numbers,
    reason_to_ask_pytorch,
    wants_gradient,
)

SCHEMA = (
    "multihead(Tensor query, Tensor key, Tensor value, int num_heads, Tensor q_proj_weight, "
    "Tensor k_proj_weight, Tensor v_proj_weight, Tensor? in_proj_bias, Tensor out_proj_weight, "
    "Tensor? out_proj_bias, Tensor? attn_mask=None, Tensor? bias=None, "
    "Tensor? key_lengths=None, bool is_causal=False, *, bool return_weights=False) "
    "-> (Tensor output, Tensor lse, Tensor weights)"
)


class Tensors(NamedTuple):
    """Those of a call: inputs, parameters, options."""

    query: Any
    key: Any
    value: Any
    q_proj_weight: Any
    k_proj_weight: Any
    v_proj_weight: Any
    in_proj_bias: Any
    out_proj_weight: Any
    out_proj_bias: Any
    attn_mask: Any = None
    bias: Any = None
    key_lengths: Any = None


class Settings(NamedTuple):
    """What else there is to a call."""

    num_heads: int
    is_causal: bool = False
    return_weights: bool = False
    dropout: Dropout | None = None
    context: Context | None = None  # PyTorch's threads without


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
    """libattention::multihead: of (N, L, E) and (N, S, ...). Masks are those of sdpa: True takes
    part."""
    weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    parameters = (*weights, in_proj_bias, out_proj_weight, out_proj_bias)
    tensors = Tensors(query, key, value, *parameters, attn_mask, bias, key_lengths)
    return compute(tensors, Settings(num_heads, is_causal, return_weights))


def compute(tensors: Tensors, settings: Settings) -> tuple[Tensor, ...]:
    """Output, lse and weights, these of each head, or empty where they are not wanted."""
    is_ordinary = reason_to_ask_pytorch(tensors, may_want_gradient=True) is None
    if is_ordinary and wants_gradient(tensors) and is_layer(tensors, settings):
        mask = tensors.attn_mask
        if mask is not None:
            rows, keys = tensors.query.shape[1], tensors.key.shape[1]
            mask = mask[(None,) * (4 - mask.dim())]
            tensors = tensors._replace(attn_mask=mask.expand(*mask.shape[:2], rows, keys))
        apply: Any = _Multihead.apply
        found: tuple[Tensor, ...] = apply(settings, *tensors)
        return found[:3]
    return compose(tensors, settings)


def compose(tensors: Tensors, settings: Settings) -> tuple[Tensor, ...]:
    """As compute, made of differentiable operators, with the parameters where they lie."""
    biases = (None,) * 3 if tensors.in_proj_bias is None else tensors.in_proj_bias.chunk(3)
    heads = [
        torch.nn.functional.linear(one, weight, added)
        .unflatten(-1, (settings.num_heads, -1))
        .transpose(-3, -2)
        for one, weight, added in zip(tensors[:3], tensors[3:6], biases)
    ]
    options = torch_options(
        Options(
            tensors.attn_mask,
            settings.is_causal,
            bias=tensors.bias,
            key_lengths=tensors.key_lengths,
            dropout=settings.dropout,
        )
    )
    context = number_of_context(settings.context)
    further = {"return_weights": settings.return_weights, "context": context}
    output, lse, weights = torch.ops.libattention.sdpa(*heads, *options, **further)
    joined = output.transpose(-3, -2).flatten(-2)
    out = torch.nn.functional.linear(joined, tensors.out_proj_weight, tensors.out_proj_bias)
    return out, lse, weights


class _Multihead(torch.autograd.Function):
    """A layer's call with its gradients; its arguments are Settings and Tensors."""

    @staticmethod
    def forward(ctx: Any, settings: Settings, *given: Tensor | None) -> Any:
        tensors = Tensors(*given)
        output, lse, weights, memory = LayerCall(tensors, settings).run()
        ctx.settings = settings
        ctx.is_given = [one is not None for one in given]
        ctx.save_for_backward(memory, *(one for one in given if one is not None))
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*([] if settings.return_weights else [weights]))
        return output, lse, weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        memory, *saved = ctx.saved_tensors
        remaining = iter(saved)
        tensors = Tensors(*(next(remaining) if given else None for given in ctx.is_given))
        wanted = [name for name, needed in zip(Tensors._fields, ctx.needs_input_grad[1:]) if needed]
        used = [None if one is None else one.resolve_neg() for one in gradients]
        if all(one is None for one in used) or not wanted:
            return (None,) * (1 + len(tensors))
        if torch.is_grad_enabled() or _have_no_numbers([*used, *tensors]):
            found: Any = _by_composition(tensors, ctx.settings, used, wanted)
        else:
            found = LayerCall(tensors, ctx.settings).differentiate(memory, used, wanted)
        return (None, *(found.get(name) for name in Tensors._fields))


def _have_no_numbers(tensors: list[Tensor | None]) -> bool:
    """Also where torch.autograd.grad(is_grads_batched=True) maps over directions."""
    is_of_older_vmap = torch._C._functorch.is_legacy_batchedtensor
    return reason_there_are_no_numbers(tensors) is not None or any(
        one is not None and is_of_older_vmap(one) for one in tensors
    )


def _by_composition(
    tensors: Tensors, settings: Settings, gradients: list[Tensor | None], wanted: list[str]
) -> dict[str, Tensor | None]:
    """Gradients that can be differentiated again: the call is computed once more."""
    with torch.enable_grad():
        # One tensor may be query, key and value: each has its own gradient.
        apart = Tensors(*(None if one is None else one.view_as(one) for one in tensors))
        results = compose(apart, settings)
        used = [index for index, one in enumerate(gradients) if one is not None]
        found = torch.autograd.grad(
            [results[index] for index in used],
            [getattr(apart, name) for name in wanted],
            [gradients[index] for index in used],
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
        )
    return dict(zip(wanted, found))
