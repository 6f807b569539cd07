# SPDX-License-Identifier: BSD-3-Clause
"""Bias, positions at the end, and lengths of either integer type, of attention and of a layer."""

import numpy as np
import pytest
import reference
import torch

import libattention
from libattention import MultiheadAttention, scaled_dot_product_attention

NEAR = {"rtol": 1e-5, "atol": 2e-6}
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


# ---- bias ----


@pytest.mark.parametrize("shape", [(7,), (5, 7), (4, 5, 7), (4, 1, 7), (2, 1, 5, 7), (2, 4, 5, 7)])
def test_a_bias_is_added_beside_a_bool_mask(qkv, rng, shape):
    bias = rng.normal(size=shape).astype("float32")
    mask = rng.random((5, 7)) < 0.6
    hidden = ~mask | (np.arange(7) > np.arange(5)[:, None])
    expected, lse, weights = reference.attention(*qkv, hidden=hidden, bias=bias)
    found = scaled_dot_product_attention(
        *qkv, mask, is_causal=True, bias=bias, return_lse=True, return_weights=True
    )
    for one, other in zip(found, (expected, lse, weights)):
        np.testing.assert_allclose(one, other, **NEAR)


def test_a_bias_is_added_beside_a_float_mask_and_may_hide(qkv, rng):
    bias, mask = rng.normal(size=(2, 4, 5, 7)).astype("float32")[:, 0]
    bias[:, 3] = -np.inf
    mask[1] = -np.inf
    with np.errstate(invalid="ignore"):
        expected = reference.attention(*qkv, bias=bias + mask)[0]
    found = scaled_dot_product_attention(*qkv, mask, bias=bias)
    assert not found[:, :, 1].any()
    np.testing.assert_allclose(found, expected, **NEAR)


def test_a_float64_call_takes_a_bias_of_either_float_type(qkv, rng):
    wide = [array.astype("float64") for array in qkv]
    bias = rng.normal(size=(4, 5, 7)).astype("float32")
    expected = reference.attention(*wide, bias=bias)[0]
    for dtype in ("float32", "float64"):
        found = scaled_dot_product_attention(*wide, bias=bias.astype(dtype))
        np.testing.assert_allclose(found, expected, **CLOSE)


def test_softcap_comes_before_the_bias(qkv, rng):
    query, key, value = (array.astype("float64") for array in qkv)
    bias = rng.normal(size=(5, 7))
    scores = np.tanh(query @ key.swapaxes(-1, -2) / 8**0.5 / 0.5) * 0.5 + bias
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    found = scaled_dot_product_attention(query, key, value, bias=bias, softcap=0.5)
    np.testing.assert_allclose(found, weights @ value, **CLOSE)


# ---- positions ----


@pytest.mark.parametrize("lengths", [None, 6, [7, 5]])
def test_align_end_puts_the_last_row_at_the_last_key(qkv, lengths):
    last = np.reshape(7 if lengths is None else lengths, (-1, 1, 1, 1)) - 1
    position = last - 4 + np.arange(5)[:, None]
    hidden = (np.arange(7) > position) | (np.arange(7) < position - 2) | (np.arange(7) > last)
    expected = reference.attention(*qkv, hidden=hidden)[0]
    options = {"is_causal": True, "window": (2, 0), "key_lengths": lengths}
    found = scaled_dot_product_attention(*qkv, align_end=True, **options)
    np.testing.assert_allclose(found, expected, **NEAR)
    offsets = last.ravel() - 4 if last.size > 1 else int(last.item()) - 4
    same = scaled_dot_product_attention(*qkv, query_offset=offsets, **options)
    np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_lengths_and_offsets_may_be_int32(qkv, make):
    arguments = {"query_offset": [2, 0], "key_lengths": [7, 3]}
    found = [
        scaled_dot_product_attention(
            *qkv,
            is_causal=True,
            **{name: make(numbers, dtype=dtype) for name, numbers in arguments.items()},
        )
        for dtype in ((np.int32, np.int64) if make is np.array else (torch.int32, torch.int64))
    ]
    np.testing.assert_array_equal(*found)
    numbers = scaled_dot_product_attention(*qkv, is_causal=True, **arguments)
    np.testing.assert_array_equal(found[0], numbers)


