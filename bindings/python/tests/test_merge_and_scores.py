# SPDX-License-Identifier: BSD-3-Clause
"""Parts of attention put together again, within the bound of merge.h of float64 and near one call
over all keys; the scores of a call at each stage."""

import itertools

import numpy as np
import pytest
import torch
from sequence_oracle import STORED, exactly, exists, name_of, of_type

from libattention import Context, Error, merge
from libattention import scaled_dot_product_attention as sdpa

B, H, L, S, E = 2, 4, 3, 12, 8
KINDS = ("numpy", "torch")
TYPES = ("float32", "float64", "bfloat16", "float16")
KINDS_OF_TYPES = [one for one in itertools.product(KINDS, TYPES) if exists(*one)]


def unit_of(dtype):
    return 2**-53 if dtype == "float64" else 2**-24


def score_type(dtype):
    return "float64" if dtype == "float64" else "float32"


def within(found, expected, bound):
    relative, absolute = STORED[name_of(found)]
    bound = np.broadcast_to(bound, expected.shape)
    is_infinite = np.isneginf(expected)
    np.testing.assert_array_equal(np.isneginf(exactly(found)), is_infinite)
    near = np.where(is_infinite, 0, expected)
    off = np.abs(np.where(is_infinite, 0, exactly(found)) - near)
    limit = bound + relative * (np.abs(near) + bound) + absolute
    assert (off <= limit).all(), np.nanmax(off / limit)


# ---- merge ----


