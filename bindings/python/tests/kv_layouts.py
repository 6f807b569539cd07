# SPDX-License-Identifier: BSD-3-Clause
"""The same sequences in every kind of memory that a KV describes."""

import numpy as np
import torch
from sequence_oracle import of_type

from libattention import KV

HEADS, KV_HEADS, FEATURES, VALUES, PAGE = 4, 2, 8, 6, 4
LENGTHS = (9, 0, 13, 1)
ROWS = (3, 0, 1, 1)
BATCH, ROOM = len(LENGTHS), 16
PLACES = ("cache", "starts", "pages", "flat pages")


def starts_of(counts):
    return np.concatenate([[0], np.cumsum(counts)])


def sequences(rng, heads, counts, features):
    return [rng.normal(size=(heads, count, features)) for count in counts]


def behind(parts):
    return np.concatenate(parts, axis=1)


def page_tables(rng):
    """Pages in any order, as a table and flat."""
    counts = [-(-length // PAGE) for length in LENGTHS]
    numbers = rng.permutation(sum(counts) + 2).astype("int32")
    table = np.full((BATCH, ROOM // PAGE), -7, "int32")
    for sequence, (first, count) in enumerate(zip(starts_of(counts), counts)):
        table[sequence, :count] = numbers[first : first + count]
    return table, numbers[: sum(counts)], starts_of(counts)


def laid_out(kind, place, keys, values, types, index="int32", seed=0):
    """The same sequences, wherever `place` has them; what is not theirs is NaN."""
    rng = np.random.default_rng(seed)
    table, numbers, page_starts = page_tables(rng)
    integers = torch.from_numpy if kind == "torch" else np.asarray
    lengths = integers(np.array(LENGTHS, index))
    found = []
    for parts, dtype in zip((keys, values), types):
        heads, _, features = parts[0].shape
        if place == "starts":
            memory = behind([*parts, np.full((heads, 2, features), np.nan)])
        elif place == "cache":
            memory = np.full((BATCH, heads, ROOM, features), np.nan)
            for sequence, part in enumerate(parts):
                memory[sequence, :, : part.shape[1]] = part
        else:
            memory = np.full((len(numbers) + 2, heads, PAGE, features), np.nan)
            for sequence, part in enumerate(parts):
                for row in range(part.shape[1]):
                    memory[table[sequence, row // PAGE], :, row % PAGE] = part[:, row]
        found.append(of_type(kind, memory, dtype))
    if place == "cache":
        return KV(*found, lengths=lengths)
    if place == "starts":
        return KV(*found, starts=integers(starts_of(LENGTHS).astype(index)))
    if place == "pages":
        return KV(*found, page_table=integers(table), lengths=lengths)
    return KV(
        *found,
        page_table=integers(numbers),
        page_starts=integers(page_starts.astype(index)),
        lengths=lengths,
    )


def each_alone(place, memory, seed=0):
    """The rows of each sequence in memory of laid_out."""
    if place == "starts":
        starts = starts_of(LENGTHS)
        return [memory[:, begin:end] for begin, end in zip(starts, starts[1:])]
    if place == "cache":
        return [own[:, :length] for own, length in zip(memory, LENGTHS)]
    table = page_tables(np.random.default_rng(seed))[0]
    found = []
    for pages, length in zip(table, LENGTHS):
        own = memory[pages[: -(-length // PAGE)]].swapaxes(0, 1)  # (heads, pages, page, width)
        found.append(own.reshape(memory.shape[1], -1, memory.shape[-1])[:, :length])
    return found
