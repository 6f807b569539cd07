# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of attention over ranks for PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from libattention._backward import USUAL, Call, Gradients, Results
from libattention._options import Options
from libattention._ranks import Ranks, attend, differentiate

_OF_OPTIONS = Gradients._fields[len(USUAL) :]


def attend_with_gradients(ranks: Ranks, call: Call, return_lse: bool, out: Any) -> Any:
    """As attend, and remembers what the gradients need."""
    tensors = [*call[:3], *(getattr(call.options, name) for name in _OF_OPTIONS)]
    apply: Any = _Attend.apply
    output, lse = apply(ranks, call.options, out, *tensors)
    return (output, lse) if return_lse else (output, None)


class _Attend(torch.autograd.Function):
    """Output and lse, which has no elements without softmax. The last arguments are what gradients
    may be of, tensors or not, in the order of Gradients."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, options: Options, out: Any, *arguments: Any) -> Any:
        given = [one.detach() if isinstance(one, Tensor) else one for one in arguments]
        wanted = _wanted(ctx)
        call = _call_of(options, given)
        output, lse = attend(ranks, call, options.normalizer == "softmax", out, wanted)
        ctx.is_tensor = [isinstance(one, Tensor) for one in given]
        ctx.others = [None if isinstance(one, Tensor) else one for one in given]
        ctx.ranks, ctx.options = ranks, options
        tensors = (one for one in given if isinstance(one, Tensor))
        ctx.save_for_backward(output, lse, *tensors)
        rounded = output.to(given[0].dtype)
        if lse is None:
            lse = output.new_empty(0)
            ctx.mark_non_differentiable(lse)
        return rounded if rounded is not output else output.view_as(output), lse.view_as(lse)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor, grad_lse: Tensor) -> Any:
        output, lse, *tensors = ctx.saved_tensors
        remaining = iter(tensors)
        given = [
            next(remaining) if is_tensor else other
            for is_tensor, other in zip(ctx.is_tensor, ctx.others)
        ]
        wanted = _wanted(ctx)
        found = differentiate(
            ctx.ranks,
            _call_of(ctx.options, given),
            Results(output, lse),
            Results(grad_output, grad_lse if lse is not None else None),
            wanted,
        )
        return (None, None, None, *found)


def _wanted(ctx: Any) -> tuple[str, ...]:
    needed = ctx.needs_input_grad[3:]
    return tuple(name for name, is_needed in zip(Gradients._fields, needed) if is_needed)


def _call_of(options: Options, given: list[Any]) -> Call:
    of_options: dict[str, Any] = dict(zip(_OF_OPTIONS, given[len(USUAL) :]))
    query, key, value = given[: len(USUAL)]
    return Call(query, key, value, options._replace(**of_options))
