# SPDX-License-Identifier: BSD-3-Clause
"""ONNX Runtime's operators of the domain com.microsoft: MultiHeadAttention, GroupQueryAttention and
Attention. No package tells what they may have, so that this module does."""

from __future__ import annotations

from typing import Any

import numpy as np

from libattention._attention import scaled_dot_product_attention
from libattention._onnx_nodes import (
    Array,
    Node,
    Signature,
    check_past,
    empty_heads,
    joined,
    refuse,
    rounded,
    split_heads,
)
from libattention._rope import rope

MULTI_HEAD = Signature(
    {
        "query": True,
        "key": False,
        "value": False,
        "bias": False,
        "key_padding_mask": False,
        "attention_bias": False,
        "past_key": False,
        "past_value": False,
    },
    {"num_heads": None, "scale": None, "unidirectional": 0, "mask_filter_value": None},
    3,
    1,
)
GROUPED = Signature(
    {
        "query": True,
        "key": False,
        "value": False,
        "past_key": False,
        "past_value": False,
        "seqlens_k": True,
        "total_sequence_length": True,
        "cos_cache": False,
        "sin_cache": False,
        "position_ids": False,
        "attention_bias": False,
        "head_sink": False,
    },
    {
        "num_heads": None,
        "kv_num_heads": None,
        "scale": None,
        "softcap": 0.0,
        "local_window_size": -1,
        "do_rotary": 0,
        "rotary_interleaved": 0,
        "smooth_softmax": 0,
    },
    3,
    1,
)
PACKED = Signature(
    {
        "input": True,
        "weights": True,
        "bias": False,
        "mask_index": False,
        "past": False,
        "attention_bias": False,
    },
    {
        "num_heads": None,
        "scale": None,
        "unidirectional": 0,
        "qkv_hidden_sizes": None,
        "mask_filter_value": None,
    },
    2,
    1,
)


def _attend(node: Node, query: Array, key: Array, value: Array, **options: Any) -> Array:
    """Of heads, as (batch, length, heads * size). A scale of 0 is none given."""
    whole, out = empty_heads(query, value.shape[-1], is_split=True)
    scaled_dot_product_attention(
        query,
        key,
        value,
        scale=node.attributes["scale"] or None,
        out=out,
        context=node.context,
        **options,
    )
    return whole


def _padding(node: Node, name: str, batch: int) -> dict[str, Any]:
    """Options for one of the forms of a mask: the sequences' lengths, or integers of which 1 takes
    part, of keys, or of rows and keys."""
    mask = node.input(name)
    if mask is None:
        return {}
    if mask.ndim == 1 and len(mask) == batch:
        return {"key_lengths": mask}
    if mask.ndim not in (2, 3):
        refuse(
            f"{name}: expected shape ({batch}), ({batch}, S) or ({batch}, L, S), got {mask.shape}"
        )
    seen = mask.astype(bool)
    return {"attn_mask": seen[:, None, None] if mask.ndim == 2 else seen[:, None]}


# ---- MultiHeadAttention ----


def multi_head_attention(node: Node) -> list[Array | None]:
    """Output, present_key and present_value."""
    query, key, value = _multi_head_inputs(node)
    options = _padding(node, "key_padding_mask", len(query))
    if node.input("past_key") is not None:
        if node.input("past_value") is None:
            refuse("past_value: expected a tensor beside past_key")
        key = joined(node.inputs["past_key"], key, "past_key")
        value = joined(node.inputs["past_value"], value, "past_value")
        options["query_offset"] = node.inputs["past_key"].shape[2]
    options["bias"] = node.input("attention_bias")
    options["is_causal"] = bool(node.attributes["unidirectional"])
    return [
        _attend(node, query, key, value, **options),
        key.copy() if node.wants(1) else None,
        value.copy() if node.wants(2) else None,
    ]


