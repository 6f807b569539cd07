# SPDX-License-Identifier: BSD-3-Clause
"""Reads the case files that the library's build exports (tests/interop/README.md)."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

try:
    from ml_dtypes import bfloat16
except ModuleNotFoundError:
    bfloat16 = None  # which NumPy has from nobody else


@dataclass
class Case:
    call: str = ""
    options: dict = field(default_factory=dict)
    tensors: dict = field(default_factory=dict)
    expected: dict = field(default_factory=dict)  # name: (tolerance, values)
    error: tuple = ()  # (status, text)
    has_bfloat16: bool = False


def read(path: Path) -> Case:
    case = Case()
    with path.open("rb") as file:
        while line := file.readline().decode("ascii").rstrip("\n"):
            word, _, rest = line.partition(" ")
            if word == "call":
                case.call = rest
            elif word == "option":
                name, _, value = rest.partition(" ")
                case.options[name] = value
            elif word == "tensor":
                name, _, rest = rest.partition(" ")
                case.tensors[name] = _elements(file, rest)
                case.has_bfloat16 |= rest.startswith("bfloat16 ")
            elif word == "expect":
                name, tolerance, rest = rest.split(" ", 2)
                case.expected[name] = (float(tolerance), _elements(file, rest))
            elif word == "error":
                status, _, text = rest.partition(" ")
                case.error = (int(status), text)
            else:
                raise ValueError(f"{path}: unknown record {line!r}")
        if file.read(1):
            raise ValueError(f"{path}: bytes behind the last record")
    return case


def _elements(file, words):
    dtype, _, *shape = words.split(" ")
    shape = tuple(map(int, shape))
    stored = np.dtype("uint16" if dtype == "bfloat16" else dtype)
    data = file.read(int(np.prod(shape)) * stored.itemsize)
    array = np.frombuffer(data, stored.newbyteorder("<")).astype(stored).reshape(shape)
    return array.view(bfloat16 or stored) if dtype == "bfloat16" else array
