# SPDX-License-Identifier: BSD-3-Clause
"""Whole models, timed: scripts/bench-models."""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import libattention
import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from timed_models import CASES, Case, Contestant

COLUMNS = ("eager", "sdpa", "install()", "libattention")
NEAR = 1e-3


def seconds(contestant: Contestant) -> float:
    with torch.no_grad(), contestant.around():
        begin = time.perf_counter()
        contestant.run()
        return time.perf_counter() - begin


def check(case: Case, contestants: dict[str, Contestant]) -> None:
    """All compute the same, or their times say nothing."""
    results: dict[str, Any] = {}
    for name, contestant in contestants.items():
        with torch.no_grad(), contestant.around():
            results[name] = contestant.run()
    expected = results["eager"]
    for name, found in results.items():
        error = float((found - expected).abs().max() / expected.abs().max())
        if not error <= NEAR:
            print(f"note: {case.name}: {name} differs from eager by {error:.1e}", file=sys.stderr)


def share_of_attention(contestant: Contestant) -> float:
    """Of the time of a call, where attention is PyTorch's function, and everything inside it."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as record:
        contestant.run()
    events = record.key_averages()
    whole = sum(one.self_cpu_time_total for one in events)
    name = "aten::scaled_dot_product_attention"
    return sum(one.cpu_time_total for one in events if one.key == name) / whole


def race(case: Case, repeats: int) -> dict[str, Any]:
    """Each in turn, again and again."""
    contestants = case.make()
    check(case, contestants)
    runs: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, contestant in contestants.items():
            runs[name].append(seconds(contestant))
    reference = contestants.get("sdpa")
    share = None if reference is None else share_of_attention(reference)
    return {"runs": runs, "share": share}


def speed(runs: dict[str, list[float]], name: str, others: tuple[str, ...]) -> str:
    """How many times as fast as the fastest of others, by medians, and by shortest times."""
    ratios = [
        min(pick(runs[other]) for other in others if other in runs) / pick(runs[name])
        for pick in (statistics.median, min)
    ]
    return " (".join(f"{ratio:.2f}" for ratio in ratios) + ")"


def row(name: str, found: dict[str, Any]) -> str:
    runs = found["runs"]
    cells = [f"{1e3 * statistics.median(runs[one]):.1f}" if one in runs else "-" for one in COLUMNS]
    replaced = ("sdpa",) if "sdpa" in runs else ("eager",)
    speeds = [speed(runs, "install()", replaced), speed(runs, "libattention", ("eager", "sdpa"))]
    share = "-" if found["share"] is None else f"{found['share']:.0%}"
    return f"| {name} | {' | '.join(cells)} | {' | '.join(speeds)} | {share} |"


def table(threads: str, rows: dict[str, Any]) -> list[str]:
    lines = [
        f"### {threads} thread{'s' * (threads != '1')}",
        "",
        "| model | eager, ms | sdpa, ms | install(), ms | libattention, ms "
        "| install() over sdpa | libattention over the faster | attention |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [row(case.name, rows[case.name]) for case in CASES if case.name in rows]
    return [*lines, ""]


def software() -> str:
    info = libattention.info()
    return (
        f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {info['build']}, "
        f"kernels {info['kernels']}."
    )


def page(machines: dict[str, Any]) -> str:
    """All rows of all machines."""
    lines = head()
    for machine, found in machines.items():
        if not found["rows"]:
            continue
        lines += [f"## {machine}", "", found["software"], ""]
        for threads in sorted(found["rows"], key=int):
            lines += table(threads, found["rows"][threads])
    return "\n".join(lines)


def head() -> list[str]:
    return [
        "# Whole models",
        "",
        "<!-- Made by scripts/bench-models. -->",
        "",
        "Random weights of the real sizes, float32, inference; medians of the calls of each "
        "contestant in turn. Speeds are ratios of medians, in parentheses of the shortest times: "
        'above 1 is faster. `install()` answers the calls of "sdpa" and is compared with it; '
        "libattention is transformers' `attn_implementation`, compared with the faster of "
        "PyTorch's own two. Of nn.TransformerEncoder \"eager\" is PyTorch's fused inference and "
        'libattention `accelerate`. Attention: its share of the time with "sdpa", which is what '
        "there is to gain.",
        "",
    ]


def measure(options: argparse.Namespace, recorded: dict[str, Any]) -> None:
    """Adds rows to what is recorded of the machine, in the place of older ones."""
    machine = recorded.setdefault(options.machine, {"rows": {}})
    machine["software"] = software()
    for threads in options.threads.split(","):
        torch.set_num_threads(int(threads))
        for case in CASES:
            if re.search(options.models, case.name):
                found = race(case, options.repeats)
                machine["rows"].setdefault(threads, {})[case.name] = found
                print(f"{threads}: {row(case.name, found)}", file=sys.stderr)
                if options.record:
                    options.record.write_text(json.dumps(recorded, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench-models")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--models", default="", help="a regular expression")
    parser.add_argument("--record", type=Path, help="a JSON file that runs add their rows to")
    parser.add_argument("--machine", default="This machine", help="what to call the machine")
    parser.add_argument("--output", type=Path, help="the tables of all machines")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    recorded: dict[str, Any] = {}
    if options.record and options.record.exists():
        recorded = json.loads(options.record.read_text())
    measure(options, recorded)
    text = page(recorded)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
