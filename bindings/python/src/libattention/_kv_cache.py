# SPDX-License-Identifier: BSD-3-Clause
"""The keys and values of a model's sequences, layer by layer, as they grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np

from libattention._attention import scaled_dot_product_attention
from libattention._cache_checks import (
    has_columns,
    number_below,
    row_counts,
    shape_of,
    size_from,
    wrong,
    wrong_shape,
)
from libattention._cache_memory import Elements, OwnRooms, Pages, elements_of
from libattention._cache_steps import Step
from libattention._context import Context
from libattention._dropout import Dropout
from libattention._kv import KV, kv_append
from libattention._options import Normalizer, ScoreStage
from libattention._tensors import note_written

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CacheOptions(TypedDict, total=False):
    """Those of scaled_dot_product_attention that KVCache.attend hands on."""

    attn_mask: Any
    scale: float | None
    bias: Any
    window: tuple[int, int]
    softcap: float
    sinks: Any
    alibi_slopes: Any
    normalizer: Normalizer
    mask_start: Any
    position_bias: Any
    dropout: Dropout | None
    return_lse: bool
    return_weights: bool
    return_scores: ScoreStage | None
    out: Any
    context: Context | None


_Found = TypeVar("_Found")
# Options with a column for each key.
_WITH_COLUMNS = ("attn_mask", "bias")
_RESULTS_WITH_COLUMNS = ("return_weights", "return_scores")


class KVCache:
    """Keys and values of the sequences that a model generates, of all its layers.

    A step is what the model takes at once: a prompt, one token, or of each sequence as many rows as
    it has. In a step every layer stores its rows once, and attends to what is there by then.
    Lengths belong to the cache, not to layers: they advance once, when the step begins.

        positions = cache.advance(1)  # a step of one row for each sequence
        for number, layer in enumerate(model.layers):
            query, key, value = layer.project(hidden, positions)
            cache.append(key, value, number)
            hidden = layer.rest(hidden, cache.attend(query, number))

    What would make numbers wrong is an error: a layer that stores twice in a step or not at all,
    one that attends before it has stored, a number of rows that is not the step's. After an
    exception within a step, rollback takes the step back.

    Shapes. Where a step has as many rows for every sequence, query is (batch, Hq, L, E), key
    (batch, num_kv_heads, L, head_dim) and value (batch, num_kv_heads, L, value_dim). Ragged ones
    are (Hq, total, E) and so on: the rows of sequence 0, behind them those of sequence 1. Arrays
    are of any kind and dtype that attention takes, whatever the cache is made of. Hq is a multiple
    of num_kv_heads.

    Threads. Within a step, append and attend of different layers may be called by several threads
    at once; everything else by one while no other uses the cache. A cache can be pickled and
    copied, rows included. Since 0.1.

    Args:
        batch: number of sequences; which are in use is told by how many rows they have
        num_kv_heads: heads of key and value
        head_dim: features of a key
        capacity: rows that a sequence may have; None, with pages: as many as there are
        value_dim: features of a value; None: head_dim
        layers: how many of a model's layers store keys and values
        dtype: what is stored: "float32", "float64", "bfloat16", "float16" or "int8" in NumPy arrays
            (bfloat16 needs ml_dtypes), or a torch.dtype in PyTorch tensors. int8 has a scale of
            float32 for each row and head: what is read is off by half of it at most, the largest
            number of the row / 254. Queries are not float64 then
        paged: None: each sequence has memory for `capacity` rows. A number: memory is pages of so
            many rows, 16 or more for speed, which sequences take as they grow
        pages: how many pages there are, for each layer; None: so many that all sequences can have
            `capacity` rows

    Raises:
        Error: a size that is none, capacity and pages that say nothing or too much, a dtype that
            attention does not have.
        MemoryError: NumPy's, where there is too little.

    Attributes:
        batch, num_kv_heads, head_dim, value_dim, capacity, layers: as given, or what None stood for
    """

    def __init__(
        self,
        batch: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        capacity: int | None = None,
        value_dim: int | None = None,
        layers: int = 1,
        dtype: Any = "float32",
        paged: int | None = None,
        pages: int | None = None,
    ) -> None:
        self.batch = size_from("batch", batch)
        self.num_kv_heads = size_from("num_kv_heads", num_kv_heads)
        self.head_dim = size_from("head_dim", head_dim)
        self.value_dim = self.head_dim if value_dim is None else size_from("value_dim", value_dim)
        self.layers = size_from("layers", layers)
        elements = elements_of(dtype)
        self._from_numpy = elements.from_numpy
        self._memory = self._new_memory(elements, capacity, paged, pages)
        self.capacity = self._memory.capacity
        self._set_lengths(np.zeros(self.batch, np.int64))
        self._step: Step | None = None

    def _new_memory(
        self, elements: Elements, capacity: int | None, paged: int | None, pages: int | None
    ) -> OwnRooms | Pages:
        widths = (self.head_dim, self.value_dim)
        if capacity is not None:
            capacity = size_from("capacity", capacity)
        if paged is None:
            if pages is not None:
                raise wrong("pages: expected None without paged, which is a page's rows")
            if capacity is None:
                raise wrong("capacity: expected the rows of a sequence, got None")
            sizes = (self.layers, self.batch, self.num_kv_heads, capacity)
            return OwnRooms(elements, *sizes, widths)
        paged = size_from("paged", paged)
        if pages is not None:
            pages = size_from("pages", pages)
            capacity = paged * pages if capacity is None else capacity
        elif capacity is not None:
            pages = self.batch * -(-capacity // paged)
        else:
            raise wrong("pages: expected how many there are, or a capacity, got None for both")
        sizes = (self.layers, self.batch, self.num_kv_heads, capacity)
        return Pages(elements, *sizes, widths, paged, pages)

    def __repr__(self) -> str:
        return (
            f"KVCache(batch={self.batch}, num_kv_heads={self.num_kv_heads}, "
            f"head_dim={self.head_dim}, layers={self.layers}, lengths={self._lengths.tolist()})"
        )

    # ---- what there is ----

    @property
    def lengths(self) -> Any:
        """int64, (batch): rows of each sequence, those of the step included; a copy, a tensor where
        the cache is of PyTorch's."""
        return self._from_numpy(self._lengths.copy())

    @property
    def free_pages(self) -> int:
        """Pages that no sequence has; 0 for a cache without pages."""
        return self._memory.num_free if isinstance(self._memory, Pages) else 0

    def kv(self, layer: int | None = None) -> KV:
        """A layer's keys and values where they lie, for scaled_dot_product_attention(kv=...) and
        whatever else the cache has no method for.

        Args:
            layer: 0 to layers - 1; None where there is one

        Returns:
            The cache's own memory, and a copy of the lengths. It counts until the next advance,
            reset, truncate or rollback.
        """
        found = self._memory.whole(self._layer(layer), self._lengths.copy())
        table = found.page_table
        return found if table is None else found._replace(page_table=table.copy())

    # ---- a step ----

    def advance(self, rows: Any) -> Any:
        """Begins a step: makes room for new rows and counts them.

        Args:
            rows: new rows of every sequence, a number; or of each, integers (batch), some of which
                may be 0: what layers then store and attend with is ragged

        Returns:
            int64, the positions of the new rows in their sequences, for rotary embeddings: (batch,
            rows), or ragged (total).

        Raises:
            CacheFullError: there is no room, for any of them.
            Error: rows are no numbers of 0 or more; a layer has not stored its rows of the step
                before.
        """
        return self._from_numpy(self._begin(rows).positions())

    def append(
        self, key: Any, value: Any, layer: int | None = None, *, context: Context | None = None
    ) -> None:
        """Stores a layer's rows of the step, at the ends of their sequences, converted to the
        cache's dtype.

        Without a step whose rows this layer has still to store, it begins one, as
        advance(key.shape[-2]) does: of a model without rotary embeddings nothing else is needed.

        Args:
            key: (batch, num_kv_heads, L, head_dim), or ragged (num_kv_heads, total, head_dim)
            value: (batch, num_kv_heads, L, value_dim), or ragged (num_kv_heads, total, value_dim)
            layer: 0 to layers - 1; None where there is one
            context: threads and kernels; None: as in scaled_dot_product_attention

        Raises:
            CacheFullError: as advance.
            Error: the first argument that does not fit; the layer has stored its rows of this step
                while others have not. Nothing is stored then, and no step begun.
        """
        number = self._layer(layer)
        shape = shape_of("key", key)
        step, begins = self._step_to_store(number, shape)
        try:
            starts = step.starts_in("key", shape)
            place = self._memory.whole(number, self._lengths)
            kv_append(place, key, value, starts=starts, context=context)
        except BaseException:
            if begins:
                self.rollback()
            raise
        step.pending.discard(number)

    def attend(
        self,
        query: Any,
        layer: int | None = None,
        *,
        is_causal: bool = True,
        **options: Unpack[CacheOptions],
    ) -> Any:
        """Attention of a layer's queries to its sequences, as scaled_dot_product_attention.

        Args:
            query: (batch, Hq, L, head_dim): the last of the L rows stands at its sequence's last
                key. Ragged (Hq, total, head_dim): the rows of the step, likewise
            layer: 0 to layers - 1; None where there is one
            is_causal: row i sees keys up to where it stands
            options: attn_mask, scale, bias, window, softcap, sinks, alibi_slopes, normalizer,
                mask_start, position_bias, dropout, return_lse, return_weights, return_scores, out
                and context as there; S, the columns of attn_mask without mask_start, bias, weights
                and scores, is the rows of the longest sequence

        Returns:
            The output (batch, Hq, L, value_dim), or ragged (Hq, total, value_dim), of query's kind
            and dtype; with return_lse, return_weights or return_scores as there.

        Raises:
            Error: the first argument that does not fit; the layer has not stored its rows of this
                step.
        """
        number = self._layer(layer)
        step = self._step_that_is_stored(number)
        starts = self._starts_in_query(step, shape_of("query", query))
        longest = self._longest
        are_wide = [
            has_columns(name, options.get(name), longest)
            for name in _WITH_COLUMNS
            if name != "attn_mask" or options.get("mask_start") is None
        ]
        found = scaled_dot_product_attention(
            query,
            kv=self._used(number, any(are_wide)),
            query_starts=starts,
            is_causal=is_causal,
            align_end=True,
            enable_gqa=True,
            **options,
        )
        with_columns = sum(options.get(name) not in (None, False) for name in _RESULTS_WITH_COLUMNS)
        if with_columns:
            others = len(found) - with_columns
            return (*found[:others], *(one[..., :longest] for one in found[others:]))
        return found

    def rollback(self) -> None:
        """Takes back a step that not every layer has stored its rows of, as if it had not begun.
        Without one nothing happens."""
        step = self._step
        if step is not None and step.pending:
            self._cut(step.before)

    # ---- fewer rows ----

    def reset(self, sequence: int | None = None) -> None:
        """Makes a sequence empty, for a new one in its place.

        Args:
            sequence: 0 to batch - 1; None: all, and the step, too

        Raises:
            Error: there is no such sequence; a layer has not stored its rows of this step, and
                sequence is not None.
        """
        if sequence is None:
            self._cut(np.zeros_like(self._lengths))
            return
        after = self._lengths.copy()
        after[self._sequence(sequence)] = 0
        self._refuse_within_step()
        self._cut(after)

    def truncate(self, lengths: Any, sequence: int | None = None) -> None:
        """Keeps the first rows of sequences, as after tokens that were only proposed.

        Args:
            lengths: how many; a sequence that has fewer stays as it is. A number for all, or
                integers (batch)
            sequence: 0 to batch - 1, the only one that is cut; None: all

        Raises:
            Error: lengths are no numbers of 0 or more, there is no such sequence, or a layer has
                not stored its rows of this step.
        """
        kept, _ = row_counts(self.batch, "lengths", lengths)
        if sequence is not None:
            only = np.arange(self.batch) == self._sequence(sequence)
            kept = np.where(only, kept, self._lengths)
        self._refuse_within_step()
        self._cut(np.minimum(self._lengths, kept))

    # ---- for MultiheadAttention ----

    def _store_by(
        self, call: Callable[[KV], _Found], layer: int | None, rows: int, has_columns: bool
    ) -> _Found:
        """What a call returns that stores a layer's rows of the step where it is told, and attends
        to them; as append."""
        number = self._layer(layer)
        shape = (self.batch, self.num_kv_heads, rows, self.head_dim)
        step, begins = self._step_to_store(number, shape)
        try:
            step.starts_in("key", shape)
            kv = self._used(number, has_columns)
            found = call(kv)
            note_written(kv.key, kv.value)
        except BaseException:
            if begins:
                self.rollback()
            raise
        step.pending.discard(number)
        return found

    def _read_by(
        self, call: Callable[[KV], _Found], layer: int | None, has_columns: bool
    ) -> _Found:
        """What a call returns that attends to a layer's rows; as attend."""
        number = self._layer(layer)
        self._step_that_is_stored(number)
        return call(self._used(number, has_columns))

    # ---- behind these ----

    def _used(self, number: int, has_columns: bool) -> KV:
        return self._memory.used(number, self._lengths, self._longest, has_columns)

    def _step_to_store(self, number: int, shape: tuple[int, ...]) -> tuple[Step, bool]:
        """The step whose rows a layer is to store, of keys of this shape, and whether it begins."""
        step = self._step
        begins = step is None or not step.pending
        if step is None or begins:
            step = self._begin_by(shape)
        step.refuse_again(number)
        return step, begins

    def _step_that_is_stored(self, number: int) -> Step | None:
        step = self._step
        if step is not None and number in step.pending:
            raise wrong(f"layer: {number} has not stored its rows of this step; append comes first")
        return step

    def _begin(self, rows: Any) -> Step:
        self._refuse_within_step()
        counts, is_one = row_counts(self.batch, "rows", rows)
        before, after = self._lengths, self._lengths + counts
        self._memory.grow(before, after)
        self._set_lengths(after)
        self._step = Step(before, counts, is_one, self.layers)
        return self._step

    def _begin_by(self, shape: tuple[int, ...]) -> Step:
        """A step of the rows that keys have."""
        if len(shape) != 4:
            expected = f"(batch={self.batch}, num_kv_heads={self.num_kv_heads}, L, {self.head_dim})"
            raise wrong_shape("key", f"{expected}, or advance before ragged rows", shape)
        return self._begin(shape[2])

    def _cut(self, after: Any) -> None:
        self._memory.shrink(self._lengths, after)
        self._set_lengths(after)
        self._step = None

    def _set_lengths(self, lengths: Any) -> None:
        """They are replaced, never written: a step keeps those that were before it."""
        self._lengths = lengths
        self._longest = int(lengths.max())

    def _refuse_within_step(self) -> None:
        if self._step is not None:
            self._step.refuse_unless_stored()

    def _starts_in_query(self, step: Step | None, shape: tuple[int, ...]) -> Any:
        if len(shape) == 4 and shape[0] == self.batch:
            return None
        if len(shape) == 3 and step is not None:
            return step.starts_in("query", shape)
        expected = f"(batch={self.batch}, Hq, L, E={self.head_dim})"
        raise wrong_shape("query", f"{expected}, or ragged rows of a step", shape)

    def _layer(self, layer: int | None) -> int:
        if layer is None and self.layers == 1:
            return 0
        return number_below(self.layers, "layer", layer)

    def _sequence(self, sequence: int) -> int:
        return number_below(self.batch, "sequence", sequence)
