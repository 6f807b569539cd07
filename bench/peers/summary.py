# SPDX-License-Identifier: BSD-3-Clause
"""The few figures that a run comes down to."""

from dataclasses import dataclass, replace

from peers import tally, work
from peers.cells import DOCUMENTS_BLOCKS, FULL, MASK_OPTIONS, PREFILL, WINDOW, Cell
from peers.results import OURS, Entry, Results


@dataclass(frozen=True)
class Standing:
    """Against the best peer of each cell, at one thread count. None: no such cell was measured."""

    full_prefill: float | None
    grid: float | None
    slowest: tuple[str, float] | None
    won: int
    contested: int


@dataclass(frozen=True)
class OptionCosts:
    """Our time with an option over our time without, of one shape."""

    shape: str
    costs: dict[str, float | None]


def _seconds(entry: Entry) -> float:
    """Of an entry that counts."""
    return tally.median(entry.samples(OURS))


def contested(entries: list[Entry]) -> list[tuple[Entry, float]]:
    """Entries with a peer to be compared with, and the ratio to the best one."""
    best = [(entry, entry.best_peer()) for entry in entries if entry.counts]
    return [(entry, peer[1]) for entry, peer in best if peer is not None]


def standing(results: Results, threads: int) -> Standing:
    pairs = contested(results.at(threads))
    full = [
        ratio for entry, ratio in pairs if entry.cell.group == PREFILL and entry.cell.option == FULL
    ]
    slowest = min(((ratio, entry.name) for entry, ratio in pairs), default=None)
    return Standing(
        full_prefill=tally.geometric_mean(full),
        grid=tally.geometric_mean(ratio for _, ratio in pairs),
        slowest=None if slowest is None else (slowest[1], slowest[0]),
        won=sum(ratio >= 1 for _, ratio in pairs),
        contested=len(pairs),
    )


def _without_option(cell: Cell) -> Cell:
    """The same shape, nothing hidden; the window's is measured for us only."""
    only_ours = cell.option == WINDOW
    return replace(cell, option=FULL, window_left=-1, window_right=-1, only_ours=only_ours)


def _cost_beside(results: Results, cell: Cell, other: Cell, threads: int) -> float | None:
    entry, plain = results.find(cell, threads), results.find(other, threads)
    if entry is None or plain is None:
        return None
    return _seconds(entry) / _seconds(plain)


def _cost(results: Results, cell: Cell, threads: int) -> float | None:
    return _cost_beside(results, cell, _without_option(cell), threads)


def option_costs(results: Results, threads: int) -> list[OptionCosts]:
    """Prefill shapes of which more than the full square was measured."""
    found = []
    for entry in results.at(threads):
        if entry.cell.group != PREFILL or entry.cell.option != FULL:
            continue
        costs = {
            option: _cost(results, replace(entry.cell, option=option), threads)
            for option in MASK_OPTIONS[1:]
        }
        if any(cost is not None for cost in costs.values()):
            found.append(OptionCosts(entry.cell.sizes, costs))
    return found


def accuracies(results: Results) -> list[tuple[str, dict[str, float]]]:
    """The largest error of each contestant, of the cells of a group and a type."""
    found: dict[str, dict[str, float]] = {}
    for entry in results.entries:
        label = f"{entry.cell.group}, {entry.cell.dtype}"
        worst = found.setdefault(label, {})
        for name, error in entry.accuracy.items():
            worst[name] = max(worst.get(name, 0.0), error)
    return [(label, worst) for label, worst in found.items() if worst]


def window_costs(results: Results, threads: int) -> list[tuple[str, float]]:
    windows = [entry.cell for entry in results.at(threads) if entry.cell.option == WINDOW]
    costs = [(cell.name, _cost(results, cell, threads)) for cell in windows]
    return [(name, cost) for name, cost in costs if cost is not None]


def block_costs(results: Results, threads: int) -> list[tuple[str, float, float]]:
    """Of each mask by blocks: our time over that without it, and the share of pairs it leaves."""
    found = []
    for entry in results.at(threads):
        if entry.cell.option == DOCUMENTS_BLOCKS:
            plain = replace(entry.cell, option=FULL, only_ours=True)
            cost = _cost_beside(results, entry.cell, plain, threads)
            share = work.visible_pairs(entry.cell) / work.visible_pairs(plain)
            if cost is not None:
                found.append((entry.cell.name, cost, share))
    return found


def thread_gains(results: Results) -> list[tuple[Cell, float]]:
    """Our time at the fewest threads over our time at the most, cell by cell."""
    fewest, most = min(results.thread_counts), max(results.thread_counts)
    if fewest == most:
        return []
    pairs = [
        (results.find(entry.cell, fewest), entry) for entry in results.at(most) if entry.counts
    ]
    return [
        (entry.cell, _seconds(single) / _seconds(entry))
        for single, entry in pairs
        if single is not None
    ]


def mean_costs(results: Results, threads: int) -> dict[str, float | None]:
    """Of each option, the geometric mean over the shapes."""
    shapes = option_costs(results, threads)
    found = {option: [shape.costs[option] for shape in shapes] for option in MASK_OPTIONS[1:]}
    return {
        option: tally.geometric_mean(cost for cost in costs if cost is not None)
        for option, costs in found.items()
    }
