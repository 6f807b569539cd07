# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's F.scaled_dot_product_attention with and without libattention behind it.

Random calls are computed three times: by PyTorch, by libattention, and by PyTorch in float64 or,
for what is float64 already, by the math path. Both errors are measured relative to the largest
magnitude of the exact tensor. float32 has 6e-8 of it at best, float64 1e-16; an output is three
sums one after the other, a gradient four, of a few dozen terms: a hundred times as much is allowed.
"""

import os
import random
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
from libattention.integrations import _install, _lean_sdpa
from libattention.integrations import torch as integration

CALLS = int(os.environ.get("ATTENTION_DIFFERENTIAL", "300"))
COMPILED = 12
LIMITS = {torch.float32: 1e-5, torch.float64: 2e-14}
OPERATOR = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
INFINITY = float("inf")


@pytest.fixture(autouse=True)
def _pytorch_is_left_as_it_was():
    before = kernel()
    yield
    integration.uninstall()
    assert kernel() == before


def kernel():
    """Where PyTorch has the operator's kernel for CPUs from, and who has replaced it."""
    table = torch._C._dispatch_dump(f"aten::{_install.OPERATOR}").splitlines()
    replaced = [one for one in torch.library._impls if _install.OPERATOR + "/CPU" in one]
    return [line for line in table if line.startswith("CPU")], replaced


@pytest.fixture
def every_size(monkeypatch):
    """Small calls are answered, too."""
    monkeypatch.setattr(_lean_sdpa, "SMALLEST_WORK", dict.fromkeys(LIMITS, 0))
    _lean_sdpa.plan_of.cache_clear()
    yield
    _lean_sdpa.plan_of.cache_clear()


def large(dtype=torch.float32, **options):
    """Query, key and value of a call that is answered."""
    torch.manual_seed(1)
    return [torch.randn(2, 4, 97, 32, dtype=dtype, **options) for _ in range(3)]


# ---- random calls ----


class Case:
    """A random call of F.scaled_dot_product_attention."""

    def __init__(self, seed):
        draw = random.Random(seed)
        torch.manual_seed(seed)
        self.dtype = draw.choice([torch.float32] * 4 + [torch.float64] * 2 + [torch.bfloat16])
        batches, width = draw.choice([1, 1, 2, 3]), draw.choice([1, 3, 8, 17, 32, 64])
        key_heads = draw.choice([1, 2, 3])
        heads = key_heads * draw.choice([1, 1, 2, 3])
        rows = draw.choice([0, 1, 2, 7, 16, 31, 64, 97])
        keys = rows if draw.random() < 0.4 else draw.choice([0, 1, 2, 5, 13, 32, 61, 130])
        self.tensors = [
            laid_out(draw, (batches, heads, rows, width), self.dtype),
            laid_out(draw, (batches, key_heads, keys, width), self.dtype),
            laid_out(draw, (batches, key_heads, keys, width), self.dtype),
        ]
        self.options = {"enable_gqa": heads != key_heads}
        kind = draw.choice(["none", "causal", "bool", "float"])
        if draw.random() < 0.3:
            # PyTorch's kernel multiplies is_causal's -inf, too: 0 and less make NaN of it.
            self.options["scale"] = draw.choice([0.2, 1] if kind == "causal" else [0.0, -0.5, 0.2])
        if kind == "causal":
            self.options["is_causal"] = True
        elif kind != "none":
            self.options["attn_mask"] = mask(draw, (batches, heads, rows, keys), kind, self.dtype)
        self.text = f"seed {seed}: {self.dtype}, " + ", ".join(
            f"{name} {tuple(one.shape)} {one.stride()}"
            for name, one in zip(("query", "key", "value", kind), self.all_tensors())
        )

    def all_tensors(self):
        return [*self.tensors, *[one for one in [self.options.get("attn_mask")] if one is not None]]

    def run(self, function=F.scaled_dot_product_attention, convert=lambda tensor: tensor):
        """The output, and the gradients of query, key and value."""
        leaves = [convert(one).detach().requires_grad_() for one in self.tensors]
        options = dict(self.options)
        found = options.get("attn_mask")
        if found is not None and found.dtype != torch.bool:
            options["attn_mask"] = convert(found)
        output = function(*leaves, **options)
        torch.manual_seed(0)
        weights = torch.randn(output.shape, dtype=torch.float64).to(output.dtype)
        (output * weights).sum().backward()
        return [output.detach(), *(one.grad for one in leaves)]


