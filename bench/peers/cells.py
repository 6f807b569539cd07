# SPDX-License-Identifier: BSD-3-Clause
"""What is measured. A cell is one entry of the table below; nothing else in the program names a
shape."""

import re
from dataclasses import asdict, dataclass
from typing import Any

FULL = "full"
CAUSAL = "causal"
LENGTHS = "key lengths"
BOOL_MASK = "bool mask"
ADDITIVE_MASK = "additive mask"
CAUSAL_MASK = "causal as a bool mask"
DOCUMENTS_MASK = "documents as a bool mask"
# Peers are given the bool mask.
DOCUMENTS_BLOCKS = "documents as a block mask"
WINDOW = "window"
AVERAGED_WEIGHTS = "averaged weights"
# What only this library's call is given: the same keys and values, or integers that mean them.
PAGES = "pages of 16 rows"
INT8 = "int8 with a scale for each row"
INT8_TENSOR = "int8 with one scale"
INTEGERS = (INT8, INT8_TENSOR)
# Sequences of a twenty-fifth of the length to the whole, one behind the other without padding.
RAGGED = "ragged"

FLOAT32 = "float32"
BFLOAT16 = "bfloat16"
FLOAT16 = "float16"
ELEMENT_BYTES = {FLOAT32: 4, BFLOAT16: 2, FLOAT16: 2}

MASK_OPTIONS = (FULL, CAUSAL, LENGTHS, BOOL_MASK, ADDITIVE_MASK)

PREFILL = "prefill"
DECODE = "decode"
CACHES = "decode from caches"
BATCHES = "batch without padding"
MULTIHEAD = "multi-head"
STRUCTURED = "structured mask"
BACKWARD = "backward"
# Groups of their own, so that figures over prefill, say, are of one type.
NARROW_PREFILL = "prefill in 16 bits"
NARROW_DECODE = "decode in 16 bits"
NARROW_MULTIHEAD = "multi-head in 16 bits"
NARROW_BACKWARD = "backward in 16 bits"
GROUPS = (
    PREFILL,
    STRUCTURED,
    "grouped queries",
    "cross",
    "window",
    "value width",
    DECODE,
    CACHES,
    BATCHES,
    MULTIHEAD,
    BACKWARD,
    NARROW_PREFILL,
    NARROW_DECODE,
    NARROW_MULTIHEAD,
    NARROW_BACKWARD,
)

# Of equal length, side by side, where they are the option: a row sees its own.
DOCUMENTS = 8
DOCUMENTS_OPTIONS = (DOCUMENTS_MASK, DOCUMENTS_BLOCKS)


