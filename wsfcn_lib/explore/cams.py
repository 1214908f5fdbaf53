"""The CAM explorer: why a network sees a class where it does, layer upon layer over an image."""

from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from wsfcn_lib.data.images import open_image
from wsfcn_lib.data.model_zoo import SHIPPED
from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.browse import ANY, Browser
from wsfcn_lib.explore.evaluated import read_image_iou
from wsfcn_lib.explore.inspection import SHIPS, STEPS, VIEWS, Inspection, Inspector, snapshot_stamp
from wsfcn_lib.explore.layers import (
    ALL,
    LAYERS,
    changed,
    class_iou,
    cross_hair,
    layered,
    prediction,
    reading,
)
from wsfcn_lib.explore.shell import WIDE, dropdown, slider
from wsfcn_lib.runs.paths import ROOT, RUNS

LAYERED, CHANGED = MODES = ("layers", "what changed")
CUTS = {"foreground_cut": "class cut", "background_cut": "background cut", "floor": "least cut"}


def runs_with_network(folder: Path = RUNS) -> list[str]:
    """Run folders that hold a snapshot, relative to the repository where they lie in it."""
    runs = sorted({path.parents[1] for path in folder.glob("*/checkpoints/*.safetensors")})
    return [run.relative_to(ROOT).as_posix() if run.is_relative_to(ROOT) else str(run) for run in runs]


class CamExplorer(Browser):
    """Choose a network, an image and a class; lay over it what the network made of it.

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

        self._opened = opened
        runs = [self.run, *([SHIPS] if SHIPPED.is_file() else []), *runs_with_network()]
        controls = (
            {"run": dropdown("network", list(dict.fromkeys(runs)))} | self.list_controls() | _controls()
        )
        self.upload = widgets.FileUpload(
            accept="image/*", description="your own picture", layout=WIDE["layout"]
        )
        self.upload.observe(self._uploaded, names="value")
        layers = [widgets.HBox([controls[layer], controls[f"{layer}_opacity"]]) for layer in LAYERS]
        columns = [
            ["run", "only", "order", "image", self.buttons(), self.upload],
            ["target", "view", "across", "down", "mode", "before", "after"],
            [*layers, "iterations", *CUTS],
        ]
        super().__init__(controls, columns)

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
        state = self.state
        is_layered = state["mode"] == LAYERED
        shown = (
            {layer for layer in LAYERS if state[layer]} if is_layered else {state["before"], state["after"]}
        )
        self.enable(before=not is_layered, after=not is_layered, iterations=bool(shown & {"pamr", "pseudo"}))
        self.enable(**dict.fromkeys(CUTS, "pseudo" in shown))
        for layer in LAYERS:
            # IoU is told with CRF in either mode
            self.enable(
                **{layer: is_layered or layer == "crf", f"{layer}_opacity": is_layered and layer in shown}
            )
            # on: coloured, off: grey; two shades of one colour do not tell which is which
            self.controls[layer].button_style = "info" if state[layer] else ""

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
        """Layers or changes, the reading, the legend, and the scores of the classes."""
        inspection = self.inspector(state["run"]).inspect(state["image"], state["view"])
        if state["mode"] == LAYERED:
            picture, legend, notes = layered(inspection, state)
        else:
            try:
                picture, legend, note = changed(inspection, state)
            except draw.Missing as error:
                return draw.message(str(error))
            notes = [note]
        y, x = cross_hair(state, picture)
        framed = draw.framed(draw.cross(picture, x, y))
        width = framed.shape[1]
        left = [framed, draw.paragraph(reading(inspection, state), width), charts.legend(legend, width)]
        left += [draw.paragraph(note, width, ground=draw.NOTE) for note in notes]
        return draw.beside(draw.below(*left), _sidebar(inspection, state))

    def describe(self, state: dict) -> str:
        """Predicted classes, tags and the reading, in one line."""
        inspector = self.inspector(state["run"])
        if state["image"] is None:
            return self.describe_empty(state, state["run"], self.images, self._scores(state["run"]))
        inspection, names = (
            inspector.inspect(state["image"], state["view"]),
            np.array(inspector.manifest.names)[1:],
        )
        scores = zip(names, inspection.probabilities, inspection.predicted)
        predicted = ", ".join(f"{name} {score:.2f}" for name, score, yes in scores if yes) or "no class"
        tags = "unknown" if inspection.tags is None else ", ".join(names[inspection.tags])
        text = f"{state['image']}: predicted {predicted}; tags {tags}; {reading(inspection, state)}"
        if inspection.tags is None and state["pseudo"]:
            text += "; pseudo labels are made of the predicted classes"
        return text


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
    """What is asked of an image, the layers and their opacities, what maps and pseudo labels depend on."""
    pairs = [(name, layer) for layer, (name, _) in LAYERS.items() if layer != "errors"]
    controls = {
        "target": dropdown("class", [ALL]),
        "view": dropdown("seen in", VIEWS),
        "mode": dropdown("show", MODES),
        "before": dropdown("from", pairs, "cam"),
        "after": dropdown("to", pairs, "pamr"),
    }
    for key in ("across", "down"):
        controls[key] = widgets.IntSlider(50, 0, 100, description=f"cross {key}, %", **WIDE)
    for layer, (name, opacity) in LAYERS.items():
        controls[layer] = widgets.ToggleButton(
            layer == "cam", description=name, tooltip=f"{name}: on or off", layout={"width": "170px"}
        )
        controls[f"{layer}_opacity"] = slider(
            "opacity",
            opacity,
            step=0.05,
            tooltip=f"opacity of {name}",
            readout=False,
            layout={"width": "144px"},
            style={"description_width": "50px"},
        )
    controls["iterations"] = widgets.IntSlider(STEPS, 0, STEPS, description="PAMR steps", **WIDE)
    return controls | {key: slider(name, 0.5) for key, name in CUTS.items()}
