"""A list of pictures to go through: by class, in order, worst first, with buttons for the next and the one before."""

import csv
import json
from collections.abc import Mapping, Sequence

import ipywidgets as widgets

from wsfcn_lib.data.manifest import SPLITS, Sample
from wsfcn_lib.evaluation.inputs import file_suffix
from wsfcn_lib.explore.shell import Explorer, row
from wsfcn_lib.runs.paths import ROOT

ANY, LISTED, WORST, BEST = "any class", "as listed", "worst first", "best first"
MOST = 3000  # names in a list; browsers grow slow with more
WIDE = {"layout": widgets.Layout(width="310px"), "style": {"description_width": "105px"}}


def image_scores(run: str, images: str) -> dict[str, float]:
    """IoU of each evaluated picture by name; empty where 05_evaluate has measured none, or another split after these."""
    path, whole = ROOT / run / f"per_image{file_suffix(images)}.csv", ROOT / run / "metrics.json"
    if not run or not path.is_file():
        return {}
    if images in SPLITS and not (
        whole.is_file() and json.loads(whole.read_text("utf-8")).get("split") == images
    ):
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {line["image"]: float(line["iou"]) for line in csv.DictReader(file) if line.get("iou")}


def dropdown(words: str, options: Sequence, value: object = None) -> widgets.Dropdown:
    """A labelled choice; the first option where no value is given."""
    chosen = {} if value is None else {"value": value}
    return widgets.Dropdown(options=options, description=words, **chosen, **WIDE)


def fraction(
    words: str, value: float, least: float = 0, most: float = 1, step: float = 0.01
) -> widgets.FloatSlider:
    """A labelled slider of a share."""
    return widgets.FloatSlider(value, min=least, max=most, step=step, description=words, **WIDE)


class Browser(Explorer):
    """An explorer whose state has an `image` out of a list, a class in `only` to filter it, and an `order`."""

    TOLD = "IoU {:.2f}"  # how a picture's score is told in the list

    @staticmethod
    def browsing(classes: Sequence[str] = (), order: str = LISTED) -> dict[str, widgets.Widget]:
        """The controls of a list, by their keys."""
        orders = dropdown("order", (LISTED, WORST, BEST), order)
        return {
            "only": dropdown("pictures of", (ANY, *classes)),
            "order": orders,
            "image": dropdown("picture", ()),
        }

    def buttons(self) -> widgets.VBox:
        """Previous and next, and below them how many pictures a long list leaves out."""
        self.back, self.on = (widgets.Button(description=words) for words in ("◀ previous", "next ▶"))
        self.back.on_click(lambda _: self.step(-1))
        self.on.on_click(lambda _: self.step(1))
        self.rest = widgets.HTML(layout={"width": "310px", "display": "none"})
        return widgets.VBox([row(self.back, self.on), self.rest])

    def step(self, by: int) -> None:
        """Go on in the list of pictures, round and round."""
        image = self.controls["image"]
        if image.options:
            image.index = ((image.index or 0) + by) % len(image.options)

    def set(self, **values: object) -> None:
        """As every explorer's; a picture beyond the first MOST joins the list."""
        image, name = self.controls["image"], values.get("image")
        with self.held():
            super().set(**{key: value for key, value in values.items() if key != "image"})
            if name is not None and name not in (value for _, value in image.options):
                image.options = [*image.options, (name, name)]
                self.back.disabled = self.on.disabled = len(image.options) < 2
            if "image" in values:
                super().set(image=name)

    def fill(
        self,
        samples: Mapping[str, Sample],
        names: Sequence[str],
        scores: Mapping[str, float],
        own=(),
        anew=False,
    ) -> None:
        """List the pictures that filter and order leave, then one's own; `anew`: begin with the first of them."""
        only, order, image = (self.controls[key] for key in ("only", "order", "image"))
        old, wanted = image.value, None if only.value == ANY else names.index(only.value) - 1
        found = [name for name, sample in samples.items() if wanted is None or sample.tags[wanted]]
        if order.value != LISTED:
            found = sorted(
                (name for name in found if name in scores), key=scores.get, reverse=order.value == BEST
            )
        options = [
            (f"{name} · {self.TOLD.format(scores[name])}" if name in scores else name, name)
            for name in found[:MOST]
        ]
        image.options = [*options, *((name, name) for name in own)]
        values = [value for _, value in image.options]
        image.value = old if old in values and not anew else next(iter(values), None)
        self.back.disabled = self.on.disabled = len(values) < 2
        told = f"The list holds the first {MOST} of {len(found)} pictures; a class or another order brings others into it."
        self.rest.value, self.rest.layout.display = told, None if len(found) > MOST else "none"

    @staticmethod
    def nothing(state: dict, run: str, images: str, scores: Mapping[str, float]) -> str:
        """Why the list is empty, in words."""
        if state["order"] != LISTED and not scores:
            told = f"{run} holds no IoU of single pictures of {images}"
            return f"{told}: run 05_evaluate on it, or choose the order “{LISTED}”"
        if state["only"] == ANY:
            return f"{images} holds no picture that can be shown"
        return f"no picture of {images} holds the class {state['only']}; choose another, or “{ANY}”"