@dataclass(frozen=True)
class Cell:
    """One problem. For multi-head, head_dim * heads is embed_dim and queries attend to
    themselves."""

    group: str
    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    head_dim: int
    value_dim: int
    option: str = FULL
    window_left: int = -1
    window_right: int = -1
    only_ours: bool = False
    dtype: str = FLOAT32

    @property
    def name(self) -> str:
        """What a row of the table is called; unique."""
        text = f"{self.group} {self.sizes}"
        if self.dtype != FLOAT32:
            text += f" {self.dtype}"
        return text if self.option == FULL else f"{text} {self.option}"

    @property
    def sizes(self) -> str:
        """The sizes as the page writes them; what is equal is written once."""
        if self.is_multihead:
            return f"{self.batch},{self.queries},{self.embed_dim},{self.heads}"
        heads = str(self.heads) if self.heads == self.kv_heads else f"{self.heads}/{self.kv_heads}"
        length = str(self.queries) if self.queries == self.keys else f"{self.queries}x{self.keys}"
        width = (
            str(self.head_dim)
            if self.head_dim == self.value_dim
            else f"{self.head_dim}/{self.value_dim}"
        )
        return f"{self.batch},{heads},{length},{width}"

    @property
    def embed_dim(self) -> int:
        return self.heads * self.head_dim

    @property
    def is_multihead(self) -> bool:
        return self.group in (MULTIHEAD, NARROW_MULTIHEAD)

    @property
    def is_backward(self) -> bool:
        """The gradients of query, key and value, the forward pass aside."""
        return self.group in (BACKWARD, NARROW_BACKWARD)

    @property
    def is_decode(self) -> bool:
        return self.group in (DECODE, CACHES, NARROW_DECODE)

    @property
    def element_bytes(self) -> int:
        return ELEMENT_BYTES[self.dtype]

    @property
    def query_lengths(self) -> tuple[int, ...]:
        """Queries of each batch item, in an order that is neither rising nor falling."""
        if self.option != RAGGED:
            return (self.queries,) * self.batch
        shortest = max(1, self.queries // 25)
        steps = [item * 7 % self.batch for item in range(self.batch)]
        return tuple(
            shortest + (self.queries - shortest) * step // (self.batch - 1) for step in steps
        )

    @property
    def key_lengths(self) -> tuple[int, ...]:
        """Keys of each batch item: three quarters on average where lengths are the option."""
        if self.option == RAGGED:
            return self.query_lengths
        if self.option != LENGTHS:
            return (self.keys,) * self.batch
        if self.batch == 1:
            return (self.keys * 3 // 4,)
        return tuple(self.keys if item % 2 == 0 else self.keys // 2 for item in range(self.batch))

    def document_of(self, row: int) -> tuple[int, int]:
        """The first key that query `row` sees, and the one past the last, where documents are the
        option: those of the document that it stands in."""
        document = row * DOCUMENTS // self.queries
        return (
            -(-document * self.keys // DOCUMENTS),
            -(-(document + 1) * self.keys // DOCUMENTS),
        )

    @property
    def hidden_by_mask(self) -> int:
        """Positions of the (queries, keys) bool mask that are hidden: exactly a tenth, so that
        work can be counted."""
        return self.queries * self.keys // 10 if self.option == BOOL_MASK else 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(fields: dict[str, Any]) -> Cell:
    return Cell(**fields)


def _sdpa(
    group: str,
    batch: int,
    heads: int,
    length: int,
    dim: int,
    option: str = FULL,
    **changes: Any,
) -> Cell:
    fields: dict[str, Any] = {
        "kv_heads": heads,
        "queries": length,
        "keys": length,
        "head_dim": dim,
        "value_dim": dim,
    }
    return Cell(group, batch, heads, option=option, **(fields | changes))


def _multihead(batch: int, length: int, embed_dim: int, heads: int, option: str) -> Cell:
    return _sdpa(MULTIHEAD, batch, heads, length, embed_dim // heads, option)


def _narrow(dtype: str) -> tuple[Cell, ...]:
    """What people store in 16 bits: a prompt, a token after it, and a layer."""
    return (
        _sdpa(NARROW_PREFILL, 1, 12, 512, 64, dtype=dtype),
        _sdpa(NARROW_PREFILL, 1, 12, 2048, 64, CAUSAL, dtype=dtype),
        _sdpa(NARROW_PREFILL, 1, 4, 4096, 128, dtype=dtype),
        _sdpa(NARROW_PREFILL, 1, 32, 1024, 128, CAUSAL, kv_heads=8, dtype=dtype),
        _sdpa(NARROW_DECODE, 1, 32, 1, 128, keys=4096, dtype=dtype),
        _sdpa(NARROW_DECODE, 1, 32, 1, 128, keys=16384, kv_heads=8, dtype=dtype),
        _sdpa(NARROW_DECODE, 1, 32, 4, 128, keys=4096, dtype=dtype),
        _sdpa(NARROW_MULTIHEAD, 1, 12, 512, 64, dtype=dtype),
        _sdpa(NARROW_MULTIHEAD, 1, 12, 1, 64, dtype=dtype),
        _sdpa(NARROW_BACKWARD, 1, 12, 512, 64, dtype=dtype),
    )


PREFILL_SHAPES = (
    # batch, heads, length, head_dim
    (1, 12, 128, 64),
    (1, 12, 512, 64),
    (1, 12, 2048, 64),
    (1, 8, 1024, 128),
    (1, 4, 4096, 128),
    (8, 12, 128, 32),
    (2, 16, 577, 80),
    (1, 4, 1024, 256),
)

STRUCTURED_SHAPES = (
    # batch, heads, length, head_dim
    (1, 12, 1024, 64),
    (1, 4, 4096, 128),
)

MULTIHEAD_SHAPES = (
    # batch, length, embed_dim, heads
    (32, 9, 8, 4),
    (8, 128, 384, 12),
    (1, 512, 768, 12),
    (1, 2048, 768, 12),
    (1, 1, 768, 12),
)

BACKWARD_SHAPES = (
    # (batch, heads, length, head_dim), option
    ((1, 12, 512, 64), FULL),
    ((1, 12, 2048, 64), FULL),
    ((1, 12, 2048, 64), CAUSAL),
    ((1, 8, 1024, 128), FULL),
    ((1, 1, 2048, 64), FULL),
)

GRID: tuple[Cell, ...] = (
    *(_sdpa(PREFILL, *shape, option=option) for shape in PREFILL_SHAPES for option in MASK_OPTIONS),
    *(
        _sdpa(STRUCTURED, *shape, option=option)
        for shape in STRUCTURED_SHAPES
        for option in (CAUSAL, CAUSAL_MASK, *DOCUMENTS_OPTIONS)
    ),
    # Nothing hidden tells what masks by blocks save.
    *(_sdpa(STRUCTURED, *shape, only_ours=True) for shape in STRUCTURED_SHAPES),
    _sdpa("grouped queries", 1, 32, 1024, 128, CAUSAL, kv_heads=8),
    _sdpa("cross", 1, 12, 64, 64, keys=4096),
    # The full square tells what the window saves; it would take the peers seconds a call.
    _sdpa("window", 1, 4, 8192, 64, only_ours=True),
    _sdpa("window", 1, 4, 8192, 64, WINDOW, window_left=256, window_right=0),
    _sdpa("value width", 1, 8, 1024, 64, value_dim=128),
    _sdpa(DECODE, 1, 32, 1, 128, keys=2048),
    _sdpa(DECODE, 1, 32, 1, 128, keys=2048, kv_heads=8),
    _sdpa(DECODE, 1, 32, 1, 128, keys=16384),
    _sdpa(DECODE, 1, 32, 1, 128, keys=16384, kv_heads=8),
    _sdpa(DECODE, 1, 32, 4, 128, keys=4096),
    *(
        _sdpa(CACHES, 1, 32, 1, 128, option, keys=keys, kv_heads=kv_heads)
        for keys, kv_heads in ((4096, 32), (16384, 8))
        for option in (FULL, PAGES, *INTEGERS)
    ),
    # A server's prompts, and the short texts of an embedding.
    _sdpa(BATCHES, 16, 32, 500, 128, RAGGED, kv_heads=8),
    _sdpa(BATCHES, 64, 12, 40, 64, RAGGED),
    *(
        _multihead(*shape, option=option)
        for shape in MULTIHEAD_SHAPES
        for option in (FULL, AVERAGED_WEIGHTS)
    ),
    *(_sdpa(BACKWARD, *shape, option=option) for shape, option in BACKWARD_SHAPES),
    *_narrow(BFLOAT16),
    *_narrow(FLOAT16),
)

QUICK = re.compile(
    r"prefill 1,12,512,64|decode 1,32(/8)?,1x2048,128|value width"
    r"|multi-head (32,9,8,4|8,128,384,12)$"
)


def select(pattern: str | None, quick: bool) -> list[Cell]:
    """The cells of a run, in the table's order. The pattern may match anywhere in a name."""
    chosen = [cell for cell in GRID if not quick or QUICK.search(cell.name)]
    if pattern is None:
        return chosen
    return [cell for cell in chosen if re.search(pattern, cell.name)]
