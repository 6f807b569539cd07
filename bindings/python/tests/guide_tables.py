# SPDX-License-Identifier: BSD-3-Clause
"""The tables of the guides, and what tests of them share.

A row is named by its first cell. What it promises of libattention is the names in backticks of its
other cells: a test says which those are, so that a row cannot change without its test.
"""

import re
from pathlib import Path

import numpy as np

from libattention._library import ffi, lib
from libattention._tensors import Views

ROOT = Path(__file__).parents[3]
GUIDES = ROOT / "docs" / "guides"


def tables(guide):
    """{(heading, first cell of the table's head): {first cell of a row: its other cells}}."""
    found, heading, rows = {}, "", None
    for line in (GUIDES / guide).read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            rows = None
        elif rows is None:
            rows = found[heading, cells(line)[0]] = {}
        elif not set(line) <= set("|-: "):
            first, *others = cells(line)
            assert first not in rows, f"{guide}: two rows {first!r}"
            rows[first] = others
    return found


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def names(others):
    """What stands in backticks: every name in there."""
    spans = re.findall(r"`([^`]*)`", " ".join(others))
    return {name for span in spans for name in re.findall(r"[A-Za-z_]\w+", span)}


def check_rows(rows, tests):
    """Each row has its test, each test its row, and they name the same."""
    assert list(rows) == list(tests)
    for first, others in rows.items():
        assert names(others) == set(tests[first][0].split()), first


def viewed(array, *steps):
    """What the library's functions for views make of an array, one after the other:
    ("split_heads", 4) is attn_tensor_split_heads(&view, 4, &view)."""
    array = np.ascontiguousarray(array)
    views = Views(1)
    view = views.add_array(array, "array")
    views.finish()
    begin = view.data
    for function, *arguments in steps:
        assert getattr(lib, f"attn_tensor_{function}")(view, *arguments, view) == 0, function
    shape, strides = (ffi.unpack(numbers, view.rank) for numbers in (view.shape, view.strides))
    offset = ffi.cast("char *", view.data) - ffi.cast("char *", begin)
    strides = [stride * array.itemsize for stride in strides]
    return np.ndarray(shape, array.dtype, array, offset, strides)


def split(array, num_heads):
    """(N, L, H * E) -> (N, H, L, E)."""
    return viewed(array, ("split_heads", num_heads))


def merged(array):
    """(N, H, L, E) -> (N, L, H * E)."""
    return array.swapaxes(1, 2).reshape(array.shape[0], array.shape[2], -1)
