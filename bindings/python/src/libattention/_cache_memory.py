# SPDX-License-Identifier: BSD-3-Clause
"""The memory of a KVCache: room of its own for each sequence, or pages that sequences take and give
back. Which rows are in use is not known here: whoever asks says how long sequences are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from libattention._dtypes import BFLOAT16, DTYPE_NAMES, FLOAT32, FLOATS, INT8
from libattention._kv import KV
from libattention._library import Error, lib, unsupported
from libattention._tensors import NUMPY, Kind, kind_of, numpy_dtype


class CacheFullError(Error):
    """A KVCache has no room for the rows that it was to take. It is as it was before: sequences
    that end (reset), or are cut (truncate), make room.

    Attributes:
        sequence: the first one that there was no room for
    """

    def __init__(self, text: str, sequence: int) -> None:
        super().__init__(lib.ATTN_ERROR_MEMORY, text)
        self.sequence = sequence

    def __reduce__(self) -> tuple[type[Error], tuple[Any, ...]]:
        return CacheFullError, (str(self), self.sequence)


class Elements(NamedTuple):
    """What a cache keeps its numbers in."""

    kind: Kind
    dtype: int
    from_numpy: Callable[[Any], Any]  # integers for whoever calls, as arrays of this kind

    def empty(self, layers: int, rows: tuple[int, ...], widths: tuple[int, int]) -> list[KV]:
        """Memory of each layer, unwritten: keys and values of the widths, and where they are
        integers a scale of each row."""
        made = {
            name: self.kind.empty((layers, *rows, width), self.dtype)[0]
            for name, width in zip(("key", "value"), widths)
        }
        if self.dtype == INT8:
            for name in ("key_scale", "value_scale"):
                made[name] = self.kind.empty((layers, *rows, 1), FLOAT32)[0]
        return [KV(**dict(zip(made, one))) for one in zip(*made.values())]


def elements_of(dtype: Any) -> Elements:
    """A torch.dtype means PyTorch's tensors; a name, or NumPy's dtype, NumPy's arrays."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(dtype, torch.dtype):
        kind, from_numpy = kind_of(torch.empty(0, device="cpu"), "dtype"), torch.from_numpy
        name = str(dtype).removeprefix("torch.")
    else:
        kind, from_numpy = NUMPY, np.asarray
        name = _numpy_name(dtype)
    numbers = {DTYPE_NAMES[number]: number for number in (*FLOATS, INT8)}
    if name not in numbers:
        raise unsupported(f"dtype: expected {', '.join(numbers)} or one of PyTorch's, got {name}")
    return Elements(kind, numbers[name], from_numpy)


def _numpy_name(dtype: Any) -> str:
    try:
        if dtype == "bfloat16":  # known to NumPy once the package that has it is imported
            numpy_dtype(BFLOAT16)
        return str(np.dtype(dtype).name)
    except ModuleNotFoundError as error:
        text = "dtype: NumPy has bfloat16 only with the package ml_dtypes, which is not installed"
        raise unsupported(text) from error
    except TypeError as error:
        text = f"dtype: expected a name, a NumPy dtype or a torch.dtype, got {dtype!r:.100}"
        raise Error(lib.ATTN_ERROR_VALUE, text) from error


class Memory(Protocol):
    """Of all layers: what one layer's key j of a sequence lies at, it does in every layer."""

    def grow(self, before: Any, after: Any) -> None:
        """Makes room; of all sequences or, with a CacheFullError, of none.

        Args:
            before: int64, (batch): rows in use of each sequence
            after: likewise, and no fewer
        """

    def shrink(self, before: Any, after: Any) -> None:
        """Gives back what only rows after `after` needed."""

    def whole(self, layer: int, lengths: Any) -> KV:
        """All of a layer's memory: what new rows are stored by."""

    def used(self, layer: int, lengths: Any, longest: int, has_columns: bool) -> KV:
        """A layer's rows in use: what attention reads.

        Args:
            layer: 0 to layers - 1
            lengths: int64, (batch): rows in use of each sequence
            longest: the largest of them
            has_columns: a mask has as many columns; without, there may be more
        """


