"""The mask explorer: what an evaluation painted, image by image, from its files; and what its cuts do."""

import threading
from functools import cached_property

import numpy as np

from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.browse import LISTED, WORST, Browser
from wsfcn_lib.explore.evaluated import KINDS, PREDICTION, TRUTH, WITH_CRF, EvaluationFiles
from wsfcn_lib.explore.inspection import ALL_VIEWS, Inspector
from wsfcn_lib.explore.layers import class_iou, class_legend, error_kinds
from wsfcn_lib.explore.shell import WIDE, button, dropdown, slider
from wsfcn_lib.explore.sweep import BACKGROUNDS, SCORE_CUTS, Sweep, recut, sweep
from wsfcn_lib.infer import at_size
from wsfcn_lib.postprocess import BACKGROUND_MASK
from wsfcn_lib.protocol import LONG_SIDE, SCORE_CUT

FOUR, DIFFERENCE, RECUT = "all four", "difference", "cut by the sliders"
PAIRS = ((PREDICTION, TRUTH), (WITH_CRF, TRUTH), (PREDICTION, WITH_CRF))
BY_CRF = dict(zip(("CRF took away", "CRF added", "CRF made another class"), draw.ERRORS.values()))


class MaskExplorer(Browser):
    """Look through the masks of a finished evaluation.

    Args:
        run: the run folder.
        manifest: its data set.
        images: what was evaluated: a split, a list or a folder.
        options: further arguments of `Inspector`, which only "sweep" and "cut by the sliders" need.
    """

    def __init__(self, run: str, manifest: Manifest, images: str = "test", **options: object):
        self.run, self.manifest, self.images = run, manifest, images
        self.files = EvaluationFiles(run, manifest, images)
        self._options, self._sweeping = options, threading.Lock()
        controls = self.list_controls(manifest.names[1:], WORST if self.files.iou else LISTED) | {
            "show": dropdown("show", (FOUR, *KINDS, DIFFERENCE, RECUT)),
            "pair": dropdown("difference", [(" / ".join(pair), pair) for pair in PAIRS]),
            "opacity": slider("opacity", 0.8, step=0.05),
            "score_cut": slider("score cut", SCORE_CUT, SCORE_CUTS[0], SCORE_CUTS[-1], 0.05),
            "background": slider("background", BACKGROUND_MASK, BACKGROUNDS[0], BACKGROUNDS[-1], 0.05),
        }
        self.button = button("sweep up to 20 pictures", self.sweep, layout=WIDE["layout"])
        front = ["image", self.buttons(), "order", "show", "pair", "opacity"]
        super().__init__(controls, front, ["only", "score_cut", "background", self.button], sweep=None)

    @cached_property
    def inspector(self) -> Inspector:
        """A network of the explorer's own, opened when soft masks are first asked for."""
        return Inspector(
            self.run, self.images, notify=self.notify, **{"long_side": LONG_SIDE} | self._options
        )

    def listing(self) -> tuple:
        """The evaluated images by their IoU."""
        return self.files.samples, self.manifest.names, self.files.iou

    def update_controls(self, key: str) -> None:
        """As every browser's; and what is shown decides which controls are heeded."""
        super().update_controls(key)
        show = self.controls["show"].value
        cut = show == RECUT or self.fixed["sweep"] is not None
        self.enable(pair=show in (FOUR, DIFFERENCE, TRUTH), opacity=show != DIFFERENCE)
        self.enable(score_cut=cut, background=cut)

    def sweep(self, count: int = 20) -> None:
        """Compute the mIoU at all cuts on images spread over the split; show its curves, or why it cannot."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            samples = self.files.samples
            names = [name for name, sample in samples.items() if sample.mask] or list(samples)
            spread = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
            names = [names[index] for index in spread]
            self.set(sweep=sweep(self.inspector, names, self.files.images, self.notify))
        except Exception as error:
            self.show_error(error)
        finally:
            self._sweeping.release()

    def render_image(self, state: dict) -> draw.Picture:
        """The masks of an image."""
        if state["show"] == FOUR:
            panels = [self._panel(state, kind, draw.QUARTER) for kind in (*KINDS, DIFFERENCE)]
        else:
            panels = [self._panel(state, state["show"], (draw.HEIGHT, draw.WIDTH))]
        labels = self.files.read(state["image"])[1].values()
        legend = class_legend([index for label in labels for index in np.unique(label)], self.manifest)
        if state["show"] in (FOUR, DIFFERENCE):
            legend |= draw.ERRORS if state["pair"][1] == TRUTH else BY_CRF
        return charts.page(panels, legend)

    def render_image_charts(self, state: dict) -> draw.Picture:
        """The image's IoU per class, and the sweep where one was made."""
        parts = self._iou(state)
        if state["sweep"]:
            parts += _sweep_charts(state, state["sweep"])
        return draw.below(*parts)

    def thumbnail(self, state: dict, name: str) -> draw.Picture:
        """An image under its prediction."""
        return self.files.thumbnail(name)

    def _panel(self, state: dict, kind: str, size: tuple[int, int]) -> draw.Picture:
        """One kind of labels over the image, with its name."""
        rgb = self.files.read(state["image"])[0]

        def paint(resize):
            if kind == DIFFERENCE:
                label, other = (self.files.labels(state["image"], part) for part in state["pair"])
                return draw.striped(resize(draw.grey(rgb)), resize(error_kinds(label, other)))
            label = self._labels(state, kind)
            return draw.tint(resize(rgb), resize(label), self.manifest.shades, state["opacity"])

        title = " / ".join(state["pair"]) if kind == DIFFERENCE else kind
        return draw.panel(title, rgb.shape, size, paint)

    def _labels(self, state: dict, kind: str) -> np.ndarray:
        """Labels of the image, from the run's files or, cut by the sliders, of the network."""
        if kind != RECUT:
            return self.files.labels(state["image"], kind)
        inspection = self.inspector.inspect(state["image"], ALL_VIEWS)
        cut = recut(inspection.masks, inspection.probabilities, state["score_cut"], state["background"])
        return at_size(cut, self.files.read(state["image"])[0].shape[:2])

    def _iou(self, state: dict) -> list[np.ndarray]:
        """The IoU of the labels that are shown, per class."""
        kind = state["show"]
        if kind in (FOUR, DIFFERENCE, TRUTH):
            kind = state["pair"][0]
        try:
            label, truth = self._labels(state, kind), self.files.labels(state["image"], TRUTH)
        except draw.Missing as error:
            return [draw.paragraph(f"no IoU: {error}", charts.WIDTH)]
        iou = class_iou(label, truth, self.manifest.num_classes)
        listed = np.argsort(-iou, kind="stable")[: np.isfinite(iou).sum()][: charts.ROWS]  # NaN comes last
        whole = self.files.metrics.get("per_class_iou_crf" if kind == WITH_CRF else "per_class_iou") or {}
        title = f"IoU, {kind}: mean {np.nanmean(iou):.2f}"
        parts = [charts.bars(iou, listed, self.manifest, title, ticks=whole)]
        if whole:
            note = f"bars: this picture; black marks: all of {self.files.images}"
            parts.append(draw.paragraph(note, charts.WIDTH, 11))
        return parts

    def describe(self, state: dict) -> str:
        """The image, its IoU, and what a sweep was computed on."""
        if state["image"] is None:
            return self.describe_empty(state, self.run, self.files.images, self.files.iou)
        text = state["image"]
        if text in self.files.iou:
            text += f": IoU {self.files.iou[text]:.2f} without CRF, mean over its classes"
        if state["sweep"]:
            text += f"; {_describe_sweep(state['sweep'])}"
        return text


