# SPDX-License-Identifier: BSD-3-Clause
"""One cell at one thread count: every contestant once per repetition, and a comparison of what
they computed."""

import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from peers import exact, inputs, tally, work
from peers.cells import BFLOAT16, FLOAT16, FLOAT32, Cell
from peers.crew import Crew, Member, WorkerFailed
from peers.limits import Limits
from peers.results import OURS

# A timing is not shorter than this; if the fastest contestant's call is not longer than that, each
# timing has an untimed call first.
LEAST_TIMING_SECONDS = 1e-3
LONG_CALL_SECONDS = 0.02
MOST_CALLS = 10_000
LEAST_REPETITIONS = 3

# Of the largest output. Float32 kernels differ by 1e-6; other semantics by much more than this. In
# 16 bits peers round weights, too, and sums: a few of the type's steps, of 2^-8 and 2^-11 (OpenVINO
# computes float16 in bfloat16).
TOLERANCES = {FLOAT32: 1e-4, BFLOAT16: 2e-2, FLOAT16: 2e-2}


@dataclass(frozen=True)
class Settings:
    most_repetitions: int
    budget_seconds: float
    scratch: Path


@dataclass
class Race:
    cell: Cell
    crew: Crew
    limits: Limits
    settings: Settings
    how: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    first_seconds: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    limit_samples: list[float] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """The cell's entry of the results."""
        self._prepare()
        calls = (
            tally.calls_per_timing(self.first_seconds.values(), LEAST_TIMING_SECONDS, MOST_CALLS)
            if self.how
            else 1
        )
        if self.how:
            self._repeat(calls)
        found = self._outputs()
        differences, errors = self._compare(found)
        accuracy = self._accuracy(found)
        self._finish()
        return {
            "cell": self.cell.to_json(),
            "name": self.cell.name,
            "threads": self.crew.threads,
            "calls_per_timing": calls,
            "seconds": {
                name: [_rounded(value) for value in values] for name, values in self.samples.items()
            },
            "how": self.how,
            "absent": self.absent,
            "limit": {
                "kind": self._limit_kind(),
                "samples": [_rounded(value) for value in self.limit_samples],
            },
            "differences": differences,
            "accuracy": accuracy,
            "errors": errors,
        }

    def _limit_kind(self) -> str:
        return "read bytes/s" if work.is_bound_by_memory(self.cell) else "fma flops/s"

    def _running(self) -> list[Member]:
        return [member for member in self.crew.members if member.name in self.how]

    def _fail(self, member: Member, reason: str) -> None:
        self.absent[member.name] = reason
        self.how.pop(member.name, None)
        self.samples.pop(member.name, None)
        self.first_seconds.pop(member.name, None)

    def _prepare(self) -> None:
        self.absent |= self.crew.missing
        for member in self.crew.members:
            if self.cell.only_ours and member.name != OURS:
                self.absent[member.name] = "not asked: measured for libattention's own ratios"
                continue
            try:
                answer = member.prepare(self.cell)
            except WorkerFailed as error:
                self._fail(member, f"failed: {error}")
                continue
            if "not_offered" in answer:
                self._fail(member, answer["not_offered"])
                continue
            self.how[member.name] = answer["how"]
            self.first_seconds[member.name] = answer["seconds"]
            self.samples[member.name] = []
            member.wait_until_asleep()

    def _repeat(self, calls: int) -> None:
        lead = min(self.first_seconds.values()) < LONG_CALL_SECONDS
        started = time.perf_counter()
        count = LEAST_REPETITIONS
        repetition = 0
        while repetition < count:
            self._round(repetition, calls, lead)
            repetition += 1
            round_seconds = (time.perf_counter() - started) / repetition
            count = tally.repetitions(
                round_seconds,
                self.settings.budget_seconds,
                LEAST_REPETITIONS,
                self.settings.most_repetitions,
            )

    def _round(self, repetition: int, calls: int, lead: bool) -> None:
        """The limit, then everyone; who is first changes from round to round."""
        self.limit_samples.append(
            self.limits.measure(self.crew.threads, work.is_bound_by_memory(self.cell))
        )
        members = self._running()
        first = repetition % max(1, len(members))
        for member in members[first:] + members[:first]:
            try:
                seconds = member.run(calls, lead)
            except WorkerFailed as error:
                self._fail(member, f"failed: {error}")
                continue
            self.samples[member.name].append(seconds)
            member.wait_until_asleep()

    def _outputs(self) -> dict[str, list[np.ndarray]]:
        found = {}
        path = self.settings.scratch / "outputs.npz"
        for member in self._running():
            try:
                member.ask("save", path=str(path))
            except WorkerFailed as error:
                self._fail(member, f"failed: {error}")
                continue
            with np.load(path) as arrays:
                found[member.name] = [arrays[name] for name in arrays.files]
        path.unlink(missing_ok=True)
        return found

    def _finish(self) -> None:
        for member in self._running():
            try:
                member.ask("finish")
            except WorkerFailed as error:
                self._fail(member, f"failed: {error}")

    def _accuracy(self, found: dict[str, list[np.ndarray]]) -> dict[str, float]:
        """Of each contestant, against float64 on the same stored numbers."""
        made = inputs.make(self.cell)
        return {
            name: _rounded(_finite(exact.error(self.cell, made, arrays)))
            for name, arrays in found.items()
        }

    def _compare(
        self, found: dict[str, list[np.ndarray]]
    ) -> tuple[dict[str, dict[str, float]], list[str]]:
        """Everyone with everyone: a majority shows who is wrong."""
        differences = {}
        errors = []
        for (name, ours), (other, theirs) in itertools.combinations(found.items(), 2):
            absolute, relative = difference_of(ours, theirs)
            differences[f"{name} - {other}"] = {
                "absolute": _rounded(absolute),
                "relative": _rounded(relative),
            }
            if not relative <= TOLERANCES[self.cell.dtype]:
                errors.append(f"{name} and {other} differ by {relative:.1e} of the largest output")
        return differences, errors


def difference_of(ours: list[np.ndarray], theirs: list[np.ndarray]) -> tuple[float, float]:
    """The largest difference of all outputs, and over the largest value; infinite where it cannot
    be told."""
    if [array.shape for array in ours] != [array.shape for array in theirs]:
        return float("inf"), float("inf")
    absolute = max(
        _finite(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True)
    )
    relative = max(
        _finite(np.abs(one - other).max() / np.abs(one).max())
        for one, other in zip(ours, theirs, strict=True)
    )
    return absolute, relative


def _finite(value: np.floating | float) -> float:
    return float(value) if np.isfinite(value) else float("inf")


def _rounded(value: float) -> float:
    """Four digits are more than a timing is worth; the file stays readable."""
    return float(f"{value:.4g}") if np.isfinite(value) else 1e300