class OwnRooms:
    """(layers, batch, Hk, capacity, E): a room for each sequence."""

    def __init__(
        self,
        elements: Elements,
        layers: int,
        batch: int,
        num_kv_heads: int,
        capacity: int,
        widths: tuple[int, int],
    ) -> None:
        self.capacity = capacity
        self._layers = elements.empty(layers, (batch, num_kv_heads, capacity), widths)

    def grow(self, before: Any, after: Any) -> None:
        refuse_past(self.capacity, before, after)

    def shrink(self, before: Any, after: Any) -> None:
        pass

    def whole(self, layer: int, lengths: Any) -> KV:
        return self._layers[layer]._replace(lengths=lengths)

    def used(self, layer: int, lengths: Any, longest: int, has_columns: bool) -> KV:
        every = self._layers[layer]
        cut = KV(*(None if one is None else one[:, :, :longest] for one in every))
        return cut._replace(lengths=lengths)


class Pages:
    """(layers, pages, Hk, page, E): pages of `page_size` rows, any of which a sequence may have. A
    sequence of n rows has ceil(n / page_size) of them, the same ones in every layer."""

    def __init__(
        self,
        elements: Elements,
        layers: int,
        batch: int,
        num_kv_heads: int,
        capacity: int,
        widths: tuple[int, int],
        page_size: int,
        num_pages: int,
    ) -> None:
        self.capacity = capacity
        self.page_size = page_size
        self._layers = elements.empty(layers, (num_pages, num_kv_heads, page_size), widths)
        # Entries of pages that a sequence has not are -1, which the library refuses to follow.
        self._table = np.full((batch, self._count(capacity)), -1, np.int32)
        self._starts = np.arange(batch + 1) * self._table.shape[1]
        self._free = list(range(num_pages))[::-1]

    @property
    def num_free(self) -> int:
        return len(self._free)

    def _count(self, rows: Any) -> Any:
        return -(-rows // self.page_size)

    def grow(self, before: Any, after: Any) -> None:
        refuse_past(self.capacity, before, after)
        had, needed = self._count(before), self._count(after)
        # In the order of the sequences: the first that would find too few is named.
        wanted = np.cumsum(needed - had)
        if wanted[-1] > len(self._free):
            first = int(np.argmax(wanted > len(self._free)))
            raise CacheFullError(
                f"cache: full: {wanted[-1]} more pages of {self.page_size} rows are needed, "
                f"{len(self._free)} are free; sequence {first} is the first without",
                first,
            )
        for sequence in np.flatnonzero(needed > had):
            for place in range(had[sequence], needed[sequence]):
                self._table[sequence, place] = self._free.pop()

    def shrink(self, before: Any, after: Any) -> None:
        had, needed = self._count(before), self._count(after)
        for sequence in np.flatnonzero(needed < had):
            entries = self._table[sequence, needed[sequence] : had[sequence]]
            self._free += entries[::-1].tolist()
            entries[:] = -1

    def whole(self, layer: int, lengths: Any) -> KV:
        return self._layers[layer]._replace(page_table=self._table, lengths=lengths)

    def used(self, layer: int, lengths: Any, longest: int, has_columns: bool) -> KV:
        every = self._layers[layer]._replace(lengths=lengths)
        if has_columns:
            # A row of the table behind the other, whose columns are those of the mask.
            return every._replace(page_table=self._table.reshape(-1), page_starts=self._starts)
        return every._replace(page_table=self._table[:, : self._count(longest)])


def refuse_past(capacity: int, before: Any, after: Any) -> None:
    """Refuses sequences that would be longer than any may be."""
    if (after > capacity).any():
        sequence = int(np.argmax(after > capacity))
        raise CacheFullError(
            f"cache: full: sequence {sequence} has {before[sequence]} rows of {capacity}, and no "
            f"room for {after[sequence] - before[sequence]} more",
            sequence,
        )
