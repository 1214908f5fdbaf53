"""A list of images to go through: by class, in order, worst first; by name, by thumbnail, one by one."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import ipywidgets as widgets
import numpy as np

from wsfcn_lib.data.manifest import Sample
from wsfcn_lib.explore import draw
from wsfcn_lib.explore.draw import Picture
from wsfcn_lib.explore.page import STRIP
from wsfcn_lib.explore.shell import Explorer, button, dropdown, encode, still_image

ANY, LISTED, WORST, BEST = "any class", "as listed", "worst first", "best first"
MOST = 3000  # names in a list; browsers grow slow with more
COLUMNS, THUMBS = 5, 10  # of thumbnails in a row, and in all: as wide as the picture above them


class Browser(Explorer):
    """An explorer whose state has an `image` out of a list, a class in `only` to filter it, an `order`."""

    SCORE = "IoU {:.2f}"  # how an image's score stands in the list
    uploads: Mapping[str, Picture] = MappingProxyType({})  # one's own images by name

    @staticmethod
    def list_controls(classes: Sequence[str] = (), order: str = LISTED) -> dict[str, widgets.Widget]:
        """The controls of a list, by their keys."""
        return {
            "only": dropdown("pictures of", (ANY, *classes)),
            "order": dropdown("order", (LISTED, WORST, BEST), order),
            "image": dropdown("picture", ()),
        }

    def buttons(self) -> widgets.HBox:
        """Previous and next."""
        half = {"layout": {"width": "146px"}}
        self.previous = button("◀ previous", lambda: self.step(-1), **half)
        self.next = button("next ▶", lambda: self.step(1), **half)
        return widgets.HBox([self.previous, self.next])

    def under(self) -> list[widgets.Widget]:
        """The thumbnails, and how many images a long list leaves out."""
        self.strip, self._strip = still_image(STRIP), None
        self.left_out = widgets.HTML(layout={"display": "none"})
        return [self.strip, self.left_out]

    def step(self, by: int) -> None:
        """Go on in the list of images, round and round."""
        image = self.controls["image"]
        if image.options:
            image.index = ((image.index or 0) + by) % len(image.options)

    def set(self, **values: object) -> None:
        """As every explorer's; an image beyond the first MOST joins the list."""
        with self.batch():
            super().set(**{key: value for key, value in values.items() if key != "image"})
            if "image" in values:
                listed, name = self.controls["image"].options, values["image"]
                if name is not None and name not in dict(listed).values():
                    self._offer([*listed, (name, name)])
                super().set(image=name)

    def listing(self) -> tuple[Mapping[str, Sample], Sequence[str], Mapping[str, float]]:
        """All images by name, the names of the classes, and the images' scores: for subclasses."""
        raise NotImplementedError

    def update_controls(self, key: str) -> None:
        """Run, filter and order make the list of images."""
        if key in ("run", "only", "order"):
            self.list_images(from_start=key == "order")

    def list_images(self, from_start: bool = False) -> None:
        """Offer the images that filter and order leave, then one's own; `from_start`: show the first."""
        samples, names, scores = self.listing()
        only, order, image = (self.controls[key] for key in ("only", "order", "image"))
        shown, old = list(samples), image.value
        if only.value != ANY:
            tag = names.index(only.value) - 1
            shown = [name for name in shown if samples[name].tags[tag]]
        if order.value != LISTED:
            shown = [name for name in shown if name in scores]
            shown.sort(key=scores.get, reverse=order.value == BEST)
        options = []
        for name in shown[:MOST]:
            score = f" · {self.SCORE.format(scores[name])}" if name in scores else ""
            options.append((name + score, name))
        options += [(name, name) for name in self.uploads]
        self._offer(options)
        values = [value for _, value in options]
        if from_start or old not in values:
            old = next(iter(values), None)
        image.value = old
        self.left_out.value = (
            f"The list holds the first {MOST} of {len(shown)} pictures; "
            "a class or another order brings others into it."
        )
        self.left_out.layout.display = None if len(shown) > MOST else "none"

    def _offer(self, options: list[tuple[str, str]]) -> None:
        self.controls["image"].options = options
        self.previous.disabled = self.next.disabled = len(options) < 2

    def render(self, state: dict) -> Picture:
        """The picture of an image; where the list is empty, the words below say why."""
        if state["image"] is None:
            return draw.message("no picture to show")
        return self.render_image(state)

    def render_charts(self, state: dict) -> Picture | None:
        """What stands beside the picture of an image."""
        return None if state["image"] is None else self.render_image_charts(state)

    def render_image_charts(self, state: dict) -> Picture | None:
        """The charts of a state with an image: for subclasses."""
        return None

    def thumbnails(self, state: dict) -> list[str]:
        """The images whose thumbnails are shown: those of the list around the chosen one, by THUMBS."""
        listed = [name for _, name in self.controls["image"].options]
        if state["image"] not in listed:
            return []
        first = listed.index(state["image"]) // THUMBS * THUMBS
        return listed[first : first + THUMBS]

    def render_strip(self, state: dict) -> Picture:
        """Thumbnails with their names in rows of COLUMNS, the chosen one framed: (H, W, 3) uint8."""
        thumbs = []
        for name in self.thumbnails(state):
            try:
                small = self.thumbnail(state, name)
            except Exception:  # its drawing says what is wrong, once it is chosen
                small = draw.blank(*draw.THUMB, draw.GROUND)
            thumbs.append(draw.thumb(small, name, chosen=name == state["image"]))
        rows = [draw.beside(*thumbs[first : first + COLUMNS]) for first in range(0, len(thumbs), COLUMNS)]
        return draw.below(*rows) if rows else draw.blank(1, 1)

    def thumbnail(self, state: dict, name: str) -> Picture:
        """An image with what was predicted over it, of any size (H, W, 3) uint8: for subclasses."""
        raise NotImplementedError

    def strip_clicked(self, x: int, y: int) -> None:
        """Choose the image whose thumbnail is clicked."""
        shown = self.thumbnails(self.state)
        width, height = draw.thumb_size()
        column, row = x // width, y // height
        place = COLUMNS * row + column
        if 0 <= column < COLUMNS and 0 <= place < len(shown):
            self.controls["image"].value = shown[place]

    def _show(self, *drawn: object) -> None:
        super()._show(*drawn)
        strip = self.render_strip(self.state)
        if self._strip is not None and np.array_equal(strip, self._strip):
            return
        self._strip, self.strip.value = strip, encode(strip)
        self.strip.layout.display = "none" if strip.shape[0] == 1 else None
        self.page.thumbs = f"pictures to choose from: {', '.join(self.thumbnails(self.state))}"

    def render_image(self, state: dict) -> Picture:
        """The picture of a state with an image: for subclasses."""
        raise NotImplementedError

    @staticmethod
    def describe_empty(state: dict, run: str, images: str, scores: Mapping[str, float]) -> str:
        """Why the list is empty."""
        if state["order"] != LISTED and not scores:
            reason = f"{run} holds no IoU of single pictures of {images}"
            return f"{reason}: run 05_evaluate on it, or choose the order “{LISTED}”"
        if state["only"] == ANY:
            return f"{images} holds no picture that can be shown"
        return f"no picture of {images} holds the class {state['only']}; choose another, or “{ANY}”"
