# SPDX-License-Identifier: BSD-3-Clause
"""The page: Markdown from the results' JSON, the same bytes from the same JSON."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from peers import summary, tally
from peers.cells import GROUPS, MASK_OPTIONS, Cell
from peers.results import OURS, Entry, Results
from peers.work import is_bound_by_memory

NOTHING = "–"

HEAD = """\
# Performance

<!-- Made by scripts/bench from performance.json; change that or bench/peers/report.py. -->

libattention beside the libraries people would use instead, each in a process of its own with the
same number of threads, asked in turns on one machine in one run. A ratio is the peer's time over
ours: **above 1 libattention is faster**. [models.md](models.md) has whole models.
"""

HOW_MEASURED = """\
## How it was measured

`scripts/bench` does all of it; `bench/peers/cells.py` is the list of cells.

- Everything is float32 where a cell does not name 16 bits, and forward where its group is not
  called backward. Every contestant computes from the same bytes, in memory of its own. Their
  outputs are compared with one another once in every cell; a difference above 1e-4 of the largest
  output, 2e-2 in 16 bits, is an error of the cell. The limits of 16 bits are float32's
  multiply-adds and the bytes that are stored.
- One repetition times the limit of the machine, then each contestant once; who is first changes.
  The next one is timed when all threads of the last one sleep, so that spinning thread pools
  disturb nobody. Ratios are taken within a repetition; the tables show medians over the
  repetitions.
- Calls below 200 µs are repeated within a timing, as often for each contestant; where the fastest
  call is below 20 ms, every timing follows an untimed call that wakes threads and fills caches.
  All are called from Python, which costs each a few microseconds.
- GF/s counts the products of visible pairs of a query and a key (and the projections of
  multi-head), not what causality, lengths, windows or masks hide. GB/s, of decoding, counts each
  key and value once.
- "of peak" is the share of what fused multiply-adds in registers reached in the same repetition;
  "of bound" is the time at that peak and one cycle for each exponential over our time. Of
  decoding, "of peak" is the share of the bandwidth with which memory is read in sequence.
- Peers run with their thread counts set and nothing else tuned, in the fastest way they offer for
  a cell: `performance.json` tells for each cell what was called. All but PyTorch, whose interface
  has no such argument, write into outputs allocated once.
