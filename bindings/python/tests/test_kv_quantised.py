# SPDX-License-Identifier: BSD-3-Clause
"""Keys and values stored as integers with scales, wherever they lie: what is stored is off by half
a scale at most, and attention is that of the numbers the integers mean."""

import itertools

import numpy as np
import pytest
import torch
from kv_layouts import (
    BATCH,
    FEATURES,
    HEADS,
    KV_HEADS,
    LENGTHS,
    PLACES,
    ROWS,
    VALUES,
    behind,
    each_alone,
    laid_out,
    sequences,
    starts_of,
)
from sequence_oracle import assert_near, exactly, exists, expected_of, of_type, raw

import libattention
from libattention import KV, kv_append
from libattention import scaled_dot_product_attention as sdpa

ROOM = KV(*(np.ones((2, KV_HEADS, 3, FEATURES), "float32") for _ in "kv"), lengths=[3, 3])
# What is written, and the zero where none is given.
RANGES = {"int8": (-127, 127, 0), "uint8": (0, 255, 128)}
# Shapes of scales, by that of an array (..., heads, rows, features).
SHAPES = {
    "array": lambda shape: (1,) * len(shape),
    "heads": lambda shape: (*(1,) * len(shape[:-3]), shape[-3], 1, 1),
    "channels": lambda shape: (*(1,) * len(shape[:-3]), shape[-3], 1, shape[-1]),
    "rows": lambda shape: (*shape[:-1], 1),
    "blocks": lambda shape: (*shape[:-1], 2),
}
UNITS = {"float32": 2**-23, "bfloat16": 2**-7, "float16": 2**-10}


