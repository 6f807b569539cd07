# SPDX-License-Identifier: BSD-3-Clause
"""Which way the attention of PyTorch tensors goes: by an operator of PyTorch's, by a plan, or by
neither."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from libattention._attention import NAMES, make_plan
from libattention._context import Context, handle_of
from libattention._dtypes import FLOAT32, FLOAT64
from libattention._library import raise_last_error, unsupported
from libattention._options import Options
from libattention._plans import KEY, OUTPUT, VALUE, Plan
from libattention._tensors import layout_of
from libattention._torch_ordinary import reason_to_ask_pytorch

_NUMBERS = {torch.float32: FLOAT32, torch.float64: FLOAT64}


def attend_tensors(
    query: Any,
    key: Any,
    value: Any,
    options: tuple[Any, ...],
    is_simple: bool,
    results: tuple[Any, bool, bool],
    context: Context | None,
) -> Any:
    """scaled_dot_product_attention of PyTorch tensors.

    Args:
        query: a tensor
        key: as there
        value: as there
        options: as in Options
        is_simple: none of them but is_causal, scale and enable_gqa is given, and no results are
        results: out, return_lse and return_weights
        context: as there

    Returns:
        What it returns; None where the tensors have to be looked at more closely.
    """
    inputs = (query, key, value)
    reason = reason_to_ask_pytorch(inputs if is_simple else (*inputs, *options))
    if reason is None:
        are_tensors = isinstance(key, torch.Tensor) and isinstance(value, torch.Tensor)
        _, is_causal, scale, enable_gqa, *_ = options
        if not is_simple or not are_tensors:
            return None
        return _attend_again(query, key, value, is_causal, scale, enable_gqa, context)
    out, return_lse, return_weights = results
    if out is not None:
        raise unsupported(f"out: cannot be given where a tensor {reason}")
    from libattention._torch_operators import attend

    given = Options._make(options)
    return attend(query, key, value, given, return_lse, return_weights, context)


def _attend_again(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    context: Context | None,
) -> torch.Tensor | None:
    """By a plan; None where the tensors have to be looked at more closely."""
    for one in (query, key, value):
        if not one.is_cpu or one.layout is not torch.strided or one.is_nested or one.is_neg():
            return None
    known = _plan_of(
        query.dtype,
        query.shape,
        query.stride(),
        key.dtype,
        key.shape,
        key.stride(),
        value.dtype,
        value.shape,
        value.stride(),
        is_causal,
        scale,
        enable_gqa,
    )
    if known is None:
        return None
    plan, shape = known
    output = query.new_empty(shape)
    frame = plan.take()
    addresses = frame.addresses
    addresses[0] = query.data_ptr()
    addresses[KEY] = key.data_ptr()
    addresses[VALUE] = value.data_ptr()
    addresses[OUTPUT] = output.data_ptr()
    status = plan.run(frame, handle_of(context))
    if status:
        raise_last_error(status, NAMES)
    return output


@lru_cache(maxsize=1024)
def _plan_of(*kind: Any) -> tuple[Plan, tuple[int, ...]] | None:
    """The plan of calls of a kind, and the output's shape. A kind is dtype, shape and strides of
    query, key and value, and options."""
    layouts = []
    for i in (0, 3, 6):
        number = _NUMBERS.get(kind[i])
        if number is None:
            return None
        layouts.append((number, layout_of(number, tuple(kind[i + 1]), kind[i + 2])))
    return make_plan(layouts, kind[1:9:3], *kind[9:])
