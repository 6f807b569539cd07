#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs a program of many ranks on two hosts, which are network namespaces with a link between them, one rank on each.

Usage: run_on_two_hosts.py openmpi|mpich PROGRAM [ARGUMENT...]; ends with 77 where there can be no such link, and says why.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench/mpi"))

import slow_link  # noqa: E402

RATE = "1gbit"
NOT_RUN = 77


def main(mpi, *command):
    reason = slow_link.hindrance()
    if reason:
        print(f"not run: {reason}")
        return NOT_RUN
    with contextlib.ExitStack() as stack:
        try:
            link = stack.enter_context(slow_link.SlowLink(RATE))
        except RuntimeError as error:
            print(f"not run: {error}")
            return NOT_RUN
        return subprocess.run([*link.launcher(mpi), "-n", "2", *command], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
