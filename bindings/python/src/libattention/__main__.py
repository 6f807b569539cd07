# SPDX-License-Identifier: BSD-3-Clause
"""python -m libattention info."""

from __future__ import annotations

import argparse

from libattention import info


def main() -> None:
    """Prints what runs."""
    parser = argparse.ArgumentParser(prog="python -m libattention", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="library, BLAS, kernels, threads")
    parser.parse_args()
    for name, value in info().items():
        print(f"{name:16} {' '.join(value) if isinstance(value, list) else value}")


if __name__ == "__main__":
    main()
