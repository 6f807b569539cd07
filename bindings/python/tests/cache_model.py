# SPDX-License-Identifier: BSD-3-Clause
"""What tests of KVCache share: small caches, and a model that compares each of its steps."""

import numpy as np
import torch
from sequence_oracle import assert_near, exactly, expected_of, name_of, of_type

from libattention import KVCache

BATCH, LAYERS, HEADS, KV_HEADS, FEATURES, VALUES = 3, 2, 4, 2, 8, 6
MEMORIES = {"own": {"capacity": 40}, "paged": {"paged": 4, "pages": 22}}
DTYPES = {"numpy": lambda name: name, "torch": lambda name: getattr(torch, name)}


def new_cache(kind="numpy", dtype="float32", memory="own", **sizes):
    given = {"value_dim": VALUES, "layers": LAYERS, **MEMORIES[memory], **sizes}
    return KVCache(BATCH, KV_HEADS, FEATURES, dtype=DTYPES[kind](dtype), **given)


def as_stored(kind, rows, dtype):
    """What a cache holds of rows, in float64. int8 has a scale for each row, the first float32 by
    which no element is past 127."""
    if dtype != "int8":
        return exactly(of_type(kind, exactly(rows), dtype))
    numbers = exactly(exactly(rows).astype("float32"))
    exact = np.abs(numbers).max(-1, keepdims=True) / 127
    near = exact.astype("float32")
    scale = exactly(np.where(near < exact, np.nextafter(near, np.float32(np.inf)), near))
    return np.rint(numbers / scale) * scale


class Model:
    """Layers of random rows, and what each sequence has been given so far, in float64."""

    def __init__(self, cache, kind="numpy", types=("float32",) * 3, seed=0):
        self.cache, self.kind, self.types = cache, kind, types
        self.rng = np.random.default_rng(seed)
        self.history = [
            [[np.empty((KV_HEADS, 0, width)) for width in (FEATURES, VALUES)] for _ in range(BATCH)]
            for _ in range(LAYERS)
        ]

    def rows(self, heads, counts, width, dtype):
        """New rows of a step, by its layout."""
        if isinstance(counts, int):
            numbers = self.rng.normal(size=(BATCH, heads, counts, width))
        else:
            numbers = self.rng.normal(size=(heads, sum(counts), width))
        return of_type(self.kind, numbers, dtype)

    def own(self, array, counts):
        """The rows of each sequence."""
        if isinstance(counts, int):
            return list(array)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return [array[:, begin:end] for begin, end in zip(starts, starts[1:])]

    def step(self, counts, **options):
        """All layers, each compared; returns the outputs."""
        found = []
        for layer in range(LAYERS):
            query = self.rows(HEADS, counts, FEATURES, self.types[0])
            new = [self.rows(KV_HEADS, counts, one, self.types[1]) for one in (FEATURES, VALUES)]
            assert self.cache.append(*new, layer) is None
            for part, array in enumerate(new):
                for one, own in zip(self.history[layer], self.own(array, counts)):
                    stored = as_stored(self.kind, own, self.types[2])
                    one[part] = np.concatenate([one[part], stored], axis=1)
            found.append(self.cache.attend(query, layer, **options))
            self.compare(query, found[-1], counts, layer, options)
        return found

    def compare(self, query, output, counts, layer, options):
        assert type(output) is type(query)
        assert name_of(output) == self.types[0]
        types = (self.types[0], self.types[2], self.types[2])
        for one, q, out in zip(
            self.history[layer], self.own(query, counts), self.own(output, counts)
        ):
            if q.shape[1]:
                assert_near(out, expected_of(exactly(q), *one, **options), *types)

    def keep(self, lengths):
        for layer in self.history:
            for one, length in zip(layer, lengths):
                one[:] = [part[:, :length] for part in one]