def test_one_length_may_be_a_numpy_number(qkv):
    expected = scaled_dot_product_attention(*qkv, key_lengths=3)
    for dtype in (np.int32, np.int64, np.uint8):
        found = scaled_dot_product_attention(*qkv, key_lengths=dtype(3))
        np.testing.assert_array_equal(found, expected)


# ---- masks that begin at some key, biases by distance ----


@pytest.mark.parametrize("start", [0, 3, -2, [1, 4], np.array([3, 0], np.int32)])
def test_mask_start_is_the_key_of_the_first_column(qkv, start):
    mask = np.random.default_rng(7).random((5, 4)) < 0.6
    full = np.ones((2, 1, 5, 7), bool)
    for batch, first in enumerate(np.broadcast_to(start, 2)):
        for key in range(first, 7):
            column = key - first
            full[batch, 0, :, max(key, 0)] = mask[:, column] if column < 4 else False
    found = scaled_dot_product_attention(*qkv, attn_mask=mask, mask_start=start)
    expected = scaled_dot_product_attention(*qkv, attn_mask=full)
    np.testing.assert_allclose(found, expected, **NEAR)


@pytest.mark.parametrize("options", [{}, {"align_end": True}, {"query_offset": [1, -2]}])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("reach", [0, 2, 9])
def test_position_bias_is_added_by_distance(qkv, options, heads, reach):
    table = np.random.default_rng(8).normal(size=(heads, 2 * reach + 1)).astype("float32")
    first = np.reshape(options.get("query_offset", 2 if options else 0), (-1, 1, 1))
    distance = np.arange(7) - np.arange(5)[:, None] - first
    bias = table[:, np.clip(distance, -reach, reach) + reach].swapaxes(0, 1)
    found = scaled_dot_product_attention(*qkv, position_bias=table, **options)
    expected = scaled_dot_product_attention(*qkv, bias=bias, **options)
    np.testing.assert_array_equal(found, expected)


# ---- masks by blocks ----


