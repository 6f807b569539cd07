# SPDX-License-Identifier: BSD-3-Clause
"""Attention weights as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from libattention._library import Error, lib
from libattention._tensors import kind_of

MOST_PANELS_IN_A_ROW = 4


def plot_heatmap(
    weights: Any, query_tokens: Sequence[str] | None = None, key_tokens: Sequence[str] | None = None
) -> Any:
    """Draws one matrix, or one for each head: a row is a query, a column a key, dark is attention.

    Needs matplotlib.

    Args:
        weights: (L, S) or (H, L, S)
        query_tokens: L labels of the rows
        key_tokens: S labels of the columns

    Returns:
        The matplotlib Figure, on which savefig may be called.
    """
    from matplotlib.figure import Figure

    kind_of(weights, "weights")
    matrices = np.asarray(weights)
    if matrices.ndim not in (2, 3):
        raise Error(
            lib.ATTN_ERROR_SHAPE,
            f"weights: expected shape (L, S) or (H, L, S), got {matrices.shape}; pick one sequence",
        )
    for name, tokens, axis in (("query_tokens", query_tokens, -2), ("key_tokens", key_tokens, -1)):
        if tokens is not None and len(tokens) != matrices.shape[axis]:
            expected = matrices.shape[axis]
            raise Error(
                lib.ATTN_ERROR_SHAPE, f"{name}: expected {expected} labels, got {len(tokens)}"
            )
    heads = matrices.reshape(-1, *matrices.shape[-2:])
    columns = min(len(heads), MOST_PANELS_IN_A_ROW)
    rows = -(-len(heads) // max(1, columns))
    figure = Figure(figsize=(1 + 2.6 * columns, 1 + 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    image: Any = None
    for head, panel in enumerate(panels):
        if head >= len(heads):
            panel.set_axis_off()
            continue
        image = panel.imshow(heads[head], cmap="Blues", vmin=0, vmax=max(1e-9, heads.max()))
        if matrices.ndim == 3:
            panel.set_title(f"head {head}", fontsize="small")
        _label(panel.set_yticks, query_tokens if head % columns == 0 else None, 0)
        _label(panel.set_xticks, key_tokens, 90)
    figure.supylabel("query")
    figure.supxlabel("key")
    figure.colorbar(image, ax=list(panels), label="weight", shrink=0.6)
    return figure


def _label(set_ticks: Any, tokens: Sequence[str] | None, rotation: int) -> None:
    if tokens is None:
        set_ticks([])
    else:
        set_ticks(range(len(tokens)), labels=tokens, rotation=rotation, fontsize="x-small")
