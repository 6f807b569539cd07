# SPDX-License-Identifier: BSD-3-Clause
"""What kinds of arrays are taken, and what is said of others."""

import pickle
import weakref

import numpy as np
import pytest
import torch

import libattention
from libattention import scaled_dot_product_attention


class Exported:
    """A DLPack producer that is neither NumPy's nor PyTorch's."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_torch_in_torch_out(qkv, dtype):
    arrays = [array.astype(dtype) for array in qkv]
    expected = scaled_dot_product_attention(*arrays, is_causal=True)
    found = scaled_dot_product_attention(*map(torch.from_numpy, arrays), is_causal=True)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_torch_strides_and_masks(qkv):
    query, key, value = (torch.from_numpy(array).transpose(1, 2).contiguous() for array in qkv)
    mask = torch.rand(5, 7) < 0.5
    found = scaled_dot_product_attention(
        *[one.transpose(1, 2) for one in (query, key, value)], attn_mask=mask
    )
    np.testing.assert_array_equal(
        found.numpy(), scaled_dot_product_attention(*qkv, attn_mask=mask.numpy())
    )


def test_other_dlpack_producers(qkv):
    query, key, value = qkv
    found = scaled_dot_product_attention(query, Exported(key), Exported(value))
    np.testing.assert_array_equal(found, scaled_dot_product_attention(*qkv))
    first = scaled_dot_product_attention(Exported(query), key, value)
    np.testing.assert_array_equal(first, found)


class Watched(np.ndarray):
    """An array that something else may wait for the end of."""


class Lent:
    """A DLPack producer that lends a copy, and writes over it once nobody holds it."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        copy = self.array.copy()
        lent = copy.view(Watched)
        weakref.finalize(lent, copy.fill, np.nan)
        return lent.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)


def test_memory_that_is_lent_is_kept_until_the_call_has_read_it(qkv, rng):
    expected = scaled_dot_product_attention(*qkv)
    np.testing.assert_array_equal(scaled_dot_product_attention(*map(Lent, qkv)), expected)
    bias = rng.normal(size=(5, 7)).astype("float32")
    found = scaled_dot_product_attention(*qkv, bias=Lent(bias))
    np.testing.assert_array_equal(found, scaled_dot_product_attention(*qkv, bias=bias))
    layer = libattention.MultiheadAttention(8, 2)
    state = layer.state_dict()
    layer.load_state_dict({name: Lent(values) for name, values in state.items()})
    for name, values in layer.state_dict().items():
        np.testing.assert_array_equal(values, state[name])
    x = rng.normal(size=(3, 1, 8)).astype("float32")
    output, weights = layer(Lent(x), x, x)
    np.testing.assert_array_equal(output, layer(x, x, x)[0])
    np.testing.assert_array_equal(weights, layer(x, x, x)[1])


class CopyingNamespace:
    """A library that copies what it imports."""

    @staticmethod
    def from_dlpack(array):
        return np.from_dlpack(array).copy().view(Watched)


class OfCopyingNamespace(Exported):
    def __array_namespace__(self):
        return CopyingNamespace


def test_results_are_whole_where_a_library_copies_what_it_imports(qkv, rng):
    query, key, value = qkv
    found = scaled_dot_product_attention(
        OfCopyingNamespace(query), key, value, return_lse=True, return_weights=True
    )
    expected = scaled_dot_product_attention(*qkv, return_lse=True, return_weights=True)
    assert [type(one) for one in found] == [Watched] * 3
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)
    layer = libattention.MultiheadAttention(8, 2)
    x = rng.normal(size=(3, 1, 8)).astype("float32")
    for one, other in zip(layer(OfCopyingNamespace(x), x, x), layer(x, x, x)):
        np.testing.assert_array_equal(one, other)


