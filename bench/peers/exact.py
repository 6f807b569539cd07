# SPDX-License-Identifier: BSD-3-Clause
"""How far results are from float64, on the numbers as the cell's type stores them.

A few heads and rows stand for all: the first, the last, and some between them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from peers.cells import ADDITIVE_MASK, AVERAGED_WEIGHTS, CAUSAL, RAGGED, WINDOW, Cell
from peers.inputs import Array, Inputs, starts_of, widened, window_as_mask

MOST_ROWS = 24
MOST_HEADS = 4
# Gradients of keys are sums over all rows, so that all are computed.
MOST_BACKWARD_HEADS = 2


@dataclass
class Part:
    """Exact values, and where they are in output number `output`."""

    output: int
    place: tuple[object, ...]
    values: Array


def error(cell: Cell, inputs: Inputs, found: list[Array]) -> float:
    """The largest difference, over the largest exact value of its output: NaN stays NaN, and what
    has another shape is infinitely wrong."""
    if found[0].shape != _shape(cell, inputs):
        return np.inf
    differences = np.zeros(len(found))
    largest = np.zeros(len(found))
    for part in _parts(cell, inputs):
        distance = np.abs(found[part.output][part.place] - part.values).max()
        differences[part.output] = np.maximum(differences[part.output], distance)
        largest[part.output] = np.maximum(largest[part.output], np.abs(part.values).max())
    return float((differences / largest).max())


def _shape(cell: Cell, inputs: Inputs) -> tuple[int, ...]:
    """Of the first output: attention's, a layer's, or the gradient of query."""
    if cell.is_multihead or cell.is_backward:
        return inputs.query.shape
    return (*inputs.query.shape[:-1], cell.value_dim)


def _some(count: int, most: int) -> Array:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _parts(cell: Cell, inputs: Inputs) -> Iterator[Part]:
    if cell.is_multihead:
        return _multihead(cell, inputs)
    if cell.is_backward:
        return _backward(cell, inputs)
    return _forward(cell, inputs)


def _forward(cell: Cell, inputs: Inputs) -> Iterator[Part]:
    query, key, value = (_wide(array) for array in (inputs.query, inputs.key, inputs.value))
    for batch, place, keys in _sequences(cell):
        count = cell.query_lengths[batch]
        rows = _some(count, MOST_ROWS)
        hidden = _hidden(cell, inputs, batch, rows, cell.key_lengths[batch])
        for head in _some(cell.heads, MOST_HEADS):
            kv_head = head * cell.kv_heads // cell.heads
            at = (*place, head, keys.start + rows)
            source = (*place, kv_head, keys)
            weights = _softmax(_scores(cell, query[at], key[source], hidden))
            yield Part(0, at, weights @ value[source])


def _sequences(cell: Cell) -> Iterator[tuple[int, tuple[int, ...], slice]]:
    """Each sequence, where it is in front of the heads, and the rows that its keys are."""
    if cell.option == RAGGED:
        starts = starts_of(cell)
        for batch in _some(cell.batch, MOST_HEADS):
            yield int(batch), (), slice(int(starts[batch]), int(starts[batch + 1]))
        return
    for batch in _some(cell.batch, MOST_HEADS):
        yield int(batch), (int(batch),), slice(0, cell.key_lengths[batch])


def _wide(array: Array) -> Array:
    return widened(array).astype(np.float64)


def _hidden(cell: Cell, inputs: Inputs, batch: int, rows: Array, keys: int) -> Array:
    """(rows, keys), what is added to the scores: 0, minus infinity, or the mask."""
    visible = np.ones((len(rows), keys), np.bool_)
    if cell.option == CAUSAL:
        visible &= np.arange(keys) <= rows[:, None]
    if cell.option == WINDOW:
        visible &= window_as_mask(cell)[rows, :keys]
    if inputs.mask is None:
        return np.where(visible, 0.0, -np.inf)
    if cell.option == ADDITIVE_MASK:
        return _wide(inputs.mask[rows, :keys])
    return np.where(visible & inputs.mask[rows, :keys], 0.0, -np.inf)


def _scores(cell: Cell, query: Array, key: Array, hidden: Array) -> Array:
    return query @ key.T * cell.head_dim**-0.5 + hidden


def _softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _backward(cell: Cell, inputs: Inputs) -> Iterator[Part]:
    """dV = P^T dO, dS = P (dP - rowsum(P dP)), dQ = scale dS K, dK = scale dS^T Q."""
    scale = cell.head_dim**-0.5
    rows = np.arange(cell.queries)
    for batch in _some(cell.batch, 1):
        hidden = _hidden(cell, inputs, batch, rows, cell.keys)
        for head in _some(cell.heads, MOST_BACKWARD_HEADS):
            at = (batch, head)
            query, key, value, gradient = (
                _wide(array[at])
                for array in (inputs.query, inputs.key, inputs.value, inputs.gradient)
            )
            weights = _softmax(_scores(cell, query, key, hidden))
            of_weights = gradient @ value.T
            means = (weights * of_weights).sum(axis=-1, keepdims=True)
            of_scores = weights * (of_weights - means) * scale
            yield Part(0, at, of_scores @ key)
            yield Part(1, at, of_scores.T @ query)
            yield Part(2, at, weights.T @ gradient)


def _multihead(cell: Cell, inputs: Inputs) -> Iterator[Part]:
    values = {name: _wide(array) for name, array in inputs.parameters.items()}
    rows = _some(cell.queries, MOST_ROWS)
    for batch in _some(cell.batch, MOST_HEADS):
        tokens = _wide(inputs.query[batch])
        packed = tokens @ values["in_proj_weight"].T + values["in_proj_bias"]
        query, key, value = (
            part.reshape(cell.queries, cell.heads, cell.head_dim).transpose(1, 0, 2)
            for part in np.split(packed, 3, axis=-1)
        )
        scores = query[:, rows] @ key.transpose(0, 2, 1) * cell.head_dim**-0.5
        weights = _softmax(scores)
        context = (weights @ value).transpose(1, 0, 2).reshape(len(rows), cell.embed_dim)
        output = context @ values["out_proj.weight"].T + values["out_proj.bias"]
        yield Part(0, (batch, rows), output)
        if cell.option == AVERAGED_WEIGHTS:
            yield Part(1, (batch, rows), weights.mean(axis=0))
