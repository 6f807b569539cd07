# SPDX-License-Identifier: BSD-3-Clause
"""libattention.onnx: forms of ONNX Runtime's operators that no row of the guide has, beside its own
results (which run compares, within 1e-5), and what is refused."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from onnx import helper
from test_guides_onnx_runtime import E, H, K, L, N, normal, rotary_tables, run, three

from libattention import Error
from libattention.onnx import Backend, run_node

MASK = np.array([[1] * 6, [1, 1, 0, 1, 0, 0]], dtype=np.int32)


def test_packed_inputs():
    """Key and value in one tensor, or query too, which ONNX Runtime has on other devices only."""
    packed = normal(N, L, H, 3, E)
    query, key, value = (packed[:, :, :, part].reshape(N, L, -1) for part in range(3))
    (expected,) = run("MultiHeadAttention", {"num_heads": H}, query=query, key=key, value=value)
    forms = {"query": packed}, {"query": query, "key": packed[:, :, :, 1:]}
    for inputs in forms:
        (found,) = made("MultiHeadAttention", inputs, num_heads=H)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_keys_that_are_in_heads():
    query, key, value = normal(N, L, H * E), normal(N, H, 6, E), normal(N, H, 6, E)
    run("MultiHeadAttention", {"num_heads": H}, query=query, key=key, value=value)


@pytest.mark.parametrize("unidirectional", [0, 1])
def test_options_of_multi_head_attention_together(unidirectional):
    query, key, value = three()
    for has_past, has_bias, has_mask in itertools.product((False, True), repeat=3):
        total = L + (2 if has_past else 0)
        more = {"attention_bias": normal(N, H, L, total)} if has_bias else {}
        if has_past:
            more.update(past_key=normal(N, H, 2, E), past_value=normal(N, H, 2, E))
        if has_mask:
            more["key_padding_mask"] = np.ascontiguousarray(MASK[:, :total])
        attributes = {"num_heads": H, "unidirectional": unidirectional, "scale": 0.2}
        inputs = {"query": query, "key": key, "value": value, "bias": normal(3 * H * E)}
        run("MultiHeadAttention", attributes, 3 if has_past else 1, **inputs, **more)


def test_a_mask_of_rows_and_keys():
    query, key, value = three(6)
    mask = np.ascontiguousarray(np.broadcast_to(MASK[:, None], (N, L, 6)))
    run("MultiHeadAttention", {"num_heads": H}, query=query, key=key, value=value,
        key_padding_mask=mask)  # fmt: skip


def test_a_packed_query_in_groups():
    cos, sin = rotary_tables()
    for past, rows in ((0, L), (6, 1)):
        lengths = np.full(N, past + rows, dtype=np.int32)
        run(
            "GroupQueryAttention",
            {"num_heads": H, "kv_num_heads": K, "do_rotary": 1, "local_window_size": 3},
            3,
            query=normal(N, rows, (H + 2 * K) * E),
            past_key=normal(N, K, past, E),
            past_value=normal(N, K, past, E),
            seqlens_k=lengths - 1,
            total_sequence_length=np.array(past + rows, dtype=np.int32),
            cos_cache=cos,
            sin_cache=sin,
        )


def test_a_cache_with_room():
    """Its length is the room's, and sequences end where they do."""
    lengths = np.array([7, 5], dtype=np.int32)
    run(
        "GroupQueryAttention",
        {"num_heads": H, "kv_num_heads": K, "softcap": 3.0},
        3,
        query=normal(N, 1, H * E),
        key=normal(N, 1, K * E),
        value=normal(N, 1, K * E),
        past_key=normal(N, K, 12, E),
        past_value=normal(N, K, 12, E),
        seqlens_k=lengths - 1,
        total_sequence_length=np.array(7, dtype=np.int32),
    )


def test_a_graph_of_them():
    query, key, value = three()
    names = ("query", "key", "value")
    node = helper.make_node(
        "MultiHeadAttention", list(names), ["output"], domain="com.microsoft", num_heads=H
    )
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(name, 1, query.shape) for name in names],
        [helper.make_tensor_value_info("output", 1, query.shape)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    (found,) = Backend.run_model(model, [query, key, value])
    np.testing.assert_array_equal(found, run_node(node, [query, key, value])[0])


def test_positions_that_are_given():
    """A first prompt's rows stand behind the first of all positions, others where theirs say."""
    cos, sin = rotary_tables()
    prompt = [[2, 9, 9, 9], [5, 6, 7, 8]]
    forms = (0, prompt), (0, [[3], [1]]), (6, [[9], [2]]), (6, [[9, 3, 1]])
    for past, positions in forms:
        positions = np.array(positions)
        batch, rows = positions.shape
        lengths = np.full(batch, past + rows, dtype=np.int32)
        run(
            "GroupQueryAttention",
            {"num_heads": H, "kv_num_heads": K, "do_rotary": 1},
            3,
            query=normal(batch, rows, (H + 2 * K) * E),
            past_key=normal(batch, K, past, E),
            past_value=normal(batch, K, past, E),
            seqlens_k=lengths - 1,
            total_sequence_length=np.array(past + rows, dtype=np.int32),
            cos_cache=cos,
            sin_cache=sin,
            position_ids=positions,
        )


def test_projections_of_16_bits_are_rounded_once():
    """Of 2048 and many small terms nothing of the latter is left where sums have 16 bits."""
    tokens = np.full((1, 1, 513), 0.5, dtype="float16")
    weights = np.ones((513, 3), dtype="float16")
    weights[0] = 4096
    node = helper.make_node(
        "Attention", ["x", "w", "b"], ["Y"], domain="com.microsoft", num_heads=1
    )
    for dtype in ("float16", ml_dtypes.bfloat16):
        bias = np.full(3, -2048, dtype=dtype)
        (found,) = run_node(node, [tokens.astype(dtype), weights.astype(dtype), bias])
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.astype("float32"), 256)


