# SPDX-License-Identifier: BSD-3-Clause
"""The dropout of a model in training, where libattention was asked for it."""

from __future__ import annotations

import torch

from libattention._dropout import Dropout


def step_dropout(probability: float) -> Dropout:
    """Of one call, whose seed PyTorch's default generator draws: torch.manual_seed says what is
    dropped, and a checkpoint that computes again drops the same."""
    return Dropout(probability, generator=torch.default_generator)
