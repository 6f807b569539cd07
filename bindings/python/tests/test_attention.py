# SPDX-License-Identifier: BSD-3-Clause
import itertools

import numpy as np
import pytest
import reference

import libattention
from libattention import Context, scaled_dot_product_attention

NEAR = {"rtol": 1e-5, "atol": 2e-6}


def test_plain(qkv):
    expected, lse, weights = reference.attention(*qkv)
    found = scaled_dot_product_attention(*qkv, return_lse=True, return_weights=True)
    for one, other in zip(found, (expected, lse, weights)):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, **NEAR)


@pytest.mark.parametrize(("lse", "weights"), list(itertools.product([False, True], repeat=2)))
def test_what_is_returned(qkv, lse, weights):
    found = scaled_dot_product_attention(*qkv, return_lse=lse, return_weights=weights)
    shapes = [(2, 4, 5, 6)] + [(2, 4, 5)] * lse + [(2, 4, 5, 7)] * weights
    if len(shapes) == 1:
        assert found.shape == shapes[0]
    else:
        assert isinstance(found, tuple)
        assert [one.shape for one in found] == shapes


def test_true_in_a_mask_takes_part(qkv, rng):
    mask = rng.random((5, 7)) < 0.6
    expected = reference.attention(*qkv, hidden=~mask)[0]
    np.testing.assert_allclose(scaled_dot_product_attention(*qkv, mask), expected, **NEAR)


def test_a_float_mask_is_added_and_composes_with_causality(qkv, rng):
    bias = rng.normal(size=(4, 5, 7)).astype("float32")
    hidden = np.arange(7) > np.arange(5)[:, None]
    expected = reference.attention(*qkv, hidden=hidden, bias=bias)[0]
    found = scaled_dot_product_attention(*qkv, bias, is_causal=True)
    np.testing.assert_allclose(found, expected, **NEAR)


def test_numbers_and_lists_for_positions_and_lengths(qkv):
    offsets, lengths = [2, 0], [7, 3]
    position = np.array(offsets)[:, None, None, None] + np.arange(5)[:, None]
    hidden = (np.arange(7) > position) | (np.arange(7) >= np.array(lengths)[:, None, None, None])
    expected = reference.attention(*qkv, hidden=hidden)[0]
    found = scaled_dot_product_attention(
        *qkv, is_causal=True, query_offset=offsets, key_lengths=lengths
    )
    np.testing.assert_allclose(found, expected, **NEAR)
    one = scaled_dot_product_attention(*qkv, key_lengths=3)
    np.testing.assert_allclose(one, reference.attention(*qkv, hidden=np.arange(7) >= 3)[0], **NEAR)


def test_window(qkv):
    distance = np.arange(7) - np.arange(5)[:, None]
    expected = reference.attention(*qkv, hidden=(distance < -1) | (distance > 2))[0]
    np.testing.assert_allclose(scaled_dot_product_attention(*qkv, window=(1, 2)), expected, **NEAR)


def test_a_row_that_sees_nothing_is_zero(qkv):
    output, lse = scaled_dot_product_attention(*qkv, np.zeros((5, 7), dtype=bool), return_lse=True)
    assert not output.any()
    assert np.isneginf(lse).all()


def test_grouped_queries(qkv):
    query, key, value = qkv
    few = [key[:, :2], value[:, :2]]
    found = scaled_dot_product_attention(query, *few, enable_gqa=True)
    expected = reference.attention(query, *[np.repeat(one, 2, axis=1) for one in few])[0]
    np.testing.assert_allclose(found, expected, **NEAR)


def test_batch_axes_broadcast(qkv):
    query, key, value = qkv
    found = scaled_dot_product_attention(query, key[:1, :1], value[0])
    expected = reference.attention(query, key[:1, :1], value[0])[0]
    np.testing.assert_allclose(found, expected, **NEAR)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["transposed", "reversed", "step", "broadcast", "unaligned"])
def test_layouts_give_the_same(qkv, dtype, layout):
    arrays = [array.astype(dtype) for array in qkv]
    if layout == "broadcast":
        arrays = [np.broadcast_to(array[:1], array.shape) for array in arrays]
    expected = scaled_dot_product_attention(*map(np.ascontiguousarray, arrays))
    found = scaled_dot_product_attention(*[laid_out(array, layout) for array in arrays])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def laid_out(array, layout):
    """The same numbers elsewhere in memory."""
    if layout == "transposed":
        return np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)
    if layout == "reversed":
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    if layout == "step":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if layout == "unaligned":
        memory = np.empty(array.nbytes + 1, dtype="uint8")[1:]
        copy = memory.view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy
    return array


