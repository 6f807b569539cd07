# SPDX-License-Identifier: BSD-3-Clause
"""Which PyTorch tensors hold numbers, now, for a library to read.

Others only stand for numbers: while a program is traced, compiled or exported, inside vmap and
grad, in subclasses that keep their elements elsewhere. Their address is none, or some memory's.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch.autograd import forward_ad

from libattention._small_calls import bind_torch
from libattention._torch_threads import address_of_context

_PLAIN_TYPES = frozenset((torch.Tensor, torch.nn.Parameter))
# What to ask PyTorch, the answer in ordinary times, and what another one means.
_QUESTIONS = (
    (torch.compiler.is_compiling, False, "is being compiled"),
    (torch._C._get_tracing_state, None, "is being traced"),
    (torch._C._len_torch_dispatch_stack, 0, "is watched by a dispatch mode"),
    (torch._C._functorch.peek_interpreter_stack, None, "is being transformed by torch.func"),
)


def reason_there_are_no_numbers(tensors: Iterable[Any]) -> str | None:
    """Why these have no numbers that could be read now.

    Args:
        tensors: arguments of the call; what is no tensor does not count

    Returns:
        The reason, to be put behind "a tensor"; None where all are ordinary tensors, now.
    """
    for ask, ordinary, reason in _QUESTIONS:
        if ask() != ordinary:
            return reason
    may_be_dual = _is_dual_level()
    for one in tensors:
        if isinstance(one, torch.Tensor):
            if type(one) not in _PLAIN_TYPES:
                return f"is a {type(one).__name__}"
            if one.is_meta:
                return "is on meta"
            if may_be_dual and forward_ad.unpack_dual(one).tangent is not None:
                return "has a tangent"
    return None


def wants_gradient(tensors: Iterable[Any]) -> bool:
    """Whether a gradient of any of these is wanted, now."""
    return torch.is_grad_enabled() and any(
        isinstance(one, torch.Tensor) and one.requires_grad for one in tensors
    )


def reason_to_ask_pytorch(tensors: tuple[Any, ...], may_want_gradient: bool = False) -> str | None:
    """Why a call on these has to go through PyTorch's dispatcher.

    Args:
        tensors: arguments of the call; what is no tensor does not count
        may_want_gradient: that a gradient is wanted is no reason

    Returns:
        The reason, to be put behind "a tensor"; None where all are ordinary tensors, now, of which
        no gradient is wanted.
    """
    if torch.is_autocast_enabled("cpu"):
        return "is under autocast"
    if not may_want_gradient and wants_gradient(tensors):
        return "requires grad"
    return reason_there_are_no_numbers(tensors)


def _is_dual_level() -> bool:
    return forward_ad._current_level >= 0


# Of any device, which is answered sooner, where PyTorch can tell.
_is_maybe_autocast = getattr(
    torch._C, "_is_any_autocast_enabled", partial(torch.is_autocast_enabled, "cpu")
)
# The compiled module asks the same but for the first, which comes before it: the compiler must not
# see the module. It leaves tensors to this one that may have tangents, or be under autocast.
KNOWS_TENSORS = bind_torch(
    torch,
    (
        *((ask, ordinary) for ask, ordinary, _ in _QUESTIONS[1:]),
        (_is_maybe_autocast, False),
    ),
    ((vars(forward_ad), "_current_level", -1),),
    address_of_context,
)
