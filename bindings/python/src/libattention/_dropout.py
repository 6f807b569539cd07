# SPDX-License-Identifier: BSD-3-Clause
"""Which weights of attention are dropped, as in training."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from libattention._abi import ffi
from libattention._library import Error, assign, lib, unsupported


class _Numbers(NamedTuple):
    """The fields of attn_dropout."""

    probability: float
    seed: int = 0
    offset: int = 0
    batch: int = 0
    head: int = 0
    row: int = 0
    column: int = 0


class Dropout(_Numbers):
    """Which weights are dropped: each is multiplied by 0 with a probability, else by 1 / (1 -
    probability), so that results are right on average. Those that are returned are these; lse is of
    those before.

    Which ones depends on these numbers and on a weight's place, (batch, head, row, column), alone:
    not on threads, layouts or engines. So one that is given again drops the same weights again, in
    a backward call above all, and so does each call that torch.vmap maps over, as in a loop. seed
    and offset name a stream of random numbers; a layer or a step has one of its own by another
    offset. attn_dropout in attention/sdpa.h has the formula, which other programs can follow.

    >>> import torch
    >>> step = Dropout(0.1, generator=torch.Generator().manual_seed(0))
    >>> step == Dropout(0.1, generator=torch.Generator().manual_seed(0))
    True

    Args:
        probability: 0 to below 1
        seed: 0 to 2**64 - 1
        offset: likewise
        batch: added to the number of a weight's batch, counted over all batch axes: a part of a
            larger problem drops what the whole would
        head: likewise of its query head
        row: likewise of its row
        column: likewise of its key
        generator: what draws the seed, here and once: a torch.Generator, for example
            torch.default_generator, which torch.manual_seed sets, or a numpy.random.Generator. A
            step of a training makes a Dropout anew; not within what is compiled or traced, which
            would keep the number

    Attributes are the same but for generator.

    Raises:
        Error: a generator that is none, beside a seed, or within what is compiled or traced.
    """

    __slots__ = ()

    def __new__(
        cls,
        probability: float,
        seed: int = 0,
        offset: int = 0,
        batch: int = 0,
        head: int = 0,
        row: int = 0,
        column: int = 0,
        *,
        generator: Any = None,
    ) -> Dropout:
        """See the class."""
        if generator is not None:
            if seed != 0:
                text = f"generator: expected None beside a seed, which it draws, got seed {seed!r}"
                raise Error(lib.ATTN_ERROR_VALUE, text)
            seed = _drawn(generator)
        return super().__new__(cls, probability, seed, offset, batch, head, row, column)


# So many seeds are as good as all, and are numbers with a sign, too.
_NUM_SEEDS = 2**63


def _drawn(generator: Any) -> int:
    """A seed."""
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(_NUM_SEEDS))
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(generator, torch.Generator):
        text = f"expected a torch.Generator or a numpy.random.Generator, got {generator!r:.100}"
        raise Error(lib.ATTN_ERROR_VALUE, f"generator: {text}")
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        raise unsupported(
            "generator: cannot draw within what is compiled or traced, where the number would be "
            "the same in every call; make the Dropout outside and hand it over"
        )
    bound = _NUM_SEEDS - 1  # exclusive, and no larger in a schema
    drawn = torch.randint(bound, (), generator=generator, device=generator.device)
    return int(drawn)


def checked_dropout(dropout: Any) -> Dropout:
    """Itself; what is no Dropout is refused."""
    if not isinstance(dropout, Dropout):
        text = f"dropout: expected a libattention.Dropout or None, got {dropout!r:.100}"
        raise Error(lib.ATTN_ERROR_VALUE, text)
    return dropout


def dropout_struct(dropout: Any) -> Any:
    """An attn_dropout, which has to live as long as what points to it."""
    checked_dropout(dropout)
    struct = ffi.new("attn_dropout *")
    struct.struct_size = ffi.sizeof("attn_dropout")
    for field, value in dropout._asdict().items():
        expected = "a number" if field == "probability" else "an integer"
        assign(struct, field, value, f"dropout.{field}", expected)
    return struct
