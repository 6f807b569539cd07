# SPDX-License-Identifier: BSD-3-Clause
"""Exact results: of cells small enough to be computed plainly, and of results that are wrong."""

import sys
import unittest
from dataclasses import replace

try:
    import numpy as np
except ImportError:
    print("not run: NumPy is not installed")
    sys.exit(0)

from peers import exact, inputs
from peers.cells import (
    ADDITIVE_MASK,
    AVERAGED_WEIGHTS,
    BACKWARD,
    BFLOAT16,
    BOOL_MASK,
    CAUSAL,
    FULL,
    INT8,
    LENGTHS,
    MULTIHEAD,
    PREFILL,
    RAGGED,
    WINDOW,
    Cell,
)

SMALL = Cell(PREFILL, 2, 6, 3, 20, 20, 8, 4)


def _wide(array: np.ndarray) -> np.ndarray:
    return array if array.dtype == np.float64 else inputs.widened(array).astype(np.float64)


def plain(cell: Cell, made: inputs.Inputs) -> np.ndarray:
    """Row by row and key by key, by the formula."""
    query, key, value = (_wide(one) for one in (made.query, made.key, made.value))
    output = np.zeros((*query.shape[:-1], cell.value_dim))
    for batch, head, row in np.ndindex(query.shape[:-1]):
        kv_head = head // (cell.heads // cell.kv_heads)
        terms = []
        for column in range(cell.key_lengths[batch]):
            score = query[batch, head, row] @ key[batch, kv_head, column] / np.sqrt(cell.head_dim)
            if cell.option == ADDITIVE_MASK:
                score += made.mask[row, column]
            is_hidden = (
                (cell.option == CAUSAL and column > row)
                or (cell.option == BOOL_MASK and not made.mask[row, column])
                or (cell.option == WINDOW and not -3 <= column - row <= 0)
            )
            if not is_hidden:
                terms.append((np.exp(score), value[batch, kv_head, column]))
        total = sum(weight for weight, _ in terms)
        output[batch, head, row] = sum(weight * one for weight, one in terms) / total
    return output


class Forward(unittest.TestCase):
    def test_every_option_is_the_formula(self) -> None:
        cells = [replace(SMALL, option=one) for one in (FULL, CAUSAL, LENGTHS, BOOL_MASK)]
        cells += [
            replace(SMALL, option=ADDITIVE_MASK),
            replace(SMALL, option=WINDOW, window_left=3, window_right=0),
            replace(SMALL, option=INT8),
            replace(SMALL, dtype=BFLOAT16),
        ]
        for cell in cells:
            with self.subTest(cell.name):
                made = inputs.make(cell)
                self.assertLess(exact.error(cell, made, [plain(cell, made)]), 1e-14)

    def test_sequences_behind_one_another_are_each_its_own(self) -> None:
        cell = replace(SMALL, batch=3, queries=25, keys=25, option=RAGGED)
        made = inputs.make(cell)
        starts = inputs.starts_of(cell)
        found = np.zeros((cell.heads, int(starts[-1]), cell.value_dim))
        for begin, end in zip(starts[:-1], starts[1:], strict=True):
            length = int(end - begin)
            one = replace(SMALL, batch=1, queries=length, keys=length)
            part = inputs.Inputs(
                *(array[None, :, begin:end] for array in (made.query, made.key, made.value))
            )
            found[:, begin:end] = plain(one, part)[0]
        self.assertLess(exact.error(cell, made, [found]), 1e-14)

    def test_errors_are_found(self) -> None:
        made = inputs.make(SMALL)
        right = plain(SMALL, made)
        largest = np.abs(right).max()
        wrong = right.copy()
        wrong[1, 5, 19, 3] += 0.01 * largest
        self.assertAlmostEqual(exact.error(SMALL, made, [wrong]), 0.01, delta=0.002)
        wrong[0, 0, 0, 0] = np.nan
        self.assertTrue(np.isnan(exact.error(SMALL, made, [wrong])))
        self.assertEqual(exact.error(SMALL, made, [right[:1]]), np.inf)


class Backward(unittest.TestCase):
    def test_gradients_are_differences_of_the_formula(self) -> None:
        cell = Cell(BACKWARD, 1, 1, 1, 6, 6, 4, 4, CAUSAL)
        made = inputs.make(cell)
        step = 1e-6
        found = []
        for name in ("query", "key", "value"):
            values = getattr(made, name).astype(np.float64)
            gradient = np.zeros(values.shape)
            for place in np.ndindex(values.shape):
                sums = []
                for sign in (1, -1):
                    moved = values.copy()
                    moved[place] += sign * step
                    output = plain(cell, replace(made, **{name: moved}))
                    sums.append((output * made.gradient).sum())
                gradient[place] = (sums[0] - sums[1]) / (2 * step)
            found.append(gradient)
        self.assertLess(exact.error(cell, made, found), 1e-7)


class Layers(unittest.TestCase):
    def test_weights_of_a_layer_sum_to_one(self) -> None:
        cell = Cell(MULTIHEAD, 2, 2, 2, 5, 5, 4, 4, AVERAGED_WEIGHTS)
        made = inputs.make(cell)
        parts = list(exact._parts(cell, made))
        found = [np.zeros((2, 5, 8)), np.zeros((2, 5, 5))]
        for part in parts:
            found[part.output][part.place] = part.values
        np.testing.assert_allclose(found[1].sum(axis=-1), 1)
        self.assertEqual(exact.error(cell, made, found), 0)


if __name__ == "__main__":
    unittest.main()