def _multi_head_inputs(node: Node) -> list[Array]:
    """Query, key and value as (batch, heads, length, size), their biases added."""
    heads = node.attributes["num_heads"]
    given = [node.input(name) for name in ("query", "key", "value")]
    packed = [one for one in given if one is not None and one.ndim == 5]
    if packed:
        # (batch, length, heads, 2 or 3, size): key and value, or query too.
        parts = [given[0], *np.moveaxis(packed[0], 3, 0)]
        given = [one.reshape(*one.shape[:2], -1) for one in parts[-3:]]
    found: list[Array] = []
    for name, one in zip(("query", "key", "value"), given):
        if one is None or one.ndim not in (3, 4):
            refuse(f"{name}: expected 3 or 4 axes, or packed 5 before it")
        found.append(one)
    bias = node.input("bias")
    if bias is not None:
        found = _with_bias(found, bias)
    return [
        one if one.ndim == 4 else split_heads(one, heads, name, "num_heads")
        for name, one in zip(("query", "key", "value"), found)
    ]


def _with_bias(given: list[Array], bias: Array) -> list[Array]:
    """Of all projections, one behind the other."""
    if any(one.ndim == 4 for one in given):
        refuse("bias: expected none beside a key that is already in heads")
    widths = [one.shape[-1] for one in given]
    if bias.shape != (sum(widths),):
        refuse(f"bias: expected shape ({sum(widths)}), got {bias.shape}")
    return [one + part for one, part in zip(given, np.split(bias, np.cumsum(widths)[:-1]))]


# ---- GroupQueryAttention ----


def group_query_attention(node: Node) -> list[Array | None]:
    """Output, present_key and present_value."""
    query, key, value = _grouped_inputs(node)
    batch, _, rows, _ = query.shape
    lengths = node.inputs["seqlens_k"].reshape(-1).astype("int64") + 1
    total = int(node.inputs["total_sequence_length"].reshape(()))
    if lengths.shape != (batch,):
        refuse(f"seqlens_k: expected shape ({batch}), got {node.inputs['seqlens_k'].shape}")
    # A first prompt is padded behind its rows, which stand from 0 on; others end at their lengths.
    first = np.zeros(batch, "int64") if rows == total else lengths - rows
    if node.attributes["do_rotary"]:
        query, key = _rotated(node, query, key, _positions(node, first, rows, total))
    present = [
        _stored(node, name, new, first, total)
        for name, new in (("past_key", key), ("past_value", value))
    ]
    width = node.attributes["local_window_size"]
    sinks = node.input("head_sink")
    if sinks is None and node.attributes["smooth_softmax"] > 0:
        sinks = np.zeros(query.shape[1], query.dtype)
    bias = node.input("attention_bias")
    missing = 0 if bias is None else present[0].shape[2] - bias.shape[-1]
    if bias is not None and missing > 0:  # of what no sequence has
        bias = np.concatenate([bias, np.zeros((*bias.shape[:-1], missing), bias.dtype)], axis=-1)
    output = _attend(
        node,
        query,
        *present,
        is_causal=True,
        enable_gqa=True,
        key_lengths=lengths,
        query_offset=first,
        window=(width - 1, 0) if width > 0 else (-1, -1),
        softcap=node.attributes["softcap"],
        bias=bias,
        sinks=sinks,
    )
    return [output, *present]


def _grouped_inputs(node: Node) -> list[Array]:
    """Query, key and value as (batch, heads, length, size)."""
    counts = [node.attributes[name] for name in ("num_heads", "kv_num_heads", "kv_num_heads")]
    if not all(counts):
        refuse("num_heads, kv_num_heads: expected numbers above 0")
    names = ("query", "key", "value")
    given = [node.input(name) for name in names]
    if given[1] is None and given[2] is None:
        heads = split_heads(given[0], sum(counts), "query", "num_heads + 2 * kv_num_heads")
        return np.split(heads, np.cumsum(counts)[:-1], axis=1)
    found = []
    for name, one, count in zip(names, given, counts):
        if one is None or one.ndim != 3:
            refuse(f"{name}: expected 3 axes, or query with key and value in it")
        found.append(split_heads(one, count, name, "num_heads or kv_num_heads"))
    return found


