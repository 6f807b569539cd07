# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's F.scaled_dot_product_attention answered by libattention: models and ways to run them,
what install changes of the process, threads, counts. Numbers: test_differential_install.py.
"""

import contextlib
import copy
import itertools
import subprocess
import sys
import threading
import time
import timeit
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torch.utils.checkpoint
from torch import nn

import libattention
from libattention import _plans
from libattention._library import lib
from libattention.integrations import _install, _lean_backward, _lean_sdpa
from libattention.integrations import torch as integration

pytestmark = pytest.mark.usefixtures("pytorchs_kernel")

OPERATOR = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def large(dtype=torch.float32, **options):
    """Query, key and value of a call that is answered."""
    torch.manual_seed(1)
    return [torch.randn(2, 4, 97, 32, dtype=dtype, **options) for _ in range(3)]


# ---- models ----


class Block(nn.Module):
    """Attention as it is written by hand."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(48, 3 * 96), nn.Linear(96, 48)

    def forward(self, x):
        query, key, value = self.qkv(x).unflatten(-1, (3, 4, 24)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


def losses():
    """Of three steps of training."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(48, 3, 80, dropout=0.0, batch_first=True)
    trained = nn.Sequential(Block(), layer, Block())
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    torch.manual_seed(1)
    batches, found = torch.randn(3, 4, 149, 48), []
    for batch in batches:
        optimizer.zero_grad()
        loss = (trained(batch) - batch.flip(1)).square().mean()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.usefixtures("every_size")
def test_training_gives_the_same_losses():
    expected = losses()
    with integration.install():
        found = losses()
        assert integration.report() == integration.Report(9, {}, {}, 9, {})
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[2] < found[0]
    assert losses() == expected


def several(tensor):
    """Ways in which models are run: a name, and a function of the tensor."""
    attend = Block().eval()
    return {
        "export": torch.export.export(attend, (tensor,)).module(),
        "deep copy": copy.deepcopy(attend),
        "inference mode": torch.inference_mode()(attend),
        "vmap": lambda x: torch.vmap(attend, in_dims=0)(x[None])[0],
        "grad": torch.func.grad(lambda x: attend(x).square().sum()),
        "vjp": lambda x: torch.func.vjp(attend, x)[0],
        "checkpoint": lambda x: checkpointed(attend, x),
        "default device": lambda x: on_default_device(attend, x),
    }


def checkpointed(module, x):
    leaf = x.clone().requires_grad_()
    torch.utils.checkpoint.checkpoint(module, leaf, use_reentrant=False).sum().backward()
    return leaf.grad


def on_default_device(module, x):
    """Tensors of the kernel's own are made where the inputs are."""
    with torch.device("meta"):
        return module(x)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap's, of PyTorch as it is
def test_ways_to_run_a_model():
    torch.manual_seed(0)
    x = torch.randn(2, 149, 48)
    for name, run in several(x).items():
        expected = run(x)
        with integration.install():
            found = run(x)
            assert integration.report().answered > 0, name
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.usefixtures("every_size")
def test_what_pytorch_multiplies_in_hardware_is_left_to_it(monkeypatch):
    monkeypatch.setattr(_lean_sdpa, "MOST_ROWS", {torch.bfloat16: 4})
    calls = {}
    for dtype, rows in itertools.product((torch.bfloat16, torch.float16), (4, 5)):
        tensors = [torch.randn(2, 3, n, 16, dtype=dtype) for n in (rows, 7, 7)]
        expected = F.scaled_dot_product_attention(*tensors)
        with integration.install():
            found = F.scaled_dot_product_attention(*tensors)
        calls[dtype, rows] = integration.report()
        assert (found - expected).abs().max() <= 2**-6 * expected.abs().max()
    answered = integration.Report(1, {}, {})
    handed_back = calls.pop((torch.bfloat16, 5))
    assert handed_back == integration.Report(0, {"torch.bfloat16 by AMX": 1}, {})
    assert list(calls.values()) == [answered] * 3


@pytest.mark.usefixtures("every_size")
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_under_autocast_models_compute_as_exactly_as_before(dtype, rounding):
    torch.manual_seed(0)
    attend, x = Block(), torch.randn(2, 149, 48)
    exact = copy.deepcopy(attend).double()(x.double())
    with torch.autocast("cpu", dtype):
        expected = attend(x)
        with integration.install():
            found = attend(x)
    assert integration.report() == integration.Report(1, {}, {})
    assert found.dtype == expected.dtype
    errors = [(one - exact).abs().max().item() for one in (found, expected)]
    # Attention's output is rounded as PyTorch's is, and goes on through the same layer.
    assert errors[0] <= errors[1] + 2 * rounding * exact.abs().max().item()


def test_second_derivatives_are_refused_as_before():
    query, key, value = large(requires_grad=True)
    with integration.install():
        output = F.scaled_dot_product_attention(query, key, value)
        first = torch.autograd.grad(output.sum(), query, create_graph=True)[0]
        with pytest.raises(RuntimeError, match="not implemented"):
            first.sum().backward()


# ---- installing ----


def test_uninstalling_brings_the_old_bits_back():
    tensors = large()
    expected = F.scaled_dot_product_attention(*tensors)
    integration.install()
    integration.install()
    assert not torch.equal(F.scaled_dot_product_attention(*tensors), expected)
    integration.uninstall()
    assert torch.equal(F.scaled_dot_product_attention(*tensors), expected)
    integration.uninstall()


def test_installations_nest(pytorchs_kernel):
    tensors = large()
    before = pytorchs_kernel()
    outer = integration.install()
    with integration.install() as inner:
        F.scaled_dot_product_attention(*tensors)
    inner.uninstall()
    F.scaled_dot_product_attention(*tensors)
    assert integration.report().answered == 2
    outer.uninstall()
    F.scaled_dot_product_attention(*tensors)
    assert integration.report().answered == 2
    assert pytorchs_kernel() == before


def test_an_error_inside_uninstalls(pytorchs_kernel):
    before = pytorchs_kernel()
    with pytest.raises(KeyError), integration.install():
        raise KeyError
    assert pytorchs_kernel() == before


QUIETLY = """
import warnings
import torch
before = list(warnings.filters)
from libattention.integrations.torch import install
assert warnings.filters == before
with install():
    assert warnings.filters == before
print("quiet")
"""


def in_a_new_process(code):
    """What it prints; a warning is an error."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return run.stdout, run.stderr


def test_the_warning_of_a_replaced_kernel_does_not_escape():
    """PyTorch gives it once in a process, so that this is a new one."""
    assert in_a_new_process(QUIETLY) == ("quiet\n", "")


def test_a_pytorch_that_cannot_hand_back_is_refused(monkeypatch):
    monkeypatch.delattr(torch.library, "get_kernel")
    with pytest.raises(RuntimeError, match="get_kernel"):
        integration.install()


# ---- threads and contexts ----


def test_a_context_of_the_callers(monkeypatch):
    used = []
    run = _lean_sdpa.Kind.run
    monkeypatch.setattr(
        _lean_sdpa.Kind,
        "run",
        lambda self, handle, *a: used.append(handle) or run(self, handle, *a),
    )
    context = libattention.Context(num_threads=1, engine="blas")
    with integration.install(context=context):
        F.scaled_dot_product_attention(*large())
    assert used == [context._handle]


def test_four_threads_at_once():
    sizes, rounds = [97, 113, 128, 97], 20
    inputs = [[torch.randn(2, 4, size, 32) for _ in range(3)] for size in sizes]
    failures = []

    def work(tensors, expected):
        for _ in range(rounds):
            if not torch.equal(F.scaled_dot_product_attention(*tensors), expected):
                failures.append(expected.shape)

    with integration.install():
        expected = [F.scaled_dot_product_attention(*tensors) for tensors in inputs]
        threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert integration.report().answered == len(sizes) * (rounds + 1)
    assert not failures


FORKED = """
import os, signal, threading
import torch
from libattention.integrations import _install
from libattention.integrations.torch import install
tensors = [torch.randn(2, 4, 97, 32) for _ in range(3)]
installation, held, done = install(), threading.Event(), threading.Event()

def hold():
    with _install._tally._lock, _install._changes:
        held.set()
        done.wait()

expected = torch.nn.functional.scaled_dot_product_attention(*tensors)
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    found = torch.nn.functional.scaled_dot_product_attention(*tensors)
    installation.uninstall()
    os._exit(not torch.equal(found, expected))
done.set()
thread.join()
print(os.waitpid(child, 0)[1])
"""


def test_a_forked_child_does_not_wait_for_locks_of_its_parents_threads():
    assert in_a_new_process(FORKED) == ("0\n", "")


# ---- gradients ----


def gradients(function, tensors, **options):
    """Of its result, by a direction."""
    leaves = [one.detach().requires_grad_() for one in tensors]
    output = function(*leaves, **options)
    torch.manual_seed(5)
    return torch.autograd.grad(output, leaves, torch.randn_like(output))


@pytest.mark.usefixtures("every_size")
def test_either_may_go_on_from_the_others_forward():
    """A row that sees nothing has a logarithm of 0 in both."""
    torch.manual_seed(1)
    tensors = [
        torch.randn(2, n, length, 8, dtype=torch.float64) for n, length in ((4, 6), (2, 7), (2, 7))
    ]
    mask = torch.randn(6, 7, dtype=torch.float64)
    mask[2] = -torch.inf
    options = {"attn_mask": mask}
    direction = torch.randn(2, 4, 6, 8, dtype=torch.float64)

    def forward():
        return OPERATOR(*tensors, **options)

    def backward(results):
        return BACKWARD(direction, *tensors, *results, 0.0, False, **options)

    expected = backward(forward())
    with integration.install():
        ours = forward()
        found = [backward(ours)]
    found.append(backward(ours))
    theirs = forward()
    with integration.install():
        found.append(backward(theirs))
        assert integration.report() == integration.Report(0, {}, {}, 1, {})
    for each in found:
        for one, other in zip(each, expected):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
            assert one.stride() == other.stride()
    assert (found[0][0][:, :, 2] == 0).all()


def test_dropout_and_small_gradients_are_handed_back(monkeypatch):
    monkeypatch.setitem(_lean_backward.SMALLEST_WORK, torch.float32, 1 << 21)
    query, key, value = large()
    output, lse = OPERATOR(query, key, value)
    direction = torch.randn_like(output)
    small = [one[:, :, :2] for one in (direction, query, key, value, output, lse)]
    expected = BACKWARD(*small, 0.0, False)
    with integration.install():
        found = BACKWARD(*small, 0.0, False)
        assert all(map(torch.equal, found, expected))
        BACKWARD(direction, query, key, value, output, lse, 0.5, False)
        BACKWARD(direction, query, key, value, output, lse, 0.0, False)
        found = integration.report()
    assert found == integration.Report(0, {}, {}, 1, {"too small": 1, "dropout": 1})
    assert str(found).splitlines() == [
        "answered by libattention: 0",
        "gradients by libattention: 1",
        "gradients by PyTorch: 1 (too small)",
        "gradients by PyTorch: 1 (dropout)",
    ]


@pytest.mark.usefixtures("every_size")
def test_gradients_where_pytorch_multiplies_in_hardware_are_answered_while_they_are_few(
    monkeypatch,
):
    monkeypatch.setattr(_lean_backward, "LARGEST_WORK", {torch.bfloat16: 1000})
    tensors = [torch.randn(1, 2, 7, 16, dtype=torch.bfloat16) for _ in range(3)]
    few = [one[:, :, :2] for one in tensors]
    with integration.install():
        for each in (few, tensors):
            gradients(F.scaled_dot_product_attention, each)
        found = integration.report()
    assert found == integration.Report(2, {}, {}, 1, {"torch.bfloat16 by AMX": 1})


@pytest.mark.usefixtures("every_size")
def test_what_the_backward_is_not_given_is_handed_back():
    query, key, value = (one[:, :, :7] for one in large())
    output, lse = OPERATOR(query, key, value)
    direction = torch.ones(()).expand(output.shape)
    given = (direction, query, key, value, output, lse)
    expected = BACKWARD(*given, 0.0, False)
    wide = (*given[:5], lse.double())
    with integration.install():
        found = BACKWARD(*given, 0.0, False)
        with contextlib.suppress(RuntimeError):
            BACKWARD(*wide, 0.0, False)
        with contextlib.suppress(RuntimeError):
            BACKWARD(*given[:3], value[..., :8], *given[4:], 0.0, False)
        counted = integration.report()
    torch.testing.assert_close(found, expected)
    assert counted == integration.Report(0, {}, {}, 1, {"dtypes differ": 1, "shapes": 1})


# ---- the report ----


def test_calls_are_counted_by_reason():
    query, key, value = large()
    with integration.install():
        F.scaled_dot_product_attention(query, key, value)
        F.scaled_dot_product_attention(query[:, :, :1], key, value)
        F.scaled_dot_product_attention(*(one.half() for one in (query, key, value)))
        F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.0)
        found = integration.report()
    assert found.answered == 2
    why = "is_causal with a scale of 0 or less"
    assert found.handed_back == {"too small": 1, why: 1}
    assert str(found).splitlines() == [
        "answered by libattention: 2",
        "handed back to PyTorch: 1 (too small)",
        f"handed back to PyTorch: 1 ({why})",
    ]
    with integration.install():
        assert integration.report() == integration.Report(0, {}, {})


def test_what_the_library_refuses_is_handed_back(monkeypatch):
    refuse = SimpleNamespace(attn_sdpa=lambda *arguments: lib.ATTN_ERROR_MEMORY)
    tensors = large()
    expected = F.scaled_dot_product_attention(*tensors)
    with integration.install():
        monkeypatch.setattr(_plans, "lib", refuse)
        found = F.scaled_dot_product_attention(*tensors)
    assert torch.equal(found, expected)
    assert integration.report().handed_back == {"the library's ATTN_ERROR_MEMORY": 1}


@pytest.mark.usefixtures("every_size")
def test_unusual_calls_of_the_operator_are_handed_back():
    query, key, value = (one[:, :, :5] for one in large())
    with integration.install():
        with pytest.raises(RuntimeError, match="dropout"):
            OPERATOR(query, key, value, 0.5)
        with pytest.raises(RuntimeError, match="head size"):
            OPERATOR(query, key, value[..., :3])
        with pytest.raises(RuntimeError, match="mask"):
            OPERATOR(query, key, value, attn_mask=torch.ones(5, 5, dtype=torch.bool))
        with pytest.raises(RuntimeError, match="expected scalar type"):
            OPERATOR(query, key.double(), value)
        found = integration.report()
    assert found.handed_back == {"dropout": 1, "shapes": 1, "mask": 1, "dtypes differ": 1}


def test_attention_that_goes_elsewhere_shows():
    layer = nn.TransformerEncoderLayer(16, 2, batch_first=True).eval()
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    x = torch.randn(2, 3, 16)
    with integration.install(), integration.watch(), torch.no_grad():
        layer(x)
        attention(x, x, x)
        F.scaled_dot_product_attention(*large(), dropout_p=0.5)
        F.scaled_dot_product_attention(*large())
        x.softmax(-1)
    found = integration.report()
    assert found.answered == 1
    assert found.elsewhere == dict.fromkeys(_install.ELSEWHERE.values(), 1)


# ---- time ----


def microseconds(call):
    """Of the least disturbed of many short runs."""
    call()
    return min(timeit.repeat(call, number=50, repeat=300)) / 50 * 1e6


@pytest.mark.usefixtures("every_size")
def test_overhead():
    """Printed, not asserted: whatever else the machine does would decide."""
    tensor = torch.randn(1, 1, 1, 8)

    def call(one, **options):
        return microseconds(lambda: F.scaled_dot_product_attention(one, one, one, **options))

    def calls():
        is_causal_by_nothing = {"is_causal": True, "scale": 0.0}
        return call(tensor), call(tensor.bfloat16()), call(tensor, **is_causal_by_nothing)

    with torch.inference_mode():
        plain = calls()
        with integration.install():
            installed = calls()
            assert integration.report().answered == 2 * (1 + 50 * 300)
    print(
        f"one row over one key: PyTorch {plain[0]:.1f} us, answered {installed[0]:.1f} us; "
        f"bfloat16: PyTorch {plain[1]:.1f} us, answered {installed[1]:.1f} us; "
        f"PyTorch {plain[2]:.1f} us, handed back {installed[2]:.1f} us"
    )


def test_time_beside_pytorchs():
    """Printed, not asserted."""
    query, key, value = (torch.randn(1, 8, 256, 64) for _ in range(3))

    def best():
        times = []
        for _ in range(10):
            begin = time.perf_counter()
            F.scaled_dot_product_attention(query, key, value)
            times.append(1e3 * (time.perf_counter() - begin))
        return min(times)

    plain = best()
    with integration.install():
        installed = best()
        assert integration.report().answered == 10
    print(f"8 heads of 256 x 256 x 64: PyTorch {plain:.2f} ms, installed {installed:.2f} ms")


def test_what_pytorch_gets_wrong_stays_wrong():
    """Causal rows with a scale that is not above 0 are NaN there."""
    torch.manual_seed(0)
    tensors = [torch.randn(2, 4, 96, 64) for _ in range(3)]
    expected = F.scaled_dot_product_attention(*tensors, is_causal=True, scale=-1.0)
    with integration.install():
        found = F.scaled_dot_product_attention(*tensors, is_causal=True, scale=-1.0)
        reasons = integration.report().handed_back
    assert torch.equal(found.nan_to_num(7), expected.nan_to_num(7))
    assert reasons == {"is_causal with a scale of 0 or less": 1}
