# SPDX-License-Identifier: BSD-3-Clause
"""RMS normalisation of rows."""

from __future__ import annotations

from typing import Any

from libattention._by_rows import compute_rows, new_params
from libattention._context import Context
from libattention._library import assign, assign_given, lib
from libattention._tensors import Views, refuse_stand_ins


def rms_norm(
    x: Any,
    weight: Any = None,
    epsilon: float | None = None,
    *,
    weight_offset: float = 0.0,
    out: Any = None,
    context: Context | None = None,
) -> Any:
    """Computes x / sqrt(mean(x^2) + epsilon) * (weight_offset + weight) along the last axis.

    It is torch.nn.RMSNorm, as many models apply it to the queries and keys of each head before
    they are rotated.

    Args:
        x: (..., E), ranks 1 to 8; float32, float64, bfloat16 or float16
        weight: broadcastable to x's shape, mostly (E), (H, 1, E) for heads of their own; float64
            beside float64, else float32, bfloat16 or float16; None: 1
        epsilon: > 0; None: PyTorch's default, 2^-23, or 2^-52 beside float64
        weight_offset: 1 where a model stores weight - 1, as Gemma does; 0 without weight
        out: where to put the result, of x's shape, and of x's dtype or that of scores, float32
            beside 16 bits. It may be x itself, but else must not overlap it
        context: threads and kernels; None: the default

    Returns:
        The result, of the kind, dtype and shape of x. Sums are float64's for every dtype: no square
        overflows or vanishes.

    Raises:
        Error: the first argument that does not fit, by name: PyTorch tensors, too, that require
            grad or have no numbers (torch.compile, vmap, fake tensors).

    The GIL is released while computing. Since 0.1.
    """
    refuse_stand_ins(x, weight, instead="normalise by PyTorch's operators")

    def make_params(views: Views) -> Any:
        params = new_params("attn_rms_norm_params")
        assign_given(params, "epsilon", epsilon, "a number")
        assign(params, "weight_offset", weight_offset, "weight_offset", "a number")
        if weight is not None:
            params.weight = views.add_array(weight, "weight")
        return params

    return compute_rows(lib.attn_rms_norm, x, make_params, out, context)
