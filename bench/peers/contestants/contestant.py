# SPDX-License-Identifier: BSD-3-Clause
"""What a contestant is to its worker process."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from peers.cells import Cell
from peers.inputs import Array, Inputs

# One computation of the cell, all results in memory when it returns.
Call = Callable[[], object]


class NotOffered(Exception):
    """The contestant cannot express the cell; the text says why and is shown to readers."""


class Prepared:
    """A cell ready to be timed."""

    def __init__(self, call: Call, outputs: Callable[[], list[Array]], how: str) -> None:
        """`outputs` gives the last call's results in our layout; `how` says what was called."""
        self.call = call
        self.outputs = outputs
        self.how = how


class Contestant(ABC):
    """Made after the environment's thread counts are set: that is when libraries read them."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """`version` and `configuration`, for the page."""

    @abstractmethod
    def prepare(self, cell: Cell, inputs: Inputs) -> Prepared:
        """Everything that a program would do once; raises NotOffered."""
