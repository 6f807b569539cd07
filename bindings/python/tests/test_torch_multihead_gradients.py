# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of layers in PyTorch: libattention::multihead, and modules that accelerate has taken
over for training, whose parameters' gradients are those of PyTorch's own."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch_cases import double, masks_of

from libattention import Dropout
from libattention import _torch_layer_calls as layer_calls
from libattention import _torch_operators as _registered  # noqa: F401
from libattention._torch_multihead import Settings, Tensors, compose, compute
from libattention.integrations.torch import accelerate, attention_maps, survey

N, ROWS, KEYS, WIDTH, HEADS = 2, 3, 4, 6, 2


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.compiler.reset()


@pytest.fixture
def runs(monkeypatch):
    """What the library was asked for: names of each call's gradients."""
    found = []
    original = layer_calls.LayerCall.differentiate

    def differentiate(self, memory, gradients, wanted):
        found.append(wanted)
        return original(self, memory, gradients, wanted)

    monkeypatch.setattr(layer_calls.LayerCall, "differentiate", differentiate)
    return found


def same(one, other, limit=1e-11):
    torch.testing.assert_close(one, other, rtol=limit, atol=limit)


def tensors_of(kdim=WIDTH, vdim=WIDTH, has_bias=True, **options):
    """Of a call of the operator, all of which require grad."""
    biases = [double(3 * WIDTH), double(WIDTH)] if has_bias else [None, None]
    given = Tensors(
        double(N, ROWS, WIDTH), double(N, KEYS, kdim), double(N, KEYS, vdim),
        double(WIDTH, WIDTH), double(WIDTH, kdim), double(WIDTH, vdim), biases[0],
        double(WIDTH, WIDTH), biases[1], **options,
    )  # fmt: skip
    for one in given:
        if one is not None and one.is_floating_point():
            one.requires_grad_()
    return given


CALLS = {
    "packed": lambda: (tensors_of(), {"return_weights": True}),
    "apart": lambda: (tensors_of(kdim=5, vdim=3), {"is_causal": True}),
    "masks": lambda: (
        tensors_of(attn_mask=double(HEADS, 1, KEYS), bias=double(N, 1, ROWS, 1), has_bias=False),
        {"return_weights": True},
    ),
    "dropout": lambda: (
        tensors_of(attn_mask=double(ROWS, KEYS) > -0.6, key_lengths=torch.tensor([4, 2])),
        {"dropout": Dropout(0.3, seed=2**63), "return_weights": True},
    ),
}


def function_of(name):
    """A call as a function of those that require grad, and these."""
    tensors, settings = CALLS[name]()
    names = [
        name for name, one in tensors._asdict().items() if one is not None and one.requires_grad
    ]

    def call(*some):
        given = tensors._replace(**dict(zip(names, some)))
        output, lse, weights = compute(given, Settings(HEADS, **settings))
        return (output, lse, weights) if settings.get("return_weights") else (output, lse)

    return call, tuple(getattr(tensors, name) for name in names)


@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_those_of_differences(name, runs):
    call, given = function_of(name)
    assert torch.autograd.gradcheck(call, given, fast_mode=name != "packed")
    assert len(runs) > 3


@pytest.mark.parametrize("name", ["masks", "dropout"])
def test_second_derivatives_are_those_of_differences(name):
    call, given = function_of(name)
    assert torch.autograd.gradgradcheck(call, given, fast_mode=True)


@pytest.mark.parametrize("name", CALLS)
def test_the_layer_computes_what_its_parts_do(name):
    tensors, settings = CALLS[name]()
    settings = Settings(HEADS, **settings)
    for one, other in zip(compute(tensors, settings), compose(tensors, settings)):
        same(one, other)


