# SPDX-License-Identifier: BSD-3-Clause
"""A small run whose figures are easy to compute by hand."""

from typing import Any

from peers.cells import CAUSAL, DECODE, PREFILL, Cell

SQUARE = Cell(PREFILL, 1, 2, 2, 100, 100, 10, 10)
TRIANGLE = Cell(PREFILL, 1, 2, 2, 100, 100, 10, 10, CAUSAL)
ONE_QUERY = Cell(DECODE, 1, 4, 2, 1, 1000, 10, 10)

# 2 heads, 100 x 100 pairs, 2 products of 10 multiply-adds.
SQUARE_FLOPS = 2 * 100 * 100 * 2 * 20


def entry(
    cell: Cell, threads: int, seconds: dict[str, list[float]], **changes: Any
) -> dict[str, Any]:
    count = len(next(iter(seconds.values())))
    fields = {
        "cell": cell.to_json(),
        "name": cell.name,
        "threads": threads,
        "calls_per_timing": 1,
        "seconds": seconds,
        "how": {},
        "absent": {},
        "limit": {"kind": "fma flops/s", "samples": [1e9] * count},
        "differences": {},
        "errors": [],
    }
    return fields | changes


def document(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": 1,
        "date": "2026-01-02",
        "commit": "0123456789",
        "machine": {
            "flops_per_cycle": 32,
            "cpu": "A CPU",
            "cpus": 4,
            "usable_cpus": 2,
            "caches": ["L1 32 KiB"],
            "memory_gib": 8,
            "architecture": "x86_64",
            "system": "Linux 6",
            "virtual": False,
            "python": "3.12.0",
        },
        "numpy": "2.0",
        "threads": sorted({one["threads"] for one in entries}),
        "settings": {"most_repetitions": 3, "budget_seconds": 1.0},
        "contestants": {
            "libattention": {"version": "0.1", "kernels": "avx2", "configuration": "defaults"},
            "PyTorch": {"version": "2", "configuration": "defaults"},
            "ONNX Runtime": {"version": "1", "configuration": "defaults"},
            "OpenVINO": {"missing": "not installed"},
        },
        "results": entries,
    }


def run() -> dict[str, Any]:
    """Two thread counts; PyTorch half as fast in the square, twice as fast in the triangle."""
    square = {"libattention": [0.004] * 3, "PyTorch": [0.008] * 3, "ONNX Runtime": [0.012] * 3}
    triangle = {"libattention": [0.003] * 3, "PyTorch": [0.0015] * 3}
    one_query = {"libattention": [0.001] * 3}
    return document(
        [
            entry(SQUARE, 1, square, accuracy={"libattention": 1e-7, "PyTorch": 3e-7}),
            entry(SQUARE, 2, _halved(square), accuracy={"libattention": 2e-7}),
            entry(TRIANGLE, 1, triangle),
            entry(TRIANGLE, 2, _halved(triangle)),
            entry(ONE_QUERY, 1, one_query, absent={"PyTorch": "failed: no"}),
            entry(ONE_QUERY, 2, one_query | {"PyTorch": [0.001] * 3}),
        ]
    )


def _halved(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [value / 2 for value in values] for name, values in seconds.items()}
