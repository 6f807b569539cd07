# SPDX-License-Identifier: BSD-3-Clause
"""Reads the case files that the library's build exports (tests/interop/README.md)."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HALVES = ("bfloat16", "float16")


@dataclass
class Case:
    call: str = ""
    options: dict = field(default_factory=dict)
    tensors: dict = field(default_factory=dict)
    expected: dict = field(default_factory=dict)  # name: (tolerance, values)
    error: tuple = ()  # (status, text)
    has_16_bits: bool = False  # tensors of bfloat16 or float16, which are read as their bits


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
                case.has_16_bits |= rest.split(" ")[0] in HALVES
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
    dtype = np.dtype("uint16" if dtype in HALVES else dtype)
    data = file.read(int(np.prod(shape)) * dtype.itemsize)
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
