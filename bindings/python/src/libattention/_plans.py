# SPDX-License-Identifier: BSD-3-Clause
"""Calls whose kind was seen before, with as little Python around the C call as possible.

What a call of attention needs but for addresses follows from types, shapes, strides and options. It
is written into the C structs once and kept: a later call of the same kind writes addresses alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from libattention._abi import ffi
from libattention._library import lib

_TENSOR_WORDS = ffi.sizeof("attn_tensor") // 8
if ffi.offsetof("attn_tensor", "data") != 0 or ffi.sizeof("attn_tensor") % 8 != 0:
    raise ImportError("libattention: attn_tensor is not as this package expects it")
# Where a frame has the addresses of its tensors, in words.
PLACES = tuple(_TENSOR_WORDS * i for i in range(10))
_, KEY, VALUE, OUTPUT, LSE, MASK, *_ = PLACES
_NO_ADDRESS = bytes(8)


class Frame(NamedTuple):
    """The structs of one call at a time."""

    query: Any
    key: Any
    value: Any
    output: Any
    params: Any
    addresses: Any  # the structs' memory as numbers: query's is the first
    memory: Any


class Plan:
    """Calls of one kind. Any number of threads may compute by one plan.

    Args:
        layouts: of query, key, value and output, and of what else the params refer to, in the
            order of the constants above
        make_params: the params of a call whose attn_tensor structs are these
    """

    __slots__ = ("_bytes", "_count", "_idle", "_make_params")

    def __init__(self, layouts: Sequence[bytes], make_params: Callable[[list[Any]], Any]) -> None:
        self._bytes = b"".join(_NO_ADDRESS + one for one in layouts)
        self._count = len(layouts)
        self._make_params = make_params
        self._idle: list[Frame] = []

    def take(self) -> Frame:
        """A frame that no other call has in hand. Of a list, pop and append are atomic."""
        try:
            return self._idle.pop()
        except IndexError:
            structs = ffi.new("attn_tensor[]", self._count)
            ffi.memmove(structs, self._bytes, len(self._bytes))
            views = [structs + i for i in range(self._count)]
            query, key, value, output, *_ = views
            addresses = ffi.cast("uint64_t *", structs)
            return Frame(query, key, value, output, self._make_params(views), addresses, structs)

    def run(self, frame: Frame, handle: Any) -> int:
        """Computes, and gives the frame back.

        Returns:
            The library's status.
        """
        status: int = lib.attn_sdpa(
            handle, frame.query, frame.key, frame.value, frame.params, frame.output, ffi.NULL, 0
        )
        self._idle.append(frame)
        return status


class BackwardPlan(Plan):
    """As Plan, for gradients of calls of one kind. Its make_params gives a pair: the params, and an
    attn_sdpa_gradients."""

    __slots__ = ()

    def run(self, frame: Frame, handle: Any) -> int:
        """As there."""
        params, gradients = frame.params
        inputs = (frame.query, frame.key, frame.value)
        status: int = lib.attn_sdpa_backward(
            handle, *inputs, params, frame.output, gradients, ffi.NULL, 0
        )
        self._idle.append(frame)
        return status
