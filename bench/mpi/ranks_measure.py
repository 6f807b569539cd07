# SPDX-License-Identifier: BSD-3-Clause
"""Runs bench_ranks under an MPI, and reads what it prints."""

import os
import signal
import subprocess
import tempfile

MOST_SECONDS_TO_END = 10
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


def _lines_of(command):
    """What the program prints up to its line `end`. MPI_Finalize may take its time: between hosts
    MPICH's (4.0, UCX by TCP) waits for ever in one run of ten or so, whatever the program."""
    text = []
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as run,
    ):
        for line in run.stdout:
            if line.strip() == "end":
                break
            text.append(line)
        try:
            run.wait(MOST_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            return text
        errors.seek(0)
        if run.returncode != 0:
            words = " ".join(map(str, command))
            raise RuntimeError(f"{words}\n{''.join(text)}{errors.read()}")
    return text


def measure(mpi, ranks, program, options, link=None):
    """The program's lines: numbers by their names, and the calls."""
    launcher = link.launcher(mpi) if link else _launcher(mpi, ranks)
    command = [*launcher, "-n", str(ranks), program]
    command += [str(options.repeats), str(options.heads), options.calls, *map(str, options.rows)]
    words = [line.split() for line in _lines_of(command) if line.strip()]
    numbers = {name: float(value) for name, *rest in words if len(rest) == 1 for value in rest}
    return numbers, [Call(mpi, ranks, line[1:]) for line in words if line[0] == "call"]


def rates_of(calls):
    """One for each pass: of the longest balanced ring."""
    chosen = {}
    for call in calls:
        if call.placement == "zigzag":
            chosen[call.which] = call.rate
    return chosen