def merged_of(outputs, lses, sinks):
    """In float64: output, lse, sum w |output| and the row's largest difference of logits."""
    logits = np.stack(lses)
    if sinks is not None:
        logits = np.concatenate([logits, np.broadcast_to(sinks[:, None], logits[:1].shape)])
    highest = logits.max(0)
    lowest = np.where(np.isneginf(logits), np.inf, logits).min(0)
    base = np.where(np.isneginf(highest), 0, highest)
    with np.errstate(divide="ignore"):
        lse = base + np.log(np.exp(logits - base).sum(0))
    weights = np.exp(np.stack(lses) - np.where(np.isneginf(lse), 0, lse))[..., None]
    seen = np.where(weights > 0, np.stack(outputs), 0)
    spread = np.where(np.isneginf(highest), 0, highest - np.where(np.isinf(lowest), 0, lowest))
    return (weights * seen).sum(0), lse, (weights * abs(seen)).sum(0), spread


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(("kind", "dtype"), KINDS_OF_TYPES)
def test_merge_is_the_formulas(kind, dtype, count):
    """With and without sinks, in place and not; some parts, and some rows in all, see nothing."""
    numbers = np.random.default_rng(count)
    for with_sinks, in_place in itertools.product((False, True), repeat=2):
        outputs = [of_type(kind, one, dtype) for one in numbers.normal(size=(count, B, H, L, E))]
        raw = 4 * numbers.normal(size=(count, B, H, L))
        raw[:, 0, 1] = raw[0, 1, 2] = -np.inf
        outputs[0][1, 2] = np.nan  # what has seen nothing holds anything
        lses = [of_type(kind, one, score_type(dtype)) for one in raw]
        sinks = of_type(kind, numbers.normal(size=H), dtype) if with_sinks else None
        exact = [list(map(exactly, given)) for given in (outputs, lses)]
        expected, lse, sizes, spread = merged_of(*exact, exactly(sinks) if with_sinks else None)
        out = outputs[-1] if in_place else None
        found = merge(outputs, lses, sinks=sinks, return_lse=True, out=out)
        assert (found[0] is out) == in_place
        assert type(found[0]) is type(found[1]) is type(outputs[0])
        assert [name_of(one) for one in found] == [dtype, score_type(dtype)]
        unit = 2 * unit_of(dtype)  # what is expected is off, too
        within(found[0], expected, (2 * spread[..., None] + 2 * count + 12) * unit * sizes)
        at = np.where(np.isneginf(lse), 0, np.abs(lse))
        within(found[1], lse, (spread + 3 * count + 6 + at) * unit)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_make_the_whole(kind):
    """A cascade, cut anywhere: each part's options are told of its own keys."""
    numbers = np.random.default_rng(0)
    query = of_type(kind, numbers.normal(size=(B, H, L, E)), "float32")
    key, value = (of_type(kind, one, "float32") for one in numbers.normal(size=(2, B, 2, S, E)))
    sinks = of_type(kind, numbers.normal(size=H), "float32")
    shared = {"is_causal": True, "enable_gqa": True, "window": (9, 0)}
    whole, whole_lse = sdpa(
        query, key, value, query_offset=8, sinks=sinks, return_lse=True, **shared
    )
    for cuts in itertools.combinations(range(S + 1), 2):
        outputs, lses = [], []
        for begin, end in zip((0, *cuts), (*cuts, S)):
            part = key[:, :, begin:end], value[:, :, begin:end]
            output, lse = sdpa(query, *part, query_offset=8 - begin, return_lse=True, **shared)
            outputs.append(output)
            lses.append(lse)
        found, found_lse = merge(outputs, lses, sinks=sinks, return_lse=True)
        np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found_lse, whole_lse, rtol=1e-6, atol=1e-6)
        # In turn, as round a ring, the output where it is.
        turn, turn_lse = merge(outputs[:2], lses[:2], return_lse=True)
        assert merge([turn, outputs[2]], [turn_lse, lses[2]], sinks=sinks, out=turn) is turn
        np.testing.assert_allclose(turn, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalizer", ["sigmoid", "linear"])
def test_parts_without_lse_are_added(normalizer):
    query, key, value = torch.randn(3, H, S, E)
    parts = [
        sdpa(query, key[:, half], value[:, half], normalizer=normalizer)
        for half in (slice(0, 5), slice(5, S))
    ]
    whole = sdpa(query, key, value, normalizer=normalizer)
    torch.testing.assert_close(merge(parts), whole, rtol=1e-5, atol=1e-5)


def test_types_and_contexts():
    """Parts of 16 bits and of 32 go together; a result is rounded once."""
    numbers = np.random.default_rng(0)
    outputs = [numbers.normal(size=(H, L, E)).astype(one) for one in ("float16", "float32")]
    lses = list(numbers.normal(size=(2, H, L)).astype("float32"))
    wide = np.empty((H, L, E), "float32")
    assert merge(outputs, lses, out=wide) is wide
    found = merge(outputs, lses)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, wide.astype("float16"))
    stacked = np.stack(lses)  # an array is a sequence of arrays, too
    for threads in (1, 3):
        context = Context(num_threads=threads)
        np.testing.assert_array_equal(merge(outputs, stacked, context=context), found)


def parts(count, dtype=torch.float64, shape=(2, H, L), width=4):
    """Outputs, lses and sinks; some parts, and some rows in all, have seen nothing."""
    generator = torch.Generator().manual_seed(count)
    outputs = torch.randn(count, *shape, width, generator=generator).to(dtype)
    lses = 2 * torch.randn(count, *shape, generator=generator).to(
        torch.promote_types(dtype, torch.float32)
    )
    lses[0, ..., 0] = lses[:, ..., 2] = -torch.inf
    outputs[:, ..., 2, :] = torch.nan
    sinks = torch.randn(shape[-2:-1] or (1,), generator=generator).to(dtype)
    return [one.requires_grad_() for one in (*outputs, *lses, sinks)]


def merged_by_operators(count, arrays, with_sinks):
    """What merge computes, as PyTorch differentiates it."""
    outputs, lses, sinks = arrays[:count], torch.stack(arrays[count:-1]), arrays[-1]
    if with_sinks:
        column = sinks.to(lses.dtype) if lses.dim() == 2 else sinks.to(lses.dtype)[:, None]
        lses = torch.cat([lses, column.expand(lses.shape[1:])[None]])
    unseen = torch.isneginf(lses).all(0)
    lse = torch.logsumexp(lses.masked_fill(unseen, 0), 0).masked_fill(unseen, -torch.inf)
    weights = (lses - lse.masked_fill(unseen, 0)).exp()
    seen = [
        torch.where(weight[..., None] > 0, one.to(lses.dtype), 0)
        for weight, one in zip(weights, outputs)
    ]
    return sum(weight[..., None] * one for weight, one in zip(weights, seen)), lse


