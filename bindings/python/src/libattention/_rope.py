# SPDX-License-Identifier: BSD-3-Clause
"""Rotary positions of queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

from libattention._by_rows import compute_rows, new_params
from libattention._context import Context
from libattention._dtypes import INTEGERS
from libattention._library import assign, assign_given, lib
from libattention._tensors import Views, integers, refuse_stand_ins, wants_gradient


class Rotation(NamedTuple):
    """Which way and how far rows are turned: the options of rope, called as in attn_rope_params."""

    positions: Any
    lengths: Any
    rotary_dim: int | None
    base: float | None
    frequencies: Any
    cos: Any
    sin: Any
    magnitude: float | None
    interleaved: bool
    inverse: bool


class RopeOptions(TypedDict, total=False):
    """The keyword arguments of rope that say which way and how far."""

    positions: Any
    lengths: Any
    rotary_dim: int | None
    base: float | None
    frequencies: Any
    cos: Any
    sin: Any
    magnitude: float | None
    interleaved: bool
    inverse: bool


_DEFAULT = Rotation(None, None, None, None, None, None, None, None, False, False)


def rotation_of(options: Mapping[str, Any]) -> Rotation:
    """The rotation that rope's keyword arguments ask for."""
    unknown = set(options) - set(Rotation._fields)
    if unknown:
        raise TypeError(f"rope has no option {min(unknown)!r}")
    return _DEFAULT._replace(**options)


_NUMBERS = (("rotary_dim", "an integer"), ("base", "a number"), ("magnitude", "a number"))


def rope(
    x: Any,
    *,
    positions: Any = None,
    lengths: Any = None,
    rotary_dim: int | None = None,
    base: float | None = None,
    frequencies: Any = None,
    cos: Any = None,
    sin: Any = None,
    magnitude: float | None = None,
    interleaved: bool = False,
    inverse: bool = False,
    out: Any = None,
    context: Context | None = None,
) -> Any:
    """Rotates features by the positions of their rows (RoPE).

    With a = position * frequency[i], each pair (x, y) becomes
    magnitude * (x cos a - y sin a, y cos a + x sin a): after that the product of a query and a key
    depends on their distance alone.

    Args:
        x: (batch axes, H, L, E), ranks 2 to 8, without heads in rank 2; float32, float64, bfloat16
            or float16. All heads have the same positions
        positions: int64 or int32, broadcastable to (batch axes, L): the rows' positions; None: 0,
            1, ..., or the last ones of lengths
        lengths: int64 or int32, broadcastable to the batch axes, in the place of positions: rows of
            each sequence, of which those of x are the last
        rotary_dim: R, even: the first R features are rotated, the others copied; None: all E
        base: pair i turns by base^(-2 i / R) for each position; None: 10000
        frequencies: (R / 2), any float dtype, in the place of base: the turn of each pair, which
            transformers calls inv_freq. Every way to stretch positions is such a table
        cos: cosines of the angles, with sin, in the place of base and frequencies. With positions
            or lengths (P, R / 2), of which position p finds row p; without them broadcastable to
            (batch axes, L, R / 2). float64 beside float64, else float32, bfloat16 or float16.
            Those of transformers have each column twice: pass cos[..., : R // 2]
        sin: the sines, likewise
        magnitude: what cosines and sines are multiplied by, YaRN's attention factor; None: 1
        interleaved: pairs are features (2 i, 2 i + 1), GPT-J's; else (i, i + R / 2), Llama's
        inverse: by the negative angle, which undoes a rotation of magnitude 1
        out: where to put the result, of x's shape, and of x's dtype or that of scores, float32
            beside 16 bits. It may be x itself, but else must not overlap an input
        context: threads and kernels; None: as in scaled_dot_product_attention

    Returns:
        The result, of the kind, dtype and shape of x. Angles are float64's.

    Of a PyTorch tensor x that requires grad the gradient is that of the rotation, by the inverse
    one; positions and tables must then not be changed before it is computed.

    Raises:
        Error: the first argument that does not fit, by name: PyTorch tensors, too, that have no
            numbers (torch.compile, vmap, fake tensors), and tables that require grad.

    The GIL is released while computing. Since 0.1.
    """
    rotation = Rotation(
        positions,
        lengths,
        rotary_dim,
        base,
        frequencies,
        cos,
        sin,
        magnitude,
        interleaved,
        inverse,
    )
    refuse_stand_ins(x, *rotation, instead="rotate by PyTorch's operators")
    if wants_gradient(x):
        from libattention._torch_rope import rotated_with_gradient

        return rotated_with_gradient(x, rotation, out, context)
    return rotated(x, rotation, out, context)


def rotated(x: Any, rotation: Rotation, out: Any, context: Context | None) -> Any:
    """See rope."""
    return compute_rows(lib.attn_rope, x, lambda views: rope_params(rotation, views), out, context)


def rope_params(rotation: Rotation, views: Views) -> Any:
    """The options as an attn_rope_params."""
    params = new_params("attn_rope_params")
    for name, expected in _NUMBERS:
        assign_given(params, name, getattr(rotation, name), expected)
    for name in ("interleaved", "inverse"):
        assign(params, name, getattr(rotation, name), name, "True or False")
    for name in ("positions", "lengths"):
        values = getattr(rotation, name)
        if values is not None:
            setattr(params, name, views.add_array(integers(values, name), name, INTEGERS))
    for name in ("frequencies", "cos", "sin"):
        values = getattr(rotation, name)
        if values is not None:
            setattr(params, name, views.add_array(values, name))
    return params
