# SPDX-License-Identifier: BSD-3-Clause
"""What a call from Python costs beside the C call. Printed, not asserted."""

import timeit

import numpy as np

from libattention import scaled_dot_product_attention
from libattention._library import ffi, lib
from libattention._tensors import NUMPY, Views


def microseconds(call):
    """Of the least disturbed of many short runs."""
    return min(timeit.repeat(call, number=300, repeat=200)) / 300 * 1e6


def test_a_small_call():
    array = np.ones((1, 1, 1, 2), dtype="float32")
    views = Views(4)
    inputs = [views.add_array(array, "input") for _ in range(3)]
    output, view = NUMPY.empty(array.shape, 1)
    arguments = [ffi.NULL, *inputs, ffi.NULL, views.add(view, "output"), ffi.NULL, 0]
    views.finish()
    assert lib.attn_sdpa(*arguments) == 0
    np.testing.assert_array_equal(output, array)
    c = microseconds(lambda: lib.attn_sdpa(*arguments))
    plain = microseconds(lambda: scaled_dot_product_attention(array, array, array))
    causal = microseconds(lambda: scaled_dot_product_attention(array, array, array, is_causal=True))
    print(
        f"one row over one key: C {c:.1f} us, Python {plain:.1f} us, with an option {causal:.1f} us"
    )
