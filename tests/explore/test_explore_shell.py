"""The shell draws the newest state, shows what goes wrong, and its bytes are the picture's pixels."""

import threading

import ipywidgets as widgets
import numpy as np
import pytest

from explored import decoded
from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.shell import Explorer


def shade(state):
    if state["x"] == 13:
        raise ValueError("13 is refused; choose another number")
    return np.full((20, 30, 3), state["x"], np.uint8)


@pytest.fixture
def explorer():
    return Explorer(
        shade, {"x": widgets.IntSlider(1, 0, 200)}, lambda state: f"x < {state['x']} & y", more="fixed"
    )


def test_a_control_redraws_and_the_bytes_are_the_picture(explorer):
    explorer.controls["x"].value = 77
    assert (explorer.picture == 77).all() and (decoded(explorer) == shade(explorer.state)).all()
    assert explorer.note.value == "x &lt; 77 &amp; y" and explorer.state == {"more": "fixed", "x": 77}


def test_an_error_is_shown_in_words_and_goes_away(explorer):
    explorer.set(x=13)
    assert isinstance(explorer.error, ValueError) and "13 is refused" in explorer.note.value
    assert (decoded(explorer) == draw.message("ValueError: 13 is refused; choose another number")).all()
    explorer.set(x=14)
    assert explorer.error is None and (explorer.picture == 14).all()


def test_unknown_parts_of_the_state_are_refused(explorer):
    with pytest.raises(KeyError, match=r"no part of the state is called \['y'\]; choose from more, x"):
        explorer.set(y=1)


def test_several_changes_are_drawn_once():
    drawn = []
    controls = {key: widgets.IntSlider(0) for key in "ab"}
    explorer = Explorer(lambda state: drawn.append(dict(state)) or np.zeros((2, 2, 3), np.uint8), controls)
    explorer.set(a=3, b=4)
    assert drawn == [{"a": 0, "b": 0}, {"a": 3, "b": 4}]


def test_the_newest_state_wins_and_nothing_piles_up():
    began, go, drawn = threading.Event(), threading.Event(), []

    def slow(state):
        drawn.append(state["x"])
        began.set()
        if state["x"] == 1:
            assert go.wait(10)
        return np.full((2, 2, 3), state["x"], np.uint8)

    explorer = Explorer(slow, {"x": widgets.IntSlider(0)})
    began.clear()
    dragging = threading.Thread(target=explorer.set, kwargs={"x": 1})
    dragging.start()
    assert began.wait(10)
    for value in (2, 3, 4):
        explorer.set(x=value)  # returns at once: another thread is drawing
    go.set()
    dragging.join(10)
    assert drawn == [0, 1, 4] and (explorer.picture == 4).all()


def test_words_are_broken_and_marks_stay_inside():
    assert draw.message("word " * 600).shape[0] > 375 and draw.message("short").shape == (375, 500, 3)
    picture = np.zeros((30, 40, 3), np.uint8)
    for place in ((0, 0), (39, 29), (20, 15)):
        marked = draw.cross(picture, *place)
        assert marked.any() and not marked[place[1], place[0]].any()


def test_blending_reaches_both_ends():
    picture, red = np.full((2, 2, 3), 9, np.uint8), np.array((255, 0, 0))
    assert (draw.blend(picture, red, 0) == 9).all() and (draw.blend(picture, red, 1) == red).all()
    change = np.array([[-1.0, 0], [0, 1]], np.float32)
    found = draw.gains(picture, change, 1)
    assert (
        tuple(found[0, 0]) == draw.ERRORS["missed"][0]
        and tuple(found[1, 1]) == draw.GAINED
        and (found[0, 1] == 9).all()
    )


def test_the_three_errors_differ_without_colour():
    grey, drawn = np.full((18, 18, 3), 128, np.uint8), []
    for _, slant in draw.ERRORS.values():
        drawn.append(draw.stripes(grey, np.ones((18, 18), bool), (200, 200, 200), slant))
    assert not any(
        (a == b).all() for a, b in ((drawn[0], drawn[1]), (drawn[0], drawn[2]), (drawn[1], drawn[2]))
    )


@pytest.mark.parametrize(
    "shape, shrink, size", [((48, 64), False, (375, 500)), ((500, 300), False, (500, 300))]
)
def test_pictures_grow_to_their_ground(shape, shrink, size):
    grow, label = draw.fitted(shape, 375, 500, shrink), np.zeros(shape, np.uint8)
    label[: shape[0] // 2] = 7
    assert (
        grow(label).shape == size
        and set(np.unique(grow(label))) == {0, 7}
        and (grow(label) == 7).mean() == pytest.approx(0.5, abs=0.02)
    )
    assert (
        grow(np.zeros((*shape, 3), np.uint8)).shape == (*size, 3)
        and grow(np.zeros(shape, np.float32)).shape == size
    )


def test_a_bar_is_as_long_as_its_value():
    def ink(value):
        return (charts.bars([value], ["a"], np.array([(255, 0, 0)]), "") == (255, 0, 0)).all(2).sum()

    assert ink(0.5) == pytest.approx(ink(1.0) / 2, rel=0.05) and ink(0.0) == 0
