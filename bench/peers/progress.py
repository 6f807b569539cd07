# SPDX-License-Identifier: BSD-3-Clause
"""Tells a person how far the run is: one changing line on a terminal, a line per cell elsewhere."""

import sys
import time


class Progress:
    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def begin(self, name: str, threads: int) -> None:
        noun = "thread" if threads == 1 else "threads"
        text = f"[{self._done + 1}/{self._total}] {name}, {threads} {noun}{self._left()}"
        if self._terminal:
            print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def advance(self) -> None:
        self._done += 1

    def note(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _left(self) -> str:
        if self._done == 0:
            return ""
        seconds = (time.monotonic() - self._started) / self._done * (self._total - self._done)
        return f", about {int(seconds) // 60}:{int(seconds) % 60:02d} min left"
