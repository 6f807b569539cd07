# SPDX-License-Identifier: BSD-3-Clause
"""Calls that the compiled module makes, and by whom else they can be made."""

import numpy as np
import pytest
import torch

from libattention import _small_calls
from libattention import scaled_dot_product_attention as sdpa

needs_module = pytest.mark.skipif(
    not _small_calls.IS_COMPILED, reason="the package was built without the compiled module"
)
DTYPES = ("float32", "float64", "float16")
LAYOUTS = {
    "plain": lambda one: one,
    "transposed": lambda one: np.ascontiguousarray(one.swapaxes(1, 2)).swapaxes(1, 2),
    "every second": lambda one: np.repeat(one, 2, axis=-1)[..., ::2],
    "reversed": lambda one: np.ascontiguousarray(one[..., ::-1])[..., ::-1],
    "repeated": lambda one: np.broadcast_to(one[:, :1], one.shape),
    "read-only": lambda one: read_only(one),
    "unaligned": lambda one: unaligned(one),
}
MASK = np.random.default_rng(2).random((5, 7)) < 0.7
OPTIONS = {
    "none": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "negative scale": {"scale": -1.5},
    "grouped": {"enable_gqa": True},
    "bool mask": {"attn_mask": MASK},
    "float mask": {"attn_mask": np.where(MASK, 0, -np.inf).astype("float32")},
    "lse": {"return_lse": True},
    "all": {
        "attn_mask": MASK,
        "is_causal": True,
        "scale": 2.0,
        "enable_gqa": True,
        "return_lse": True,
    },
}
SHAPES = {  # of query, key and value; the heads of the last two are halved where they are grouped
    "usual": ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6)),
    "broadcast": ((2, 4, 5, 8), (1, 4, 7, 8), (2, 4, 7, 6)),
    "of other ranks": ((3, 2, 4, 5, 8), (2, 4, 7, 8), (4, 7, 6)),
}
EDGES = {
    "one head": ((5, 8), (7, 8), (7, 6)),
    "one of everything": ((1, 1, 1, 1),) * 3,
    "nobody": ((0, 4, 5, 8), (0, 4, 7, 8), (0, 4, 7, 6)),
    "no rows": ((2, 4, 0, 8), (2, 4, 7, 8), (2, 4, 7, 6)),
    "no keys": ((2, 4, 5, 8), (2, 4, 0, 8), (2, 4, 0, 6)),
    "no width": ((2, 4, 5, 0), (2, 4, 7, 0), (2, 4, 7, 6)),
    "nothing to add": ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 0)),
    "eight axes": ((1, 1, 1, 1, 2, 4, 5, 8),) * 3,
}


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


def arrays(shapes, dtype="float32", layout="plain", halve=False):
    numbers = np.random.default_rng(0)
    query, *others = shapes
    if halve:
        others = [(*one[:-3], one[-3] // 2, *one[-2:]) for one in others]
    return [LAYOUTS[layout](numbers.normal(size=one).astype(dtype)) for one in (query, *others)]


def by_module(query, key, value, **options):
    given = {
        "attn_mask": None,
        "is_causal": False,
        "scale": None,
        "enable_gqa": False,
        "return_lse": False,
        **options,
    }
    return _small_calls.attend(query, key, value, *given.values(), None)


def in_row(results):
    return results if isinstance(results, tuple) else (results,)


def assert_same(found, expected):
    assert type(found) is type(expected)
    for one, another in zip(in_row(found), in_row(expected)):
        assert type(one) is type(another)
        assert (one.dtype, one.shape) == (another.dtype, another.shape)
        strides = (
            (x.stride() if isinstance(x, torch.Tensor) else x.strides) for x in (one, another)
        )
        assert len(set(strides)) == 1
        np.testing.assert_array_equal(np.asarray(one), np.asarray(another))


def compare(inputs, options, by_python, must_compute=True):
    """NumPy's arrays and PyTorch's tensors. The module leaves an lse that is not of query's type,
    as beside 16 bits."""
    if options.get("return_lse") and inputs[0].itemsize == 2:
        must_compute = False
    mask = options.get("attn_mask")
    as_tensors = options if mask is None else {**options, "attn_mask": torch.from_numpy(mask)}
    sdpa(*map(tensor, inputs), **as_tensors)  # PyTorch is known from now on
    for given, further in ((inputs, options), ([tensor(one) for one in inputs], as_tensors)):
        expected = by_python(*given, **further)
        assert_same(sdpa(*given, **further), expected)
        if must_compute:
            assert_same(by_module(*given, **further), expected)
