# SPDX-License-Identifier: BSD-3-Clause
"""The numbers of a cell. Every contestant makes them in its own process from the same seed, so
all get the same bytes, each in memory of its own: nobody finds its keys in a cache another one
filled.

NumPy has no bfloat16: an array of uint16 has its bits."""

import zlib
from dataclasses import dataclass, field

import numpy as np

from peers.cells import (
    ADDITIVE_MASK,
    BFLOAT16,
    BOOL_MASK,
    CAUSAL_MASK,
    DOCUMENTS_OPTIONS,
    FLOAT16,
    INT8_TENSOR,
    INTEGERS,
    RAGGED,
    WINDOW,
    Cell,
)

Array = np.ndarray


@dataclass
class Inputs:
    """SDPA: query, key, value (batch, heads, length, width), or (heads, rows of all, width) where
    sequences are ragged. Multi-head: query (batch, length, embed_dim) is all."""

    query: Array
    key: Array
    value: Array
    mask: Array | None = None
    key_lengths: Array | None = None
    parameters: dict[str, Array] = field(default_factory=dict)
    # By the fields of attn_kv: where key and value are what integers mean.
    integers: dict[str, Array] = field(default_factory=dict)
    # Backward: of output, whose shape it has.
    gradient: Array | None = None


def stored(values: Array, dtype: str) -> Array:
    """Float32 as a cell's type stores it, rounded to nearest, ties to even."""
    if dtype == FLOAT16:
        return values.astype(np.float16)
    if dtype == BFLOAT16:
        bits = values.view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return values


def widened(values: Array) -> Array:
    """What is stored, as float32."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def empty(shape: tuple[int, ...], dtype: str) -> Array:
    """Memory for what a cell's type stores."""
    return np.empty(shape, dtype=stored(np.zeros(1, np.float32), dtype).dtype)


def _normal(random: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    values = random.standard_normal(shape, dtype=np.float32)
    values *= np.float32(scale)
    return values


def _mask(random: np.random.Generator, cell: Cell) -> Array | None:
    shape = (cell.queries, cell.keys)
    if cell.option == ADDITIVE_MASK:
        return stored(_normal(random, *shape), cell.dtype)
    if cell.option == BOOL_MASK:
        visible = np.ones(cell.queries * cell.keys, dtype=np.bool_)
        visible[: cell.hidden_by_mask] = False
        random.shuffle(visible)
        return visible.reshape(shape)
    if cell.option == CAUSAL_MASK:
        return np.tri(*shape, dtype=np.bool_)
    if cell.option in DOCUMENTS_OPTIONS:
        return _documents(cell)
    return None


def _documents(cell: Cell) -> Array:
    visible = np.zeros((cell.queries, cell.keys), dtype=np.bool_)
    for row in range(cell.queries):
        visible[row, slice(*cell.document_of(row))] = True
    return visible


def _parameters(random: np.random.Generator, cell: Cell) -> dict[str, Array]:
    """By PyTorch's names, of a trained layer's size: outputs of order 1."""
    width = cell.embed_dim
    scale = width**-0.5
    values = {
        "in_proj_weight": _normal(random, 3 * width, width, scale=scale),
        "in_proj_bias": _normal(random, 3 * width, scale=0.1),
        "out_proj.weight": _normal(random, width, width, scale=scale),
        "out_proj.bias": _normal(random, width, scale=0.1),
    }
    return {name: stored(array, cell.dtype) for name, array in values.items()}


def _as_integers(name: str, values: Array, cell: Cell) -> tuple[dict[str, Array], Array]:
    """Integers from -127 to 127, a scale for each row or one for all, and the numbers that they
    mean: what peers without such caches are given."""
    axis = None if cell.option == INT8_TENSOR else -1
    scale = np.abs(values).max(axis=axis, keepdims=True) / np.float32(127)
    levels = np.rint(values / scale).astype(np.int8)
    return {name: levels, f"{name}_scale": scale}, levels * scale


def make(cell: Cell) -> Inputs:
    """The seed is the cell's name, so that cells of a selection are those of the whole grid."""
    random = np.random.Generator(np.random.PCG64(zlib.crc32(cell.name.encode())))
    if cell.is_multihead:
        query = stored(_normal(random, cell.batch, cell.queries, cell.embed_dim), cell.dtype)
        return Inputs(query, query, query, parameters=_parameters(random, cell))
    is_ragged = cell.option == RAGGED
    batch = () if is_ragged else (cell.batch,)
    rows = sum(cell.query_lengths) if is_ragged else cell.queries
    keys = rows if is_ragged else cell.keys
    query, key, value = (
        stored(_normal(random, *batch, *shape), cell.dtype)
        for shape in (
            (cell.heads, rows, cell.head_dim),
            (cell.kv_heads, keys, cell.head_dim),
            (cell.kv_heads, keys, cell.value_dim),
        )
    )
    lengths = None
    if not is_ragged and min(cell.key_lengths) < cell.keys:
        lengths = np.array(cell.key_lengths, dtype=np.int64)
    made = Inputs(query, key, value, _mask(random, cell), lengths)
    if cell.is_backward:
        shape = (*query.shape[:-1], cell.value_dim)
        made.gradient = stored(_normal(random, *shape), cell.dtype)
    if cell.option in INTEGERS:
        integers, made.key = _as_integers("key", key, cell)
        more, made.value = _as_integers("value", value, cell)
        made.integers = integers | more
    return made


def starts_of(cell: Cell) -> Array:
    """(batch + 1): sequence b has rows starts[b] to starts[b + 1] - 1."""
    return np.concatenate([[0], np.cumsum(cell.query_lengths)]).astype(np.int64)


def lengths_as_mask(cell: Cell) -> Array:
    """(batch, 1, 1, keys), true where the key exists: for peers without key lengths."""
    lengths = np.array(cell.key_lengths, dtype=np.int64)
    return (np.arange(cell.keys)[None, :] < lengths[:, None])[:, None, None, :]


def window_as_mask(cell: Cell) -> Array:
    """(queries, keys), true inside the window: for peers without one."""
    distance = np.arange(cell.keys)[None, :] - np.arange(cell.queries)[:, None]
    visible = np.ones(distance.shape, dtype=np.bool_)
    if cell.window_left >= 0:
        visible &= distance >= -cell.window_left
    if cell.window_right >= 0:
        visible &= distance <= cell.window_right
    return visible


def visible_as_mask(cell: Cell, inputs: Inputs) -> Array | None:
    """What a peer without lengths or windows is given as a bool mask; the cell's own mask where
    it has one."""
    if inputs.mask is not None:
        return inputs.mask
    if inputs.key_lengths is not None:
        return lengths_as_mask(cell)
    if cell.option == WINDOW:
        return window_as_mask(cell)
    return None
