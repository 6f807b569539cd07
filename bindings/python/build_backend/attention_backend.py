# SPDX-License-Identifier: BSD-3-Clause
"""scikit-build-core's backend, with OpenBLAS from PyPI where the system has none, with the compiled
module where this Python can have it, and with the C library's sources in a source distribution."""

import platform
import shutil
import subprocess
import sys
import sysconfig
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


def _has_limited_api() -> bool:
    """Whether a module can be built here that CPython 3.11 and every later one loads."""
    is_usual = platform.python_implementation() == "CPython" and sys.version_info >= (3, 11)
    is_free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    has_headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return is_usual and not is_free_threaded and has_headers


def _with_api(config_settings):
    """A wheel is for CPython's limited API, which has CMake build the module, or for every Python,
    without it."""
    settings = dict(config_settings or {})
    settings.setdefault("wheel.py-api", "cp311" if _has_limited_api() else "py3")
    return settings


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    return _build.prepare_metadata_for_build_wheel(metadata_directory, _with_api(config_settings))


def prepare_metadata_for_build_editable(metadata_directory, config_settings=None):
    settings = _with_api(config_settings)
    return _build.prepare_metadata_for_build_editable(metadata_directory, settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _build.build_wheel(wheel_directory, _with_api(config_settings), metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _build.build_editable(wheel_directory, _with_api(config_settings), metadata_directory)


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
