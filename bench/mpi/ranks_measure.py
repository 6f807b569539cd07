# SPDX-License-Identifier: BSD-3-Clause
"""Runs bench_ranks under an MPI, and reads what it prints."""

import os
import subprocess

WORDS_OF_CALL = ("which", "scheme", "placement")


class Call:
    """One line of bench_ranks; `which` is the pass."""

    def __init__(self, mpi, ranks, words):
        self.mpi = mpi
        self.ranks = ranks
        for word in words:
            name, value = word.split("=")
            setattr(self, name, value if name in WORDS_OF_CALL else float(value))

    @property
    def is_backward(self):
        """Whether it is that pass."""
        return self.which == "backward"


def _launcher(mpi, ranks):
    """Each rank on a processor of its own, where there are so many."""
    crowded = ranks > os.cpu_count()
    words = {
        "openmpi": [
            "--allow-run-as-root",
            "--oversubscribe",
            "--bind-to",
            "none" if crowded else "core",
        ],
        "mpich": [] if crowded else ["-bind-to", "core"],
    }
    return [f"mpiexec.{mpi}", *words[mpi]]


def measure(mpi, ranks, program, options, link=None):
    """The program's lines: numbers by their names, and the calls."""
    launcher = link.launcher(mpi) if link else _launcher(mpi, ranks)
    command = [*launcher, "-n", str(ranks), program]
    command += [str(options.repeats), str(options.heads), options.calls, *options.rows.split(",")]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{run.stdout}{run.stderr}")
    words = [line.split() for line in run.stdout.split("\n") if line]
    numbers = {name: float(value) for name, *rest in words if len(rest) == 1 for value in rest}
    return numbers, [Call(mpi, ranks, line[1:]) for line in words if line[0] == "call"]


def rates_of(calls):
    """One for each pass: of the longest balanced ring."""
    chosen = {}
    for call in calls:
        if call.placement == "zigzag":
            chosen[call.which] = call.rate
    return chosen
