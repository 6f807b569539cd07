# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

import libattention


def test_a_panel_for_each_head(tmp_path, rng):
    weights = rng.random((6, 3, 4))
    figure = libattention.plot_heatmap(weights, ["a", "b", "c"], ["w", "x", "y", "z"])
    titles = [axes.get_title() for axes in figure.axes]
    assert [title for title in titles if title] == [f"head {head}" for head in range(6)]
    first = figure.axes[0]
    np.testing.assert_array_equal(first.images[0].get_array(), weights[0])
    assert [label.get_text() for label in first.get_xticklabels()] == ["w", "x", "y", "z"]
    figure.savefig(tmp_path / "heads.png")
    assert (tmp_path / "heads.png").stat().st_size > 5000


def test_one_matrix():
    figure = libattention.plot_heatmap(np.eye(3))
    assert len(figure.axes) == 2  # and the colour bar


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.zeros(3),), "weights: expected shape"),
        ((np.zeros((3, 4)), ["a"]), "query_tokens: expected 3 labels, got 1"),
        ((np.zeros((3, 4)), None, ["a"]), "key_tokens: expected 4 labels, got 1"),
        (([[1.0]],), "weights: expected a NumPy array"),
    ],
)
def test_refusals(arguments, text):
    with pytest.raises(libattention.Error) as caught:
        libattention.plot_heatmap(*arguments)
    assert str(caught.value).startswith(text)
