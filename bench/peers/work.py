# SPDX-License-Identifier: BSD-3-Clause
"""What a cell costs at least. Only work that the result depends on counts, so hidden positions
are nobody's merit."""

from peers.cells import CAUSAL, CAUSAL_MASK, DOCUMENTS_OPTIONS, INT8, INT8_TENSOR, Cell


def visible_keys(cell: Cell, row: int, length: int) -> int:
    """Keys that query `row` sees of the first `length`, but for a random bool mask."""
    end = length
    begin = 0
    if cell.option in (CAUSAL, CAUSAL_MASK):
        end = min(end, row + 1)
    if cell.option in DOCUMENTS_OPTIONS:
        begin, past = cell.document_of(row)
        end = min(end, past)
    if cell.window_right >= 0:
        end = min(end, row + cell.window_right + 1)
    if cell.window_left >= 0:
        begin = max(begin, row - cell.window_left)
    return max(0, end - begin)


def visible_pairs(cell: Cell) -> int:
    """Pairs of a query and a key it sees, of one head over the whole batch."""
    return sum(
        sum(visible_keys(cell, row, length) for row in range(rows)) - cell.hidden_by_mask
        for rows, length in zip(cell.query_lengths, cell.key_lengths, strict=True)
    )


def scores(cell: Cell) -> int:
    """Exponentials that have to be computed."""
    return visible_pairs(cell) * cell.heads


def projection_flops(cell: Cell) -> int:
    """Query, key, value and output projection of self-attention, biases aside."""
    return 4 * 2 * cell.batch * cell.queries * cell.embed_dim**2 if cell.is_multihead else 0


def flops(cell: Cell) -> int:
    """Multiplications and additions of both products, and of the projections; backward, of the five
    products: scores, and the gradients of weights, values, queries and keys."""
    products = scores(cell) * 2
    if cell.is_backward:
        return products * (3 * cell.head_dim + 2 * cell.value_dim)
    return products * (cell.head_dim + cell.value_dim) + projection_flops(cell)


def key_value_bytes(cell: Cell) -> int:
    """Keys and values read once: what decoding cannot do without. Of int8 with both scales of each
    row, where rows have scales of their own."""
    rows = sum(cell.key_lengths) * cell.kv_heads
    elements = rows * (cell.head_dim + cell.value_dim)
    if cell.option == INT8_TENSOR:
        return elements
    return elements + rows * 2 * 4 if cell.option == INT8 else elements * cell.element_bytes


def is_bound_by_memory(cell: Cell) -> bool:
    """Whether the cell's limit is the read bandwidth, not the arithmetic."""
    return cell.is_decode


def compute_bound_seconds(cell: Cell, peak_flops: float, flops_per_cycle: int) -> float:
    """Time at the FMA peak plus one cycle of one core for each exponential.

    No attention kernel is a pure product: a score costs an exponential too, a cycle of one core
    at best. The peak says how long a cycle is.
    """
    return (flops(cell) + scores(cell) * flops_per_cycle) / peak_flops
