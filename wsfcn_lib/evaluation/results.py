"""What an evaluation counts: pixels and tags, under every post-processing of the masks."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from wsfcn_lib.data.manifest import Manifest, Sample
from wsfcn_lib.evaluation.image_counts import Counts, count_image, stacked
from wsfcn_lib.evaluation.inputs import images_label
from wsfcn_lib.evaluation.reviewed import companions, per_class, tag_calibration
from wsfcn_lib.metrics import ConfusionMatrix, mean_average_precision, summary
from wsfcn_lib.runs.settings import Settings


class PostProcessing(NamedTuple):
    """One way to turn fused masks into labels."""

    recipe: str
    crf: bool
    tags: str  # "predicted" or "true"; true tags are the upper bound that papers call clean

    @property
    def suffix(self) -> str:
        """What ends its keys in metrics.json and per_image.csv: "", _crf, _true_tags or _crf_true_tags."""
        crf = "_crf" if self.crf else ""
        tags = "_true_tags" if self.tags == "true" else ""
        return crf + tags


@dataclass
class ImageResult:
    """What is known of one image after its prediction."""

    sample: Sample
    size: tuple[int, int]  # (H, W) of the picture
    truth: np.ndarray | None  # (H, W) uint8 class indices, 255 ignored; None without a mask
    probabilities: np.ndarray  # (K-1,) of the classes in the image, in [0, 1]
    tags: dict[str, np.ndarray]  # "predicted" and "true": (K-1,) bool
    labels: dict[PostProcessing, np.ndarray] = field(default_factory=dict)  # (H, W) uint8 class indices

    @cached_property
    def matrices(self) -> dict[PostProcessing, ConfusionMatrix]:
        """The pixels of the labels by those of the truth; empty without a mask."""
        matrices = {}
        if self.truth is not None:
            for post_processing, labels in self.labels.items():
                matrices[post_processing] = ConfusionMatrix(1 + len(self.probabilities))
                matrices[post_processing].update(labels, self.truth)
        return matrices


class EvaluationResults:
    """Confusion matrices by post-processing, a row per image, and the image-level probabilities and tags.

    The results of parts of a list add up to those of the whole. `settings` are an evaluation's, with recipe
    and images.
    """

    def __init__(self, manifest: Manifest, settings: Settings):
        self.manifest = manifest
        self.settings = settings
        self.matrices = {}  # PostProcessing -> ConfusionMatrix, of the images with a mask
        self.rows = []  # of each image: name, tags, predicted tags, painted share, IoU under the chosen recipe
        self.probabilities = []  # (K-1,) of each image
        self.tags = []  # (K-1,) of each image, the true ones
        self.counts = {}  # image name -> ImageCounts under `kept`, of the images with a mask

    def add(self, result: ImageResult) -> None:
        """Count one image; without a mask it is listed, but enters no matrix."""
        names = np.array(self.manifest.names[1:])
        row = {
            "image": result.sample.name,
            "tags": ";".join(names[result.tags["true"]]),
            "predicted": ";".join(names[result.tags["predicted"]]),
            "painted": self._painted(result),
        }
        for post_processing, matrix in result.matrices.items():
            self._count(post_processing, matrix)
            if post_processing.recipe == self.settings.recipe:
                row["iou" + post_processing.suffix] = round(matrix.mean_iou(), 4)
        if result.truth is not None:
            labels = [result.labels[each] for each in self.kept if each in result.labels]
            self.counts[result.sample.name] = count_image(result.truth, labels, self.manifest.num_classes)
        self.rows.append(row)
        self.probabilities.append(result.probabilities)
        self.tags.append(result.sample.tags)

    @property
    def kept(self) -> list[PostProcessing]:
        """Those whose masks are written, which are measured in more ways: the chosen recipe, the network's tags."""
        return [PostProcessing(self.settings.recipe, crf, "predicted") for crf in (False, True)]

    def _painted(self, result: ImageResult) -> float:
        """The share of the picture that is no background, in the masks that are kept: after the CRF where it ran."""
        for crf in (True, False):
            labels = result.labels.get(PostProcessing(self.settings.recipe, crf, "predicted"))
            if labels is not None:
                return round(float((labels > 0).mean()), 4)
        return 0.0

    @property
    def label(self) -> str:
        """What the evaluated images are called, see `images_label`."""
        return images_label(self.settings.images)

    @property
    def unpainted(self) -> list[str]:
        """The names of the pictures that are all background."""
        return [row["image"] for row in self.rows if not row["painted"]]

    def __add__(self, other: "EvaluationResults") -> "EvaluationResults":
        both = EvaluationResults(self.manifest, self.settings)
        for part in (self, other):
            both.rows += part.rows
            both.probabilities += part.probabilities
            both.tags += part.tags
            both.counts |= part.counts
            for post_processing, matrix in part.matrices.items():
                both._count(post_processing, matrix)
        return both

    def _count(self, post_processing: PostProcessing, matrix: ConfusionMatrix) -> None:
        if post_processing in self.matrices:
            matrix = self.matrices[post_processing] + matrix
        self.matrices[post_processing] = matrix

    def metrics(self) -> dict:
        """The content of metrics.json: the chosen recipe on top, all that was measured in `variants`."""
        recipe = self.settings.recipe
        blocks = {key: summary(self.matrices[key], self.manifest.names) for key in sorted(self.matrices)}
        metrics = {
            "images": len(self.rows),
            "split": self.label,
            "recipe": recipe,
            "nothing_painted": len(self.unpainted),
        }
        for crf in (False, True):
            for tags in ("predicted", "true"):
                key = PostProcessing(recipe, crf, tags)
                block = blocks.get(key, {"mean_iou": None})
                kept = block if tags == "predicted" else ["mean_iou"]
                metrics |= {name + key.suffix: block[name] for name in kept}
        metrics["variants"] = [key._asdict() | block for key, block in blocks.items()]
        metrics["mean_ap"] = None
        if np.any(self.tags):
            _, metrics["mean_ap"] = mean_average_precision(self.probabilities, self.tags)
        return metrics | self._reviewed()

    def _reviewed(self) -> dict:
        """More measures: details and details_crf (`Counts.measures`, and `per_class`), companions, tag_calibration.

        Empty where nothing has a mask, but for the tags.
        """
        blocks = {}
        if np.any(self.tags):
            blocks["tag_calibration"] = tag_calibration(self.probabilities, self.tags)
        if not self.counts:
            return blocks
        kept = [each for each in self.kept if each in self.matrices]
        names = [f"details{each.suffix}" for each in kept]
        counts = Counts(tuple(self.counts), tuple(names), **stacked(list(self.counts.values())))
        for name in names:
            measured = counts.measures(name)
            measured = {key: None if np.isnan(value) else value for key, value in measured.items()}
            blocks[name] = measured | {"per_class": per_class(counts, name, self.manifest.names)}
        blocks["companions"] = companions(counts, self.manifest.names)
        return blocks

    def scores(self) -> pd.DataFrame:
        """A row per image: image, and the probability of each class, rounded."""
        table = pd.DataFrame(self.probabilities, columns=list(self.manifest.names[1:])).astype(float).round(4)
        table.insert(0, "image", [row["image"] for row in self.rows], allow_duplicates=True)
        return table
