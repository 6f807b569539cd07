# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of the operator libattention::sdpa, which are those of libattention::sdpa_backward:
gradcheck over a product of options, second derivatives, PyTorch's ways to transform them.

gradcheck compares with differences of float64: results of the library and its gradients, each.
"""

import itertools
import os
import random
from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from libattention import Context, Error
from libattention import scaled_dot_product_attention as sdpa
from libattention._torch_options import DEFAULTS, TENSORS
from libattention._torch_vmap import NUM_RESULTS

DOUBLE = torch.float64
BATCH, HEADS, ROWS, KEYS, FEATURES, VALUES = 2, 2, 3, 4, 3, 2
NAMES = ("attn_mask", "bias", "sinks", "alibi_slopes", "position_bias")
MODULES = int(os.environ.get("ATTENTION_DIFFERENTIAL", "300")) // 3


def double(*shape):
    return torch.rand(shape, dtype=DOUBLE) * 2 - 1


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def inputs(kv_heads=HEADS):
    shapes = ((HEADS, ROWS, FEATURES), (kv_heads, KEYS, FEATURES), (kv_heads, KEYS, VALUES))
    return [double(BATCH, *shape).requires_grad_() for shape in shapes]


def partly_hidden():
    mask = double(BATCH, 1, ROWS, KEYS)
    mask[0, 0, 1, 2] = mask[1, 0, 2] = -torch.inf  # one key, and all of a row
    return mask


MASKS = {
    "none": dict,
    "bool": lambda: {"attn_mask": double(ROWS, KEYS) > -0.5},
    "added": lambda: {"bias": double(HEADS, 1, KEYS)},
    "placed": lambda: {"attn_mask": double(ROWS, 2), "mask_start": torch.tensor([1, 2])},
    "distance": lambda: {"position_bias": double(HEADS, 5)},
}
POSITIONS = {
    "none": {},
    "causal": {"is_causal": True, "query_offset": torch.tensor([1, 0])},
    "end": {"align_end": True, "window": (2, 1), "key_lengths": torch.tensor([4, 2])},
}
FURTHER = {
    "none": dict,
    "grouped": lambda: {"enable_gqa": True, "scale": 0.3},
    "alibi": lambda: {"alibi_slopes": double(HEADS), "softcap": 2.0},
    "sinks": lambda: {"sinks": double(1)},
    "sigmoid": lambda: {"normalizer": "sigmoid"},
    "linear": lambda: {"normalizer": "linear"},
}
PRODUCT = list(itertools.product(MASKS, POSITIONS, FURTHER))


def function_of(mask, positions, further):
    """A function of every tensor that has a gradient, and these."""
    options = {**MASKS[mask](), **POSITIONS[positions], **FURTHER[further]()}
    given = inputs(kv_heads=1 if further == "grouped" else HEADS)
    names = [name for name in NAMES if name in options and options[name].is_floating_point()]
    has_lse = further not in ("sigmoid", "linear")

    def call(query, key, value, *others):
        named = {**options, **dict(zip(names, others))}
        results = sdpa(query, key, value, **named, return_lse=has_lse, return_weights=True)
        return tuple(torch.where(one.isfinite(), one, 0) for one in results)

    return call, (*given, *(options[name].requires_grad_() for name in names))


@pytest.mark.parametrize(("mask", "positions", "further"), PRODUCT)
def test_gradients_are_those_of_differences(mask, positions, further):
    call, given = function_of(mask, positions, further)
    # A random combination of rows and columns stands for all, but where nothing else would show.
    is_fast = (mask, positions, further) != PRODUCT[0]
    assert torch.autograd.gradcheck(call, given, fast_mode=is_fast)


@pytest.mark.parametrize(("mask", "positions", "further"), PRODUCT[:: len(FURTHER) + 1])
def test_second_derivatives_are_those_of_differences(mask, positions, further):
    call, given = function_of(mask, positions, further)
    for place in (0, 1):
        results = partial(lambda place, *some: call(*some)[place], place)
        assert torch.autograd.gradgradcheck(results, given, fast_mode=True)


def test_rows_that_see_nothing_have_gradients_of_0():
    query, key, value = inputs()
    mask = partly_hidden().requires_grad_()
    output, lse = sdpa(query, key, value, mask, return_lse=True)
    assert lse[1, :, 2].isneginf().all()
    loss = output.sum() + torch.where(lse.isfinite(), lse, 0).sum()
    found = torch.autograd.grad(loss, (query, key, value, mask))
    assert all(one.isfinite().all() for one in found)
    assert (found[0][1, :, 2] == 0).all()
    assert (found[3][1, :, 2] == 0).all()


class Names(TorchDispatchMode):
    """The operators that run, below autograd."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_the_library_computes_them_and_nothing_is_as_large_as_the_scores():
    given = inputs()
    with Names() as modes:
        sdpa(*given, is_causal=True, softcap=2.0).square().sum().backward()
    assert modes.found.count("libattention::sdpa") == 1
    assert modes.found.count("libattention::sdpa_backward") == 1
    assert not any(name in ("aten::bmm", "aten::exp", "aten::_softmax") for name in modes.found)