def in_full(blocks, size, shape):
    """What each position is."""
    rows, keys = (np.arange(length) // of_one for length, of_one in zip(shape, size))
    return blocks[..., rows[:, None], keys]


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize(("size", "count"), [((2, 3), (3, 3)), (4, (2, 2)), ((9, 1), (1, 7))])
def test_blocks_hide_show_or_ask_the_mask(qkv, heads, size, count):
    rng = np.random.default_rng(11)
    blocks = rng.integers(0, 3, (2, heads, *count)).astype("uint8")
    kinds = in_full(blocks, size if isinstance(size, tuple) else (size, size), (5, 7))
    mask = rng.normal(size=(5, 7)).astype("float32")
    full = np.where(kinds == 0, -np.inf, np.where(kinds == 1, 0, mask)).astype("float32")
    options = {"is_causal": True, "align_end": True}
    found = scaled_dot_product_attention(
        *qkv, attn_mask=mask, block_mask=blocks, block_size=size, **options
    )
    expected = scaled_dot_product_attention(*qkv, attn_mask=full, **options)
    np.testing.assert_array_equal(found, expected)
    alone = scaled_dot_product_attention(*qkv, block_mask=blocks, block_size=size)
    np.testing.assert_array_equal(alone, scaled_dot_product_attention(*qkv, attn_mask=kinds != 0))


def test_what_blocks_hide_may_be_anything(qkv):
    query, key, value = (one.copy() for one in qkv)
    blocks = np.array([1, 0, 1], "uint8")
    expected = scaled_dot_product_attention(query, key, value, block_mask=blocks, block_size=3)
    key[:, :, 3:6], value[:, :, 3:6] = np.nan, np.inf
    found = scaled_dot_product_attention(query, key, value, block_mask=blocks, block_size=3)
    np.testing.assert_array_equal(found, expected)


# ---- inside a layer ----


@pytest.fixture
def plain():
    """A layer of 4 heads of 8 that only splits heads and puts them together again."""
    layer = MultiheadAttention(32, 4, batch_first=True, dtype="float64")
    layer.load_state_dict(
        {
            "in_proj_weight": np.tile(np.eye(32), (3, 1)),
            "in_proj_bias": np.zeros(96),
            "out_proj.weight": np.eye(32),
            "out_proj.bias": np.zeros(32),
        }
    )
    return layer


def split(array):
    """(N, L, 32) -> (N, 4, L, 8)."""
    return array.reshape(*array.shape[:2], 4, 8).swapaxes(1, 2)


OPTIONS = {
    "bias": {"bias": np.random.default_rng(5).normal(size=(2, 4, 5, 7))},
    "bias_of_heads": {"bias": np.random.default_rng(6).normal(size=(4, 1, 7)).astype("float32")},
    "position_bias": {"position_bias": np.random.default_rng(9).normal(size=(4, 5))},
    "blocks": {"block_mask": np.array([[1, 0, 1], [0, 2, 1]], "uint8"), "block_size": (4, 3)},
    "scale": {"scale": 0.2},
    "offset": {"query_offset": [1, 3], "is_causal": True},
    "lengths": {"key_lengths": np.array([6, 2], dtype=np.int32)},
    "end": {"align_end": True, "is_causal": True, "key_lengths": [7, 6]},
    "window": {"window": (1, 2)},
    "softcap": {"softcap": 0.7},
    "sinks": {"sinks": [0.1, -2.0, 3.0, 0.0]},
    "alibi": {"alibi_slopes": [0.5, 0.25, 0.125, 0.0625]},
    "sigmoid": {"normalizer": "sigmoid"},
    "linear": {"normalizer": "linear"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_layer_takes_the_options_of_attention(plain, rng, name):
    query, key = rng.normal(size=(2, 5, 32)), rng.normal(size=(2, 7, 32))
    heads, weights = scaled_dot_product_attention(
        split(query), split(key), split(key), return_weights=True, **OPTIONS[name]
    )
    arguments = (query, key, key)
    output, per_head = plain(*arguments, average_attn_weights=False, **OPTIONS[name])
    np.testing.assert_allclose(output, heads.swapaxes(1, 2).reshape(2, 5, 32), **CLOSE)
    np.testing.assert_allclose(per_head, weights, **CLOSE)
    without = plain(*arguments)[0]
    assert np.abs(output - without).max() > 1e-3
    averaged = plain(*arguments, **OPTIONS[name])[1]
    np.testing.assert_allclose(averaged, per_head.mean(axis=1), **CLOSE)


def test_one_mask_of_every_head_for_all_batches(plain, rng):
    x = rng.normal(size=(2, 5, 32))
    hidden = rng.random((4, 5, 5)) < 0.4
    found = plain(x, x, x, attn_mask=hidden[None])[0]
    repeated = plain(x, x, x, attn_mask=np.tile(hidden, (2, 1, 1)))[0]
    np.testing.assert_array_equal(found, repeated)
    with pytest.raises(libattention.Error, match=r"attn_mask: expected shape \(N\*H=8, L=5, S=5\)"):
        plain(x, x, x, attn_mask=hidden)


# ---- refusals ----

BLOCKS = np.ones((2, 2), "uint8")


@pytest.mark.parametrize(
    ("options", "name", "text"),
    [
        ({"bias": np.zeros((5, 6), "float32")}, "SHAPE", "bias: expected a shape that broadcasts"),
        ({"bias": np.zeros((5, 7), bool)}, "DTYPE", "bias: expected dtype float"),
        ({"bias": np.zeros((5, 7), "float64")}, "DTYPE", "bias: expected dtype float32"),
        ({"bias": np.zeros((5, 7), "int32")}, "DTYPE", "bias: expected dtype float32"),
        ({"align_end": True, "query_offset": 1}, "VALUE", "query_offset: "),
        ({"align_end": 2}, "UNSUPPORTED", "align_end: expected 0 or 1, got 2"),
        ({"is_causal": 2}, "UNSUPPORTED", "is_causal: expected 0 or 1, got 2"),
        ({"is_causal": -1}, "VALUE", "is_causal: "),
        ({"key_lengths": np.array([1.0, 2.0])}, "DTYPE", "key_lengths: expected dtype int64"),
        ({"key_lengths": np.array([1, 8], np.int32)}, "VALUE", "key_lengths: "),
        ({"window": (-2, 0)}, "VALUE", "window: "),
        ({"block_size": 4}, "VALUE", "block_size: expected 0 without a block_mask"),
        ({"block_mask": np.ones((1, 1), "uint8")}, "VALUE", "block_size: expected 1 and up"),
        ({"block_mask": BLOCKS, "block_size": (1, 2, 3)}, "VALUE", "block_size: expected rows and"),
        ({"block_mask": BLOCKS, "block_size": (0, 4)}, "VALUE", "block_size: expected 1 and up"),
        ({"block_mask": BLOCKS, "block_size": 2}, "SHAPE", "block_mask: expected a shape"),
        ({"block_mask": BLOCKS != 0, "block_size": 4}, "DTYPE", "block_mask: expected dtype uint8"),
        ({"normalizer": "none"}, "VALUE", "normalizer: expected one of 'softmax', 'sigmoid'"),
        ({"normalizer": "linear", "sinks": [1.0]}, "VALUE", "sinks: "),
    ],
)
def test_attention_and_a_layer_refuse_alike(plain, options, name, text):
    narrow = np.zeros((2, 4, 5, 8), "float32"), np.zeros((2, 4, 7, 8), "float32")
    layer = MultiheadAttention(32, 4, batch_first=True)
    query, key = np.zeros((2, 5, 32), "float32"), np.zeros((2, 7, 32), "float32")
    calls = [
        lambda: scaled_dot_product_attention(narrow[0], narrow[1], narrow[1], **options),
        lambda: libattention.explain(narrow[0], narrow[1], narrow[1], **options),
        lambda: layer(query, key, key, **options),
        lambda: layer.explain(query, key, key, **options),
    ]
    looks_at_values = [0, 2] if text == "key_lengths: " else range(4)
    for index in looks_at_values:
        with pytest.raises(libattention.Error) as caught:
            calls[index]()
        assert caught.value.name == f"ATTN_ERROR_{name}"
        assert str(caught.value).startswith(text)


def test_attention_refuses_what_grouping_may_become(qkv):
    with pytest.raises(libattention.Error) as caught:
        scaled_dot_product_attention(*qkv, enable_gqa=2)
    assert caught.value.name == "ATTN_ERROR_UNSUPPORTED"
    assert str(caught.value) == "enable_gqa: expected 0 or 1, got 2"


def test_float64_is_unsupported_by_the_fused_engine(qkv):
    wide = [array.astype("float64") for array in qkv]
    with pytest.raises(libattention.Error) as caught:
        scaled_dot_product_attention(*wide, context=libattention.Context(engine="fused"))
    assert caught.value.name == "ATTN_ERROR_UNSUPPORTED"


def test_an_unknown_option_is_a_type_error(plain, qkv):
    x = np.zeros((1, 2, 32))
    with pytest.raises(TypeError, match="windows"):
        plain(x, x, x, windows=(1, 0))
    with pytest.raises(TypeError, match="windows"):
        libattention.explain(*qkv, windows=(1, 0))