def spread(numbers, shape):
    """A scale or a zero, for each element."""
    for axis, length in enumerate(shape):
        numbers = np.repeat(numbers, length // numbers.shape[axis], axis)
    return numbers


def meant(elements, scale, zero):
    """The numbers, in float64."""
    if zero is None:
        zero = np.full((1,) * elements.ndim, RANGES[str(elements.dtype).split(".")[-1]][2])
    elements = exactly(elements)
    return (elements - spread(exactly(zero), elements.shape)) * spread(
        exactly(scale), elements.shape
    )


def empty_cache(kind, place, shape_of_scale, dtype, scale_dtype, has_zeros):
    """Room for the sequences, every scale NaN until it is written."""
    rng = np.random.default_rng(0)
    nothing = [sequences(rng, KV_HEADS, LENGTHS, one) for one in (FEATURES, VALUES)]
    kv = laid_out(kind, place, *nothing, ("float32", "float32"))
    made = {"lengths": np.array(LENGTHS)}
    for part in ("key", "value"):
        shape = getattr(kv, part).shape
        made[part] = of_type(kind, np.zeros(shape), dtype)
        for name in ("scale", "zero") if has_zeros else ("scale",):
            made[f"{part}_{name}"] = of_type(
                kind, np.full(SHAPES[shape_of_scale](shape), np.nan), scale_dtype
            )
    return kv._replace(**made)


def rows_of_every_size(rng, width):
    """Of each sequence; a row of zeroes among them."""
    found = sequences(rng, KV_HEADS, LENGTHS, width)
    for own in found:
        own *= 10.0 ** rng.integers(-3, 4, size=(KV_HEADS, own.shape[1], 1))
    found[0][:, 0] = 0
    return found


def exact_scales(numbers, count, dtype, has_zeros):
    """Of `count` blocks of each row, before they are rounded."""
    blocks = numbers.reshape(*numbers.shape[:-1], count, numbers.shape[-1] // count)
    high, low = (limit(blocks, axis=-1, initial=0) for limit in (np.max, np.min))
    lowest, highest, _ = RANGES[dtype]
    return (high - low) / (highest - lowest) if has_zeros else np.maximum(high, -low) / 127


# ---- storing ----


@pytest.mark.parametrize("shape_of_scale", ["rows", "blocks"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_what_is_stored_is_off_by_half_a_scale(kind, place, shape_of_scale):
    choices = itertools.product(RANGES, UNITS, (False, True))
    for seed, (dtype, scale_dtype, has_zeros) in enumerate(choices):
        if not exists(kind, scale_dtype):
            continue
        rng = np.random.default_rng(seed)
        parts = [rows_of_every_size(rng, one) for one in (FEATURES, VALUES)]
        kv = empty_cache(kind, place, shape_of_scale, dtype, scale_dtype, has_zeros)
        rows = [of_type(kind, behind(one), "float32") for one in parts]
        kv_append(kv, *rows, starts=starts_of(LENGTHS))
        for part, given in (("key", parts[0]), ("value", parts[1])):
            elements, scale = getattr(kv, part), exactly(getattr(kv, f"{part}_scale"))
            found = meant(elements, scale, getattr(kv, f"{part}_zero"))
            scales = each_alone(place, spread(scale, found.shape))
            for own, numbers, steps in zip(each_alone(place, found), given, scales):
                numbers = exactly(numbers.astype("float32"))
                assert (np.abs(own - numbers) <= steps * (0.5 + 2**-40)).all()
                exact = exact_scales(numbers, scale.shape[-1], dtype, has_zeros)
                stored = steps[..., :: numbers.shape[-1] // scale.shape[-1]]
                assert (stored >= exact).all()
                # 2**-24 is the step of float16 among its small numbers.
                assert (stored <= exact * (1 + UNITS[scale_dtype]) + 2**-24).all()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_scale_of_more_than_a_row_is_read(kind, rng):
    scale = of_type(kind, np.array([0.5, 2.0]).reshape(1, 2, 1, 1), "float32")
    zero = of_type(kind, np.full((1, 1, 1, 1), 3.0), "float16")
    if kind == "numpy":  # what is only read may be read-only
        scale.flags.writeable = zero.flags.writeable = False
    memory = [of_type(kind, np.zeros((1, 2, 3, 4)), "int8") for _ in "kv"]
    kv = KV(*memory, lengths=[3], key_scale=scale, value_scale=scale, key_zero=zero)
    rows = np.array([[1.0, -1.25, 0.75, 1000], [0, -1000, np.inf, np.nan], [5, 6, 7, 8]])
    kv_append(kv, *(of_type(kind, np.stack([rows, rows])[None], "float32") for _ in "kv"))
    expected = [[2, -2, 2, 127], [0, -127, 127, 0], [10, 12, 14, 16]]
    np.testing.assert_array_equal(exactly(memory[1])[0, 0], expected)
    expected = [[4, 2, 3, 127], [3, -127, 127, 3], [6, 6, 6, 7]]
    np.testing.assert_array_equal(exactly(memory[0])[0, 1], expected)


# ---- attention ----

QUANTISED = [  # key, its scale and zero, value, its scale and zero
    ("int8", "rows", None, "int8", "rows", None),
    ("int8", "array", None, "int8", "heads", None),
    ("uint8", "rows", "rows", "uint8", "rows", "rows"),
    ("uint8", "channels", "heads", "int8", "blocks", "array"),
    ("int8", "blocks", "rows", "uint8", "channels", None),
]


def random_part(rng, kind, memory, dtype, shape, zero_shape):
    """Integers, scale and zero; a scale of rows that are nobody's is NaN."""
    low, high, _ = RANGES[dtype]
    elements = of_type(kind, rng.integers(low, high + 1, size=memory.shape), dtype)
    scale = rng.uniform(0.002, 0.02, size=SHAPES[shape](memory.shape))
    if shape in ("rows", "blocks"):
        scale[np.broadcast_to(np.isnan(exactly(memory)[..., :1]), scale.shape)] = np.nan
    zero = None
    if zero_shape is not None:
        zero = of_type(kind, rng.integers(low, high, SHAPES[zero_shape](memory.shape)), "float32")
    return elements, of_type(kind, scale, "float32"), zero


@pytest.mark.parametrize("types", QUANTISED, ids=lambda types: "-".join(map(str, types)))
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_attention_is_that_of_the_numbers_that_integers_mean(kind, place, types):
    rng = np.random.default_rng(1)
    nothing = [sequences(rng, KV_HEADS, LENGTHS, one) for one in (FEATURES, VALUES)]
    kv = laid_out(kind, place, *nothing, ("float32", "float32"))
    key = random_part(rng, kind, kv.key, *types[:3])
    value = random_part(rng, kind, kv.value, *types[3:])
    kv = kv._replace(
        **dict(zip(("key", "key_scale", "key_zero"), key)),
        **dict(zip(("value", "value_scale", "value_zero"), value)),
    )
    keys, values = (each_alone(place, meant(*part)) for part in (key, value))
    for dtype in ("float32", "bfloat16" if kind == "torch" else "float16"):
        query = of_type(kind, behind(sequences(rng, HEADS, ROWS, FEATURES)), dtype)
        options = {"kv": kv, "query_starts": starts_of(ROWS), "enable_gqa": True}
        found = sdpa(query, is_causal=True, align_end=True, **options)
        for sequence, (first, count) in enumerate(zip(starts_of(ROWS), ROWS)):
            if count:
                own = slice(first, first + count)
                expected = expected_of(exactly(query)[:, own], keys[sequence], values[sequence])
                assert_near(found[:, own], expected, dtype, *types[::3])


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("has_zeros", [False, True])
def test_every_place_has_the_same_bits(dtype, has_zeros, rng):
    rows = [behind(rows_of_every_size(rng, n)).astype("float32") for n in (FEATURES, VALUES)]
    query = rng.normal(size=(BATCH, HEADS, 1, FEATURES)).astype("float32")
    found = set()
    for place in PLACES:
        kv = empty_cache("numpy", place, "rows", dtype, "float32", has_zeros)
        kv_append(kv, *rows, starts=starts_of(LENGTHS))
        found.add(raw(sdpa(query, kv=kv, enable_gqa=True)))
    assert len(found) == 1


def test_every_option_goes_with_every_field(rng):
    """As many arrays as a call can have."""
    kv = empty_cache("numpy", "flat pages", "rows", "int8", "float32", True)
    rows = [behind(sequences(rng, KV_HEADS, LENGTHS, n)) for n in (FEATURES, VALUES)]
    positions = np.concatenate([np.arange(count) for count in LENGTHS])
    kv_append(kv, *rows, starts=starts_of(LENGTHS), positions=positions)
    columns = max(LENGTHS)
    options = {
        "attn_mask": np.zeros((1, columns), "float32"),
        "mask_start": np.zeros(BATCH, "int64"),
        "bias": np.zeros((1, columns), "float32"),
        "sinks": np.full(HEADS, -np.inf, "float32"),
        "alibi_slopes": np.zeros(HEADS, "float32"),
        "position_bias": np.zeros((HEADS, 3), "float32"),
        "block_mask": np.full((1, -(-columns // 2)), 2, "uint8"),
        "block_size": (max(ROWS), 2),
        "query_offset": np.array(LENGTHS),
        "is_causal": True,
        "enable_gqa": True,
        "query_starts": starts_of(ROWS),
    }
    query = behind(sequences(rng, HEADS, ROWS, FEATURES)).astype("float32")
    results = {"return_lse": True, "return_weights": True, "return_scores": "masked"}
    found = sdpa(query, kv=kv, **options, **results, out=np.zeros((HEADS, sum(ROWS), VALUES), "f4"))
    assert len(found) == 4
    plain = sdpa(query, kv=kv, query_starts=starts_of(ROWS), enable_gqa=True)
    np.testing.assert_allclose(found[0], plain, atol=1e-5)
    assert libattention.explain(query, kv=kv, **options)["kernels"]


# ---- refusals ----


class Copying:
    """A DLPack producer that lends copies, unless told not to."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, *, copy=None, max_version=None, **_):
        if copy is False:
            raise BufferError("is kept elsewhere")
        return self.array.copy().__dlpack__(max_version=max_version)

    def __dlpack_device__(self):
        return (1, 0)


def refusal(call):
    with pytest.raises(libattention.Error) as caught:
        call()
    return f"{caught.value.name.removeprefix('ATTN_ERROR_')} {caught.value}"


def test_what_is_refused_is_named():
    shape = (2, KV_HEADS, 3, FEATURES)
    memory = [np.zeros(shape, "int8") for _ in "kv"]
    scales = [np.ones((*shape[:-1], 1), "float32") for _ in "kv"]
    kv = KV(*memory, lengths=[3, 3], key_scale=scales[0], value_scale=scales[1])
    fixed = scales[0].copy()
    fixed.flags.writeable = False
    new = np.ones(shape, "float32")
    of_array = np.ones((1, 1, 1, 1), "float32")

    def attend(**changes):
        return lambda: sdpa(changes.pop("query", new), kv=changes.pop("kv", kv)._replace(**changes))

    def append(**changes):
        return lambda: kv_append(changes.pop("kv", kv)._replace(**changes), new, new)

    of_floats = "expected None beside kv.key of float32, whose elements are not scaled"
    calls = {
        f"VALUE kv.key_scale: {of_floats}": attend(kv=ROOM, key_scale=of_array),
        f"VALUE kv.key_zero: {of_floats}": append(kv=ROOM, key_zero=of_array),
        "DTYPE kv.key_scale: expected dtype float32, bfloat16 or float16, got float64; pass "
        "kv.key_scale.astype('float32')": attend(key_scale=scales[0].astype("float64")),
        "DTYPE kv.value_zero: expected dtype float32, bfloat16 or float16, got int8; pass "
        "kv.value_zero.astype('float32')": attend(value_zero=of_array.astype("int8")),
        "VALUE kv.value_scale: expected a NumPy array, PyTorch": attend(value_scale=0.5),
        "DTYPE kv.key: expected dtype float32, float64, bfloat16 or float16, or int8 or uint8 "
        "beside a scale, got int32": attend(key=memory[0].astype("int32")),
        "DTYPE kv.key: expected dtype float64, got int8": attend(query=new.astype("float64")),
        "SHAPE kv.key_scale: expected rank 4, got 3": attend(key_scale=scales[0][0]),
        "SHAPE kv.value_scale: expected a divisor of 8 (values of kv.value) on axis 3": attend(
            value_scale=np.ones((1, 1, 1, 3), "float32")
        ),
        "VALUE kv.key_scale: is read-only; pass an array of your own": append(key_scale=fixed),
        "UNSUPPORTED kv.value_scale: cannot be read through DLPack: is kept elsewhere": append(
            value_scale=Copying(scales[1])
        ),
        "VALUE kv.key_zero: is read-only; pass an array of your own": append(key_zero=fixed),
        "SHAPE kv.key_scale: expected 2 (as kv.key) on axis 0, since new rows write it": append(
            key_scale=scales[0][:1]
        ),
        "VALUE kv.value_zero: expected fewer rows than are stored, since kv.value_scale is": append(
            value_scale=of_array, value_zero=scales[0]
        ),
        "OVERLAP kv.value_scale: ": append(value_scale=scales[0]),
        "DTYPE key: expected dtype float32, float64, bfloat16 or float16, got int8; convert": (
            lambda: sdpa(new, *memory)
        ),
        "DTYPE value: expected dtype float32, float64, bfloat16 or float16, got int8; convert": (
            lambda: kv_append(kv, new, memory[1])
        ),
    }
    for text, call in calls.items():
        found = refusal(call)
        assert found.startswith(text), found
    assert not any(map(np.any, memory))
    assert all((one == 1).all() for one in scales)
    assert attend(key_scale=Copying(scales[0]), value_scale=fixed)().shape == shape


def test_scales_that_pytorch_would_compute_with_are_refused():
    memory = [torch.zeros(1, KV_HEADS, 2, FEATURES, dtype=torch.int8) for _ in "kv"]
    scales = [torch.ones(1, KV_HEADS, 2, 1) for _ in "kv"]
    kv = KV(*memory, lengths=[2], key_scale=scales[0], value_scale=scales[1])
    query = torch.ones(1, KV_HEADS, 2, FEATURES)
    for name in ("key_scale", "value_scale", "key_zero", "value_zero"):
        wanted = kv._replace(**{name: torch.ones(1, KV_HEADS, 2, 1, requires_grad=True)})
        assert refusal(lambda kv=wanted: sdpa(query, kv=kv)).startswith(
            "UNSUPPORTED kv.key, kv.value: integers cannot be given where a tensor requires grad; "
            "call under torch.no_grad()"
        )
        text = refusal(lambda kv=wanted: kv_append(kv, query, query))
        assert text.startswith(f"UNSUPPORTED kv.{name}: requires grad, which would be lost")
        with torch.no_grad():
            assert sdpa(query, kv=wanted).shape == query.shape
    meta = kv._replace(key_scale=scales[0].to("meta"))
    text = refusal(lambda: kv_append(meta, query, query))
    assert "is on meta, where there are no numbers" in text
