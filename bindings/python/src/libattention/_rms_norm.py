# SPDX-License-Identifier: BSD-3-Clause
"""RMS normalisation of rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from libattention._by_rows import compute_rows, new_params
from libattention._context import Context
from libattention._library import assign, assign_given, lib
from libattention._tensors import Views, refuse_stand_ins, wants_gradient


class Norm(NamedTuple):
    """The options of rms_norm, called as in attn_rms_norm_params."""

    weight: Any
    epsilon: float | None
    weight_offset: float


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
        context: threads and kernels; None: as in scaled_dot_product_attention

    Returns:
        The result, of the kind, dtype and shape of x. Sums are float64's for every dtype: no square
        overflows or vanishes.

    Of PyTorch tensors x and weight that require grad there are gradients of any order, computed by
    PyTorch's operators in float64.

    Raises:
        Error: the first argument that does not fit, by name: PyTorch tensors, too, that have no
            numbers (torch.compile, vmap, fake tensors), and out where a gradient is wanted.

    The GIL is released while computing. Since 0.1.
    """
    refuse_stand_ins(x, weight, instead="normalise by PyTorch's operators")
    norm = Norm(weight, epsilon, weight_offset)
    if wants_gradient(x, weight):
        from libattention._torch_rms_norm import normalised_with_gradient

        return normalised_with_gradient(x, norm, out, context)
    return normalised(x, norm, out, context)


def normalised(x: Any, norm: Norm, out: Any, context: Context | None) -> Any:
    """See rms_norm."""

    def make_params(views: Views) -> Any:
        params = new_params("attn_rms_norm_params")
        assign_given(params, "epsilon", norm.epsilon, "a number")
        assign(params, "weight_offset", norm.weight_offset, "weight_offset", "a number")
        if norm.weight is not None:
            params.weight = views.add_array(norm.weight, "weight")
        return params

    return compute_rows(lib.attn_rms_norm, x, make_params, out, context)
