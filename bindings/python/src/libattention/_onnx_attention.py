# SPDX-License-Identifier: BSD-3-Clause
"""ONNX's operator Attention (opset 23 to 25) by scaled_dot_product_attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from libattention._attention import scaled_dot_product_attention
from libattention._onnx_nodes import (
    Array,
    Node,
    empty_heads,
    joined,
    refuse,
    rounded,
    split_heads,
)
from libattention._options import ScoreStage

# TensorProto's numbers of the types that softmax_precision may be.
_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16 = 1, 10, 11, 16
# By qk_matmul_output_mode.
_STAGES: tuple[ScoreStage, ...] = ("scaled", "capped", "masked")
_AFTER_SOFTMAX = 3
# Outputs.
_PRESENT_KEY, _PRESENT_VALUE, _SCORES = 1, 2, 3


def attention(node: Node) -> list[Array | None]:
    """Y, present_key, present_value and qk_matmul_output; None where one is not wanted."""
    query, key, value = _heads(node)
    if node.input("past_key") is not None:
        key, value = _behind_past(node, key, value)
    options = {
        "scale": node.attributes["scale"],
        "softcap": node.attributes["softcap"],
        "is_causal": bool(node.attributes["is_causal"]),
        "enable_gqa": True,
        "window": _window(node),
        "attn_mask": _mask(node, key.shape[2]),
        **_places(node, query.shape[2]),
    }
    output, scores = _attend(node, (query, key, value), options)
    return [
        output,
        key.copy() if node.wants(_PRESENT_KEY) else None,
        value.copy() if node.wants(_PRESENT_VALUE) else None,
        scores,
    ]


def _heads(node: Node) -> tuple[Array, Array, Array]:
    """Q, K and V as (batch, heads, length, size)."""
    query, key, value = (node.inputs[name] for name in "QKV")
    ranks = {one.ndim for one in (query, key, value)}
    if ranks not in ({3}, {4}):
        refuse("Q, K, V: expected 3 axes each, or 4 each")
    counts = [node.attributes[f"{which}_num_heads"] for which in ("q", "kv", "kv")]
    if ranks == {4}:
        for name, count in zip("QKV", counts):
            if count is not None and count != node.inputs[name].shape[1]:
                refuse(f"{name}: expected {count} heads, got shape {node.inputs[name].shape}")
        return query, key, value
    names = ("q_num_heads", "kv_num_heads", "kv_num_heads")
    query, key, value = (
        split_heads(node.inputs[name], count, name, attribute)
        for name, count, attribute in zip("QKV", counts, names)
    )
    return query, key, value


def _behind_past(node: Node, key: Array, value: Array) -> tuple[Array, Array]:
    """What the cache has and, behind it, the new rows."""
    if node.input("past_value") is None:
        refuse("past_value: expected a tensor beside past_key")
    if node.input("nonpad_kv_seqlen") is not None:
        refuse("nonpad_kv_seqlen: expected none beside past_key")
    return (
        joined(node.inputs["past_key"], key, "past_key"),
        joined(node.inputs["past_value"], value, "past_value"),
    )


def _window(node: Node) -> tuple[int, int]:
    """Opset 25 has windows."""
    left, right = (node.attributes.get(f"{side}_window_size", -1) for side in ("left", "right"))
    return left, right


def _places(node: Node, rows: int) -> dict[str, Any]:
    """Where rows stand among the keys, and how many of these there are."""
    if node.input("past_key") is not None:
        return {"query_offset": node.inputs["past_key"].shape[2]}
    if node.input("past_value") is not None:
        refuse("past_key: expected a tensor beside past_value")
    lengths = node.input("nonpad_kv_seqlen")
    if lengths is None:
        return {}
    return {"key_lengths": lengths, "query_offset": lengths - rows}


def _mask(node: Node, num_keys: int) -> Array | None:
    """One that is shorter than the keys hides those behind it, since opset 24."""
    mask = node.input("attn_mask")
    if mask is None:
        return None
    missing = num_keys - mask.shape[-1] if mask.ndim and node.opset >= 24 else 0
    if missing <= 0:
        return mask
    if mask.dtype.kind in "iu":
        mask = mask.astype("float64")
    hidden = False if mask.dtype == bool else -np.inf
    behind = np.full((*mask.shape[:-1], missing), hidden, mask.dtype)
    return np.concatenate([mask, behind], axis=-1)


def _is_double(node: Node, tensors: tuple[Array, ...]) -> bool:
    """Whether to compute in float64. Else it is in float32, which is no less than asked for."""
    precision = node.attributes["softmax_precision"]
    if precision not in (None, _FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16):
        refuse(f"softmax_precision: expected a floating-point type's number, got {precision}")
    return precision == _DOUBLE or any(one.dtype == np.float64 for one in tensors)


def _attend(
    node: Node, tensors: tuple[Array, Array, Array], options: dict[str, Any]
) -> tuple[Array, Array | None]:
    """Y and, where it is wanted, qk_matmul_output, in the type of Q."""
    dtype = tensors[0].dtype
    if _is_double(node, tensors):
        tensors = tuple(one.astype("float64", copy=False) for one in tensors)
    query, key, value = tensors
    mask = _beside(query, options["attn_mask"])
    options = {**options, "attn_mask": mask, "context": node.context}
    whole, out = empty_heads(query, value.shape[-1], node.inputs["Q"].ndim == 3)
    mode = node.attributes["qk_matmul_output_mode"] if node.wants(_SCORES) else None
    if mode not in (None, *range(len(_STAGES)), _AFTER_SOFTMAX):
        refuse(f"qk_matmul_output_mode: expected 0 to 3, got {mode}")
    results: dict[str, Any] = {}
    if mode == _AFTER_SOFTMAX:
        results = {"return_weights": True}
    elif mode is not None:
        results = {"return_scores": _STAGES[mode]}
    found = scaled_dot_product_attention(query, key, value, out=out, **results, **options)
    scores = found[1] if results else None
    # ONNX multiplies keys past their sequence's length like others.
    if mode in (0, 1) and "key_lengths" in options:
        scores = _scores_of_all(query, key, _STAGES[mode], options)
    return rounded(whole, dtype), None if scores is None else rounded(scores, dtype)


def _beside(query: Array, mask: Array | None) -> Array | None:
    """The mask in a type that goes with the query's: integers are added, too."""
    if mask is None or mask.dtype in (bool, query.dtype):
        return mask
    return mask.astype("float64" if query.dtype == np.float64 else "float32", copy=False)


def _scores_of_all(query: Array, key: Array, stage: ScoreStage, options: dict[str, Any]) -> Array:
    """Without lengths, and without values to weigh."""
    nothing = key[..., :0]
    shared: dict[str, Any] = {
        name: options[name] for name in ("scale", "softcap", "enable_gqa", "context")
    }
    return scaled_dot_product_attention(query, key, nothing, return_scores=stage, **shared)[1]
