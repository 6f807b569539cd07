# SPDX-License-Identifier: BSD-3-Clause
"""Integers with scales beside every option, in every place: random calls give what they give over
the numbers that the integers mean, to the bit but where scales are multiplied with sums instead of
with elements.
"""

import numpy as np
import pytest

import libattention
from libattention import KV
from libattention import scaled_dot_product_attention as sdpa

CALLS = 150
U = 2.0**-24
SETTINGS = (
    {},
    {"num_threads": 2},
    {"engine": "blas", "gemm": "native"},
    {"kernels": "baseline"},
)
PLACES = ("cache", "pages", "flat pages", "starts")


class Draw:
    """A call's sizes and what is drawn for it."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.batch = self.one_of(1, 2, 3)
        self.kv_heads = self.one_of(1, 2)
        self.heads = self.kv_heads * self.one_of(1, 2, 4)
        self.features, self.values = self.one_of(8, 33, 64), self.one_of(8, 24, 64)
        self.rows = self.one_of(1, 2, 3, 20, 70)
        self.place = self.one_of(*PLACES)
        self.page = self.one_of(1, 4, 16)
        room = self.one_of(5, 40, 300) if self.rows > 3 else self.one_of(5, 300, 2500)
        self.pages = -(-room // self.page)
        self.room = self.pages * self.page

    def one_of(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def sometimes(self, share=0.3):
        return self.rng.random() < share

    def normal(self, *shape):
        return self.rng.normal(size=shape).astype("float32")


def draw_where(draw):
    """The first axes of keys and values, and the fields of KV that say where sequences are."""
    batch, pages = draw.batch, draw.pages
    lengths = draw.rng.integers(0, draw.room + 1, batch)
    lengths[0] = draw.room
    order = draw.rng.permutation(batch * pages + 2)[: batch * pages]
    return {
        "cache": ((batch,), draw.room, {"lengths": lengths}),
        "starts": ((), batch * draw.room, {"starts": np.arange(batch + 1) * draw.room}),
        "pages": (
            (batch * pages + 2,),
            draw.page,
            {"page_table": order.reshape(batch, pages), "lengths": lengths},
        ),
        "flat pages": (
            (batch * pages + 2,),
            draw.page,
            {
                "page_table": order,
                "page_starts": np.arange(batch + 1) * pages,
                "lengths": lengths,
            },
        ),
    }[draw.place]


def draw_part(draw, first, rows, features):
    """Integers, their scale and zero, and the numbers they mean."""
    dtype = draw.one_of("int8", "uint8")
    shape = (*first, draw.kv_heads, rows, features)
    limits = (-127, 128) if dtype == "int8" else (0, 256)
    integers = draw.rng.integers(*limits, shape).astype(dtype)
    ones = (1,) * len(first)
    scales = (
        (*ones, 1, 1, 1),
        (*ones, draw.kv_heads, 1, 1),
        (*ones, draw.kv_heads, 1, features),
        (*shape[:-1], 1),
    )
    scale = (draw.rng.random(draw.one_of(*scales)) * 0.02 + 0.002).astype("float32")
    zero = draw.normal(*ones, draw.kv_heads, 1, 1) * 5 if draw.sometimes(0.4) else None
    middle = 0 if dtype == "int8" else 128
    numbers = (integers.astype("float32") - np.float32(middle if zero is None else zero)) * scale
    folds = dtype == "int8" and zero is None and scale.shape[-1] == 1
    return (integers, scale, zero), numbers, folds


def draw_mask(draw, shapes, options):
    shape = draw.one_of(*shapes)
    mask = draw.rng.random(shape) < 0.7
    if draw.sometimes(0.5):
        mask = np.where(mask, draw.normal(*shape), np.float32(-np.inf))
    if draw.sometimes(0.4):
        mask = mask[..., : draw.rng.integers(1, draw.room + 1)]
        options["mask_start"] = draw.rng.integers(-3, draw.room + 2, draw.batch)
    options["attn_mask"] = mask


def draw_blocks(draw, options):
    """For the rows of any sequence."""
    size = (1000, int(draw.one_of(1, 3, 16, 64)))
    batch = draw.one_of(1, draw.batch)
    shape = (batch, draw.one_of(1, draw.heads), 1, -(-draw.room // size[1]))
    options["block_mask"] = draw.rng.integers(0, 3, shape).astype("uint8")
    options["block_size"] = size


def draw_options(draw, query_shape):
    heads, room = draw.heads, draw.room
    *batch, _, rows, _ = query_shape
    shapes = [(rows, room), (heads, 1, room), (*batch, 1, rows, room)]
    options = {
        "enable_gqa": True,
        "is_causal": draw.sometimes(),
        "align_end": draw.sometimes(),
        "softcap": 2.0 if draw.sometimes() else 0.0,
        "normalizer": draw.one_of("softmax", "softmax", "sigmoid", "linear"),
    }
    if draw.sometimes():
        options["window"] = (draw.one_of(-1, 3, 50), draw.one_of(-1, 0, 4))
    if draw.sometimes():
        options["alibi_slopes"] = np.float32(draw.rng.random(heads) * 0.1)
    if draw.sometimes():
        options["bias"] = draw.normal(*draw.one_of(*shapes))
    if draw.sometimes():
        options["position_bias"] = draw.normal(draw.one_of(1, heads), draw.one_of(3, 15, 121))
    if draw.sometimes() and options["normalizer"] == "softmax":
        options["sinks"] = draw.normal(heads)
    if draw.sometimes(0.5):
        draw_mask(draw, shapes, options)
    if draw.sometimes():
        draw_blocks(draw, options)
    return options


def bound_of(draw, query, key, value, options):
    """Of two computations in float32, by the formulas in sdpa.h: what a score is off by, then what
    that makes of a row's sum.
    """
    size = np.abs(query).max() * np.abs(key).max() * draw.features / np.sqrt(draw.features)
    others = [options.get(name) for name in ("bias", "position_bias", "attn_mask", "alibi_slopes")]
    far = draw.room + draw.rows
    finite = [np.abs(one[np.isfinite(one)]).max(initial=0) for one in others if one is not None]
    score = 2 * (draw.features + 9) * U * (size + sum(finite) * far)
    sums = 2 * (draw.room + 32) * U
    if options["normalizer"] == "softmax":
        return (2 * score + sums) * np.abs(value).max()
    weight = 1 if options["normalizer"] == "sigmoid" else size + sum(finite) * far
    return draw.room * (score + sums * weight) * np.abs(value).max()


@pytest.mark.parametrize("setting", range(len(SETTINGS)))
def test_random_calls_are_those_of_the_numbers(setting):
    context = libattention.Context(**SETTINGS[setting])
    folded = 0
    for seed in range(CALLS):
        draw = Draw((setting, seed))
        first, rows, where = draw_where(draw)
        key, key_numbers, key_folds = draw_part(draw, first, rows, draw.features)
        value, value_numbers, value_folds = draw_part(draw, first, rows, draw.values)
        kv = KV(
            key[0],
            value[0],
            key_scale=key[1],
            value_scale=value[1],
            key_zero=key[2],
            value_zero=value[2],
            **where,
        )
        shape = (draw.batch, draw.heads, draw.rows, draw.features)
        ragged = {}
        if draw.sometimes():
            counts = draw.rng.choice([0, 1, 1, 3, 9, 40], draw.batch)
            ragged["query_starts"] = np.concatenate([[0], np.cumsum(counts)])
            shape = (draw.heads, counts.sum(), draw.features)
        query = draw.normal(*shape)
        options = draw_options(draw, shape)
        found = sdpa(query, kv=kv, **options, **ragged, context=context)
        expected = sdpa(
            query, kv=KV(key_numbers, value_numbers, **where), **options, **ragged, context=context
        )
        if not key_folds and not value_folds:
            np.testing.assert_array_equal(found, expected, err_msg=str(seed))
            continue
        folded += 1
        bound = bound_of(draw, query, key_numbers, value_numbers, options) if query.size else 0
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound, err_msg=str(seed))
    assert 0 < folded < CALLS
