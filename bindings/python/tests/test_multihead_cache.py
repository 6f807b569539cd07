# SPDX-License-Identifier: BSD-3-Clause
"""Layers with a cache, rotary positions and norms of queries and keys: steps against the whole
sequence at once, and the attention of transformers' models with the weights they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import libattention
from libattention import KV, KVCache, MultiheadAttention

B, L, E, H, HK, D = 2, 11, 32, 4, 2, 8
STEPS = ((0, 6), (6, 7), (7, 11))
# Rows that see the same keys in another order: a few roundings of sums of some 32 numbers.
NEAR = {"rtol": 1e-4, "atol": 2e-6}


def layer_and_input(**options: Any) -> tuple[MultiheadAttention, np.ndarray]:
    layer = MultiheadAttention(
        E, H, num_kv_heads=HK, head_dim=D, batch_first=True, bias=False, **options
    )
    layer.init_parameters(7)
    x = np.random.default_rng(3).normal(size=(B, L, E)).astype("float32")
    return layer, x


@pytest.mark.parametrize("rope", [None, {}, {"base": 500.0, "rotary_dim": 4, "interleaved": True}])
@pytest.mark.parametrize("qk_norm", [None, "head", "all_heads"])
@pytest.mark.parametrize("paged", [None, 16])
@pytest.mark.parametrize("need_weights", [True, False])
def test_steps_are_the_whole(rope: Any, qk_norm: Any, paged: Any, need_weights: bool) -> None:
    layer, x = layer_and_input(qk_norm=qk_norm)
    whole, weights = layer(x, x, x, is_causal=True, rope=rope)
    cache = KVCache(B, HK, D, capacity=20, layers=2, paged=paged)
    for first, end in STEPS:
        part = x[:, first:end]
        for number in range(2):
            output, found = layer(
                part,
                part,
                part,
                need_weights=need_weights,
                is_causal=True,
                rope=rope,
                cache=cache,
                cache_layer=number,
            )
        np.testing.assert_allclose(output, whole[:, first:end], **NEAR)
        assert (found is not None) == need_weights
        if need_weights:
            np.testing.assert_allclose(found[..., :end], weights[:, first:end, :end], **NEAR)
            assert not found[..., end:].any()
        np.testing.assert_array_equal(cache.lengths, [end] * B)


def test_cache_that_is_only_read() -> None:
    """As a decoder reads an encoder's keys: stored by a call without queries."""
    layer, x = layer_and_input()
    whole, _ = layer(x[:, :3], x, x)
    cache = KVCache(B, HK, D, capacity=L)
    layer(x[:, :0], x, x, need_weights=False, cache=cache)
    for row in range(3):
        output, _ = layer(x[:, row : row + 1], cache=cache)
        np.testing.assert_allclose(output, whole[:, row : row + 1], **NEAR)
    np.testing.assert_array_equal(cache.lengths, [L] * B)


def test_memory_of_the_callers() -> None:
    """A KV whose sequences have different lengths, left of a mask of padding."""
    layer, x = layer_and_input()
    lengths = np.array([L, L - 4])
    key = np.zeros((B, HK, L, D), "float32")
    value = np.zeros_like(key)
    kv = KV(key, value, lengths=np.array([L, L]))
    excluded = np.arange(L) >= lengths[:, None]
    output, _ = layer(x, x, x, key_padding_mask=excluded, cache=kv, rope={})
    expected, _ = layer(x, x, x, key_padding_mask=excluded, rope={})
    np.testing.assert_array_equal(output, expected)
    assert not key[1, :, L - 4 :].any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_stored_types(dtype: str) -> None:
    layer, x = layer_and_input(qk_norm="head")
    whole, _ = layer(x, x, x, is_causal=True, rope={})
    cache = KVCache(B, HK, D, capacity=20, dtype=dtype)
    for first, end in STEPS:
        part = x[:, first:end]
        output, _ = layer(part, part, part, is_causal=True, rope={}, cache=cache)
        # What is stored is off by 2^-8 of itself, or of its row's largest number, at most; values
        # are near 1, and scores of norms 3 at most by 0.04.
        np.testing.assert_allclose(output, whole[:, first:end], atol=0.05)


def test_call_that_is_refused_takes_its_step_back() -> None:
    layer, x = layer_and_input()
    cache = KVCache(B, HK, D, capacity=20)
    layer(x[:, :6], x[:, :6], x[:, :6], cache=cache, is_causal=True)
    with pytest.raises(libattention.Error, match=r"^value: expected shape"):
        layer(x[:, :1], x[:, :1], x[:, :2], cache=cache)
    np.testing.assert_array_equal(cache.lengths, [6] * B)
    layer(x[:, 6:7], x[:, 6:7], x[:, 6:7], cache=cache, is_causal=True)
    np.testing.assert_array_equal(cache.lengths, [7] * B)


