"""The CAM explorer: why a network sees a class where it does, layer upon layer over an image."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from wsfcn_lib.data.images import open_image, read_image
from wsfcn_lib.data.model_zoo import SHIPPED
from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.browse import ANY, Browser
from wsfcn_lib.explore.evaluated import read_image_iou
from wsfcn_lib.explore.inspection import SHIPS, STEPS, VIEWS, Inspection, Inspector, snapshot_stamp
from wsfcn_lib.explore.layers import (
    ALL,
    LAYERS,
    NOTHING,
    changed,
    class_iou,
    cross_hair,
    layered,
    prediction,
    reading,
)
from wsfcn_lib.explore.page import ASKED
from wsfcn_lib.explore.shell import WIDE, dropdown, slider
from wsfcn_lib.runs.paths import ROOT, RUNS

CUTS = {"foreground_cut": "class cut", "background_cut": "backgr. cut", "floor": "least cut"}
REFINED = ("pamr", "pseudo")  # layers that PAMR's iterations change
LOOKED_THROUGH = 8  # pictures: a list so short is looked through at once, so that its thumbnails tell


def runs_with_network(folder: Path = RUNS) -> list[str]:
    """Run folders that hold a snapshot, relative to the repository where they lie in it."""
    runs = sorted({path.parents[1] for path in folder.glob("*/checkpoints/*.safetensors")})
    return [run.relative_to(ROOT).as_posix() if run.is_relative_to(ROOT) else str(run) for run in runs]


class CamExplorer(Browser):
    """Choose a picture and a class; lay over it what a network made of it. A click on the picture asks about a place.

    Args:
        run: a run folder; empty: the network that ships.
        images: a split, a list or a folder, as `samples_of` takes it.
        data: folder with a manifest, for the network that ships.
        snapshot: of that run; of others the best is taken.
        options: further arguments of `Inspector`, such as scales, flip and device.
    """

    def __init__(
        self, run: str = "", images: str = "val", data: str = "", snapshot: str = "best", **options: object
    ):
        self.run, self.images, self.snapshot, self.uploads = run or SHIPS, images, snapshot, {}
        options |= {"uploads": self.uploads, "notify": self.notify}

        @lru_cache(2)
        def opened(run: str, stamp: tuple) -> Inspector:
            return Inspector(run, images, data if run == SHIPS else "", self._snapshot_of(run), **options)

        self._opened, self._seen = opened, {}
        runs = [self.run, *([SHIPS] if SHIPPED.is_file() else []), *runs_with_network()]
        controls = (
            self.list_controls() | _controls() | {"run": dropdown("network", list(dict.fromkeys(runs)))}
        )
        self.upload = widgets.FileUpload(
            accept="image/*", multiple=True, description="your own pictures", layout={"width": "180px"}
        )
        self.upload.observe(self._uploaded, names="value")
        self._painted = lru_cache(2)(_painted)
        front = ["image", self.buttons(), "target", "layer", "opacity", "iterations"]
        more = ["run", "only", "order", "view", "over", "since", "across", "down", *CUTS]
        super().__init__(controls, front, more)
        self.image.add_class(ASKED)
        self._look_through()

    def under(self) -> list[widgets.Widget]:
        """The thumbnails, and the button that brings in one's own."""
        return [*super().under(), self.upload]

    def inspector(self, run: str) -> Inspector:
        """The network of a run with its images; opened anew when its best snapshot has changed."""
        return self._opened(run, snapshot_stamp(run, self._snapshot_of(run)))

    def _snapshot_of(self, run: str) -> str:
        return self.snapshot if run == self.run else "best"

    def listing(self) -> tuple:
        """The images of the chosen network, by its IoU."""
        run = self.state["run"]
        inspector = self.inspector(run)
        return inspector.samples, inspector.manifest.names, self._scores(run)

    def update_controls(self, key: str) -> None:
        """As every browser's; another run brings other classes and cuts."""
        self._enable_used()
        try:
            inspector = self.inspector(self.state["run"])
        except Exception:  # the drawing will meet it too, and show it
            self.controls["image"].options = ()
            return
        if key == "run":
            names, config = inspector.manifest.names, inspector.trained.config
            for name, first in (("target", ALL), ("only", ANY)):
                control = self.controls[name]
                old = control.value
                control.options = (first, *names[1:])
                control.value = old if old in names else first
            for name in CUTS:
                self.controls[name].value = getattr(config, name)
            self.controls["iterations"].value = min(STEPS, config.pamr_iterations)
        super().update_controls(key)

    def _enable_used(self) -> None:
        """Let those controls move that the picture heeds. PAMR's always does: moved, it shows its layer."""
        state = self.state
        comparing = state["since"] != NOTHING
        shown = {state["layer"], state["since" if comparing else "over"]}
        self.enable(over=not comparing, opacity=not comparing and shown - {"errors", NOTHING} != set())
        self.enable(**dict.fromkeys(CUTS, "pseudo" in shown))

    def _changed(self, change: dict) -> None:
        moved_by_hand = change["owner"] is self.controls["iterations"] and not self._batches
        if moved_by_hand and self.state["layer"] not in REFINED:
            self.set(layer="pamr")
        super()._changed(change)

    def clicked(self, x: int, y: int) -> None:
        """Move the cross to the place that was clicked."""
        if self.state["image"] is None:
            return
        shape = self.inspector(self.state["run"]).inspect(self.state["image"], self.state["view"]).rgb.shape
        top, left, height, width = draw.place_in_frame(shape)
        if top <= y < top + height and left <= x < left + width:
            self.set(
                across=round(100 * (x - left) / max(1, width - 1)),
                down=round(100 * (y - top) / max(1, height - 1)),
            )

    def _scores(self, run: str) -> dict[str, float]:
        return {} if run == SHIPS else read_image_iou(run, self.images)

    def _uploaded(self, change: dict) -> None:
        try:
            for file in change["new"]:
                key = f"your own {len(self.uploads) + 1}: {file['name']}"  # never that of another image
                self.uploads[key] = np.asarray(open_image(file["name"], bytes(file["content"])))
                with self.batch(), self.updating:
                    self.list_images()
                    self.controls["image"].value = key
        except Exception as error:  # an unreadable file, or no network to look at it
            self.show_error(error)

    def render_image(self, state: dict) -> draw.Picture:
        """The layers, or what changed between two, with the cross and a legend."""
        inspection = self._inspect(state)
        try:
            picture, legend = self._laid(inspection, state)[:2]
        except draw.Missing as error:
            return draw.message(str(error))
        y, x = cross_hair(state, picture)
        framed = draw.framed(draw.cross(picture, x, y))
        return draw.below(framed, charts.legend(legend, framed.shape[1]))

    def render_image_charts(self, state: dict) -> draw.Picture:
        """The scores of the classes, and their IoU where there is truth."""
        return _sidebar(self._inspect(state), state)

    def _inspect(self, state: dict) -> Inspection:
        return self.inspector(state["run"]).inspect(state["image"], state["view"])

    def _laid(self, inspection: Inspection, state: dict) -> tuple[draw.Picture, dict, list[str]]:
        """What `_painted` returns: once for picture and words, and while only the cross moves."""
        heeded = {key: value for key, value in state.items() if key not in ("across", "down")}
        return self._painted(inspection, tuple(heeded.items()))

    def describe(self, state: dict) -> str:
        """What stands at the cross, what is predicted, what is missing, and what the network can know at all."""
        inspector = self.inspector(state["run"])
        if state["image"] is None:
            return self.describe_empty(state, state["run"], self.images, self._scores(state["run"]))
        inspection, names = self._inspect(state), np.array(inspector.manifest.names)[1:]
        scores = zip(names, inspection.probabilities, inspection.predicted)
        predicted = ", ".join(f"{name} {score:.2f}" for name, score, yes in scores if yes) or "no class"
        sentences = [reading(inspection, state), f"picture {state['image']}: predicted {predicted}"]
        if inspection.tags is not None:
            sentences[-1] += f"; tags {', '.join(names[inspection.tags])}"
        try:
            sentences += self._laid(inspection, state)[2]
        except draw.Missing as error:
            sentences.append(str(error))
        if inspection.tags is None:
            if "pseudo" in (state["layer"], state["over"]):
                sentences.append("pseudo labels are made of the predicted classes")
            sentences.append(f"this network knows {_listed(names)}, and nothing else")
        return ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences) + "."

    def thumbnail(self, state: dict, name: str) -> draw.Picture:
        """An image under its prediction, where the network has looked at it or an evaluation did; else as it is."""
        inspector = self.inspector(state["run"])
        stamp = snapshot_stamp(state["run"], self._snapshot_of(state["run"]))
        key = state["run"], stamp, state["view"], name
        if name == state["image"]:
            self._keep(key, state)
        if key not in self._seen:
            rgb = self.uploads[name] if name in self.uploads else read_image(inspector.samples[name].image)
            small = np.asarray(draw.fitted(rgb.shape, *draw.THUMB, shrink=True)(np.ascontiguousarray(rgb)))
            self._seen[key] = small
        return self._seen[key]

    def _keep(self, key: tuple, state: dict) -> None:
        """Keep the thumbnail of what the network has painted."""
        inspection = self._inspect(state)
        shrink = draw.fitted(inspection.rgb.shape, *draw.THUMB, shrink=True)
        label = shrink(inspection.label)
        self._seen[key] = draw.tint(shrink(inspection.rgb), label, inspection.manifest.shades, 0.8)

    def _look_through(self) -> None:
        """Look at each picture of a short list, so that its thumbnails show what is found in them."""
        state = self.state
        shown = self.thumbnails(state)
        if state["run"] == SHIPS and len(shown) <= LOOKED_THROUGH and self.error is None:
            for name in shown:
                self.thumbnail(state | {"image": name}, name)
            self.refresh()


