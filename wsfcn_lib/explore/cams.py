"""The CAM explorer: why a network sees a class where it does, layer upon layer over a picture."""

import csv
from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from wsfcn_lib.explore import draw
from wsfcn_lib.explore.layers import ALL, HEIGHT, LAYERS, WIDTH, Missing, changed, layered, reading
from wsfcn_lib.explore.shell import Explorer, column, row
from wsfcn_lib.explore.source import SHIPS, STEPS, VIEWS, Source, decode, stamp
from wsfcn_lib.infer import SCORE_CUT, SHIPPED
from wsfcn_lib.runs import ROOT, RUNS
from wsfcn_lib.subjects import ending_of

ANY, ORDERS, MODES = "any class", ("as listed", "worst first", "best first"), ("layers", "what changed")
MOST = 3000  # names in a list; browsers grow slow with more
CUTS = {"foreground_cut": "class cut", "background_cut": "ground cut", "floor": "least cut"}


def runs_with_network(folder: Path = RUNS) -> list[str]:
    """Run folders that hold a snapshot, relative to the repository where they lie in it."""
    found = sorted({path.parents[1] for path in folder.glob("*/checkpoints/*.safetensors")})
    return [path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path) for path in found]


def image_scores(run: str, images: str) -> dict[str, float]:
    """IoU of each evaluated picture by name; empty where 05_evaluate has measured none of them."""
    path = ROOT / run / f"per_image{ending_of(images)}.csv"
    if run == SHIPS or not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {line["image"]: float(line["iou"]) for line in csv.DictReader(file) if line.get("iou")}


class CamExplorer(Explorer):
    """Choose a network, a picture and a class; lay over it what the network made of it.

    Args:
        run: a run folder; empty: the network that ships.
        images: a split, a list or a folder, as `subjects.samples_of` takes it.
        data: folder with a manifest, for the network that ships.
        scales, flip: of "all views".
        device: where the explorer's own copy of the network computes.
    """

    def __init__(self, run: str = "", images: str = "val", data: str = "", scales=(1.0, 1.5, 2.0), flip=True, device="cpu"):
        self.images, self.uploads = images, {}
        rest = {"data": data, "scales": tuple(scales), "flip": flip, "device": device, "uploads": self.uploads}
        self._open = lru_cache(2)(
            lambda run, stamped: Source(run, images, **rest | {"data": data if run == SHIPS else ""}, say=self.say)
        )
        names = list(dict.fromkeys([run or SHIPS, *([SHIPS] if SHIPPED.is_file() else []), *runs_with_network()]))
        controls = _controls(names)
        self.upload = widgets.FileUpload(accept="image/*", description="your own picture")
        self.back, self.on = (widgets.Button(description=words) for words in ("◀ previous", "next ▶"))
        self.upload.observe(self._uploaded, names="value")
        self.back.on_click(lambda _: self.step(-1))
        self.on.on_click(lambda _: self.step(1))
        pick = column(*(controls[key] for key in ("run", "only", "order", "image")), row(self.back, self.on), self.upload)
        ask = column(*(controls[key] for key in ("target", "view", "across", "down", "mode", "before", "after")))
        rows = [row(controls[layer], controls[f"{layer}_opacity"]) for layer in LAYERS]
        layers = column(*rows, controls["iterations"], *(controls[key] for key in CUTS))
        panel = row(pick, ask, layers, wrap=True)
        self.controls = controls
        for key in ("run", "only"):
            self.adapt(key)
        super().__init__(self.render, controls, self.words, panel)

    def source(self, run: str) -> Source:
        """The network of a run with its pictures; opened anew when its best snapshot has changed."""
        return self._open(run, stamp(run))

    def step(self, by: int) -> None:
        """Go on in the list of pictures, round and round."""
        image = self.controls["image"]
        if image.options:
            image.index = ((image.index or 0) + by) % len(image.options)

    def adapt(self, key: str) -> None:
        """Another run brings other classes and cuts; run, filter and order make the list of pictures."""
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
        if key in ("run", "only", "order"):
            self._list(source)

    def _list(self, source: Source) -> None:
        run, only, order, image = (self.controls[key] for key in ("run", "only", "order", "image"))
        scores, old, wanted = (
            image_scores(run.value, self.images),
            image.value,
            source.manifest.names.index(only.value) if only.value != ANY else 0,
        )
        names = [name for name, sample in source.samples.items() if not wanted or sample.tags[wanted - 1]]
        if order.value != ORDERS[0]:
            names = sorted((n for n in names if n in scores), key=scores.get, reverse=order.value == ORDERS[2])
        options = [(f"{name} · IoU {scores[name]:.2f}" if name in scores else name, name) for name in names[:MOST]]
        options += [(f"your own: {name}", name) for name in self.uploads]
        values = [value for _, value in options]
        image.options = options
        image.value = old if old in values else next(iter(values), None)

    def _uploaded(self, change: dict) -> None:
        for file in change["new"]:
            try:
                self.uploads[file["name"]] = decode(bytes(file["content"]), file["name"])
            except ValueError as error:
                self.show(error)
                return
            with self.held():
                self._list(self.source(self.controls["run"].value))
                self.controls["image"].value = file["name"]

    def render(self, state: dict) -> np.ndarray:
        """The picture of a state: layers or changes, the reading, the legend, and the scores of the classes."""
        source = self.source(state["run"])
        if state["image"] is None:
            return draw.message(self.words(state), HEIGHT, WIDTH)
        look, names, palette = source.look(state["image"], state["view"]), source.manifest.names, source.manifest.palette
        if state["mode"] == MODES[0]:
            picture, entries, notes = layered(look, state, names, palette)
        else:
            try:
                picture, entries, note = changed(look, state, names, palette)
            except Missing as error:
                return draw.message(str(error), HEIGHT, WIDTH)
            notes = [note]
        place = [round(state[key] / 100 * (side - 1)) for key, side in zip(("across", "down"), picture.shape[1::-1])]
        stage = draw.framed(draw.cross(picture, *place), HEIGHT, WIDTH)
        width = stage.shape[1]
        foot = [draw.paragraph(reading(look, state, names), width), draw.legend(entries, width)]
        foot += [draw.paragraph(note, width, ground=draw.NOTE) for note in notes]
        best = np.argsort(-look.chances, kind="stable")[:14]
        filled = [look.tags is None or look.tags[c] for c in best]
        title = "score of each class" + " (filled: in the picture)" * (look.tags is not None)
        bars = draw.bars(
            look.chances[best], [names[c + 1] for c in best], palette[best + 1], title, filled, SCORE_CUT, chosen=state["target"]
        )
        return draw.beside(draw.below(stage, *foot), bars)

    def words(self, state: dict) -> str:
        """What is seen, in one line for those who cannot see it."""
        source = self.source(state["run"])
        if state["image"] is None:
            if state["order"] != ORDERS[0] and not image_scores(state["run"], self.images):
                return (
                    f"{state['run']} holds no IoU of single pictures of {self.images}: run 05_evaluate on it, or choose as listed"
                )
            return f"no picture of {self.images} holds the class {state['only']}; choose another, or {ANY}"
        look, names = source.look(state["image"], state["view"]), np.array(source.manifest.names[1:])
        tags = "unknown" if look.tags is None else ", ".join(names[look.tags])
        found = ", ".join(f"{names[c]} {look.chances[c]:.2f}" for c in np.flatnonzero(look.predicted)) or "no class"
        said = f"{state['image']}: predicted {found}; tags {tags}; {reading(look, state, source.manifest.names)}"
        return said + "; pseudo labels are made of the predicted classes" * (look.tags is None and state["pseudo"])


