# SPDX-License-Identifier: BSD-3-Clause
"""Attention of PyTorch's CPU tensors with as little Python around the C call as possible.

What a call needs but for its addresses follows from dtypes, shapes, strides and options. It is
written into the C structs once and kept: a later call of the same kind writes addresses alone.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import torch

from libattention._abi import ffi
from libattention._library import lib

DTYPES = {torch.float32: lib.ATTN_DTYPE_FLOAT32, torch.float64: lib.ATTN_DTYPE_FLOAT64}

# Multiplications of a call's scores, N * H * L * S * E, below which PyTorch's kernel is as fast or
# faster, by one thread or two (AVX-512): Python's part of an answer is some microseconds, and
# float64, which is at par where calls are large, goes to several threads later.
SMALLEST_WORK = {torch.float32: 1 << 21, torch.float64: 1 << 24}

_NAMES = ("query", "key", "value", "output", "lse", "mask")
_WORDS = ffi.sizeof("attn_tensor") // 8
if ffi.offsetof("attn_tensor", "data") != 0 or ffi.sizeof("attn_tensor") % 8 != 0:
    raise ImportError("libattention: attn_tensor is not as this package expects it")
KEY, VALUE, OUTPUT, LSE, MASK = (_WORDS * _NAMES.index(name) for name in _NAMES[1:])

Lengths = tuple[int, ...]
Layout = tuple[int, Lengths, Lengths]  # dtype, shape, strides


class Frame:
    """The structs of one call at a time."""

    __slots__ = ("_structs", "addresses", "inputs", "output", "params")

    def __init__(self, layouts: dict[str, Layout], options: dict[str, Any]) -> None:
        structs = ffi.new("attn_tensor[]", len(_NAMES))
        pointers = {name: structs + i for i, name in enumerate(_NAMES)}
        for name, (dtype, shape, strides) in layouts.items():
            struct = pointers[name]
            struct.dtype, struct.rank = dtype, len(shape)
            struct.shape[0 : len(shape)] = shape
            struct.strides[0 : len(shape)] = strides
        self._structs = structs
        # The address of tensor i is word i * _WORDS.
        self.addresses = ffi.cast("uint64_t *", structs)
        self.inputs = (pointers["query"], pointers["key"], pointers["value"])
        self.output = pointers["output"]
        self.params = ffi.new("attn_sdpa_params *", {"lse": pointers["lse"], **options})
        self.params.struct_size = ffi.sizeof("attn_sdpa_params")
        if "mask" in layouts:
            self.params.mask = pointers["mask"]
            self.params.mask_kind = lib.ATTN_MASK_ADDITIVE


class Plan:
    """Calls of one kind. Any number of threads may compute by one plan."""

    __slots__ = ("_idle", "_layouts", "_lse", "_options")

    def __init__(self, layouts: dict[str, Layout], options: dict[str, Any]) -> None:
        """The layouts are those of all tensors but the output."""
        self._layouts = layouts
        self._options = options
        self._lse = layouts["lse"][1:]
        self._idle: list[Frame] = []

    def run(self, handle: Any, query: Any, key: Any, value: Any, mask: Any) -> Any:
        """Computes by the context of this handle.

        Returns:
            (output, lse) in PyTorch's layouts, or the library's status where it is not ATTN_OK.
        """
        # As PyTorch's own kernel makes them: the query's layout without gaps, and (N, L, H).
        output = torch.empty_like(query)
        lse = query.new_empty_strided(*self._lse)
        # Of a list, pop and append are atomic: no frame is in two hands.
        try:
            frame = self._idle.pop()
        except IndexError:
            frame = self._frame(output.stride())
        addresses = frame.addresses
        addresses[0] = query.data_ptr()
        addresses[KEY] = key.data_ptr()
        addresses[VALUE] = value.data_ptr()
        addresses[OUTPUT] = output.data_ptr()
        addresses[LSE] = lse.data_ptr()
        if mask is not None:
            addresses[MASK] = mask.data_ptr()
        status = lib.attn_sdpa(handle, *frame.inputs, frame.params, frame.output, ffi.NULL, 0)
        self._idle.append(frame)
        if status:
            return status
        if mask is not None:
            # PyTorch's of a row that sees nothing, by which its backward gives 0, not NaN.
            lse.nan_to_num_(nan=float("nan"), posinf=float("inf"), neginf=0.0)
        return output, lse

    def _frame(self, output_strides: Lengths) -> Frame:
        """One more, for as many calls as there are at once."""
        dtype, shape, _ = self._layouts["query"]
        return Frame({**self._layouts, "output": (dtype, shape, output_strides)}, self._options)


@lru_cache(maxsize=1024)
def plan_of(
    dtype: torch.dtype,
    shape: Lengths,
    strides: Lengths,
    key: Lengths,
    key_strides: Lengths,
    value: Lengths,
    value_strides: Lengths,
    is_causal: bool,
    scale: float | None,
    mask: tuple[torch.dtype, Lengths, Lengths] | None,
) -> Plan | str:
    """The plan of calls with query, key and value of this dtype.

    Args:
        dtype: of query, one of DTYPES; key and value have the same
        shape: of query
        strides: of query
        key: its shape
        key_strides: its strides
        value: its shape
        value_strides: its strides
        is_causal: as in PyTorch
        scale: as in PyTorch
        mask: dtype, shape and strides of an additive mask

    Returns:
        Where PyTorch is to compute, why, in a few words.
    """
    refusal = _refusal(dtype, shape, key, value, mask)
    if is_causal and scale is not None and scale <= 0:
        refusal = "is_causal with a scale of 0 or less"  # of which PyTorch's kernel makes NaN
    if refusal:
        return refusal
    batches, heads, rows, _ = shape
    number = DTYPES[dtype]
    layouts: dict[str, Layout] = {
        "query": (number, shape, strides),
        "key": (number, key, key_strides),
        "value": (number, value, value_strides),
        "lse": (number, (batches, heads, rows), (rows * heads, 1, heads)),
    }
    if mask is not None:
        layouts["mask"] = (DTYPES[mask[0]], *mask[1:])
    options: dict[str, Any] = {"is_causal": is_causal, "enable_gqa": key[1] != heads}
    if scale is not None:
        options.update(set=lib.ATTN_SDPA_SET_SCALE, scale=scale)
    return Plan(layouts, options)


def _refusal(
    dtype: torch.dtype,
    query: Lengths,
    key: Lengths,
    value: Lengths,
    mask: tuple[torch.dtype, Lengths, Lengths] | None,
) -> str:
    """Why PyTorch is to compute, of what it accepts and what it does not; "" if it need not."""
    if len(query) != 4 or key != value or not _fit(query, key):
        return "shapes"
    if mask is not None and not _fits_mask(mask, dtype, (*query[:3], key[2])):
        return "mask"
    if prod(query) * key[2] < SMALLEST_WORK[dtype]:
        return "too small"
    return ""


def _fit(query: Lengths, key: Lengths) -> bool:
    """Whether the key has the query's batches and width, and heads that divide its."""
    same = len(key) == 4 and query[0] == key[0] and query[3] == key[3]
    return same and key[1] > 0 and query[1] % key[1] == 0


def _fits_mask(
    mask: tuple[torch.dtype, Lengths, Lengths], dtype: torch.dtype, scores: Lengths
) -> bool:
    """Whether PyTorch takes the mask for scores of this shape."""
    shape = mask[1]
    return (
        mask[0] in (dtype, torch.float32)
        and len(shape) in (2, 4)
        and all(have in (1, want) for have, want in zip(shape, scores[-len(shape) :]))
    )
