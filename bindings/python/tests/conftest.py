# SPDX-License-Identifier: BSD-3-Clause
"""What several tests use."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def qkv(rng):
    """(2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)."""
    shapes = [(2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]
