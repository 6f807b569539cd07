# SPDX-License-Identifier: BSD-3-Clause
"""F.scaled_dot_product_attention with dropout, answered by libattention where install was asked to.

PyTorch sends such calls past its operator for CPUs, so that the function itself is replaced, above
autograd. What it is called with without dropout goes on as if it were not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from libattention._attention import scaled_dot_product_attention
from libattention._context import Context
from libattention._library import Error
from libattention._torch_options import score_dtype
from libattention._torch_ordinary import reason_to_ask_pytorch
from libattention.integrations._lean_sdpa import DTYPES
from libattention.integrations._step_dropout import step_dropout

FUNCTION = "scaled_dot_product_attention"
_KEY = "AutogradCPU"


class DropoutRegistration:
    """The function replaced, until destroyed."""

    def __init__(self, context: Callable[[], Context], count: Callable[[str | None], None]) -> None:
        """`count` is told of every call with dropout: why PyTorch computed it, or None."""
        self._context = context
        self._count = count
        self._original = torch.library.get_kernel(f"aten::{FUNCTION}", _KEY).call_boxed
        library: Any = torch.library  # without type hints
        self._library = library.Library("aten", "IMPL")
        self._library.impl(FUNCTION, self._compute, _KEY, with_keyset=True)

    def destroy(self) -> None:
        self._library._destroy()

    def _compute(
        self,
        keyset: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        """The function."""
        given = (query, key, value, attn_mask)
        options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
        if dropout_p != 0:
            found = self._answer(given, dropout_p, is_causal, options)
            self._count(found if isinstance(found, str) else None)
            if not isinstance(found, str):
                return found
        return self._original(keyset, *given, dropout_p, is_causal, **options)

    def _answer(
        self,
        given: tuple[Any, ...],
        dropout_p: float,
        is_causal: bool,
        options: dict[str, Any],
    ) -> Tensor | str:
        """The output, or why PyTorch is to compute it, which has an error for it, or a rule."""
        reason = _reason_against(given, dropout_p, is_causal)
        if reason is not None:
            return f"dropout: {reason}"
        query, key, value, mask = given
        before = torch.get_rng_state()
        dropout = step_dropout(dropout_p)
        try:
            found: Tensor = scaled_dot_product_attention(
                query,
                key,
                value,
                mask,
                is_causal=is_causal,
                dropout=dropout,
                context=self._context(),
                **options,
            )
        except Error as error:
            torch.set_rng_state(before)
            return f"dropout: {error.name}"
        return found


def _reason_against(given: tuple[Any, ...], dropout_p: float, is_causal: bool) -> str | None:
    tensors = [one for one in given if one is not None]
    reason = reason_to_ask_pytorch(tuple(tensors), may_want_gradient=True)
    if reason is not None:
        return f"a tensor {reason}"
    query, *others, mask = given
    if any(one.device.type != "cpu" or one.is_nested for one in tensors):
        return "a tensor that is not in the CPU's memory"
    if query.dtype not in DTYPES or any(one.dtype != query.dtype for one in others):
        return "dtypes"
    known = (torch.bool, query.dtype, score_dtype(query.dtype))
    if mask is not None and (is_causal or mask.dtype not in known):
        return "mask"
    return None if 0 < dropout_p < 1 else "a probability outside of 0 to 1"
