# SPDX-License-Identifier: BSD-3-Clause
"""KVCache of int8, beside what test_kv_cache.py does with it: how far it is from one of float32,
and what it is made of."""

import numpy as np
import pytest
from cache_model import BATCH, DTYPES, FEATURES, HEADS, KV_HEADS, MEMORIES, VALUES, new_cache
from sequence_oracle import exactly, name_of, of_type


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("kind", DTYPES)
def test_int8_is_off_from_float32_by_what_rounding_of_keys_and_values_makes(kind, memory):
    rng = np.random.default_rng(6)
    caches = [new_cache(kind, dtype, memory, layers=1) for dtype in ("float32", "int8")]
    largest = (0, 0)
    for counts in ([7, 0, 12], [1, 3, 1]):
        query, key, value = (
            of_type(kind, rng.normal(size=(heads, sum(counts), width)), "float32")
            for heads, width in ((HEADS, FEATURES), (KV_HEADS, FEATURES), (KV_HEADS, VALUES))
        )
        for cache in caches:
            cache.advance(counts)
            cache.append(key, value)
        expected, found = (exactly(cache.attend(query)) for cache in caches)
        largest = [
            max(most, np.abs(exactly(one)).max()) for most, one in zip(largest, (key, value))
        ]
        # Half a scale of any row. A score off by d makes a weight off by its (e^2d - 1)-fold; what
        # float32 rounds is far less than that is too much.
        off_key, off_value = (one / 254 * (1 + 2**-20) for one in largest)
        off_score = np.abs(exactly(query)).sum(-1, keepdims=True) * off_key / FEATURES**0.5
        limit = np.expm1(2 * off_score) * largest[1] + off_value
        off = np.abs(found - expected)
        assert (off <= limit).all()
        assert off.max() > 0


def test_an_int8_cache_has_a_scale_for_each_row_and_head():
    for memory, rooms in (("own", (BATCH, KV_HEADS, 40)), ("paged", (22, KV_HEADS, 4))):
        for kind in DTYPES:
            kv = new_cache(kind, "int8", memory).kv(1)
            shapes = [tuple(one.shape) for one in (*kv[:2], kv.key_scale, kv.value_scale)]
            assert shapes == [(*rooms, width) for width in (FEATURES, VALUES, 1, 1)]
            assert [name_of(one) for one in (*kv[:2], kv.key_scale)] == ["int8", "int8", "float32"]
            assert kv.key_zero is None
            assert kv.value_zero is None


@pytest.mark.parametrize("memory", MEMORIES)
def test_an_empty_int8_cache_is_attended_as_an_empty_one_of_numbers(memory):
    query = np.ones((BATCH, HEADS, 1, FEATURES), "float32")
    for dtype in ("float32", "int8"):
        found = new_cache(dtype=dtype, memory=memory, layers=1).attend(query)
        np.testing.assert_array_equal(found, np.zeros((BATCH, HEADS, 1, VALUES), "float32"))
