# SPDX-License-Identifier: BSD-3-Clause
"""What attention of sequences that lie anywhere has to be: PyTorch's, of each sequence alone, in
float64; and how far results may be from it (include/attention/sdpa.h, Numerics)."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

import libattention

try:
    from ml_dtypes import bfloat16
except ModuleNotFoundError:
    bfloat16 = None

# Of storing a number: relative, and of the small ones of float16 absolute.
STORED = {
    "float32": (2**-24, 0),
    "float64": (2**-53, 0),
    "bfloat16": (2**-8, 0),
    "float16": (2**-11, 2**-25),
}


def exists(kind, *types):
    """NumPy has bfloat16 only with a package."""
    return kind == "torch" or "bfloat16" not in types or bfloat16 is not None


def of_type(kind, array, dtype):
    """An array of float64 as the kind's, rounded to a type."""
    if kind == "torch":
        return torch.from_numpy(array).to(getattr(torch, dtype))
    return array.astype(bfloat16 if dtype == "bfloat16" else dtype)


def exactly(array):
    """The numbers that it holds, in float64."""
    return array.double().numpy() if isinstance(array, torch.Tensor) else array.astype("float64")


def name_of(array):
    return str(array.dtype).removeprefix("torch.")


def raw(array):
    """Its bits, as bytes."""
    array = array.contiguous().view(torch.uint8).numpy() if torch.is_tensor(array) else array
    return array.tobytes()


class Expected(NamedTuple):
    """Of one sequence, (H, L, ...)."""

    output: np.ndarray
    lse: np.ndarray
    sums: np.ndarray  # of |weight * value|
    steps: np.ndarray  # (H, L, 1): largest relative error of a weight, in units of rounding


def expected_of(query, key, value, mask=None, is_causal=True, window=(-1, -1)):
    """Of arrays in float64; the last row of query stands at the last key."""
    rows, keys, groups = query.shape[1], key.shape[1], query.shape[0] // key.shape[0]
    distance = np.arange(keys) - (np.arange(rows)[:, None] + keys - rows)
    seen = np.ones((rows, keys), bool)
    if is_causal:
        seen &= distance <= 0
    if window[0] >= 0:
        seen &= distance >= -window[0]
    if window[1] >= 0:
        seen &= distance <= window[1]
    added = np.where(seen, 0.0 if mask is None else mask, -np.inf)
    tensors = [torch.from_numpy(np.ascontiguousarray(one))[None] for one in (query, key, value)]
    bias = torch.from_numpy(np.broadcast_to(added, (query.shape[0], rows, keys)).copy())[None]
    output = F.scaled_dot_product_attention(*tensors, attn_mask=bias, enable_gqa=True)[0].numpy()
    key, value = (one.repeat(groups, axis=0) for one in (key, value))
    scale = query.shape[-1] ** -0.5
    scores = scale * query @ key.swapaxes(-1, -2) + bias[0].numpy()
    lse = torch.logsumexp(torch.from_numpy(scores), -1).numpy()
    weights = np.exp(scores - lse[..., None])
    sizes = scale * np.abs(query) @ np.abs(key).swapaxes(-1, -2) + np.where(seen, np.abs(added), 0)
    of_scores = (query.shape[-1] + 8) * np.where(seen, sizes, 0).max(-1, keepdims=True)
    highest = scores.max(-1, keepdims=True)
    lowest = np.where(np.isfinite(scores), scores, np.inf).min(-1, keepdims=True)
    steps = 2 * of_scores + seen.sum(-1, keepdims=True) + 16 + highest - lowest
    return Expected(output, lse, weights @ np.abs(value), steps)


def assert_near(found, expected, *types):
    """The output of one sequence, of query, key and value of these types."""
    # What is expected was computed in float64, too, and is off by as much.
    unit = 2 * 2**-53 if types[0] == "float64" else 2**-24
    bound = unit * expected.steps * expected.sums
    # Kernels that multiply pairs of bfloat16 may round weights to it.
    if set(types) == {"bfloat16"} and libattention.info()["kernels"].endswith("_bf16"):
        bound = bound + 2**-8 * expected.sums
    relative, absolute = STORED[name_of(found)]
    _within(found, expected.output, bound + relative * (np.abs(expected.output) + bound) + absolute)


def assert_lse_near(found, expected):
    """The lse of one sequence."""
    unit = 2 * 2**-53 if name_of(found) == "float64" else 2**-24
    _within(found, expected.lse, unit * (expected.steps[..., 0] + np.abs(expected.lse)))


def _within(found, expected, limit):
    off = np.abs(exactly(found) - expected)
    assert off.shape == limit.shape
    assert (off <= limit).all(), (off / limit).max()
