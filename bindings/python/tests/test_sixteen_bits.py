# SPDX-License-Identifier: BSD-3-Clause
"""bfloat16 and float16 in NumPy's arrays and PyTorch's tensors, beside each other and beside
float32: products of options against float64, within what include/attention/sdpa.h promises."""

import itertools

import numpy as np
import pytest
import torch

import libattention
from libattention import Context, MultiheadAttention
from libattention import scaled_dot_product_attention as sdpa

try:
    from ml_dtypes import bfloat16
except ModuleNotFoundError:
    bfloat16 = None

TYPES = ("float32", "bfloat16", "float16")
HALVES = TYPES[1:]
# Of storing a number: relative, and of the small ones of float16 absolute.
STORED = {"float32": (2**-24, 0), "bfloat16": (2**-8, 0), "float16": (2**-11, 2**-25)}
UNIT = 2**-24
BATCH, HEADS, ROWS, KEYS, FEATURES, VALUES = 2, 4, 5, 7, 8, 6


def need(kind, *types):
    """Skips what NumPy has no type for."""
    if kind == "numpy" and "bfloat16" in types and bfloat16 is None:
        reason = "NumPy has bfloat16 only with the package ml_dtypes, which is not installed"
        print(reason)
        pytest.skip(reason)


def of_type(kind, array, dtype):
    """An array of float64 as the kind's, rounded to a type."""
    if kind == "torch":
        return torch.from_numpy(array).to(getattr(torch, dtype))
    return array.astype(bfloat16 if dtype == "bfloat16" else dtype)


def exactly(array):
    """The numbers that it holds, in float64."""
    return array.double().numpy() if isinstance(array, torch.Tensor) else array.astype("float64")


def name_of(array):
    return str(array.dtype).removeprefix("torch.")


# ---- the formula, and how far results may be from it ----


def scores_of(query, key, scale, softcap, slopes, added):
    """Scores in float64, and the sum of the sizes of what a score is made of."""
    scores = scale * (query @ np.swapaxes(key, -1, -2))
    sizes = abs(scale) * (np.abs(query) @ np.swapaxes(np.abs(key), -1, -2))
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    distance = np.abs(np.arange(query.shape[-2])[:, None] - np.arange(key.shape[-2]))
    for more in (-slopes[:, None, None] * distance, *added):
        finite = np.where(np.isfinite(more), more, 0)
        scores, sizes = scores + more, sizes + np.abs(finite)
    return scores, sizes


class Exact:
    """A call's results in float64, and the largest errors of float32's computing."""

    def __init__(self, query, key, value, seen, added, scale=None, softcap=0, slopes=0, sinks=None):
        groups = query.shape[1] // key.shape[1]
        key, value = (one.repeat(groups, axis=1) for one in (key, value))
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        slopes = np.broadcast_to(np.asarray(slopes, "float64"), query.shape[1:2])
        scores, sizes = scores_of(query, key, scale, softcap, slopes, added)
        scores = np.where(seen, scores, -np.inf)
        visible = np.isfinite(scores)
        logits = scores
        if sinks is not None:
            column = np.broadcast_to(sinks[:, None, None], (*scores.shape[:-1], 1))
            logits = np.concatenate([scores, column], axis=-1)
        top = logits.max(axis=-1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0)
        total = np.exp(logits - top).sum(axis=-1, keepdims=True)
        self.weights = np.exp(scores - top) / np.where(total == 0, 1, total)
        self.output = self.weights @ value
        with np.errstate(divide="ignore"):
            self.lse = (top + np.log(total))[..., 0]
        of_scores = (FEATURES + 8) * UNIT * np.where(visible, sizes, 0).max(-1, keepdims=True)
        spread = np.where(visible, scores, -np.inf).max(-1, keepdims=True) - np.where(
            visible, scores, np.inf
        ).min(-1, keepdims=True)
        spread = np.where(np.isfinite(spread), spread, 0)
        relative = 2 * of_scores + (visible.sum(-1, keepdims=True) + 16 + spread) * UNIT
        self.sums = self.weights @ np.abs(value)
        self.of_output = relative * self.sums
        self.of_weights = relative * self.weights
        finite = np.where(np.isfinite(self.lse), self.lse, 0)
        self.of_lse = relative[..., 0] + UNIT * np.abs(finite)

    def compare(self, output, lse, weights, rounds_weights=False):
        """Asserts that results are within their bounds; bfloat16 weights may be rounded where
        kernels multiply pairs of it."""
        of_output = self.of_output + (2**-8 * self.sums if rounds_weights else 0)
        assert_near(output, self.output, of_output)
        assert_near(weights, self.weights, self.of_weights)
        assert name_of(lse) == "float32"
        assert_near(lse, self.lse, self.of_lse)


def assert_near(found, expected, bound):
    relative, absolute = STORED[name_of(found)]
    found = exactly(found)
    assert found.shape == expected.shape
    is_finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~is_finite], expected[~is_finite])
    off = np.abs(found[is_finite] - expected[is_finite])
    limit = (bound + relative * (np.abs(expected) + bound) + absolute)[is_finite]
    assert (off <= limit).all(), (off / limit).max()