def test_what_no_gradient_is_wanted_of_is_not_computed():
    query, key, value = inputs()
    key.requires_grad_(False)
    calls = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func._schema.name == "libattention::sdpa_backward":
                calls.append(args)
            return func(*args, **(kwargs or {}))

    with Seen():
        sdpa(query, key, value).sum().backward()
    assert len(calls) == 1
    wanted = calls[0][NUM_RESULTS + len(DEFAULTS)]
    assert [TENSORS[index] for index in wanted] == ["query", "value"]
    assert key.grad is None


@pytest.mark.parametrize("dtype", [DOUBLE, torch.bfloat16])
def test_the_backward_keeps_pytorchs_rules(dtype):
    given = [one.detach().to(dtype).requires_grad_() for one in inputs()]
    with torch.no_grad():
        wide = torch.float32 if dtype == torch.bfloat16 else dtype
        output = torch.empty(BATCH, HEADS, ROWS, VALUES, dtype=wide)
        _, lse = sdpa(*given, out=output, return_lse=True)
    direction = torch.rand(output.shape).to(dtype)
    arguments = (direction, None, None, output, lse, *given)
    outcome = torch.library.opcheck(torch.ops.libattention.sdpa_backward.default, arguments)
    assert set(outcome.values()) == {"SUCCESS"}


def test_a_wide_output_has_no_gradient_to_lose():
    given = [one.detach().bfloat16() for one in inputs()]
    output, _, _ = torch.ops.libattention.sdpa(*given, wide_output=True)
    assert output.dtype == torch.float32
    given[0].requires_grad_()
    with pytest.raises(Error, match=r"^wide_output: cannot be given where a tensor requires"):
        torch.ops.libattention.sdpa(*given, wide_output=True)
    with FakeTensorMode():
        fake = [torch.empty(1, 2, 3, 4, dtype=torch.float16) for _ in range(3)]
        assert torch.ops.libattention.sdpa(*fake, wide_output=True)[0].dtype == torch.float32


# ---- transformations ----


@pytest.mark.parametrize("shared", ["nothing", "keys", "options"])
def test_gradients_of_each_of_many_calls(shared):
    query, key, value = (double(3, *one.shape) for one in inputs())
    bias, sinks, table = double(HEADS, 1, KEYS), double(HEADS), double(HEADS, 3)
    lengths = torch.tensor([[4, 2], [1, 3], [2, 2]])

    def loss(query, key, value, bias, sinks, table, lengths):
        options = {"bias": bias, "sinks": sinks, "position_bias": table, "key_lengths": lengths}
        output, lse = sdpa(query, key, value, **options, is_causal=True, return_lse=True)
        return (output.square().sum() + torch.where(lse.isfinite(), lse, 0).sum()) / 3

    if shared == "keys":
        key, value = key[0], value[0]
    axes = (0, *([0, 0] if shared != "keys" else [None, None]), None, None, None, 0)
    which = (0, 1, 2, 3) if shared != "options" else tuple(range(6))
    gradients = torch.func.grad(loss, which)
    given = (query, key, value, bias, sinks, table, lengths)
    found = torch.vmap(gradients, axes)(*given)
    expected = [
        gradients(*(one if axis is None else one[index] for one, axis in zip(given, axes)))
        for index in range(3)
    ]
    for one, *several in zip(found, *expected):
        torch.testing.assert_close(one, torch.stack(several), rtol=1e-12, atol=1e-14)


def test_a_jacobian_by_vmap_over_directions():
    query, key, value = (one.detach()[0] for one in inputs())

    def call(query, key, value):
        return sdpa(query, key, value, window=(1, 1), return_lse=True)

    found = torch.func.jacrev(call, (0, 1, 2))(query, key, value)
    for result in range(2):
        for which, one in enumerate((query, key, value)):
            shape = found[result][which].shape
            rows = found[result][which].reshape(-1, one.numel())
            for index, row in enumerate(rows):
                leaves = [each.clone().requires_grad_() for each in (query, key, value)]
                flat = call(*leaves)[result].flatten()
                expected = torch.autograd.grad(flat[index], leaves, allow_unused=True)[which]
                expected = torch.zeros_like(one) if expected is None else expected
                torch.testing.assert_close(row, expected.flatten(), rtol=1e-12, atol=1e-14)
            assert shape[-one.dim() :] == one.shape
    leaf = query.clone().requires_grad_()
    output = sdpa(leaf, key, value)
    # By PyTorch's older vmap, for which the formula computes.
    directions = torch.eye(output.numel(), dtype=DOUBLE).reshape(-1, *output.shape)
    (batched,) = torch.autograd.grad(
        output, leaf, directions, is_grads_batched=True, retain_graph=True
    )
    for direction, each in zip(directions, batched):
        (one,) = torch.autograd.grad(output, leaf, direction, retain_graph=True)
        torch.testing.assert_close(each, one, rtol=1e-12, atol=1e-14)


