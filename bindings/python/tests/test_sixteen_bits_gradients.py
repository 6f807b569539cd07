# SPDX-License-Identifier: BSD-3-Clause
"""libattention::sdpa of bfloat16 and float16: gradients, shapes, PyTorch's rules.

Gradients are computed from the numbers that the tensors hold, in float32, and rounded once, to the
type of what they belong to.
"""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_cases import BATCH, HEADS, MASKS, ROWS, VALUES, double, inputs

import libattention
from libattention import Error
from libattention import scaled_dot_product_attention as sdpa
from libattention._torch_eager import attend
from libattention._torch_options import TorchOptions

HALVES = (torch.bfloat16, torch.float16)
STORED = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}
# Below the smallest normal number of float16 rounding is by half of this step.
SMALL = {torch.float32: 0, torch.bfloat16: 0, torch.float16: 2**-25}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.compiler.reset()


POSITIONS = {
    "none": {},
    "offset": {"is_causal": True, "query_offset": torch.tensor([1, 3])},
    "end": {"align_end": True, "window": (2, 1), "key_lengths": torch.tensor([7, 5])},
}
FURTHER = {
    "softcap": {"softcap": 2.0},
    "grouped": {"enable_gqa": True, "scale": 0.3, "softcap": 8.0},
    "alibi": {"alibi_slopes": double(HEADS, low=0)},
    "sinks": {"sinks": double(HEADS)},
    "sigmoid": {"normalizer": "sigmoid"},
}


def is_float(one):
    return isinstance(one, torch.Tensor) and one.is_floating_point()


def wanting(one):
    return one.detach().clone().requires_grad_() if is_float(one) else one


def formula(query, key, value, window=(-1, -1), **options):
    found = attend(
        query, key, value, TorchOptions(window_left=window[0], window_right=window[1], **options)
    )
    return [one for one in found if one is not None]


def assert_gradients(ours, exact, leaves):
    """Computing in float32 makes some E + S + 16 roundings of 2**-24 of terms up to 5: 1e-5."""
    for found, expected, leaf in zip(ours, exact, leaves):
        assert found.dtype == leaf.dtype
        limit = 1e-5 + SMALL[leaf.dtype] + STORED[leaf.dtype] * expected.abs()
        assert ((found.double() - expected).abs() <= limit).all()


TYPES = [
    *[(one,) * 3 for one in HALVES],
    *[(torch.float32, one, one) for one in HALVES],
    (torch.bfloat16, torch.float16, torch.float32),
]


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize(
    ("mask", "positions", "further"), list(itertools.product(MASKS, POSITIONS, FURTHER))
)
def test_gradients_are_those_of_float64_rounded_once(types, mask, positions, further):
    given = [wanting(one) for one in inputs(types, 2 if further == "grouped" else HEADS)]
    options = {**MASKS[mask], **POSITIONS[positions], **FURTHER[further]}
    options = {
        name: wanting(one.to(types[0]) if is_float(one) else one) for name, one in options.items()
    }
    leaves = [one for one in (*given, *options.values()) if is_float(one)]
    has_lse = further != "sigmoid"
    found = sdpa(*given, **options, return_lse=has_lse, return_weights=True)
    kinds = [types[0], *([torch.float32] if has_lse else []), types[0]]
    assert [one.dtype for one in found] == kinds
    wide = [one.detach().double().requires_grad_() for one in leaves]
    named = iter(wide[3:])
    others = {name: next(named) if is_float(one) else one for name, one in options.items()}
    exact = formula(*wide[:3], **others)
    directions = [torch.where(one.isfinite(), torch.rand_like(one), 0) for one in found]
    ours = torch.autograd.grad(found, leaves, directions, allow_unused=True)
    theirs = torch.autograd.grad(exact, wide, [one.double() for one in directions])
    assert_gradients(ours, theirs, leaves)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}, MASKS["bool"]])
def test_gradients_are_those_of_the_output_before_it_was_rounded(dtype, options):
    given = [wanting(one) for one in inputs((dtype,) * 3)]
    direction = torch.rand(BATCH, HEADS, ROWS, VALUES, dtype=dtype)
    found = torch.autograd.grad(sdpa(*given, **options), given, direction)
    with torch.no_grad():
        output = torch.empty(BATCH, HEADS, ROWS, VALUES)
        _, lse = sdpa(*given, **options, out=output, return_lse=True)
        expected = libattention.scaled_dot_product_attention_backward(
            direction, *given, output, lse, **options
        )
    for ours, theirs in zip(found, expected[:3]):
        assert ours.dtype == dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("types", TYPES)
def test_the_operator_keeps_pytorchs_rules(types):
    given = [wanting(one) for one in inputs(types)]
    options = {"softcap": 2.0, "is_causal": True}
    outcome = torch.library.opcheck(torch.ops.libattention.sdpa.default, given, options)
    assert set(outcome.values()) == {"SUCCESS"}


@pytest.mark.parametrize("types", TYPES)
def test_tensors_without_double(types):
    expected = sdpa(*inputs(types), return_lse=True, return_weights=True)
    with FakeTensorMode():
        fake = [torch.empty(one.shape, dtype=one.dtype) for one in inputs(types)]
        found = sdpa(*fake, return_lse=True, return_weights=True)
    for one, other in zip(found, expected):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)


@pytest.mark.parametrize("dtype", HALVES)
def test_compiled_and_mapped(dtype):
    query, key, value = inputs((dtype,) * 3)
    options = {"window": (2, 0), "softcap": 2.0}
    expected = sdpa(query, key, value, **options)

    def call(*given):
        return sdpa(*given, **options)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(query, key, value), expected)
    assert torch.equal(torch.vmap(call)(query, key, value), expected)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_a_tangent_has_the_type_of_its_result(dtype):
    query, key, value = inputs((dtype,) * 3)
    found, tangent = torch.func.jvp(
        lambda one: sdpa(one, key, value), (query,), (torch.ones_like(query),)
    )
    wide = [one.double() for one in (query, key, value)]
    _, exact = torch.func.jvp(
        lambda one: formula(one, *wide[1:])[0], (wide[0],), (torch.ones_like(wide[0]),)
    )
    assert found.dtype == tangent.dtype == dtype
    assert_gradients([tangent], [exact], [found])


def test_float64_goes_with_itself_on_every_way():
    query, key, value = inputs((torch.float64,) * 3)
    for grad in (False, True):
        query.requires_grad_(grad)
        with pytest.raises(Error, match=r"^key: expected dtype float64, got bfloat16"):
            sdpa(query, key.bfloat16(), value)
    for one, other in ((query.detach(), key.float()), (query.detach().bfloat16(), key)):
        with pytest.raises(RuntimeError):
            torch.func.jvp(lambda x, k=other: sdpa(x, k, value), (one,), (one,))
