# SPDX-License-Identifier: BSD-3-Clause
"""The guide's tables of ONNX Runtime's operators: each row is a call of the operator, and the same
computed as the row says, and by libattention.onnx as the node stands."""

import itertools

import guide_tables
import numpy as np
import onnxruntime
import pytest
from guide_tables import merged, split, viewed
from onnx import TensorProto, helper

from libattention import rope, scaled_dot_product_attention
from libattention.onnx import run_node

TABLES = {
    heading: rows
    for (heading, _), rows in guide_tables.tables("coming-from-onnx.md").items()
    if heading.startswith("com.microsoft.")
}
ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
INPUTS = {
    "Attention": (
        "input",
        "weights",
        "bias",
        "mask_index",
        "past",
        "attention_bias",
    ),
    "MultiHeadAttention": (
        "query",
        "key",
        "value",
        "bias",
        "key_padding_mask",
        "attention_bias",
        "past_key",
        "past_value",
    ),
    "GroupQueryAttention": (
        "query",
        "key",
        "value",
        "past_key",
        "past_value",
        "seqlens_k",
        "total_sequence_length",
        "cos_cache",
        "sin_cache",
        "position_ids",
        "attention_bias",
        "head_sink",
    ),
}
N, L, H, E = 2, 4, 4, 16
random = np.random.default_rng(3)


def normal(*shape):
    return random.normal(size=shape).astype("float32")


def run(operator, attributes, num_outputs=1, **inputs):
    """What ONNX Runtime computes: the operator's outputs."""
    names = [name if name in inputs else "" for name in INPUTS[operator]]
    while not names[-1]:
        names.pop()
    outputs = [f"output{index}" for index in range(num_outputs)]
    node = helper.make_node(operator, names, outputs, domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node],
        "graph",
        [
            helper.make_tensor_value_info(name, ELEMENT_TYPES[one.dtype.name], one.shape)
            for name, one in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, inputs)
    compare_node(node, inputs, expected)
    return expected


def compare_node(node, inputs, expected):
    """What libattention.onnx makes of the node: the same within 1e-5, but in rows of padding."""
    for one, other in zip(run_node(node, inputs), expected):
        assert one.shape == other.shape
        pair = one.copy(), other.copy()
        for array in pair if "seqlens_k" in inputs else ():
            for sequence, last in enumerate(inputs["seqlens_k"]):
                array[sequence, ..., last + 1 :, :] = 0
        np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-5)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def differs(found, expected):
    assert np.abs(found - expected).max() > 1e-3


# ---- MultiHeadAttention ----


def three(num_keys=L):
    """Projected query, key and value, (N, L, H * E)."""
    return normal(N, L, H * E), normal(N, num_keys, H * E), normal(N, num_keys, H * E)


def compare_multi_head(inputs, attributes=None, **options):
    """The operator beside a call with these options, and whether the call needs them."""
    query, key, value = three(6)
    attributes = {"num_heads": H, **(attributes or {})}
    (expected,) = run("MultiHeadAttention", attributes, query=query, key=key, value=value, **inputs)
    heads = [split(one, H) for one in (query, key, value)]
    close(merged(scaled_dot_product_attention(*heads, **options)), expected)
    if options:
        differs(merged(scaled_dot_product_attention(*heads)), expected)


def mha_heads():
    compare_multi_head({})


def mha_bias():
    query, key, value = three()
    bias = normal(3 * H * E)
    (expected,) = run(
        "MultiHeadAttention", {"num_heads": H}, query=query, key=key, value=value, bias=bias
    )
    parts = bias.reshape(3, H * E)
    heads = [split(one + part, H) for one, part in zip((query, key, value), parts)]
    close(merged(scaled_dot_product_attention(*heads)), expected)


def mha_packed():
    query, key, value = three()
    (expected,) = run("MultiHeadAttention", {"num_heads": H}, query=query, key=key, value=value)
    packed = np.stack([one.reshape(N, L, H, E) for one in (query, key, value)], axis=3)
    heads = [viewed(packed, ("select", -2, index), ("transpose", 1, 2)) for index in range(3)]
    assert all(one.base is packed for one in heads)
    close(merged(scaled_dot_product_attention(*heads)), expected)


def mha_lengths():
    lengths = np.array([6, 4], dtype=np.int32)
    compare_multi_head({"key_padding_mask": lengths}, key_lengths=lengths)


def mha_padding():
    mask = np.array([[1] * 6, [1, 1, 0, 1, 0, 0]], dtype=np.int32)
    seen = mask.astype(bool)[:, None, None]
    compare_multi_head({"key_padding_mask": mask}, attn_mask=seen)