def test_the_operator_has_these_gradients(runs):
    tensors = tensors_of()
    given = (*tensors[:3], HEADS, *tensors[3:9])
    output, _, _ = torch.ops.libattention.multihead(*given, is_causal=True)
    leaves = [one for one in given if isinstance(one, torch.Tensor)]
    found = torch.autograd.grad(output.square().sum(), leaves)
    assert len(runs) == 1
    expected, _, _ = compose(tensors, Settings(HEADS, is_causal=True))
    for one, other in zip(found, torch.autograd.grad(expected.square().sum(), leaves)):
        same(one, other)


def test_other_ways_of_pytorchs_have_the_same_gradients(runs):
    tensors = tensors_of()
    call, given = function_of("packed")
    rest = (HEADS, *(one.detach() for one in tensors[3:9]))

    def loss(query, key, value):
        return torch.ops.libattention.multihead(query, key, value, *rest)[0].square().sum()

    inputs = [one.detach() for one in tensors[:3]]
    expected = torch.autograd.grad(loss(*tensors[:3]), tensors[:3])
    assert len(runs) == 1
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for one, other in zip(torch.autograd.grad(compiled(*tensors[:3]), tensors[:3]), expected):
        same(one, other)
    many = torch.stack([inputs[0], 2 * inputs[0]])
    mapped = torch.vmap(loss, (0, None, None))(many, *inputs[1:])
    for one, query in zip(mapped, many):
        same(one, loss(query, *inputs[1:]))
    output = call(*given)[0]
    directions = double(2, *output.shape)
    batched = torch.autograd.grad(
        output, given, directions, is_grads_batched=True, retain_graph=True
    )
    assert len(runs) == 1
    for place, direction in enumerate(directions):
        each = torch.autograd.grad(output, given, direction, retain_graph=True)
        for several, one in zip(batched, each):
            same(several[place], one)
    narrow = [one.detach().float().requires_grad_() for one in (*tensors[:9],)]
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = torch.autograd.grad(
            compute(Tensors(*narrow), Settings(HEADS))[0].float().sum(), narrow[0]
        )
    assert found.dtype == torch.float32
    assert len(runs) == 1 + len(directions)


def test_one_tensor_may_be_all_three():
    tensors = tensors_of()
    x = double(N, ROWS, WIDTH).requires_grad_()
    tensors, settings = tensors._replace(query=x, key=x, value=x), Settings(HEADS)
    expected = torch.autograd.grad(compose(tensors, settings)[0].square().sum(), x)
    for is_differentiated in (False, True):
        loss = compute(tensors, settings)[0].square().sum()
        found = torch.autograd.grad(loss, x, create_graph=is_differentiated)
        same(found[0], expected[0])


def test_tensors_that_were_changed_meanwhile_are_noticed():
    tensors = tensors_of()
    output = compute(tensors, Settings(HEADS))[0]
    with torch.no_grad():
        tensors.q_proj_weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_weights_alone_and_lse_alone_have_gradients():
    tensors, settings = tensors_of(), Settings(HEADS, return_weights=True)
    for which in (1, 2):
        leaves = [tensors.query, tensors.q_proj_weight]
        found = torch.autograd.grad(compute(tensors, settings)[which].square().sum(), leaves)
        expected = torch.autograd.grad(compose(tensors, settings)[which].square().sum(), leaves)
        for one, other in zip(found, expected):
            same(one, other)


# ---- modules ----

MODULES = {
    "packed": {"batch_first": True},
    "apart": {"kdim": 5, "vdim": 3},
    "without biases": {"bias": False, "batch_first": True},
}