def test_out_is_written_and_returned(qkv):
    whole = np.full((2, 4, 5, 12), 7, dtype="float32")
    out = whole[..., ::2]
    assert scaled_dot_product_attention(*qkv, out=out) is out
    np.testing.assert_array_equal(out, scaled_dot_product_attention(*qkv))
    assert (whole[..., 1::2] == 7).all()


def test_results_do_not_depend_on_threads_and_contexts_may_be_chosen(qkv):
    expected = scaled_dot_product_attention(*qkv, context=Context(num_threads=1))
    for threads in (2, 5):
        found = scaled_dot_product_attention(*qkv, context=Context(num_threads=threads))
        np.testing.assert_array_equal(found, expected)
    for kernels in libattention.info()["kernels_here"]:
        found = scaled_dot_product_attention(*qkv, context=Context(kernels=kernels))
        np.testing.assert_allclose(found, expected, **NEAR)
    blas = Context(engine="blas", gemm="native")
    np.testing.assert_allclose(scaled_dot_product_attention(*qkv, context=blas), expected, **NEAR)
    assert libattention.explain(*qkv, context=blas)["engine"] == "blas"


def test_explain_says_what_runs(qkv):
    report = libattention.explain(*qkv, is_causal=True)
    assert report["engine"] == "fused"
    assert report["kernels"] == libattention.info()["kernels"]
    assert report["reason"]
    assert report["copies"] == ["query", "value"]  # six columns are no whole vectors


def test_selftest():
    assert libattention.selftest() is None
    assert libattention.selftest(Context(num_threads=1, gemm="native")) is None


@pytest.mark.parametrize(
    ("arguments", "products"),
    [
        ({}, ("blas", "native")),
        ({"gemm": "native"}, ("native",) * 2),
        ({"gemm": "blas"}, ("blas",) * 2),
    ],
)
def test_a_context_tells_who_multiplies(arguments, products):
    about = Context(num_threads=3, **arguments).info()
    assert about["num_threads"] == 3
    assert about["engine"] == "auto"
    assert about["gemm"] == arguments.get("gemm", "auto")
    assert (about["attention_gemm"], about["projection_gemm"]) == products
    assert about["kernels"] == libattention.info()["kernels"]
    assert about["blas"] == libattention.info()["blas"]
    assert about["blas_is_serial"] in (True, False)
    assert repr(Context(num_threads=3, **arguments)).startswith(
        "Context(num_threads=3, engine='auto'"
    )


def test_info():
    about = libattention.info()
    assert about["version"] == libattention.__version__
    assert about["kernels"] in about["kernels_here"]
    assert about["threads"] >= 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dropout_p": 0.1}, "dropout_p: expected 0"),
        ({"normalizer": "tanh"}, "normalizer: expected one of 'softmax', 'sigmoid', 'linear'"),
        ({"softcap": -1.0}, "softcap: "),
        ({"window": (-2, 0)}, "window: "),
        ({"scale": float("nan")}, "scale: "),
        ({"key_lengths": [7, 8]}, "key_lengths: "),
        ({"attn_mask": np.zeros((5, 6), bool)}, "attn_mask: expected a shape that broadcasts"),
        ({"attn_mask": np.zeros((5, 7), int)}, "attn_mask: expected"),
        ({"sinks": [1.0, 2.0]}, "sinks: "),
        ({"out": np.zeros((2, 4, 5, 5), "float32")}, "out: expected shape"),
    ],
)
def test_refusals_name_the_argument(qkv, options, text):
    with pytest.raises(libattention.Error) as caught:
        scaled_dot_product_attention(*qkv, **options)
    assert str(caught.value).startswith(text)
    assert caught.value.name.startswith("ATTN_ERROR_")


def test_an_output_that_overlaps_an_input_is_refused(qkv):
    query = qkv[0]
    with pytest.raises(
        libattention.Error, match="out: expected memory of its own, got memory that overlaps query"
    ) as caught:
        scaled_dot_product_attention(query, query, query, out=query)
    assert caught.value.name == "ATTN_ERROR_OVERLAP"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"engine": "cuda"}, "engine: expected one of 'auto', 'blas', 'fused', got 'cuda'"),
        ({"kernels": "mmx"}, "kernels: "),
        ({"num_threads": 5000}, "num_threads: "),
    ],
)
def test_context_refusals(arguments, text):
    with pytest.raises(libattention.Error) as caught:
        Context(**arguments)
    assert str(caught.value).startswith(text)
