"""The shell draws the newest state, shows what goes wrong, and its bytes are the picture's pixels."""

import io
import threading

import ipywidgets as widgets
import numpy as np
import pytest
from PIL import Image

from explored import decoded
from wsfcn_lib.explore import draw
from wsfcn_lib.explore.page import PICTURE
from wsfcn_lib.explore.shell import Explorer


class Shade(Explorer):
    """A grey as light as the number x; keeps the states it was asked to draw."""

    def __init__(self, **controls):
        self.drawn = []
        super().__init__(controls, ["x"], ["z"], kept="fixed")

    def render(self, state):
        self.drawn.append(state["x"])
        if state["x"] == 13:
            raise ValueError("13 is refused; choose another number")
        return np.full((20, 30, 3), state["x"], np.uint8)

    def describe(self, state):
        return f"x < {state['x']} & y"


@pytest.fixture
def explorer():
    return Shade(x=widgets.IntSlider(1, 0, 200), z=widgets.IntSlider(1, 0, 200))


def test_a_control_redraws_and_the_bytes_are_the_picture(explorer):
    explorer.controls["x"].value = 77
    assert (explorer.picture == 77).all() and (decoded(explorer) == explorer.render(explorer.state)).all()
    assert explorer.note.value == "x &lt; 77 &amp; y" and explorer.state == {"kept": "fixed", "x": 77, "z": 1}


def test_an_error_is_shown_as_text_and_goes_away(explorer):
    explorer.set(x=13)
    assert isinstance(explorer.error, ValueError) and "13 is refused" in explorer.note.value
    assert (decoded(explorer) == draw.message("ValueError: nothing could be drawn")).all()
    explorer.set(x=14)
    assert explorer.error is None and (explorer.picture == 14).all()


def test_unknown_parts_of_the_state_are_refused(explorer):
    with pytest.raises(KeyError, match=r"no part of the state is called \['y'\]; choose from kept, x, z"):
        explorer.set(y=1)


def test_several_changes_are_drawn_once(explorer):
    explorer.set(x=3, z=4, kept="other")
    assert explorer.drawn == [1, 3] and explorer.state == {"kept": "other", "x": 3, "z": 4}


def test_the_newest_state_wins_and_nothing_piles_up(explorer, monkeypatch):
    began, go, render = threading.Event(), threading.Event(), explorer.render

    def slow(state):
        began.set()
        assert go.wait(10)
        return render(state)

    monkeypatch.setattr(explorer, "render", slow)
    dragging = threading.Thread(target=explorer.set, kwargs={"x": 2})
    dragging.start()
    assert began.wait(10)
    for value in (3, 4, 5):
        explorer.set(x=value)  # returns at once: another thread is drawing
    go.set()
    dragging.join(10)
    assert explorer.drawn == [1, 2, 5] and (explorer.picture == 5).all()


def test_what_is_behind_the_fold_comes_out_at_its_button(explorer):
    box = explorer.controls["z"]
    fold = next(part for part in walk(explorer.widget) if box in getattr(part, "children", ()))
    assert fold.layout.display == "none" and "more" in explorer.more.description
    explorer.more.value = True
    assert fold.layout.display is None and "less" in explorer.more.description


def walk(widget):
    """A widget and all within it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


def test_a_click_reaches_the_part_that_was_clicked(explorer, monkeypatch):
    clicks = []
    explorer.page.clicked = {PICTURE: lambda x, y: clicks.append((x, y))}
    explorer.page._received(explorer.page, {"part": PICTURE, "x": 3, "y": 4}, [])
    explorer.page._received(explorer.page, {"part": "another", "x": 1, "y": 2}, [])
    assert clicks == [(3, 4)]


def test_the_still_holds_picture_words_and_charts(explorer, monkeypatch):
    monkeypatch.setattr(explorer, "render_charts", lambda state: np.full((50, 40, 3), 9, np.uint8))
    explorer.refresh()
    still = np.asarray(Image.open(io.BytesIO(explorer.png)))
    assert (still[:20, :30] == 1).all() and (still[:50, 30:70] == 9).all() and still.shape[0] > 20
