# SPDX-License-Identifier: BSD-3-Clause
"""How often libattention computed a layer's attention, and why it was handed back how often."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any, NamedTuple

import torch
from torch import nn

from libattention.integrations._hf_architectures import handed_back


class Count(NamedTuple):
    """Calls of one layer, or of all layers of a class."""

    computed: int
    handed_back: dict[str, int]  # by reason


# Layers are counted by themselves, as long as they live; None is the reason of what was computed.
_counters: weakref.WeakKeyDictionary[nn.Module, Counter[str | None]] = weakref.WeakKeyDictionary()


def count(module: nn.Module, reason: str | None) -> None:
    """One more call. A graph that is being recorded is not to record this."""
    if not torch.compiler.is_compiling():
        _counters.setdefault(module, Counter())[reason] += 1


def report(model: nn.Module | None = None) -> dict[str, Count]:
    """How often libattention computed, and how often calls were handed back, and why.

    Args:
        model: whose layers to tell of; None: everything since the process began that still lives

    Returns:
        A Count by the layer's name in the model; without a model by the class's name, with the
        classes of models that were loaded with "eager" instead, of which no call is counted. A
        layer that is missing never came here.
    """
    found: dict[str, Counter[str | None]] = {}
    if model is None:
        for module, counter in list(_counters.items()):
            found.setdefault(type(module).__name__, Counter()).update(counter)
        counts = {name: _count_of(counter) for name, counter in found.items()}
        refused: dict[str, Any] = {
            name: Count(0, {text: 0}) for name, text in handed_back().items()
        }
        return {**refused, **counts}
    return {
        name: _count_of(_counters[module])
        for name, module in model.named_modules()
        if module in _counters
    }


def _count_of(counter: Counter[str | None]) -> Count:
    reasons = {reason: number for reason, number in counter.items() if reason is not None}
    return Count(counter[None], reasons)
