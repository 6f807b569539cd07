# SPDX-License-Identifier: BSD-3-Clause
"""The picture: for every cell how fast we are relative to the fastest peer, a panel for each
thread count."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402  (the backend must be chosen first)
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator  # noqa: E402

from peers import summary  # noqa: E402
from peers.cells import GROUPS, MULTIHEAD, PREFILL, Cell  # noqa: E402
from peers.report import threads_text  # noqa: E402
from peers.results import Results  # noqa: E402

# Of Okabe and Ito's palette: told apart with any colour vision, and in grey by their lightness.
FASTER = "#0072B2"
SLOWER = "#E69F00"
INK = "#333333"
GRID = "#DDDDDD"

# The axis ends there at the least, so that a run of equals does not look like a contest.
LEAST_SPAN = 2.0
TICKS = (0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 16, 32)

ROW_INCHES = 0.19
GROUP_GAP = 0.5
SHAPE_GAP = 0.45

# Groups with several cells of one shape.
GAPPED = (PREFILL, MULTIHEAD)

# A figure beside a bar's end takes this factor of the axis.
FIGURE_ROOM = 1.4

CAPTION = """\
speed relative to the fastest peer of the cell (right of 1: libattention is faster)
sizes: batch, heads, length, head_dim; multi-head: batch, length, embed_dim, heads"""


def draw(results: Results, paths: list[Path]) -> None:
    """Nothing of a date or a random name enters the SVG, whose text stays text."""
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "attention",
            "svg.fonttype": "none",
            "font.size": 8,
            "font.family": "sans-serif",
        }
    )
    places, headings = _layout(_cells(results))
    counts = results.thread_counts
    figure, panels = pyplot.subplots(
        1,
        len(counts),
        figsize=(3.2 + 3.6 * len(counts), 1.5 + ROW_INCHES * (max(places.values(), default=0) + 1)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, threads in zip(panels[0], counts, strict=True):
        _draw_panel(panel, _ratios(results, threads), places)
        panel.set_title(_title(results, threads), fontsize=9, color=INK, loc="left")
    panels[0][0].set_xlim(*_span([_ratios(results, threads) for threads in counts]))
    _label_rows(panels[0][0], places, headings)
    figure.supxlabel(CAPTION, fontsize=8, color=INK)
    for path in paths:
        figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _cells(results: Results) -> list[Cell]:
    found = {entry.cell for entry in results.entries if entry.best_peer() is not None}
    order = {entry.cell: index for index, entry in reversed(list(enumerate(results.entries)))}
    return sorted(found, key=lambda cell: (GROUPS.index(cell.group), order[cell]))


def _layout(cells: list[Cell]) -> tuple[dict[Cell, float], dict[str, float]]:
    """Rows from the top: a heading before each group, a gap before each shape."""
    places: dict[Cell, float] = {}
    headings: dict[str, float] = {}
    row = -1.0
    sizes = ""
    for cell in cells:
        if cell.group not in headings:
            headings[cell.group] = row + 1 + GROUP_GAP
            row = headings[cell.group] + 1
        else:
            row += 1 if cell.sizes == sizes or cell.group not in GAPPED else 1 + SHAPE_GAP
        places[cell] = row
        sizes = cell.sizes
    return places, headings


def _ratios(results: Results, threads: int) -> dict[Cell, float]:
    return {entry.cell: ratio for entry, ratio in summary.contested(results.at(threads))}


def _title(results: Results, threads: int) -> str:
    mean = summary.standing(results, threads).grid
    text = threads_text(threads).capitalize()
    return text if mean is None else f"{text} (geometric mean {mean:.2f})"


def _span(panels: list[dict[Cell, float]]) -> tuple[float, float]:
    """One for all panels, so that bars can be compared; room for the figures at both ends."""
    ratios = [ratio for panel in panels for ratio in panel.values()]
    low = min([1 / LEAST_SPAN, *(ratio / FIGURE_ROOM for ratio in ratios)])
    high = max([LEAST_SPAN, *(ratio * FIGURE_ROOM for ratio in ratios)])
    return low, high


def _draw_panel(panel: Axes, ratios: dict[Cell, float], places: dict[Cell, float]) -> None:
    panel.set_xscale("log", base=2)
    panel.set_ylim(max(places.values(), default=0) + 0.8, -1.0)
    for cell, ratio in ratios.items():
        _draw_bar(panel, places[cell], ratio)
    panel.axvline(1, color=INK, linewidth=1)
    panel.grid(axis="x", color=GRID, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.xaxis.set_major_locator(matplotlib.ticker.FixedLocator(TICKS))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


def _draw_bar(panel: Axes, place: float, ratio: float) -> None:
    """From 1 to the ratio: what is slower goes to the left, and says its figure."""
    panel.barh(place, ratio - 1, left=1, height=0.72, color=FASTER if ratio >= 1 else SLOWER)
    outward = 1 if ratio >= 1 else -1
    panel.annotate(
        f"{ratio:.2f}",
        (ratio, place),
        xytext=(3 * outward, 0),
        textcoords="offset points",
        va="center",
        ha="left" if outward > 0 else "right",
        fontsize=6.5,
        color=INK,
    )


def _label_rows(panel: Axes, places: dict[Cell, float], headings: dict[str, float]) -> None:
    names = {place: cell.name.removeprefix(f"{cell.group} ") for cell, place in places.items()}
    titles = {place: group for group, place in headings.items()}
    rows = sorted(names | titles)
    panel.set_yticks(rows, [names.get(row) or titles[row] for row in rows])
    for label, row in zip(panel.get_yticklabels(), rows, strict=True):
        label.set_fontsize(7)
        if row in titles:
            label.set_fontweight("bold")
