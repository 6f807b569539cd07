# SPDX-License-Identifier: BSD-3-Clause
"""scaled_dot_product_attention of tensors that go through PyTorch: libattention::sdpa."""

import itertools

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode
from torch_cases import BATCH, FEATURES, HEADS, KEYS, MASKS, ROWS, double, inputs

import libattention
from libattention import (
    Context,
    Error,
    MultiheadAttention,
    _torch_operators,  # noqa: F401  (registers them)
)
from libattention import scaled_dot_product_attention as sdpa
from libattention._torch_eager import attend
from libattention._torch_options import TorchOptions

OPERATOR = torch.ops.libattention.sdpa
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.compiler.reset()


POSITIONS = {
    "none": {},
    "causal": {"is_causal": True},
    "offset": {"is_causal": True, "query_offset": torch.tensor([1, 3])},
    "end": {"align_end": True, "window": (2, 1), "key_lengths": torch.tensor([7, 5])},
    "numbers": {"query_offset": 2, "key_lengths": 6, "window": (-1, 0)},
}
FURTHER = {
    "none": {},
    "scale": {"scale": 0.3},
    "grouped": {"enable_gqa": True},
    "alibi": {"alibi_slopes": double(HEADS, low=0), "softcap": 2.0},
    "sinks": {"sinks": double(HEADS)},
    "sigmoid": {"normalizer": "sigmoid"},
    "linear": {"normalizer": "linear"},
}
PRODUCT = list(itertools.product(MASKS, POSITIONS, FURTHER))


def call_of(mask, positions, further):
    """Arguments and options, every float tensor of which wants a gradient."""
    given = inputs(kv_heads=2 if further == "grouped" else HEADS)
    options = {**MASKS[mask], **POSITIONS[positions], **FURTHER[further]}
    options = {
        name: one.detach().clone() if isinstance(one, torch.Tensor) else one
        for name, one in options.items()
    }
    floats = [one for one in (*given, *options.values()) if is_float(one)]
    for one in floats:
        one.requires_grad_()
    return given, options, floats


def is_float(one):
    return isinstance(one, torch.Tensor) and one.is_floating_point()


def formula(query, key, value, window=(-1, -1), **options):
    for name in ("query_offset", "key_lengths"):
        if isinstance(options.get(name), int):
            options[name] = torch.tensor(options[name])
    options = TorchOptions(window_left=window[0], window_right=window[1], **options)
    return attend(query, key, value, options)


@pytest.mark.parametrize(("mask", "positions", "further"), PRODUCT)
def test_results_and_gradients_are_those_of_the_formula(mask, positions, further):
    given, options, floats = call_of(mask, positions, further)
    has_lse = further not in ("sigmoid", "linear")
    found = sdpa(*given, **options, return_lse=has_lse, return_weights=True)
    expected = formula(*given, **options)
    expected = [expected.output, *([expected.lse] if has_lse else []), expected.weights]
    with torch.no_grad():  # straight from the library
        direct = sdpa(*given, **options, return_lse=has_lse, return_weights=True)
    for one, other, straight in zip(found, expected, direct):
        assert one.requires_grad
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        assert torch.equal(one, straight)
    directions = [torch.where(one.isfinite(), torch.rand_like(one), 0) for one in found]
    pair = [
        torch.autograd.grad(results, floats, directions, allow_unused=True)
        for results in (found, expected)
    ]
    for ours, theirs in zip(*pair):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("heads", [1, HEADS])
def test_a_bias_by_distance_has_gradients(positions, heads):
    table = double(heads, 5).requires_grad_()
    given, options = inputs(), POSITIONS[positions]
    found = sdpa(*given, position_bias=table, **options)
    with torch.no_grad():
        direct = sdpa(*given, position_bias=table, **options)
    torch.testing.assert_close(found, direct, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda one: sdpa(*given, position_bias=one, **options).sum(), (table,)
    )


@pytest.mark.parametrize("start", [0, 3, torch.tensor([1, 4])])
@pytest.mark.parametrize("is_bool", [False, True])
def test_a_placed_mask_is_written_out_where_gradients_are_wanted(start, is_bool):
    mask = double(ROWS, 3) > -0.5 if is_bool else double(ROWS, 3)
    given = inputs()
    expected = sdpa(*given, attn_mask=mask, mask_start=start)
    given[0].requires_grad_()
    found = sdpa(*given, attn_mask=mask, mask_start=start)
    assert found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@FORWARD_MODE
