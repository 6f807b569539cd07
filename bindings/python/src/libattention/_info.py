# SPDX-License-Identifier: BSD-3-Clause
"""What the library says of itself, and whether it computes what it should."""

from __future__ import annotations

from typing import Any

from libattention._abi import ffi
from libattention._context import Context, described_context, handle_of
from libattention._library import FILE, lib, raise_last_error, string


def info() -> dict[str, Any]:
    """What runs: library and version, how it was built, BLAS, kernels and threads by default, and
    who computes the matrix products of float64's attention and of projections."""
    found = described_context(ffi.NULL)
    return {
        "library": str(FILE),
        "version": string(lib.attn_version_string()),
        "build": string(lib.attn_build_info()),
        "blas": found["blas"],
        "kernels": found["kernels"],
        "kernels_here": _kernel_names(),
        "threads": found["num_threads"],
        "attention_gemm": found["attention_gemm"],
        "projection_gemm": found["projection_gemm"],
    }


def selftest(context: Context | None = None) -> None:
    """Computes what has a known result, in less than a second: by the BLAS found and the kernels in
    use, alone and by several threads at once. Raises Error if a result is wrong."""
    status = lib.attn_selftest(handle_of(context), ffi.NULL)
    if status:
        raise_last_error(status, {})


def _kernel_names() -> list[str]:
    names: list[str] = []
    while (name := lib.attn_kernels_name(len(names))) != ffi.NULL:
        names.append(string(name))
    return names