def mha_attention_bias():
    mask = np.array([[1] * 6, [1, 1, 0, 1, 0, 0]], dtype=np.int32)
    bias = normal(1, H, L, 6)
    compare_multi_head(
        {"key_padding_mask": mask, "attention_bias": bias},
        attn_mask=mask.astype(bool)[:, None, None],
        bias=bias,
    )


def mha_unidirectional():
    query, key, value = three()
    attributes = {"num_heads": H, "unidirectional": 1}
    (expected,) = run("MultiHeadAttention", attributes, query=query, key=key, value=value)
    heads = [split(one, H) for one in (query, key, value)]
    close(merged(scaled_dot_product_attention(*heads, is_causal=True)), expected)
    differs(merged(scaled_dot_product_attention(*heads)), expected)


def mha_past():
    query, key, value = three()
    past = normal(N, H, 5, E), normal(N, H, 5, E)
    attributes = {"num_heads": H, "unidirectional": 1}
    inputs = {"query": query, "key": key, "value": value}
    lengths = np.array([8, 6], dtype=np.int32)
    inputs.update(key_padding_mask=lengths, past_key=past[0], past_value=past[1])
    expected, *present = run("MultiHeadAttention", attributes, 3, **inputs)
    heads = [split(one, H) for one in (query, key, value)]
    cache = [np.concatenate(pair, axis=2) for pair in zip(past, heads[1:])]
    for one, other in zip(cache, present):
        np.testing.assert_array_equal(one, other)
    options = {"is_causal": True, "key_lengths": lengths}
    close(
        merged(scaled_dot_product_attention(heads[0], *cache, query_offset=5, **options)), expected
    )
    differs(merged(scaled_dot_product_attention(heads[0], *cache, **options)), expected)


def mha_scale():
    compare_multi_head({}, {"scale": 0.3}, scale=0.3)


def mha_filter_value():
    mask = np.array([[1] * 6, [1, 1, 0, 1, 0, 0]], dtype=np.int32)
    seen = mask.astype(bool)[:, None, None]
    attributes = {"mask_filter_value": -1e30}
    compare_multi_head({"key_padding_mask": mask}, attributes, attn_mask=seen)


MULTI_HEAD = {
    "`num_heads`": ("attn_tensor_split_heads", mha_heads),
    "`bias` of the packed projections": ("", mha_bias),
    "packed `query` (batch, length, heads, 3, size)": (
        "attn_tensor_select attn_tensor_transpose",
        mha_packed,
    ),
    "`key_padding_mask` (batch), the lengths, int32": ("key_lengths", mha_lengths),
    "`key_padding_mask` (batch, keys), int32, 1 takes part": (
        "ATTN_MASK_BOOL_INCLUDE",
        mha_padding,
    ),
    "`attention_bias`": ("bias", mha_attention_bias),
    "`unidirectional`": ("is_causal", mha_unidirectional),
    "`past_key`, `past_value`, and outputs `present_*`": ("query_offset key_lengths", mha_past),
    "`scale`": ("scale", mha_scale),
    "`mask_filter_value`, a large negative number": ("", mha_filter_value),
}


# ---- GroupQueryAttention ----

K = 2


def compare_grouped(rows, past, lengths, attributes=None, inputs=None, **options):
    """The operator beside a call with these options; `lengths` are whole, with the rows'."""
    lengths = np.array(lengths, dtype=np.int32)
    batch = len(lengths)
    given = {
        "query": normal(batch, rows, H * E),
        "key": normal(batch, rows, K * E),
        "value": normal(batch, rows, K * E),
        "past_key": normal(batch, K, past, E),
        "past_value": normal(batch, K, past, E),
        "seqlens_k": lengths - 1,
        "total_sequence_length": np.array(lengths.max(), dtype=np.int32),
        **(inputs or {}),
    }
    attributes = {"num_heads": H, "kv_num_heads": K, **(attributes or {})}
    expected, *present = run("GroupQueryAttention", attributes, 3, **given)
    query = split(given["query"], H)
    options = {"is_causal": True, "enable_gqa": True, "key_lengths": lengths, **options}

    def call(**changes):
        return merged(scaled_dot_product_attention(query, *present, **{**options, **changes}))

    valid = np.ones((batch, rows), bool)
    if not past:  # rows of a prompt's padding may hold anything
        valid = np.arange(rows) < lengths[:, None]
    close(call()[valid], expected[valid])
    return lambda **changes: np.abs(call(**changes) - expected)[valid].max() > 1e-3


