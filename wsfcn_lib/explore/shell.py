"""The shell of an explorer: controls make a state, a pure function draws it, a page shows the drawing.

`widgets.Output` and `interact` stall runs without a browser, so a picture is an `Image`, whose bytes are replaced.
"""

import html
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import ipywidgets as widgets
import numpy as np
from PIL import Image

from wsfcn_lib.explore.draw import message

Render = Callable[[dict], np.ndarray]


def encode(picture: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 as PNG, whose pixels decode to exactly these; little compression, for speed."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "png", compress_level=1)
    return stream.getvalue()


def respond_at_once(widget: widgets.Widget) -> None:
    """Let a widget and its parts answer while a cell is busy: ipykernel 7.4 would hand them to the busy cell's own loop."""
    if widget.comm is not None:
        widget.comm._reply_subshell_for = None
    for part in getattr(widget, "children", ()):
        respond_at_once(part)


def column(*parts: widgets.Widget) -> widgets.VBox:
    """Widgets below each other, as wide as they need."""
    return widgets.VBox(parts, layout=widgets.Layout(flex="0 0 auto", margin="0 12px 8px 0"))


def row(*parts: widgets.Widget, wrap: bool = False) -> widgets.HBox:
    """Widgets beside each other; `wrap`: on further lines where the page is narrow."""
    flow = {"flex_flow": "row wrap", "align_items": "flex-start", "flex": "0 0 auto"} if wrap else {}
    return widgets.HBox(parts, layout=widgets.Layout(**flow))


class Explorer:
    """A picture of a state, with the controls that change it.

    Callbacks may run beside each other and beside a busy cell. One thread draws at a time; whoever comes meanwhile only
    leaves word, and the newest state is drawn next: dragging a slider piles nothing up. What `render` raises is shown in
    words in the picture's place.

    Args:
        render: the state → (H, W, 3) uint8; depends on nothing but the state and files.
        controls: {key of the state: widget with a `value`}.
        words: the state → one line of plain text below the picture.
        panel: how the controls are laid out; default: below each other, beside the picture.
        fixed: further parts of the state, changed by `set` only.
    """

    def __init__(
        self,
        render: Render,
        controls: Mapping[str, widgets.Widget],
        words: Callable[[dict], str] = lambda state: "",
        panel: widgets.Widget | None = None,
        **fixed: object,
    ):
        self.render, self.words, self.controls, self.fixed = render, words, dict(controls), fixed
        self.picture: np.ndarray | None = None  # the last one drawn
        self.error: Exception | None = None  # what the last drawing raised
        self._lock, self._guard, self._wanted, self._held = threading.Lock(), threading.Lock(), False, 0
        self.adapting = threading.RLock()  # one callback at a time brings the controls in line
        still = widgets.Layout(
            max_width="100%", flex="0 0 auto", align_self="flex-start", margin="0 12px 8px 0"
        )
        self.image, self.note = widgets.Image(format="png", layout=still), widgets.HTML()
        self.panel = panel or column(*self.controls.values())
        self.panel.layout.flex = (
            "1 1 320px"  # wide: beside the picture where that leaves so much, else below it
        )
        self.widget = widgets.VBox([row(self.image, self.panel, wrap=True), self.note])
        respond_at_once(self.widget)
        with self.held():
            for key, control in self.controls.items():
                self.adapt(key)
                control.observe(self._changed, names="value")

    def adapt(self, key: str) -> None:
        """Bring other controls in line with the part `key` of the state, at first and when it has changed: for subclasses."""

    def enable(self, **heeded: bool) -> None:
        """Let those controls be moved that the drawing heeds in the present state."""
        for key, yes in heeded.items():
            self.controls[key].disabled = not yes

    @property
    def state(self) -> dict:
        """What is drawn: the controls' values and the fixed parts."""
        return self.fixed | {key: control.value for key, control in self.controls.items()}

    @property
    def png(self) -> bytes:
        """The last picture as a file's bytes, to be kept beside the explorer for those who see the page without a kernel."""
        return bytes(self.image.value)

    def set(self, **values: object) -> None:
        """Change parts of the state, by their keys, and redraw once."""
        if unknown := values.keys() - self.controls.keys() - self.fixed.keys():
            raise KeyError(
                f"no part of the state is called {sorted(unknown)}; choose from {', '.join(self.state)}"
            )
        with self.held(), self.adapting:
            for key, value in values.items():
                if key in self.controls:
                    self.controls[key].value = value
                else:
                    self.fixed[key] = value
                    self.adapt(key)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Redraw once at the end, not at every change within."""
        with self._guard:
            self._held += 1
        try:
            yield
        finally:
            with self._guard:
                self._held -= 1
            self.refresh()

    def say(self, words: str) -> None:
        """Show words below the picture until the next drawing, such as what is being computed."""
        self.note.value = html.escape(words)

    def refresh(self, *_: object) -> None:
        """Draw the present state; when a drawing is under way, it is repeated with the newest state instead."""
        self._wanted = True
        while self._wanted and not self._held and self._lock.acquire(blocking=False):
            try:
                self._wanted = False
                self._draw(self.state)
            finally:
                self._lock.release()

    def _changed(self, change: dict) -> None:
        with self.held(), self.adapting:
            self.adapt(next(key for key, control in self.controls.items() if control is change["owner"]))

    def _draw(self, state: dict) -> None:
        try:
            picture, words = self.render(state), self.words(state)
        except Exception as error:  # a callback's error would vanish in the log of the server
            self.show(error)
            return
        self.error, self.picture, self.image.value = None, picture, encode(picture)
        self.say(words)

    def show(self, error: Exception) -> None:
        """Show an error in words in the picture's place, until the next drawing."""
        self.error, self.picture = error, message(f"{type(error).__name__}: {error}")
        self.image.value = encode(self.picture)
        self.say(str(error))

    def _repr_mimebundle_(self, **options: object) -> dict:
        words = "An explorer: run this cell in JupyterLab to use it. The picture that follows shows the same."
        return self.widget._repr_mimebundle_(**options) | {"text/plain": words}
