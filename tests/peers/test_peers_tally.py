# SPDX-License-Identifier: BSD-3-Clause
"""Statistics: what a slow spell of the machine may and may not change."""

import unittest

from peers import tally


class Ratios(unittest.TestCase):
    def test_spell_over_a_whole_repetition_changes_nothing(self) -> None:
        self.assertEqual(tally.median_ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]), 2.0)

    def test_spell_over_one_contestants_turn_is_outvoted(self) -> None:
        self.assertEqual(tally.median_ratio([2.0, 2.0, 2.0], [1.0, 9.0, 1.0]), 2.0)

    def test_median_of_ratios_is_not_ratio_of_medians(self) -> None:
        self.assertEqual(tally.median_ratio([1.0, 4.0, 9.0], [1.0, 2.0, 1.0]), 2.0)

    def test_different_repetitions_are_refused(self) -> None:
        with self.assertRaises(ValueError):
            tally.ratios([1.0, 2.0], [1.0])


class GeometricMean(unittest.TestCase):
    def test_ratio_and_its_inverse_cancel(self) -> None:
        self.assertAlmostEqual(tally.geometric_mean([4.0, 0.25]), 1.0)

    def test_nothing_has_no_mean(self) -> None:
        self.assertIsNone(tally.geometric_mean([]))


class Counts(unittest.TestCase):
    def test_calls_cover_the_least_timing_of_the_fastest(self) -> None:
        self.assertEqual(tally.calls_per_timing([30e-6, 1.0], 200e-6, 1000), 7)

    def test_calls_stay_within_bounds(self) -> None:
        self.assertEqual(tally.calls_per_timing([1.0], 200e-6, 1000), 1)
        self.assertEqual(tally.calls_per_timing([1e-9], 200e-6, 1000), 1000)

    def test_repetitions_fill_the_budget_within_bounds(self) -> None:
        self.assertEqual(tally.repetitions(0.1, 1.05, 3, 15), 10)
        self.assertEqual(tally.repetitions(5.0, 1.0, 3, 15), 3)
        self.assertEqual(tally.repetitions(1e-3, 1.0, 3, 15), 15)


if __name__ == "__main__":
    unittest.main()
