# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of RMS normalisation, by operators that have gradients themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from libattention._context import Context
from libattention._library import unsupported
from libattention._rms_norm import Norm, normalised
from libattention._torch_arrays import tensor_of


def normalised_with_gradient(x: Tensor, norm: Norm, out: Any, context: Context | None) -> Tensor:
    """Of a tensor that requires grad, or with a weight that does."""
    if out is not None:
        raise unsupported("out: cannot be given where x or weight requires grad")
    weight = tensor_of(norm.weight, "weight")
    apply: Any = _RmsNorm.apply
    found: Tensor = apply(x, weight, norm, context)
    return found


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, norm: Norm, context: Context | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.norm = norm
        found: Tensor = normalised(x, norm._replace(weight=weight), None, context)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        unit, inverse = _rows(x, ctx.norm.epsilon)
        given = gradient.double()
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            scaled = given if weight is None else given * (ctx.norm.weight_offset + weight.double())
            along = (scaled * unit).mean(-1, keepdim=True)
            of_x = ((scaled - unit * along) * inverse).to(x.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = (given * unit).sum_to_size(weight.shape).to(weight.dtype)
        return of_x, of_weight, None, None


def _rows(x: Tensor, epsilon: float | None) -> tuple[Tensor, Tensor]:
    """Float64, x / root and 1 / root with root = sqrt(mean(x^2) + epsilon)."""
    wide = x.double()
    if epsilon is None:
        epsilon = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
    # In units of its size no square overflows; no unit is so large that epsilon does.
    size = (wide.detach().abs() / max(1, x.shape[-1])).sum(-1, keepdim=True).clamp(min=1)
    inverse = ((wide / size).square().mean(-1, keepdim=True) + epsilon / size**2).rsqrt() / size
    return wide * inverse, inverse
