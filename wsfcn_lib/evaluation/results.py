"""What an evaluation counts: pixels and tags, under every way to turn fused masks into labels."""

from typing import NamedTuple

import numpy as np

from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_mask
from wsfcn_lib.data.manifest import Manifest, Sample
from wsfcn_lib.evaluation.inputs import images_label
from wsfcn_lib.metrics import ConfusionMatrix, mean_average_precision, summary
from wsfcn_lib.runs.settings import Settings


class PostProcessing(NamedTuple):
    """One way to turn fused masks into labels."""

    recipe: str
    crf: bool
    tags: str  # "predicted" or "true"; true tags are the upper bound that papers call clean


class ImageResult(NamedTuple):
    """All labels of one image, (H, W) uint8 each, its probabilities (K-1,), tags (K-1,) bool and size (H, W)."""

    sample: Sample
    probabilities: np.ndarray
    tags: np.ndarray
    labels: dict[PostProcessing, np.ndarray]
    size: tuple[int, int]


class EvaluationResults:
    """Confusion matrices per variant, one row per image, and what mean average precision needs; divides only at the end.

    Tallies of parts of a list add up to that of the whole. `settings` are an evaluation's, with recipe and images.
    """

    def __init__(self, manifest: Manifest, settings: Settings):
        self.manifest, self.settings = manifest, settings
        self.matrices: dict[PostProcessing, ConfusionMatrix] = {}
        self.rows: list[dict] = []
        self.probabilities: list[np.ndarray] = []
        self.truth: list[tuple[bool, ...]] = []

    def add(self, result: ImageResult) -> None:
        """Count one image; without a mask it is listed, but enters no matrix."""
        sample, names = result.sample, np.array(self.manifest.names[1:])
        self.probabilities.append(result.probabilities)
        self.truth.append(sample.tags)
        row = {
            "image": sample.name,
            "tags": ";".join(names[list(sample.tags)]),
            "predicted": ";".join(names[result.tags]),
        }
        if sample.mask is not None:
            truth = read_mask(sample.mask, self.manifest)
            for variant, labels in result.labels.items():
                if labels.shape != truth.shape:
                    sizes = f"{truth.shape[::-1]}, its image {labels.shape[::-1]}"
                    raise DataError(
                        f"{sample.mask}: the mask is {sizes} (width, height); they must be equal: correct the mask"
                    )
                single = ConfusionMatrix(self.manifest.num_classes)
                single.update(labels, truth)
                self.matrices[variant] = (
                    self.matrices.get(variant, ConfusionMatrix(self.manifest.num_classes)) + single
                )
                if variant.recipe == self.settings.recipe:
                    row["iou" + suffix(variant)] = round(single.mean_iou(), 4)
        self.rows.append(row)

    def __add__(self, other: "EvaluationResults") -> "EvaluationResults":
        both = EvaluationResults(self.manifest, self.settings)
        for part in (self, other):
            both.rows += part.rows
            both.probabilities += part.probabilities
            both.truth += part.truth
            for variant, matrix in part.matrices.items():
                both.matrices[variant] = (
                    both.matrices[variant] + matrix if variant in both.matrices else matrix
                )
        return both

    def metrics(self) -> dict:
        """The content of metrics.json: the chosen recipe on top, and all that was measured in `variants`; IoU in 0..1."""
        recipe, tagged = self.settings.recipe, any(map(any, self.truth))
        out = {"images": len(self.rows), "split": images_label(self.settings.images), "recipe": recipe}
        for crf in (False, True):
            for kind in ("predicted", "true"):
                variant = PostProcessing(recipe, crf, kind)
                block = (
                    summary(self.matrices[variant], self.manifest.names) if variant in self.matrices else {}
                )
                out["mean_iou" + suffix(variant)] = block.get("mean_iou")
                if kind == "predicted" and block:
                    ending = suffix(variant)
                    out |= {f"{key}{ending}": block[key] for key in ("per_class_iou", "precision", "recall")}
        out["variants"] = [
            v._asdict() | summary(self.matrices[v], self.manifest.names) for v in sorted(self.matrices)
        ]
        out["mean_ap"] = (
            mean_average_precision(np.array(self.probabilities), np.array(self.truth))[1] if tagged else None
        )
        return out


def suffix(variant: PostProcessing) -> str:
    """The ending of a variant's name in metrics.json and per_image.csv: "", _crf, _true_tags or _crf_true_tags."""
    return "_crf" * variant.crf + "_true_tags" * (variant.tags == "true")