# ---- attention ----

MASKS = ("none", "bool", "of query's type", "float32", "bias")
FURTHER = {
    "none": {},
    "scale": {"scale": -0.7},
    "grouped": {"enable_gqa": True},
    "softcap and sinks": {"softcap": 1.5, "sinks": np.linspace(-1, 2, HEADS)},
    "alibi": {"alibi_slopes": np.array([0.5, 0.25, 0.125, 1.0])},
}


def inputs_of(kind, types, further):
    rng = np.random.default_rng(0)
    kv_heads = 2 if further == "grouped" else HEADS
    shapes = [(HEADS, ROWS, FEATURES), (kv_heads, KEYS, FEATURES), (kv_heads, KEYS, VALUES)]
    return [
        of_type(kind, rng.normal(size=(BATCH, *shape)), dtype)
        for shape, dtype in zip(shapes, types)
    ]


def mask_of(kind, name, dtype):
    """Options, where they hide nothing, and what they add; one row sees nothing."""
    rng = np.random.default_rng(3)
    seen = rng.random((BATCH, 1, ROWS, KEYS)) < 0.7
    seen[0, :, 2] = False
    numbers = np.where(seen, rng.normal(size=seen.shape), -np.inf)
    everything = np.ones_like(seen)
    if name == "none":
        return {}, everything, []
    if name == "bool":
        given = torch.from_numpy(seen) if kind == "torch" else seen
        return {"attn_mask": given}, seen, []
    given = of_type(kind, numbers, "float32" if name == "float32" else dtype)
    return {"bias" if name == "bias" else "attn_mask": given}, everything, [exactly(given)]


def options_of(kind, further, dtype):
    """For the call, and for the formula: arrays in query's type."""
    given, exact = {}, {}
    for name, one in FURTHER[further].items():
        if isinstance(one, np.ndarray):
            given[name] = of_type(kind, one, dtype)
            exact["slopes" if name == "alibi_slopes" else name] = exactly(given[name])
        else:
            given[name] = one
            if name != "enable_gqa":
                exact[name] = one
    return given, exact


def rounds_weights(*types):
    return set(types) == {"bfloat16"} and libattention.info()["kernels"].endswith("_bf16")


@pytest.mark.parametrize("types", list(itertools.product(TYPES, repeat=3)), ids="-".join)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_every_option_and_every_mixture(kind, types):
    need(kind, *types)
    for further, mask, is_causal in itertools.product(FURTHER, MASKS, (False, True)):
        query, key, value = inputs_of(kind, types, further)
        masks, seen, added = mask_of(kind, mask, types[0])
        options, exact = options_of(kind, further, types[0])
        causal = np.tril(np.ones((ROWS, KEYS), bool)) if is_causal else True
        expected = Exact(*map(exactly, (query, key, value)), seen & causal, added, **exact)
        given = {**masks, **options, "is_causal": is_causal}
        found = sdpa(query, key, value, **given, return_lse=True, return_weights=True)
        assert [type(one) for one in found] == [type(query)] * 3
        assert [name_of(one) for one in found] == [types[0], "float32", types[0]]
        expected.compare(*found, rounds_weights(*types))
        alone = sdpa(query, key, value, **given)
        assert name_of(alone) == types[0]
        assert_near(
            alone,
            expected.output,
            expected.of_output + 2**-8 * expected.sums
            if rounds_weights(*types)
            else expected.of_output,
        )


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_an_output_may_be_of_the_scores_type(kind, dtype):
    """Which is rounded to float32 alone."""
    need(kind, dtype)
    arrays = inputs_of(kind, [dtype] * 3, "none")
    out = of_type(kind, np.zeros((BATCH, HEADS, ROWS, VALUES)), "float32")
    assert sdpa(*arrays, out=out) is out
    wide = sdpa(*(of_type(kind, exactly(one), "float32") for one in arrays))
    exact = Exact(*map(exactly, arrays), True, [])
    more = 2**-8 * exact.sums if rounds_weights(*[dtype] * 3) else 0
    assert_near(out, exact.output, exact.of_output + more)
    assert_near(wide, exact.output, exact.of_output)
    rounded = of_type(kind, exactly(out), dtype)
    np.testing.assert_array_equal(exactly(rounded), exactly(sdpa(*arrays)))


@pytest.mark.parametrize("dtype", HALVES)
def test_tensors_and_arrays_of_the_same_numbers_give_the_same_bits(dtype):
    need("numpy", dtype)
    found = [
        exactly(sdpa(*inputs_of(kind, [dtype] * 3, "none"), is_causal=True))
        for kind in ("numpy", "torch")
    ]
    np.testing.assert_array_equal(*found)


