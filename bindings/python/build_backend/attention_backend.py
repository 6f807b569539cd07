# SPDX-License-Identifier: BSD-3-Clause
"""scikit-build-core's backend, and OpenBLAS from PyPI where the system has none."""

import shutil
import subprocess

from scikit_build_core import build as _build
from scikit_build_core.build import *  # noqa: F403

# One version, because its symbol prefix and file names are what CMakeLists.txt expects.
OPENBLAS_WHEEL = "scipy-openblas32==0.3.30.0.8"


def _system_has_openblas() -> bool:
    program = shutil.which("pkg-config")
    return program is not None and subprocess.run([program, "--exists", "openblas"]).returncode == 0


def get_requires_for_build_wheel(config_settings=None):
    needed = _build.get_requires_for_build_wheel(config_settings)
    return needed if _system_has_openblas() else [*needed, OPENBLAS_WHEEL]
