# SPDX-License-Identifier: BSD-3-Clause
"""scikit-build-core's backend, with OpenBLAS from PyPI where the system has none, and with the C
library's sources in a source distribution."""

import shutil
import subprocess
from pathlib import Path

from scikit_build_core import build as _build
from scikit_build_core.build import *  # noqa: F403

# One version, because its symbol prefix and file names are what CMakeLists.txt expects.
OPENBLAS_WHEEL = "scipy-openblas32==0.3.30.0.8"

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parents[1]
# What the library is built from, and where a source distribution has it.
SOURCES = ("CMakeLists.txt", "LICENSE", "attention.pc.in", "cmake", "include", "src")
INSIDE = PACKAGE / "attention"


def _system_has_openblas() -> bool:
    program = shutil.which("pkg-config")
    return program is not None and subprocess.run([program, "--exists", "openblas"]).returncode == 0


def get_requires_for_build_wheel(config_settings=None):
    needed = _build.get_requires_for_build_wheel(config_settings)
    return needed if _system_has_openblas() else [*needed, OPENBLAS_WHEEL]


def build_sdist(sdist_directory, config_settings=None):
    """The sources are copied into the package for the time of it."""
    if INSIDE.exists():  # made of a source distribution
        return _build.build_sdist(sdist_directory, config_settings)
    try:
        INSIDE.mkdir()
        for name in SOURCES:
            one = REPOSITORY / name
            copy = shutil.copytree if one.is_dir() else shutil.copy2
            copy(one, INSIDE / name)
        return _build.build_sdist(sdist_directory, config_settings)
    finally:
        shutil.rmtree(INSIDE, ignore_errors=True)
