# SPDX-License-Identifier: BSD-3-Clause
"""Whether a layer's own eager attention is the formula that libattention computes.

Architectures have eager attentions of their own, most of them alike, some not: they leave out the
mask, or have another scale. A layer's first call compares the two on a few small numbers.
"""

from __future__ import annotations

from typing import Any

import torch

from libattention._attention import scaled_dot_product_attention
from libattention.integrations._hf_calls import Call, computed, computed_eagerly
from libattention.integrations._hf_own import Attention

ROWS = 3
# Single precision, in which eager attentions take their softmax, and some more.
TOLERANCE = 1e-4

_agreements: dict[tuple[Any, ...], bool] = {}


# Of a class, so that what is compiled may take the answer for a constant.
def agrees(call: Call, own: Attention) -> bool:
    """Whether the layer's own eager attention gives what libattention does, with these options."""
    key = (
        type(call.module),
        call.query.shape[1::2],
        call.key.shape[1],
        call.value.shape[1::2],
        call.query.dtype,
        call.scaling,
        call.softcap,
        call.mask is None,
        call.bias is None,
        call.sinks is None,
        call.weights,
    )
    known = _agreements.get(key)
    if known is None:
        known = _agreements[key] = _compare(_shrunk(call), own)
    return known


def _shrunk(call: Call) -> Call:
    """The same call with three rows, three keys, and numbers that need no random generator; in
    float32 where it is of 16 bits, whose rounding would hide what differs."""
    dtype = torch.float64 if call.query.dtype == torch.float64 else torch.float32

    def waves(*shape: int) -> torch.Tensor:
        count = torch.Size(shape).numel()
        return torch.sin(torch.arange(count, dtype=dtype) * 1.7).reshape(shape)

    query, key, value = (
        waves(1, one.shape[1], ROWS, one.shape[3]) for one in (call.query, call.key, call.value)
    )
    mask = bias = None
    if call.mask is not None:
        mask = torch.ones(1, 1, ROWS, ROWS, dtype=torch.bool).tril()
    if call.bias is not None:
        bias = waves(1, query.shape[1], ROWS, ROWS)
    return call._replace(
        query=query, key=key, value=value, mask=mask, bias=bias, is_causal=False, dropout=0.0
    )


def _compare(call: Call, own: Attention) -> bool:
    with torch.no_grad():
        try:
            expected = computed_eagerly(call, own)
        except Exception:  # Whatever it is, the layer's own attention is to raise it.
            return False
        found = computed(call, scaled_dot_product_attention)
    pairs = list(zip(found, expected))[: 2 if call.weights else 1]
    return all(
        one is not None
        and two is not None
        and one.shape == two.shape
        and torch.allclose(one, two.to(one.dtype), rtol=TOLERANCE, atol=TOLERANCE)
        for one, two in pairs
    )
