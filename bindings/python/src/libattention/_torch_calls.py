# SPDX-License-Identifier: BSD-3-Clause
"""Which way the attention of PyTorch tensors goes: by an operator of PyTorch's, by a plan, or as
that of all arrays."""

from __future__ import annotations

from typing import Any

import torch

from libattention._context import Context
from libattention._library import unsupported
from libattention._options import Options
from libattention._planned_calls import attend as attend_by_plan
from libattention._planned_calls import torch_arrays
from libattention._torch_ordinary import KNOWS_TENSORS, reason_to_ask_pytorch


def attend_tensors(
    query: Any,
    key: Any,
    value: Any,
    options: tuple[Any, ...],
    may_have_plan: bool,
    results: tuple[Any, bool, bool, Any],
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
    out, return_lse, return_weights, return_scores = results
    given = Options._make(options)
    refused = {"out": out, "return_scores": return_scores, "dropout": given.dropout}
    for name, one in refused.items():
        if one is not None:
            raise unsupported(f"{name}: cannot be given where a tensor {reason}")
    from libattention._torch_operators import attend

    return attend(query, key, value, given, return_lse, return_weights, context)


def refuse_sequences(arrays: tuple[Any, ...]) -> None:
    """Refuses tensors that PyTorch would have to compute with, where no operator takes them.

    Args:
        arrays: everything that a call with kv or query_starts is given
    """
    reason = reason_to_ask_pytorch(arrays)
    if reason is not None:
        raise unsupported(
            f"kv, query_starts: cannot be given where a tensor {reason}; "
            "call under torch.no_grad(), outside of autocast, compiling and transforms"
        )
