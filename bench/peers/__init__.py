# SPDX-License-Identifier: BSD-3-Clause
"""Measures libattention beside the peers people would use instead, all in one run.

The way of a run, and the files of each step:

    cells.py                what is measured: a data table
    work.py                 what a cell costs: visible pairs, flops, bytes
    measurement.py          a run: every cell, at every thread count
    race.py                 the turns of one cell, and whether all contestants agree
    crew.py, worker.py      one process per contestant and thread count, and the pipe between
    contestants/            how each contestant computes a cell
    limits.py               what the machine could do at that moment
    results.py, summary.py  the JSON, and what follows from it
    report.py, plot.py      the JSON as a page and as a picture

cells, work, tally, results, summary and report use nothing but the standard library, so that the
page can be made and tested anywhere.
"""
