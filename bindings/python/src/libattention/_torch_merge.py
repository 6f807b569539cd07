# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of partial results that are put together, by operators that have gradients themselves.

With the weights w_i = exp(lses_i - lse), output = sum_i w_i outputs_i, and G and g the gradients
of output and lse: that of outputs_i is w_i G, that of lses_i w_i (G . (outputs_i - output) + g). A
sink is a logit whose output is 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from libattention._context import Context
from libattention._library import unsupported
from libattention._merge import Parts, merged
from libattention._torch_arrays import tensor_of


def merged_with_gradient(call: Parts, out: Any, context: Context | None) -> Any:
    """Of tensors some of which require grad."""
    if out is not None:
        raise unsupported("out: cannot be given where a part requires grad")
    tensors = _tensors_of(call.outputs, "outputs")
    if call.lses is not None:
        tensors += _tensors_of(call.lses, "lses")
    if call.sinks is not None:
        tensors.append(tensor_of(call.sinks, "sinks"))
    apply: Any = _Merge.apply
    return apply(call, context, *tensors)


def _tensors_of(arrays: list[Any], name: str) -> list[Any]:
    return [tensor_of(one, f"{name}[{index}]") for index, one in enumerate(arrays)]


def _with(call: Parts, tensors: Any) -> Parts:
    """A call of as many arrays, with these in their places, one behind the other."""
    count = len(call.outputs)
    lses = None if call.lses is None else list(tensors[count : 2 * count])
    sinks = None if call.sinks is None else tensors[-1]
    return call._replace(outputs=list(tensors[:count]), lses=lses, sinks=sinks)


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Parts, context: Context | None, *tensors: Tensor) -> Any:
        ctx.save_for_backward(*tensors)
        ctx.places = _with(call, range(len(tensors)))
        return merged(_with(call, tensors), None, context)

    @staticmethod
    def backward(ctx: Any, of_output: Tensor, of_lse: Tensor | None = None) -> Any:
        call = _with(ctx.places, ctx.saved_tensors)
        if call.lses is None:
            return (None, None, *(of_output.to(one.dtype) for one in call.outputs))
        found = _gradients(call, of_output, of_lse)
        return (None, None, *found)


def _gradients(call: Parts, of_output: Tensor, of_lse: Tensor | None) -> list[Tensor]:
    """Of outputs, lses and sinks."""
    logits = torch.stack(call.lses or [])
    weights, of_sinks = _weights(logits, call.sinks)
    # What a part's output holds where it has seen nothing does not enter.
    outputs = [
        torch.where(weight[..., None] != 0, one.to(logits.dtype), 0)
        for weight, one in zip(weights, call.outputs)
    ]
    given = of_output.to(logits.dtype)
    along = torch.stack([(given * one).sum(-1) for one in outputs])
    mean = (weights * along).sum(0)
    common = -mean if of_lse is None else of_lse - mean
    found = [
        (weight[..., None] * given).to(one.dtype) for weight, one in zip(weights, call.outputs)
    ]
    found += list(weights * (along + common))
    if call.sinks is not None:
        found.append(_to_sinks(of_sinks * common, call.sinks))
    return found


def _weights(logits: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
    """(parts, ..., L) of logits of that shape, and (..., L) of sinks; 0 where nothing is seen."""
    every = logits
    if sinks is not None:
        column = sinks.to(logits.dtype)
        column = column if logits.dim() == 2 else column[:, None]
        every = torch.cat([logits, column.expand(logits.shape[1:])[None]])
    highest = every.detach().amax(0)
    raw = (every - highest.where(highest > -torch.inf, 0)).exp()
    total = raw.sum(0)
    weights = raw / total.where(total != 0, 1)
    return weights[: len(logits)], weights[-1]


def _to_sinks(gradient: Tensor, sinks: Tensor) -> Tensor:
    """(..., H, L), or (L), summed to (H) or (1)."""
    rows = gradient.sum(-1)
    rows = rows if rows.dim() else rows[None]
    return rows.sum_to_size(rows.shape[-1:]).sum_to_size(sinks.shape).to(sinks.dtype)