@pytest.mark.parametrize("wants", ["nothing", "a gradient", "a tangent"])
def test_what_the_formula_writes_out_is_refused_by_name(wants):
    query, *given = inputs()
    query.requires_grad_(wants == "a gradient")

    def call(**options):
        if wants == "a tangent":
            torch.func.jvp(lambda one: sdpa(one, *given, **options), (query,), (query,))
        else:
            sdpa(query, *given, **options)

    with pytest.raises(Error, match=r"^mask_start: expected None without a"):
        call(mask_start=0)
    with pytest.raises(Error, match=r"^position_bias: expected shape \(Hq, 2 R \+ 1\), .*got"):
        call(position_bias=double(4, 4))


def test_gradients_of_gradients():
    given = [one.requires_grad_() for one in inputs()]
    sinks = double(HEADS).requires_grad_()
    bias = double(ROWS, KEYS).requires_grad_()

    def call(query, key, value, sinks, bias):
        options = {"bias": bias, "sinks": sinks, "softcap": 3.0, "is_causal": True}
        return sdpa(query, key, value, **options, return_lse=True)

    small = [one[:1, :2, :2, :3] for one in given]
    small = [one.detach().requires_grad_() for one in small]
    arguments = (*small, sinks[:2].detach().requires_grad_(), bias[:2, :2].detach())
    arguments[-1].requires_grad_()
    assert torch.autograd.gradcheck(call, arguments)
    assert torch.autograd.gradgradcheck(call, arguments)


@pytest.mark.parametrize("which", range(3))
def test_a_gradient_of_one_input_alone(which):
    given = inputs()
    given[which].requires_grad_()
    (found,) = torch.autograd.grad(sdpa(*given).square().sum(), given[which])
    expected = torch.nn.functional.scaled_dot_product_attention(*given).square().sum()
    torch.testing.assert_close(found, torch.autograd.grad(expected, given[which])[0])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_without_a_break(backend, dynamic):
    options = {"window": (2, 0), "query_offset": 1, "softcap": 2.0}

    def call(one):
        return sdpa(one, one, one, **options, return_lse=True)[0] + 1

    compiled = torch.compile(call, backend=backend, fullgraph=True, dynamic=dynamic)
    for rows in (5, 9):
        one = double(2, 3, rows, 8).requires_grad_()
        found, expected = compiled(one), call(one)
        torch.testing.assert_close(found, expected)
        gradients = [torch.autograd.grad(each.square().sum(), one)[0] for each in (found, expected)]
        torch.testing.assert_close(*gradients)


class Module(torch.nn.Module):
    def forward(self, one):
        return sdpa(one, one, one, is_causal=True)


def test_exported_and_traced():
    one, other = double(2, 3, 5, 8), double(2, 3, 5, 8)
    expected = torch.nn.functional.scaled_dot_product_attention(other, other, other, is_causal=True)
    exported = torch.export.export(Module(), (one,)).module()
    torch.testing.assert_close(exported(other), expected)
    with pytest.warns(DeprecationWarning, match="torch.jit.trace"):
        traced = torch.jit.trace(Module(), (one,))
    torch.testing.assert_close(traced(other), expected)


@FORWARD_MODE
def test_functional_transforms():
    query, key, value = inputs()

    def ours(one):
        return sdpa(one, key[0], value[0]).square().sum()

    def theirs(one):
        return ((one @ key[0].mT * FEATURES**-0.5).softmax(-1) @ value[0]).square().sum()

    def tangent(call):
        return lambda one: torch.func.jvp(call, (one,), (one + 1,))[1]

    def hessian(call):
        return torch.func.jacrev(torch.func.grad(call))

    def each_gradient(call):
        return torch.vmap(torch.func.grad(call))

    for transform in (torch.func.grad, tangent, hessian):
        torch.testing.assert_close(transform(ours)(query[0]), transform(theirs)(query[0]))
    torch.testing.assert_close(each_gradient(ours)(query), each_gradient(theirs)(query))