def _positions(node: Node, first: Array, rows: int, total: int) -> Array:
    """By which rows are rotated: position_ids, of which a first prompt has but the first one."""
    given = node.input("position_ids")
    if given is not None and given.shape != (len(first), rows):
        refuse(f"position_ids: expected shape ({len(first)}, {rows}), got {given.shape}")
    if given is not None and rows != total:
        return given
    begin = first[:, None] if given is None else given[:1, :1]
    return begin + np.arange(rows)


def _rotated(node: Node, query: Array, key: Array, positions: Array) -> tuple[Array, Array]:
    """Both, by tables of half as many columns as are rotated."""
    cos, sin = node.input("cos_cache"), node.input("sin_cache")
    if cos is None or sin is None:
        refuse("cos_cache, sin_cache: expected tensors with do_rotary")
    options: dict[str, Any] = {
        "cos": cos,
        "sin": sin,
        "positions": positions,
        "rotary_dim": 2 * cos.shape[-1],
        "interleaved": bool(node.attributes["rotary_interleaved"]),
        "context": node.context,
    }
    return rope(query, **options), rope(key, **options)


def _stored(node: Node, name: str, new: Array, first: Array, total: int) -> Array:
    """The cache with new rows at their places, in the room that it has, or in as much as needed."""
    past = node.input(name)
    batch, heads, rows, size = new.shape
    if past is None:
        past = np.zeros((batch, heads, 0, size), new.dtype)
    check_past(past, new, name)
    room = max(total, past.shape[2])
    present = np.zeros((batch, heads, room, size), new.dtype)
    present[:, :, : past.shape[2]] = past
    if (first < 0).any() or (first + rows > room).any():
        refuse(f"seqlens_k: expected {rows - 1} to {room - 1}, got {(first + rows - 1).tolist()}")
    for sequence, begin in enumerate(first):
        present[sequence, :, begin : begin + rows] = new[sequence]
    return present


# ---- Attention ----


def packed_attention(node: Node) -> list[Array | None]:
    """Output and present."""
    query, key, value = _projected(node)
    options = _padding(node, "mask_index", len(query))
    past = node.input("past")
    if past is not None:
        if past.ndim != 5 or len(past) != 2:
            refuse(f"past: expected shape (2, batch, heads, P, size), got {past.shape}")
        key, value = (joined(*pair, "past") for pair in zip(past, (key, value)))
        options["query_offset"] = past.shape[3]
    options["bias"] = node.input("attention_bias")
    options["is_causal"] = bool(node.attributes["unidirectional"])
    present = np.stack([key, value]) if node.wants(1) else None
    return [_attend(node, query, key, value, **options), present]


def _projected(node: Node) -> list[Array]:
    """The heads of input @ weights + bias."""
    tokens, weights, bias = node.inputs["input"], node.inputs["weights"], node.input("bias")
    if tokens.ndim != 3 or weights.ndim != 2 or len(weights) != tokens.shape[-1]:
        refuse(f"weights: expected as many rows as input has columns, got {weights.shape}")
    dtype = tokens.dtype
    if dtype.itemsize < 4:  # each product is of so many terms that their sum is not to be rounded
        tokens, weights = tokens.astype("float32"), weights.astype("float32")
    product = tokens @ weights
    if bias is not None:
        if bias.shape != weights.shape[1:]:
            refuse(f"bias: expected shape ({weights.shape[1]}), got {bias.shape}")
        product = product + bias.astype(product.dtype, copy=False)
    product = rounded(product, dtype)
    widths = node.attributes["qkv_hidden_sizes"] or [weights.shape[1] // 3] * 3
    if len(widths) != 3 or sum(widths) != weights.shape[1]:
        refuse(f"qkv_hidden_sizes: expected three widths of {weights.shape[1]}, got {widths}")
    heads = node.attributes["num_heads"]
    parts = np.split(product, np.cumsum(widths)[:-1], axis=-1)
    return [split_heads(one, heads, "weights", "num_heads") for one in parts]
