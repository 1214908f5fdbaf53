"""The mask explorer: what an evaluation painted, picture by picture, from the files of its run; and what its cuts do."""

import threading
from functools import cached_property

import ipywidgets as widgets
import numpy as np

from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.evaluation.inputs import images_label
from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.browse import WIDE, WORST, Browser, dropdown, fraction
from wsfcn_lib.explore.evaluated import KINDS, Evaluated
from wsfcn_lib.explore.inspection import VIEWS, Inspector
from wsfcn_lib.explore.layers import HEIGHT, WIDTH, Missing, iou_of, kinds_of, tint
from wsfcn_lib.explore.shell import column, row
from wsfcn_lib.explore.sweep import BACKGROUNDS, SCORE_CUTS, Sweep, recut, sweep
from wsfcn_lib.infer import LONG_SIDE, SCORE_CUT, at_size
from wsfcn_lib.postprocess import BACKGROUND_MASK

FOUR, DIFFERENCE, RECUT = "all four", "difference", "cut by the sliders"
ROWS = 12  # bars at most


class MaskExplorer(Browser):
    """Look through the masks of a finished evaluation.

    Args:
        run: the run folder.
        manifest: its data set.
        images: what was evaluated: a split, a list or a folder.
        source: further arguments of `Inspector`, whose soft masks are needed by "sweep" and "cut by the sliders" only.
    """

    def __init__(self, run: str, manifest: Manifest, images: str = "test", **source: object):
        self.run, self.manifest, self.images = run, manifest, images
        self.files, self._settings, self._busy = Evaluated(run, manifest, images), source, threading.Lock()
        self.samples, self.scores, self.metrics = self.files.samples, self.files.scores, self.files.metrics
        self.labels, self._read = self.files.labels, self.files.read
        controls = self.browsing(manifest.names[1:], WORST if self.scores else None)
        controls |= {"show": dropdown("show", (FOUR, *KINDS, DIFFERENCE, RECUT))}
        pairs = [
            (f"{a} / {b}", (a, b))
            for a, b in ((KINDS[0], KINDS[2]), (KINDS[1], KINDS[2]), (KINDS[0], KINDS[1]))
        ]
        controls |= {"pair": dropdown("difference", pairs), "opacity": fraction("opacity", 0.65, step=0.05)}
        steps = {
            "score_cut": ("score cut", SCORE_CUTS, SCORE_CUT),
            "background": ("background", BACKGROUNDS, BACKGROUND_MASK),
        }
        controls |= {
            key: fraction(name, at, grid[0], grid[-1], 0.05) for key, (name, grid, at) in steps.items()
        }
        self.button = widgets.Button(description="sweep up to 20 pictures", layout=WIDE["layout"])
        self.button.on_click(lambda _: self.sweep())
        pick = column(*(controls[key] for key in ("order", "only", "image")), self.buttons())
        show = column(*(controls[key] for key in ("show", "pair", "opacity")))
        cuts = column(controls["score_cut"], controls["background"], self.button)
        super().__init__(self.render, controls, self.words, row(pick, show, cuts, wrap=True), sweep=None)

    @cached_property
    def source(self) -> Inspector:
        """A network of the explorer's own, opened when soft masks are first asked for."""
        return Inspector(self.run, self.images, say=self.say, **{"long_side": LONG_SIDE} | self._settings)

    def adapt(self, key: str) -> None:
        """Filter and order make the list of pictures."""
        show, cut = (
            self.controls["show"].value,
            self.controls["show"].value == RECUT or self.fixed["sweep"] is not None,
        )
        self.enable(
            pair=show in (FOUR, DIFFERENCE, KINDS[2]),
            opacity=show != DIFFERENCE,
            score_cut=cut,
            background=cut,
        )
        if key in ("only", "order"):
            self.fill(self.samples, self.manifest.names, self.scores, anew=key == "order")

    def sweep(self, count: int = 20) -> None:
        """Compute the mIoU at all cuts on pictures spread over the split, and draw its curves; says what it cannot do."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            names = [name for name, sample in self.samples.items() if sample.mask] or list(self.samples)
            spread = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
            self.set(
                sweep=sweep(
                    self.source, [names[place] for place in spread], images_label(self.images), self.say
                )
            )
        except Exception as error:
            self.show(error)
        finally:
            self._busy.release()

    def render(self, state: dict) -> np.ndarray:
        """The masks of a picture, its IoU per class, and the sweep where one was made."""
        name, names = state["image"], self.manifest.names
        if name is None:
            return draw.message(self.words(state), HEIGHT, WIDTH)
        wanted = (*KINDS, DIFFERENCE) if state["show"] == FOUR else (state["show"],)
        height, width = (240, 320) if len(wanted) == 4 else (HEIGHT, WIDTH)
        panels = [self._panel(state, kind, height, width) for kind in wanted]
        stage = (
            draw.below(draw.beside(*panels[:2]), draw.beside(*panels[2:])) if len(panels) == 4 else panels[0]
        )
        shown = np.unique([c for label in self._read(name)[1].values() for c in np.unique(label)])
        entries = {"left open" if c == 255 else names[c]: tuple(self.manifest.palette[c]) for c in shown if c}
        if state["show"] in (FOUR, DIFFERENCE):
            by_crf = dict(zip(("CRF took away", "CRF added", "CRF made another class"), draw.ERRORS.values()))
            entries |= draw.ERRORS if state["pair"][1] == KINDS[2] else by_crf
        return draw.beside(draw.below(stage, charts.legend(entries, stage.shape[1])), self._sidebar(state))

    def _panel(self, state: dict, kind: str, height: int, width: int) -> np.ndarray:
        """One kind of labels over the picture, with its name; words where it is missing."""
        name, title = state["image"], kind if kind != DIFFERENCE else " / ".join(state["pair"])
        rgb, opacity = self._read(name)[0], state["opacity"]
        large = draw.fitted(rgb.shape, height, width, shrink=True)
        try:
            if kind == DIFFERENCE:
                label, other = (self.labels(name, part) for part in state["pair"])
                grey = large(draw.blend(rgb, rgb.mean(2, keepdims=True), 1.0))
                picture = draw.striped(grey, large(kinds_of(label, other)), 1.0)
            else:
                label = self._recut(state) if kind == RECUT else self.labels(name, kind)
                picture = tint(large(rgb), large(label), self.manifest.palette, opacity)
        except Missing as error:
            picture = draw.message(str(error), height, width)
        return draw.below(draw.paragraph(title, width, 12), draw.framed(picture, height, width))

    def _recut(self, state: dict) -> np.ndarray:
        look, size = self.source.look(state["image"], VIEWS[1]), self._read(state["image"])[0].shape[:2]
        return at_size(recut(look.masks, look.chances, state["score_cut"], state["background"]), size)

    def _shown(self, state: dict) -> tuple[str, np.ndarray]:
        """The labels whose IoU is told, and what they are called."""
        if state["show"] == RECUT:
            return RECUT, self._recut(state)
        kind = state["show"] if state["show"] in KINDS[:2] else state["pair"][0]
        return kind, self.labels(state["image"], kind)

    def _sidebar(self, state: dict) -> np.ndarray:
        names, palette, parts = np.array(self.manifest.names), self.manifest.palette, []
        try:
            kind, label = self._shown(state)
            iou = iou_of(label, self.labels(state["image"], KINDS[2]), len(names))
            whole = self.metrics.get("per_class_iou" + "_crf" * (kind == KINDS[1])) or {}
            order = [c for c in np.argsort(-np.nan_to_num(iou, nan=-1), kind="stable") if iou[c] == iou[c]][
                :ROWS
            ]
            ticks = [np.nan if (value := whole.get(names[c])) is None else value for c in order]
            title = f"IoU, {kind}: mean {np.nanmean(iou):.2f}"
            parts = [charts.bars(iou[order], names[order], palette[order], title, ticks=ticks)]
            parts += [
                draw.paragraph(
                    f"bars: this picture; black marks: all of {images_label(self.images)}", charts.WIDTH, 11
                )
            ] * bool(whole)
        except Missing as error:
            parts = [draw.paragraph(f"no IoU: {error}", charts.WIDTH)]
        return draw.below(*parts, *(_curves(state, state["sweep"]) if state["sweep"] else ()))

    def words(self, state: dict) -> str:
        """What is seen, in one line, for those who cannot see it."""
        if state["image"] is None:
            return self.nothing(state, self.run, images_label(self.images), self.scores)
        iou = self.scores.get(state["image"])
        said = state["image"] + ("" if iou is None else f": IoU {iou:.2f} without CRF, mean over its classes")
        return said + ("" if state["sweep"] is None else f"; {_told(state['sweep'])}")


def _told(found: Sweep) -> str:
    told = f"mIoU by WS-FCN's rule on {found.images} pictures of {found.split}, without CRF"
    told += f". Dashed: the recipe's {SCORE_CUT} and {BACKGROUND_MASK}, as published for VOC 2012; this kit tuned neither"
    return f"{told}. A value chosen from these curves is tuned on {found.split}"


def _curves(state: dict, found: Sweep) -> list[np.ndarray]:
    """The mIoU over either cut, the other one at its slider, and both in words."""
    cut, ground = (
        int(np.abs(grid - state[key]).argmin())
        for grid, key in ((SCORE_CUTS, "score_cut"), (BACKGROUNDS, "background"))
    )
    recipe = found.mean_iou[
        np.abs(SCORE_CUTS - SCORE_CUT).argmin(), np.abs(BACKGROUNDS - BACKGROUND_MASK).argmin()
    ]
    return [
        charts.plot(
            SCORE_CUTS, found.mean_iou[:, ground], "mIoU over the score cut", SCORE_CUT, state["score_cut"]
        ),
        charts.plot(
            BACKGROUNDS,
            found.mean_iou[cut],
            "mIoU over the background value",
            BACKGROUND_MASK,
            state["background"],
        ),
        draw.paragraph(
            f"here {found.mean_iou[cut, ground]:.3f}, with the recipe's values {recipe:.3f}", charts.WIDTH, 12
        ),
        draw.paragraph(_told(found), charts.WIDTH, 11),
    ]
