# SPDX-License-Identifier: BSD-3-Clause
"""Whole models, timed: scripts/bench-models."""

from __future__ import annotations

import argparse
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
    found: dict[str, Any] = {name: statistics.median(times) for name, times in runs.items()}
    reference = contestants.get("sdpa")
    found["share"] = None if reference is None else share_of_attention(reference)
    return found


def row(case: Case, times: dict[str, Any]) -> str:
    """Milliseconds, and how many times as fast as the faster of PyTorch's own ways."""
    best = min(times[name] for name in ("eager", "sdpa") if name in times)
    cells = [f"{1e3 * times[name]:.1f}" if name in times else "-" for name in COLUMNS]
    ratios = [f"{best / times[name]:.2f}" for name in COLUMNS[2:]]
    share = "-" if times["share"] is None else f"{times['share']:.0%}"
    return f"| {case.name} | {' | '.join(cells)} | {' | '.join(ratios)} | {share} |"


def table(threads: int, cases: list[Case], repeats: int) -> list[str]:
    torch.set_num_threads(threads)
    lines = [
        f"## {threads} thread{'s' * (threads > 1)}",
        "",
        "| model | eager, ms | sdpa, ms | install(), ms | libattention, ms "
        "| install(), speed | libattention, speed | attention |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in cases:
        print(f"{threads} threads: {case.name}", file=sys.stderr)
        lines.append(row(case, race(case, repeats)))
        print(lines[-1], file=sys.stderr)
    return [*lines, ""]


def head(repeats: int) -> list[str]:
    info = libattention.info()
    return [
        "# Whole models",
        "",
        "<!-- Made by scripts/bench-models. -->",
        "",
        "Random weights of the real sizes, float32, inference; medians of "
        f"{repeats} calls of each contestant in turn. Speed: how many times as fast as the faster "
        'of PyTorch\'s own two. Attention: its share of the time with "sdpa", which is what there '
        'is to gain. `install()` answers the calls of "sdpa"; libattention is transformers\' '
        '`attn_implementation`, for nn.TransformerEncoder (whose "eager" is PyTorch\'s fused '
        "inference) `accelerate`.",
        "",
        f"PyTorch {torch.__version__}, transformers {transformers.__version__}, "
        f"{info['build']}, kernels {info['kernels']}.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench-models")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--models", default="", help="a regular expression")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    cases = [case for case in CASES if re.search(options.models, case.name)]
    lines = head(options.repeats)
    for threads in map(int, options.threads.split(",")):
        lines += table(threads, cases, options.repeats)
    text = "\n".join(lines)
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
