# SPDX-License-Identifier: BSD-3-Clause
"""The memory of one layer's keys and values, which grows x"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from libattention._cache_memory import elements_of, refuse_past
from libattention._kv import KV, kv_append

# Rows that memory is made longer than is needed: so many, or an eighth of them if that is more.
# What a step then copies is little beside what its attention reads.
MIN_SPARE = 64
SPARE_PART = 8


class Heads(NamedTuple):
    """What a row of a sequence is: so many keys, and as many values."""

    number: int
    widths: tuple[int, int]  # features of a key, of a value


class Rows:
    """Keys and values of `batch` sequences, which have as many rows, one behind the other.

    Args:
        dtype: of what is stored
        batch: number of sequences
        heads: those of keys and values
        limit: how many rows there may be, all of which memory is made for; None: any number

    Attributes:
        count: how many there are
    """

    def __init__(self, dtype: torch.dtype, batch: int, heads: Heads, limit: int | None) -> None:
        self.count = 0
        self._dtype = dtype
        self._heads = heads
        self._limit = limit
        self._begin = 0
        self._memory = self._empty(batch, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, room for further rows included."""
        return sum(one.numel() * one.element_size() for one in self._memory.values())

    def append(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Stores new rows, (batch, Hk, L, E) and (batch, Hk, L, Ev), converted.

        Raises:
            CacheFullError: there are more than the limit.
            Error: the first argument that does not fit. Nothing is stored then.
        """
        new = key.shape[-2]
        if self._limit is not None:
            before = np.full(self._batch, self.count)
            refuse_past(self._limit, before, before + new)
        end = self._begin + self.count + new
        if end > self._capacity:
            self._move(self.count + new)
            end = self.count + new
        if new:
            place = self._between(self._begin, end)
            kv_append(place._replace(lengths=end - self._begin), key, value)
        self.count += new

    def newest(self, count: int) -> KV:
        """The last `count` rows, where they lie: until rows are appended after some were cut."""
        end = self._begin + self.count
        return self._between(end - count, end)

    def cut(self, count: int) -> None:
        """Takes back the newest rows."""
        self.count -= count

    def forget(self, count: int) -> None:
        """Drops the oldest rows."""
        self._begin += count
        self.count -= count
        if self._limit is None and self._capacity > 2 * (self.count + MIN_SPARE):
            self._move(self.count)

    def choose(self, sequences: torch.Tensor) -> None:
        """Puts sequences in the places of those that there are: int64, (the new batch)."""
        if not torch.equal(sequences, self.sequences):
            self._move(self.count, sequences)

    @property
    def sequences(self) -> torch.Tensor:
        """int64, (batch): the numbers of the sequences."""
        return torch.arange(self._batch)

    @property
    def _batch(self) -> int:
        return int(self._memory["key"].shape[0])

    @property
    def _capacity(self) -> int:
        return int(self._memory["key"].shape[2])

    def _between(self, begin: int, end: int) -> KV:
        """Rows of memory."""
        count = end - begin
        return KV(**{name: one.narrow(2, begin, count) for name, one in self._memory.items()})

    def _empty(self, batch: int, capacity: int) -> dict[str, torch.Tensor]:
        """By a KV's names."""
        shape = (batch, self._heads.number, capacity)
        made = elements_of(self._dtype).empty(1, shape, self._heads.widths)[0]
        return {name: one for name, one in made._asdict().items() if one is not None}

    def _move(self, needed: int, sequences: torch.Tensor | None = None) -> None:
        """To new memory with room for `needed` rows and some, of these sequences."""
        capacity = self._limit or needed + max(MIN_SPARE, needed // SPARE_PART)
        batch = self._batch if sequences is None else len(sequences)
        memory = self._empty(batch, capacity)
        for name, one in memory.items():
            rows = self._memory[name].narrow(2, self._begin, self.count)
            one[:, :, : self.count] = rows if sequences is None else rows[sequences]
        self._memory, self._begin = memory, 0
