# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the table in docs/guides/long-contexts.md: one call over all keys, and parts of them
with the options that the rows say, put together again."""

import numpy as np
from guide_tables import viewed

from libattention import merge, scaled_dot_product_attention

N, H, L, S, E = 2, 4, 3, 11, 8
STARTS = (0, 4, 9)  # of the parts among the keys
RNG = np.random.default_rng(0)
QUERY, KEY, VALUE = (RNG.normal(size=(N, H, n, E)).astype("float32") for n in (L, S, S))
LENGTHS = np.array([10, 3])


def compare(whole, of_part, merging=None):
    """Options of the whole; of_part(k, n) are those of the part of n keys from k on."""
    expected, lse = scaled_dot_product_attention(QUERY, KEY, VALUE, return_lse=True, **whole)
    outputs, lses = [], []
    for begin, end in zip(STARTS, (*STARTS[1:], S)):
        output, of_rows = scaled_dot_product_attention(
            QUERY,
            KEY[:, :, begin:end],
            VALUE[:, :, begin:end],
            return_lse=True,
            **of_part(begin, end - begin),
        )
        outputs.append(output)
        lses.append(of_rows)
    found, found_lse = merge(outputs, lses, return_lse=True, **(merging or {}))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found_lse, lse, rtol=1e-5, atol=1e-6)
    plain = scaled_dot_product_attention(QUERY, KEY, VALUE)
    assert np.abs(expected - plain).max() > 1e-3


def offset():
    for hiding in ({"is_causal": True}, {"window": (3, 2)}):
        for whole, p in (({}, 0), ({"query_offset": 6}, 6)):
            compare({**whole, **hiding}, lambda k, _, p=p, h=hiding: {"query_offset": p - k, **h})


def lengths():
    compare(
        {"key_lengths": LENGTHS},
        lambda k, keys: {"key_lengths": np.clip(LENGTHS - k, 0, keys)},
    )


def aligned():
    compare(
        {"is_causal": True, "align_end": True},
        lambda k, _: {"is_causal": True, "query_offset": S - L - k},
    )
    compare(
        {"is_causal": True, "align_end": True, "key_lengths": LENGTHS},
        lambda k, keys: {
            "is_causal": True,
            "query_offset": LENGTHS - L - k,
            "key_lengths": np.clip(LENGTHS - k, 0, keys),
        },
    )


def masks():
    bias = RNG.normal(size=(H, L, S)).astype("float32")
    for name in ("attn_mask", "bias"):
        compare(
            {name: bias},
            lambda k, keys, name=name: {name: viewed(bias, ("slice", -1, k, keys, 1))},
        )
    seen = bias > 0
    compare({"attn_mask": seen}, lambda k, keys: {"attn_mask": seen[..., k : k + keys]})


def the_same():
    slopes = np.array([0.5, 0.25, 0.1, 0.05], "float32")
    for options in ({"softcap": 0.5}, {"scale": 1.5}, {"alibi_slopes": slopes}):
        compare(options, lambda k, _, options=options: {"query_offset": -k, **options})
    compare({"window": (1, 4)}, lambda k, _: {"query_offset": -k, "window": (1, 4)})


def sinks():
    values = RNG.normal(size=H).astype("float32")
    compare({"sinks": values}, lambda k, _: {"sinks": values if k == STARTS[1] else None})
    compare({"sinks": values}, lambda _k, _n: {}, {"sinks": values})


def normalizers():
    for normalizer in ("sigmoid", "linear"):
        parts = [
            scaled_dot_product_attention(
                QUERY, KEY[:, :, part], VALUE[:, :, part], normalizer=normalizer
            )
            for part in (slice(0, 4), slice(4, S))
        ]
        whole = scaled_dot_product_attention(QUERY, KEY, VALUE, normalizer=normalizer)
        np.testing.assert_allclose(merge(parts), whole, rtol=1e-5, atol=1e-5)


# By the first cell of the row: the names in it, and its test.
OPTIONS = {
    "`query_offset` p, 0 without": ("query_offset", offset),
    "`key_lengths` n": ("key_lengths", lengths),
    "`align_end`": ("query_offset", aligned),
    "`mask`, `bias`": ("attn_tensor_slice", masks),
    "`alibi_slopes`, `softcap`, `scale`, windows": ("", the_same),
    "`sinks`": ("sinks attn_merge_params", sinks),
    "`normalizer`": ("lses", normalizers),
}
