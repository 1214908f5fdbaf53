"""Where a segmentation errs, image by image: near borders, and object by object; kept in counts.npz."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsfcn_lib.evaluation.image_counts import Counts, count_image, stacked
from wsfcn_lib.evaluation.results import ImageResult, PostProcessing
from wsfcn_lib.runs.storage import atomic_write

DIAGNOSTICS_FILE = "counts.npz"


class DiagnosticsRecorder:
    """Collects counts of an evaluation: pass `add` to `evaluate` as `also`, and `save` them afterwards."""

    def __init__(self):
        self.images, self.variants, self.counts = [], [], []

    def add(self, result: ImageResult) -> None:
        """Count one image; without a mask it counts nothing."""
        if result.truth is None:
            return
        self.variants = sorted(result.labels)
        labels = [result.labels[variant] for variant in self.variants]
        self.counts.append(count_image(result.truth, labels, 1 + len(result.probabilities)))
        self.images.append(result.sample.name)

    def save(self, folder: Path) -> None:
        """Write counts.npz into a folder."""
        content = io.BytesIO()
        np.savez_compressed(
            content,
            images=self.images,
            variants=[f"{variant.recipe} {variant.crf:d} {variant.tags}" for variant in self.variants],
            **stacked(self.counts),
        )
        atomic_write(folder / DIAGNOSTICS_FILE, content.getvalue())


@dataclass(frozen=True)
class Diagnostics(Counts):
    """Counts of an evaluation under its post-processings, as `DiagnosticsRecorder` saved them."""

    @classmethod
    def load(cls, folder: Path) -> "Diagnostics":
        """Read counts.npz of a folder; older files have no `boundary`."""
        with np.load(folder / DIAGNOSTICS_FILE) as file:
            content = dict(file)
        content["images"] = tuple(content["images"].tolist())
        variants = []
        for words in content["variants"]:
            recipe, crf, tags = words.split()
            variants.append(PostProcessing(recipe, crf == "1", tags))
        content["variants"] = tuple(variants)
        return cls(**content)
