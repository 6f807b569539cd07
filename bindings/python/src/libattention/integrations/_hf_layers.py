# SPDX-License-Identifier: BSD-3-Clause
"""Layers of a cache for models of transformers, whose keys and values libattention stores."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin, LinearAttentionLayer

from libattention._cache_checks import wrong
from libattention._kv import KV
from libattention.integrations._hf_rows import Heads, Rows
from libattention.integrations._hf_stored import StoredRows


class AttentionLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, as transformers' DynamicLayer and DynamicSlidingWindowLayer.

    Args:
        dtype: what is stored; None: what comes first, the wider where keys and values differ
        max_length: rows that there may be; None: any number
        sliding_window: rows that a row sees, itself included; None: all. So many less one are kept

    Attributes:
        is_initialized: rows have come, so that it is known what they are
    """

    is_compileable = False
    is_croppable = True

    def __init__(
        self,
        dtype: torch.dtype | None = None,
        max_length: int | None = None,
        sliding_window: int | None = None,
    ) -> None:
        self.is_sliding = sliding_window is not None
        self.record_past = False
        self._dtype = dtype
        self._max_length = max_length
        self._window = sliding_window
        self._forget_all()

    def _forget_all(self) -> None:
        self.is_initialized = False
        self._rows: Rows | None = None
        self._model_dtypes: Any = None  # of the last keys and values that came
        self._length = 0  # those that were dropped included

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return 0 if self._rows is None else self._rows.nbytes

    # ---- what there is ----

    @property
    def keys(self) -> torch.Tensor | None:  # type: ignore[override]
        """(N, Hk, S, E): the rows that are kept; None before there are any."""
        return self._kept()[0]

    @property
    def values(self) -> torch.Tensor | None:  # type: ignore[override]
        """(N, Hk, S, Ev): likewise."""
        return self._kept()[1]

    def _kept(self) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
        rows = self._rows
        return (None, None) if rows is None else self._tensors(rows.newest(self._seen_by_next()))

    def _seen_by_next(self) -> int:
        """Of the rows that there are, how many the next row sees."""
        return self._length if self._window is None else min(self._length, self._window - 1)

    def _tensors(self, rows: KV) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of memory, where it has the model's dtype."""
        key, value = self._model_dtypes
        return (
            _as_dtype(key, rows.key, rows.key_scale),
            _as_dtype(value, rows.value, rows.value_scale),
        )

    def get_seq_length(self) -> int:
        """Rows that came so far."""
        return self._length

    def get_max_length(self) -> int:
        """Rows that it may have; -1: any number."""
        most = self._max_length if self._window is None else self._window
        return -1 if most is None else most

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many rows the next update of so many returns, and which row is the first of them."""
        seen = self._seen_by_next()
        return seen + query_length, self._length - seen

    # ---- new rows ----

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Memory for such rows."""
        self._rows = self._memory_for(key_states, value_states)
        self._model_dtypes = key_states.dtype, value_states.dtype
        self.is_initialized = True

    def _memory_for(self, key_states: torch.Tensor, value_states: torch.Tensor) -> Rows:
        dtype = self._dtype or torch.promote_types(key_states.dtype, value_states.dtype)
        heads = Heads(key_states.shape[1], (key_states.shape[-1], value_states.shape[-1]))
        limit = self._max_length if self._window is None else None
        return Rows(dtype, key_states.shape[0], heads, limit)

    @torch.compiler.disable(reason="it writes memory that the compiler does not know")  # type: ignore[untyped-decorator]
    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores new rows, and returns what they see: every row that one of them does.

        Args:
            key_states: (N, Hk, L, E)
            value_states: (N, Hk, L, Ev)
            args: of other caches
            kwargs: likewise

        Returns:
            (N, Hk, S, E) and (N, Hk, S, Ev), views of memory, where it has the model's dtype, else
            StoredRows. They count until the next update.

        Raises:
            CacheFullError: there are more rows than max_length.
            Error: gradients are wanted, or what comes cannot be stored. Nothing is stored then.
        """
        rows = self._rows
        if rows is None:
            rows = self._memory_for(key_states, value_states)
        rows.append(key_states, value_states)
        self._rows, self.is_initialized = rows, True
        self._model_dtypes = key_states.dtype, value_states.dtype
        new = key_states.shape[-2]
        found = rows.newest(self._seen_by_next() + new)
        self._length += new
        if not self.record_past:
            rows.forget(rows.count - self._seen_by_next())
        return self._tensors(found)

    # ---- fewer rows, other sequences ----

    def reset(self) -> None:
        """Drops everything, memory included: another batch may come."""
        self._forget_all()

    def activate_past_recording(self) -> None:
        """Keeps rows that no row will see until the next crop, which may then take back others."""
        self.record_past = True

    def crop(self, tokens_to_remove: int) -> None:
        """Takes back the newest rows.

        Args:
            tokens_to_remove: minus how many

        Raises:
            Error: the number is positive; rows that are seen then have been dropped, since
                activate_past_recording was not called before they were.
        """
        if tokens_to_remove > 0:
            text = f"tokens_to_remove: expected 0 or minus a number, got {tokens_to_remove}"
            raise wrong(text)
        rows = self._rows
        if rows is None:
            return
        length = max(0, self._length + tokens_to_remove)
        seen = length if self._window is None else min(length, self._window - 1)
        removed = self._length - length
        if rows.count - removed < seen:
            raise wrong(
                f"tokens_to_remove: {tokens_to_remove} makes rows visible that a sliding window "
                "has dropped; call activate_past_recording before they are stored"
            )
        rows.cut(removed)
        self._length = length
        rows.forget(rows.count - seen)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Sequence beam_idx[i] in the place of sequence i."""
        if self._rows is not None:
            self._rows.choose(beam_idx.cpu())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence so many times."""
        if self._rows is not None:
            self._rows.choose(self._rows.sequences.repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """These sequences only, by numbers or by a mask."""
        if self._rows is not None:
            self._rows.choose(self._rows.sequences[indices])

    def offload(self) -> None:
        """Nothing: memory is the CPU's."""

    def prefetch(self) -> None:
        """Nothing: memory is the CPU's."""


def _as_dtype(dtype: torch.dtype, stored: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    return stored if stored.dtype == dtype else StoredRows(stored, scale, dtype)


class HybridLayer(LinearAttentionLayer, AttentionLayer):  # type: ignore[no-untyped-call, override]
    """Keys and values beside the states of linear attention, which transformers' own class has.

    Args:
        number_of_states: of linear attention
        options: of AttentionLayer
    """

    is_compileable = False

    def __init__(self, *, number_of_states: int = 1, **options: Any) -> None:
        LinearAttentionLayer.__init__(self, number_of_states=number_of_states)
        AttentionLayer.__init__(self, **options)

    def reset(self) -> None:
        """Drops everything."""
        LinearAttentionLayer.reset(self)
        AttentionLayer.reset(self)

    def crop(self, tokens_to_remove: int) -> None:
        """Takes back the newest rows, where the states can be."""
        LinearAttentionLayer.crop(self, tokens_to_remove)
        AttentionLayer.crop(self, tokens_to_remove)

    def reorder_cache(self, beam_idx: Any) -> None:
        """Sequence beam_idx[i] in the place of sequence i."""
        LinearAttentionLayer.reorder_cache(self, beam_idx)
        AttentionLayer.reorder_cache(self, beam_idx)

    def offload(self) -> None:
        """Nothing: memory is the CPU's."""

    def prefetch(self) -> None:
        """Nothing: memory is the CPU's."""
