# SPDX-License-Identifier: BSD-3-Clause
"""scaled_dot_product_attention_backward, of arrays of every kind: random calls beside PyTorch's
autograd of the formula in float64, and what is refused.

Errors are measured relative to 1 plus the largest number of the exact gradient. A score is a sum of
E + 16 roundings of u = 2^-24, or 2^-53, of terms up to |q||k| E / sqrt(E), and so much is the
relative error of its weight; a row's terms and a gradient's are n of them, of either sign: 4 (E +
16) sqrt(n) u with room for the terms that cancel. An output of 16 bits enters by its rounding, 2^-8
or 2^-11, likewise, and a gradient of 16 bits is rounded once more.
"""

import math
import os
import random

import numpy as np
import pytest
import torch

import libattention
from libattention import KV, Context, Error, Gradients, scaled_dot_product_attention
from libattention import scaled_dot_product_attention_backward as backward
from libattention._torch_eager import attend
from libattention._torch_options import TorchOptions

CALLS = int(os.environ.get("ATTENTION_DIFFERENTIAL", "300"))
ROUNDING = {
    torch.float64: 2**-53,
    torch.float32: 2**-24,
    torch.bfloat16: 2**-8,
    torch.float16: 2**-11,
}
CONTEXTS = [Context(1), Context(2), Context(3)]


