# SPDX-License-Identifier: BSD-3-Clause
"""ONNX's operators beside Attention: RotaryEmbedding, RMSNormalization and TensorScatter."""

from __future__ import annotations

import numpy as np

from libattention._onnx_nodes import Array, Node, empty_heads, refuse, rounded, split_heads
from libattention._rms_norm import rms_norm
from libattention._rope import rope

# What attn_rms_norm_params.epsilon says of none at all.
_NO_EPSILON = 1e-300


def rotary_embedding(node: Node) -> list[Array | None]:
    """Y."""
    x, heads = node.inputs["X"], node.attributes["num_heads"]
    if x.ndim not in (3, 4):
        refuse(f"X: expected 3 or 4 axes, got shape {x.shape}")
    is_split = x.ndim == 3
    rows = split_heads(x, heads, "X", "num_heads") if is_split else x
    whole, out = empty_heads(rows, rows.shape[-1], is_split)
    rope(
        rows,
        cos=node.inputs["cos_cache"],
        sin=node.inputs["sin_cache"],
        positions=node.input("position_ids"),
        rotary_dim=node.attributes["rotary_embedding_dim"] or None,
        interleaved=bool(node.attributes["interleaved"]),
        out=out,
        context=node.context,
    )
    return [whole]


def rms_normalization(node: Node) -> list[Array | None]:
    """Y, in the type of scale. Whatever stash_type is, sums are float64's, rounded once."""
    x, scale = node.inputs["X"], node.inputs["scale"]
    axis = node.attributes["axis"]
    if not -x.ndim <= axis < x.ndim:
        refuse(f"axis: expected one of {x.ndim}, got {axis}")
    if not x.size:
        return [x.astype(scale.dtype)]
    leading, normalised = x.shape[: axis % x.ndim], x.shape[axis % x.ndim :]
    dtype = scale.dtype
    if np.float64 in (x.dtype, dtype):
        x, scale = x.astype("float64", copy=False), scale.astype("float64", copy=False)
    if len(normalised) > 1:
        # One axis of what is normalised together.
        shape = x.shape if scale.ndim > len(normalised) else normalised
        try:
            scale = np.broadcast_to(scale, shape)
        except ValueError:
            refuse(f"scale: expected a shape that broadcasts to {shape}, got {scale.shape}")
        scale = scale.reshape(*scale.shape[: -len(normalised)], -1)
    rows = x.reshape(*leading, -1)
    wide = np.empty(rows.shape, "float64" if x.dtype == np.float64 else "float32")
    epsilon = node.attributes["epsilon"] or _NO_EPSILON
    rms_norm(rows, scale, epsilon, out=wide, context=node.context)
    return [rounded(wide, dtype).reshape(x.shape)]


def tensor_scatter(node: Node) -> list[Array | None]:
    """Present_cache: rows are copied, of any type; there is nothing to compute."""
    past, update = node.inputs["past_cache"], node.inputs["update"]
    axis, mode = node.attributes["axis"], node.attributes["mode"]
    if not -past.ndim <= axis < past.ndim or axis % past.ndim == 0:
        refuse(f"axis: expected one of {past.ndim} but the first, got {axis}")
    axis %= past.ndim
    room = past.shape[axis]
    if update.dtype != past.dtype:
        refuse(f"update: expected {past.dtype}, which past_cache has, got {update.dtype}")
    if update.ndim != past.ndim or update.shape[axis] > room:
        refuse(f"update: expected at most past_cache's {past.shape}, got {update.shape}")
    count = update.shape[axis]
    if update.shape != (*past.shape[:axis], count, *past.shape[axis + 1 :]):
        refuse(
            f"update: expected past_cache's {past.shape} but for axis {axis}, got {update.shape}"
        )
    first = node.input("write_indices")
    first = np.zeros(len(past), "int64") if first is None else first
    if first.shape != past.shape[:1]:
        refuse(f"write_indices: expected shape ({len(past)}), got {first.shape}")
    if mode not in ("linear", "circular"):
        refuse(f"mode: expected 'linear' or 'circular', got {mode!r}")
    if mode == "linear" and (first.min(initial=0) < 0 or first.max(initial=0) + count > room):
        refuse(f"write_indices: expected 0 to {room - count}, got {first.tolist()}")
    rows = first[:, None] + np.arange(count)
    present = past.copy()
    if count:
        batch = np.arange(len(past))[:, None]
        np.moveaxis(present, axis, 1)[batch, rows % room] = np.moveaxis(update, axis, 1)
    return [present]