@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("shape", [(L,), (2, H, L)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_formula(dtype, shape, with_sinks):
    count = 3
    found, expected = parts(count, dtype, shape), parts(count, dtype, shape)
    sinks = {"sinks": found[-1]} if with_sinks else {}
    pairs = (
        merge(found[:count], found[count:-1], return_lse=True, **sinks),
        merged_by_operators(count, [one.double() for one in expected], with_sinks),
    )
    for output, lse in pairs:
        some = torch.randn(output.shape, generator=torch.Generator().manual_seed(9)).to(dtype)
        ((output * some.to(output.dtype)).sum() + lse[lse > -torch.inf].sin().sum()).backward()
    for one, two in zip(found, expected):
        if two.grad is None:
            assert one.grad is None
            continue
        assert one.grad.dtype == one.dtype
        # Rows are (weights and sums of) a few numbers near 1; sinks have a sum over all of them.
        eps = max(torch.finfo(dtype).eps, torch.finfo(one.dtype).eps)
        largest = max(1.0, two.grad.abs().max().item())
        torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=64 * eps * largest)


@pytest.mark.parametrize("count", [1, 3])
def test_gradients_of_merge_have_gradients(count):
    *arrays, sinks = parts(count, shape=(2, 3), width=1)
    arrays = [one.detach().nan_to_num(1, neginf=-1).requires_grad_() for one in arrays]

    def function(*given):
        return merge(given[:count], given[count:-1], sinks=given[-1], return_lse=True)

    assert torch.autograd.gradcheck(function, (*arrays, sinks))
    assert torch.autograd.gradgradcheck(function, (*arrays, sinks))
    assert torch.autograd.gradcheck(lambda *given: merge(given), arrays[:count])


def test_parts_are_trained_through_attention():
    """Attention to a cut sequence has the gradients of one call, NumPy's arrays among the parts."""
    inputs = [torch.randn(H, S, E, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    query, key, value = inputs
    results = [sdpa(query, key[:, at], value[:, at], return_lse=True)
               for at in (slice(0, 5), slice(5, S))]  # fmt: skip
    nothing = np.zeros((H, S, E)), np.full((H, S), -np.inf)
    outputs, lses = zip(*results, nothing)
    found = torch.autograd.grad(merge(outputs, lses).sin().sum(), inputs)
    expected = torch.autograd.grad(sdpa(query, key, value).sin().sum(), inputs)
    for one, two in zip(found, expected):
        torch.testing.assert_close(one, two)


def test_gradients_need_the_parts_as_they_were():
    output = torch.randn(L, E, requires_grad=True)
    lse = torch.zeros(L)
    total = merge([output, output], [lse, lse]).sum()
    lse += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


X, LSE = np.zeros((2, 3, 4), "float32"), np.zeros((2, 3), "float32")
TENSOR = torch.zeros(3, 4, requires_grad=True)
REFUSED = {
    "outputs: expected a sequence of arrays, got int": lambda: merge(3),
    "outputs: expected one array or more, got none": lambda: merge([]),
    "lses: expected a sequence of arrays, got float": lambda: merge([X], 0.0),
    "lses: expected one for each of 2 outputs, got 1": lambda: merge([X, X], [LSE]),
    "outputs[1]: expected shape": lambda: merge([X, X[:1]], [LSE, LSE]),
    "outputs[1]: expected a NumPy array": lambda: merge([X, 1.0]),
    "lses[1]: expected shape": lambda: merge([X, X], [LSE, X]),
    "lses[0]: expected": lambda: merge([X], [LSE.astype("float16")]),
    "sinks: expected": lambda: merge([X], [LSE], sinks=[1.0, 2.0, 3.0]),
    "sinks: expected None without lses": lambda: merge([X], sinks=[1.0]),
    "return_lse: expected None without lses": lambda: merge([X], return_lse=True),
    "outputs[0]: expected shape (L=3, Ev=4)": lambda: merge([X], [LSE], out=X[0].copy()),
    "outputs[1]: requires grad": lambda: merge([X[0], TENSOR]),
    "lses[0]: requires grad": lambda: merge([X[0]], [TENSOR[:, 0]]),
    "out: cannot be given where a part requires grad": lambda: merge(
        [TENSOR], out=torch.empty(3, 4)
    ),
    "sinks: expected None": lambda: merge([TENSOR], sinks=torch.zeros(1)),
    "a tensor of the call is on meta": lambda: merge([torch.zeros(3, 4, device="meta")]),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text):
    with pytest.raises(Error) as found:
        REFUSED[text]()
    assert str(found.value).startswith(text)


# ---- scores ----


@pytest.mark.parametrize("stage", ["scaled", "capped", "masked"])
@pytest.mark.parametrize(("kind", "dtype"), KINDS_OF_TYPES)
def test_scores_are_the_formulas(kind, dtype, stage):
    """Beside every other result, which they change no bit of, and for every normalizer."""
    numbers = np.random.default_rng(0)
    shapes = ((B, H, L, E), (B, 2, S, E), (B, 2, S, E))
    query, key, value = (of_type(kind, numbers.normal(size=one), dtype) for one in shapes)
    bias = of_type(kind, numbers.normal(size=(L, S)), dtype)
    mask = of_type(kind, numbers.normal(size=(B, 1, L, S)), "float64") > -1
    exact = [exactly(one) for one in (query, key, bias)]
    lengths = np.array([S, 7])
    exists_there = (np.arange(S) < lengths[:, None])[:, None, None]
    repeated = exact[1].repeat(2, axis=1).swapaxes(-1, -2)
    expected = np.where(exists_there, 0.5 * exact[0] @ repeated, 0)
    sizes = 0.5 * np.abs(exact[0]) @ np.abs(repeated)
    if stage != "scaled":
        expected = 3 * np.tanh(expected / 3)
    if stage == "masked":
        seen = exists_there & np.asarray(mask)
        seen &= np.arange(S) <= np.arange(L)[:, None] + lengths[:, None, None, None] - L
        expected = np.where(seen, expected + exact[2], -np.inf)
        sizes = sizes + np.abs(exact[2])
    options = {"scale": 0.5, "softcap": 3.0, "bias": bias, "attn_mask": mask, "is_causal": True}
    options.update(key_lengths=lengths, align_end=True, enable_gqa=True)
    bound = (E + 8) * unit_of(dtype) * sizes
    for normalizer in ("softmax", "linear", "sigmoid"):
        more = {"return_lse": True} if normalizer == "softmax" else {}
        more.update(return_weights=True, normalizer=normalizer, **options)
        *others, scores = sdpa(query, key, value, return_scores=stage, **more)
        assert type(scores) is type(query)
        assert name_of(scores) == score_type(dtype)
        within(scores, expected, bound)
        for one, other in zip(others, sdpa(query, key, value, **more)):
            np.testing.assert_array_equal(exactly(one), exactly(other))


def test_scores_alone():
    x = torch.randn(H, L, E)
    output, scores = sdpa(x, x, x, return_scores="scaled")
    torch.testing.assert_close(scores, x @ x.mT * E**-0.5)
    torch.testing.assert_close(output, scores.softmax(-1) @ x, rtol=1e-5, atol=1e-6)


def test_scores_that_are_refused():
    x = torch.randn(H, L, E)
    with pytest.raises(Error, match="return_scores: expected one of 'scaled', 'capped', 'masked'"):
        sdpa(x, x, x, return_scores="raw")
    wanted = x.clone().requires_grad_()
    with pytest.raises(Error, match="return_scores: cannot be given where a tensor requires grad"):
        sdpa(wanted, x, x, return_scores="scaled")
    with torch.no_grad():
        assert sdpa(wanted, x, x, return_scores="scaled")[1].shape == (H, L, L)
