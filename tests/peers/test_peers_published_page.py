# SPDX-License-Identifier: BSD-3-Clause
"""docs/performance.md is what its JSON renders to: nobody edits a figure by hand."""

import unittest
from pathlib import Path

from peers import report, results

DOCS = Path(__file__).resolve().parents[2] / "docs"


class PublishedPage(unittest.TestCase):
    def test_page_equals_its_rendered_json(self) -> None:
        figures = DOCS / "performance.json"
        if not figures.exists():
            self.skipTest("docs/performance.json: nothing was published yet")
        page = (DOCS / "performance.md").read_text(encoding="utf-8")
        self.assertEqual(
            page,
            report.render(results.read(figures)),
            "run scripts/bench --render docs/performance.json",
        )


if __name__ == "__main__":
    unittest.main()
