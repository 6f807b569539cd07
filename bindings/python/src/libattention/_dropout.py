# SPDX-License-Identifier: BSD-3-Clause
"""Which weights of attention are dropped, as in training."""

from __future__ import annotations

from typing import Any, NamedTuple

from libattention._abi import ffi
from libattention._library import Error, assign, lib


class Dropout(NamedTuple):
    """Which weights are dropped: each is multiplied by 0 with a probability, else by 1 / (1 -
    probability), so that results are right on average. Those that are returned are these; lse is of
    those before.

    Which ones depends on these numbers and on a weight's place, (batch, head, row, column), alone:
    not on threads, layouts or engines. seed and offset name a stream of random numbers; a layer or
    a step has one of its own by another offset. attn_dropout in attention/sdpa.h has the formula,
    which other programs can follow.

    Attributes:
        probability: 0 to below 1
        seed: 0 to 2**64 - 1
        offset: likewise
        batch: added to the number of a weight's batch, counted over all batch axes: a part of a
            larger problem drops what the whole would
        head: likewise of its query head
        row: likewise of its row
        column: likewise of its key
    """

    probability: float
    seed: int = 0
    offset: int = 0
    batch: int = 0
    head: int = 0
    row: int = 0
    column: int = 0


def dropout_struct(dropout: Any) -> Any:
    """An attn_dropout, which has to live as long as what points to it."""
    if not isinstance(dropout, Dropout):
        text = f"dropout: expected a libattention.Dropout or None, got {dropout!r:.100}"
        raise Error(lib.ATTN_ERROR_VALUE, text)
    struct = ffi.new("attn_dropout *")
    struct.struct_size = ffi.sizeof("attn_dropout")
    for field, value in dropout._asdict().items():
        expected = "a number" if field == "probability" else "an integer"
        assign(struct, field, value, f"dropout.{field}", expected)
    return struct
