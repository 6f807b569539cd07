# SPDX-License-Identifier: BSD-3-Clause
"""Writes the library's interface, as its headers declare it, as a module that cffi loads without
parsing.

Usage: write_interface.py OUTPUT COMPILER INCLUDE_FOLDER...
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import cffi


def declarations(compiler: str, folders: list[str]) -> str:
    """The headers without comments, macros, attributes and assertions. Of the system's headers they
    only need types that cffi knows."""
    with tempfile.TemporaryDirectory() as empty:
        for name in ("stddef.h", "stdint.h"):
            Path(empty, name).touch()
        without = ["-D__attribute__(x)=", "-D_Static_assert(...)="]
        command = [compiler, "-E", "-P", "-nostdinc", *without, f"-I{empty}"]
        command += [f"-I{folder}" for folder in folders]
        text = "#include <attention/attention.h>\n"
        done = subprocess.run(
            [*command, "-xc", "-"], input=text, capture_output=True, text=True, check=True
        )
    return done.stdout


def main() -> None:
    output, compiler, *folders = sys.argv[1:]
    builder = cffi.FFI()
    builder.cdef(declarations(compiler, folders))
    builder.set_source("libattention._abi", None)
    builder.emit_python_code(output)


if __name__ == "__main__":
    main()
