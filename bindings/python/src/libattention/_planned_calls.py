# SPDX-License-Identifier: BSD-3-Clause
"""Small calls where the compiled module is not, or knows no tensors: by plans.

What a call needs but for addresses is kept for as many kinds of calls as a program has. A kind is
dtype, shape and strides of query, key and value, and the options is_causal, scale and enable_gqa.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from libattention._abi import ffi
from libattention._context import Context, context_for, handle_of
from libattention._dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, FLOATS
from libattention._library import raise_last_error
from libattention._options import Options, make_params
from libattention._outputs import BOOL_MASK, NAMES, outputs_of
from libattention._plans import KEY, OUTPUT, VALUE, Plan
from libattention._tensors import (
    MAX_RANK,
    Views,
    address_of,
    contiguous_layout,
    layout_of,
    numpy_layout,
)

Layout = tuple[int, bytes]


class _NumPy:
    """numpy.ndarray, no subclass."""

    def facts(self, array: Any) -> tuple[Any, ...] | None:
        """Dtype, shape and strides; None where there is more to the array."""
        return (array.dtype, array.shape, array.strides) if type(array) is np.ndarray else None

    def layout(self, *facts: Any) -> Layout | None:
        return numpy_layout(*facts)

    def empty(self, like: Any, shape: tuple[int, ...]) -> Any:
        return np.empty(shape, like.dtype)

    def address(self, array: Any) -> int:
        return address_of(array)


class _Torch:
    """torch.Tensor, once somebody else has found that it is an ordinary one."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._numbers = {
            torch.float32: FLOAT32,
            torch.float64: FLOAT64,
            torch.bfloat16: BFLOAT16,
            torch.float16: FLOAT16,
        }

    def facts(self, tensor: Any) -> tuple[Any, ...] | None:
        torch = self._torch
        if not isinstance(tensor, torch.Tensor) or not tensor.is_cpu:
            return None
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_neg():
            return None
        return tensor.dtype, tuple(tensor.shape), tensor.stride()

    def layout(self, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Layout | None:
        number = self._numbers.get(dtype)
        return None if number is None else (number, layout_of(number, shape, strides))

    def empty(self, like: Any, shape: tuple[int, ...]) -> Any:
        return like.new_empty(shape)

    def address(self, tensor: Any) -> int:
        found: int = tensor.data_ptr()
        return found


_NUMPY = _NumPy()


@lru_cache(maxsize=1)
def torch_arrays(torch: Any) -> _Torch:
    """PyTorch's tensors, for attend."""
    return _Torch(torch)


def attend(
    query: Any,
    key: Any,
    value: Any,
    is_causal: Any,
    scale: Any,
    enable_gqa: Any,
    context: Context | None,
    arrays: _NumPy | _Torch = _NUMPY,
) -> Any:
    """scaled_dot_product_attention; NotImplemented where it has to be looked at more closely."""
    are_usual = isinstance(is_causal, bool) and isinstance(enable_gqa, bool)
    facts = [arrays.facts(one) for one in (query, key, value)]
    if not are_usual or None in facts or not (scale is None or type(scale) is float):
        return NotImplemented
    known = _plan_of(arrays, *facts, is_causal, scale, enable_gqa)
    if known is None:
        return NotImplemented
    plan, shape = known
    output = arrays.empty(query, shape)
    frame = plan.take()
    for place, one in zip((0, KEY, VALUE, OUTPUT), (query, key, value, output)):
        frame.addresses[place] = arrays.address(one)
    status = plan.run(frame, handle_of(context_for(context, query)))
    if status:
        raise_last_error(status, NAMES)
    return output


@lru_cache(maxsize=1024)
def _plan_of(
    arrays: _NumPy | _Torch,
    query: tuple[Any, ...],
    key: tuple[Any, ...],
    value: tuple[Any, ...],
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> tuple[Plan, tuple[int, ...]] | None:
    """The plan of calls of a kind, and the output's shape; None where there is none."""
    found = [arrays.layout(*facts) for facts in (query, key, value)]
    known = [one for one in found if one is not None]
    dtypes = {dtype for dtype, _ in known}
    rank = max(len(shape) for _, shape, _ in (query, key, value))
    if len(known) != 3 or rank > MAX_RANK or len(dtypes) != 1 or not dtypes <= set(FLOATS):
        return None
    inputs = [layout for _, layout in known]
    output = outputs_of(enable_gqa, *inputs).output
    params = ffi.NULL
    if is_causal or scale is not None or enable_gqa:
        options = Options(is_causal=is_causal, scale=scale, enable_gqa=enable_gqa)
        params = make_params(options, Views(), BOOL_MASK)
    return Plan([*inputs, contiguous_layout(output)], lambda _: params), output.shape
