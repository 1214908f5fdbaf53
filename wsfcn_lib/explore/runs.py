"""The comparison of two runs, image by image and class by class, from the files of their evaluations."""

import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.browse import BEST, LISTED, WORST, Browser
from wsfcn_lib.explore.evaluated import PREDICTION, TRUTH, WITH_CRF, EvaluationFiles, read_metrics
from wsfcn_lib.explore.layers import class_iou, class_legend, error_kinds
from wsfcn_lib.explore.shell import dropdown, slider
from wsfcn_lib.runs.paths import RUNS, resolve_path
from wsfcn_lib.runs.run_diff import plain

MASKS, ERRORS, RIGHT = "masks", "errors", "who is right"


def measured_runs(folder: Path, manifest: Manifest, images: str) -> list[str]:
    """The runs in a folder, and in data/runs, whose evaluation of these images lies there, of the same classes."""
    found = []
    for place in dict.fromkeys((resolve_path(folder), RUNS)):
        for run in sorted(path.parent for path in place.glob("*/run.json")):
            classes = read_metrics(str(run), images).get("per_class_iou", {})
            if list(classes) == list(manifest.names):
                found.append(plain(run))
    return found


def titles_of(runs: Sequence[str]) -> dict[str, str]:
    """{run: what it is called}: its folder's name, of those that share one the path."""
    names = Counter(Path(run).name for run in runs)
    return {run: run if names[Path(run).name] > 1 else Path(run).name for run in runs}


