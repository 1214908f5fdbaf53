"""A list of images to go through: by class, in order, worst first, with buttons for the next and the last."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import ipywidgets as widgets

from wsfcn_lib.data.manifest import Sample
from wsfcn_lib.explore import draw
from wsfcn_lib.explore.draw import Picture
from wsfcn_lib.explore.shell import Explorer, button, dropdown

ANY, LISTED, WORST, BEST = "any class", "as listed", "worst first", "best first"
MOST = 3000  # names in a list; browsers grow slow with more


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

    def buttons(self) -> widgets.VBox:
        """Previous and next, and below them how many images a long list leaves out."""
        self.previous = button("◀ previous", lambda: self.step(-1))
        self.next = button("next ▶", lambda: self.step(1))
        self.left_out = widgets.HTML(layout={"width": "310px", "display": "none"})
        return widgets.VBox([widgets.HBox([self.previous, self.next]), self.left_out])

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
        """The picture of an image, or why the list is empty."""
        if state["image"] is None:
            return draw.message(self.describe(state))
        return self.render_image(state)

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
