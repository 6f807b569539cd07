# SPDX-License-Identifier: BSD-3-Clause
"""Which PyTorch tensors hold numbers, now, for a library to read.

Others only stand for numbers: while a program is traced, compiled or exported, inside vmap and
grad, in subclasses that keep their elements elsewhere. Their address is none, or some memory's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.autograd import forward_ad

_PLAIN_TYPES = frozenset((torch.Tensor, torch.nn.Parameter))
_peek_transform = torch._C._functorch.peek_interpreter_stack


def reason_there_are_no_numbers(tensors: Iterable[Any]) -> str | None:
    """Why these have no numbers that could be read now.

    Args:
        tensors: arguments of the call; what is no tensor does not count

    Returns:
        The reason, to be put behind "a tensor"; None where all are ordinary tensors, now.
    """
    if torch.compiler.is_compiling():
        return "is being compiled"
    if torch._C._get_tracing_state() is not None:
        return "is being traced"
    if torch._C._len_torch_dispatch_stack() > 0:
        return "is watched by a dispatch mode"
    if _peek_transform() is not None:
        return "is being transformed by torch.func"
    may_be_dual = forward_ad._current_level >= 0
    for one in tensors:
        if isinstance(one, torch.Tensor):
            if type(one) not in _PLAIN_TYPES:
                return f"is a {type(one).__name__}"
            if one.is_meta:
                return "is on meta"
            if may_be_dual and forward_ad.unpack_dual(one).tangent is not None:
                return "has a tangent"
    return None


def reason_to_ask_pytorch(tensors: tuple[Any, ...]) -> str | None:
    """Why a call on these has to go through PyTorch's dispatcher.

    Args:
        tensors: arguments of the call; what is no tensor does not count

    Returns:
        The reason, to be put behind "a tensor"; None where all are ordinary tensors, now, of which
        no gradient is wanted.
    """
    if torch.is_autocast_enabled("cpu"):
        return "is under autocast"
    if torch.is_grad_enabled():
        for one in tensors:
            if isinstance(one, torch.Tensor) and one.requires_grad:
                return "requires grad"
    return reason_there_are_no_numbers(tensors)
