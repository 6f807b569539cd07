# SPDX-License-Identifier: BSD-3-Clause
"""What the methods of a KVCache may be given, and what is said of anything else."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from libattention._dtypes import INTEGERS
from libattention._library import Error, lib
from libattention._tensors import described, integers, kind_of


def wrong(text: str) -> Error:
    """Of an argument that cannot be what it is, or not now."""
    return Error(lib.ATTN_ERROR_VALUE, text)


def wrong_shape(name: str, expected: str, shape: tuple[int, ...]) -> Error:
    """Of an array."""
    return Error(lib.ATTN_ERROR_SHAPE, f"{name}: expected {expected}, got {tuple(shape)}")


def size_from(name: str, value: Any) -> int:
    """A number of things, 1 or more."""
    found = _integer(name, value, "1 or more")
    if found < 1:
        raise wrong(f"{name}: expected 1 or more, got {found}")
    return found


def number_below(count: int, name: str, value: Any) -> int:
    """Which of `count` things."""
    expected = f"0 to {count - 1}"
    found = _integer(name, value, expected)
    if not 0 <= found < count:
        raise wrong(f"{name}: expected {expected}, got {found}")
    return found


def row_counts(batch: int, name: str, values: Any) -> tuple[Any, bool]:
    """Numbers of rows of each sequence, int64 (batch), and whether one stands for all."""
    given = integers(values, name)
    shape = described(given, name, INTEGERS).shape
    if shape not in ((), (batch,)):
        raise wrong_shape(name, f"a number, or (batch={batch})", shape)
    found = np.broadcast_to(np.asarray(given, np.int64), (batch,))
    if (found < 0).any():
        raise wrong(f"{name}: expected 0 or more, got {int(found.min())}")
    return found, shape == ()


def shape_of(name: str, array: Any) -> tuple[int, ...]:
    """Of an array that is described later; what is none is refused."""
    kind_of(array, name)
    return tuple(array.shape)


def has_columns(name: str, mask: Any, longest: int) -> bool:
    """Whether a mask has a column for each row of the longest sequence. What is no array is left to
    attention to refuse."""
    shape: tuple[int, ...] = tuple(getattr(mask, "shape", ()))
    if not shape or shape[-1] == 1:
        return False
    if shape[-1] != longest:
        raise wrong_shape(name, f"{longest} columns, the rows of the longest sequence", shape)
    return True


def _integer(name: str, value: Any, expected: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return index(value)
    except TypeError:
        raise wrong(f"{name}: expected {expected}, got {value!r:.100}") from None
