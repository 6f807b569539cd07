# SPDX-License-Identifier: BSD-3-Clause
"""Rotary positions and RMS norms: those of float64 within their bounds (rope.h, rms_norm.h), of
transformers and of PyTorch; their gradients, and what is refused."""

import itertools
import threading

import numpy as np
import pytest
import torch
from sequence_oracle import STORED, exactly, exists, name_of, of_type
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as rotate_as_gptj
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from libattention import Context, Error, rms_norm, rope

B, H, L, E = 2, 3, 5, 8
KINDS = ("numpy", "torch")
TYPES = ("float32", "float64", "bfloat16", "float16")
BASE, MAGNITUDE = 500.0, 1.25
LENGTHS = np.array([9, 5])


def unit_of(dtype):
    return 2**-53 if dtype == "float64" else 2**-24


def within(found, expected, bound):
    relative, absolute = STORED[name_of(found)]
    limit = bound + relative * (np.abs(expected) + bound) + absolute
    off = np.abs(exactly(found) - expected)
    assert off.shape == expected.shape
    assert (off <= limit).all(), (off / limit).max()


def kinds_of_types():
    return [one for one in itertools.product(KINDS, TYPES) if exists(*one)]


# ---- rope ----


class Placed:
    """Where rows stand, and how a call is told."""

    def __init__(self, expected, **options):
        self.positions = np.broadcast_to(expected, (B, L)).astype("float64")
        self.options = options


PLACES = {
    "from 0": Placed(np.arange(L)),
    "positions": Placed([[7, 1, 0, 1, -3]], positions=np.array([7, 1, 0, 1, -3])),
    "of sequences": Placed(
        np.arange(B * L).reshape(B, L) * 3,
        positions=(np.arange(B * L).reshape(B, L) * 3).astype("int32"),
    ),
    "lengths": Placed(LENGTHS[:, None] - L + np.arange(L), lengths=LENGTHS),
}


def tables_of(place, turns, source, dtype):
    """Options that say how far a position turns, and the angles' cosines and sines (B, L, R/2)."""
    angles = place.positions[..., None] * turns
    if source == "base":
        return {"base": BASE}, np.cos(angles), np.sin(angles)
    if source == "frequencies":
        return {"frequencies": turns}, np.cos(angles), np.sin(angles)
    dtype = "float64" if dtype == "float64" else "float32"
    if not place.options:
        cos, sin = np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
        return {"cos": cos, "sin": sin}, cos.astype("float64"), sin.astype("float64")
    rows = place.positions.astype(int)
    by_position = np.arange(30)[:, None] * turns
    cos, sin = np.cos(by_position).astype(dtype), np.sin(by_position).astype(dtype)
    return {"cos": cos, "sin": sin}, exactly(cos)[rows], exactly(sin)[rows]


def pairs(features, rotary_dim, interleaved):
    half = rotary_dim // 2
    if interleaved:
        return features[..., 0:rotary_dim:2], features[..., 1:rotary_dim:2]
    return features[..., :half], features[..., half:rotary_dim]


