# SPDX-License-Identifier: BSD-3-Clause
"""What the machine can do, measured beside every cell because shared machines change under us."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

FMA_SECONDS = 0.01
READ_SECONDS = 0.03


class LimitUnknown(Exception):
    """Too many threads or too little memory for the measurement."""


class Limits:
    """The two measurements of libattn_limits, a library of this project's benchmarks."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self._fma = self._function(library.attn_limit_fma_flops)
        self._read = self._function(library.attn_limit_read_bytes)
        self.flops_per_cycle: int = library.attn_limit_flops_per_cycle()

    @staticmethod
    def _function(function: Any) -> Callable[[int, float], float]:
        function.argtypes = [ctypes.c_int, ctypes.c_double]
        function.restype = ctypes.c_double
        return function

    def measure(self, threads: int, reads: bool) -> float:
        """Flops per second, or bytes read per second."""
        limit = self._read(threads, READ_SECONDS) if reads else self._fma(threads, FMA_SECONDS)
        if limit <= 0:
            raise LimitUnknown(f"the limits of {threads} threads cannot be measured here")
        return limit
