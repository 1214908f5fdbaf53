"""The CAM explorer: why a network sees a class where it does, layer upon layer over a picture."""

from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.browse import ANY, WIDE, Browser, dropdown, fraction, image_scores
from wsfcn_lib.explore.inspection import SHIPS, STEPS, VIEWS, Inspection, Inspector, decode, stamp
from wsfcn_lib.explore.layers import (
    ALL,
    HEIGHT,
    LAYERS,
    WIDTH,
    Missing,
    changed,
    errors_of,
    iou_of,
    layered,
    reading,
)
from wsfcn_lib.explore.shell import column, row
from wsfcn_lib.infer import SCORE_CUT, SHIPPED
from wsfcn_lib.runs.paths import ROOT, RUNS

MODES, ROWS = ("layers", "what changed"), 12  # bars at most
CUTS = {"foreground_cut": "class cut", "background_cut": "background cut", "floor": "least cut"}


def runs_with_network(folder: Path = RUNS) -> list[str]:
    """Run folders that hold a snapshot, relative to the repository where they lie in it."""
    found = sorted({path.parents[1] for path in folder.glob("*/checkpoints/*.safetensors")})
    return [path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path) for path in found]


class CamExplorer(Browser):
    """Choose a network, a picture and a class; lay over it what the network made of it.

    Args:
        run: a run folder; empty: the network that ships.
        images: a split, a list or a folder, as `subjects.samples_of` takes it.
        data: folder with a manifest, for the network that ships.
        snapshot: of that run; of others the best is taken.
        source: further arguments of `Inspector`, such as scales, flip and device.
    """

    def __init__(
        self, run: str = "", images: str = "val", data: str = "", snapshot: str = "best", **source: object
    ):
        self.run, self.images, self.snapshot, self.uploads = run or SHIPS, images, snapshot, {}
        source |= {"uploads": self.uploads, "say": self.say}
        self._open = lru_cache(2)(
            lambda run, stamped: Inspector(
                run, images, data if run == SHIPS else "", self._which(run), **source
            )
        )
        names = list(dict.fromkeys([self.run, *([SHIPS] if SHIPPED.is_file() else []), *runs_with_network()]))
        controls = {"run": dropdown("network", names)} | self.browsing() | _questions() | _layers()
        self.upload = widgets.FileUpload(
            accept="image/*", description="your own picture", layout={"width": "310px"}
        )
        self.upload.observe(self._uploaded, names="value")
        pick = column(
            *(controls[key] for key in ("run", "only", "order", "image")), self.buttons(), self.upload
        )
        ask = column(
            *(controls[key] for key in ("target", "view", "across", "down", "mode", "before", "after"))
        )
        rows = [row(controls[layer], controls[f"{layer}_opacity"]) for layer in LAYERS]
        layers = column(*rows, controls["iterations"], *(controls[key] for key in CUTS))
        super().__init__(self.render, controls, self.words, row(pick, ask, layers, wrap=True))

    def source(self, run: str) -> Inspector:
        """The network of a run with its pictures; opened anew when its best snapshot has changed."""
        return self._open(run, stamp(run, self._which(run)))

    def _which(self, run: str) -> str:
        return self.snapshot if run == self.run else "best"

    def adapt(self, key: str) -> None:
        """Another run brings other classes and cuts; run, filter and order make the list of pictures."""
        self._enable()
        try:
            source = self.source(self.controls["run"].value)
        except Exception:  # the drawing will meet it too, and show it
            self.controls["image"].options = ()
            return
        if key == "run":
            for name, first in (("target", ALL), ("only", ANY)):
                old = self.controls[name].value
                self.controls[name].options = (first, *source.manifest.names[1:])
                self.controls[name].value = old if old in source.manifest.names else first
            for name in CUTS:
                self.controls[name].value = getattr(source.trained.config, name)
            self.controls["iterations"].value = min(STEPS, source.trained.config.pamr_iterations)
        if key in ("run", "only", "order"):
            self._list(source, anew=key == "order")

    def _enable(self) -> None:
        state, layered = self.state, self.state["mode"] == MODES[0]
        seen = {layer for layer in LAYERS if state[layer]} if layered else {state["before"], state["after"]}
        heeded = {layer: layered or layer == "crf" for layer in LAYERS}  # IoU is told with CRF in either view
        heeded |= {f"{layer}_opacity": layered and layer in seen for layer in LAYERS} | dict.fromkeys(
            CUTS, "pseudo" in seen
        )
        self.enable(
            before=not layered, after=not layered, iterations=bool(seen & {"pamr", "pseudo"}), **heeded
        )
        for layer in LAYERS:  # on: coloured, off: grey; two shades of one colour do not tell which is which
            self.controls[layer].button_style = "info" if state[layer] else ""

    def _list(self, source: Inspector, anew: bool = False) -> None:
        scores = self._scores(self.controls["run"].value)
        self.fill(source.samples, source.manifest.names, scores, self.uploads, anew)

    def _scores(self, run: str) -> dict[str, float]:
        return image_scores("" if run == SHIPS else run, self.images)

    def _uploaded(self, change: dict) -> None:
        try:
            for file in change["new"]:
                key = f"your own {len(self.uploads) + 1}: {file['name']}"  # never that of another picture
                self.uploads[key] = decode(bytes(file["content"]), file["name"])
                with self.held(), self.adapting:
                    self._list(self.source(self.controls["run"].value))
                    self.controls["image"].value = key
        except Exception as error:  # an unreadable file, or no network to look at it
            self.show(error)

    def render(self, state: dict) -> np.ndarray:
        """The picture of a state: layers or changes, the reading, the legend, and the scores of the classes."""
        source = self.source(state["run"])
        if state["image"] is None:
            return draw.message(self.words(state), HEIGHT, WIDTH)
        look, names, palette = (
            source.look(state["image"], state["view"]),
            source.manifest.names,
            source.manifest.palette,
        )
        if state["mode"] == MODES[0]:
            picture, entries, notes = layered(look, state, names, palette)
        else:
            try:
                picture, entries, note = changed(look, state, names, palette)
            except Missing as error:
                return draw.message(str(error), HEIGHT, WIDTH)
            notes = [note]
        place = [
            round(state[key] / 100 * (side - 1))
            for key, side in zip(("across", "down"), picture.shape[1::-1])
        ]
        stage = draw.framed(draw.cross(picture, *place), HEIGHT, WIDTH)
        width = stage.shape[1]
        foot = [draw.paragraph(reading(look, state, names), width), charts.legend(entries, width)]
        foot += [draw.paragraph(note, width, ground=draw.NOTE) for note in notes]
        return draw.beside(draw.below(stage, *foot), _sidebar(look, state, names, palette))

    def words(self, state: dict) -> str:
        """What is seen, in one line for those who cannot see it."""
        source = self.source(state["run"])
        if state["image"] is None:
            return self.nothing(state, state["run"], self.images, self._scores(state["run"]))
        look, names = source.look(state["image"], state["view"]), np.array(source.manifest.names[1:])
        tags = "unknown" if look.tags is None else ", ".join(names[look.tags])
        found = (
            ", ".join(f"{names[c]} {look.chances[c]:.2f}" for c in np.flatnonzero(look.predicted))
            or "no class"
        )
        said = (
            f"{state['image']}: predicted {found}; tags {tags}; {reading(look, state, source.manifest.names)}"
        )
        return said + "; pseudo labels are made of the predicted classes" * (
            look.tags is None and state["pseudo"]
        )