"""


def render(results: Results, picture: str = "performance.svg") -> str:
    parts = [HEAD, f"![Speed relative to the fastest peer]({picture})\n", _summary(results)]
    parts += [_cells(results, threads) for threads in results.thread_counts]
    parts += [
        _options(results),
        _threads(results),
        _accuracy(results),
        _errors(results),
        _absent(results),
        HOW_MEASURED,
        _machine(results),
    ]
    return "\n".join(part for part in parts if part)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """The first `left` columns are words, the others figures."""
    rules = ["---"] * left + ["---:"] * (len(head) - left)
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rules, *rows])


def significant(value: float | None, digits: int = 3) -> str:
    """Plain decimals with so many digits: 0.0123, 1.23, 123; never an exponent."""
    return NOTHING if value is None else f"{Decimal(f'{value:.{digits}g}'):f}"


def ratio_text(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value * 100:.0f} %"


def threads_text(threads: int) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"


def _summary(results: Results) -> str:
    counts = results.thread_counts
    standings = [summary.standing(results, threads) for threads in counts]
    rows = [
        ["full prefill, geometric mean", *(ratio_text(one.full_prefill) for one in standings)],
        ["whole grid, geometric mean", *(ratio_text(one.grid) for one in standings)],
        ["slowest cell", *(_slowest(one) for one in standings)],
        ["cells at least as fast", *(f"{one.won} of {one.contested}" for one in standings)],
    ]
    head = [
        "speed relative to the fastest peer of each cell",
        *(threads_text(count) for count in counts),
    ]
    return f"## Summary\n\n{table(head, rows)}"


def _slowest(standing: summary.Standing) -> str:
    if standing.slowest is None:
        return NOTHING
    name, ratio = standing.slowest
    return f"{ratio_text(ratio)} ({name})"


def _cells(results: Results, threads: int) -> str:
    head = [
        "cell",
        "ms",
        "GF/s or GB/s",
        *(f"vs {name}" for name in results.peers),
        "vs best",
        "of peak",
        "of bound",
    ]
    text = [f"## {threads_text(threads).capitalize()}\n"]
    for group in GROUPS:
        rows = [_row(results, entry) for entry in results.at(threads) if entry.cell.group == group]
        if rows:
            text.append(f"{_group_title(group)}\n\n{table(head, rows)}")
    return "\n".join(text)


GROUP_SIZES = {"multi-head": "batch, length, embed_dim, heads; self-attention with projections"}
ATTENTION_SIZES = "batch, heads, length, head_dim"
GROUP_NOTES = {
    "grouped queries": "query heads / key heads",
    "cross": "queries x keys",
    "window": "256 keys back, none ahead",
    "value width": "head_dim of keys / of values",
    "decode": "queries x keys",
}


def _group_title(group: str) -> str:
    notes = [GROUP_SIZES.get(group, ATTENTION_SIZES), GROUP_NOTES.get(group)]
    return f"**{group.capitalize()}** ({'; '.join(note for note in notes if note)})"


def _row(results: Results, entry: Entry) -> list[str]:
    label = _label(entry.cell)
    if entry.errors:
        label += " **(outputs differ)**"
    best = entry.best_peer()
    return [
        label,
        significant(None if entry.seconds is None else entry.seconds * 1e3),
        _rate(entry),
        *(ratio_text(entry.speed_ratio(name)) for name in results.peers),
        NOTHING if best is None else f"**{best[1]:.2f}**",
        percent(entry.fraction_of_limit()),
        percent(entry.fraction_of_compute_bound()),
    ]


def _label(cell: Cell) -> str:
    return cell.name.removeprefix(f"{cell.group} ")


def _rate(entry: Entry) -> str:
    if entry.rate is None:
        return NOTHING
    return f"{significant(entry.rate / 1e9)} {'GB/s' if is_bound_by_memory(entry.cell) else 'GF/s'}"


def _options(results: Results) -> str:
    text = []
    for threads in results.thread_counts:
        costs = summary.option_costs(results, threads)
        rows = [
            [shape.shape, *(ratio_text(shape.costs[option]) for option in MASK_OPTIONS[1:])]
            for shape in costs
        ]
        windows = summary.window_costs(results, threads)
        if rows:
            text.append(table([f"{threads_text(threads)}: shape", *MASK_OPTIONS[1:]], rows))
        text += [
            f"{threads_text(threads).capitalize()}, {name}: {cost:.3f} of the full square.\n"
            for name, cost in windows
        ]
        text += [
            f"{threads_text(threads).capitalize()}, {name}: {cost:.3f} of the full square, of which "
            f"{share:.3f} is seen.\n"
            for name, cost, share in summary.block_costs(results, threads)
        ]
    if not text:
        return ""
    head = "## What options cost\n\nOur time with the option over our time without it.\n"
    return "\n".join([head, *text])


def _threads(results: Results) -> str:
    gains = summary.thread_gains(results)
    if not gains:
        return ""
    few, many = min(results.thread_counts), max(results.thread_counts)
    by_group = [(group, [gain for cell, gain in gains if cell.group == group]) for group in GROUPS]
    rows = [
        [
            group,
            ratio_text(min(found)),
            ratio_text(sorted(found)[len(found) // 2]),
            ratio_text(max(found)),
        ]
        for group, found in by_group
        if found
    ]
    head = [f"our time at {threads_text(few)} over that at {many}", "least", "median", "most"]
    return f"## What threads gain\n\n{table(head, rows)}"


def _accuracy(results: Results) -> str:
    """Of contestants that take part; a run before this was measured has none."""
    rows = summary.accuracies(results)
    names = [name for name in [OURS, *results.peers] if any(name in worst for _, worst in rows)]
    if not rows:
        return ""
    head = ["largest error over largest value", *names]
    lines = [[label, *(_error_text(worst.get(name)) for name in names)] for label, worst in rows]
    text = (
        "Against float64, computed from the numbers as stored, of some rows and heads of each cell."
    )
    return f"## Accuracy\n\n{text}\n\n{table(head, lines)}"


def _error_text(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1e}"


def _errors(results: Results) -> str:
    lines = [
        f"- {entry.name}, {threads_text(entry.threads)}: {error}\n"
        for entry in results.entries
        for error in entry.errors
    ]
    return (
        ""
        if not lines
        else "## Errors\n\nContestants disagreed; these cells count in no summary.\n\n"
        + "".join(lines)
    )


def _absent(results: Results) -> str:
    """One line for each reason, with the cells it holds for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for entry in results.entries:
        for name, reason in entry.absent.items():
            names = reasons.setdefault((name, reason), [])
            if entry.name not in names:
                names.append(entry.name)
    if not reasons:
        return ""
    total = len({entry.name for entry in results.entries})
    lines = [
        f"- {name}, {_cell_list(names, total)}: {reason}.\n"
        for (name, reason), names in reasons.items()
    ]
    return f"## Not measured\n\nWhere a table has {NOTHING}:\n\n" + "".join(lines)