def test_vmap_over_any_axis_and_any_argument():
    query, key, value = inputs()
    mask = double(BATCH, ROWS, KEYS) > -0.5
    lengths = torch.tensor([7, 4])

    def call(query, key, value, mask, lengths):
        return sdpa(query, key, value, mask, key_lengths=lengths)

    expected = torch.stack([call(*one) for one in zip(query, key, value, mask, lengths)])
    found = torch.vmap(call)(query, key, value, mask, lengths)
    torch.testing.assert_close(found, expected)
    found = torch.vmap(call, (2, None, None, 0, None))(
        query.movedim(0, 2), key[0], value[0], mask, lengths[0]
    )
    shared = [call(one, key[0], value[0], each, lengths[0]) for one, each in zip(query, mask)]
    torch.testing.assert_close(found, torch.stack(shared))
    # Without an axis of heads.
    found = torch.vmap(sdpa)(query[:, 0], key[:, 0], value[:, 0])
    torch.testing.assert_close(found, sdpa(query, key, value)[:, 0])
    with pytest.raises(Error, match=r"^sinks, alibi_slopes, position_bias: cannot be"):
        torch.vmap(lambda one, sinks: sdpa(one, one, one, sinks=sinks))(query, double(BATCH, HEADS))


@FORWARD_MODE
def test_a_tangent_is_carried_on():
    query, key, value = inputs()

    def theirs(one):
        return (one @ key.mT * FEATURES**-0.5).softmax(-1) @ value

    expected = torch.func.jvp(theirs, (query,), (query + 1,))[1]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(query, query + 1)
        for found in (sdpa(dual, key, value), torch.ops.libattention.sdpa(dual, key, value)[0]):
            torch.testing.assert_close(forward_ad.unpack_dual(found).tangent, expected)


def test_tensors_without_numbers():
    with FakeTensorMode():
        one = torch.empty(2, 3, 5, 8)
        output, lse, weights = sdpa(one, one, one, return_lse=True, return_weights=True)
        assert (output.shape, lse.shape, weights.shape) == ((2, 3, 5, 8), (2, 3, 5), (2, 3, 5, 5))
    one = torch.empty(2, 3, 5, 8, device="meta")
    assert sdpa(one, one, one).is_meta
    layer = MultiheadAttention(8, 2, batch_first=True)
    with FakeTensorMode(), pytest.raises(Error, match=r"no numbers to compute with"):
        layer(*[torch.empty(2, 5, 8)] * 3)
    with pytest.raises(Error, match=r"transformed by torch.func, where there are no numbers"):
        torch.vmap(lambda one: layer(one, one, one)[0])(torch.rand(2, 2, 5, 8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_its_dtype_as_pytorchs_function(dtype):
    query, key, value = inputs((torch.float32,) * 3)
    options = {"attn_mask": double(ROWS, KEYS).float(), "sinks": double(HEADS).float()}
    narrow = {name: one.to(dtype) for name, one in options.items()}
    expected = sdpa(*(one.to(dtype) for one in (query, key, value)), **narrow, return_lse=True)
    query.requires_grad_()

    def call():
        return sdpa(query, key.to(dtype), value, **options, return_lse=True)

    with torch.autocast("cpu", dtype=dtype):
        theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        found, compiled = call(), torch.compile(call, backend="aot_eager", fullgraph=True)()
        assert sdpa(*inputs()).dtype == torch.float64  # which autocast leaves
    for one in (found, compiled):
        assert (one[0].dtype, one[1].dtype) == (theirs.dtype, torch.float32)
        assert torch.equal(one[0], expected[0])
        assert torch.equal(one[1], expected[1])
        (gradient,) = torch.autograd.grad(one[0].sum(), query)
        assert gradient.dtype == torch.float32


def test_a_mode_sees_the_operator():
    query, key, value = inputs()
    expected = formula(query, key, value).output
    with FlopCounterMode(display=False, custom_mapping={OPERATOR: lambda *_, **__: 12}) as counter:
        torch.testing.assert_close(sdpa(query, key, value), expected)
    assert counter.get_total_flops() == 12


def test_a_context_goes_along():
    context = Context(num_threads=1, engine="fused")
    query, key, value = inputs()
    query.requires_grad_()
    with pytest.raises(Error, match=r"ENGINE_FUSED"):  # which has no float64
        sdpa(query, key, value, context=context)
    found = sdpa(query, key, value, context=Context(num_threads=1))
    assert found.requires_grad


def test_refusals_name_the_argument():
    query, key, value = inputs()
    query.requires_grad_()
    with pytest.raises(Error, match=r"^out: cannot be given where a tensor requires grad"):
        sdpa(query, key, value, out=torch.empty_like(query))
    with pytest.raises(Error, match=r"^key: expected dtype float64, got float32"):
        sdpa(query, key.float(), value)
    with pytest.raises(Error, match=r"^key: expected dtype float64, got bfloat16"):
        sdpa(query, key.bfloat16(), value)
    with pytest.raises(Error, match=r"^value: expected dtype float32, bfloat16 or float16, got "):
        sdpa(query.bfloat16(), key.half(), value)
    with pytest.raises(Error, match=r"^query: dtype torch.float8_e4m3fn"):
        sdpa(*[one.to(torch.float8_e4m3fn) for one in (query, key, value)])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"window": 3}, r"^window: expected how many keys"),
        ({"window": (1, "a")}, r"^window: expected a pair of integers"),
        ({"is_causal": "x"}, r"^is_causal: expected True or False"),
        ({"softcap": "x"}, r"^softcap: expected a number"),
        ({"scale": "x"}, r"^scale: expected a number"),
        ({"normalizer": "x"}, r"^normalizer: expected one of"),
        ({"key_lengths": True}, r"^key_lengths: expected integers"),
        ({"sinks": ["x"]}, r"^sinks: expected numbers"),
    ],
)
def test_options_are_refused_in_the_same_words_on_either_way(options, line):
    given = inputs()
    for wants_gradients in (False, True):
        given[0].requires_grad_(wants_gradients)
        with pytest.raises(Error, match=line):
            sdpa(*given, **options)


