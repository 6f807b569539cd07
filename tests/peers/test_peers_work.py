# SPDX-License-Identifier: BSD-3-Clause
"""Counts of work against loops that visit every pair and every product."""

import itertools
import unittest
from dataclasses import replace

from peers import work
from peers.cells import (
    ADDITIVE_MASK,
    BFLOAT16,
    BOOL_MASK,
    CACHES,
    CAUSAL,
    CAUSAL_MASK,
    DECODE,
    DOCUMENTS,
    DOCUMENTS_BLOCKS,
    DOCUMENTS_MASK,
    DOCUMENTS_OPTIONS,
    FLOAT16,
    FULL,
    INT8,
    LENGTHS,
    MULTIHEAD,
    NARROW_DECODE,
    PAGES,
    PREFILL,
    RAGGED,
    WINDOW,
    Cell,
)

SHAPES = ((1, 5, 5), (2, 7, 4), (3, 3, 8), (2, 1, 6), (1, 30, 17))
OPTIONS = (FULL, CAUSAL, LENGTHS, ADDITIVE_MASK, CAUSAL_MASK, *DOCUMENTS_OPTIONS)
RAGGED_SHAPES = ((2, 60, 60), (5, 30, 30), (3, 4, 4))


def sdpa(batch: int, queries: int, keys: int, option: str, **changes: object) -> Cell:
    fields = {"heads": 6, "kv_heads": 3, "head_dim": 4, "value_dim": 10} | changes
    return Cell(PREFILL, batch=batch, queries=queries, keys=keys, option=option, **fields)


def sees(cell: Cell, row: int, column: int, length: int) -> bool:
    """The definition, for one pair."""
    if column >= length or (cell.option in (CAUSAL, CAUSAL_MASK) and column > row):
        return False
    if cell.option in DOCUMENTS_OPTIONS:
        return row * DOCUMENTS // cell.queries == column * DOCUMENTS // cell.keys
    if cell.window_left >= 0 and column < row - cell.window_left:
        return False
    return not (cell.window_right >= 0 and column > row + cell.window_right)


def counted_pairs(cell: Cell) -> int:
    found = [
        sees(cell, row, column, length)
        for rows, length in zip(cell.query_lengths, cell.key_lengths, strict=True)
        for row, column in itertools.product(range(rows), range(cell.keys))
    ]
    return sum(found)


def counted_product_flops(rows: int, inner: int, columns: int) -> int:
    return sum(2 for _ in range(rows) for _ in range(columns) for _ in range(inner))


class VisiblePairs(unittest.TestCase):
    def test_options_equal_brute_force(self) -> None:
        for shape, option in itertools.product(SHAPES, OPTIONS):
            cell = sdpa(*shape, option)
            with self.subTest(cell.name):
                self.assertEqual(work.visible_pairs(cell), counted_pairs(cell))

    def test_windows_equal_brute_force(self) -> None:
        for shape, left, right in itertools.product(SHAPES, (-1, 0, 2, 50), (-1, 0, 1, 50)):
            cell = sdpa(*shape, WINDOW, window_left=left, window_right=right)
            with self.subTest(cell.name, left=left, right=right):
                self.assertEqual(work.visible_pairs(cell), counted_pairs(cell))

    def test_ragged_sequences_see_themselves(self) -> None:
        for shape in RAGGED_SHAPES:
            cell = sdpa(*shape, RAGGED)
            with self.subTest(cell.name):
                self.assertEqual(work.visible_pairs(cell), counted_pairs(cell))
                self.assertEqual(work.visible_pairs(cell), sum(n * n for n in cell.query_lengths))

    def test_bool_mask_hides_a_tenth(self) -> None:
        cell = sdpa(2, 20, 30, BOOL_MASK)
        self.assertEqual(work.visible_pairs(cell), 2 * 540)


class Flops(unittest.TestCase):
    def test_sdpa_counts_both_products_of_every_query_head(self) -> None:
        cell = sdpa(2, 3, 4, FULL)
        one_head = counted_product_flops(3, 4, 4) + counted_product_flops(3, 4, 10)
        self.assertEqual(work.flops(cell), 2 * 6 * one_head)

    def test_multihead_counts_four_projections(self) -> None:
        cell = Cell(MULTIHEAD, 2, 3, 3, 5, 5, 4, 4)
        projections = 4 * counted_product_flops(2 * 5, 12, 12)
        attention = 2 * 3 * 2 * counted_product_flops(5, 4, 5)
        self.assertEqual(work.flops(cell), projections + attention)


class Bytes(unittest.TestCase):
    def test_decode_reads_each_key_and_value_head_once(self) -> None:
        cell = Cell(DECODE, 2, 8, 2, 1, 100, 16, 24)
        self.assertEqual(work.key_value_bytes(cell), 2 * 2 * 100 * (16 + 24) * 4)

    def test_16_bits_are_half_the_bytes_and_as_much_work(self) -> None:
        wide = Cell(NARROW_DECODE, 2, 8, 2, 1, 100, 16, 24)
        for dtype in (BFLOAT16, FLOAT16):
            narrow = replace(wide, dtype=dtype)
            self.assertEqual(2 * work.key_value_bytes(narrow), work.key_value_bytes(wide))
            self.assertEqual(work.flops(narrow), work.flops(wide))
            self.assertTrue(work.is_bound_by_memory(narrow))

    def test_int8_is_a_byte_an_element_and_a_scale_a_row(self) -> None:
        plain = Cell(CACHES, 2, 8, 2, 1, 100, 16, 24)
        rows = 2 * 2 * 100
        integers = replace(plain, option=INT8)
        self.assertEqual(work.key_value_bytes(integers), rows * (16 + 4) + rows * (24 + 4))
        self.assertEqual(work.flops(integers), work.flops(plain))
        pages = replace(plain, option=PAGES)
        self.assertEqual(work.key_value_bytes(pages), work.key_value_bytes(plain))
        self.assertTrue(work.is_bound_by_memory(integers))

    def test_memory_is_the_limit_of_decode_only(self) -> None:
        self.assertTrue(work.is_bound_by_memory(Cell(DECODE, 1, 1, 1, 1, 8, 4, 4)))
        self.assertFalse(work.is_bound_by_memory(sdpa(1, 4, 4, FULL)))


class ComputeBound(unittest.TestCase):
    def test_exponential_costs_one_cycle(self) -> None:
        cell = sdpa(1, 4, 4, FULL, heads=1, kv_heads=1, head_dim=8, value_dim=8)
        cycles_per_second = 2e9
        for flops_per_cycle in (64, 32, 8):
            peak = cycles_per_second * flops_per_cycle
            seconds = work.compute_bound_seconds(cell, peak, flops_per_cycle)
            expected = (16 * 32 / flops_per_cycle + 16) / cycles_per_second
            self.assertAlmostEqual(seconds / expected, 1.0)



if __name__ == "__main__":
    unittest.main()
