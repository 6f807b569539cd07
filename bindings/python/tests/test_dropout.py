# SPDX-License-Identifier: BSD-3-Clause
"""Which weights are dropped, by the formula of attn_dropout in Python's integers, and what is
refused of a Dropout."""

import numpy as np
import pytest
import torch

from libattention import Dropout, Error, MultiheadAttention, explain
from libattention import scaled_dot_product_attention as sdpa

LOW = 2**32 - 1
WORD = 2**64 - 1


def philox(counter, key):
    """Philox4x32-10."""
    c0, c1, c2, c3 = counter
    for number in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        first = (key[0] + number * 0x9E3779B9) & LOW
        second = (key[1] + number * 0xBB67AE85) & LOW
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ first, b & LOW, (a >> 32) ^ c3 ^ second, a & LOW
    return c0, c1, c2, c3


def mix64(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def kept(dropout, batches, heads, rows, keys):
    """(batches, heads, rows, keys): whether a weight is kept."""
    key = dropout.seed ^ mix64(dropout.offset)
    threshold = int(np.floor(dropout.probability * 2**32 + 0.5))
    found = np.empty((batches, heads, rows, keys), bool)
    for b, h, i, j in np.ndindex(found.shape):
        batch, column = b + dropout.batch, j + dropout.column
        head = h + dropout.head + (batch % 2**16 << 16)
        counter = (column // 4, i + dropout.row, head, batch >> 16)
        found[b, h, i, j] = philox(counter, (key & LOW, key >> 32))[column % 4] >= threshold
    return found


def test_philox_has_the_words_of_its_authors():
    expected = (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)
    counter = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox(counter, (0xA4093822, 0x299F31D0)) == expected


DROPOUTS = [
    Dropout(0.5),
    Dropout(0.25, seed=2026, offset=1),
    Dropout(0.1, 2**64 - 1, 2**64 - 1, batch=70000, head=9, row=2**32 - 5, column=2**34 - 7),
]


@pytest.mark.parametrize("dropout", DROPOUTS)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_weights_of_the_formula_are_dropped(qkv, kind, dropout):
    inputs = [kind(one) for one in qkv]
    _, lse, whole = sdpa(*inputs, return_lse=True, return_weights=True)
    output, same_lse, weights = sdpa(*inputs, dropout=dropout, return_lse=True, return_weights=True)
    assert type(weights) is type(inputs[0])
    expected = np.asarray(whole) * kept(dropout, 2, 4, 5, 7) / (1 - dropout.probability)
    np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=0)
    np.testing.assert_allclose(output, expected @ qkv[2], rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(lse, same_lse)


def test_a_dropout_of_nothing_changes_nothing(qkv):
    np.testing.assert_array_equal(sdpa(*qkv, dropout=Dropout(0, seed=5)), sdpa(*qkv))


def test_a_layer_drops_the_weights_of_the_formula(rng):
    layer = MultiheadAttention(8, 2, batch_first=True, add_zero_attn=True)
    query = rng.normal(size=(3, 5, 8)).astype("float32")
    options = {"average_attn_weights": False}
    dropout = Dropout(0.5, seed=11)
    whole = layer(query, query, query, **options)[1]
    weights = layer(query, query, query, dropout=dropout, **options)[1]
    np.testing.assert_allclose(weights, whole * kept(dropout, 3, 2, 5, 6) * 2, rtol=1e-6, atol=0)


def test_what_would_run_takes_it(qkv):
    assert explain(*qkv, dropout=Dropout(0.5))["engine"] == explain(*qkv)["engine"]


@pytest.mark.parametrize(
    ("dropout", "name", "text"),
    [
        (0.5, "ATTN_ERROR_VALUE", "dropout: expected a libattention.Dropout or None, got 0.5"),
        (Dropout(1), "ATTN_ERROR_VALUE", "dropout.probability: expected 0 to below 1, got 1"),
        (Dropout("half"), "ATTN_ERROR_VALUE", "dropout.probability: expected a number, got 'half'"),
        (Dropout(0.5, seed=-1), "ATTN_ERROR_VALUE", "dropout.seed: expected an integer, got -1"),
        (Dropout(0.5, row=-1), "ATTN_ERROR_VALUE", "dropout.row: expected 0 and up, got -1"),
        (Dropout(0.5, head=2**16), "ATTN_ERROR_UNSUPPORTED", "dropout.head: expected places below"),
    ],
)
def test_what_is_no_dropout_is_refused(qkv, dropout, name, text):
    layer = MultiheadAttention(8, 2, batch_first=True)
    query = qkv[0][:, 0]
    for call in (
        lambda: sdpa(*qkv, dropout=dropout),
        lambda: explain(*qkv, dropout=dropout),
        lambda: layer(query, query, query, dropout=dropout),
    ):
        with pytest.raises(Error) as caught:
            call()
        assert (caught.value.name, str(caught.value)[: len(text)]) == (name, text)
