# SPDX-License-Identifier: BSD-3-Clause
"""Which way the attention of PyTorch tensors goes: by an operator of PyTorch's, by a plan, or as
that of all arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from libattention._context import Context
from libattention._kv import KV
from libattention._library import Error, lib, unsupported
from libattention._options import Options
from libattention._planned_calls import attend as attend_by_plan
from libattention._planned_calls import torch_arrays
from libattention._torch_ordinary import KNOWS_TENSORS, reason_to_ask_pytorch

if TYPE_CHECKING:
    from libattention._attention import Results


def attend_tensors(
    query: Any,
    key: Any,
    value: Any,
    options: tuple[Any, ...],
    may_have_plan: bool,
    results: Results,
    context: Context | None,
) -> Any:
    """scaled_dot_product_attention of PyTorch tensors.

    Args:
        query: a tensor
        key: as there
        value: as there
        options: as in Options
        may_have_plan: none but is_causal, scale and enable_gqa is given, and no results are
        results: out, return_lse, return_weights and return_scores
        context: as there

    Returns:
        What it returns; None where they are ordinary tensors, now, and have to be looked at more
        closely.
    """
    reason = reason_to_ask_pytorch((query, key, value, *options))
    if reason is None and may_have_plan and not KNOWS_TENSORS:
        _, is_causal, scale, enable_gqa, *_ = options
        usual = (query, key, value, is_causal, scale, enable_gqa, context)
        found = attend_by_plan(*usual, torch_arrays(torch))
        return None if found is NotImplemented else found
    if reason is None:
        return None
    given = Options._make(options)
    return _by_operator(reason, query, key, value, given, results, context)


def attend_sequences_of_tensors(
    query: Any,
    key: Any,
    value: Any,
    options: tuple[Any, ...],
    kv: KV | None,
    query_starts: Any,
    results: Results,
    context: Context | None,
) -> Any:
    """scaled_dot_product_attention of PyTorch tensors with kv or query_starts; the arguments as
    there.

    Returns:
        What it returns; None where they are no tensors, or ordinary ones, now.
    """
    arrays = (query, key, value, *options, *(kv or ()), query_starts)
    are_tensors = any(isinstance(one, torch.Tensor) for one in arrays)
    reason = reason_to_ask_pytorch(arrays) if are_tensors else None
    if reason is None:
        return None
    if not isinstance(query, torch.Tensor):
        text = f"query: expected a torch.Tensor where a tensor {reason}, got {type(query).__name__}"
        raise unsupported(text)
    given, key_starts = Options._make(options), None
    if kv is not None:
        _refuse_beside_kv(key, value, given)
        _refuse_without_gradients(kv, reason)
        key, value, key_starts = kv.key, kv.value, kv.starts
        given = given._replace(key_lengths=kv.lengths)
    starts = (query_starts, key_starts)
    return _by_operator(reason, query, key, value, given, results, context, starts)


def _refuse_beside_kv(key: Any, value: Any, options: Options) -> None:
    given = {"key": key, "value": value, "key_lengths": options.key_lengths}
    for name, one in given.items():
        if one is not None:
            text = f"{name}: expected None beside kv, which has its own"
            raise Error(lib.ATTN_ERROR_VALUE, text)


def _refuse_without_gradients(kv: KV, reason: str) -> None:
    """Refuses keys and values that the operator does not take."""
    if kv.page_table is not None or kv.page_starts is not None:
        raise unsupported(f"kv.page_table: cannot be given where a tensor {reason}; {_ELSEWHERE}")
    scales = (kv.key_scale, kv.value_scale, kv.key_zero, kv.value_zero)
    if any(one is not None for one in scales) or any(map(_has_integers, (kv.key, kv.value))):
        text = "integers cannot be given where a tensor"
        raise unsupported(f"kv.key, kv.value: {text} {reason}; {_ELSEWHERE}")


_ELSEWHERE = "call under torch.no_grad(), outside of autocast, compiling and transforms"


def _has_integers(array: Any) -> bool:
    return isinstance(array, torch.Tensor) and not array.is_floating_point()


def _by_operator(
    reason: str,
    query: Any,
    key: Any,
    value: Any,
    options: Options,
    results: Results,
    context: Context | None,
    starts: tuple[Any, Any] = (None, None),
) -> Any:
    """As there; the starts are those of the query and of keys."""
    out, return_lse, return_weights, return_scores = results
    for name, one in {"out": out, "return_scores": return_scores}.items():
        if one is not None:
            raise unsupported(f"{name}: cannot be given where a tensor {reason}")
    from libattention._torch_operators import attend

    return attend(query, key, value, options, return_lse, return_weights, context, *starts)
