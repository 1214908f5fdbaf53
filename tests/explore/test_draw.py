"""Marks, colours and charts: what is drawn where, and that it can be told apart."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

from wsfcn_lib.explore import charts, draw


def test_text_is_broken_and_a_cross_leaves_its_place_free():
    assert draw.message("word " * 600).shape[0] > 375 and draw.message("short").shape == (375, 500, 3)
    picture = np.zeros((30, 40, 3), np.uint8)
    for x, y in ((0, 0), (39, 29), (20, 15)):
        marked = draw.cross(picture, x, y)
        assert marked.any() and not marked[y, x].any()


def test_blending_reaches_both_ends():
    picture, red = np.full((2, 2, 3), 9, np.uint8), np.array((255, 0, 0))
    assert (draw.blend(picture, red, 0) == 9).all() and (draw.blend(picture, red, 1) == red).all()
    gains = draw.gains(picture, np.array([[-1.0, 0], [0, 1]], np.float32), 1)
    assert tuple(gains[0, 0]) == draw.LOST and tuple(gains[1, 1]) == draw.GAINED and (gains[0, 1] == 9).all()


def test_the_three_errors_differ_without_colour():
    grey, everywhere = np.full((18, 18, 3), 128, np.uint8), np.ones((18, 18), bool)
    drawn = [draw.stripes(grey, everywhere, (200, 200, 200), slant) for _, slant in draw.ERRORS.values()]
    assert all((a != b).any() for a, b in combinations(drawn, 2))


@pytest.mark.parametrize(
    "shape, shrink, size",
    [((48, 64), False, (375, 500)), ((500, 300), False, (500, 300)), ((500, 300), True, (375, 225))],
)
def test_pictures_grow_to_their_ground(shape, shrink, size):
    resize, label = draw.fitted(shape, 375, 500, shrink), np.zeros(shape, np.uint8)
    label[: shape[0] // 2] = 7
    grown = resize(label)
    assert grown.shape == size and set(np.unique(grown)) == {0, 7}
    assert (grown == 7).mean() == pytest.approx(0.5, abs=0.02)
    assert resize(np.zeros((*shape, 3), np.uint8)).shape == (*size, 3)
    assert resize(np.zeros(shape, np.float32)).shape == size


def test_what_is_missing_is_said_in_its_panel():
    def paint(resize):
        raise draw.Missing("no mask here")

    panel = draw.panel("title", (10, 20), (240, 320), paint)
    assert (panel[-240:] == draw.message("no mask here", 240, 320)).all()


def test_a_bar_is_as_long_as_its_value():
    manifest = SimpleNamespace(names=["a"], shades=np.array([(255, 0, 0)]))

    def red(value, **options):
        return (charts.bars([value], [0], manifest, "", **options) == (255, 0, 0)).all(2).sum()

    assert red(0.5) == pytest.approx(red(1.0) / 2, rel=0.05) and red(0.0) == 0
    assert red(0.5, hollow=[0]) == 0 and 0 < red(0.5, ticks={"a": 0.2}) < red(0.5)


def test_lines_scale_by_what_follows_the_start():
    calm = [("a", "#0072B2", [(0, 1.0), (5, 1.0), (10, 0.5)])]
    high = [("a", "#0072B2", [(0, 90.0), (5, 1.0), (10, 0.5)])]
    assert (charts.lines(calm, "t", 10, 300)[:, 200:] == charts.lines(high, "t", 10, 300)[:, 200:]).all()
    assert charts.lines([("a", "#0072B2", [])], "t", 10, 300).shape == (150, 300, 3)


def test_bars_of_differences_stand_on_their_sides():
    picture = charts.differences([0.5, -0.25], ["up", "down"], "t")
    blue, orange = ((picture == colour).all(2).any(0) for colour in (draw.GAINED, draw.LOST))
    assert np.flatnonzero(blue).min() >= 165 and np.flatnonzero(orange).max() <= 167
    assert blue.sum() == pytest.approx(2 * orange.sum(), abs=3)
