# SPDX-License-Identifier: BSD-3-Clause
"""Calls on PyTorch's tensors compute by PyTorch's threads, whoever makes them, or by a context that
was given."""

import contextlib
import copy
import gc
import multiprocessing
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import libattention
from libattention import _torch_threads
from libattention.integrations import torch as integration

hf = pytest.importorskip("libattention.integrations.transformers")
SHAPE = (2, 4, 150, 32)  # enough for several threads
ON_OPENMP = _torch_threads._parallel_for is not None
needs_openmp = pytest.mark.skipif(
    not ON_OPENMP, reason="there is no way to PyTorch's threads: no compiled module, or no OpenMP"
)


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tensors(dtype=torch.float32, shape=SHAPE):
    numbers = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=numbers).to(dtype) for _ in range(3)]


def layers():
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(64, 4, batch_first=True)
    return module, torch.randn(2, 150, 64)


def by_function(context=None):
    return libattention.scaled_dot_product_attention(*tensors(), context=context)


def by_operator():
    return torch.ops.libattention.sdpa(*tensors())[0]


def with_an_option(context=None):
    return libattention.scaled_dot_product_attention(*tensors(), window=(20, 3), context=context)


def with_gradients(context=None):
    given = [one.requires_grad_() for one in tensors()]
    libattention.scaled_dot_product_attention(*given, context=context).square().sum().backward()
    return torch.stack([one.grad for one in given])


def accelerated(context=None):
    module, x = layers()
    model = integration.accelerate(module.eval(), context=context)
    with torch.no_grad():
        return model(x, x, x, need_weights=False)[0]


def accelerated_in_training(context=None):
    module, x = layers()
    model = integration.accelerate(module.train(), training=True, context=context)
    model(x, x, x, need_weights=False)[0].square().sum().backward()
    return torch.cat([one.grad.flatten() for one in model.parameters()])


def in_transformers(context=None):
    module = torch.nn.Identity().eval()
    return hf.attention_forward(module, *tensors(), None, context=context)[0]


def installed(context=None):
    with integration.install(context):
        found = F.scaled_dot_product_attention(*tensors())
    assert integration.report().answered == 1
    return found


def of_a_layer(context=None):
    module, x = layers()
    ours = libattention.MultiheadAttention.from_torch(module)
    return ours(x, x, x, context=context)[0]


def rotated(context=None):
    x = tensors(shape=(8, 512, 256))[0]
    return libattention.rope(x, context=context)


CALLS = [
    by_function,
    with_an_option,
    with_gradients,
    accelerated,
    accelerated_in_training,
    in_transformers,
    installed,
    of_a_layer,
    rotated,
]


@pytest.fixture
def asked(monkeypatch):
    """How many threads there were to be, each time that PyTorch's were asked for."""
    counts = []
    find = _torch_threads._context_of
    monkeypatch.setattr(
        _torch_threads, "_context_of", lambda count: counts.append(count) or find(count)
    )
    return counts


@pytest.mark.parametrize("call", [*CALLS, by_operator])
def test_threads_are_as_many_as_pytorchs_and_change_no_bit(call, asked):
    results = []
    for count in (1, 2, 3):
        asked.clear()
        with threads(count):
            results.append(call())
        assert set(asked) == {count}
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_threads_change_no_bit_of_other_types(dtype):
    results = []
    for count in (1, 2):
        with threads(count):
            results.append(libattention.scaled_dot_product_attention(*tensors(dtype)))
    assert torch.equal(*results)


@pytest.mark.parametrize("call", CALLS)
def test_a_context_that_is_given_is_used(call, asked):
    context = libattention.Context(num_threads=1, gemm="native")
    found = call(context)
    assert asked == []
    assert torch.equal(found, call())
    assert asked != []


def test_a_registered_name_has_the_context_it_was_registered_with(asked):
    context = libattention.Context(num_threads=1)
    name = hf.register("libattention_of_one_thread", context=context)
    forward = hf.AttentionInterface()[name]
    forward(torch.nn.Identity().eval(), *tensors(), None)
    assert asked == []


def test_accelerate_keeps_its_context_in_copies_until_it_is_called_again(asked):
    module, x = layers()
    context = libattention.Context(num_threads=1)
    model = copy.deepcopy(integration.accelerate(module.eval(), context=context))
    with torch.no_grad():
        model(x, x, x)
        assert asked == []
        integration.accelerate(model)(x, x, x)
    assert asked != []


def test_accelerate_keeps_its_context_no_longer_than_its_model():
    module, _ = layers()
    context = libattention.Context(num_threads=1)
    alive = weakref.ref(context)
    model = integration.restore(integration.accelerate(module, context=context))
    assert "_settings" not in vars(model)
    integration.accelerate(module, context=context)
    del context, model, module
    gc.collect()
    assert alive() is None


