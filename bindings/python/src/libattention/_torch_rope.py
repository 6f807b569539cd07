# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of rotary positions: the transposed matrix of a rotation is the inverse one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from libattention._context import Context
from libattention._library import unsupported
from libattention._rope import Rotation, rope_params, rotated
from libattention._tensors import Views


def rotated_with_gradient(
    x: Tensor, rotation: Rotation, out: Any, context: Context | None
) -> Tensor:
    """A rotation of a tensor that requires grad."""
    if out is not None:
        raise unsupported("out: cannot be given where x requires grad")
    # Tables that require grad are refused here, where their gradient is not yet switched off.
    rope_params(rotation, Views())
    apply: Any = _Rope.apply
    found: Tensor = apply(x, rotation, context)
    return found


class _Rope(torch.autograd.Function):
    """A rotation, whose gradient is one, too, and so has gradients itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rotation: Rotation, context: Context | None) -> Tensor:
        # PyTorch then tells if they were changed meanwhile.
        ctx.save_for_backward(*(one for one in rotation if isinstance(one, Tensor)))
        ctx.rotation, ctx.context = rotation, context
        found: Tensor = rotated(x, rotation, None, context)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.saved_tensors  # noqa: B018  (raises where they were changed)
        apply: Any = _Rope.apply
        back = ctx.rotation._replace(inverse=not ctx.rotation.inverse)
        return apply(gradient, back, ctx.context), None, None
