"""The picture panel of an epoch: what the network sees in a few fixed images, and what it teaches itself from it."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.training_set import TrainSet
from wsfcn_lib.plots.overlays import heat, overlay
from wsfcn_lib.plots.saving import to_png
from wsfcn_lib.plots.tiles import tile
from wsfcn_lib.runs.storage import atomic_write
from wsfcn_lib.supervision import supervision_steps

COLUMNS = ("image", "CAM", "refined CAM", "pseudo label")


def write_panel(net: nn.Module, manifest: Manifest, config: TrainConfig, path: Path, count: int = 4) -> None:
    """Draw the first validation images of different classes through all stages, as a PNG."""
    data = TrainSet(manifest, "val", config.crop, config.seed, augment=False)
    images, tags, _ = zip(*(data[0, index] for index in _varied(manifest, count)))
    device = next(net.parameters()).device
    images, tags = torch.stack(images).to(device), torch.stack(tags).to(device)
    found = supervision_steps(net, images, tags, config)
    rows, labels = [], []
    for b, present in enumerate(tags.bool().cpu().numpy()):
        maps = [found[name][b, 1:][present].max(0, initial=0) for name in ("masks", "refined")]
        rgb, pseudo = found["image"][b], found["pseudo"][b]
        rows.append([rgb, *(heat(rgb, m.clip(0, 1)) for m in maps), overlay(rgb, pseudo, manifest.palette)])
        labels.append(", ".join(np.array(manifest.names[1:])[present]))
    panel = tile(rows, COLUMNS, labels)
    atomic_write(path, to_png(panel, rows=row_ends(panel)))


def row_ends(panel: Figure) -> str:
    """Where each row of a panel of `tile` ends, as shares of its height from the upper edge, such as "0.3 0.65 1"."""
    panel.draw_without_rendering()  # lays it out
    places = [axis.get_position() for axis in panel.axes[:: panel.axes[0].get_gridspec().ncols]]
    return " ".join(
        [f"{1 - (upper.y0 + lower.y1) / 2:.4f}" for upper, lower in zip(places, places[1:])] + ["1"]
    )


def first_rows(path: Path, count: int) -> np.ndarray:
    """The upper rows of a panel with its titles, (h, W, 3) uint8; all where the file does not tell where its rows end."""
    with Image.open(path) as file:
        panel, ends = np.asarray(file.convert("RGB")), file.text.get("rows", "1").split()
    return panel[: round(len(panel) * float(ends[:count][-1]))]


def _varied(manifest: Manifest, count: int) -> list[int]:
    """Indices of validation images that bring classes not yet seen, then the first others."""
    samples, seen, chosen = manifest.samples("val"), np.zeros(manifest.num_classes - 1, bool), []
    for index, sample in enumerate(samples):
        if len(chosen) < count and (np.array(sample.tags) & ~seen).any():
            chosen.append(index)
            seen |= np.array(sample.tags)
    return (chosen + [i for i in range(len(samples)) if i not in chosen])[:count]
