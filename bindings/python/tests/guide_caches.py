# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the table in docs/guides/caches.md: the same two sequences, wherever they lie."""

import numpy as np

from libattention import KV, scaled_dot_product_attention

LENGTHS = (5, 3)
RNG = np.random.default_rng(0)
KEYS, VALUES = ([RNG.normal(size=(2, n, 4)).astype("float32") for n in LENGTHS] for _ in range(2))
QUERY = RNG.normal(size=(2, 4, 1, 4)).astype("float32")


def attends(parts_in_memory, **places):
    """What KV makes of it is the attention of each sequence alone."""
    key, value = parts_in_memory(KEYS), parts_in_memory(VALUES)
    found = scaled_dot_product_attention(QUERY, kv=KV(key, value, **places), enable_gqa=True)
    for one, query, *alone in zip(found, QUERY, KEYS, VALUES):
        expected = scaled_dot_product_attention(query, *alone, enable_gqa=True)
        np.testing.assert_array_equal(one, expected)


def with_room():
    def memory(parts):
        room = np.full((2, 2, 8, 4), np.nan, "float32")
        for sequence, part in zip(room, parts):
            sequence[:, : part.shape[1]] = part
        return room

    attends(memory, lengths=LENGTHS)


def pages_of(parts):
    """Pages of 2 rows; sequence 0 has 4, 0 and 2, sequence 1 has 1 and 3."""
    pages = np.full((5, 2, 2, 4), np.nan, "float32")
    for part, numbers in zip(parts, ((4, 0, 2), (1, 3))):
        for row in range(part.shape[1]):
            pages[numbers[row // 2], :, row % 2] = part[:, row]
    return pages


def in_pages():
    attends(pages_of, page_table=[[4, 0, 2], [1, 3, -1]], lengths=LENGTHS)


def in_pages_of_one_list():
    attends(pages_of, page_table=[4, 0, 2, 1, 3], page_starts=[0, 3, 5], lengths=LENGTHS)


def behind_one_another():
    attends(lambda parts: np.concatenate(parts, axis=1), starts=[0, 5, 8])


# By the first cell of the row: the names in it, and its test.
PLACES = {
    "with room for C rows in each sequence": ("lengths", with_room),
    "in pages, a row of a table for each sequence": ("page_table lengths", in_pages),
    "in pages, one list of all sequences' pages": (
        "page_table page_starts lengths",
        in_pages_of_one_list,
    ),
    "one sequence behind the other, without room": ("starts", behind_one_another),
}
