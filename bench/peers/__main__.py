# SPDX-License-Identifier: BSD-3-Clause
"""scripts/bench's program: measures and writes, or renders again what was measured."""

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from peers import cells, report, results

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_OUTPUT = ROOT / "build" / "bench"
PUBLISHED = ROOT / "docs"


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"not a regular expression: {error}") from error
    return text


def _thread_counts(text: str) -> list[int]:
    """Without repetitions: on one CPU "1,all" is one count."""
    usable = len(os.sched_getaffinity(0))
    try:
        counts = [usable if part == "all" else int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError("expected numbers or all, separated by commas") from error
    if min(counts) < 1:
        raise argparse.ArgumentTypeError("a thread count is at least 1")
    return sorted(set(counts))


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    return parse


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measures libattention beside its peers."
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few cells instead of the whole grid"
    )
    parser.add_argument(
        "--threads", type=_thread_counts, default="1,all", metavar="LIST", help="default: 1,all"
    )
    parser.add_argument(
        "--cells", type=_pattern, metavar="REGEX", help="only cells whose name it matches"
    )
    parser.add_argument(
        "--repeats",
        type=_positive(int),
        default=15,
        metavar="N",
        help="repetitions of a cell at most (15); never below 3",
    )
    parser.add_argument(
        "--seconds",
        type=_positive(float),
        default=2.0,
        metavar="S",
        help="time for the repetitions of a cell (2)",
    )
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help="default: build/bench"
    )
    parser.add_argument(
        "--publish", action="store_true", help="write docs/performance.json, .md and .svg as well"
    )
    parser.add_argument(
        "--render",
        type=Path,
        metavar="JSON",
        help="measure nothing: page and plot beside this file",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cells and end")
    return parser.parse_args()


def _draw(found: results.Results, paths: list[Path]) -> None:
    """The page does not need the picture made anew; a Python without matplotlib may still write
    it."""
    if importlib.util.find_spec("matplotlib") is None:
        print("bench: no plot: matplotlib is not installed", file=sys.stderr)
        return
    from peers import plot

    plot.draw(found, paths)


def _write_page(json_path: Path, pictures: tuple[str, ...]) -> None:
    """From the file, as a later --render does."""
    found = results.read(json_path)
    page = report.render(found, json_path.with_suffix(".svg").name)
    json_path.with_suffix(".md").write_text(page, encoding="utf-8")
    _draw(found, [json_path.with_suffix(suffix) for suffix in pictures])


def _write(data: dict[str, object], directory: Path, pictures: tuple[str, ...]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "performance.json"
    results.write(data, path)
    _write_page(path, pictures)
    return path


def _measure(arguments: argparse.Namespace) -> int:
    from peers import measurement

    chosen = cells.select(arguments.cells, arguments.quick)
    if not chosen:
        print("bench: no cell matches", file=sys.stderr)
        return 2
    try:
        data = measurement.measure(
            ROOT, chosen, arguments.threads, arguments.repeats, arguments.seconds
        )
    except measurement.CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; nothing was written", file=sys.stderr)
        return 130
    path = _write(data, arguments.output.resolve(), (".svg", ".png"))
    if arguments.publish:
        _write(data, PUBLISHED, (".svg",))
    print(report.console(results.from_data(data)))
    print(f"Page, plot and figures: {path.with_suffix('.md')}, .svg, .png, .json")
    return 1 if any(entry["errors"] for entry in data["results"]) else 0


def main() -> int:
    arguments = _arguments()
    if arguments.list:
        print("\n".join(cell.name for cell in cells.select(arguments.cells, arguments.quick)))
        return 0
    if arguments.render is not None:
        _write_page(arguments.render, (".svg",))
        return 0
    return _measure(arguments)


if __name__ == "__main__":
    sys.exit(main())
