# SPDX-License-Identifier: BSD-3-Clause
"""The process of one contestant at one thread count: reads commands, a line of JSON each, and
answers likewise.

A process of its own, because thread counts are read from the environment when a library is
loaded, and because the thread pools of several libraries in one process get in each other's way.
"""

import gc
import importlib
import json
import os
import sys
import time
import traceback
from typing import Any, TextIO

import numpy as np

from peers import cells, inputs
from peers.contestants.contestant import Contestant, NotOffered, Prepared

CLASSES = {
    "libattention": ("contestant_ours", "Ours"),
    "PyTorch": ("contestant_torch", "PyTorch"),
    "ONNX Runtime": ("contestant_ort", "OnnxRuntime"),
    "OpenVINO": ("contestant_openvino", "OpenVino"),
    "zentorch": ("contestant_zentorch", "Zentorch"),
    "vLLM": ("contestant_vllm", "Vllm"),
}


# Such a call is not made twice only to know how long it takes.
LONG_CALL_SECONDS = 0.05


class Worker:
    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.prepared: Prepared | None = None

    def describe(self) -> dict[str, Any]:
        return self.contestant.describe()

    def prepare(self, cell: dict[str, Any]) -> dict[str, Any]:
        """Also calls: page faults and lazy set-up are not what is measured."""
        problem = cells.from_json(cell)
        try:
            self.prepared = self.contestant.prepare(problem, inputs.make(problem))
        except NotOffered as reason:
            return {"not_offered": str(reason)}
        seconds = self.run(1, False)["seconds"]
        if seconds < LONG_CALL_SECONDS:
            seconds = self.run(1, False)["seconds"]
        return {"how": self.prepared.how, "seconds": seconds}

    def _cell(self) -> Prepared:
        if self.prepared is None:
            raise RuntimeError("no cell was prepared")
        return self.prepared

    def run(self, calls: int, lead: bool) -> dict[str, Any]:
        """One timing of `calls` calls; with `lead` an untimed one first wakes threads and fills
        caches."""
        call = self._cell().call
        if lead:
            call()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return {"seconds": (time.perf_counter() - start) / calls}

    def save(self, path: str) -> dict[str, Any]:
        np.savez(path, *self._cell().outputs())
        return {}

    def finish(self) -> dict[str, Any]:
        self.prepared = None
        gc.collect()
        return {}


def _answer(worker: Worker, line: str) -> dict[str, Any]:
    command = json.loads(line)
    try:
        return getattr(worker, command.pop("do"))(**command)
    except (
        Exception
    ) as error:  # Whatever a peer raises is the cell's result, not the end of the run.
        traceback.print_exc()
        return {"error": _first_line(error)}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _own_standard_output() -> TextIO:
    """What libraries print goes to stderr, so that it cannot be taken for an answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _load(name: str, threads: int) -> Contestant:
    module, kind = CLASSES[name]
    return getattr(importlib.import_module(f"peers.contestants.{module}"), kind)(threads)


def main() -> None:
    answers = _own_standard_output()

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    gc.disable()
    try:
        worker = Worker(_load(sys.argv[1], int(sys.argv[2])))
        send(worker.describe())
    except ImportError as error:
        send({"missing": f"not installed: {error}"})
        return
    except Exception as error:  # As above: the run goes on without it.
        traceback.print_exc()
        send({"missing": f"did not start: {_first_line(error)}"})
        return
    for line in sys.stdin:
        send(_answer(worker, line))


if __name__ == "__main__":
    main()
