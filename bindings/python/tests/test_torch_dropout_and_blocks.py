# SPDX-License-Identifier: BSD-3-Clause
"""Dropout and masks by blocks of tensors that go through PyTorch: gradients, transformations, and
a Dropout whose seed a generator draws."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch_cases import double

from libattention import Dropout, Error, explain_backward
from libattention import scaled_dot_product_attention as sdpa
from libattention._torch_eager import attend as formula
from libattention._torch_options import TorchOptions

# PyTorch's forward mode warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
BATCH, HEADS, ROWS, KEYS, FEATURES, VALUES = 2, 2, 3, 4, 3, 2
BLOCKS = {"block_mask": torch.tensor([[2, 1, 0], [1, 0, 2]], dtype=torch.uint8), "block_size": 2}
BLOCKS["block_mask"] = BLOCKS["block_mask"][:, :2]
DROPOUT = Dropout(0.4, seed=2**64 - 3, offset=5, batch=7, head=1, row=2, column=3)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.compiler.reset()


def inputs(kv_heads=HEADS):
    shapes = ((HEADS, ROWS, FEATURES), (kv_heads, KEYS, FEATURES), (kv_heads, KEYS, VALUES))
    return tuple(double(BATCH, *shape).requires_grad_() for shape in shapes)


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


OPTIONS = {
    "dropout": lambda: {"dropout": DROPOUT, "is_causal": True, "query_offset": 1},
    "blocks": lambda: BLOCKS,
    "blocks of a bool mask": lambda: {"attn_mask": double(ROWS, KEYS) > -0.3, **BLOCKS},
    "all": lambda: {
        "attn_mask": double(HEADS, ROWS, KEYS),
        "bias": double(1, KEYS),
        "sinks": double(HEADS),
        "dropout": DROPOUT,
        "enable_gqa": True,
        **BLOCKS,
    },
    "sigmoid": lambda: {"dropout": Dropout(0.5), "normalizer": "sigmoid"},
}


def function_of(name):
    """A function of every tensor that has a gradient, and these."""
    options = OPTIONS[name]()
    given = inputs(kv_heads=1 if "enable_gqa" in options else HEADS)
    names = [
        name for name, one in options.items()
        if isinstance(one, torch.Tensor) and one.is_floating_point()
    ]  # fmt: skip
    has_lse = "normalizer" not in options

    def call(query, key, value, *others):
        named = {**options, **dict(zip(names, others))}
        return sdpa(query, key, value, **named, return_lse=has_lse, return_weights=True)

    return call, (*given, *(options[name].requires_grad_() for name in names))


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_are_those_of_differences(name):
    call, given = function_of(name)
    direct = call(*(one.detach() for one in given))
    assert all(map(torch.equal, call(*given), direct))
    assert torch.autograd.gradcheck(call, given, fast_mode=name != "all")


@pytest.mark.parametrize("name", ["dropout", "all"])
def test_second_derivatives_and_tangents_are_those_of_differences(name):
    call, given = function_of(name)
    assert torch.autograd.gradgradcheck(lambda *some: call(*some)[0], given, fast_mode=True)
    fast = {"fast_mode": True, "check_backward_ad": False, "check_forward_ad": True}
    assert torch.autograd.gradcheck(call, given, **fast)


def test_the_formula_drops_what_the_library_does():
    shapes = [(3, 1, 4, 5, 2), (1, 2, 1, 7, 2), (3, 2, 4, 7, 2)]
    query, key, value = (double(*shape) for shape in shapes)
    given = {"dropout": 0.3, "dropout_seed": 9, "dropout_offset": -1, "dropout_row": 1}
    dropout = Dropout(0.3, seed=9, offset=2**64 - 1, row=1)
    lone = [one[0, 0, 0] for one in (query, key, value)]
    for some in ((query, key, value), (query, key, value[0, 0]), lone):
        found = formula(*some, TorchOptions(**given))
        expected = sdpa(*some, dropout=dropout, return_lse=True, return_weights=True)
        for one, other in zip((found.output, found.lse, found.weights), expected):
            same(one.expand(other.shape), other)


@pytest.mark.parametrize("of", ["sdpa", "sdpa_backward"])
def test_operators_keep_pytorchs_rules(of):
    mask = double(HEADS, ROWS, KEYS).requires_grad_()
    numbers = {"dropout": 0.4, "dropout_seed": 3, "block_rows": 2, "block_columns": 2}
    given, options = inputs(), {"attn_mask": mask, "block_mask": BLOCKS["block_mask"], **numbers}
    if of == "sdpa_backward":
        with torch.no_grad():
            output, lse, _ = torch.ops.libattention.sdpa(*given, **options)
        given, options["wanted"] = (
            (torch.rand_like(output), None, None, output, lse, *given),
            [0, 3],
        )
    operator = getattr(torch.ops.libattention, of).default
    # Dynamic shapes are those of the compiled step below.
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    outcome = torch.library.opcheck(operator, given, options, test_utils=checks)
    assert set(outcome.values()) == {"SUCCESS"}


# ---- transformations ----


def loss(query, key, value, mask, dropout=DROPOUT):
    output, lse = sdpa(query, key, value, mask, dropout=dropout, **BLOCKS, return_lse=True)
    return output.square().sum() + lse.sum()


def test_each_of_many_calls_drops_what_it_does_alone():
    query, key, value = (double(3, *one.shape) for one in inputs())
    mask = double(ROWS, KEYS)
    for function in (loss, torch.func.grad(loss, (0, 1, 2, 3))):
        found = torch.vmap(function, (0, 0, None, None))(query, key, value[0], mask)
        each = [function(query[i], key[i], value[0], mask) for i in range(3)]
        if isinstance(each[0], torch.Tensor):
            found, each = (found,), [(one,) for one in each]
        for one, *several in zip(found, *each):
            same(one, torch.stack(several))
    with pytest.raises(Error, match=r"^dropout: drops the same weights in each call, where vmap"):
        torch.vmap(loss, (0, 0, 0, None), randomness="different")(query, key, value, mask)
    lone = [one[:, 0, 0] for one in (query, key, value)]
    drop = torch.vmap(lambda *some: sdpa(*some, dropout=Dropout(0.5), return_lse=True))(*lone)
    for i in range(3):
        expected = sdpa(*(one[i] for one in lone), dropout=Dropout(0.5), return_lse=True)
        for one, other in zip(drop, expected):
            same(one[i], other)


def test_blocks_of_each_of_many_calls():
    given = [one.detach() for one in inputs()]
    blocks = torch.randint(0, 3, (3, HEADS, 2, 2), dtype=torch.uint8)
    blocks[..., 0] = 1

    def call(query, blocks):
        return sdpa(query, *given[1:], block_mask=blocks, block_size=2).square().sum()

    found = torch.vmap(torch.func.grad(call), (None, 0))(given[0], blocks)
    for one, of_one in zip(found, blocks):
        same(one, torch.func.grad(call)(given[0], of_one))


def test_a_jacobian_drops_the_same_for_each_direction():
    query, key, value = (one.detach()[:, 0] for one in inputs())

    def call(one):
        return sdpa(one, key, value, dropout=DROPOUT)

    found = torch.func.jacrev(call)(query)
    same(found, torch.autograd.functional.jacobian(call, query))
    same(found, torch.func.jacfwd(call)(query))
    leaf = query.clone().requires_grad_()
    output = call(leaf)
    directions = torch.eye(output.numel(), dtype=torch.float64).reshape(-1, *output.shape)
    (older,) = torch.autograd.grad(output, leaf, directions, is_grads_batched=True)
    same(older.reshape(found.shape), found)


def test_a_compiled_step_drops_as_an_eager_one_and_is_compiled_twice():
    mask, count = double(ROWS, KEYS), [0]

    def backend(graph, examples):
        count[0] += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, examples)

    def step(query, key, value, offset):
        return loss(query, key, value, mask, Dropout(0.4, seed=1, offset=offset))

    compiled = torch.compile(step, backend=backend, fullgraph=True)
    for offset in (1, 2, 3, 4):
        given = inputs()
        expected, found = (torch.autograd.grad(f(*given, offset), given) for f in (step, compiled))
        assert all(map(torch.equal, found, expected))
    assert count[0] == 2  # the second time for any offset


def test_an_exported_program_drops_as_it_was_told():
    class Module(torch.nn.Module):
        def forward(self, query, key, value):
            return sdpa(query, key, value, dropout=DROPOUT, **BLOCKS)

    given = tuple(one.detach() for one in inputs())
    exported = torch.export.export(Module(), given).module()
    assert torch.equal(exported(*given), Module()(*given))


def test_autocast_drops_in_its_own_type():
    given = [one.detach().float().requires_grad_() for one in inputs()]
    with torch.autocast("cpu", torch.bfloat16):
        found = sdpa(*given, dropout=DROPOUT, **BLOCKS)
    narrow = [one.detach().bfloat16() for one in given]
    assert torch.equal(found, sdpa(*narrow, dropout=DROPOUT, **BLOCKS))
    found.sum().backward()
    assert all(one.grad.dtype == torch.float32 for one in given)


def test_what_has_no_numbers_has_the_shapes():
    with FakeTensorMode():
        fake = [torch.empty(2, 3, 4, 5, requires_grad=True) for _ in range(3)]
        assert sdpa(*fake, dropout=Dropout(0.5)).shape == (2, 3, 4, 5)


def test_a_checkpoint_drops_the_same_again():
    given = inputs()

    def call(*some):
        dropout = Dropout(0.5, generator=torch.default_generator)
        return sdpa(*some, dropout=dropout).square().sum()

    def checkpointed(*some):
        return torch.utils.checkpoint.checkpoint(call, *some, use_reentrant=False)

    found = []
    for run in (call, checkpointed):
        torch.manual_seed(3)
        found.append(torch.autograd.grad(run(*given), given))
    assert all(map(torch.equal, *found))


# ---- generators ----


def test_a_generator_draws_the_seed():
    drawn = [Dropout(0.1, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert drawn[0] == drawn[1] != Dropout(0.1)
    generator = torch.Generator().manual_seed(5)
    several = [Dropout(0.1, offset=2, generator=generator) for _ in range(3)]
    assert several[0].seed == drawn[0].seed
    assert len({one.seed for one in several}) == 3
    assert all(one.offset == 2 and 0 <= one.seed < 2**63 for one in several)
    of_numpy = [Dropout(0.1, generator=np.random.default_rng(5)) for _ in range(2)]
    assert of_numpy[0] == of_numpy[1] != Dropout(0.1)
    for one in (copy.deepcopy(drawn[0]), pickle.loads(pickle.dumps(drawn[0]))):
        assert type(one) is Dropout
        assert one == drawn[0]
    with pytest.raises(Error, match=r"^generator: expected a torch.Generator or a numpy"):
        Dropout(0.1, generator=5)
    with pytest.raises(Error, match=r"^generator: expected None beside a seed"):
        Dropout(0.1, seed=1, generator=generator)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_a_generator_is_not_kept_by_what_is_compiled_or_traced():
    query = double(1, 2, 3, 4).requires_grad_()

    def call(one):
        return sdpa(one, one, one, dropout=Dropout(0.5, generator=torch.default_generator))

    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(call, backend="aot_eager", fullgraph=True)(query)
    compiled = torch.compile(call, backend="aot_eager")
    for refused in (lambda: compiled(query), lambda: torch.jit.trace(call, query)):
        with pytest.raises(Error, match="cannot draw within what is compiled or traced"):
            refused()


def test_the_rate_and_the_expectation_of_what_is_dropped():
    """Of n independent weights a share of p is dropped, off by 5 standard deviations at most."""
    generator, probability = torch.Generator().manual_seed(1), 0.3
    query, key = torch.zeros(1, 8, 64, 4), torch.zeros(1, 8, 128, 4)
    value = torch.ones(1, 8, 128, 1)
    outputs, dropped = [], 0.0
    for _ in range(8):
        dropout = Dropout(probability, generator=generator)
        output, weights = sdpa(query, key, value, dropout=dropout, return_weights=True)
        outputs.append(output)
        dropped += float((weights == 0).double().mean()) / 8
    count = 8 * 8 * 64 * 128
    assert abs(dropped - probability) < 5 * (probability * (1 - probability) / count) ** 0.5
    # A row of the output is a mean of 128 weights, of variance p / (1 - p) each.
    deviation = (probability / (1 - probability) / count) ** 0.5
    assert abs(float(torch.stack(outputs).double().mean()) - 1) < 5 * deviation


def test_what_backward_would_run():
    given = [one.detach() for one in inputs()]
    found = explain_backward(*given, is_causal=True, dropout=DROPOUT, wanted=("query", "key"))
    assert set(found) == {
        "whole_heads", "num_items", "row_block", "key_block", "staged", "kernels", "reason",
        "workspace_bytes",
    }  # fmt: skip
    assert found["num_items"] > 0
    assert found["workspace_bytes"] > 0
    linear = explain_backward(*given, normalizer="linear", wanted="value")
    assert isinstance(linear["reason"], str)
    with pytest.raises(Error, match=r"^gradients.sinks: expected it not to be wanted without"):
        explain_backward(*given, wanted=("sinks",))
    with pytest.raises(Error, match=r"^key: expected"):
        explain_backward(given[0], given[1][..., :1], given[2])


def test_blocks_are_refused_by_name():
    given = inputs()
    blocks = torch.ones(2, 2, dtype=torch.uint8)
    for text, options in {
        "block_mask: expected dtype uint8": {"block_mask": blocks.long(), "block_size": 2},
        "block_mask: expected elements of": {"block_mask": 3 * blocks, "block_size": 2},
        "block_mask: expected a shape that": {"block_mask": blocks, "block_size": 9},
        "block_size: expected 1 and up": {"block_mask": blocks},
        "block_size: expected 0": {"block_size": 2},
        "dropout: expected a libattention.Dropout": {"dropout": 0.5},
    }.items():
        with pytest.raises(Error) as caught:
            sdpa(*given, **options)
        assert str(caught.value).startswith(text)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(given[0].detach(), torch.ones_like(given[0]))
        with pytest.raises(Error, match=r"^block_mask: expected elements of"):
            sdpa(dual, *given[1:], block_mask=3 * blocks, block_size=2)


def test_a_program_that_was_saved_before_keeps_dropping():
    class Module(torch.nn.Module):
        def forward(self, one):
            return sdpa(one, one, one, dropout=Dropout(0.5, seed=4))

    one, stored = double(1, 2, 3, 4), io.BytesIO()
    torch.export.save(torch.export.export(Module(), (one,)), stored)
    stored.seek(0)
    assert torch.equal(torch.export.load(stored).module()(one), Module()(one))
