# SPDX-License-Identifier: BSD-3-Clause
"""Inputs, masks and models that several tests of PyTorch's side take."""

import torch

BATCH, HEADS, ROWS, KEYS, FEATURES, VALUES = 2, 4, 5, 7, 8, 6


def double(*shape, low=-1.0, high=1.0):
    return torch.empty(shape, dtype=torch.float64).uniform_(low, high)


def inputs(types=(torch.float64,) * 3, kv_heads=HEADS):
    """Query, key and value."""
    shapes = ((HEADS, ROWS, FEATURES), (kv_heads, KEYS, FEATURES), (kv_heads, KEYS, VALUES))
    return [double(BATCH, *shape).to(dtype) for shape, dtype in zip(shapes, types, strict=True)]


def some_hidden():
    mask = double(BATCH, 1, ROWS, KEYS)
    mask[:, :, 1, 3] = -torch.inf
    mask[0, 0, 2] = -torch.inf  # a row that sees nothing
    return mask


MASKS = {
    "none": {},
    "bool": {"attn_mask": double(ROWS, KEYS) > -0.5},
    "added": {"attn_mask": some_hidden()},
    "two": {"attn_mask": double(BATCH, 1, 1, KEYS) > -0.8, "bias": double(HEADS, ROWS, KEYS)},
}


def masks_of(batch, heads, rows, keys):
    """By name: (key_padding_mask, attn_mask)."""
    torch.manual_seed(1)
    padding = torch.zeros(batch, keys, dtype=torch.bool)
    padding[:, -1] = True
    pairs = torch.rand(rows, keys) > 0.7
    pairs[:, 0] = False
    each = torch.randn(batch * heads, rows, keys)
    return {
        "none": (None, None),
        "padding": (padding, None),
        "pairs": (None, pairs),
        "both": (padding, pairs),
        "each": (None, each),
        "padding and each": (padding.float() * -5, each),
        "nothing seen": (None, torch.ones(rows, keys, dtype=torch.bool)),
    }


def small(kind, **options):
    """A configuration of two narrow layers."""
    sizes = {
        "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 64,
    }  # fmt: skip
    return kind(**{**sizes, **options})


POSITIONS = {
    "none": {},
    "causal": {"is_causal": True},
    "offset": {"is_causal": True, "query_offset": torch.tensor([1, 3])},
    "end": {"align_end": True, "window": (2, 1), "key_lengths": torch.tensor([7, 5])},
    "numbers": {"query_offset": 2, "key_lengths": 6, "window": (-1, 0)},
}