class RunComparison(Browser):
    """Look at two runs side by side, first where one wins most; without CRF.

    Args:
        a, b: the run folders, such as two configurations of an ablation; others that were measured on the same
            images stand in the lists.
        manifest: the data set of both.
        images: what both evaluated: a split, a list or a folder.
    """

    SCORE = "{:+.2f}"

    def __init__(self, a: Path | str, b: Path | str, manifest: Manifest, images: str = "val"):
        self.manifest, self.images = manifest, images
        self._opened = lru_cache(8)(lambda run: EvaluationFiles(run, manifest, images))
        places = [Path(os.path.abspath(resolve_path(run))) for run in (a, b)]
        first, second = map(plain, places)  # as they stand among the measured ones
        runs = list(dict.fromkeys([first, second, *measured_runs(places[0].parent, manifest, images)]))
        listed = [(title, run) for run, title in titles_of(runs).items()]
        orders = self._orders(first, second)
        controls = self.list_controls(manifest.names[1:]) | {
            "first": dropdown("run", listed, first),
            "second": dropdown("beside", listed, second),
            "order": dropdown("order", orders, BEST if self._gains(first, second) else LISTED),
            "show": dropdown("show", (MASKS, ERRORS)),
            "opacity": slider("opacity", 0.8, step=0.05),
        }
        front = ["first", "second", "image", self.buttons(), "order", "show"]
        super().__init__(controls, front, ["only", "opacity"])

    @property
    def runs(self) -> tuple[str, str]:
        """The two runs that are chosen."""
        return self.controls["first"].value, self.controls["second"].value

    @property
    def titles(self) -> tuple[str, str]:
        """What the two are called."""
        return tuple(titles_of(self.runs)[run] for run in self.runs)

    @property
    def files(self) -> tuple[EvaluationFiles, EvaluationFiles]:
        """What the two evaluations left."""
        one, other = self.runs
        return self._opened(one), self._opened(other)

    @property
    def gains(self) -> dict[str, float]:
        """By how much the first run is ahead, by image."""
        return self._gains(*self.runs)

    def _gains(self, first: str, second: str) -> dict[str, float]:
        one, other = self._opened(first).iou, self._opened(second).iou
        return {name: one[name] - other[name] for name in one if name in other}

    def _orders(self, first: str, second: str) -> list[tuple[str, str]]:
        titles = titles_of([first, second])
        one, other = titles[first], titles[second]
        return [(f"{one} ahead", BEST), (f"{other} ahead", WORST), (LISTED, LISTED)]

    def listing(self) -> tuple:
        """The images of both, by how much the first is ahead."""
        return self.files[0].samples, self.manifest.names, self.gains

    def update_controls(self, key: str) -> None:
        """As every browser's; another run brings other names of the orders, and another list."""
        super().update_controls(key)
        if key in ("first", "second"):
            order = self.controls["order"]
            chosen = order.value if self.gains else LISTED
            order.options = self._orders(*self.runs)
            order.value = chosen
            self.list_images()

    def render_image(self, state: dict) -> draw.Picture:
        """What either run painted, the truth, and who of them is right where."""
        one, other = self.files
        panels = [
            self._panel(self.titles[0], state, one, PREDICTION),
            self._panel(self.titles[1], state, other, PREDICTION),
            self._panel(TRUTH, state, one, TRUTH),
            self._panel(RIGHT, state, one, RIGHT),
        ]
        indices = []
        for files in self.files:
            for kind, label in files.read(state["image"])[1].items():
                if kind != WITH_CRF:
                    indices.extend(np.unique(label))
        legend = class_legend(indices, self.manifest)
        if state["show"] == ERRORS:
            legend |= draw.ERRORS
        return charts.page(panels, legend)

    def render_image_charts(self, state: dict) -> draw.Picture:
        """The differences in IoU, of all images and of this one."""
        return draw.below(*self._sidebar(state["image"]))

    def thumbnail(self, state: dict, name: str) -> draw.Picture:
        """An image under the first run's prediction."""
        return self.files[0].thumbnail(name)

    def _panel(self, title: str, state: dict, files: EvaluationFiles, kind: str) -> draw.Picture:
        """One run, the truth, or who is right, with its title."""
        name = state["image"]
        rgb = files.read(name)[0]

        def paint(resize):
            grey = resize(draw.grey(rgb))
            if kind == RIGHT:
                truth = files.labels(name, TRUTH)
                one, other = (
                    (run.labels(name, PREDICTION) == truth) & (truth != IGNORE) for run in self.files
                )
                return draw.gains(grey, resize(one.astype(np.int8) - other))
            label = files.labels(name, kind)
            if kind == PREDICTION and state["show"] == ERRORS:
                return draw.striped(
                    grey, resize(error_kinds(label, files.labels(name, TRUTH))), state["opacity"]
                )
            return draw.tint(resize(rgb), resize(label), self.manifest.shades, state["opacity"])

        return draw.panel(title, rgb.shape, draw.QUARTER, paint)

    def _sidebar(self, name: str) -> list[np.ndarray]:
        """The differences per class, of all images and of this one."""
        one, other = self.titles
        text = f"blue: {one} ahead, or alone right\norange: {other} ahead, or alone right\n"
        text += "means: over the classes that each has"
        return [
            self._differences(f"all of {self.files[0].images}", self._iou_of_all),
            self._differences("this picture", lambda files: self._iou_of(files, name)),
            draw.paragraph(text, charts.WIDTH, 11),
        ]

    def _differences(self, title: str, iou_of) -> draw.Picture:
        """Both runs' IoU as bars of the largest differences, in order."""
        try:
            iou = np.array([iou_of(files) for files in self.files], float)
        except draw.Missing as error:
            return draw.paragraph(str(error), charts.WIDTH, 11)
        change, means = iou[0] - iou[1], np.nanmean(iou, 1)
        largest = np.argsort(-np.abs(np.nan_to_num(change)), kind="stable")[: charts.ROWS]
        listed = [c for c in np.argsort(-change, kind="stable") if c in largest and not np.isnan(change[c])]
        names = np.array(self.manifest.names)[listed]
        return charts.differences(change[listed], names, f"IoU, {title}: mean {means[0] - means[1]:+.3f}")

    def _iou_of_all(self, files: EvaluationFiles) -> list[float | None]:
        if "per_class_iou" not in files.metrics:
            raise draw.Missing(f"no IoU of {files.images} in {files.run}: run 05_evaluate on it")
        return [files.metrics["per_class_iou"].get(name) for name in self.manifest.names]

    def _iou_of(self, files: EvaluationFiles, name: str) -> np.ndarray:
        return class_iou(files.labels(name, PREDICTION), files.labels(name, TRUTH), len(self.manifest.names))

    def describe(self, state: dict) -> str:
        """The image, and its IoU by either run."""
        name = state["image"]
        if name is None:
            without = [files.run for files in self.files if not files.iou]
            run = (without or [self.files[0].run])[0]
            return self.describe_empty(state, run, self.files[0].images, self.gains)
        pairs = zip(self.titles, self.files)
        iou = [f"{files.iou[name]:.2f} by {title}" for title, files in pairs if name in files.iou]
        return f"{name}: IoU {', '.join(iou)}" if iou else name
