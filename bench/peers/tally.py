# SPDX-License-Identifier: BSD-3-Clause
"""Statistics of interleaved timings. Shared machines have slow spells that last longer than a
turn: only ratios within a repetition are comparable, and their median ignores the turns that a
spell cut in two."""

import math
import statistics
from collections.abc import Iterable, Sequence


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Pairs of the same repetition, divided."""
    return [
        numerator / denominator
        for numerator, denominator in zip(numerators, denominators, strict=True)
    ]


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    return median(ratios(numerators, denominators))


def geometric_mean(values: Iterable[float]) -> float | None:
    """None without values: a run of selected cells may have none of a kind."""
    logarithms = [math.log(value) for value in values]
    return math.exp(math.fsum(logarithms) / len(logarithms)) if logarithms else None


def calls_per_timing(call_seconds: Iterable[float], least_seconds: float, most_calls: int) -> int:
    """Calls in one timing: the same for every contestant, enough that the fastest one's is not
    lost in the clock."""
    fastest = min(call_seconds)
    return max(1, min(most_calls, math.ceil(least_seconds / max(fastest, 1e-9))))


def repetitions(round_seconds: float, budget_seconds: float, least: int, most: int) -> int:
    """Rounds that fit the budget, within bounds; the lower bound wins."""
    return max(least, min(most, int(budget_seconds / max(round_seconds, 1e-9))))