def test_arrays_of_others_have_the_default_context(asked):
    arrays = [one.numpy() for one in tensors()]
    libattention.scaled_dot_product_attention(*arrays)
    libattention.scaled_dot_product_attention(*arrays, window=(3, 3))
    assert asked == []


def test_small_calls_compute_by_one_thread_of_the_same_bits():
    given = tensors(shape=(1, 2, 4, 8))
    found = libattention.scaled_dot_product_attention(*given)
    with threads(3):
        assert torch.equal(libattention.scaled_dot_product_attention(*given), found)
        further = libattention.scaled_dot_product_attention(*given, window=(9, 9))
    assert torch.equal(further, found)


@needs_openmp
def test_no_thread_is_started_beside_pytorchs():
    with threads(2):
        torch.ones(1 << 20).add_(1)  # PyTorch's own
        before = len(list(Path("/proc/self/task").iterdir()))
        for call in CALLS:
            call()
        assert len(list(Path("/proc/self/task").iterdir())) == before


@needs_openmp
def test_the_work_is_shared_by_pytorchs_threads(monkeypatch):
    """A call waits for tasks on other threads: some of those that PyTorch has must run."""
    context = _torch_threads.context_on(_torch_threads._parallel_for, 2, "native", None)
    assert context.info()["num_threads"] == 2
    large = tensors(shape=(4, 8, 512, 64))
    with threads(2):
        libattention.scaled_dot_product_attention(*large, context=context)
        before = times_of_others()
        for _ in range(20):
            libattention.scaled_dot_product_attention(*large, context=context)
        assert times_of_others() > before


def times_of_others():
    """What the process's threads have computed, but for this one, in clock ticks."""
    own = str(threading.get_native_id())
    others = [one for one in Path("/proc/self/task").iterdir() if one.name != own]
    fields = [(one / "stat").read_text().rpartition(")")[2].split() for one in others]
    return sum(int(one[11]) for one in fields)


@needs_openmp
def test_every_thread_flushes_subnormal_numbers_as_the_caller_does():
    """That is of a thread, and OpenMP's threads have their own."""
    query, key, value = tensors(shape=(4, 8, 64, 64))
    value = value * 1e-39  # all of them subnormal, as the output is
    kept = libattention.scaled_dot_product_attention(query, key, value)
    assert bool((kept != 0).any())
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU flushes no subnormal numbers")
    try:
        with threads(2):
            found = libattention.scaled_dot_product_attention(query, key, value)
    finally:
        torch.set_flush_denormal(False)
    assert np.count_nonzero(found.numpy()) == 0
    with threads(2):
        again = libattention.scaled_dot_product_attention(query, key, value)
        assert torch.equal(again, kept)


def compute_in_child(inputs, pipe):
    found = libattention.scaled_dot_product_attention(*inputs)
    pipe.send(found.numpy())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_computes():
    """OpenMP's threads exist in the parent alone; in a child their region would wait for ever."""
    inputs = tensors()
    with threads(2):
        expected = libattention.scaled_dot_product_attention(*inputs)
        forking = multiprocessing.get_context("fork")
        ours, theirs = forking.Pipe()
        child = forking.Process(target=compute_in_child, args=(inputs, theirs))
        child.start()
        assert ours.poll(60)
        found = ours.recv()
        child.join()
    np.testing.assert_array_equal(found, expected.numpy())


def test_several_threads_of_python_compute_at_once():
    inputs = tensors()
    expected = libattention.scaled_dot_product_attention(*inputs)
    wrong = []

    def compute():
        for _ in range(10):
            if not torch.equal(libattention.scaled_dot_product_attention(*inputs), expected):
                wrong.append(1)

    callers = [threading.Thread(target=compute) for _ in range(4)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert wrong == []


def test_kernels_of_the_environment_count(monkeypatch):
    monkeypatch.setenv("ATTN_KERNELS", "baseline")
    assert _torch_threads._new_context(1).info()["kernels"] == "baseline"
    monkeypatch.setenv("ATTN_KERNELS", "none such")
    with pytest.raises(libattention.Error, match="kernels"):
        _torch_threads._new_context(2)


def test_without_a_way_to_openmp_contexts_have_threads_of_their_own(monkeypatch):
    monkeypatch.setattr(_torch_threads, "_parallel_for", None)
    monkeypatch.setattr(_torch_threads, "_contexts", {})
    with threads(2):
        found = libattention.scaled_dot_product_attention(*tensors(), window=(500, 500))
        context = _torch_threads.context_now()
    assert context.info()["num_threads"] == 2
    assert torch.equal(found, libattention.scaled_dot_product_attention(*tensors()))
