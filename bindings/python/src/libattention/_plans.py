# SPDX-License-Identifier: BSD-3-Clause
"""Calls whose kind was seen before, with as little Python around the C call as possible.

What attention without arrays among its options needs but for addresses follows from types, shapes
and strides. It is written into the C structs once and kept: a later call of the same kind writes
addresses alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from libattention._abi import ffi
from libattention._library import lib
from libattention._tensors import Empty

_TENSOR_WORDS = ffi.sizeof("attn_tensor") // 8
if ffi.offsetof("attn_tensor", "data") != 0 or ffi.sizeof("attn_tensor") % 8 != 0:
    raise ImportError("libattention: attn_tensor is not as this package expects it")
# Where the addresses of query, key, value and the output stand, in words.
KEY, VALUE, OUTPUT = (_TENSOR_WORDS * i for i in (1, 2, 3))
_NO_ADDRESS = bytes(8)


class Frame(NamedTuple):
    """The structs of one call at a time: query, key, value, output."""

    query: Any
    key: Any
    value: Any
    output: Any
    addresses: Any  # the same memory as numbers
    memory: Any


class Plan:
    """Calls of one kind. Any number of threads may compute by one plan."""

    __slots__ = ("_bytes", "_idle", "output", "params")

    def __init__(self, layouts: Sequence[bytes], output_layout: bytes, output: Empty, params: Any):
        """The params live as long as the plan, and are only read."""
        self._bytes = b"".join(_NO_ADDRESS + one for one in (*layouts, output_layout))
        self._idle: list[Frame] = []
        self.output = output
        self.params = params

    def take(self) -> Frame:
        """A frame that no other call has in hand. Of a list, pop and append are atomic."""
        try:
            return self._idle.pop()
        except IndexError:
            structs = ffi.new("attn_tensor[]", 4)
            ffi.memmove(structs, self._bytes, len(self._bytes))
            query, key, value, output = (structs + i for i in range(4))
            return Frame(query, key, value, output, ffi.cast("uint64_t *", structs), structs)

    def run(self, frame: Frame, handle: Any) -> int:
        """Computes, and gives the frame back.

        Returns:
            The library's status.
        """
        status: int = lib.attn_sdpa(handle, *frame[:3], self.params, frame.output, ffi.NULL, 0)
        self._idle.append(frame)
        return status
