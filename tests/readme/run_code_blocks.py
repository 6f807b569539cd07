#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs the programs in Markdown files, and compares what they print with what the text says.

    c        a whole program: compiled without warnings, linked with the library, run, behind the words of --launch
    sh       run by bash, in a folder of the file's own, with attn on the PATH
    python   a whole program: run by the interpreter given
    cmake    has to stand in one of the projects that the install test builds
    text     directly behind one of them: what it prints; elsewhere nothing to be run

A block of any other language is an error, and so is one whose means are not given.

Usage: run_code_blocks.py [--cc COMMAND --link LIBRARY [--launch COMMAND]] [--attn PROGRAM] [--python INTERPRETER] [--projects FOLDER]
                          [--only LANGUAGE,...] FILE...
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\n(?:\n?```text\n(?P<printed>.*?)^```$)?", re.M | re.S)
PROGRAMS = ("c", "sh", "python", "cmake")


def run(command, folder, **options):
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def run_c(code, folder, means):
    Path(folder, "program.c").write_text(code)
    command = [*shlex.split(means.cc), "program.c", *means.link.split(), "-lm", "-o", "program"]
    run(command, folder)
    return run([*shlex.split(means.launch), "./program"], folder)


def run_sh(code, folder, means):
    path = f"{Path(means.attn).parent}:{os.environ['PATH']}"
    return run(["bash", "-euo", "pipefail", "-c", code], folder, env={**os.environ, "PATH": path})


def run_python(code, folder, means):
    Path(folder, "program.py").write_text(code)
    return run([means.python, "program.py"], folder)


def find_cmake(code, folder, means):
    lines = [line.partition("#")[0].strip() for line in code.splitlines()]
    projects = [path.read_text() for path in Path(means.projects).rglob("CMakeLists.txt")]
    for line in filter(None, lines):
        name = line.partition("(")[0]
        if not any(f"{name}(" in project for project in projects):
            raise RuntimeError(f"no project of the install test has {name}")
    return None


def check(match, folder, means):
    language, code, printed = match[1], match[2], match["printed"]
    runner = {"c": run_c, "sh": run_sh, "python": run_python, "cmake": find_cmake}[language]
    needed = {"c": "cc", "sh": "attn", "python": "python", "cmake": "projects"}[language]
    if not getattr(means, needed):
        raise RuntimeError(f"--{needed} is needed to run it")
    found = runner(code, folder, means)
    if printed is not None and found != printed:
        raise RuntimeError(f"the text says that it prints\n{printed}it printed\n{found}")


def check_file(path, means):
    """The number of blocks that ran, and of those that failed."""
    text = path.read_text()
    ran, failures = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            if match[1] not in (*PROGRAMS, "text"):
                print(f"{path}:{line}: no way to run '{match[1]}'")
                failures += 1
            elif match[1] in means.only:
                ran += 1
                try:
                    check(match, folder, means)
                except RuntimeError as problem:
                    print(f"{path}:{line}: {problem}")
                    failures += 1
    return ran, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("cc", "link", "attn", "python", "projects"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--launch", default="")
    parser.add_argument("--only", default=",".join(PROGRAMS))
    parser.add_argument("files", nargs="+", type=Path)
    means = parser.parse_args()
    means.only = means.only.split(",")
    counts = [check_file(path, means) for path in means.files]
    ran, failures = map(sum, zip(*counts))
    print(f"{ran} blocks of {', '.join(means.only)} in {len(counts)} files, {failures} failed")
    sys.exit(failures > 0 or ran == 0)


if __name__ == "__main__":
    main()