def test_calls_without_heads_under_vmap():
    query, key, value = (one.detach()[0] for one in inputs())

    def loss(*given):
        return sdpa(*given).square().sum()

    found = torch.vmap(torch.func.grad(loss, (0, 1, 2)))(query, key, value)
    expected = torch.func.grad(loss, (0, 1, 2))(query[None], key[None], value[None])
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("dtype", "dynamic"), [(torch.float32, False), (torch.bfloat16, True)])
def test_a_compiled_step_has_the_gradients_of_an_eager_one(dtype, dynamic):
    torch.compiler.reset()
    table = double(HEADS, 5).to(dtype).requires_grad_()

    def step(one, table):
        output, lse = sdpa(one, one, one, position_bias=table, is_causal=True, return_lse=True)
        return output.float().square().mean() + lse.mean()

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for rows in (3, 6):
        leaves = [double(BATCH, HEADS, rows, 8).to(dtype).requires_grad_(), table]
        expected, found = (torch.autograd.grad(f(*leaves), leaves) for f in (step, compiled))
        assert all(map(torch.equal, found, expected))


def test_a_context_computes_the_gradients_too():
    given = inputs()
    context = Context(num_threads=2)
    found = torch.autograd.grad(sdpa(*given, context=context).sum(), given)
    expected = torch.autograd.grad(sdpa(*given).sum(), given)
    assert all(map(torch.equal, found, expected))
    output = sdpa(*given, context=Context(num_threads=1))  # which nobody else keeps
    found = torch.autograd.grad(output.sum(), given)
    assert all(map(torch.equal, found, expected))


def test_tensors_that_were_changed_meanwhile_are_noticed():
    query, key, value = inputs()
    output = sdpa(query, key, value)
    with torch.no_grad():
        key.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


# ---- random modules ----


class Random(torch.nn.Module):
    """Projections around one call with random options, whose tensors are parameters."""

    def __init__(self, seed):
        super().__init__()
        draw = random.Random(seed)
        torch.manual_seed(seed)
        heads, group = draw.choice([1, 2]), draw.choice([1, 2, 3])
        self.heads = (heads * group, heads, heads)
        self.width = draw.choice([2, 3, 8])
        embed = draw.choice([4, 5])
        make = torch.nn.Linear
        self.project = torch.nn.ModuleList(make(embed, n * self.width) for n in self.heads)
        self.join = make(heads * group * self.width, embed)
        self.shape = (draw.choice([1, 2]), draw.choice([1, 3, 9]), embed)
        self.options = {
            "is_causal": draw.random() < 0.5,
            "softcap": draw.choice([0.0, 2.0]),
            "window": draw.choice([(-1, -1), (2, 0)]),
            "normalizer": draw.choice(["softmax", "softmax", "sigmoid"]),
        }
        self.named = torch.nn.ParameterDict()
        shapes = {
            "alibi_slopes": (heads * group,),
            "position_bias": (draw.choice([1, heads * group]), 5),
            "bias": (draw.choice([1, heads * group]), 1, self.shape[1]),
        }
        if self.options["normalizer"] == "softmax":
            shapes["sinks"] = (draw.choice([1, heads * group]),)
        for name, shape in shapes.items():
            if draw.random() < 0.4:
                self.named[name] = torch.nn.Parameter(torch.randn(shape))

    def forward(self, x, is_exact):
        heads = [
            project(x).unflatten(-1, (n, self.width)).transpose(1, 2)
            for project, n in zip(self.project, self.heads)
        ]
        call = formula if is_exact else sdpa
        output = call(*heads, enable_gqa=True, **self.options, **self.named)
        return x + self.join(output.transpose(1, 2).flatten(2))


def formula(query, key, value, window, **options):
    from libattention._torch_eager import attend
    from libattention._torch_options import TorchOptions

    before, after = window
    given = TorchOptions(window_left=before, window_right=after, **options)
    return attend(query, key, value, given).output


def test_random_modules_train_as_the_formula_does():
    for seed in range(MODULES):
        pair = []
        for is_exact in (False, True):
            module = Random(seed).double()
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
            torch.manual_seed(seed)
            x, losses = torch.randn(module.shape, dtype=DOUBLE), []
            for _ in range(2):
                optimizer.zero_grad()
                loss = (module(x, is_exact) - x.flip(1)).square().mean()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            pair.append([*losses, *(one.detach() for one in module.parameters())])
        for one, other in zip(*pair):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11, msg=f"seed {seed}")