def test_out_may_be_of_another_kind(qkv):
    out = torch.empty(2, 4, 5, 6)
    assert scaled_dot_product_attention(*qkv, out=out) is out
    np.testing.assert_array_equal(out.numpy(), scaled_dot_product_attention(*qkv))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda array: array.astype("longdouble"), "key: dtype float128 is unsupported"),
        (lambda array: array.astype(">f4"), "key: byte order of >f4 is not this machine's"),
        (lambda array: array.astype(">f2"), "key: byte order of >f2 is not this machine's"),
        (lambda array: array.astype("complex64"), "key: dtype complex64 is unsupported"),
        (
            lambda array: array.astype("float64"),
            "key: expected dtype float32, bfloat16 or float16, got float64",
        ),
        (lambda array: array.tolist(), "key: expected a NumPy array, PyTorch tensor or DLPack"),
        (lambda array: None, "key: expected a NumPy array, PyTorch tensor or DLPack"),
        (lambda array: Exported(array, (2, 0)), "key: is on DLPack device (2, 0)"),
        (lambda array: torch.tensor(array, requires_grad=True), "key: requires grad"),
        (
            lambda array: torch.tensor(array).to(torch.float8_e4m3fn),
            "key: dtype torch.float8_e4m3fn is unsupported",
        ),
        (
            lambda array: Exported(torch.tensor(array).bfloat16()),
            "key: cannot be read through DLPack: ",
        ),
        (lambda array: torch.tensor(array, device="meta"), "key: is on meta; pass key.cpu()"),
        (lambda array: torch.tensor(array).to_sparse(), "key: layout torch.sparse_coo"),
        (lambda array: array.reshape((1,) * 5 + array.shape), "key: expected at most 8 axes"),
    ],
)
def test_what_cannot_be_used_is_refused_with_advice(qkv, change, text):
    query, key, value = qkv
    with pytest.raises(libattention.Error) as caught:
        scaled_dot_product_attention(query, change(key), value)
    assert str(caught.value).startswith(text)


def test_strides_that_are_no_whole_elements(qkv):
    record = np.zeros((5,), dtype=[("x", "<f4"), ("tag", "u1")])["x"].reshape(5, 1)
    with pytest.raises(libattention.Error, match=r"query: strides .* pass query.copy\(\)"):
        scaled_dot_product_attention(record, record, record)


def test_read_only_output(qkv):
    out = np.zeros((2, 4, 5, 6), "float32")
    out.flags.writeable = False
    with pytest.raises(libattention.Error, match="out: is read-only"):
        scaled_dot_product_attention(*qkv, out=out)


def test_gradients_are_fine_under_no_grad(qkv):
    tensors = [torch.tensor(array, requires_grad=True) for array in qkv]
    with torch.no_grad():
        found = scaled_dot_product_attention(*tensors)
    np.testing.assert_array_equal(found.numpy(), scaled_dot_product_attention(*qkv))


X = torch.arange(48.0).reshape(1, 2, 3, 8)
WRITERS = {
    "scaled_dot_product_attention": lambda z: scaled_dot_product_attention(X, X, X, out=z),
    "rope": lambda z: libattention.rope(z, out=z),
    "rms_norm": lambda z: libattention.rms_norm(z, out=z),
    "merge": lambda z: libattention.merge([X, X], out=z),
    "kv.key": lambda z: libattention.kv_append(libattention.KV(z, z.clone(), lengths=[3]), X, X),
    "kv.value": lambda z: libattention.kv_append(libattention.KV(z.clone(), z, lengths=[3]), X, X),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_gradient_that_needed_what_was_written_over_is_refused(writer):
    written, factor = torch.ones_like(X), torch.ones(8, requires_grad=True)
    product = (factor * written).sum()
    WRITERS[writer](written[:])  # a view is of the same memory
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("writer", WRITERS)
def test_tensors_of_inference_mode_are_written(writer):
    with torch.inference_mode():
        written = torch.full_like(X, 2)
        WRITERS[writer](written)
    assert not torch.equal(written, torch.full_like(X, 2))


def test_read_only_inputs_and_empty_ones():
    query = np.ones((2, 3), "float32")
    query.flags.writeable = False
    np.testing.assert_allclose(scaled_dot_product_attention(query, query, query), 1)
    empty = np.empty((0, 3), "float32")
    assert not scaled_dot_product_attention(query, empty, empty).any()
    assert scaled_dot_product_attention(empty, query, query).shape == (0, 3)


def test_errors_can_be_pickled():
    error = libattention.Error(3, "key: text")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.status, str(copy), copy.name) == (3, "key: text", "ATTN_ERROR_SHAPE")
