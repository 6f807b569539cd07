# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the guide's table of ONNX's operators beside Attention: the onnx package's reference,
and what the rows say instead."""

import numpy as np
from guide_tables import merged, split
from onnx import helper
from onnx.reference import ReferenceEvaluator

from libattention import KV, kv_append, rms_norm, rope

N, H, L, E, PLACES = 2, 3, 4, 8, 20
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, H, L, E)).astype("float32")
POSITIONS = np.array([[3, 19, 0, 4], [1, 1, 7, 8]])


def reference(operator, inputs, **attributes):
    node = helper.make_node(operator, list(inputs), ["Y"], **attributes)
    return ReferenceEvaluator(node).run(None, inputs)[0]


def tables(*shape):
    angles = RNG.normal(size=shape)
    return np.cos(angles).astype("float32"), np.sin(angles).astype("float32")


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def differs(found, expected):
    assert np.abs(found - expected).max() > 1e-3


def compare_rotation(size=E, **attributes):
    cos, sin = tables(N, L, size // 2)
    expected = reference(
        "RotaryEmbedding", {"X": X, "cos_cache": cos, "sin_cache": sin}, **attributes
    )
    return cos, sin, expected


def rotary_heads():
    cos, sin, expected = compare_rotation()
    close(rope(X, cos=cos, sin=sin), expected)


def rotary_flat():
    cos, sin = tables(N, L, E // 2)
    inputs = {"X": merged(X), "cos_cache": cos, "sin_cache": sin}
    expected = reference("RotaryEmbedding", inputs, num_heads=H)
    close(merged(rope(split(inputs["X"], H), cos=cos, sin=sin)), expected)


def rotary_positions():
    cos, sin = tables(PLACES, E // 2)
    inputs = {"X": X, "cos_cache": cos, "sin_cache": sin, "position_ids": POSITIONS}
    expected = reference("RotaryEmbedding", inputs)
    close(rope(X, cos=cos, sin=sin, positions=POSITIONS), expected)
    differs(rope(X, cos=cos[:L], sin=sin[:L]), expected)


def rotary_interleaved():
    cos, sin, expected = compare_rotation(interleaved=1)
    close(rope(X, cos=cos, sin=sin, interleaved=True), expected)
    differs(rope(X, cos=cos, sin=sin), expected)


def rotary_dim():
    cos, sin, expected = compare_rotation(6, rotary_embedding_dim=6)
    close(rope(X, cos=cos, sin=sin, rotary_dim=6), expected)
    cos, sin, expected = compare_rotation(rotary_embedding_dim=0)
    close(rope(X, cos=cos, sin=sin), expected)


def norm():
    scale = RNG.normal(size=E).astype("float32")
    inputs = {"X": X, "scale": scale}
    close(rms_norm(X, scale, 1e-5), reference("RMSNormalization", inputs))
    close(rms_norm(X, scale, 0.5), reference("RMSNormalization", inputs, epsilon=0.5))
    differs(rms_norm(X, scale, 1e-5), reference("RMSNormalization", inputs, epsilon=0.5))


def scatter():
    caches = RNG.normal(size=(2, N, H, PLACES, E)).astype("float32")
    starts = np.array([5, 18])
    for mode in ("linear", "circular"):
        key, value = caches.copy()
        first = starts if mode == "circular" else starts - 3
        expected = [
            reference(
                "TensorScatter",
                {"past_cache": one, "update": new, "write_indices": first},
                mode=mode,
            )
            for one, new in zip(caches, (X, -X))
        ]
        positions = first[:, None] + np.arange(L)
        kv_append(KV(key, value), X, -X, positions=positions % PLACES)
        np.testing.assert_array_equal(key, expected[0])
        np.testing.assert_array_equal(value, expected[1])


# By the first cell of the row: the names in it, and its test.
ROWS = {
    "RotaryEmbedding's `X`, 4-D (batch, heads, length, size)": ("attn_rope input", rotary_heads),
    "`X`, 3-D with `num_heads`": ("attn_tensor_split_heads", rotary_flat),
    "`cos_cache`, `sin_cache` (positions, size / 2) with `position_ids`": (
        "cos sin positions",
        rotary_positions,
    ),
    "`cos_cache`, `sin_cache` (batch, length, size / 2)": ("cos sin", rotary_heads),
    "`interleaved`": ("interleaved", rotary_interleaved),
    "`rotary_embedding_dim`": ("rotary_dim", rotary_dim),
    "RMSNormalization's `scale`, `epsilon` (1e-5), `axis` -1": (
        "attn_rms_norm weight epsilon",
        norm,
    ),
    "TensorScatter's `past_cache`, `update`, `write_indices`": (
        "attn_kv_append positions write_indices mode",
        scatter,
    ),
}
