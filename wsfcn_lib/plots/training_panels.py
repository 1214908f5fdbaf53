"""The panel of an epoch: what the network sees in a few fixed images, and what it teaches itself from it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.painting import overlay
from wsfcn_lib.data.training_set import TrainSet
from wsfcn_lib.plots.overlays import heat
from wsfcn_lib.plots.saving import to_png
from wsfcn_lib.plots.tiles import tile
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.storage import atomic_write
from wsfcn_lib.supervision import supervision_steps

TITLES = ("image", "CAM", "refined CAM", "pseudo label")


def panel_writer(config: TrainConfig, run: Path | str, count: int = 4) -> Callable[[nn.Module, int], None]:
    """A callback for `train`, which draws `count` validation images into <run>/panels/epoch-<number>.png."""

    def write_panel(net: nn.Module, epoch: int) -> None:
        path = resolve_path(run) / "panels" / f"epoch-{epoch:03d}.png"
        atomic_write(path, panel(net, config, count))

    return write_panel


def panel(net: nn.Module, config: TrainConfig, count: int) -> bytes:
    """The first validation images of different classes, from the image to its pseudo label, as a PNG."""
    manifest = Manifest.load(config.data)
    data = TrainSet(manifest, "val", config.crop, config.seed, augment=False)
    images, tags, _ = zip(*(data[index] for index in _varied(manifest, count)))
    device = next(net.parameters()).device
    steps = supervision_steps(net, torch.stack(images).to(device), torch.stack(tags).to(device), config)
    rows, labels = [], []
    for index, image_tags in enumerate(tags):
        present = image_tags.bool().numpy()
        image = steps["image"][index]
        cams = [steps[name][index, 1:][present].max(0, initial=0) for name in ("masks", "refined")]
        heats = [heat(image, cam.clip(0, 1)) for cam in cams]
        rows.append([image, *heats, overlay(image, steps["pseudo"][index], manifest.shades)])
        labels.append(", ".join(np.array(manifest.names[1:])[present]))
    figure = tile(rows, TITLES, labels)
    return to_png(figure, rows=row_ends(figure))


def _varied(manifest: Manifest, count: int) -> list[int]:
    """Indices of `count` validation images: those that bring a class not yet seen, then the first others."""
    seen, varied, others = set(), [], []
    for index, sample in enumerate(manifest.samples("val")):
        classes = set(np.flatnonzero(sample.tags))
        if classes <= seen:
            others.append(index)
        else:
            varied.append(index)
        seen |= classes
    return (varied + others)[:count]


def row_ends(figure: Figure) -> str:
    """Where each row of a panel of `tile` ends, as shares of its height from above, such as "0.3 0.65 1"."""
    figure.draw_without_rendering()  # lays it out
    columns = figure.axes[0].get_gridspec().ncols
    boxes = [axis.get_position() for axis in figure.axes[::columns]]
    ends = [f"{1 - (upper.y0 + lower.y1) / 2:.4f}" for upper, lower in zip(boxes, boxes[1:])]
    return " ".join([*ends, "1"])


def first_rows(path: Path, count: int) -> np.ndarray:
    """The upper rows of a panel with its titles, (h, W, 3) uint8; all where the file names no ends."""
    with Image.open(path) as file:
        pixels, ends = np.asarray(file.convert("RGB")), file.text.get("rows", "1").split()
    return pixels[: round(len(pixels) * float(ends[:count][-1]))]
