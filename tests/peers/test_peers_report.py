# SPDX-License-Identifier: BSD-3-Clause
"""What the page says of a run whose figures are known."""

import tempfile
import unittest
from pathlib import Path

import results_fixture as fixture
from peers import report, results, summary
from peers.cells import CAUSAL, DOCUMENTS, DOCUMENTS_BLOCKS, STRUCTURED, Cell


def measured() -> results.Results:
    return results.from_data(fixture.run())


class Derived(unittest.TestCase):
    def test_ratio_is_peers_time_over_ours(self) -> None:
        entry = measured().find(fixture.SQUARE, 1)
        self.assertAlmostEqual(entry.speed_ratio("PyTorch"), 2.0)
        self.assertEqual(entry.best_peer()[0], "PyTorch")

    def test_rate_and_limit_count_flops_of_visible_pairs(self) -> None:
        entry = measured().find(fixture.SQUARE, 1)
        self.assertAlmostEqual(entry.rate, fixture.SQUARE_FLOPS / 0.004)
        self.assertAlmostEqual(entry.fraction_of_limit(), fixture.SQUARE_FLOPS / 0.004 / 1e9)

    def test_decode_counts_bytes_and_has_no_compute_bound(self) -> None:
        entry = measured().find(fixture.ONE_QUERY, 1)
        self.assertAlmostEqual(entry.rate, 2 * 1000 * 20 * 4 / 0.001)
        self.assertIsNone(entry.fraction_of_compute_bound())

    def test_absent_peer_has_no_ratio(self) -> None:
        entry = measured().find(fixture.ONE_QUERY, 1)
        self.assertIsNone(entry.speed_ratio("PyTorch"))
        self.assertIsNone(entry.best_peer())

    def test_unknown_schema_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            results.from_data(fixture.run() | {"schema": 99})


class Summary(unittest.TestCase):
    def test_standing_of_one_thread(self) -> None:
        standing = summary.standing(measured(), 1)
        self.assertAlmostEqual(standing.full_prefill, 2.0)
        self.assertAlmostEqual(standing.grid, 1.0)
        self.assertEqual((standing.won, standing.contested), (1, 2))
        self.assertEqual(standing.slowest[0], fixture.TRIANGLE.name)

    def test_cell_with_an_error_counts_nowhere(self) -> None:
        data = fixture.run()
        data["results"][2]["errors"] = ["PyTorch and libattention differ"]
        found = results.from_data(data)
        self.assertEqual(summary.standing(found, 1).contested, 1)
        self.assertIsNone(summary.option_costs(found, 1) or None)

    def test_block_costs_stand_beside_the_share_that_is_seen(self) -> None:
        shape = (STRUCTURED, 1, 2, 2, 80, 80, 10, 10)
        plain = Cell(*shape, only_ours=True)
        blocks = Cell(*shape, DOCUMENTS_BLOCKS)
        data = fixture.document(
            [
                fixture.entry(plain, 1, {"libattention": [0.008] * 3}),
                fixture.entry(blocks, 1, {"libattention": [0.002] * 3}),
            ]
        )
        found = results.from_data(data)
        self.assertEqual(summary.block_costs(found, 1), [(blocks.name, 0.25, 1 / DOCUMENTS)])
        self.assertIn("0.250 of the full square, of which 0.125 is seen", report.render(found))

    def test_option_costs_compare_our_own_times(self) -> None:
        costs = summary.option_costs(measured(), 1)
        self.assertAlmostEqual(costs[0].costs[CAUSAL], 0.75)

    def test_thread_gains_compare_fewest_with_most(self) -> None:
        gains = dict(summary.thread_gains(measured()))
        self.assertAlmostEqual(gains[fixture.SQUARE], 2.0)
        self.assertAlmostEqual(gains[fixture.ONE_QUERY], 1.0)


class Page(unittest.TestCase):
    def test_rows_show_the_figures(self) -> None:
        page = report.render(measured())
        self.assertIn(
            "| 1,2,100,10 | 4 | 0.2 GF/s | 2.00 | 3.00 | – | **2.00** | 20 % | 36 % |", page
        )
        self.assertIn("| 1,4/2,1x1000,10 | 1 | 0.16 GB/s | – | – | – | – | 16 % | – |", page)

    def test_largest_errors_of_all_cells_of_a_group(self) -> None:
        page = report.render(measured())
        self.assertIn("| largest error over largest value | libattention | PyTorch |", page)
        self.assertIn("| prefill, float32 | 2.0e-07 | 3.0e-07 |", page)

    def test_missing_peer_and_failed_cell_are_told(self) -> None:
        page = report.render(measured())
        self.assertIn("OpenVINO: took no part: not installed", page)
        self.assertIn("PyTorch, decode 1,4/2,1x1000,10: failed: no.", page)

    def test_disagreement_is_told_in_row_and_section(self) -> None:
        data = fixture.run()
        data["results"][0]["errors"] = [
            "PyTorch and libattention differ by 1.0e-02 of the largest output"
        ]
        page = report.render(results.from_data(data))
        self.assertIn("| 1,2,100,10 **(outputs differ)** |", page)
        self.assertIn("differ by 1.0e-02", page)

    def test_page_depends_on_the_json_only(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "run.json"
            results.write(fixture.run(), path)
            self.assertEqual(report.render(results.read(path)), report.render(measured()))

    def test_console_shows_every_cell(self) -> None:
        text = report.console(measured())
        for cell in (fixture.SQUARE, fixture.TRIANGLE, fixture.ONE_QUERY):
            self.assertIn(cell.name, text)


class Figures(unittest.TestCase):
    def test_three_digits_without_exponents(self) -> None:
        shown = [
            report.significant(value)
            for value in (0.00001234, 0.1234, 1.234, 1234.0, 123456.0, None)
        ]
        self.assertEqual(shown, ["0.0000123", "0.123", "1.23", "1230", "123000", "–"])


if __name__ == "__main__":
    unittest.main()