def _painted(inspection: Inspection, state: tuple) -> tuple[draw.Picture, dict, list[str]]:
    """The layers of a state, given as its items, over a picture, or what changed; its legend; what is missing."""
    state = dict(state)
    if state["since"] == NOTHING:
        return layered(inspection, state)
    picture, legend, note = changed(inspection, state)
    return picture, legend, [note]


def _listed(names: Sequence[str]) -> str:
    """Names as in a sentence, the first twelve of them."""
    if len(names) > 12:
        return f"{', '.join(names[:12])} and {len(names) - 12} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _sidebar(inspection: Inspection, state: dict) -> draw.Picture:
    """The classes' scores, and the prediction's IoU in this image where there is truth."""
    manifest, target, tags = inspection.manifest, state["target"], inspection.tags
    scores, note = np.append(0, inspection.probabilities), f"dashed: present above {inspection.score_cut:g}"
    wanted, hollow = np.array(manifest.names) == target, []
    if tags is not None:
        tags = np.append(False, tags)
        wanted |= tags
        hollow = np.flatnonzero(~tags)
        note += "; filled: in the picture"
    listed = np.argsort(-(scores + wanted)[1:], kind="stable") + 1  # what is asked about comes first
    listed = sorted(listed[: charts.ROWS], key=lambda c: -scores[c])
    parts = [
        charts.bars(
            scores, listed, manifest, "score of each class", hollow, inspection.score_cut, chosen=target
        ),
        draw.paragraph(note, charts.WIDTH, 11),
    ]
    if inspection.truth is not None:
        label = prediction(inspection, state)
        iou = class_iou(label, inspection.truth, manifest.num_classes)
        title = "IoU in this picture" + ("" if label is inspection.label else ", with CRF")
        listed = np.flatnonzero(~np.isnan(iou))[: charts.ROWS]
        parts.append(charts.bars(iou, listed, manifest, title, chosen=target))
    return draw.below(*parts)


def _controls() -> dict[str, widgets.Widget]:
    """What is asked of an image: class, layer and its opacity, PAMR's steps, and what is behind the fold."""
    layers = [(name, layer) for layer, name in LAYERS.items()]
    steps = [pair for pair in layers if pair[1] != "errors"]
    controls = {
        "target": dropdown("class", [ALL]),
        "layer": dropdown("layer", layers, "cam"),
        "opacity": slider("opacity", 0.8, step=0.05),
        "iterations": widgets.IntSlider(STEPS, 0, STEPS, description="PAMR steps", **WIDE),
        "view": dropdown("seen in", VIEWS),
        "over": dropdown("over it", [("nothing", NOTHING), *layers], NOTHING),
        "since": dropdown("changed since", [("(not compared)", NOTHING), *steps], NOTHING),
    }
    for key in ("across", "down"):
        controls[key] = widgets.IntSlider(50, 0, 100, description=f"{key}, %", **WIDE)
    return controls | {key: slider(name, 0.5) for key, name in CUTS.items()}