def laid_out(draw, shape, dtype):
    """Random numbers in a layout that models have."""
    n, h, length, e = shape
    kind = draw.choice(["plain", "heads inside", "of a projection", "rows apart", "one for all"])
    if kind == "heads inside":
        return torch.randn(n, length, h, e, dtype=dtype).transpose(1, 2)
    if kind == "of a projection":
        return torch.randn(n, length, 3, h, e, dtype=dtype)[:, :, 1].transpose(1, 2)
    if kind == "rows apart":
        return torch.randn(n, h, 2 * length, e, dtype=dtype)[:, :, ::2]
    if kind == "one for all":
        return torch.randn(1, 1, length, e, dtype=dtype).expand(shape)
    return torch.randn(shape, dtype=dtype)


def mask(draw, scores, kind, dtype):
    """Broadcastable to the scores' shape; some rows of it see nothing."""
    batches, heads, rows, keys = scores
    shape = draw.choice(
        [(rows, keys), (1, keys), scores, (batches, 1, 1, keys), (1, heads, rows, keys)]
    )
    seen = torch.rand(shape) < draw.choice([0.3, 0.7, 0.95])
    seen[..., torch.rand(shape[-2]) < 0.1, :] = False
    if kind == "bool":
        return seen
    return torch.randn(shape, dtype=dtype).masked_fill(~seen, -INFINITY)


def exact(case):
    """By the math path in float64, which gives 0 to rows that see nothing."""
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        return case.run(convert=lambda tensor: tensor.double())


def error(found, expected):
    """The largest one, relative to the largest number expected, or to 1: the size of the terms
    where they cancel.
    """
    if expected.numel() == 0:
        return 0.0
    assert torch.isfinite(found).all()
    return ((found.double() - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def compare(case, installed, worst):
    """Installed and plain PyTorch, beside the exact numbers."""
    plain = case.run()
    for ours, theirs, true in zip(installed, plain, exact(case)):
        assert ours.dtype == theirs.dtype, case.text
        assert (ours.shape, ours.stride()) == (theirs.shape, theirs.stride()), case.text
        if case.dtype not in LIMITS:
            assert torch.equal(ours, theirs), case.text
            continue
        errors = error(ours, true), error(theirs, true)
        assert errors[0] <= LIMITS[case.dtype], f"{case.text}: {errors}"
        worst[case.dtype] = [max(pair) for pair in zip(worst[case.dtype], errors)]


@pytest.mark.usefixtures("every_size")
def test_random_calls():
    worst = {dtype: [0.0, 0.0] for dtype in LIMITS}
    answered = 0
    for seed in range(CALLS):
        case = Case(seed)
        with integration.install():
            installed = case.run()
            answered += integration.report().answered
        compare(case, installed, worst)
    assert answered > CALLS / 2
    for dtype, (ours, theirs) in worst.items():
        print(
            f"{CALLS} calls, {answered} answered, {dtype}: worst {ours:.1e}, PyTorch {theirs:.1e}"
        )


@pytest.mark.usefixtures("every_size")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_random_compiled_calls(backend):
    torch._dynamo.reset()
    worst = {dtype: [0.0, 0.0] for dtype in LIMITS}
    answered = 0
    for seed in range(1000, 1000 + COMPILED):
        case = Case(seed)
        torch._dynamo.reset()
        with integration.install():
            function = torch.compile(
                lambda *tensors, **options: F.scaled_dot_product_attention(*tensors, **options),
                backend=backend,
                fullgraph=True,
                dynamic=False,
            )
            installed = case.run(function)
            answered += integration.report().answered
        compare(case, installed, worst)
    assert answered > COMPILED / 3


# ---- what the operator returns ----


@pytest.mark.usefixtures("every_size")
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (2, 1, 0, 3)])
def test_the_logarithms_and_the_layouts_are_pytorchs(dtype, order):
    shape = (2, 3, 7, 8)
    stored = torch.randn([shape[axis] for axis in order], dtype=dtype)
    query = stored.permute([order.index(axis) for axis in range(4)])
    key = torch.randn(2, 3, 5, 8, dtype=dtype)
    mask = torch.randn(7, 5, dtype=dtype)
    mask[2] = -INFINITY
    mask[4, 1:] = -INFINITY
    for options in ({}, {"is_causal": True}, {"attn_mask": mask}, {"attn_mask": mask[:, :1]}):
        expected = OPERATOR(query, key, key, **options)
        with integration.install():
            found = OPERATOR(query, key, key, **options)
            assert integration.report().answered == 1
        for ours, theirs in zip(found, expected):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=LIMITS[dtype])
            assert ours.stride() == theirs.stride()
    assert (found[1][:, :, 2] == 0).all()


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