@pytest.mark.parametrize(
    ("options", "masks", "weights"),
    list(itertools.product(MODULES, ("none", "padding", "both", "each"), (None, True, False))),
)
def test_modules_have_pytorchs_gradients(options, masks, weights, runs):
    theirs = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, **MODULES[options])
    for one in theirs.parameters():
        nn.init.normal_(one)
    ours = accelerate(copy.deepcopy(theirs), training=True)
    shapes = [(N, ROWS, WIDTH), (N, KEYS, theirs.kdim), (N, KEYS, theirs.vdim)]
    given = [double(*shape) for shape in shapes]
    if not theirs.batch_first:
        given = [one.transpose(0, 1) for one in given]
    given = [one.requires_grad_() for one in given]
    padding, pairs = masks_of(N, HEADS, ROWS, KEYS)[masks]
    pairs = pairs.double() if masks == "each" else pairs
    found, directions = [], None
    for module in (theirs, ours):
        results = module(
            *given, padding, weights is not None, pairs, average_attn_weights=bool(weights)
        )
        results = [one for one in results if one is not None]
        directions = directions or [torch.rand_like(one) for one in results]
        loss = sum((one * along).sum() for one, along in zip(results, directions))
        found.append([*results, *torch.autograd.grad(loss, [*given, *module.parameters()])])
    assert len(runs) == 1
    for one, other in zip(*found):
        same(one, other)


def test_an_unbatched_module_and_maps():
    theirs = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64)
    ours, x = accelerate(copy.deepcopy(theirs), training=True), double(ROWS, WIDTH)
    mask = double(HEADS, ROWS, ROWS)
    expected = theirs(x, x, x, attn_mask=mask)
    for one, other in zip(ours(x, x, x, attn_mask=mask), expected):
        assert one.shape == other.shape
        same(one, other)
    with attention_maps(ours) as maps:
        ours(x, x, x, need_weights=False)
    assert maps[""][0].shape == (HEADS, ROWS, ROWS)


@pytest.mark.parametrize(
    "trained", [["out_proj.bias"], ["in_proj_weight", "in_proj_bias"], ["out_proj.weight"], []]
)
def test_what_is_frozen_has_no_gradient_and_takes_no_work(trained, runs):
    module = accelerate(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), training=True)
    for name, one in module.named_parameters():
        one.requires_grad_(name in trained)
    x = torch.randn(N, ROWS, WIDTH, requires_grad=not trained)
    module(x, x, x)[0].square().sum().backward()
    for name, one in module.named_parameters():
        assert (one.grad is not None) == (name in trained)
    parts = [f"{which}_proj_weight" for which in "qkv"]
    wanted = {"in_proj_weight": parts, "out_proj.weight": ["out_proj_weight"]}
    expected = [own for name in trained for own in wanted.get(name, [name.replace(".", "_")])]
    assert runs == [expected or ["query", "key", "value"]]


def test_an_encoder_layer_trains_as_pytorchs():
    theirs = nn.TransformerEncoderLayer(WIDTH, HEADS, 8, dropout=0.0, batch_first=True).double()
    ours = accelerate(copy.deepcopy(theirs), training=True)
    x, goal = double(4, ROWS, WIDTH), double(4, ROWS, WIDTH)
    padding = torch.zeros(4, ROWS, dtype=torch.bool)
    padding[1, 2] = True
    for layer in (theirs, ours):
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
        for _ in range(5):
            optimizer.zero_grad()
            (layer(x, src_key_padding_mask=padding) - goal).square().mean().backward()
            optimizer.step()
    assert survey(ours).computed == {"self_attn": 5}
    for one, other in zip(ours.parameters(), theirs.parameters()):
        same(one, other, 1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_modules_of_16_bits_have_the_gradients_of_their_numbers(dtype, monkeypatch):
    monkeypatch.setattr(layer_calls, "_LEFT", ())
    module = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=dtype)
    exact = copy.deepcopy(module).double()
    x = torch.randn(N, ROWS, WIDTH).to(dtype)
    direction = torch.rand(N, ROWS, WIDTH).to(dtype)
    found = []
    for one in (accelerate(module, training=True), exact):
        given = x.detach().clone().to(one.in_proj_weight.dtype).requires_grad_()
        one(given, given, given)[0].backward(direction.to(given.dtype))
        found.append([given.grad, *(parameter.grad for parameter in one.parameters())])
    eps = torch.finfo(dtype).eps
    for one, other in zip(*found):
        assert one.dtype == dtype
        # Each gradient is rounded once; that of x is a sum of three.
        torch.testing.assert_close(one.double(), other, rtol=eps, atol=3 * eps)