def _sidebar(look: Inspection, state: dict, names: tuple[str, ...], palette: np.ndarray) -> np.ndarray:
    """The classes' scores, and the prediction's IoU in this picture where there is truth."""
    asked = (np.array(names[1:]) == state["target"]) | (False if look.tags is None else look.tags)
    best = np.argsort(-(look.chances + asked), kind="stable")[
        :ROWS
    ]  # what is asked about has a bar, however low
    best = best[np.argsort(-look.chances[best], kind="stable")]
    filled = [look.tags is None or look.tags[c] for c in best]
    said = f"dashed: present above {SCORE_CUT}" + ("" if look.tags is None else "; filled: in the picture")
    shown = [names[c + 1] for c in best]
    bars = charts.bars(
        look.chances[best],
        shown,
        palette[best + 1],
        "score of each class",
        filled,
        SCORE_CUT,
        chosen=state["target"],
    )
    parts = [bars, draw.paragraph(said, bars.shape[1], 11)]
    if look.truth is None:
        return draw.below(*parts)
    try:
        label, end = errors_of(look, state)[0], ", with CRF" * state["crf"]
    except Missing:  # no CRF here
        label, end = look.label, ""
    iou = iou_of(label, look.truth, len(names))
    listed = np.flatnonzero(iou == iou)[:ROWS]
    title = "IoU in this picture" + end
    told = [names[c] for c in listed]
    return draw.below(*parts, charts.bars(iou[listed], told, palette[listed], title, chosen=state["target"]))


def _questions() -> dict[str, widgets.Widget]:
    found = {
        "target": dropdown("class", [ALL]),
        "view": dropdown("seen in", VIEWS),
        "mode": dropdown("show", MODES),
    }
    pairs = [(name, layer) for layer, (name, _) in LAYERS.items() if layer != "errors"]
    found |= {"before": dropdown("from", pairs, "cam"), "after": dropdown("to", pairs, "pamr")}
    return found | {
        key: widgets.IntSlider(50, 0, 100, description=f"cross {key}, %", **WIDE)
        for key in ("across", "down")
    }


def _layers() -> dict[str, widgets.Widget]:
    found = {}
    for layer, (name, opacity) in LAYERS.items():
        look = {"tooltip": f"{name}: on or off", "layout": {"width": "170px"}}
        found[layer] = widgets.ToggleButton(layer == "cam", description=name, **look)
        slim = {
            "layout": {"width": "144px"},
            "style": {"description_width": "50px"},
            "tooltip": f"opacity of {name}",
        }
        found[f"{layer}_opacity"] = widgets.FloatSlider(
            opacity, min=0, max=1, step=0.05, description="opacity", readout=False, **slim
        )
    found["iterations"] = widgets.IntSlider(STEPS, 0, STEPS, description="PAMR steps", **WIDE)
    return found | {key: fraction(name, 0.5) for key, name in CUTS.items()}
