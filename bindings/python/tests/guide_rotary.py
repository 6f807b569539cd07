# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the tables in docs/guides/rotary-positions.md: transformers' own rotation and norm, and
what the rows say instead."""

import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as rotate_as_gptj
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from libattention import rms_norm, rope

N, H, L, E = 2, 4, 5, 16
POSITIONS = torch.tensor([[3, 40, 5, 6, 70], [0, 1, 2, 300, 4]])
generator = torch.Generator().manual_seed(3)
X = torch.randn(N, H, L, E, generator=generator)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def differs(found, other):
    assert (found - other).abs().max() > 1e-2


# ---- which rotation ----


def embedding(head_dim=E, scaling=None, theta=10000.0):
    config = LlamaConfig(
        hidden_size=H * head_dim,
        num_attention_heads=H,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": theta, **(scaling or {})},
    )
    return LlamaRotaryEmbedding(config)


def rotated(module):
    """By transformers: the rotated rows, and the tables that they were rotated by."""
    cos, sin = module(X, POSITIONS)
    return apply_rotary_pos_emb(X, X, cos, sin)[0], cos, sin


def compare(module, **options):
    """The rotation of transformers beside rope with the options, which it needs."""
    expected = rotated(module)[0]
    close(rope(X, positions=POSITIONS, **options), expected)
    if options:
        differs(rope(X, positions=POSITIONS), expected)


def theta():
    compare(embedding(theta=500000.0), base=500000.0)


def halves():
    compare(embedding())


def neighbours():
    angles = POSITIONS[..., None] * embedding().inv_freq
    theirs = rotate_as_gptj(X.transpose(1, 2), angles.sin(), angles.cos()).transpose(1, 2)
    close(rope(X, positions=POSITIONS, interleaved=True), theirs)
    differs(rope(X, positions=POSITIONS), theirs)


def partial():
    cos, sin = embedding(head_dim=E // 2)(X, POSITIONS)
    turned = apply_rotary_pos_emb(X[..., : E // 2], X[..., : E // 2], cos, sin)[0]
    expected = torch.cat([turned, X[..., E // 2 :]], dim=-1)
    close(rope(X, positions=POSITIONS, rotary_dim=E // 2), expected)
    differs(rope(X, positions=POSITIONS), expected)


SCALINGS = (
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 4.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
)
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}


def scaled():
    for scaling in SCALINGS:
        module = embedding(scaling=scaling)
        rotated(module)  # dynamic frequencies are those of the longest sequence so far
        compare(module, frequencies=module.inv_freq)


def yarn():
    module = embedding(scaling=YARN)
    factor = module.attention_scaling
    compare(module, frequencies=module.inv_freq, magnitude=factor)
    differs(rope(X, positions=POSITIONS, frequencies=module.inv_freq), rotated(module)[0])


def tables():
    for scaling in (None, YARN):
        expected, cos, sin = rotated(embedding(scaling=scaling))
        close(rope(X, cos=cos[..., : E // 2], sin=sin[..., : E // 2]), expected)


def tables_by_position():
    angles = torch.arange(301)[:, None] * embedding().inv_freq
    found = rope(X, cos=angles.cos(), sin=angles.sin(), positions=POSITIONS)
    close(found, rotated(embedding())[0])


ROTATIONS = {
    "`rope_theta` 500000": ("base", theta),
    "Llama's, Qwen's, Mistral's, NeoX's pairs: halves (i, i + R/2)": ("", halves),
    "GPT-J's, the first Llama's: neighbours (2i, 2i + 1)": ("interleaved True", neighbours),
    "`partial_rotary_factor` 0.5 of E features": ("rotary_dim", partial),
    "linear, dynamic, Llama 3's scaling: transformers' `inv_freq`": ("frequencies", scaled),
    "YaRN: `inv_freq`, `attention_scaling`": ("frequencies magnitude", yarn),
    "transformers' `cos`, `sin` (batch, L, R), each half twice": ("cos sin", tables),
    "tables by position, and `position_ids`": ("cos sin positions", tables_by_position),
}

# ---- which norm ----


@torch.no_grad()
def compare_norms(layer, **options):
    torch.nn.init.normal_(layer.weight)
    close(rms_norm(X, layer.weight, **options), layer(X))
    return layer


def of_all_heads():
    differs(rms_norm(X), compare_norms(LlamaRMSNorm(E, eps=1e-6), epsilon=1e-6)(X))


@torch.no_grad()
def of_each_head():
    layers = [LlamaRMSNorm(E, eps=1e-6) for _ in range(H)]
    for layer in layers:
        torch.nn.init.normal_(layer.weight)
    weight = torch.stack([layer.weight for layer in layers])[:, None]
    expected = torch.stack([layer(X[:, head]) for head, layer in enumerate(layers)], dim=1)
    close(rms_norm(X, weight, 1e-6), expected)


def of_an_epsilon():
    layer = compare_norms(LlamaRMSNorm(E, eps=0.5), epsilon=0.5)
    differs(rms_norm(X, layer.weight.detach()), layer(X))


def of_gemma():
    layer = compare_norms(GemmaRMSNorm(E, eps=1e-6), epsilon=1e-6, weight_offset=1)
    differs(rms_norm(X, layer.weight.detach(), 1e-6), layer(X))


NORMS = {
    "`RMSNorm(head_dim)`, one for all heads": ("weight", of_all_heads),
    "a norm of each head's own": ("weight", of_each_head),
    "`rms_norm_eps`": ("epsilon", of_an_epsilon),
    "Gemma's, which keeps weights less 1": ("weight_offset", of_gemma),
}