def rotation_of(x, cos, sin, rotary_dim, interleaved, magnitude, inverse):
    """In float64: the result, and of each feature |x cos a| + |y sin a| and |x| + |y|, 0 where it
    is copied."""
    cos, sin = cos[:, None], (-sin if inverse else sin)[:, None]
    one, other = pairs(x, rotary_dim, interleaved)
    found, products, sizes = x.copy(), np.zeros_like(x), np.zeros_like(x)
    for result, first, second in (
        (found, one * cos - other * sin, other * cos + one * sin),
        (products, abs(one * cos) + abs(other * sin), abs(other * cos) + abs(one * sin)),
        (sizes, abs(one) + abs(other), abs(one) + abs(other)),
    ):
        where = pairs(result, rotary_dim, interleaved)
        where[0][...], where[1][...] = magnitude * first, magnitude * second
    return found, products, sizes


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("source", ["base", "frequencies", "tables"])
@pytest.mark.parametrize(("kind", "dtype"), kinds_of_types())
def test_rotation_is_the_formulas(kind, dtype, source, place):
    """Over which features, in which pairs, either way, in place or not."""
    if source == "tables" and place == "positions":
        place = "of sequences"  # there are tables of no negative positions
    given = PLACES[place]
    numbers = np.random.default_rng(3).normal(size=(B, H, L, E))
    for rotary_dim, interleaved, inverse, in_place in itertools.product(
        (None, 4), (False, True), (False, True), (False, True)
    ):
        size = rotary_dim or E
        turns = BASE ** (-2 * np.arange(size // 2) / size)
        options, cos, sin = tables_of(given, turns, source, dtype)
        x = of_type(kind, numbers, dtype)
        switches = (size, interleaved, MAGNITUDE, inverse)
        expected, products, sizes = rotation_of(exactly(x), cos, sin, *switches)
        found = rope(
            x,
            rotary_dim=rotary_dim,
            magnitude=MAGNITUDE,
            interleaved=interleaved,
            inverse=inverse,
            out=x if in_place else None,
            **options,
            **given.options,
        )
        assert (found is x) == in_place
        assert type(found) is type(x)
        assert found.dtype == x.dtype
        angle = np.abs(given.positions).max()
        turned = (4 + np.log(BASE)) * 2**-53 * angle + 2**-51
        unit = unit_of(dtype) + 2**-52  # what is expected is rounded, too
        within(found, expected, 5 * unit * products + turned * sizes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rotation_is_transformers(dtype):
    """Llama's halves, whose tables have each column twice, and GPT-J's neighbours."""
    query, key = torch.randn(2, B, H, L, E, dtype=dtype)
    config = LlamaConfig(hidden_size=H * E, num_attention_heads=H, rope_theta=BASE)
    positions = torch.tensor([[3, 4, 5, 6, 7], [0, 1, 2, 3, 4]])
    embedding = LlamaRotaryEmbedding(config)
    cos, sin = embedding(query, positions)
    tolerance = {"rtol": 0, "atol": 0.05 if dtype == torch.bfloat16 else 1e-5}
    views = {"cos": cos[..., : E // 2], "sin": sin[..., : E // 2]}
    by_frequency = {"frequencies": embedding.inv_freq, "positions": positions}
    for theirs, x in zip(apply_rotary_pos_emb(query, key, cos, sin), (query, key)):
        torch.testing.assert_close(rope(x, **views), theirs, **tolerance)
        torch.testing.assert_close(rope(x, **by_frequency), theirs, **tolerance)
    half_cos, half_sin = (one[:, :, : E // 2].float() for one in (cos, sin))
    rows = query.transpose(1, 2).float()  # (B, L, H, E)
    theirs = rotate_as_gptj(rows, half_sin, half_cos).transpose(1, 2)
    found = rope(query, cos=half_cos.to(views["cos"].dtype), sin=views["sin"], interleaved=True)
    torch.testing.assert_close(found.float(), theirs, **tolerance)


def test_a_wide_result_is_rounded_once():
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float16")
    wide = np.empty((2, 4), "float32")
    assert rope(x, out=wide) is wide
    np.testing.assert_array_equal(rope(x), wide.astype("float16"))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
def test_gradients_of_a_rotation(interleaved, inverse):
    """And theirs: a rotation's gradient is one, too."""
    x = torch.randn(2, 2, E, dtype=torch.float64, requires_grad=True)
    options = {
        "positions": torch.tensor([3, 9]),
        "magnitude": MAGNITUDE,
        "rotary_dim": 6,
        "interleaved": interleaved,
        "inverse": inverse,
    }
    assert torch.autograd.gradcheck(lambda one: rope(one, **options), x)
    assert torch.autograd.gradgradcheck(lambda one: rope(one, **options), x)


def test_gradients_need_the_positions_as_they_were():
    x = torch.randn(L, E, requires_grad=True)
    positions = torch.arange(L)
    total = rope(x, positions=positions).square().sum()
    positions += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


# ---- rms_norm ----


def normalised(x, weight, epsilon, offset):
    """In float64."""
    root = np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon)
    return x / root * (1 if weight is None else offset + weight)


WEIGHTS = {"none": None, "of all heads": (E,), "of heads": (H, 1, E)}


@pytest.mark.parametrize("shape", WEIGHTS)
@pytest.mark.parametrize(("kind", "dtype"), kinds_of_types())
def test_norm_is_the_formulas(kind, dtype, shape):
    numbers = np.random.default_rng(3)
    for epsilon, offset, in_place in itertools.product((None, 1e-3), (0, 1), (False, True)):
        x = of_type(kind, numbers.normal(size=(B, H, L, E)), dtype)
        weight = None
        if WEIGHTS[shape] is not None:
            weight = of_type(kind, numbers.normal(size=WEIGHTS[shape]), dtype)
        elif offset:
            continue
        given = epsilon or (2**-52 if dtype == "float64" else 2**-23)
        exact = None if weight is None else exactly(weight)
        expected = normalised(exactly(x), exact, given, offset)
        found = rms_norm(x, weight, epsilon, weight_offset=offset, out=x if in_place else None)
        assert (found is x) == in_place
        assert type(found) is type(x)
        assert found.dtype == x.dtype
        # What is expected is off likewise.
        within(found, expected, (unit_of(dtype) + 2 * (E + 8) * 2**-53) * np.abs(expected))


@pytest.mark.parametrize("epsilon", [None, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_norm_is_pytorchs(dtype, epsilon):
    layer = torch.nn.RMSNorm(E, eps=epsilon, dtype=dtype)
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(B, L, E, dtype=dtype)
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(x, layer.weight, epsilon), layer(x))
        torch.testing.assert_close(
            rms_norm(x), torch.nn.functional.rms_norm(x, (E,)), rtol=1e-2, atol=1e-6
        )


@pytest.mark.parametrize("shape", WEIGHTS)
@pytest.mark.parametrize(("epsilon", "offset"), [(None, 0.0), (0.5, 1.0)])
def test_gradients_of_a_norm(shape, epsilon, offset):
    """And theirs."""
    x = torch.randn(H, 2, E, dtype=torch.float64, requires_grad=True)
    arrays = [x]
    if WEIGHTS[shape] is not None:
        arrays.append(torch.randn(WEIGHTS[shape], dtype=torch.float64, requires_grad=True))

    def function(*given):
        return rms_norm(*given, epsilon=epsilon, weight_offset=offset if given[1:] else 0)

    assert torch.autograd.gradcheck(function, arrays)
    assert torch.autograd.gradgradcheck(function, arrays)
    for index in range(len(arrays)):  # one of them is wanted, and no other
        only = [one.detach() for one in arrays]
        only[index].requires_grad_()
        function(*only).sin().sum().backward()
        assert [one.grad is None for one in only] == [at != index for at in range(len(only))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_of_a_norm_are_rounded_once(dtype):
    results = []
    for wide in (dtype, torch.float64):
        generator = torch.Generator().manual_seed(4)
        given = [torch.randn(one, generator=generator).to(dtype).to(wide)
                 for one in ((B, L, E), (E,))]  # fmt: skip
        x, weight = (one.requires_grad_() for one in given)
        towards = torch.randn(B, L, E, generator=generator).to(dtype)
        rms_norm(x, weight, 1e-5).backward(towards.to(wide))
        results.append((x.grad, weight.grad))
    for found, expected in zip(*results):
        assert found.dtype == dtype
        # A sum of float64 may be off by its last bits, and lie between two numbers.
        torch.testing.assert_close(
            found, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-12
        )
        assert (found == expected.to(dtype)).float().mean() > 0.9


def test_gradients_of_a_norm_of_huge_and_tiny_rows():
    x = torch.tensor([[1e200, -3e200], [1e-200, 2e-200], [0.0, 0.0]], dtype=torch.float64)
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    rms_norm(x[:1], weight).sum().backward()
    torch.testing.assert_close(weight.grad, x[0] / (5**0.5 * 1e200))
    x.requires_grad_()
    rms_norm(x, epsilon=1.0)[:, 0].sum().backward()
    assert x.grad.isfinite().all()
    torch.testing.assert_close(x.grad[1:, 0], torch.ones(2, dtype=torch.float64))


def test_a_weight_of_another_kind_takes_part():
    x, weight = torch.randn(L, E, requires_grad=True), np.linspace(0, 1, E, dtype="float32")
    rms_norm(x, weight).sum().backward()
    found, x.grad = x.grad, None
    rms_norm(x, torch.from_numpy(weight)).sum().backward()
    assert torch.equal(found, x.grad)


# ---- both ----


def test_contexts_and_threads():
    """Bits are the same under any number of threads, callers and in any layout."""
    x = np.random.default_rng(0).normal(size=(64, 8, 16, 32)).astype("float32")
    for function in (rope, rms_norm):
        alone = function(x, context=Context(num_threads=1))
        np.testing.assert_array_equal(function(x, context=Context(num_threads=3)), alone)
        turned = np.asfortranarray(x)
        np.testing.assert_array_equal(function(turned), alone)
        found = [None] * 4

        def call(index, function=function, found=found):
            found[index] = function(x)

        threads = [threading.Thread(target=call, args=(index,)) for index in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        for one in found:
            np.testing.assert_array_equal(one, alone)


class Lent:
    """An array that is reached through DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __array_namespace__(self):
        return np


def test_arrays_of_others():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(rope(Lent(x), positions=[1, 2, 3]), rope(x, positions=[1, 2, 3]))
    np.testing.assert_array_equal(rms_norm(Lent(x)), rms_norm(x))


X = np.zeros((2, 3, 4), "float32")
TENSOR = torch.zeros(3, 4, requires_grad=True)
READ_ONLY = X.copy()
READ_ONLY.flags.writeable = False
REFUSED = {
    "x: expected a NumPy array": lambda: rope([1.0, 2.0]),
    "x: expected dtype float32, float64, bfloat16 or float16, got int64": lambda: rope(
        np.zeros((2, 4), "int64")
    ),
    "x: expected": lambda: rope(X[0, 0]),
    "rotary_dim: expected an integer or None": lambda: rope(X, rotary_dim="all"),
    "rotary_dim: expected an integer other than 0": lambda: rope(X, rotary_dim=0),
    "rotary_dim: expected": lambda: rope(X, rotary_dim=3),
    "base: expected a number other than 0": lambda: rope(X, base=0),
    "base: expected": lambda: rope(X, base=-1.0),
    "magnitude: expected a number other than 0": lambda: rope(X, magnitude=0),
    "magnitude: expected": lambda: rope(X, magnitude=np.inf),
    "interleaved: expected True or False": lambda: rope(X, interleaved="yes"),
    "inverse: expected True or False": lambda: rope(X, inverse=None),
    "positions: expected integers": lambda: rope(X, positions=[0.5]),
    "positions: expected dtype int64 or int32": lambda: rope(X, positions=np.zeros(3)),
    "positions: expected a shape that broadcasts to (L=3)": lambda: rope(X, positions=[1, 2]),
    "lengths: expected": lambda: rope(X, positions=[1], lengths=3),
    "sin: expected a tensor beside cos": lambda: rope(X, cos=X[0, :, :2]),
    "frequencies: expected shape": lambda: rope(X, frequencies=X[0, 0]),
    "out: expected shape": lambda: rope(X, out=X[0].copy()),
    "out: is read-only": lambda: rms_norm(X, out=READ_ONLY),
    "epsilon: expected a number other than 0": lambda: rms_norm(X, epsilon=0.0),
    "epsilon: expected": lambda: rms_norm(X, epsilon=-1.0),
    "weight_offset: expected a number": lambda: rms_norm(X, X[0, 0], weight_offset=None),
    "weight_offset: expected 0 without weight": lambda: rms_norm(X, weight_offset=1),
    "weight: expected a shape that broadcasts to": lambda: rms_norm(X, X[0, 0, :3]),
    "out: cannot be given where x or weight": lambda: rms_norm(TENSOR, out=torch.zeros(3, 4)),
    "weight: requires grad": lambda: rms_norm(X, TENSOR),
    "out: cannot be given where x requires grad": lambda: rope(TENSOR, out=torch.zeros(3, 4)),
    "cos: requires grad": lambda: rope(X, cos=TENSOR[:, :2], sin=TENSOR[:, :2]),
    "sin: requires grad": lambda: rope(
        TENSOR, cos=TENSOR[:, :2].detach(), sin=TENSOR[:, :2], positions=[0, 1, 2]
    ),
    "a tensor of the call is on meta": lambda: rope(torch.zeros(3, 4, device="meta")),
    "a tensor of the call is being transformed": lambda: torch.vmap(rms_norm)(torch.zeros(3, 4)),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused(text):
    with pytest.raises(Error) as found:
        REFUSED[text]()
    assert str(found.value).startswith(text)


def test_without_gradients_parameters_take_part():
    with torch.no_grad():
        assert not rms_norm(TENSOR, TENSOR[0]).requires_grad
        assert not rope(TENSOR, cos=TENSOR[:, :2], sin=TENSOR[:, :2]).requires_grad
