"""The files that an evaluation left in its run: masks and IoU of its images, and the IoU of each class."""

import csv
import json
from functools import lru_cache

import numpy as np

from wsfcn_lib.data.images import read_image, read_mask
from wsfcn_lib.data.manifest import SPLITS, Manifest
from wsfcn_lib.evaluation.inputs import file_suffix, images_label, samples_of
from wsfcn_lib.explore import draw
from wsfcn_lib.explore.draw import Missing
from wsfcn_lib.infer import at_size, shrink
from wsfcn_lib.protocol import LONGEST
from wsfcn_lib.runs.paths import resolve_path

PREDICTION, WITH_CRF, TRUTH = KINDS = ("prediction", "with CRF", "ground truth")
MISSING = {
    PREDICTION: "no masks of {images} in {run}: run 05_evaluate on it",
    WITH_CRF: "no masks with CRF in {run}: 05_evaluate makes them where pydensecrf2 is installed",
    TRUTH: "no ground truth: this picture has no mask",
}


def read_metrics(run: str, images: str) -> dict:
    """The metrics of an evaluation; {} where 05_evaluate has measured none, or another split after these."""
    path = resolve_path(run) / f"metrics{file_suffix(images)}.json"
    metrics = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return metrics if metrics.get("split") == images_label(images) else {}


def read_image_iou(run: str, images: str) -> dict[str, float]:
    """IoU of each evaluated image by name; {} where 05_evaluate has measured none, or another split since."""
    path = resolve_path(run) / f"per_image{file_suffix(images)}.csv"
    if not path.is_file() or images in SPLITS and not read_metrics(run, images):
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["image"]: float(row["iou"]) for row in csv.DictReader(file) if row.get("iou")}


class EvaluationFiles:
    """The files of a finished evaluation; nothing is computed.

    Args:
        run: the run folder.
        manifest: its data set.
        images: what was evaluated: a split, a list or a folder.
    """

    def __init__(self, run: str, manifest: Manifest, images: str):
        self.run, self.manifest, self.images = run, manifest, images_label(images)
        self.samples = {sample.name: sample for sample in samples_of(images, manifest)}
        self.iou, self.metrics = read_image_iou(run, images), read_metrics(run, images)
        self.read = lru_cache(4)(self._read)
        self.thumbnail = lru_cache(500)(self._thumbnail)

    def labels(self, name: str, kind: str) -> np.ndarray:
        """An image's labels of one kind, (H, W) uint8; Missing where the run has none."""
        labels = self.read(name)[1]
        if kind not in labels:
            raise Missing(MISSING[kind].format(images=self.images, run=self.run))
        return labels[kind]

    def _read(self, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """An image (H, W, 3) uint8, at most LONGEST pixels long, and {kind: labels (H, W) uint8}."""
        sample, masks = self.samples[name], resolve_path(self.run) / "masks"
        files = {
            PREDICTION: masks / self.images / f"{name}.png",
            WITH_CRF: masks / f"{self.images}_crf" / f"{name}.png",
        }
        files = {kind: path for kind, path in files.items() if path.is_file()}
        if sample.mask:
            files[TRUTH] = sample.mask
        rgb = np.ascontiguousarray(shrink(read_image(sample.image), LONGEST))
        labels = {
            kind: at_size(read_mask(path, self.manifest), rgb.shape[:2]) for kind, path in files.items()
        }
        return rgb, labels

    def _thumbnail(self, name: str) -> np.ndarray:
        """An image under its prediction, small, (h, w, 3) uint8; as it is where the run has none."""
        rgb, labels = self._read(name)
        shrink = draw.fitted(rgb.shape, *draw.THUMB, shrink=True)
        if PREDICTION not in labels:
            return shrink(rgb)
        return draw.tint(shrink(rgb), shrink(labels[PREDICTION]), self.manifest.shades, 0.8)
