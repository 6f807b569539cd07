# SPDX-License-Identifier: BSD-3-Clause
"""What is said of an argument of a wrong type, by what the argument is for: following the advice
gives the right number, or there is none to give."""

import numpy as np
import pytest
import torch

import libattention
from libattention import MultiheadAttention, scaled_dot_product_attention

INTEGERS = ("int8", "uint8", "int16", "int32", "int64", "uint64")


def refusal(call):
    with pytest.raises(libattention.Error) as caught:
        call()
    return str(caught.value)


def advised(text):
    """The expressions between "pass " and what follows, as a list."""
    advice = text.partition("; pass ")[2].replace(", in which True takes part", "")
    return (
        advice.replace(", in which True is left out, or ", "|")
        .removesuffix(" if 1 takes part")
        .split("|")
    )


# ---- masks ----


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_a_mask_of_integers_is_refused_and_the_advice_is_right(qkv, dtype, make):
    numbers = [1, 1, 0, 1, 0, 1, 1]
    if make is torch.tensor and dtype == "uint64":
        dtype = "int64"
    mask = make(numbers, dtype=getattr(np if make is np.array else torch, dtype))
    text = refusal(lambda: scaled_dot_product_attention(*qkv, mask))
    assert text.startswith(
        "attn_mask: expected dtype bool, or float32, float64, bfloat16 or float16 that is added, "
    )
    (advice,) = advised(text)
    found = scaled_dot_product_attention(*qkv, eval(advice, {"attn_mask": mask, "torch": torch}))
    seen = np.array(numbers, bool)
    np.testing.assert_array_equal(found, scaled_dot_product_attention(*qkv, seen))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", ["key_padding_mask", "attn_mask"])
def test_a_layer_says_which_way_its_masks_are(rng, dtype, name):
    layer = MultiheadAttention(8, 2, batch_first=True)
    x = rng.normal(size=(1, 3, 8)).astype("float32")
    numbers = np.array([[1, 1, 0]], dtype)
    mask = numbers if name == "key_padding_mask" else np.tile(numbers, (3, 1))
    text = refusal(lambda: layer(x, x, x, **{name: mask}))
    assert text.startswith(f"{name}: expected dtype bool")
    hidden, seen = (eval(one, {name: mask}) for one in advised(text))
    np.testing.assert_array_equal(hidden, mask == 1)
    weights = layer(x, x, x, **{name: seen})[1]
    assert (weights[..., 2] == 0).all()
    assert (weights[..., :2] > 0).all()


def test_a_half_mask_is_added_to_halves_alone(qkv):
    mask = np.linspace(-3, 3, 7).astype("float16")
    for one in (mask, torch.tensor(mask)):
        text = refusal(lambda one=one: scaled_dot_product_attention(*qkv, one))
        assert text == "attn_mask: expected dtype float32, got float16"
    halves = [one.astype("float16") for one in qkv]
    found = scaled_dot_product_attention(*halves, mask)
    expected = scaled_dot_product_attention(*halves, mask.astype("float32"))
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - scaled_dot_product_attention(*halves)).max() > 0.1


def test_a_wider_mask_is_added_after_the_advice(qkv):
    mask = np.linspace(-3, 3, 7).astype("longdouble")
    text = refusal(lambda: scaled_dot_product_attention(*qkv, mask))
    assert text.endswith("pass attn_mask.astype('float32'), which is added to the scores")
    found = scaled_dot_product_attention(*qkv, mask.astype("float32"))
    assert np.abs(found - scaled_dot_product_attention(*qkv)).max() > 0.1


def test_a_bias_is_no_mask(qkv):
    text = refusal(lambda: scaled_dot_product_attention(*qkv, bias=np.ones(7, bool)))
    assert text.endswith("a mask is given as attn_mask")
    text = refusal(lambda: scaled_dot_product_attention(*qkv, bias=np.ones(7, "uint8")))
    assert text.endswith("a mask is attn_mask")


# ---- lengths and positions ----


@pytest.mark.parametrize("name", ["key_lengths", "query_offset"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "uint64", "float32", ">i8"])
def test_lengths_of_other_types_are_told_what_to_become(qkv, name, dtype):
    numbers = np.array([3, 4], dtype)
    text = refusal(lambda: scaled_dot_product_attention(*qkv, is_causal=True, **{name: numbers}))
    assert text.startswith(f"{name}: ")
    advice = text.partition("pass ")[2].removeprefix("whole numbers as ")
    found = scaled_dot_product_attention(
        *qkv, is_causal=True, **{name: eval(advice, {name: numbers})}
    )
    expected = scaled_dot_product_attention(*qkv, is_causal=True, **{name: [3, 4]})
    np.testing.assert_array_equal(found, expected)


def test_torch_lengths_of_other_types(qkv):
    for dtype in (torch.int16, torch.float32):
        lengths = torch.tensor([3, 4], dtype=dtype)
        text = refusal(
            lambda lengths=lengths: scaled_dot_product_attention(*qkv, key_lengths=lengths)
        )
        assert "key_lengths.to(torch.int64)" in text


def test_a_mask_given_as_lengths_is_not_told_to_become_numbers(qkv):
    text = refusal(lambda: scaled_dot_product_attention(*qkv, key_lengths=np.ones((2, 7), bool)))
    assert text.endswith("it counts keys; a mask is given as attn_mask")