def test_what_is_refused() -> None:
    layer, x = layer_and_input()
    cache = KVCache(B, HK, D, capacity=20, layers=2)
    for options, line in (
        ({"cache": 3}, "cache: expected a libattention.KV or KVCache, got int"),
        ({"cache": cache}, "layer: expected 0 to 1, got None"),
        ({"cache": cache, "cache_layer": 0, "key_lengths": [1, 1]}, "key_lengths: expected None"),
        ({"rope": {"base": -1.0}}, "rope.base: expected 0"),
    ):
        with pytest.raises(libattention.Error, match="^" + line.replace("(", r"\(")):
            layer(x, x, x, **options)
        np.testing.assert_array_equal(cache.lengths, [0, 0])
    with pytest.raises(TypeError, match="rope has no option 'bass'"):
        layer(x, x, x, rope={"bass": 1})
    with pytest.raises(libattention.Error, match=r"^qk_norm: expected one of None, 'head'"):
        MultiheadAttention(8, 2, qk_norm="heads")
    cache.advance(1)
    with pytest.raises(libattention.Error, match=r"^layer: 0 has not stored its rows"):
        layer(x[:, :1], cache=cache, cache_layer=0)


def model_attention(name: str) -> tuple[Any, Any, dict[str, Any]]:
    """The attention of a small model of transformers, the model, and what ours is made with."""
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 50,
        "max_position_embeddings": 64,
    }
    head = {"head_dim": 24, "qk_norm": "head", "qk_norm_epsilon": 1e-6}
    made = {
        "Llama": ({}, {}),
        "Qwen3": ({"head_dim": 24}, head),
        "Gemma3Text": (
            {"head_dim": 24, "query_pre_attn_scalar": 24, "layer_types": ["full_attention"]},
            {**head, "qk_norm_weight_offset": 1.0},
        ),
        "Olmo2": ({}, {"qk_norm": "all_heads", "qk_norm_epsilon": 1e-6}),
    }
    theirs, ours = made[name]
    if name == "Olmo2":
        theirs = {"rms_norm_eps": 1e-6}
    config = getattr(transformers, f"{name}Config")(**sizes, **theirs)
    torch.manual_seed(5)
    model_class = f"{name}Model" if name != "Gemma3Text" else "Gemma3TextModel"
    model = getattr(transformers, model_class)(config).eval()
    attention = model.layers[0].self_attn
    with torch.no_grad():
        for norm in ("q_norm", "k_norm"):
            if hasattr(attention, norm):
                getattr(attention, norm).weight.uniform_(0.5, 1.5)
    return attention, model, ours


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Gemma3Text", "Olmo2"])
@torch.no_grad()
def test_attention_of_models(name: str) -> None:
    """The whole sequence by the model; a prompt and tokens by the layer, with their weights."""
    attention, model, ours = model_attention(name)
    layer = MultiheadAttention(
        64, 4, num_kv_heads=2, bias=False, batch_first=True, **{"head_dim": 16, **ours}
    )
    state = {
        "q_proj_weight": attention.q_proj.weight,
        "k_proj_weight": attention.k_proj.weight,
        "v_proj_weight": attention.v_proj.weight,
        "out_proj.weight": attention.o_proj.weight,
    }
    if "qk_norm" in ours:
        state |= {
            n: getattr(attention, n.split(".")[0]).weight
            for n in ("q_norm.weight", "k_norm.weight")
        }
    layer.load_state_dict({key: weight.detach() for key, weight in state.items()})
    hidden = torch.randn(2, 9, 64)
    positions = torch.arange(9)[None]
    embedding = model.rotary_emb
    rotated = (
        embedding(hidden, positions, "full_attention")
        if name == "Gemma3Text"
        else embedding(hidden, positions)
    )
    mask = torch.full((9, 9), float("-inf")).triu(1)[None, None]
    expected = attention(hidden, position_embeddings=rotated, attention_mask=mask)[0]
    frequencies = getattr(embedding, "full_attention_inv_freq", None)
    if frequencies is None:
        frequencies = embedding.inv_freq
    cache = KVCache(2, 2, layer.head_dim, capacity=16, dtype=torch.float32)
    for first, end in ((0, 5), (5, 6), (6, 9)):
        part = hidden[:, first:end]
        output, _ = layer(
            part,
            part,
            part,
            need_weights=False,
            is_causal=True,
            cache=cache,
            rope={"frequencies": frequencies},
        )
        torch.testing.assert_close(output, expected[:, first:end], rtol=1e-4, atol=1e-5)