def _describe_sweep(result: Sweep) -> str:
    return (
        f"mIoU by WS-FCN's rule on {result.images} pictures of {result.split}, without CRF. "
        f"Dashed: the recipe's {SCORE_CUT} and {BACKGROUND_MASK}, as published for VOC 2012; "
        "this kit tuned neither. "
        f"A value chosen from these curves is tuned on {result.split}"
    )


def _sweep_charts(state: dict, result: Sweep) -> list[np.ndarray]:
    """The mIoU over either cut, the other one at its slider, and both in words."""

    def nearest(grid: np.ndarray, value: float) -> int:
        return np.abs(grid - value).argmin()

    iou, score_cut, background = result.mean_iou, state["score_cut"], state["background"]
    row, column = nearest(SCORE_CUTS, score_cut), nearest(BACKGROUNDS, background)
    published = iou[nearest(SCORE_CUTS, SCORE_CUT), nearest(BACKGROUNDS, BACKGROUND_MASK)]
    text = f"here {iou[row, column]:.3f}, with the recipe's values {published:.3f}"
    return [
        charts.plot(SCORE_CUTS, iou[:, column], "mIoU over the score cut", SCORE_CUT, score_cut),
        charts.plot(BACKGROUNDS, iou[row], "mIoU over the background value", BACKGROUND_MASK, background),
        draw.paragraph(text, charts.WIDTH, 12),
    ]
