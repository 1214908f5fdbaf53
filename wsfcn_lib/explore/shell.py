"""The shell of an explorer: controls make a state, a pure function draws it, a page shows the drawing.

`widgets.Output` and `interact` stall runs without a browser: a picture is an `Image`, its bytes are replaced.
"""

import html
import io
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import ipywidgets as widgets
from PIL import Image

from wsfcn_lib.explore import draw
from wsfcn_lib.explore.draw import Picture, message
from wsfcn_lib.explore.page import EXPLORER, PICTURE, STRIP, WORDS, Page

WIDE = {"layout": {"width": "300px"}, "style": {"description_width": "88px"}}
WIDEST = 800  # pixels, of a line of words
FIXED_WIDTH = {"flex": "0 0 auto", "margin": "0 12px 4px 0"}


def encode(picture: Picture) -> bytes:
    """A picture (H, W, 3) uint8 as PNG, which decodes to these pixels; little compression, for speed."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "png", compress_level=1)
    return stream.getvalue()


def respond_at_once(widget: widgets.Widget) -> None:
    """Let a widget and its parts answer while a cell is busy: ipykernel 7.4 would make them wait for it."""
    if widget.comm is not None:
        widget.comm._reply_subshell_for = None
    for part in getattr(widget, "children", ()):
        respond_at_once(part)


def dropdown(label: str, options: Sequence, value: object = None) -> widgets.Dropdown:
    """A labelled choice; the first option where no value is given."""
    chosen = {} if value is None else {"value": value}
    return widgets.Dropdown(options=options, description=label, **chosen, **WIDE)


def still_image(*classes: str, **layout: str) -> widgets.Image:
    """An empty picture of a page, in its own size where there is room; `classes` as CSS knows them."""
    image = widgets.Image(format="png", layout={"max_width": "100%", "align_self": "flex-start"} | layout)
    for name in classes:
        image.add_class(name)
    return image


def slider(
    label: str, value: float, low: float = 0, high: float = 1, step: float = 0.01, **options: object
) -> widgets.FloatSlider:
    """A labelled slider of a share; `options` go to the widget."""
    return widgets.FloatSlider(value, min=low, max=high, step=step, description=label, **WIDE | options)


def button(label: str, action: Callable[[], None], **options: object) -> widgets.Button:
    """A button that does something."""
    made = widgets.Button(description=label, **options)
    made.on_click(lambda _: action())
    return made


class Explorer:
    """A picture of a state, with the controls that change it. Subclasses say how: `render`, `describe`.

    Callbacks may run beside each other and beside a busy cell. One thread draws at a time; who comes
    meanwhile only leaves a note, and the newest state is drawn next: dragging a slider piles nothing up. What
    `render` raises is said in the words below the picture.

    Args:
        controls: {key of the state: widget with a `value`}.
        front: what stands beside the picture, from top to bottom: keys of controls, and further widgets.
        more: what is behind the fold below them.
        fixed: further parts of the state, changed by `set` only.
    """

    ABOVE = False  # whether the front stands above the picture, in a row

    def __init__(
        self,
        controls: Mapping[str, widgets.Widget],
        front: Sequence[str | widgets.Widget],
        more: Sequence[str | widgets.Widget] = (),
        **fixed: object,
    ):
        self.controls, self.fixed = dict(controls), fixed
        self.picture: Picture | None = None  # the last one drawn
        self.aside: Picture | None = None  # the charts drawn with it
        self.error: Exception | None = None  # what the last drawing raised
        self._drawing, self._counting = threading.Lock(), threading.Lock()
        self._wanted, self._batches = False, 0
        self.updating = threading.RLock()  # one callback at a time brings the controls in line
        self.image, self.charts = still_image(PICTURE), still_image(display="none")
        self.page = Page({PICTURE: self.clicked, STRIP: self.strip_clicked})
        self.note = widgets.HTML(layout={"max_width": f"{WIDEST}px"})
        self.note.add_class(WORDS)
        self.widget = self._laid_out(self._widgets(front), self._widgets(more))
        respond_at_once(self.widget)
        with self.batch():
            for key, control in self.controls.items():
                self.update_controls(key)
                control.observe(self._changed, names="value")

    def _widgets(self, parts: Sequence[str | widgets.Widget]) -> list[widgets.Widget]:
        return [self.controls[part] if isinstance(part, str) else part for part in parts]

    def _laid_out(self, front: list[widgets.Widget], more: list[widgets.Widget]) -> widgets.Widget:
        """The page: the picture, its words and what belongs below them; beside or above it the controls."""
        if more:
            front = [*front, *self._folded(more)]
        seen = widgets.VBox([self.image, *self.under()], layout=FIXED_WIDTH | {"max_width": "100%"})
        if self.ABOVE:
            row = widgets.HBox(front, layout={"flex_flow": "row wrap", "align_items": "center"})
            return self._as_page(row, seen, self.note, *self.below())
        beside = widgets.VBox([*front, self.charts], layout=FIXED_WIDTH)
        flow = {"flex_flow": "row wrap", "align_items": "flex-start"}  # below it where the page is narrow
        return self._as_page(widgets.HBox([seen, beside], layout=flow), *self.below(), self.note)

    def _folded(self, more: list[widgets.Widget]) -> tuple[widgets.ToggleButton, widgets.VBox]:
        """A button, and behind it what is out of sight at first; an accordion's header knows no keys."""
        self.more = widgets.ToggleButton(False, description="▸ more", layout=WIDE["layout"])
        box = widgets.VBox(more, layout={"display": "none"})

        def fold(change: dict) -> None:
            box.layout.display = None if change["new"] else "none"
            self.more.description = "▾ less" if change["new"] else "▸ more"

        self.more.observe(fold, names="value")
        return self.more, box

    def _as_page(self, *parts: widgets.Widget) -> widgets.VBox:
        whole = widgets.VBox([*parts, self.page])
        whole.add_class(EXPLORER)
        return whole

    def under(self) -> list[widgets.Widget]:
        """What stands right under the picture, beside the controls: for subclasses."""
        return []

    def below(self) -> list[widgets.Widget]:
        """What stands below picture and controls: for subclasses."""
        return []

    def clicked(self, x: int, y: int) -> None:
        """What a click on the picture's pixel in column x and row y does: for subclasses."""

    def strip_clicked(self, x: int, y: int) -> None:
        """What a click on a strip below it does: for subclasses."""

    def render(self, state: dict) -> Picture:
        """The picture of a state, (H, W, 3) uint8; depends on nothing but the state and files."""
        raise NotImplementedError

    def render_charts(self, state: dict) -> Picture | None:
        """What stands below the controls, (H, W, 3) uint8, or nothing; depends on the state and files alone."""
        return None

    def describe(self, state: dict) -> str:
        """What is seen, in one line, for those who cannot see it; stands below the picture."""
        return ""

    def update_controls(self, key: str) -> None:
        """Bring other controls in line with the part `key` of the state, at first and when it has changed."""

    def enable(self, **usable: bool) -> None:
        """Let those controls be moved that the drawing heeds in the present state."""
        for key, yes in usable.items():
            self.controls[key].disabled = not yes

    @property
    def state(self) -> dict:
        """What is drawn: the controls' values and the fixed parts."""
        return self.fixed | {key: control.value for key, control in self.controls.items()}

    @property
    def png(self) -> bytes:
        """Picture, words and charts as a PNG file's bytes, for those who see the page without a kernel."""
        parts = [self.picture, draw.paragraph(html.unescape(self.note.value), self.picture.shape[1])]
        still = draw.below(*parts)
        return encode(still if self.aside is None else draw.beside(still, self.aside))

    def set(self, **values: object) -> None:
        """Change parts of the state, by their keys, and redraw once."""
        if unknown := values.keys() - self.state.keys():
            raise KeyError(
                f"no part of the state is called {sorted(unknown)}; choose from {', '.join(self.state)}"
            )
        with self.batch(), self.updating:
            for key, value in values.items():
                if key in self.controls:
                    self.controls[key].value = value
                else:
                    self.fixed[key] = value
                    self.update_controls(key)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Redraw once at the end, not at every change within."""
        with self._counting:
            self._batches += 1
        try:
            yield
        finally:
            with self._counting:
                self._batches -= 1
            self.refresh()

    def notify(self, text: str) -> None:
        """Show text below the picture until the next drawing, such as what is being computed."""
        self.note.value = html.escape(text)

    def refresh(self) -> None:
        """Draw the present state; one that is under way is followed by one of the newest state instead."""
        self._wanted = True
        while self._wanted and not self._batches and self._drawing.acquire(blocking=False):
            try:
                self._wanted = False
                self._draw(self.state)
            finally:
                self._drawing.release()

    def _changed(self, change: dict) -> None:
        with self.batch(), self.updating:
            for key, control in self.controls.items():
                if control is change["owner"]:
                    self.update_controls(key)

    def _draw(self, state: dict) -> None:
        try:
            picture, charts, text = self.render(state), self.render_charts(state), self.describe(state)
        except Exception as error:  # a callback's error would vanish in the log of the server
            self.show_error(error)
        else:
            self._show(picture, charts, text, None)

    def show_error(self, error: Exception) -> None:
        """Show an error's kind in the picture's place and its words below, until the next drawing."""
        self._show(message(f"{type(error).__name__}: nothing could be drawn"), None, str(error), error)

    def _show(self, picture: Picture, charts: Picture | None, text: str, error: Exception | None) -> None:
        self.error, self.picture, self.aside = error, picture, charts
        self.image.value = encode(picture)
        if charts is not None:
            self.charts.value = encode(charts)
        self.charts.layout.display = "none" if charts is None else None
        self.notify(text)
        self.page.words = text

    def _repr_mimebundle_(self, **options: object) -> dict:
        """The widget; and a still of it for pages without a kernel, which show no widget."""
        still = {
            "text/plain": "An explorer: run this cell in JupyterLab to use it.",
            "image/png": b64encode(self.png).decode(),
        }
        return self.widget._repr_mimebundle_(**options) | still
