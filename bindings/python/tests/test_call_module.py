# SPDX-License-Identifier: BSD-3-Clause
"""The compiled module among threads, interpreters and copies of itself, and what it keeps."""

import gc
import importlib.util
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from small_calls import MASK, SHAPES, arrays, by_module, needs_module

from libattention import Context, _small_calls
from libattention import scaled_dot_product_attention as sdpa
from libattention._torch_ordinary import KNOWS_TENSORS


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_threads(kind):
    numbers = np.random.default_rng(1)
    context = Context(num_threads=1)
    inputs = [kind(numbers.normal(size=(4, 40, 32)).astype("float32")) for _ in range(8)]
    expected = [sdpa(one, one, one, return_weights=True)[0] for one in inputs]
    wrong = []

    def compute(one, result):
        for _ in range(200):
            if not np.array_equal(sdpa(one, one, one, context=context), result):
                wrong.append(1)

    threads = [threading.Thread(target=compute, args=pair) for pair in zip(inputs, expected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@needs_module
def test_other_threads_run_meanwhile():
    """Where Python makes nobody give its lock away, another thread runs during a call alone."""
    large = np.ones((1, 8, 512, 64), dtype="float32")
    may_go, ran = threading.Event(), []
    other = threading.Thread(target=lambda: (may_go.wait(), ran.append(1)))
    interval = sys.getswitchinterval()
    other.start()
    try:
        sys.setswitchinterval(100)
        may_go.set()
        before = len(ran)
        for _ in range(1000):  # until the system wakes it
            by_module(large, large, large)
            if ran:
                break
        after = len(ran)
    finally:
        sys.setswitchinterval(interval)
        other.join()
    assert (before, after) == (0, 1)


@needs_module
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_nothing_is_kept(kind):
    inputs = [kind(one) for one in arrays(SHAPES["usual"])]
    sdpa(*inputs)
    mask = kind(MASK)
    calls = [
        lambda: by_module(*inputs, return_lse=True, attn_mask=mask),
        lambda: by_module(*inputs, scale=0.5, is_causal=True),
        lambda: by_module(inputs[0], inputs[1], None),
        lambda: by_module(inputs[0], inputs[0], inputs[1], scale=float("nan")),
        lambda: by_module(inputs[0], inputs[1][..., :3], inputs[2]),
    ]

    def run(times):
        for call in calls:
            for _ in range(times):
                call()
        gc.collect()

    watched = (*inputs, mask, None, NotImplemented, np.dtype("float32"), torch.Tensor)
    tracemalloc.start()
    try:
        run(100)
        counts = [sys.getrefcount(one) for one in watched]
        memory, _ = tracemalloc.get_traced_memory()
        run(20_000)
        assert tracemalloc.get_traced_memory()[0] - memory < 20_000
    finally:
        tracemalloc.stop()
    assert max(abs(sys.getrefcount(one) - was) for one, was in zip(watched, counts)) < 100


def another_module():
    """The module once more, which nothing was handed to yet."""
    file = sys.modules["libattention._call"].__file__
    spec = importlib.util.spec_from_file_location("libattention._call", file)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@needs_module
def test_modules_share_nothing():
    array = np.ones((2, 3), dtype="float32")
    usual = (array, array, array, None, False, None, False, False, None)
    other = another_module()
    assert other is not sys.modules["libattention._call"]
    assert other.sdpa(*usual) is NotImplemented
    assert sys.modules["libattention._call"].sdpa(*usual) is not NotImplemented
    with pytest.raises(ValueError, match="addresses"):
        other.bind_library(0, 0)
    with pytest.raises(TypeError, match="9 arguments"):
        other.sdpa(array)
    for questions, facts in ((1, ()), ((1,), ()), ((), ((1, 2),))):
        with pytest.raises(TypeError, match="tuple of tuples"):
            other.bind_torch(1, 2, 3, questions, facts, *range(5))
    assert other.bind_torch(1, 2, 3, (), (), *range(5)) is False
    with pytest.raises(ValueError, match="PyCapsule"):
        other.bind_torch(1, 2, 3, (), (), 4, torch.Tensor().is_neg, *range(3))
    with pytest.raises(ValueError, match="bind_openmp"):
        other.bind_openmp(0)


@needs_module
@pytest.mark.skipif(not KNOWS_TENSORS, reason="this PyTorch hands out no functions for its tensors")
def test_a_call_is_small_by_all_its_sizes(monkeypatch):
    """Wide values and broadcast batches are work, too."""
    asked = []

    def find_context(is_small):
        asked.append(is_small)
        return 0  # no address leaves the call to Python

    module = another_module()
    monkeypatch.setattr(_small_calls, "_module", module)
    module.bind_library(
        _small_calls._address("attn_sdpa"), _small_calls._address("attn_sdpa_describe_outputs")
    )
    assert _small_calls.bind_torch(torch, (), (), find_context)
    large = (
        ((4, 8), (16, 8), (16, 5000)),
        ((4, 8), (3000, 16, 8), (3000, 16, 8)),
        ((1, 1, 4, 8), (1, 1, 16, 8), (60, 60, 16, 8)),
        ((60, 40, 8), (60, 40, 8), (60, 40, 8)),
    )
    for shapes in large:
        given = [torch.ones(shape) for shape in shapes]
        assert module.sdpa(*given, None, False, None, False, False, None) is NotImplemented
    assert asked == [False] * len(large)


@needs_module
def test_a_subinterpreter_has_a_module_of_its_own():
    """In a process of its own: PyTorch's autograd does not bear there having been another
    interpreter, after which Python no longer tells who holds its lock."""
    name = "_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters"
    pytest.importorskip(name, reason="this Python has no interpreters to make")
    load = f"""
import importlib.util
spec = importlib.util.spec_from_file_location(
    "libattention._call", {sys.modules["libattention._call"].__file__!r}
)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.sdpa(*range(9)) is NotImplemented
"""
    program = f"""
import {name} as interpreters
import numpy, libattention
array = numpy.ones((2, 3), dtype="float32")
for _ in range(3):
    made = interpreters.create()
    assert interpreters.run_string(made, {load!r}) is None
    interpreters.destroy(made)
    assert (libattention.scaled_dot_product_attention(array, array, array) == 1).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