def test_keys_of_float16_in_a_decoders_cache():
    """What fewer bytes are for: a float32 query over a cache of 16 bits, lengths and all."""
    rng = np.random.default_rng(4)
    query = rng.normal(size=(2, 4, 1, 16)).astype("float32")
    key, value = rng.normal(size=(2, 2, 2, 300, 16)).astype("float16")
    options = {"enable_gqa": True, "is_causal": True, "align_end": True, "key_lengths": [300, 170]}
    found = sdpa(query, key, value, **options)
    wide = sdpa(query, key.astype("float32"), value.astype("float32"), **options)
    assert found.dtype == "float32"
    seen = np.arange(300) < np.array([300, 170])[:, None, None, None]
    exact = Exact(*map(exactly, (query, key, value)), seen, [])
    for one in (found, wide):
        assert_near(one, exact.output, exact.of_output)


# ---- weights in float32 ----


@pytest.mark.parametrize("kernels", libattention.info()["kernels_here"])
def test_weights_are_float32_where_that_is_asked_for(kernels):
    """More rows than weights are kept in float32 for by themselves."""
    rng = np.random.default_rng(5)
    arrays = [torch.from_numpy(rng.normal(size=(1, 2, 64, 8))).bfloat16() for _ in range(3)]
    exact = Exact(*map(exactly, arrays), True, [])
    out = torch.empty(1, 2, 64, 8)
    results = {}
    for wants in (False, True):
        context = Context(num_threads=1, kernels=kernels, float32_weights=wants)
        results[wants] = sdpa(*arrays, out=out, context=context).clone()
    assert_near(results[True], exact.output, exact.of_output)
    more = 2**-8 * exact.sums
    assert_near(results[False], exact.output, exact.of_output + more)
    differ = not torch.equal(results[False], results[True])
    assert differ == kernels.endswith("_bf16")


def test_a_context_keeps_what_was_asked_of_weights():
    context = Context(num_threads=1, float32_weights=True)
    assert context.__reduce__()[1][-1] is True
    assert eval(repr(context), {"Context": Context}).__reduce__()[1][-1] is True
    assert "float32_weights=False" in repr(Context())
    for wrong in ("yes", None, 2**40):
        with pytest.raises(libattention.Error, match=r"^float32_weights: expected True or False"):
            Context(float32_weights=wrong)


# ---- layers ----


@pytest.mark.parametrize("parameter_dtype", [None, *TYPES])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_layers_of_every_type_with_parameters_of_every_type(kind, dtype, parameter_dtype):
    """Against PyTorch's layer in float64; float32's part of the error is that of other tests."""
    need(kind, dtype)
    layer = MultiheadAttention(
        16, 4, kdim=12, vdim=10, batch_first=True, dtype=dtype, parameter_dtype=parameter_dtype
    )
    assert layer.dtype == dtype
    kept = parameter_dtype or dtype
    assert layer.config["parameter_dtype"] == kept
    state = layer.state_dict()
    assert {name_of(one) for one in state.values()} == {kept.replace("bfloat16", "float32")}
    theirs = torch.nn.MultiheadAttention(16, 4, kdim=12, vdim=10, batch_first=True).double().eval()
    theirs.load_state_dict({name: torch.from_numpy(exactly(one)) for name, one in state.items()})
    rng = np.random.default_rng(6)
    shapes = ((3, 5, 16), (3, 7, 12), (3, 7, 10))
    arrays = [of_type(kind, rng.normal(size=one), dtype) for one in shapes]
    hidden = np.zeros((3, 7), bool)
    hidden[1, 4:] = True
    added = of_type(kind, rng.normal(size=(5, 7)), dtype)
    padding = torch.from_numpy(hidden) if kind == "torch" else hidden
    output, weights, lse = layer(
        *arrays, key_padding_mask=padding, attn_mask=added, return_lse=True
    )
    assert [name_of(one) for one in (output, weights, lse)] == [dtype, dtype, "float32"]
    with torch.no_grad():
        exact = theirs(
            *(torch.from_numpy(exactly(one)) for one in arrays),
            key_padding_mask=torch.zeros(3, 7)
            .double()
            .masked_fill(torch.from_numpy(hidden), -torch.inf),
            attn_mask=torch.from_numpy(exactly(added)),
        )
    more = 2**-8 if rounds_weights(dtype) else 0
    for found, one, rounded in zip((output, weights), exact, (more, 0)):
        largest = np.abs(exactly(arrays[2])).max() * 10  # of a sum of ten, times weights below 1
        assert_near(found, one.numpy(), 2e-6 + 1e-5 * np.abs(one.numpy()) + rounded * largest)


@pytest.mark.parametrize("dtype", HALVES)
def test_parameters_of_16_bits_are_those_that_were_given(dtype):
    """Rounded once where they were wider, and to the same numbers as PyTorch rounds them."""
    layer = MultiheadAttention(8, 2, parameter_dtype=dtype)
    wide = MultiheadAttention(8, 2).state_dict()
    layer.load_state_dict(wide)
    for name, values in layer.state_dict().items():
        expected = torch.from_numpy(wide[name]).to(getattr(torch, dtype)).float().numpy()
        np.testing.assert_array_equal(values.astype("float32"), expected)
    once = layer.state_dict()
    layer.load_state_dict(once)
    for name, values in layer.state_dict().items():
        np.testing.assert_array_equal(values, once[name])