def test_arrays_of_other_kinds_and_lists():
    query, key, value = inputs()
    options = {"sinks": [0.5, 1, 2, 3], "key_lengths": [7, 5]}
    mask = (double(ROWS, KEYS) > -0.5).numpy()
    expected = sdpa(query, key, value, mask, **options)
    query.requires_grad_()
    torch.testing.assert_close(sdpa(query, key.numpy(), value, mask, **options), expected)


def test_the_default_device_is_not_asked():
    given = inputs()
    options = {"window": (2, 0), "key_lengths": 6, "softcap": 2.0}
    expected = sdpa(*given), sdpa(*given, **options)
    with torch.device("meta"):
        assert torch.equal(sdpa(*given), expected[0])
        assert torch.equal(sdpa(*given, **options), expected[1])
        given[0].requires_grad_()
        found = sdpa(*given, **options)
        (gradient,) = torch.autograd.grad(found.sum(), given[0])
    assert torch.equal(found, expected[1])
    (again,) = torch.autograd.grad(sdpa(*given, **options).sum(), given[0])
    torch.testing.assert_close(gradient, again)


def test_lengths_that_vmap_shares():
    query, key, value = inputs()
    lengths = torch.tensor([7, 3])
    found = torch.vmap(lambda one: sdpa(one, key, value, key_lengths=lengths))(query[None])
    torch.testing.assert_close(found[0], sdpa(query, key, value, key_lengths=lengths))


def test_the_operators_keep_pytorchs_rules():
    query, key, value = (one.requires_grad_() for one in inputs((torch.float32,) * 3))
    outcome = torch.library.opcheck(torch.ops.libattention.sdpa.default, (query, key, value))
    assert set(outcome.values()) == {"SUCCESS"}


def test_multihead_is_the_modules_result_and_has_its_gradients():
    module = torch.nn.MultiheadAttention(16, 2, kdim=12, vdim=10, batch_first=True).double().eval()
    one, key, value = double(3, 5, 16), double(3, 7, 12), double(3, 7, 10)
    hidden = double(3, 7) > 0.5
    parameters = (
        module.q_proj_weight,
        module.k_proj_weight,
        module.v_proj_weight,
        module.in_proj_bias,
        module.out_proj.weight,
        module.out_proj.bias,
    )
    found = torch.ops.libattention.multihead(
        one, key, value, 2, *parameters, ~hidden[:, None, None], return_weights=True
    )
    expected = module(one, key, value, key_padding_mask=hidden, average_attn_weights=False)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[2], expected[1])
    gradients = [
        torch.autograd.grad(result.square().sum(), parameters) for result in (found[0], expected[0])
    ]
    torch.testing.assert_close(*gradients)


def test_numpy_is_untouched_by_it():
    query, key, value = (one.numpy() for one in inputs())
    assert isinstance(libattention.scaled_dot_product_attention(query, key, value), np.ndarray)
