# SPDX-License-Identifier: BSD-3-Clause
"""What a small call from Python costs, beside the C call and beside PyTorch's own function in the
same run. Printed, not asserted."""

import importlib
import timeit

import numpy as np
import torch

from libattention import _small_calls, scaled_dot_product_attention
from libattention._library import ffi, lib
from libattention._tensors import NUMPY, Views
from libattention.integrations import _lean_sdpa
from libattention.integrations.torch import install

SHAPES = ((1, 1, 1, 2), (1, 8, 16, 64))
WAY = "compiled module" if _small_calls.IS_COMPILED else "no compiled module"


def microseconds(calls):
    """Of each, in turns, the least disturbed of many short runs."""
    runs = [timeit.Timer(call) for call in calls.values()]
    times = zip(*([run.timeit(100) for run in runs] for _ in range(300)))
    return {name: min(time) / 100 * 1e6 for name, time in zip(calls, times)}


def c_call(array):
    """Of C's function, by structs that are kept; returns the output."""
    views = Views(4)
    inputs = [views.add_array(array, "input") for _ in range(3)]
    output, view = NUMPY.empty(array.shape, 1)
    arguments = [ffi.NULL, *inputs, ffi.NULL, views.add(view, "output"), ffi.NULL, 0]
    views.finish()

    def call(_=views):
        assert lib.attn_sdpa(*arguments) == 0
        return output

    return call


def one_thread(test):
    """PyTorch's part of the times is that of one thread."""

    def run(monkeypatch):
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            test(monkeypatch)
        finally:
            torch.set_num_threads(before)

    return run


@one_thread
def test_a_small_call(monkeypatch):
    """Of NumPy's arrays and of PyTorch's tensors, and of the operator."""
    importlib.import_module("libattention._torch_operators")
    operator = torch.ops.libattention.sdpa
    sdpa = scaled_dot_product_attention
    own = torch.nn.functional.scaled_dot_product_attention
    print()
    for shape in SHAPES:
        query, key, value = torch.rand(3, *shape)
        arrays = [one.numpy() for one in (query, key, value)]
        c = c_call(arrays[0])
        np.testing.assert_allclose(c(), sdpa(*[arrays[0]] * 3), rtol=1e-6)
        calls = {
            "C": c,
            "NumPy": lambda given=arrays: sdpa(*given),
            "NumPy, an option": lambda given=arrays: sdpa(*given, is_causal=True),
            "PyTorch's own": lambda q=query, k=key, v=value: own(q, k, v),
            "PyTorch": lambda q=query, k=key, v=value: sdpa(q, k, v),
            "operator": lambda q=query, k=key, v=value: operator(q, k, v),
        }
        torch.testing.assert_close(calls["PyTorch"](), calls["PyTorch's own"]())
        torch.testing.assert_close(calls["operator"]()[0], calls["PyTorch's own"]())
        found = microseconds(calls)
        own_time = found["PyTorch's own"]
        print(f"{shape}, {WAY}, us:", *(f"{name} {time:.1f};" for name, time in found.items()))
        print(
            f"    NumPy over C {found['NumPy'] - found['C']:.1f} us,",
            f"PyTorch {found['PyTorch'] / own_time:.2f} times its own,",
            f"operator {found['operator'] / own_time:.2f} times",
        )


@one_thread
def test_an_installed_call(monkeypatch):
    """What install adds to PyTorch's function, where its own kernel's part is small: answered, and
    handed back as too small."""
    query, key, value = torch.rand(3, *SHAPES[0])
    own = torch.nn.functional.scaled_dot_product_attention
    expected = own(query, key, value)

    def time():
        torch.testing.assert_close(own(query, key, value), expected)
        return microseconds({"": lambda: own(query, key, value)})[""]

    before = time()
    with install():
        handed_back = time()
    with monkeypatch.context() as patch:
        patch.setattr(_lean_sdpa, "SMALLEST_WORK", dict.fromkeys(_lean_sdpa.SMALLEST_WORK, 0))
        with install():
            answered = time()
    print(
        f"\ninstall adds to PyTorch's {before:.1f} us: answered {answered - before:.1f} us,",
        f"handed back {handed_back - before:.1f} us",
    )