DECODED = {"rows": 1, "past": 9, "lengths": [10, 7], "align_end": True}


def gqa_heads():
    compare_grouped(**DECODED)
    # Heads in groups, not one after the other.
    query, cache = normal(1, H, 1, E), normal(2, 1, K, 3, E)
    grouped = scaled_dot_product_attention(query, *cache, enable_gqa=True)
    repeated = [np.repeat(one, H // K, axis=1) for one in cache]
    close(grouped, scaled_dot_product_attention(query, *repeated))


def gqa_causal():
    needs = compare_grouped(3, 6, [9], align_end=True)  # such chunks it takes one at a time
    assert needs(is_causal=False)


def gqa_lengths():
    needs = compare_grouped(**DECODED)
    assert needs(key_lengths=None)
    needs = compare_grouped(3, 6, [9], align_end=True)
    assert needs(align_end=False)
    needs = compare_grouped(5, 0, [5, 3])  # the first prompt, padded at the right
    assert needs(align_end=True)


def gqa_window():
    needs = compare_grouped(**DECODED, attributes={"local_window_size": 3}, window=(2, 0))
    assert needs(window=(3, 0))
    compare_grouped(5, 0, [5, 3], attributes={"local_window_size": 2}, window=(1, 0))


def gqa_bias():
    bias = normal(1, H, 1, 10)
    needs = compare_grouped(**DECODED, inputs={"attention_bias": bias}, bias=bias)
    assert needs(bias=None)


def gqa_softcap_and_scale():
    attributes = {"softcap": 2.0, "scale": 0.7}
    needs = compare_grouped(**DECODED, attributes=attributes, **attributes)
    assert needs(softcap=0.0)
    assert needs(scale=None)


def gqa_sink():
    sinks = normal(H)
    needs = compare_grouped(**DECODED, inputs={"head_sink": sinks}, sinks=sinks)
    assert needs(sinks=None)


def gqa_smooth():
    zeros = np.zeros(H, "float32")
    needs = compare_grouped(**DECODED, attributes={"smooth_softmax": 1}, sinks=zeros)
    assert needs(sinks=None)


def rotary_tables():
    angles = np.outer(np.arange(16), 0.3 ** np.arange(E // 2))
    return np.cos(angles).astype("float32"), np.sin(angles).astype("float32")


def gqa_rotary():
    """A prompt, whose rows stand at 0, 1, ..., and decoded rows behind a past."""
    cos, sin = rotary_tables()
    for (past, rows), interleaved in itertools.product(((0, L), (6, 1)), (0, 1)):
        given = [normal(N, rows, heads * E) for heads in (H, K, K)]
        lengths = np.full(N, past + rows, dtype=np.int32)
        expected, *present = run(
            "GroupQueryAttention",
            {"num_heads": H, "kv_num_heads": K, "do_rotary": 1, "rotary_interleaved": interleaved},
            3,
            **dict(zip(("query", "key", "value"), given)),
            past_key=normal(N, K, past, E),
            past_value=normal(N, K, past, E),
            seqlens_k=lengths - 1,
            total_sequence_length=np.array(past + rows, dtype=np.int32),
            cos_cache=cos,
            sin_cache=sin,
        )
        query, key, _ = (split(one, heads) for one, heads in zip(given, (H, K, K)))
        options = {"cos": cos, "sin": sin, "lengths": lengths, "interleaved": bool(interleaved)}
        close(present[0][:, :, past:], rope(key, **options))
        found = scaled_dot_product_attention(
            rope(query, **options), *present, is_causal=True, align_end=True, enable_gqa=True
        )
        close(merged(found), expected)
        options["lengths"] = lengths + 1
        differs(rope(key, **options), present[0][:, :, past:])


GROUPED = {
    "`num_heads`, `kv_num_heads`": ("enable_gqa", gqa_heads),
    "causal always": ("is_causal", gqa_causal),
    "`seqlens_k`, one less than the length, int32": (
        "key_lengths align_end total_sequence_length",
        gqa_lengths,
    ),
    "`local_window_size` n": ("set ATTN_SDPA_SET_WINDOW window_left window_right", gqa_window),
    "`attention_bias`": ("bias", gqa_bias),
    "`softcap`, `scale`": ("", gqa_softcap_and_scale),
    "`head_sink`": ("sinks", gqa_sink),
    "`smooth_softmax`": ("sinks", gqa_smooth),
    "`do_rotary`, `cos_cache`, `sin_cache`, `rotary_interleaved`": (
        "attn_rope cos sin lengths interleaved",
        gqa_rotary,
    ),
}


# ---- Attention ----

WIDTH = 24


def projected(inputs, sizes=(H * E,) * 3):
    """The heads of input * weights + bias."""
    product = inputs["input"] @ inputs["weights"] + inputs["bias"]
    starts = np.cumsum((0, *sizes))
    return [
        viewed(product, ("slice", -1, start, size, 1), ("split_heads", H))
        for start, size in zip(starts.tolist(), sizes)
    ]


def compare_packed(inputs=None, attributes=None, sizes=(H * E,) * 3, **options):
    given = {
        "input": normal(N, L, WIDTH),
        "weights": normal(WIDTH, sum(sizes)) / 4,
        "bias": normal(sum(sizes)),
        **(inputs or {}),
    }
    (expected,) = run("Attention", {"num_heads": H, **(attributes or {})}, **given)
    heads = projected(given, sizes)
    close(merged(scaled_dot_product_attention(*heads, **options)), expected)
    if options:
        differs(merged(scaled_dot_product_attention(*heads)), expected)


def packed_projection():
    compare_packed()


def packed_sizes():
    sizes = (H * E, H * E, H * 8)
    compare_packed({}, {"qkv_hidden_sizes": list(sizes)}, sizes)


def packed_lengths():
    lengths = np.array([4, 2], dtype=np.int32)
    compare_packed({"mask_index": lengths}, key_lengths=lengths)


def packed_padding():
    mask = np.array([[1, 1, 1, 1], [1, 0, 1, 0]], dtype=np.int32)
    compare_packed({"mask_index": mask}, attn_mask=mask.astype(bool)[:, None, None])


def packed_mask():
    mask = np.tril(np.ones((N, L, L), dtype=np.int32))
    compare_packed({"mask_index": mask}, attn_mask=mask.astype(bool)[:, None])


def packed_bias():
    bias = normal(1, H, L, L)
    compare_packed({"attention_bias": bias}, bias=bias)


def packed_unidirectional():
    compare_packed({}, {"unidirectional": 1}, is_causal=True)


def packed_past():
    given = {
        "input": normal(N, L, WIDTH),
        "weights": normal(WIDTH, 3 * H * E) / 4,
        "bias": normal(3 * H * E),
        "past": normal(2, N, H, 5, E),
        "mask_index": np.array([8, 6], dtype=np.int32),
    }
    expected, present = run("Attention", {"num_heads": H, "unidirectional": 1}, 2, **given)
    query, *new = projected(given)
    cache = np.stack([np.concatenate(pair, axis=2) for pair in zip(given["past"], new)])
    close(cache, present)
    key, value = (viewed(present, ("select", 0, index)) for index in range(2))
    options = {"is_causal": True, "key_lengths": given["mask_index"]}
    close(
        merged(scaled_dot_product_attention(query, key, value, query_offset=5, **options)), expected
    )
    differs(merged(scaled_dot_product_attention(query, key, value, **options)), expected)


def packed_scale():
    compare_packed({}, {"scale": 0.3}, scale=0.3)


PACKED = {
    "`input`, `weights`, `bias`": (
        "attn_tensor_slice attn_tensor_split_heads",
        packed_projection,
    ),
    "`qkv_hidden_sizes`": ("", packed_sizes),
    "`mask_index` (batch), the lengths, int32": ("key_lengths", packed_lengths),
    "`mask_index` (batch, keys), int32, 1 takes part": ("ATTN_MASK_BOOL_INCLUDE", packed_padding),
    "`mask_index` (batch, length, keys), likewise": ("", packed_mask),
    "`attention_bias`": ("bias", packed_bias),
    "`unidirectional`": ("is_causal", packed_unidirectional),
    "`past` (2, batch, heads, length, size), and output `present`": (
        "attn_tensor_select query_offset key_lengths",
        packed_past,
    ),
    "`scale`": ("scale", packed_scale),
}


# ---- all of them ----

TESTS = {
    "com.microsoft.MultiHeadAttention": MULTI_HEAD,
    "com.microsoft.GroupQueryAttention": GROUPED,
    "com.microsoft.Attention": PACKED,
}
ROWS = [(heading, first) for heading, tests in TESTS.items() for first in tests]


def test_rows_and_tests_are_the_same():
    assert list(TABLES) == list(TESTS)
    for heading, tests in TESTS.items():
        guide_tables.check_rows(TABLES[heading], tests)


@pytest.mark.parametrize(("heading", "first"), ROWS)
def test_row(heading, first):
    TESTS[heading][first][1]()