def _cell_list(names: list[str], total: int) -> str:
    if len(names) == total:
        return "every cell"
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} cells ({names[0]}, ...)"


def _machine(results: Results) -> str:
    machine, settings = results.data["machine"], results.data["settings"]
    kind = "virtual machine" if machine["virtual"] else "machine"
    lines = [
        f"- {results.data['date']}, {machine['system']}, {machine['architecture']} {kind}, "
        f"{machine['usable_cpus']} of {machine['cpus']} CPUs used, {machine['memory_gib']} GiB\n",
        f"- {machine['cpu']}; {', '.join(machine['caches'])}\n",
        *(f"- {_contestant(results, name)}\n" for name in [OURS, *results.peers]),
        f"- Python {machine['python']}, NumPy {results.data['numpy']}; repetitions: at most "
        f"{settings['most_repetitions']} and {settings['budget_seconds']:g} s a cell\n",
    ]
    return "## Machine and versions\n\n" + "".join(lines)


def _contestant(results: Results, name: str) -> str:
    about = results.data["contestants"].get(name, {})
    if "missing" in about:
        return f"{name}: took no part: {about['missing']}"
    commit = f" ({results.data['commit']})" if name == OURS else ""
    return f"{name} {about['version']}{commit}: {about['configuration']}"


def console(results: Results) -> str:
    """The tables for a terminal, columns aligned."""
    blocks = []
    for threads in results.thread_counts:
        head = [
            threads_text(threads),
            "ms",
            "GF/s or GB/s",
            *results.peers,
            "best",
            "of peak",
            "of bound",
        ]
        rows = [[entry.name, *_row(results, entry)[1:]] for entry in results.at(threads)]
        blocks.append(_aligned([head, *rows]) + _standing_lines(results, threads))
    return "\n\n".join(blocks) + _gain_line(results)


def _aligned(rows: list[list[str]]) -> str:
    plain = [[text.replace("*", "") for text in row] for row in rows]
    widths = [max(len(row[column]) for row in plain) for column in range(len(plain[0]))]
    lines = [
        [
            row[0].ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)),
        ]
        for row in plain
    ]
    return "\n".join("  ".join(line) for line in lines)


def _standing_lines(results: Results, threads: int) -> str:
    one = summary.standing(results, threads)
    costs = summary.mean_costs(results, threads)
    known = [f"{option} {cost:.2f}" for option, cost in costs.items() if cost is not None]
    lines = [
        f"Speed relative to the fastest peer: {ratio_text(one.grid)} all cells, "
        f"{ratio_text(one.full_prefill)} full prefill (geometric means); "
        f"slowest {_slowest(one)}; {one.won} of {one.contested} cells at least as fast"
    ]
    if known:
        lines.append(f"Our time with an option over that without: {', '.join(known)}")
    return "".join(f"\n{line}" for line in lines)


def _gain_line(results: Results) -> str:
    gain = tally.geometric_mean(gain for _, gain in summary.thread_gains(results))
    if gain is None:
        return ""
    few, many = min(results.thread_counts), max(results.thread_counts)
    return f"\n\nOur time at {threads_text(few)} over that at {many}: {gain:.2f} (geometric mean)"
