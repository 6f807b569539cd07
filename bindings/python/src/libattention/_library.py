# SPDX-License-Identifier: BSD-3-Clause
"""The C library: loaded, its errors raised, what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from libattention._abi import ffi

FILE = Path(__file__).with_name("libattention.so")
lib: Any = ffi.dlopen(str(FILE))


class Error(ValueError):
    """A call that was refused, or failed. Its text is the library's, one line that begins with the
    argument's name.

    Attributes:
        status: the library's number, for example 3
        name: the number's name, for example "ATTN_ERROR_SHAPE"
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.name = string(lib.attn_status_name(status))

    def __reduce__(self) -> tuple[type[Error], tuple[int, str]]:
        return Error, (self.status, str(self))


def string(text: Any) -> str:
    """A C string."""
    found: str = ffi.string(text).decode()
    return found


def raise_last_error(status: int, names: Mapping[str, str]) -> NoReturn:
    """The calling thread's last failure. `names` says how C's arguments are called in Python."""
    text = string(lib.attn_last_error())
    argument, colon, rest = text.partition(":")
    raise Error(status, names.get(argument, argument) + colon + rest)


def unsupported(text: str) -> Error:
    """What the library does not offer, or not yet."""
    return Error(lib.ATTN_ERROR_UNSUPPORTED, text)


def info() -> dict[str, Any]:
    """What runs: library and version, how it was built, BLAS, kernels and threads by default."""
    found = ffi.new("attn_context_info *", {"struct_size": ffi.sizeof("attn_context_info")})
    status = lib.attn_context_describe(ffi.NULL, found)
    if status:
        raise_last_error(status, {})
    return {
        "library": str(FILE),
        "version": string(lib.attn_version_string()),
        "build": string(lib.attn_build_info()),
        "blas": string(found.blas),
        "kernels": string(found.kernels),
        "kernels_here": _kernel_names(),
        "threads": found.num_threads,
    }


def selftest() -> None:
    """Computes what has a known result, in less than a second: by the BLAS found and the kernels in
    use, alone and by several threads at once. Raises Error if a result is wrong."""
    status = lib.attn_selftest(ffi.NULL, ffi.NULL, ffi.NULL)
    if status:
        raise_last_error(status, {})


def _kernel_names() -> list[str]:
    names: list[str] = []
    while (name := lib.attn_kernels_name(len(names))) != ffi.NULL:
        names.append(string(name))
    return names
