# SPDX-License-Identifier: BSD-3-Clause
"""The JSON of a run, and what follows from it. The file holds timings only; every other figure is
computed here, so that page, plot and tests cannot disagree."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import cells, tally, work
from peers.cells import Cell

SCHEMA = 1
OURS = "libattention"


@dataclass(frozen=True)
class Entry:
    """One cell at one thread count."""

    cell: Cell
    threads: int
    flops_per_cycle: int
    data: dict[str, Any]

    @property
    def name(self) -> str:
        return self.data["name"]

    @property
    def errors(self) -> list[str]:
        return self.data["errors"]

    @property
    def absent(self) -> dict[str, str]:
        return self.data["absent"]

    @property
    def accuracy(self) -> dict[str, float]:
        """Of each contestant: the largest error over the largest value, against float64."""
        return self.data.get("accuracy", {})

    def samples(self, contestant: str) -> list[float]:
        return self.data["seconds"].get(contestant, [])

    @property
    def counts(self) -> bool:
        """Whether its figures may enter a summary: ours was measured and nobody disagrees."""
        return bool(self.samples(OURS)) and not self.errors

    @property
    def seconds(self) -> float | None:
        return tally.median(self.samples(OURS)) if self.samples(OURS) else None

    def speed_ratio(self, contestant: str) -> float | None:
        """The peer's time over ours: above 1 we are faster."""
        if not self.samples(OURS) or not self.samples(contestant):
            return None
        return tally.median_ratio(self.samples(contestant), self.samples(OURS))

    def best_peer(self) -> tuple[str, float] | None:
        """The peer with the smallest ratio."""
        found = [(self.speed_ratio(name), name) for name in self.data["seconds"] if name != OURS]
        offered = [(ratio, name) for ratio, name in found if ratio is not None]
        if not offered:
            return None
        ratio, name = min(offered)
        return name, ratio

    @property
    def work(self) -> int:
        """Bytes where memory is the limit, else flops."""
        return (
            work.key_value_bytes(self.cell)
            if work.is_bound_by_memory(self.cell)
            else work.flops(self.cell)
        )

    @property
    def rate(self) -> float | None:
        return None if self.seconds is None else self.work / self.seconds

    def fraction_of_limit(self) -> float | None:
        """Of the FMA peak or the read bandwidth measured in the same repetition."""
        if not self.samples(OURS):
            return None
        bounds = [self.work / limit for limit in self.data["limit"]["samples"]]
        return tally.median_ratio(bounds, self.samples(OURS))

    def fraction_of_compute_bound(self) -> float | None:
        """As above, an exponential's cycle counted too; None where memory is the limit."""
        if not self.samples(OURS) or work.is_bound_by_memory(self.cell):
            return None
        limits = self.data["limit"]["samples"]
        bounds = [
            work.compute_bound_seconds(self.cell, limit, self.flops_per_cycle) for limit in limits
        ]
        return tally.median_ratio(bounds, self.samples(OURS))


@dataclass(frozen=True)
class Results:
    data: dict[str, Any]
    entries: tuple[Entry, ...]

    @property
    def thread_counts(self) -> list[int]:
        return self.data["threads"]

    @property
    def peers(self) -> list[str]:
        return [name for name in self.data["contestants"] if name != OURS]

    def at(self, threads: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.threads == threads]

    def find(self, cell: Cell, threads: int) -> Entry | None:
        return next(
            (entry for entry in self.at(threads) if entry.cell == cell and entry.counts), None
        )


def from_data(data: dict[str, Any]) -> Results:
    if data.get("schema") != SCHEMA:
        raise ValueError(f"results of schema {data.get('schema')}; this program reads {SCHEMA}")
    flops_per_cycle = data["machine"]["flops_per_cycle"]
    entries = tuple(
        Entry(cells.from_json(entry["cell"]), entry["threads"], flops_per_cycle, entry)
        for entry in data["results"]
    )
    return Results(data, entries)


def read(path: Path) -> Results:
    return from_data(json.loads(path.read_text(encoding="utf-8")))


def write(data: dict[str, Any], path: Path) -> None:
    """A line for each result: a diff of two runs is readable, and the file is not longer than it
    need be."""
    head = {name: value for name, value in data.items() if name != "results"}
    text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    lines = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in data["results"])
    path.write_text(f'{text},\n "results": [\n{lines}\n ]\n}}\n', encoding="utf-8")