def _controls(runs: list[str]) -> dict[str, widgets.Widget]:
    """The controls by their keys in the state."""
    look = {"layout": widgets.Layout(width="310px"), "style": {"description_width": "90px"}}
    choose = {"run": runs, "only": [ANY], "order": ORDERS, "image": [], "target": [ALL], "view": VIEWS, "mode": MODES}
    words = {"run": "network", "only": "pictures of", "order": "order", "image": "picture", "target": "class", "view": "seen in"}
    words |= {"mode": "show"}
    found = {key: widgets.Dropdown(options=options, description=words[key], **look) for key, options in choose.items()}
    pairs = [(name, layer) for layer, (name, _) in LAYERS.items() if layer != "errors"]
    for key, first in (("before", "cam"), ("after", "pamr")):
        found[key] = widgets.Dropdown(options=pairs, value=first, description=f"{key}:", **look)
    for key in ("across", "down"):
        found[key] = widgets.IntSlider(50, 0, 100, description=f"{key}, %", **look)
    for layer, (name, opacity) in LAYERS.items():
        found[layer] = widgets.ToggleButton(layer == "cam", description=name, layout={"width": "170px"})
        slim = {"layout": {"width": "135px"}, "readout": False, "tooltip": f"opacity of {name}"}
        found[f"{layer}_opacity"] = widgets.FloatSlider(opacity, min=0, max=1, step=0.05, **slim)
    found["iterations"] = widgets.IntSlider(STEPS, 0, STEPS, description="PAMR steps", **look)
    for key, name in CUTS.items():
        found[key] = widgets.FloatSlider(0.5, min=0, max=1, step=0.01, description=name, **look)
    return found
