# SPDX-License-Identifier: BSD-3-Clause
"""The C library: loaded, and its errors raised."""

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
    """The calling thread's last failure. `names` says how C's arguments are called in Python; the
    options of the attention inside a layer are called as those of attention."""
    text = string(lib.attn_last_error()).removeprefix("attention.").replace("NULL", "None")
    argument, colon, rest = text.partition(":")
    raise Error(status, names.get(argument, argument) + colon + rest)


def unsupported(text: str) -> Error:
    """What the library does not offer, or not yet."""
    return Error(lib.ATTN_ERROR_UNSUPPORTED, text)


def assign_given(struct: Any, field: str, value: Any, expected: str) -> None:
    """As assign; None leaves the struct's 0, by which C means a default. A 0 of whoever called
    would come to mean that, too, and is refused."""
    if value is None:
        return
    assign(struct, field, value, field, f"{expected} or None")
    if getattr(struct, field) == 0:
        text = f"{field}: expected {expected} other than 0, or None, got {value!r:.100}"
        raise Error(lib.ATTN_ERROR_VALUE, text)


def assign(struct: Any, field: str, value: Any, name: str, expected: str) -> None:
    """struct->field = value, for a value of whoever called, who calls it `name`."""
    try:
        setattr(struct, field, value)
    except (TypeError, ValueError, OverflowError) as error:
        text = f"{name}: expected {expected}, got {value!r:.100}"
        raise Error(lib.ATTN_ERROR_VALUE, text) from error
