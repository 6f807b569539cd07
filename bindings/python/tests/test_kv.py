# SPDX-License-Identifier: BSD-3-Clause
"""Keys and values that lie in caches, behind one another and in pages, and ragged queries: numbers
are those of each sequence alone; what is stored lies in the caller's memory."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from kv_layouts import (
    BATCH,
    FEATURES,
    HEADS,
    KV_HEADS,
    LENGTHS,
    PAGE,
    PLACES,
    ROOM,
    ROWS,
    VALUES,
    behind,
    laid_out,
    sequences,
    starts_of,
)
from sequence_oracle import (
    assert_lse_near,
    assert_near,
    exactly,
    exists,
    expected_of,
    of_type,
    raw,
)

import libattention
from libattention import KV, kv_append
from libattention import scaled_dot_product_attention as sdpa

TYPES = [
    *((one,) * 3 for one in ("float32", "float64", "bfloat16", "float16")),
    ("float32", "bfloat16", "float16"),
    ("bfloat16", "float16", "float32"),
]
OPTIONS = {
    "none": {"is_causal": False},
    "causal": {"is_causal": True},
    "window": {"is_causal": True, "window": (5, 0)},
    "mask": {"is_causal": True},
}


# ---- attention ----


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_ragged_sequences_are_those_of_pytorch_each_alone(kind, place, types):
    if not exists(kind, *types):
        pytest.skip("NumPy has bfloat16 only with the package ml_dtypes")
    rng = np.random.default_rng(1)
    queries = sequences(rng, HEADS, ROWS, FEATURES)
    keys, values = (sequences(rng, KV_HEADS, LENGTHS, one) for one in (FEATURES, VALUES))
    kv = laid_out(kind, place, keys, values, types[1:], "int32" if types[0] > "f" else "int64")
    query = of_type(kind, behind(queries), types[0])
    score_type = "float64" if types[0] == "float64" else "float32"
    mask = of_type(kind, rng.normal(size=(HEADS, sum(ROWS), max(LENGTHS))), score_type)
    columns = {"cache": ROOM, "pages": ROOM}.get(place, max(LENGTHS))
    wide = np.zeros((HEADS, sum(ROWS), columns))
    wide[..., : max(LENGTHS)] = exactly(mask)
    for name, options in OPTIONS.items():
        given = {**options, "enable_gqa": True, "align_end": True}
        if name == "mask":
            given["attn_mask"] = of_type(kind, wide, score_type)
        output, lse = sdpa(query, kv=kv, query_starts=starts_of(ROWS), return_lse=True, **given)
        assert type(output) is type(query)
        for sequence, (first, count) in enumerate(zip(starts_of(ROWS), ROWS)):
            if count == 0:
                continue
            own = slice(first, first + count)
            alone = [
                of_type(kind, one[sequence], dtype) for one, dtype in zip((keys, values), types[1:])
            ]
            added = exactly(mask)[:, own, : LENGTHS[sequence]] if name == "mask" else None
            expected = expected_of(exactly(query)[:, own], *map(exactly, alone), added, **options)
            assert_near(output[:, own], expected, *types)
            assert_lse_near(lse[:, own], expected)
            if name == "mask":
                given["attn_mask"] = mask[:, own, : LENGTHS[sequence]]
            same = sdpa(query[:, own], *alone, **given)
            assert raw(output[:, own]) == raw(same)


@pytest.mark.parametrize("place", PLACES)
def test_a_batch_of_queries_is_that_of_tensors(place):
    rng = np.random.default_rng(2)
    query = rng.normal(size=(BATCH, HEADS, 1, FEATURES)).astype("float32")
    keys, values = (sequences(rng, KV_HEADS, LENGTHS, one) for one in (FEATURES, VALUES))
    kv = laid_out("numpy", place, keys, values, ("float32", "float32"))
    plain = laid_out("numpy", "cache", keys, values, ("float32", "float32"))
    options = {"is_causal": True, "enable_gqa": True, "align_end": True}
    expected = sdpa(query, plain.key, plain.value, key_lengths=LENGTHS, **options)
    np.testing.assert_array_equal(sdpa(query, kv=kv, **options), expected)
    out = np.zeros_like(expected)
    assert sdpa(query, kv=kv, out=out, **options) is out
    np.testing.assert_array_equal(out, expected)
    report = libattention.explain(query, kv=kv, **options)
    assert report == libattention.explain(query, plain.key, plain.value, **options) | {
        name: report[name] for name in ("num_blocks", "workspace_bytes", "copies")
    }


def test_ragged_queries_of_keys_in_a_batch(qkv):
    query, key, value = qkv
    found = sdpa(np.concatenate(query, axis=1), key, value, query_starts=[0, 5, 10])
    np.testing.assert_array_equal(found, np.concatenate(sdpa(*qkv), axis=1))


def test_weights_have_the_columns_of_the_room():
    rng = np.random.default_rng(3)
    keys, values = (sequences(rng, KV_HEADS, LENGTHS, one) for one in (FEATURES, VALUES))
    query = rng.normal(size=(HEADS, sum(ROWS), FEATURES)).astype("float32")
    columns = {"starts": sum(LENGTHS) + 2, "flat pages": 8 * PAGE}
    for place in PLACES:
        kv = laid_out("numpy", place, keys, values, ("float32", "float32"))
        options = {"kv": kv, "query_starts": starts_of(ROWS), "enable_gqa": True}
        weights = sdpa(query, return_weights=True, **options)[1]
        assert weights.shape == (HEADS, sum(ROWS), columns.get(place, ROOM))
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
        for first, count, length in zip(starts_of(ROWS), ROWS, LENGTHS):
            assert not weights[:, first : first + count, length:].any()


def test_rows_of_no_sequence_are_empty_and_left_in_out(rng):
    query = rng.normal(size=(HEADS, 6, FEATURES)).astype("float32")
    key = rng.normal(size=(2, HEADS, 3, FEATURES)).astype("float32")
    results = {"return_lse": True, "return_weights": True, "return_scores": "masked"}
    options = {"query_starts": np.array([1, 2, 4]), **results}
    output, lse, weights, scores = sdpa(query, key, key, **options)
    theirs = np.array([False, True, True, True, False, False])
    assert (output[:, theirs] != 0).all()
    for one, empty in ((output, 0), (lse, -np.inf), (weights, 0), (scores, -np.inf)):
        assert (one[:, ~theirs] == empty).all()
    scaled = sdpa(query, key, key, **{**options, "return_scores": "scaled"})[-1]
    assert not scaled[:, ~theirs].any()
    out = np.full_like(output, 7)
    sdpa(query, key, key, out=out, **options)
    np.testing.assert_array_equal(out[:, theirs], output[:, theirs])
    assert (out[:, ~theirs] == 7).all()


# ---- storing ----


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_new_rows_go_to_the_ends_of_their_sequences(kind, place):
    """From any type to any, bit by bit what was laid out at once."""
    types = [one for one in ("float32", "float64", "bfloat16", "float16") if exists(kind, one)]
    rng = np.random.default_rng(4)
    for given, stored in itertools.product(types, repeat=2):
        narrow = "float16" if given == "float64" else given
        # What is given holds them exactly. NumPy and PyTorch may round float64 to 16 bits twice.
        parts = [
            [
                exactly(of_type(kind, part, narrow))
                for part in sequences(rng, KV_HEADS, LENGTHS, one)
            ]
            for one in (FEATURES, VALUES)
        ]
        whole = laid_out(kind, place, *parts, (stored, stored))
        before = [
            [np.where(np.arange(len(part[0]))[:, None] < length - new, part, np.nan)
             for part, length, new in zip(one, LENGTHS, ROWS)]
            for one in parts
        ]  # fmt: skip
        kv = laid_out(kind, place, *before, (stored, stored))
        if place == "starts":  # where all rows are in use
            kv = kv._replace(lengths=np.array(LENGTHS))
        new = [
            behind([part[:, length - rows :] for part, length, rows in zip(one, LENGTHS, ROWS)])
            for one in parts
        ]
        rows = [of_type(kind, one, given) for one in new]
        assert kv_append(kv, *rows, starts=starts_of(ROWS)) is None
        for one, other in zip(kv[:2], whole[:2]):
            assert np.array_equal(exactly(one), exactly(other), equal_nan=True)


def test_positions_say_where_rows_go(rng):
    memory = np.zeros((2, 3, KV_HEADS, 5, FEATURES), "float32")
    pages = memory.swapaxes(2, 3)[0], memory.swapaxes(2, 3)[1]  # (pages, page, Hk, E)
    kv = KV(*(one.swapaxes(1, 2) for one in pages), page_table=[[2, 0], [1, -1]])
    key, value = rng.normal(size=(2, 2, KV_HEADS, 3, FEATURES)).astype("float32")
    kv_append(kv, key, value, positions=[[0, 9, -1], [4, -1, 2]])
    np.testing.assert_array_equal(pages[0][2, 0], key[0, :, 0])
    np.testing.assert_array_equal(pages[1][0, 4], value[0, :, 1])
    np.testing.assert_array_equal(pages[0][1, 4], key[1, :, 0])
    np.testing.assert_array_equal(pages[0][1, 2], key[1, :, 2])
    assert np.count_nonzero(memory) == 2 * 4 * KV_HEADS * FEATURES


def test_memory_of_any_strides_is_written_and_nothing_beside_it(rng):
    whole = np.zeros((2, 2, 8, KV_HEADS, 2 * FEATURES), "float32")
    key = whole[0, ..., ::2].swapaxes(1, 2)
    value = torch.from_numpy(whole[1]).transpose(1, 2)[..., FEATURES:]
    new = rng.normal(size=(2, KV_HEADS, 3, FEATURES)).astype("float32")
    kv_append(KV(key, value, lengths=np.array([3, 8])), new, new)
    np.testing.assert_array_equal(whole[0, 1, 5:, :, ::2], new[1].swapaxes(0, 1))
    np.testing.assert_array_equal(whole[1, 0, :3, :, FEATURES:], new[0].swapaxes(0, 1))
    assert np.count_nonzero(whole) == 2 * new.size


# ---- refusals ----


class Copying:
    """A DLPack producer that lends copies, unless told not to."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape

    def __dlpack__(self, *, copy=None, max_version=None, **_):
        if copy is False:
            raise BufferError("is kept elsewhere")
        return self.array.copy().__dlpack__(max_version=max_version)

    def __dlpack_device__(self):
        return (1, 0)