def model():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(48, 3, 80, dropout=0.0, batch_first=True)
    return nn.Sequential(Block(), layer, Block())


def losses():
    """Of three steps of training."""
    trained = model().train()
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


def test_training_gives_the_same_losses():
    expected = losses()
    with integration.install():
        found = losses()
        assert integration.report() == integration.Report(9, {}, {})
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[2] < found[0]
    assert losses() == expected


def several(tensor):
    """Ways in which models are run: a name, and a function of the tensor."""
    attend = Block().eval()
    exported = torch.export.export(attend, (tensor,)).module()
    return {
        "export": exported,
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


def test_autocast_is_pytorchs():
    attend, x = Block(), torch.randn(2, 149, 48)
    with torch.autocast("cpu", torch.bfloat16):
        expected = attend(x)
        with integration.install():
            found = attend(x)
    assert torch.equal(found, expected)
    assert integration.report() == integration.Report(0, {"torch.bfloat16": 1}, {})


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


def test_installations_nest():
    tensors = large()
    before = kernel()
    outer = integration.install()
    with integration.install() as inner:
        F.scaled_dot_product_attention(*tensors)
    inner.uninstall()
    F.scaled_dot_product_attention(*tensors)
    assert integration.report().answered == 2
    outer.uninstall()
    F.scaled_dot_product_attention(*tensors)
    assert integration.report().answered == 2
    assert kernel() == before


def test_an_error_inside_uninstalls():
    before = kernel()
    with pytest.raises(KeyError), integration.install():
        raise KeyError
    assert kernel() == before


IN_A_NEW_PROCESS = """
import warnings
import torch
before = list(warnings.filters)
from libattention.integrations.torch import install
assert warnings.filters == before
with install():
    assert warnings.filters == before
print("quiet")
"""


def test_the_warning_of_a_replaced_kernel_does_not_escape():
    """PyTorch gives it once in a process, so that this is a new one."""
    command = [sys.executable, "-W", "error::UserWarning", "-c", IN_A_NEW_PROCESS]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("quiet\n", "")


def test_a_pytorch_that_cannot_hand_back_is_refused(monkeypatch):
    monkeypatch.delattr(torch.library, "get_kernel")
    with pytest.raises(RuntimeError, match="get_kernel"):
        integration.install()


# ---- threads and contexts ----


def test_threads_follow_pytorch(monkeypatch):
    made = []
    monkeypatch.setattr(
        _install, "Context", lambda *a, **k: made.append(a) or libattention.Context(*a, **k)
    )
    tensors, before = large(), torch.get_num_threads()
    try:
        with integration.install():
            for count in (1, 3, 1):
                torch.set_num_threads(count)
                F.scaled_dot_product_attention(*tensors)
    finally:
        torch.set_num_threads(before)
    assert made == [(1,), (3,)]


def test_a_context_of_the_callers(monkeypatch):
    used = []
    run = _lean_sdpa.Plan.run
    monkeypatch.setattr(
        _lean_sdpa.Plan,
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


# ---- the report ----


def test_calls_are_counted_by_reason():
    query, key, value = large()
    with integration.install():
        F.scaled_dot_product_attention(query, key, value)
        F.scaled_dot_product_attention(query[:, :, :1], key, value)
        F.scaled_dot_product_attention(*(one.half() for one in (query, key, value)))
        found = integration.report()
    assert found.answered == 1
    assert found.handed_back == {"too small": 1, "torch.float16": 1}
    assert str(found).splitlines() == [
        "answered by libattention: 1",
        "handed back to PyTorch: 1 (too small)",
        "handed back to PyTorch: 1 (torch.float16)",
    ]
    with integration.install():
        assert integration.report() == integration.Report(0, {}, {})


def test_what_the_library_refuses_is_handed_back(monkeypatch):
    refuse = SimpleNamespace(
        attn_sdpa=lambda *arguments: libattention._library.lib.ATTN_ERROR_MEMORY
    )
    tensors = large()
    expected = F.scaled_dot_product_attention(*tensors)
    with integration.install():
        monkeypatch.setattr(_lean_sdpa, "lib", refuse)
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
    half = tensor.bfloat16()

    def call(one):
        return microseconds(lambda: F.scaled_dot_product_attention(one, one, one))

    with torch.inference_mode():
        plain = call(tensor), call(half)
        with integration.install():
            installed = call(tensor), call(half)
            assert integration.report().answered == 1 + 50 * 300
    print(
        f"one row over one key: PyTorch {plain[0]:.1f} us, answered {installed[0]:.1f} us; "
        f"bfloat16: PyTorch {plain[1]:.1f} us, handed back {installed[1]:.1f} us"
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
