# SPDX-License-Identifier: BSD-3-Clause
"""The eager attention that a layer's class brings along.

What is found is kept in a dictionary, which a model's classes fill as it is loaded: a graph that is
recorded can look into it, but not into classes.
"""

from __future__ import annotations

import inspect
import sys
from functools import lru_cache
from typing import Any, Callable

from torch import nn

Attention = Callable[..., Any]

_found: dict[type[Any], Attention | None] = {}
_parameters: dict[Attention, frozenset[str]] = {}


def own_attention(kind: type[Any]) -> Attention | None:
    """The eager attention that a layer's class hands to transformers' interface as its default."""
    if kind not in _found:
        _found[kind] = found = _find(kind)
        if found is not None:
            _parameters[found] = frozenset(inspect.signature(found).parameters)
    return _found[kind]


def parameters_of(own: Attention) -> frozenset[str]:
    """The options that an eager attention that was found here has a name for."""
    return _parameters[own]


@lru_cache(maxsize=4096)
def look_at_module(name: str) -> None:
    """Fills in what the classes of a module of transformers have."""
    for member in list(getattr(sys.modules.get(name), "__dict__", {}).values()):
        if inspect.isclass(member) and issubclass(member, nn.Module):
            own_attention(member)


def _find(kind: type[Any]) -> Attention | None:
    for base in kind.__mro__:
        for member in vars(base).values():
            function = inspect.unwrap(member) if callable(member) else None
            if not inspect.isfunction(function):
                continue
            for name in function.__code__.co_names:
                if name.endswith("eager_attention_forward") and name in function.__globals__:
                    found: Attention = function.__globals__[name]
                    return found
    return None