# ---- what is refused ----


def made(operator, inputs, **attributes):
    node = helper.make_node(operator, list(inputs), ["Y"], domain="com.microsoft", **attributes)
    return run_node(node, {name: one for name, one in inputs.items() if name})


QKV = dict(zip(("query", "key", "value"), three()))


def multi_head(changes=None, num_heads=H, **attributes):
    inputs = {**QKV, **(changes or {})}
    names = ["query", "key", "value", "bias", "key_padding_mask", "", "past_key", "past_value"]
    node = helper.make_node(
        "MultiHeadAttention",
        [name if name in inputs else "" for name in names],
        ["Y"],
        domain="com.microsoft",
        num_heads=num_heads,
        **attributes,
    )
    return run_node(node, inputs)


def grouped(changes=None, **attributes):
    names = [
        "query", "key", "value", "past_key", "past_value", "seqlens_k", "total", "cos", "sin",
        "position_ids",
    ]  # fmt: skip
    inputs = {
        "query": normal(N, 1, H * E),
        "key": normal(N, 1, K * E),
        "value": normal(N, 1, K * E),
        "past_key": normal(N, K, 4, E),
        "past_value": normal(N, K, 4, E),
        "seqlens_k": np.array([4, 2], np.int32),
        "total": np.array(5, np.int32),
        **(changes or {}),
    }
    node = helper.make_node(
        "GroupQueryAttention",
        [name if inputs.get(name) is not None else "" for name in names],
        ["Y"],
        domain="com.microsoft",
        **{"num_heads": H, "kv_num_heads": K, **attributes},
    )
    return run_node(node, inputs)


def packed(changes=None, **attributes):
    inputs = {
        "input": normal(N, L, 24),
        "weights": normal(24, 3 * H * E),
        "bias": normal(3 * H * E),
        **(changes or {}),
    }
    names = ["input", "weights", "bias", "mask_index", "past"]
    return made(
        "Attention",
        {(name if name in inputs else ""): inputs.get(name) for name in names},
        **{"num_heads": H, **attributes},
    )


REFUSED = {
    "QMoE: expected an operator of attention": lambda: made("QMoE", {"x": normal(1)}),
    "MultiHeadAttention: attribute dropout is unknown": lambda: multi_head(dropout=0.5),
    "query: expected num_heads that divides its last axis, 64, got 5": lambda: multi_head(
        num_heads=5
    ),
    "key: expected 3 or 4 axes": lambda: multi_head({"key": normal(3, 4)}),
    "bias: expected shape (192)": lambda: multi_head({"bias": normal(4)}),
    "bias: expected none beside": lambda: multi_head(
        {"key": normal(N, H, L, E), "value": normal(N, H, L, E), "bias": normal(4)}
    ),
    "key_padding_mask: expected shape (2), (2, S)": lambda: multi_head(
        {"key_padding_mask": np.zeros(8, np.int32)}
    ),
    "past_value: expected a tensor beside past_key": lambda: multi_head(
        {"past_key": normal(N, H, 2, E)}
    ),
    "past_key: expected shape (2, 4, P, 16)": lambda: multi_head(
        {"past_key": normal(N, K, 2, E), "past_value": normal(N, H, 2, E)}
    ),
    "seqlens_k: expected a tensor, got none": lambda: grouped({"seqlens_k": None}),
    "seqlens_k: expected shape (2)": lambda: grouped({"seqlens_k": np.array([4], np.int32)}),
    "seqlens_k: expected 0 to 4, got [5, 2]": lambda: grouped(
        {"seqlens_k": np.array([5, 2], np.int32)}
    ),
    "num_heads, kv_num_heads: expected numbers above 0": lambda: grouped(kv_num_heads=0),
    "value: expected 3 axes": lambda: grouped({"value": None}),
    "past_key: expected shape (2, 2, P, 16)": lambda: grouped({"past_key": normal(N, H, 4, E)}),
    "past_value: expected float32, which the new rows have, got int8": lambda: grouped(
        {"past_value": np.ones((N, K, 4, E), "int8")}
    ),
    "past: expected float32, which the new rows have, got float16": lambda: packed(
        {"past": normal(2, N, H, 3, E).astype("float16")}
    ),
    "position_ids: expected shape (2, 1), got (1, 1)": lambda: grouped(
        {"position_ids": np.zeros((1, 1), "int64"), **dict(zip(("cos", "sin"), rotary_tables()))},
        do_rotary=1,
    ),
    "cos_cache, sin_cache: expected tensors with do_rotary": lambda: grouped(do_rotary=1),
    "weights: expected as many rows": lambda: packed({"weights": normal(23, 3 * H * E)}),
    "bias: expected shape (192), got (3,)": lambda: packed({"bias": normal(3)}),
    "qkv_hidden_sizes: expected three widths of 192": lambda: packed(qkv_hidden_sizes=[64, 64]),
    "past: expected shape (2, batch": lambda: packed({"past": normal(N, H, 3, E)}),
    "Attention: attribute do_rotary is unknown": lambda: packed(do_rotary=1),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text):
    with pytest.raises(Error) as found:
        REFUSED[text]()
    assert str(found.value).startswith(text)
