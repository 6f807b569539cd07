# SPDX-License-Identifier: BSD-3-Clause
"""Calls of a kind that was seen before, which go past most of Python: they are the calls that they
stand for, with the same refusals."""

import itertools
import threading

import numpy as np
import pytest
import torch

from libattention import Context, Error
from libattention import scaled_dot_product_attention as sdpa

LAYOUTS = {
    "plain": lambda one: one,
    "transposed": lambda one: np.ascontiguousarray(one.swapaxes(1, 2)).swapaxes(1, 2),
    "every second": lambda one: np.repeat(one, 2, axis=-1)[..., ::2],
    "reversed": lambda one: np.ascontiguousarray(one[..., ::-1])[..., ::-1],
    "repeated": lambda one: np.broadcast_to(one[:, :1], one.shape),
    "read-only": lambda one: read_only(one),
    "unaligned": lambda one: unaligned(one),
}
OPTIONS = ({}, {"is_causal": True}, {"scale": 0.3}, {"enable_gqa": True})


def read_only(array):
    found = array.copy()
    found.flags.writeable = False
    return found


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, dtype="uint8")[1:]
    found = memory.view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def tensor(array):
    """With the strides of the array, where PyTorch has them."""
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError):
        return torch.from_numpy(array.copy())


@pytest.mark.parametrize(("layout", "options"), list(itertools.product(LAYOUTS, OPTIONS)))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_repeated_call_is_the_call(layout, options, dtype):
    numbers = np.random.default_rng(0)
    heads = 2 if "enable_gqa" in options else 4
    for _ in range(3):  # the first makes the plan
        shapes = ((2, 4, 5, 8), (2, heads, 7, 8), (2, heads, 7, 6))
        inputs = [LAYOUTS[layout](numbers.normal(size=one).astype(dtype)) for one in shapes]
        expected, _ = sdpa(*inputs, **options, return_lse=True)  # the long way
        found = sdpa(*inputs, **options)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
        tensors = [tensor(one) for one in inputs]
        np.testing.assert_array_equal(sdpa(*tensors, **options).numpy(), expected)


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ([(2, 3), (2, 4), (2, 3)], r"^key: expected shape"),
        ([(3,), (2, 3), (2, 3)], r"^query: expected"),
        ([(1,) * 9] * 3, r"^query: expected at most 8 axes"),
    ],
)
def test_refusals_are_the_same_again_and_again(inputs, line):
    arrays = [np.ones(shape, dtype="float32") for shape in inputs]
    for _ in range(2):
        with pytest.raises(Error, match=line):
            sdpa(*arrays)
        with pytest.raises(Error, match=line):
            sdpa(*map(torch.from_numpy, arrays))


def test_other_types_are_refused_after_a_plan_was_made():
    array = np.ones((2, 3, 4), dtype="float32")
    sdpa(array, array, array)
    for other in ("float16", "int64", "bool", ">f4"):
        with pytest.raises(Error, match=r"^key: "):
            sdpa(array, array.astype(other), array)
    with pytest.raises(Error, match=r"^is_causal: "):
        sdpa(array, array, array, is_causal=7)
    with pytest.raises(Error, match=r"^value: expected dtype float32, got float64"):
        sdpa(array, array, array.astype("float64"))


def test_empty_arrays():
    query = np.ones((2, 0, 4), dtype="float32")
    for _ in range(2):
        assert sdpa(query, query, query).shape == (2, 0, 4)
        rows = np.ones((2, 3, 4), dtype="float32")
        np.testing.assert_array_equal(sdpa(rows, query, query), np.zeros((2, 3, 4)))


def test_threads_share_a_plan():
    numbers = np.random.default_rng(1)
    context = Context(num_threads=1)
    arrays = [numbers.normal(size=(4, 40, 32)).astype("float32") for _ in range(8)]
    expected = [sdpa(one, one, one, return_lse=True)[0] for one in arrays]
    wrong = []

    def compute(array, result):
        for _ in range(200):
            if not np.array_equal(sdpa(array, array, array, context=context), result):
                wrong.append(1)

    threads = [threading.Thread(target=compute, args=pair) for pair in zip(arrays, expected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
