# SPDX-License-Identifier: BSD-3-Clause
"""What comes out of a call of scaled dot-product attention, and what its arguments are called."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from libattention._abi import ffi
from libattention._library import lib, raise_last_error
from libattention._options import OPTION_NAMES, Options, make_params
from libattention._tensors import Empty, Views, empty_from

# What C calls otherwise.
NAMES = {
    **OPTION_NAMES,
    "output": "out",
    "lse": "return_lse",
    "weights": "return_weights",
    "scores": "return_scores",
}
# PyTorch's polarity for this function: a bool mask says what takes part.
BOOL_MASK: int = lib.ATTN_MASK_BOOL_INCLUDE


class Outputs(NamedTuple):
    """What comes out of a call."""

    output: Empty
    lse: Empty
    weights: Empty
    scores: Empty


@lru_cache(maxsize=1024)
def outputs_of(enable_gqa: bool, *layouts: bytes) -> Outputs:
    """Of inputs of these layouts. No other option has a part in it."""
    views = Views()
    inputs = tuple(map(views.add_layout, layouts))
    views.finish()
    found = describe_outputs(inputs, make_params(Options(enable_gqa=enable_gqa), views, BOOL_MASK))
    return Outputs(*map(empty_from, (found.output, found.lse, found.weights, found.scores)))


def describe_outputs(inputs: tuple[Any, ...], params: Any) -> Any:
    """An attn_sdpa_outputs."""
    outputs = ffi.new("attn_sdpa_outputs *")
    outputs.struct_size = ffi.sizeof("attn_sdpa_outputs")
    status = lib.attn_sdpa_describe_outputs(*inputs, params, outputs)
    if status:
        raise_last_error(status, NAMES)
    return outputs
