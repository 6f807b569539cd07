# SPDX-License-Identifier: BSD-3-Clause
"""What operators of ONNX have in common: a node's inputs and attributes by name, and heads that lie
side by side in the last axis."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np

from libattention._context import Context
from libattention._library import Error, lib

Array = Any


class Signature(NamedTuple):
    """What nodes of an operator may have."""

    inputs: dict[str, bool]  # in order, and whether it is needed
    attributes: dict[str, Any]  # with defaults; None where there is none
    num_outputs: int
    opset: int  # the first one that has it like this


class Node(NamedTuple):
    """A node that is to be computed."""

    inputs: dict[str, Array]  # by the operator's names; those that are left out are not in it
    attributes: dict[str, Any]  # with defaults; None where there is none
    wanted: tuple[bool, ...]  # of each output, up to the last
    opset: int
    context: Context | None

    def input(self, name: str) -> Array | None:
        """None where it is left out."""
        return self.inputs.get(name)

    def wants(self, output: int) -> bool:
        """Whether the node names this output."""
        return output < len(self.wanted) and self.wanted[output]


def refuse(text: str) -> NoReturn:
    """A node that contradicts its operator."""
    raise Error(lib.ATTN_ERROR_VALUE, text)


def split_heads(array: Array, num_heads: int | None, name: str, attribute: str) -> Array:
    """(batch, length, heads * size) as (batch, heads, length, size)."""
    if not num_heads or num_heads < 0 or array.shape[-1] % num_heads:
        refuse(
            f"{name}: expected {attribute} that divides its last axis, {array.shape[-1]}, "
            f"got {num_heads}"
        )
    batch, length, width = array.shape
    return array.reshape(batch, length, num_heads, width // num_heads).swapaxes(1, 2)


def check_past(past: Array, new: Array, name: str) -> None:
    """Refuses a cache that new rows (batch, heads, rows, size) do not go with. One of integers
    would be taken for numbers that have no scale."""
    batch, heads, _, size = new.shape
    if past.ndim != 4 or past.shape != (batch, heads, past.shape[2], size):
        refuse(f"{name}: expected shape ({batch}, {heads}, P, {size}), got {past.shape}")
    if past.dtype != new.dtype:
        refuse(f"{name}: expected {new.dtype}, which the new rows have, got {past.dtype}")


def joined(past: Array, new: Array, name: str) -> Array:
    """A cache (batch, heads, rows, size) and new rows behind it."""
    check_past(past, new, name)
    return np.concatenate([past, new], axis=2)


def empty_heads(like: Array, size: int, is_split: bool) -> tuple[Array, Array]:
    """A new output, and the view of it that a call writes: (batch, heads, length, size), which
    `like` has but for the size. They are the same, but where inputs were split the output is
    (batch, length, heads * size)."""
    batch, heads, length, _ = like.shape
    if not is_split:
        whole = np.empty((batch, heads, length, size), like.dtype)
        return whole, whole
    whole = np.empty((batch, length, heads, size), like.dtype)
    return whole.reshape(batch, length, heads * size), whole.swapaxes(1, 2)


def rounded(array: Array, dtype: Any) -> Array:
    """What is too large for a narrow type is infinite."""
    with np.errstate(over="ignore"):
        return array.astype(dtype, copy=False)