class Case:
    """A random call, with what its gradients are computed from and which are wanted."""

    def __init__(self, seed):
        draw = self.draw = random.Random(seed)
        torch.manual_seed(seed)
        self.dtype = draw.choice([torch.float32, *ROUNDING])
        self.of_scores = torch.float64 if self.dtype == torch.float64 else torch.float32
        batch, key_heads = draw.choice([1, 2, 3]), draw.choice([1, 2])
        heads = key_heads * draw.choice([1, 1, 2, 3])
        self.rows, self.keys = draw.choice([1, 2, 5, 17, 40]), draw.choice([1, 3, 16, 33, 61])
        self.width, values = draw.choice([1, 3, 8, 16, 33]), draw.choice([1, 4, 16])
        shared = draw.choice([batch, batch, 1])
        self.inputs = {
            "query": self.laid_out(batch, heads, self.rows, self.width),
            "key": self.laid_out(shared, key_heads, self.keys, self.width),
            "value": self.laid_out(shared, draw.choice([key_heads, 1]), self.keys, values),
        }
        self.options = {"enable_gqa": True, **self.options_of(batch, heads)}
        self.is_softmax = self.options.get("normalizer", "softmax") == "softmax"
        self.has_lse = self.is_softmax and draw.random() < 0.4
        self.averages = draw.random() < 0.5
        self.has_weights = draw.random() < 0.4
        named = {**self.inputs, **self.options}
        self.wanted = [
            name
            for name in Gradients._fields
            if isinstance(named.get(name), torch.Tensor)
            and named[name].is_floating_point()
            and draw.random() < 0.9
        ]
        self.accumulates = draw.random() < 0.3
        self.context = draw.choice(CONTEXTS)
        self.text = f"seed {seed}: {self.dtype}, " + ", ".join(
            f"{name} {tuple(one.shape) if isinstance(one, torch.Tensor) else one}"
            for name, one in named.items()
        )

    def laid_out(self, *shape):
        kind = self.draw.choice(["plain", "plain", "heads inside", "transposed"])
        made = torch.randn(shape).to(self.dtype)
        if kind == "heads inside":
            return made.transpose(1, 2).contiguous().transpose(1, 2)
        return made.mT.contiguous().mT if kind == "transposed" else made

    def options_of(self, batch, heads):
        draw, rows, keys = self.draw, self.rows, self.keys
        found = {}

        def maybe(name, make, chance=0.3):
            if draw.random() < chance:
                found[name] = make()

        def beside_scores():
            each = [draw.choice([1, n]) for n in (batch, heads, rows, keys)]
            return torch.randn(each).to(self.dtype)

        maybe("is_causal", lambda: True)
        maybe("scale", lambda: 0.3)
        maybe("softcap", lambda: 1.5)
        maybe("window", lambda: draw.choice([(3, 1), (20, -1), (-1, 2)]))
        maybe("query_offset", lambda: torch.tensor(draw.choice([keys - rows, -3, 2])))
        maybe("key_lengths", lambda: torch.tensor([draw.randint(0, keys) for _ in range(batch)]))
        maybe("bias", beside_scores)
        maybe("alibi_slopes", lambda: torch.rand(draw.choice([1, heads])).to(self.dtype))
        maybe("position_bias", lambda: self.table(draw.choice([1, heads]), draw.choice([0, 3, 40])))
        maybe("normalizer", lambda: draw.choice(["sigmoid", "linear"]))
        if found.get("normalizer") is None:
            maybe("sinks", lambda: torch.randn(draw.choice([1, heads])).to(self.dtype))
        maybe("attn_mask", beside_scores)
        if "attn_mask" in found:
            seen = torch.rand(found["attn_mask"].shape) < 0.7
            is_bool = draw.random() < 0.3
            mask = found["attn_mask"].masked_fill(~seen, -math.inf)
            found["attn_mask"] = seen if is_bool else mask
        return found

    def table(self, heads, reach):
        return torch.randn(heads, 2 * reach + 1).to(self.dtype)

    def directions(self, output, lse, weights):
        """Gradients of the results, those of rows without a logarithm 0; None: none."""
        each = torch.randn(output.shape).to(self.dtype)
        of_lse = torch.randn(lse.shape, dtype=self.of_scores) if self.has_lse else None
        of_weights = None
        if self.has_weights:
            shape = [n for axis, n in enumerate(weights.shape) if axis != 1 or not self.averages]
            of_weights = torch.randn(shape).to(self.dtype)
        return each, of_lse, of_weights

    def compute(self):
        """The results of the library, and directions."""
        found = scaled_dot_product_attention(
            **self.inputs, **self.options, return_weights=True, return_lse=self.is_softmax
        )
        output, *others, weights = found
        lse = others[0] if self.is_softmax else None
        return output, lse, self.directions(output, lse, weights)

    def exact(self, directions):
        """Gradients by PyTorch's autograd in float64."""
        wide = {
            name: one.double() if isinstance(one, torch.Tensor) and one.is_floating_point() else one
            for name, one in {**self.inputs, **self.options}.items()
        }
        leaves = [wide[name].requires_grad_() for name in self.wanted]
        query, key, value = (wide.pop(name) for name in self.inputs)
        heads = query.shape[1]
        value = value.repeat_interleave(key.shape[1] // value.shape[1], dim=1)
        before, after = wide.pop("window", (-1, -1))
        options = TorchOptions(**wide, window_left=before, window_right=after)
        found = attend(query, key, value, options)
        assert found.output.shape[1] == heads
        of_output, of_lse, of_weights = directions
        loss = (found.output * of_output.double()).sum()
        if of_lse is not None:
            seen = found.lse.isfinite()
            loss = loss + (torch.where(seen, found.lse, 0) * of_lse).sum()
        if of_weights is not None:
            weights = found.weights.mean(1) if self.averages else found.weights
            loss = loss + (weights * of_weights.double()).sum()
        if not leaves:
            return {}
        computed = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        return dict(zip(self.wanted, computed))

    def summed(self, name, shape):
        """How many scores' gradients an element of a gradient of this shape is a sum of."""
        scores = math.prod(self.inputs["query"].shape[:3]) * self.keys
        owners = math.prod(shape[:-1] if name in self.inputs else shape)
        return max(self.rows, self.keys, scores // owners)

    def limit(self, name, dtype, expected):
        """Of the error of a gradient of this dtype; see the top of this file."""
        terms = 4 * math.sqrt(self.summed(name, expected.shape))
        unit = ROUNDING[self.of_scores] * (self.width + 16)
        if self.dtype != self.of_scores:
            unit += ROUNDING[self.dtype]
        size = 1 + expected.abs().max().item()
        if name == "alibi_slopes":  # whose terms are distances times scores' gradients
            size *= self.rows + self.keys
        return (terms * unit + ROUNDING[dtype]) * size


@pytest.mark.parametrize("part", range(4))
def test_random_calls_have_the_gradients_of_pytorchs_autograd(part):
    for seed in range(part, CALLS, 4):
        case = Case(seed)
        output, lse, directions = case.compute()
        each, of_lse, of_weights = directions
        out = {}
        for name in case.wanted:
            like = {**case.inputs, **case.options}[name]
            if case.accumulates:
                dtype = case.draw.choice([like.dtype, case.of_scores])
                out[name] = torch.randn(like.shape).to(dtype)
        before = {name: one.clone() for name, one in out.items()}
        found = backward(
            each, **case.inputs, output=output, lse=lse, **case.options,
            grad_lse=of_lse, grad_weights=of_weights, wanted=case.wanted, out=out,
            accumulate=case.accumulates, context=case.context,
        )  # fmt: skip
        exact = case.exact(directions)
        for name in Gradients._fields:
            one = getattr(found, name)
            assert (one is None) == (name not in case.wanted)
            if one is None:
                continue
            expected = exact[name]
            if name in before:
                assert one is out[name]
                expected = expected + before[name].double()
            else:
                assert one.dtype == case.dtype, case.text
            assert one.shape == expected.shape
            error = (one.double() - expected).abs().max().item()
            limit = case.limit(name, one.dtype, expected)
            assert error <= limit, f"{case.text}: {name} {error} > {limit}"


# ---- kinds of arrays ----


@pytest.fixture
def call(qkv):
    """Query, key, value, output, lse and a direction, in NumPy."""
    output, lse = scaled_dot_product_attention(*qkv, is_causal=True, return_lse=True)
    return [np.ones_like(output), *qkv, output, lse]


class Lent:
    """An array that is known by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __array_namespace__(self):
        return np


def test_every_kind_of_array_gives_the_same_bits(call):
    expected = backward(*call, is_causal=True)
    assert all(isinstance(one, np.ndarray) for one in expected[:3])
    for convert in (torch.from_numpy, Lent):
        found = backward(*map(convert, call), is_causal=True)
        for one, other in zip(found[:3], expected[:3]):
            assert type(one) is (torch.Tensor if convert is torch.from_numpy else np.ndarray)
            np.testing.assert_array_equal(np.asarray(one), other)
    out = {"key": np.zeros_like(call[2])}
    found = backward(*call, is_causal=True, wanted="value", out=out)
    assert found.key is out["key"]
    assert found.query is None
    np.testing.assert_array_equal(found.key, expected.key)
    np.testing.assert_array_equal(found.value, expected.value)


def test_gradients_of_lists_of_numbers(call):
    output, lse = scaled_dot_product_attention(*call[1:4], sinks=[1, 2, 3, 4], return_lse=True)
    found = backward(call[0], *call[1:4], output, lse, sinks=[1, 2, 3, 4], wanted=["sinks"])
    assert found.sinks.shape == (4,)
    assert found.sinks.dtype == np.float32
    # Output shrinks as a sink grows: the direction is that of every value's sum.
    step = 1e-2
    changed = [
        scaled_dot_product_attention(*call[1:4], sinks=[1 + change, 2, 3, 4]).sum(dtype="float64")
        for change in (step, -step)
    ]
    slope = (changed[0] - changed[1]) / (2 * step)
    assert found.sinks[0] == pytest.approx(slope, rel=1e-2, abs=1e-3)


def test_a_context_with_threads_changes_no_bit(call):
    one, other = (backward(*call, is_causal=True, context=Context(n)) for n in (1, 3))
    for each, again in zip(one[:3], other[:3]):
        np.testing.assert_array_equal(each, again)


# ---- sequences of different lengths ----


def test_sequences_one_behind_the_other_have_the_gradients_that_they_have_alone(rng):
    query, key, value = (rng.normal(size=(2, 9, 8)).astype("float32") for _ in range(3))
    starts = {"query": [0, 3, 8], "key": [1, 3, 9]}  # with rows of no sequence
    kv = KV(key, value, starts=starts["key"])
    options = {"is_causal": True, "align_end": True}
    output, lse = scaled_dot_product_attention(
        query, kv=kv, query_starts=starts["query"], return_lse=True, **options
    )
    direction = rng.normal(size=output.shape).astype("float32")
    found = backward(
        direction, query, output=output, lse=lse, kv=kv, query_starts=starts["query"], **options
    )
    expected = [np.zeros_like(one) for one in (query, key, value)]
    for sequence in range(2):
        rows, keys = (slice(*starts[name][sequence : sequence + 2]) for name in ("query", "key"))
        alone = (query[:, rows], key[:, keys], value[:, keys], output[:, rows], lse[:, rows])
        each = backward(direction[:, rows], *alone, **options)
        for whole, part, place in zip(expected, each[:3], (rows, keys, keys)):
            whole[:, place] = part
    for one, other in zip(found[:3], expected):
        np.testing.assert_array_equal(one, other)


def test_a_cache_with_room_has_gradients_of_its_shape(rng):
    key, value = rng.normal(size=(2, 2, 3, 7, 8)).astype("float32")
    query = rng.normal(size=(2, 3, 4, 8)).astype("float32")
    lengths = np.array([5, 2])
    usual = {"key_lengths": lengths}
    output, lse = scaled_dot_product_attention(query, key, value, **usual, return_lse=True)
    expected = backward(np.ones_like(output), query, key, value, output, lse, **usual)
    kv = KV(key, value, lengths=lengths)
    found = backward(np.ones_like(output), query, output=output, lse=lse, kv=kv)
    for one, other in zip(found[:3], expected[:3]):
        np.testing.assert_array_equal(one, other)
    assert (found.key[1, :, 2:] == 0).all()


# ---- what is refused ----


def test_refusals_name_the_argument(call):
    query, lse = call[1], call[5]
    usual = {"is_causal": True}

    def refused(match, *arguments, **options):
        with pytest.raises(Error, match=match):
            backward(*arguments, **{**usual, **options})

    refused(r"^grad_output: expected a", None, *call[1:])
    refused(r"^grad_output: expected shape \(2, .*, got \(1\)", np.ones(1, "float32"), *call[1:])
    refused(r"^output: expected a tensor, got None", *call[:4], None, call[5])
    refused(r"^lse: expected what the forward call wrote", *call[:5])
    refused(r"^lse: expected dtype float32", *call[:5], lse.astype("float64"))
    refused(r"^grad_lse: expected shape", *call, grad_lse=lse[..., :1])
    refused(
        r"^grad_lse: expected None unless the norm", *call[:5], normalizer="sigmoid", grad_lse=lse
    )
    refused(r"^grad_weights: expected", *call, grad_weights=lse)
    refused(r"^wanted: expected some of query, key, .*, got 'keys'", *call, wanted=["keys"])
    refused(r"^wanted: expected some of query, key, .*, got 'mask'", *call, out={"mask": query})
    refused(r"^gradients.sinks: .* without sinks", *call, wanted=["sinks"])
    mask = np.ones((5, 7), bool)
    text = r"^gradients.attn_mask: expected None, since a bool mask has no gradient"
    refused(text, *call, attn_mask=mask, wanted=["attn_mask"])
    refused(r"^gradients.query: expected shape", *call, out={"query": lse.copy()})
    refused(r"^gradients.query: expected dtype", *call, out={"query": query.astype("float64")})
    refused(r"^out\['query'\]: .*int32", *call, out={"query": query.astype("int32")})
    locked = query.copy()
    locked.flags.writeable = False
    refused(r"^out\['query'\]: is read-only", *call, out={"query": locked})
    refused(r"^window: expected how many", *call, window=3)
    refused(r"^kv: expected a libattention.KV", *call, kv=3)


def test_gradients_of_pages_and_integers_are_refused(rng):
    query = rng.normal(size=(1, 2, 3, 8)).astype("float32")
    stored = rng.normal(size=(2, 2, 4, 8)).astype("float32")
    paged = KV(stored, stored, page_table=[[1, 0]], lengths=[6])
    output, lse = scaled_dot_product_attention(query, kv=paged, return_lse=True)
    given = {"output": output, "lse": lse}
    text = r"^gradients.key: expected None beside kv.page_table, since sequences may share pages"
    with pytest.raises(Error, match=text):
        backward(output, query, kv=paged, **given)
    found = backward(output, query, kv=paged, wanted=["query"], **given)
    assert found.query.shape == query.shape
    counts = np.ones((1, 2, 4, 8), "int8")
    integers = KV(counts, counts)
    output, lse = scaled_dot_product_attention(query, kv=integers, return_lse=True)
    with pytest.raises(Error, match=r"^gradients.value: expected None, since .* is quantised"):
        backward(output, query, output=output, lse=lse, kv=integers, wanted=["value"])


def test_tensors_that_pytorch_would_have_to_compute_with_are_refused(call):
    tensors = [torch.from_numpy(one) for one in call]
    tensors[1].requires_grad_()
    with pytest.raises(Error, match=r"^query: requires grad, which would be lost; pass query.de"):
        backward(*tensors)
    with torch.no_grad():
        assert backward(*tensors).query.shape == tensors[1].shape
    with pytest.raises(Error, match=r"transformed by torch.func, .* let PyTorch differentiate"):
        torch.vmap(lambda one: backward(one, *tensors[1:]))(tensors[0][None])


def test_the_package_offers_it():
    assert libattention.scaled_dot_product_attention_backward is backward
    assert "Gradients" in libattention.__all__
