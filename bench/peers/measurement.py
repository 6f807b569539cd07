# SPDX-License-Identifier: BSD-3-Clause
"""A run: crews for each thread count, every cell in turn, and the JSON of it all."""

import datetime
import importlib.metadata
import os
import tempfile
from pathlib import Path
from typing import Any

from peers import machine
from peers.cells import Cell
from peers.crew import Crew
from peers.limits import Limits, LimitUnknown
from peers.progress import Progress
from peers.race import Race, Settings
from peers.results import OURS, SCHEMA
from peers.worker import CLASSES

LIMITS_VARIABLE = "ATTENTION_BENCH_LIMITS"


class CannotMeasure(Exception):
    """There is nothing to compare: no libattention, or no limit of the machine."""


def measure(
    root: Path, chosen: list[Cell], threads: list[int], repetitions: int, seconds: float
) -> dict[str, Any]:
    """All thread counts of a cell one after the other, so that they meet the same state of the
    machine."""
    limits = Limits(Path(os.environ[LIMITS_VARIABLE]))
    progress = Progress(len(chosen) * len(threads))
    with tempfile.TemporaryDirectory(prefix="attention-bench-") as scratch:
        settings = Settings(repetitions, seconds, Path(scratch))
        log = root / "build" / "bench-workers.log"
        log.unlink(missing_ok=True)
        crews: list[Crew] = []
        try:
            crews.extend(Crew(list(CLASSES), count, log) for count in threads)
            contestants = _contestants(crews[0])
            for name, about in contestants.items():
                if "missing" in about:
                    progress.note(f"bench: without {name}: {about['missing']}")
            entries = _race_all(chosen, crews, limits, settings, progress)
        except LimitUnknown as error:
            raise CannotMeasure(str(error)) from error
        finally:
            progress.clear()
            for crew in crews:
                crew.stop()
    about = machine.describe() | {"flops_per_cycle": limits.flops_per_cycle}
    return _document(root, about, threads, settings, contestants, entries)


def _contestants(crew: Crew) -> dict[str, dict[str, str]]:
    """In the order of the table."""
    if OURS in crew.missing:
        raise CannotMeasure(f"libattention: {crew.missing[OURS]}")
    present = {member.name: member.about for member in crew.members}
    return {name: present.get(name) or {"missing": crew.missing[name]} for name in CLASSES}


def _race_all(
    chosen: list[Cell], crews: list[Crew], limits: Limits, settings: Settings, progress: Progress
) -> list[dict[str, Any]]:
    entries = []
    for cell in chosen:
        for crew in crews:
            progress.begin(cell.name, crew.threads)
            crew.restart_ended()
            entry = Race(cell, crew, limits, settings).run()
            for problem in _problems(entry):
                progress.note(f"bench: {cell.name}, threads {crew.threads}: {problem}")
            entries.append(entry)
            progress.advance()
    return entries


def _problems(entry: dict[str, Any]) -> list[str]:
    failed = [
        f"{name}: {reason}"
        for name, reason in entry["absent"].items()
        if reason.startswith("failed")
    ]
    return entry["errors"] + failed


def _document(
    root: Path,
    about: dict[str, object],
    threads: list[int],
    settings: Settings,
    contestants: dict[str, Any],
    entries: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "date": datetime.date.today().isoformat(),
        "commit": machine.commit(root),
        "machine": about,
        "numpy": importlib.metadata.version("numpy"),
        "threads": threads,
        "settings": {
            "most_repetitions": settings.most_repetitions,
            "budget_seconds": settings.budget_seconds,
        },
        "contestants": contestants,
        "results": entries,
    }