class Lending(Copying):
    """One that lends its own memory."""

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


def test_other_producers_lend_their_memory_or_are_refused(rng):
    new = rng.normal(size=(1, KV_HEADS, 2, FEATURES)).astype("float32")
    key, value = np.zeros((2, 1, KV_HEADS, 2, FEATURES), "float32")
    kv_append(KV(Lending(key), Lending(value), lengths=2), new, Copying(new))
    np.testing.assert_array_equal(key, new)
    np.testing.assert_array_equal(value, new)
    with pytest.raises(libattention.Error, match=r"^kv\.value: cannot be read through DLPack: is"):
        kv_append(KV(key, Copying(value), lengths=2), new, new)


def refusal(call):
    with pytest.raises(libattention.Error) as caught:
        call()
    return f"{caught.value.name.removeprefix('ATTN_ERROR_')} {caught.value}"


def test_what_is_refused_is_named(rng):
    one = rng.normal(size=(2, KV_HEADS, 3, FEATURES)).astype("float32")
    fixed, other = one.copy(), one.copy()
    fixed.flags.writeable = False
    kv = KV(one, other, lengths=np.array([3, 3]))
    new = np.ones_like(one)
    before = one.copy()
    calls = {
        "VALUE kv: expected a libattention.KV, got tuple": lambda: sdpa(new, kv=(one, one)),
        "VALUE key: expected None beside kv, which has its own": lambda: sdpa(new, new, new, kv=kv),
        "VALUE key_lengths: expected None beside kv": lambda: sdpa(new, kv=kv, key_lengths=3),
        "VALUE key: expected a NumPy array, PyTorch tensor": lambda: sdpa(new),
        "VALUE kv.page_starts: expected None without kv.page_table": lambda: sdpa(
            new, kv=kv._replace(page_starts=[0, 1, 2])
        ),
        "VALUE kv.starts: expected None beside kv.page_table": lambda: sdpa(
            new, kv=KV(one, one, page_table=[[0], [1]], starts=[0, 1, 2])
        ),
        "DTYPE kv.lengths: expected dtype int64 or int32, got float32; pass": lambda: sdpa(
            new, kv=kv._replace(lengths=np.ones(2, "float32"))
        ),
        "VALUE kv.lengths: expected integers, got [1.5": lambda: sdpa(
            new, kv=kv._replace(lengths=[1.5, 2])
        ),
        "VALUE kv.lengths: ": lambda: sdpa(new, kv=kv._replace(lengths=[4, 1])),
        "VALUE kv.page_table: expected the number of one of 2 pages, got 2": lambda: sdpa(
            new, kv=KV(one, one, page_table=[[0], [2]])
        ),
        "VALUE query_starts: ": lambda: sdpa(new[0], kv=kv, query_starts=[0, 2, 1]),
        "SHAPE query_starts: expected ": lambda: sdpa(new[0], kv=kv, query_starts=[0, 1, 2, 3]),
        "SHAPE query: ": lambda: sdpa(new, kv=kv, query_starts=[0, 1, 2]),
        "VALUE kv.key: is read-only; pass an array of your own": lambda: kv_append(
            kv._replace(key=fixed), new, new
        ),
        "NULL kv.lengths: expected lengths without positions, got None": lambda: kv_append(
            kv._replace(lengths=None), new, new
        ),
        "VALUE kv.lengths: expected 3 new rows and more": lambda: kv_append(
            kv._replace(lengths=[3, 2]), new, new
        ),
        "VALUE positions: expected a row below 3": lambda: kv_append(
            kv, new, new, positions=[0, 1, 3]
        ),
        "SHAPE value: expected shape (": lambda: kv_append(kv, new, new[:1]),
        "OVERLAP kv.key: ": lambda: kv_append(kv, one, new),
        "DTYPE key: expected dtype float32, float64, ": lambda: kv_append(kv, new.astype(int), new),
        "VALUE kv.key: expected a NumPy array": lambda: kv_append(KV([1.0], one), new, new),
    }
    for text, call in calls.items():
        found = refusal(call)
        assert found.startswith(text), found
    np.testing.assert_array_equal(one, before)
    np.testing.assert_array_equal(other, before)


def test_tensors_that_pytorch_would_compute_with():
    tensor = torch.ones(1, KV_HEADS, 2, FEATURES)
    wanted = tensor.clone().requires_grad_()
    kv = KV(tensor, tensor.clone(), lengths=torch.tensor([2]))
    assert "pass key.detach()" in refusal(lambda: kv_append(kv, wanted, tensor.clone()))
    assert "out: requires grad" in refusal(lambda: sdpa(tensor, kv=kv, out=wanted))
    with torch.no_grad():
        assert sdpa(wanted, kv=kv).shape == tensor.shape
        kv_append(kv, wanted, wanted)
    meta = tensor.to("meta")
    assert "is on meta, where there are no numbers" in refusal(lambda: kv_append(kv, meta, meta))
    assert sdpa(meta, kv=kv._replace(key=meta, value=meta)).shape == tensor.shape


def test_a_description_can_be_pickled():
    kv = pickle.loads(pickle.dumps(KV(np.ones((1, 2, 3, 4)), np.zeros((1, 2, 3, 4)), lengths=2)))
    assert kv.key.sum() == 24
    assert kv.lengths == 2
