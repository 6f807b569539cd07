# SPDX-License-Identifier: BSD-3-Clause
"""The grid is a table that people and JSON refer to by name."""

import unittest

from peers import cells


class Grid(unittest.TestCase):
    def test_names_are_unique(self) -> None:
        names = [cell.name for cell in cells.GRID]
        self.assertEqual(len(names), len(set(names)))

    def test_groups_are_known_to_the_page(self) -> None:
        self.assertEqual({cell.group for cell in cells.GRID}, set(cells.GROUPS))

    def test_json_round_trip_keeps_every_field(self) -> None:
        for cell in cells.GRID:
            self.assertEqual(cells.from_json(cell.to_json()), cell)

    def test_every_prefill_shape_meets_every_mask_option(self) -> None:
        prefill = [cell for cell in cells.GRID if cell.group == cells.PREFILL]
        self.assertEqual(len(prefill), len(cells.PREFILL_SHAPES) * len(cells.MASK_OPTIONS))

    def test_16_bits_have_groups_of_their_own(self) -> None:
        for cell in cells.GRID:
            is_narrow = cell.dtype != cells.FLOAT32
            self.assertEqual(is_narrow, cell.group.endswith("in 16 bits"), cell.name)
            self.assertEqual(is_narrow, cell.dtype in cell.name)

    def test_query_heads_are_a_multiple_of_key_heads(self) -> None:
        for cell in cells.GRID:
            self.assertEqual(cell.heads % cell.kv_heads, 0, cell.name)

    def test_key_lengths_are_three_quarters_on_average(self) -> None:
        for cell in cells.GRID:
            if cell.option == cells.LENGTHS:
                self.assertAlmostEqual(
                    sum(cell.key_lengths) / (cell.batch * cell.keys), 0.75, delta=0.01
                )


    def test_ragged_lengths_are_all_there_is_between_short_and_long(self) -> None:
        for cell in cells.GRID:
            if cell.option == cells.RAGGED:
                lengths = cell.query_lengths
                self.assertEqual(len(lengths), cell.batch)
                self.assertEqual(max(lengths), cell.queries)
                self.assertEqual(min(lengths), cell.queries // 25)
                self.assertNotEqual(sorted(lengths), list(lengths))
                self.assertEqual(cell.key_lengths, lengths)


class Selection(unittest.TestCase):
    def test_quick_is_a_part_of_the_grid_with_prefill_decode_and_multihead(self) -> None:
        chosen = cells.select(None, quick=True)
        self.assertLess(len(chosen), len(cells.GRID) // 3)
        self.assertLessEqual(
            {cells.PREFILL, cells.DECODE, cells.MULTIHEAD}, {cell.group for cell in chosen}
        )

    def test_pattern_matches_anywhere_in_a_name(self) -> None:
        chosen = cells.select("577,80 causal$", quick=False)
        self.assertEqual([cell.name for cell in chosen], ["prefill 2,16,577,80 causal"])

    def test_pattern_that_matches_nothing_selects_nothing(self) -> None:
        self.assertEqual(cells.select("no such cell", quick=False), [])


if __name__ == "__main__":
    unittest.main()
