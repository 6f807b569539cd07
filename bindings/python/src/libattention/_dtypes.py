# SPDX-License-Identifier: BSD-3-Clause
"""Element types, which of them an argument may have, and what is said of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from libattention._library import Error, lib, unsupported

FLOAT32: int = lib.ATTN_DTYPE_FLOAT32
FLOAT64: int = lib.ATTN_DTYPE_FLOAT64
BOOL: int = lib.ATTN_DTYPE_BOOL
INT64: int = lib.ATTN_DTYPE_INT64
INT32: int = lib.ATTN_DTYPE_INT32
BFLOAT16: int = lib.ATTN_DTYPE_BFLOAT16
FLOAT16: int = lib.ATTN_DTYPE_FLOAT16
INT8: int = lib.ATTN_DTYPE_INT8
UINT8: int = lib.ATTN_DTYPE_UINT8
FLOATS = (FLOAT32, FLOAT64, BFLOAT16, FLOAT16)

DTYPE_NAMES = {
    FLOAT32: "float32",
    FLOAT64: "float64",
    BOOL: "bool",
    INT64: "int64",
    INT32: "int32",
    BFLOAT16: "bfloat16",
    FLOAT16: "float16",
    INT8: "int8",
    UINT8: "uint8",
}


class Role(NamedTuple):
    """What an argument is for: the element types it may have, and what to do about others.

    A conversion that is right for data is wrong for a mask, which would be added to the scores.
    """

    dtypes: tuple[int, ...]
    expected: str
    advice: Mapping[str, str]  # by what it holds instead; {bool} and so on are conversions to it


_TO_FLOAT = "convert it to float32 or float64"
_FLOAT_NAMES = "float32, float64, bfloat16 or float16"
_ADDED = "pass {float32}, which is added to the scores"
DATA = Role(
    FLOATS,
    _FLOAT_NAMES,
    {"bool": _TO_FLOAT, "integer": _TO_FLOAT, "float": _TO_FLOAT},
)
# Keys and values in a cache, which may be integers that scales make numbers of.
STORED = Role(
    (*FLOATS, INT8, UINT8),
    f"{_FLOAT_NAMES}, or int8 or uint8 beside a scale",
    {"bool": _TO_FLOAT, "float": _TO_FLOAT},
)
# A parameter that comes with scales.
INTEGER_WEIGHT = DATA._replace(
    dtypes=(*FLOATS, INT8), expected=f"{_FLOAT_NAMES}, or int8 beside a scale"
)
# Those scales, and the integers that mean 0.
SCALES = Role(
    (FLOAT32, BFLOAT16, FLOAT16),
    "float32, bfloat16 or float16",
    {"bool": "pass {float32}", "integer": "pass {float32}", "float": "pass {float32}"},
)
BIAS = DATA._replace(
    advice={
        "bool": "it is added to the scores; a mask is given as attn_mask",
        "integer": "pass {float32} if it is to be added to the scores; a mask is attn_mask",
        "float": _TO_FLOAT,
    }
)
# A mask of 0 and 1 is not taken as one of False and True: which of the two functions it was made
# for only the caller knows.
_MASK = Role((BOOL, *FLOATS), f"bool, or {_FLOAT_NAMES} that is added", {})
MASK_OF_SEEN = _MASK._replace(
    advice={"integer": "pass {bool}, in which True takes part", "float": _ADDED}
)
MASK_OF_HIDDEN = _MASK._replace(
    advice={
        "integer": "pass {bool}, in which True is left out, or {name} == 0 if 1 takes part",
        "float": _ADDED,
    }
)
INTEGERS = Role(
    (INT64, INT32),
    "int64 or int32",
    {
        "bool": "it counts keys; a mask is given as attn_mask",
        "integer": "pass {int64}",
        "float": "pass whole numbers as {int64}",
    },
)
# What blocks of a mask are.
BLOCKS = Role(
    (UINT8,),
    "uint8: 0 hidden, 1 visible, 2 where attn_mask is asked",
    {"bool": "pass {uint8}", "integer": "pass {uint8}"},
)


def wrong_dtype(
    name: str,
    role: Role,
    dtype: str,
    is_known: bool,
    holds: str | None,
    conversions: Mapping[str, str],
) -> Error:
    """`is_known`: elsewhere the library computes with this element type."""
    advice = role.advice.get(holds or "")
    rest = "" if advice is None else "; " + advice.format(name=name, **conversions)
    if role is DATA and not is_known:
        return unsupported(f"{name}: dtype {dtype} is unsupported{rest}")
    status = lib.ATTN_ERROR_DTYPE if is_known else lib.ATTN_ERROR_UNSUPPORTED
    return Error(status, f"{name}: expected dtype {role.expected}, got {dtype}{rest}")
