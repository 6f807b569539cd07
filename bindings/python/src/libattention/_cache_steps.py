# SPDX-License-Identifier: BSD-3-Clause
"""The step of a KVCache: what is new in each sequence, and which layers have it."""

from __future__ import annotations

from typing import Any

import numpy as np

from libattention._cache_checks import wrong, wrong_shape


class Step:
    """New rows of all sequences, which each layer stores once.

    Args:
        before: int64, (batch): rows that sequences had
        rows: int64, (batch): how many are new
        are_alike: they lie as a batch, as many for each sequence
        layers: how many layers store them

    Attributes:
        before: as given
        starts: int64, (batch + 1): where they begin, one sequence behind the other
        num_each: how many of every sequence; None where they do not lie as a batch
        pending: layers that have not stored theirs
    """

    __slots__ = ("before", "num_each", "pending", "starts")

    def __init__(self, before: Any, rows: Any, are_alike: bool, layers: int) -> None:
        self.before = before
        self.starts = np.concatenate([[0], np.cumsum(rows)])
        self.num_each = int(rows[0]) if are_alike else None
        self.pending = set(range(layers))

    def positions(self) -> Any:
        """Of the new rows in their sequences: (batch, rows), or where they are ragged (total)."""
        if self.num_each is not None:
            return self.before[:, None] + np.arange(self.num_each)
        counts = np.diff(self.starts)
        return np.repeat(self.before - self.starts[:-1], counts) + np.arange(self.starts[-1])

    def starts_in(self, name: str, shape: tuple[int, ...]) -> Any:
        """Where sequences begin in an array of the step's rows; None where it is a batch."""
        total = int(self.starts[-1])
        if len(shape) == 3 and shape[1] == total:
            return self.starts
        if len(shape) == 4 and shape[2] == self.num_each:
            return None
        expected = f"ragged (heads, total={total}, features)"
        if self.num_each is not None:
            expected = f"(batch, heads, L={self.num_each}, features), or {expected}"
        raise wrong_shape(name, f"{expected}, as this step has", shape)

    def refuse_unless_stored(self) -> None:
        """Refuses what only a step may meet that all layers have the rows of."""
        if self.pending:
            raise wrong(f"layer: the rows of this step have not been stored by {self._behind()}")

    def refuse_again(self, layer: int) -> None:
        """Refuses a layer that has stored the rows, while others have not."""
        if layer not in self.pending:
            raise wrong(
                f"layer: {layer} has stored its rows of this step, which have not been by "
                f"{self._behind()}"
            )

    def _behind(self) -> str:
        """The layers that are missing, and what to do."""
        first = sorted(self.pending)
        more = f" and {len(first) - 4} more" if first[4:] else ""
        return f"{', '.join(map(str, first[:4]))}{more}; append them, or rollback the step"