@pytest.mark.parametrize(
    "lengths",
    [[3, 4], (3, 4), [np.int32(3), np.uint8(4)], np.array([3, 4], "int32"), torch.tensor([3, 4])],
)
def test_what_lengths_may_be(qkv, lengths):
    hidden = np.arange(7) >= np.array([3, 4])[:, None, None, None]
    expected = scaled_dot_product_attention(*qkv, ~hidden)
    found = scaled_dot_product_attention(*qkv, key_lengths=lengths)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "lengths",
    [[3.5, 4.0], 3.0, [True, False], True, [[3], [4, 5]], ["3", "4"], [2**63, 4], 2**70, np.nan],
)
def test_numbers_that_are_no_lengths_are_not_rounded(qkv, lengths):
    text = refusal(lambda: scaled_dot_product_attention(*qkv, key_lengths=lengths))
    assert text.startswith("key_lengths: expected integers, got ")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_numpy_numbers_are_numbers_everywhere(qkv, dtype):
    three = dtype(3)
    found = scaled_dot_product_attention(
        *qkv,
        is_causal=np.bool_(True),
        query_offset=three,
        window=(three, dtype(1)),
        scale=np.float32(0.5),
        softcap=dtype(2),
    )
    expected = scaled_dot_product_attention(
        *qkv, is_causal=True, query_offset=3, window=(3, 1), scale=0.5, softcap=2.0
    )
    np.testing.assert_array_equal(found, expected)


# ---- numbers and pairs ----


def test_a_window_of_one_number_is_told_what_it_may_mean(qkv):
    text = refusal(lambda: scaled_dot_product_attention(*qkv, window=3))
    assert text.startswith("window: expected how many keys before and after")
    assert "(3, 0)" in text
    assert "(3, 3)" in text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"window": None}, "window: expected how many keys before and after its position"),
        ({"window": (1, 2, 3)}, "window: expected how many keys before and after its position"),
        ({"window": (1.5, 2)}, "window: expected a pair of integers, got 1.5"),
        ({"window": (1, None)}, "window: expected a pair of integers, got None"),
        ({"window": (2**70, 0)}, "window: expected a pair of integers, got 1180591620717411303424"),
        ({"softcap": "2"}, "softcap: expected a number, got '2'"),
        ({"softcap": None}, "softcap: expected a number, got None"),
        ({"scale": "x"}, "scale: expected a number or None, got 'x'"),
        ({"is_causal": None}, "is_causal: expected True or False, got None"),
        ({"is_causal": 2**40}, "is_causal: expected True or False, got 1099511627776"),
        ({"align_end": "yes"}, "align_end: expected True or False, got 'yes'"),
        ({"sinks": ["a"]}, "sinks: expected numbers, got ['a']"),
        ({"alibi_slopes": [[1.0], [1.0, 2.0]]}, "alibi_slopes: expected numbers, got [["),
    ],
)
def test_options_of_a_wrong_type_are_named(qkv, options, text):
    x = np.zeros((2, 5, 32), "float32")
    layer = MultiheadAttention(32, 4, batch_first=True)
    for call in (
        lambda: scaled_dot_product_attention(*qkv, **options),
        lambda: layer(x, x, x, **options),
    ):
        assert refusal(call).startswith(text)


@pytest.mark.parametrize("value", [None, [], {}, "yes"])
def test_grouping_of_a_wrong_type_is_named(qkv, value):
    text = refusal(lambda: scaled_dot_product_attention(*qkv, enable_gqa=value))
    assert text == f"enable_gqa: expected True or False, got {value!r}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_heads": "2"}, "num_heads: expected an integer, got '2'"),
        ({"num_heads": 2.0}, "num_heads: expected an integer, got 2.0"),
        ({"num_heads": 2, "kdim": 2**70}, "kdim: expected an integer, got 1180591620717411303424"),
        ({"num_heads": 2, "batch_first": None}, "batch_first: expected True or False, got None"),
    ],
)
def test_sizes_of_a_wrong_type_are_named(arguments, text):
    assert refusal(lambda: MultiheadAttention(8, **arguments)) == text
    assert MultiheadAttention(np.int64(8), np.uint8(2)).config["num_heads"] == 2


# ---- masks that arrays bring along ----


@pytest.mark.parametrize("place", [0, 1, 2, "attn_mask", "bias", "key_lengths", "sinks"])
def test_masked_arrays_are_refused_because_their_mask_would_be_lost(qkv, place):
    arguments, options = list(qkv), {}
    if isinstance(place, int):
        arguments[place] = np.ma.masked_array(qkv[place], mask=qkv[place] > 1)
        name = ("query", "key", "value")[place]
    else:
        name = place
        shape, dtype = {"key_lengths": ((2,), int), "sinks": ((4,), "float32")}.get(
            place, ((5, 7), "float32")
        )
        options[place] = np.ma.masked_array(np.ones(shape, dtype), mask=False)
    text = refusal(lambda: scaled_dot_product_attention(*arguments, **options))
    assert text.startswith(f"{name}: is a MaskedArray, whose mask would be lost; ")
    assert f"pass {name}.filled(...)" in text


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
def test_masked_tensors_of_torch_are_refused(qkv):
    query, key, value = map(torch.from_numpy, qkv)
    masked = torch.masked.masked_tensor(key, key > 0)
    text = refusal(lambda: scaled_dot_product_attention(query, masked, value))
    assert text.startswith("key: is a MaskedTensor, whose mask would be lost; ")
    assert "pass key.to_tensor(0)" in text


def test_masked_parameters_are_refused_too():
    layer = MultiheadAttention(8, 2)
    state = layer.state_dict()
    state["out_proj.bias"] = np.ma.masked_less(state["out_proj.bias"], 0)
    text = refusal(lambda: layer.load_state_dict(state))
    assert text.startswith("out_proj.bias: is a MaskedArray")
