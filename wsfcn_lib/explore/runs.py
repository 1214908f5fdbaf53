"""The comparison of two runs, picture by picture and class by class, from the files of their evaluations."""

from pathlib import Path

import numpy as np

from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.evaluation.inputs import images_label
from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.browse import BEST, LISTED, WORST, Browser, dropdown, fraction
from wsfcn_lib.explore.evaluated import KINDS, Evaluated
from wsfcn_lib.explore.layers import HEIGHT, WIDTH, Missing, iou_of, kinds_of, tint
from wsfcn_lib.explore.shell import column, row

MASKS, ERRORS, RIGHT = "masks", "errors", "who is right"
TALL, WIDE, ROWS = 240, 320, 12  # pixels of a panel; bars at most


class RunComparison(Browser):
    """Look at two runs side by side, first where one wins most; without CRF.

    Args:
        a, b: the run folders, such as two cells of an ablation.
        manifest: the data set of both.
        images: what both evaluated: a split, a list or a folder.
    """

    TOLD = "{:+.2f}"

    def __init__(self, a: Path | str, b: Path | str, manifest: Manifest, images: str = "val"):
        self.manifest, self.label = manifest, images_label(images)
        self.sides = [Evaluated(str(run), manifest, images) for run in (a, b)]
        names = Path(a).name, Path(b).name
        self.titles = names if len(set(names)) == 2 else (str(a), str(b))
        one, other = (side.scores for side in self.sides)
        self.gains = {name: one[name] - other[name] for name in one if name in other}
        orders = [
            *((f"{title} ahead", order) for title, order in zip(self.titles, (BEST, WORST))),
            (LISTED, LISTED),
        ]
        controls = self.browsing(manifest.names[1:])
        controls["order"] = dropdown("order", orders, BEST if self.gains else LISTED)
        controls |= {
            "show": dropdown("show", (MASKS, ERRORS)),
            "opacity": fraction("opacity", 0.65, step=0.05),
        }
        pick = column(*(controls[key] for key in ("order", "only", "image")), self.buttons())
        show = column(controls["show"], controls["opacity"])
        super().__init__(self.render, controls, self.words, row(pick, show, wrap=True))

    def adapt(self, key: str) -> None:
        """Filter and order make the list of pictures."""
        if key in ("only", "order"):
            self.fill(self.sides[0].samples, self.manifest.names, self.gains, anew=key == "order")

    def render(self, state: dict) -> np.ndarray:
        """What either run painted, the truth, who of them is right where, and the differences in IoU."""
        if state["image"] is None:
            return draw.message(self.words(state), HEIGHT, WIDTH)
        panels = [self._panel(state, title) for title in (*self.titles, KINDS[2], RIGHT)]
        stage = draw.below(draw.beside(*panels[:2]), draw.beside(*panels[2:]))
        labels = [
            label
            for side in self.sides
            for kind, label in side.read(state["image"])[1].items()
            if kind != KINDS[1]
        ]
        shown, names = np.unique([c for label in labels for c in np.unique(label)]), self.manifest.names
        entries = {"left open" if c == 255 else names[c]: tuple(self.manifest.palette[c]) for c in shown if c}
        entries |= draw.ERRORS if state["show"] == ERRORS else {}
        return draw.beside(
            draw.below(stage, charts.legend(entries, stage.shape[1])), self._sidebar(state["image"])
        )

    def _panel(self, state: dict, title: str) -> np.ndarray:
        """One run, the truth, or who is right, with its title; words where something is missing."""
        name, side = state["image"], self.sides[title == self.titles[1]]
        rgb = side.read(name)[0]
        large = draw.fitted(rgb.shape, TALL, WIDE, shrink=True)
        grey = large(draw.blend(rgb, rgb.mean(2, keepdims=True), 1.0))
        try:
            if title == RIGHT:
                truth = side.labels(name, KINDS[2])
                one, other = ((truth != 255) & (part.labels(name, KINDS[0]) == truth) for part in self.sides)
                picture = draw.gains(grey, large(one.astype(np.int8) - other))
            elif title != KINDS[2] and state["show"] == ERRORS:
                kind = kinds_of(side.labels(name, KINDS[0]), side.labels(name, KINDS[2]))
                picture = draw.striped(grey, large(kind), state["opacity"])
            else:
                label = side.labels(name, KINDS[2 * (title == KINDS[2])])
                picture = tint(large(rgb), large(label), self.manifest.palette, state["opacity"])
        except Missing as error:
            picture = draw.message(str(error), TALL, WIDE)
        return draw.below(draw.paragraph(title, WIDE, 12), draw.framed(picture, TALL, WIDE))

    def _sidebar(self, name: str) -> np.ndarray:
        """The differences per class, of all pictures and of this one."""
        parts = []
        for words, measure in ((f"all of {self.label}", self._whole), ("this picture", self._own)):
            try:
                iou = np.array([measure(side, name) for side in self.sides], float)
                parts.append(_bars(iou, np.array(self.manifest.names), f"IoU, {words}"))
            except Missing as error:
                parts.append(draw.paragraph(str(error), charts.WIDTH, 11))
        told = "blue: {} ahead, or alone right\norange: {} ahead, or alone right\nmeans: over the classes that each has"
        return draw.below(*parts, draw.paragraph(told.format(*self.titles), charts.WIDTH, 11))

    def _whole(self, side: Evaluated, name: str) -> list[float | None]:
        if side.metrics.get("split") != self.label or "per_class_iou" not in side.metrics:
            raise Missing(f"no IoU of {self.label} in {side.run}: run 05_evaluate on it")
        return [side.metrics["per_class_iou"].get(name) for name in self.manifest.names]

    def _own(self, side: Evaluated, name: str) -> np.ndarray:
        return iou_of(side.labels(name, KINDS[0]), side.labels(name, KINDS[2]), len(self.manifest.names))

    def words(self, state: dict) -> str:
        """What is seen, in one line, for those who cannot see it."""
        name = state["image"]
        if name is None:
            lacking = next((side.run for side in self.sides if not side.scores), self.sides[0].run)
            return self.nothing(state, lacking, self.label, self.gains)
        told = [
            f"{side.scores[name]:.2f} by {title}"
            for side, title in zip(self.sides, self.titles)
            if name in side.scores
        ]
        return f"{name}: IoU {', '.join(told)}" if told else name


def _bars(iou: np.ndarray, names: np.ndarray, words: str) -> np.ndarray:
    """IoU of both runs (2, K) as bars of their differences, the largest of them, in order."""
    change, means = iou[0] - iou[1], np.nanmean(iou, 1)
    largest = np.argsort(-np.abs(np.nan_to_num(change)), kind="stable")[:ROWS]
    order = [c for c in np.argsort(-change, kind="stable") if c in largest and change[c] == change[c]]
    return charts.differences(change[order], names[order], f"{words}: mean {means[0] - means[1]:+.3f}")
