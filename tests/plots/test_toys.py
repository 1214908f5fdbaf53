"""The small pictures: every number that they are given is drawn."""

import numpy as np
import pytest

from factories import texts
from wsfcn_lib.plots.toys import claims, refined


def test_a_line_for_each_number_of_iterations():
    steps = {0: np.array([0.0, 0.5, 1.0]), 3: np.array([0.2, 0.4, 0.6])}
    figure = refined(np.array([0.2, 0.2, 0.8]), steps)
    (axis,) = figure.axes
    assert [line.get_ydata().tolist() for line in axis.lines] == [[0.0, 0.5, 1.0], [0.2, 0.4, 0.6]]
    assert {"before", "after 3"} <= set(texts(figure)) and len(axis.images) == 1


def test_bars_above_their_cut_are_filled_and_the_labels_stand_below():
    figure = claims([0.9, 0.7, 0.1], [0.1, 0.5, 0.8], (0.6, 0.45), ["background", "none", "cat"])
    (axis,) = figure.axes
    filled = {round(bar.get_height(), 1): bar.get_facecolor()[:3] != (1, 1, 1) for bar in axis.patches}
    assert filled == {0.9: True, 0.7: True, 0.1: False, 0.5: True, 0.8: True}
    assert {"pixel 2\nnone", "cut 0.60", "cut 0.45", "cat, above its cut"} <= set(texts(figure))
    assert [line.get_ydata()[0] for line in axis.lines] == pytest.approx([0.6, 0.45])
