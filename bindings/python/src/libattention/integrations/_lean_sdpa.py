# SPDX-License-Identifier: BSD-3-Clause
"""The calls of PyTorch's operator for attention on CPUs, as plans: what is answered, and how its
results lie in memory."""

from __future__ import annotations

from functools import lru_cache, partial
from math import prod
from typing import Any

import torch

from libattention._abi import ffi
from libattention._library import lib
from libattention._plans import KEY, LSE, MASK, OUTPUT, VALUE, Plan
from libattention._tensors import layout_of
from libattention._torch_options import multiplies_tiles, score_dtype

DTYPES = {
    torch.float32: lib.ATTN_DTYPE_FLOAT32,
    torch.float64: lib.ATTN_DTYPE_FLOAT64,
    torch.bfloat16: lib.ATTN_DTYPE_BFLOAT16,
    torch.float16: lib.ATTN_DTYPE_FLOAT16,
}

# Multiplications of a call's scores, N * H * L * S * E, below which PyTorch's kernel is as fast or
# faster, by one thread or two (AVX-512): Python's part of an answer is some microseconds, and
# float64, which is at par where calls are large, goes to several threads later. 16 bits are as
# float32.
SMALLEST_WORK = {dtype: 1 << (24 if dtype == torch.float64 else 21) for dtype in DTYPES}


# Rows of a query above which PyTorch's kernel is faster whatever the size: by AMX 1.6 to 3 times
# from 8 rows on (Xeon, one thread). For a few rows, which wait for memory, it is not.
MOST_ROWS = {torch.bfloat16: 4} if multiplies_tiles() else {}

Lengths = tuple[int, ...]


class Kind:
    """Calls of one kind. Any number of threads may compute by one."""

    __slots__ = ("_lse", "_plan")

    def __init__(self, plan: Plan, lse: tuple[Lengths, Lengths]) -> None:
        """The shape and strides are those of lse."""
        self._plan = plan
        self._lse = lse

    def run(self, handle: Any, query: Any, key: Any, value: Any, mask: Any) -> Any:
        """Computes by the context of this handle.

        Returns:
            (output, lse) in PyTorch's layouts, or the library's status where it is not ATTN_OK.
        """
        # As PyTorch's own kernel makes them: the query's layout without gaps, and (N, L, H).
        output = torch.empty_like(query)
        lse = query.new_empty_strided(*self._lse, dtype=score_dtype(query.dtype))
        frame = self._plan.take()
        addresses = frame.addresses
        addresses[0] = query.data_ptr()
        addresses[KEY] = key.data_ptr()
        addresses[VALUE] = value.data_ptr()
        addresses[OUTPUT] = output.data_ptr()
        addresses[LSE] = lse.data_ptr()
        if mask is not None:
            addresses[MASK] = mask.data_ptr()
        status = self._plan.run(frame, handle)
        if status:
            return status
        if mask is not None:
            # PyTorch's of a row that sees nothing, by which its backward gives 0, not NaN.
            lse.nan_to_num_(nan=float("nan"), posinf=float("inf"), neginf=0.0)
        return output, lse


@lru_cache(maxsize=1024)
def kind_of_call(
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
) -> Kind | str:
    """The kind of calls with query, key and value of this dtype.

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
    refusal = reason_of_shapes(dtype, shape, key, value, is_causal, scale, mask)
    refusal = refusal or _reason_of_speed(dtype, shape, key)
    if refusal:
        return refusal
    batches, heads, rows, _ = shape
    number = DTYPES[dtype]
    lse = ((batches, heads, rows), (rows * heads, 1, heads))
    layouts = [
        layout_of(number, tuple(shape), strides),
        layout_of(number, tuple(key), key_strides),
        layout_of(number, tuple(value), value_strides),
        layout_of(number, tuple(shape), _strides_of_output(dtype, shape, strides)),
        layout_of(DTYPES[score_dtype(dtype)], *lse),
    ]
    if mask is not None:
        layouts.append(layout_of(DTYPES[mask[0]], tuple(mask[1]), mask[2]))
    options = options_of(shape, key, is_causal, scale)
    return Kind(Plan(layouts, partial(_params_of, options)), lse)


def _strides_of_output(dtype: torch.dtype, shape: Lengths, strides: Lengths) -> Lengths:
    """Of torch.empty_like(query), without memory."""
    query = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    return torch.empty_like(query).stride()


def options_of(
    query: Lengths, key: Lengths, is_causal: bool, scale: float | None
) -> dict[str, Any]:
    """Fields of an attn_sdpa_params that are no tensors."""
    options: dict[str, Any] = {"is_causal": is_causal, "enable_gqa": key[1] != query[1]}
    if scale is not None:
        options.update(set=lib.ATTN_SDPA_SET_SCALE, scale=scale)
    return options


def params_of(options: dict[str, Any], lse: Any, mask: Any | None) -> Any:
    """An attn_sdpa_params of these views."""
    params = ffi.new("attn_sdpa_params *", {"lse": lse, **options})
    params.struct_size = ffi.sizeof("attn_sdpa_params")
    if mask is not None:
        params.mask = mask
        params.mask_kind = lib.ATTN_MASK_ADDITIVE
    return params


def _params_of(options: dict[str, Any], views: list[Any]) -> Any:
    return params_of(options, views[4], views[5] if len(views) > 5 else None)


def reason_of_shapes(
    dtype: torch.dtype,
    query: Lengths,
    key: Lengths,
    value: Lengths,
    is_causal: bool,
    scale: float | None,
    mask: tuple[torch.dtype, Lengths, Lengths] | None,
) -> str:
    """Why PyTorch is to compute, of what it accepts and what it does not; "" if it need not."""
    if is_causal and scale is not None and scale <= 0:
        return "is_causal with a scale of 0 or less"  # of which PyTorch's kernel makes NaN
    if len(query) != 4 or key != value or not _fit(query, key):
        return "shapes"
    if mask is not None and not _fits_mask(mask, dtype, (*query[:3], key[2])):
        return "mask"
    return ""


def _reason_of_speed(dtype: torch.dtype, query: Lengths, key: Lengths) -> str:
    if prod(query) * key[2] < SMALLEST_WORK[dtype]:
        return "too small"
    if query[2] > MOST_ROWS.get(dtype, query[2]):
        return f"{dtype} by AMX"
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
