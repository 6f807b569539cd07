# SPDX-License-Identifier: BSD-3-Clause
"""Attention in float64 NumPy, for plain and masked softmax."""

import numpy as np


def attention(query, key, value, hidden=None, bias=0.0, scale=None):
    """(output, lse, weights); `hidden` is True where a position is not seen."""
    query, key, value = (array.astype("float64") for array in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = scale * query @ np.swapaxes(key, -1, -2) + bias
    if hidden is not None:
        scores = np.where(hidden, -np.inf, scores)
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = weights.sum(axis=-1, keepdims=True)
    weights = np.divide(weights, total, where=total > 0, out=np.zeros_like(weights))
    with np.errstate(divide="ignore"):
        lse = np.where(np.isfinite(top), top, 0) + np.log(total)
    return weights @ value, lse[..., 0], weights
