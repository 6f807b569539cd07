# SPDX-License-Identifier: BSD-3-Clause
"""KVCache: whatever sequences go through, each attends to what it has, as PyTorch's attention of it
alone does; and what would make numbers wrong is an error."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from cache_model import (
    BATCH,
    DTYPES,
    FEATURES,
    HEADS,
    KV_HEADS,
    MEMORIES,
    VALUES,
    Model,
    new_cache,
)
from sequence_oracle import assert_lse_near, assert_near, exactly, exists, expected_of, raw

import libattention
from libattention import CacheFullError, KVCache
from libattention import scaled_dot_product_attention as sdpa

# Of query, of new keys and values, and what is stored.
TYPES = [
    *((one,) * 3 for one in ("float32", "float64", "bfloat16", "float16")),
    ("float32", "float32", "bfloat16"),
    ("bfloat16", "float32", "float16"),
    ("float32", "float32", "int8"),
    ("bfloat16", "float64", "int8"),
]


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("kind", DTYPES)
def test_sequences_that_come_grow_and_go_are_each_as_alone(kind, memory, types):
    if not exists(kind, *types):
        pytest.skip("NumPy has bfloat16 only with the package ml_dtypes")
    cache = new_cache(kind, types[2], memory)
    model = Model(cache, kind, types)
    model.step(5)  # prompts of one length
    model.step(1)
    model.step(1, window=(3, 0))
    cache.reset(1)
    model.keep([7, 0, 7])
    cache.advance([1, 9, 0])  # a new prompt beside a decoded row and a sequence that waits
    model.step([1, 9, 0])
    cache.truncate(cache.lengths - 2)
    model.keep([6, 7, 5])
    cache.truncate(3, sequence=0)
    model.keep([3, 7, 5])
    assert cache.lengths.tolist() == [3, 7, 5]
    cache.advance(2)
    model.step(2, is_causal=False)
    model.step(1)
    assert cache.lengths.tolist() == [6, 10, 8]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_pages_have_the_bits_of_own_rooms(dtype):
    types = ("float32", "float32", dtype)
    own, paged = (Model(new_cache(dtype=dtype, memory=memory), types=types) for memory in MEMORIES)
    for counts in (6, [3, 0, 9], 1):
        for model in (own, paged):
            model.cache.advance(counts)
        for one, other in zip(own.step(counts), paged.step(counts)):
            assert raw(one) == raw(other)


@pytest.mark.parametrize("memory", MEMORIES)
def test_masks_and_weights_have_a_column_for_each_row_of_the_longest(memory, rng):
    cache = new_cache(memory=memory, layers=1)
    cache.advance([4, 2, 6])
    parts = [rng.normal(size=(KV_HEADS, 12, one)) for one in (FEATURES, VALUES)]
    cache.append(*(one.astype("float32") for one in parts))
    query = rng.normal(size=(BATCH, HEADS, 1, FEATURES)).astype("float32")
    bias = rng.normal(size=(HEADS, 1, 6)).astype("float32")
    results = {"return_lse": True, "return_weights": True}
    output, lse, weights = cache.attend(query, bias=bias, **results)
    assert weights.shape == (BATCH, HEADS, 1, 6)
    for sequence, (begin, end) in enumerate([(0, 4), (4, 6), (6, 12)]):
        alone = [exactly(one[:, begin:end].astype("float32")) for one in parts]
        added = exactly(bias[:, :, : end - begin])
        expected = expected_of(exactly(query[sequence]), *alone, added)
        assert_near(output[sequence], expected, "float32")
        assert_lse_near(lse[sequence], expected)
        np.testing.assert_allclose(
            weights[sequence, ..., : end - begin] @ alone[1].repeat(2, 0),
            expected.output,
            atol=1e-5,
        )
        assert not weights[sequence, ..., end - begin :].any()
    seen = np.ones((1, 6), bool)
    plain = cache.attend(query)
    np.testing.assert_array_equal(cache.attend(query, attn_mask=seen), plain)
    np.testing.assert_array_equal(cache.attend(query, attn_mask=np.ones((1, 1), bool)), plain)
    few = cache.attend(query, attn_mask=np.zeros((1, 2), bool), mask_start=[2, 0, 4])
    same = cache.attend(query, attn_mask=np.arange(6) < np.reshape([2, 0, 4], (3, 1, 1, 1)))
    np.testing.assert_allclose(few, same, atol=1e-6)
    assert cache.attend(query, return_weights=True)[1].shape == weights.shape
    more = cache.attend(query, bias=bias, return_scores="masked", **results)
    assert more[3].shape == weights.shape
    np.testing.assert_allclose(np.exp(more[3] - lse[..., None]), weights, rtol=1e-5, atol=1e-6)
    assert cache.attend(query, return_scores="scaled")[1].shape == weights.shape
    for columns in (5, 7, 8):
        with pytest.raises(libattention.Error, match=r"^attn_mask: expected 6 columns, the rows"):
            cache.attend(query, attn_mask=np.ones((1, columns), bool))


def test_advance_tells_positions():
    cache = new_cache("torch", layers=1)
    assert cache.advance(2).tolist() == [[0, 1]] * BATCH
    cache.append(torch.ones(BATCH, KV_HEADS, 2, FEATURES), torch.ones(BATCH, KV_HEADS, 2, VALUES))
    found = cache.advance([3, 0, 1])
    assert found.dtype == torch.int64
    assert found.tolist() == [2, 3, 4, 2]
    assert cache.lengths.tolist() == [5, 2, 3]


def test_what_a_cache_hands_out_is_no_way_in():
    for memory in MEMORIES:
        cache = new_cache(memory=memory, layers=1)
        cache.append(
            np.ones((BATCH, KV_HEADS, 5, FEATURES), "float32"),
            np.ones((BATCH, KV_HEADS, 5, VALUES), "float32"),
        )
        kv = cache.kv()
        query = np.ones((BATCH, HEADS, 1, FEATURES), "float32")
        found = sdpa(query, kv=kv, enable_gqa=True)
        np.testing.assert_array_equal(found, cache.attend(query))
        cache.lengths[:] = 0
        kv.lengths[:] = 0
        if kv.page_table is not None:
            kv.page_table[:] = -1
        np.testing.assert_array_equal(found, cache.attend(query))


# ---- room ----


def ones(count, batch=BATCH):
    return [np.ones((batch, KV_HEADS, count, one), "float32") for one in (FEATURES, VALUES)]


def test_a_full_cache_says_so_and_is_as_before():
    cache = new_cache(layers=1)
    cache.append(*ones(38))
    for take in (lambda: cache.append(*ones(3)), lambda: cache.advance([0, 3, 0])):
        with pytest.raises(CacheFullError) as caught:
            take()
        assert caught.value.name == "ATTN_ERROR_MEMORY"
        assert caught.value.sequence in (0, 1)
        assert str(caught.value) == (
            f"cache: full: sequence {caught.value.sequence} has 38 rows of 40, "
            "and no room for 3 more"
        )
        assert cache.lengths.tolist() == [38] * 3
    cache.append(*ones(2))
    assert pickle.loads(pickle.dumps(caught.value)).sequence == 1


def test_pages_are_taken_and_given_back():
    cache = new_cache(memory="paged", layers=1)  # 22 pages of 4 rows
    assert cache.capacity == 88
    cache.append(*ones(9))
    assert cache.free_pages == 22 - 9
    cache.append(*ones(3))
    assert cache.free_pages == 22 - 9
    with pytest.raises(CacheFullError) as caught:
        cache.advance([40, 13, 0])
    assert str(caught.value) == (
        "cache: full: 14 more pages of 4 rows are needed, 13 are free; sequence 1 is the first "
        "without"
    )
    assert caught.value.sequence == 1
    assert cache.free_pages == 13
    cache.advance([40, 12, 0])
    assert cache.free_pages == 0
    cache.rollback()
    assert cache.free_pages == 13
    cache.truncate([5, 4, 0])
    assert cache.free_pages == 22 - 3
    cache.reset(0)
    assert cache.free_pages == 22 - 1
    table = cache.kv().page_table
    assert (table[1, 0] >= 0) & (table[1, 1:] == -1).all() & (table[[0, 2]] == -1).all()
    cache.reset()
    assert cache.free_pages == 22


def test_a_page_belongs_to_one_sequence(rng):
    cache = KVCache(5, 1, 1, paged=3, pages=20, capacity=30)
    for _ in range(200):
        rows = rng.integers(0, 9, size=5)
        try:
            total = len(cache.advance(rows))
            cache.append(*np.ones((2, 1, total, 1), "float32"))
        except CacheFullError as error:
            cache.reset(error.sequence)
            cache.truncate(cache.lengths // 2)
        table = cache.kv().page_table
        used = table[table >= 0]
        assert len(set(used)) == len(used) == 20 - cache.free_pages
        assert ((table >= 0).sum(1) == -(-cache.lengths // 3)).all()


# ---- steps ----


def test_layers_store_once_and_attend_afterwards():
    cache = new_cache()
    query = np.ones((BATCH, HEADS, 1, FEATURES), "float32")
    cache.append(*ones(1), 0)
    calls = {
        "layer: 0 has stored its rows of this step, which have not been by 1; append": (
            lambda: cache.append(*ones(1), 0)
        ),
        "layer: 1 has not stored its rows of this step; append": lambda: cache.attend(query, 1),
        "layer: the rows of this step have not been stored by 1; append them, or rollback the": (
            lambda: cache.advance(1)
        ),
        "layer: the rows of this step have": lambda: cache.truncate(0),
        "layer: the rows of this step have not": lambda: cache.reset(0),
        "key: expected (batch, heads, L=1, features), or ragged (heads, total=3, features), as "
        "this step has, got (3, 2, 2, 8)": lambda: cache.append(*ones(2), 1),
        "layer: expected 0 to 1, got None": lambda: cache.append(*ones(1)),
        "layer: expected 0 to 1, got 2": lambda: cache.attend(query, 2),
        "layer: expected 0 to 1, got '1'": lambda: cache.kv("1"),
    }
    for text, call in calls.items():
        with pytest.raises(libattention.Error) as caught:
            call()
        assert str(caught.value).startswith(text), caught.value
    cache.append(*ones(1), 1)
    assert cache.attend(query, 1).shape == (BATCH, HEADS, 1, VALUES)
    cache.rollback()
    assert cache.lengths.tolist() == [1] * 3


def test_a_step_that_fails_has_not_begun():
    for memory in MEMORIES:
        cache = new_cache(memory=memory)
        key, value = ones(2)
        free = cache.free_pages
        for wrong in ((key, value[:, :, :1]), (key[:2], value), (key, value.astype(int)), (3, 4)):
            with pytest.raises(libattention.Error):
                cache.append(*wrong, 0)
            assert cache.lengths.tolist() == [0] * 3
            assert cache.free_pages == free
        cache.append(key, value, 0)
        with pytest.raises(libattention.Error, match=r"^value: "):
            cache.append(key, value[:, :, :1], 1)
        cache.append(key, value, 1)
        assert cache.lengths.tolist() == [2] * 3
        cache.append(key, value, 1)
        cache.reset()
        assert cache.lengths.tolist() == [0] * 3
        cache.append(key, value, 0)


def test_ragged_rows_need_their_step():
    cache = new_cache(layers=1)
    key, value = (one[0] for one in ones(3))
    query = np.ones((HEADS, 3, FEATURES), "float32")
    with pytest.raises(libattention.Error, match=r"or advance before ragged rows, got \(2, 3, 8\)"):
        cache.append(key, value)
    cache.advance([2, 0, 1])
    for wrong, text in (
        ((key[:, :2], value[:, :2]), r"^key: expected ragged \(heads, total=3, features\), as"),
        (ones(1), r"^key: expected ragged"),
    ):
        with pytest.raises(libattention.Error, match=text):
            cache.append(*wrong)
    cache.append(key, value)
    assert cache.attend(query).shape == (HEADS, 3, VALUES)
    for wrong in (query[:, :2], query[0], query[None]):
        with pytest.raises(libattention.Error, match=r"^query: expected "):
            cache.attend(wrong)
    cache.truncate(1)
    with pytest.raises(libattention.Error, match=r"^query: .*or ragged rows of a step"):
        cache.attend(query)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({}, "capacity: expected the rows of a sequence, got None"),
        ({"capacity": 0}, "capacity: expected 1 or more, got 0"),
        ({"capacity": 2.0}, "capacity: expected 1 or more, got 2.0"),
        ({"capacity": 4, "pages": 3}, "pages: expected None without paged"),
        ({"paged": 4}, "pages: expected how many there are, or a capacity, got None for both"),
        ({"paged": True, "pages": 3}, "paged: expected 1 or more, got True"),
        ({"capacity": 4, "layers": -1}, "layers: expected 1 or more, got -1"),
        (
            {"capacity": 4, "dtype": "uint8"},
            "dtype: expected float32, float64, bfloat16, float16, int8 or one of PyTorch's, got",
        ),
        ({"capacity": 4, "dtype": torch.int32}, "dtype: expected float32, "),
        ({"capacity": 4, "dtype": "half precision"}, "dtype: expected a name, a NumPy dtype or"),
        ({"capacity": 4, "dtype": 3}, "dtype: expected a name, a NumPy dtype or"),
    ],
)
def test_sizes_are_checked(sizes, text):
    with pytest.raises(libattention.Error) as caught:
        KVCache(1, 1, 2, **sizes)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (-1, "rows: expected 0 or more, got -1"),
        ([1, 2], "rows: expected a number, or (batch=3), got (2,)"),
        ([1, 2.5, 3], "rows: expected integers, got [1, 2.5, 3]"),
        (True, "rows: expected integers, got True"),
        (np.ones(3), "rows: expected dtype int64 or int32, got float64"),
    ],
)
def test_rows_are_checked(rows, text):
    cache = new_cache()
    with pytest.raises(libattention.Error) as caught:
        cache.advance(rows)
    assert str(caught.value).startswith(text)
    with pytest.raises(libattention.Error) as caught:
        cache.truncate(rows)
    assert str(caught.value).startswith(text.replace("rows", "lengths"))
    assert cache.advance(torch.tensor(2, dtype=torch.int32)).shape == (BATCH, 2)


def test_options_that_a_cache_has_itself_are_not_taken():
    cache = new_cache(layers=1)
    cache.append(*ones(1))
    query = np.ones((BATCH, HEADS, 1, FEATURES), "float32")
    for option in ("align_end", "query_offset", "key_lengths", "enable_gqa", "kv"):
        with pytest.raises((TypeError, libattention.Error), match=option):
            cache.attend(query, **{option: 1})


# ---- as a whole ----


@pytest.mark.parametrize("kind", DTYPES)
def test_a_copy_goes_its_own_way(kind):
    for memory in MEMORIES:
        model = Model(new_cache(kind, memory=memory), kind)
        model.step(4)
        others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        for one in (model, *others):
            one.step(1)
        model.cache.reset()
        for one in others:
            one.step(2)
        assert repr(one.cache) == (
            "KVCache(batch=3, num_kv_heads=2, head_dim=8, layers=2, lengths=[7, 7, 7])"
        )


def test_layers_of_a_step_may_have_threads_of_their_own(rng):
    cache = new_cache(memory="paged", layers=8)
    rows = rng.normal(size=(8, BATCH, KV_HEADS, 5, FEATURES)).astype("float32")
    cache.advance(5)
    found = [None] * 8

    def compute(layer):
        cache.append(rows[layer], rows[layer][..., :VALUES], layer)
        found[layer] = cache.attend(rows[layer].repeat(2, 1), layer)

    threads = [threading.Thread(target=compute, args=(layer,)) for layer in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for one, output in zip(rows, found):
        query = one.repeat(2, 1)
        np.testing.assert_array_equal(
            output, sdpa(query, one, one[..., :VALUES], is_causal=True, enable_gqa=True)
        )
    assert cache.advance(1).tolist() == [[5]] * BATCH  # which all layers have stored for


def test_a_llama_decodes_ragged_prompts_as_transformers_does_each(rng):
    """Its own layers around a cache, prompts of any length and decoded tokens in one step."""
    from torch_cases import small
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    torch.manual_seed(0)
    model = LlamaForCausalLM(small(LlamaConfig, num_key_value_heads=2)).eval().double()
    layers, rotary = model.model.layers, model.model.rotary_emb
    cache = KVCache(2, 2, 8, layers=len(layers), dtype=torch.float64, paged=4, pages=12)

    def step(tokens, counts):
        """Logits of the last row of each sequence that has rows."""
        positions = cache.advance(counts)
        hidden = model.model.embed_tokens(torch.tensor(tokens))[None]
        angles = rotary(hidden, positions[None])
        for number, layer in enumerate(layers):
            own = layer.self_attn
            normed = layer.input_layernorm(hidden)
            query, key, value = (
                one(normed).view(len(tokens), -1, 8).transpose(0, 1)
                for one in (own.q_proj, own.k_proj, own.v_proj)
            )
            query, key = apply_rotary_pos_emb(query[None], key[None], *angles)
            cache.append(key[0], value, number)
            found = cache.attend(query[0], number).transpose(0, 1).reshape(1, len(tokens), -1)
            hidden = hidden + own.o_proj(found)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        last = np.cumsum(counts)[np.array(counts) > 0] - 1
        return model.lm_head(model.model.norm(hidden[0, last]))

    texts = [rng.integers(0, 100, size=11).tolist(), rng.integers(0, 100, size=8).tolist()]
    with torch.no_grad():
        alone = [model(torch.tensor([text])).logits[0] for text in texts]
        close = {"rtol": 1e-9, "atol": 1e-9}
        found = step(texts[0][:7], [7, 0])
        torch.testing.assert_close(found, alone[0][6:7], **close)
        found = step([texts[0][7], *texts[1][:5]], [1, 5])
        torch.testing.assert_close(found, torch.stack([alone[0][7], alone[1][4]]), **close)
        for more in range(3):
            found = step([texts[0][8 + more], texts[1][5 + more]], [1, 1])
            expected = torch.stack([alone[0][8 + more], alone[1][5 + more]])
            torch.testing.assert_close(found, expected, **close)
