# SPDX-License-Identifier: BSD-3-Clause
"""The calls of the backward of PyTorch's operator for attention on CPUs, as plans: what is
answered, and how its results lie in memory."""

from __future__ import annotations

from functools import lru_cache, partial
from math import inf, prod
from typing import Any

import torch

from libattention._abi import ffi
from libattention._plans import PLACES, BackwardPlan
from libattention._tensors import layout_of
from libattention._torch_options import multiplies_tiles, score_dtype
from libattention.integrations._lean_sdpa import (
    DTYPES,
    Lengths,
    options_of,
    params_of,
    reason_of_shapes,
)

# Multiplications of a call's scores, as in SMALLEST_WORK, below which PyTorch's kernel is as fast
# or faster. It is slow in 16 bits.
SMALLEST_WORK = {
    torch.float32: 1 << 24,
    torch.float64: 1 << 24,
    torch.bfloat16: 1 << 13,
    torch.float16: 1 << 13,
}
# And above which it is again, where it multiplies tiles of bfloat16 (AMX).
LARGEST_WORK: dict[torch.dtype, float] = {torch.bfloat16: 1 << 25} if multiplies_tiles() else {}

# Shape and strides of a tensor.
Place = tuple[Lengths, Lengths]


class BackwardKind:
    """Calls of one kind. Any number of threads may compute by one."""

    __slots__ = ("_gradients", "_plan")

    def __init__(self, plan: BackwardPlan, gradients: list[Place]) -> None:
        """They are those of query, key and value."""
        self._plan = plan
        self._gradients = gradients

    def run(self, handle: Any, given: tuple[Any, ...], mask: Any) -> Any:
        """Computes by the context of this handle.

        Args:
            handle: of a context
            given: query, key, value, output, lse and the gradient of output
            mask: added to the scores, or None

        Returns:
            Gradients of query, key and value in PyTorch's layouts, or the library's status where
            it is not ATTN_OK.
        """
        query = given[0]
        found = tuple(query.new_empty_strided(*place) for place in self._gradients)
        frame = self._plan.take()
        tensors = (*given, *found) if mask is None else (*given, *found, mask)
        for place, one in zip(PLACES, tensors):
            frame.addresses[place] = one.data_ptr()
        return self._plan.run(frame, handle) or found


@lru_cache(maxsize=1024)
def kind_of_backward(
    dtype: torch.dtype,
    places: tuple[Place, ...],
    is_causal: bool,
    scale: float | None,
    mask: tuple[torch.dtype, Lengths, Lengths] | None,
) -> BackwardKind | str:
    """The kind of calls with query, key and value of this dtype.

    Args:
        dtype: of query, one of DTYPES; key, value, output and its gradient have the same, and lse
            the scores'
        places: of query, key, value, output, lse and the gradient of output
        is_causal: as in PyTorch
        scale: as in PyTorch
        mask: dtype, shape and strides of an additive mask

    Returns:
        Where PyTorch is to compute, why, in a few words.
    """
    query, key, value, output, lse, gradient = (shape for shape, _ in places)
    refusal = reason_of_shapes(dtype, query, key, value, is_causal, scale, mask)
    if not refusal and not (output == gradient == query and lse == query[:3]):
        refusal = "shapes"
    refusal = refusal or _reason_of_speed(dtype, prod(query) * key[2])
    if refusal:
        return refusal
    number, of_scores = DTYPES[dtype], DTYPES[score_dtype(dtype)]
    dtypes = (number, number, number, number, of_scores, number)
    found = [(shape, _strides(shape)) for shape in (query, key, value)]
    layouts = [layout_of(one, *place) for one, place in zip(dtypes, places)]
    layouts += [layout_of(number, *place) for place in found]
    if mask is not None:
        layouts.append(layout_of(DTYPES[mask[0]], tuple(mask[1]), mask[2]))
    make = partial(_params_of, options_of(query, key, is_causal, scale))
    return BackwardKind(BackwardPlan(layouts, make), found)


def _reason_of_speed(dtype: torch.dtype, work: int) -> str:
    if work < SMALLEST_WORK[dtype]:
        return "too small"
    return f"{dtype} by AMX" if work > LARGEST_WORK.get(dtype, inf) else ""


def _strides(shape: Lengths) -> Lengths:
    """As PyTorch's own kernel lays gradients out: heads inside rows."""
    _, heads, rows, width = shape
    return (heads * rows * width, width, heads * width, 1)


def _params_of(options: dict[str, Any], views: list[Any]) -> tuple[Any, Any]:
    *_, lse, output, query, key, value = views[:9]
    gradients = ffi.new(
        "attn_sdpa_gradients *",
        {
            "struct_size": ffi.sizeof("attn_sdpa_gradients"),
            "output": output,
            "query": query,
            "key": key,
            "value": value,
        },
    )
    return params_of(options, lse, views[9] if len(views) > 9 else None), gradients
