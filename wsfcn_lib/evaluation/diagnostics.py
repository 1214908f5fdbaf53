"""Where a segmentation errs, image by image: near borders, and object by object; kept in counts.npz."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, generate_binary_structure, label, morphological_gradient

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.evaluation.results import ImageResult, PostProcessing
from wsfcn_lib.metrics import mean_iou
from wsfcn_lib.runs.storage import atomic_write

DIAGNOSTICS_FILE = "counts.npz"
BAND = 5  # pixels on either side of a border
SPECK = 0.001  # of the image's area: smaller pieces are no objects, but remains behind others
COMPLETE_OBJECT = 0.5  # an object is complete where at least this share of it is right
COMPLETE_BACKGROUND = 0.9  # so is the background of an image


def near_borders(truth: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool at most BAND from where the truth (H, W) changes, on either side of each border.

    Ignored regions (255) count as regions here: VOC draws its borders as such, so the band lies beside them.
    """
    edges = morphological_gradient(truth, footprint=generate_binary_structure(2, 1)) > 0
    if not edges.any():
        return edges
    return distance_transform_edt(~edges) < BAND


def number_objects(truth: np.ndarray) -> np.ndarray:
    """The objects of a truth (H, W), numbered from 1; 0 is everything else.

    An object is a connected piece (8 neighbours) of one class's pixels, not smaller than SPECK. Masks of
    classes do not tell two cows apart where they touch, and an object cut in two by another counts twice.
    """
    objects = np.zeros(truth.shape, np.int32)
    count = 0
    for value in set(np.unique(truth)) - {0, IGNORE}:
        pieces, _ = label(truth == value, generate_binary_structure(2, 2))
        sizes = np.bincount(pieces.flat)
        for number in range(1, len(sizes)):
            if sizes[number] >= SPECK * truth.size:
                count += 1
                objects[pieces == number] = count
    return objects


class DiagnosticsRecorder:
    """Collects counts of an evaluation: pass `add` to `evaluate` as `also`, and `save` them afterwards."""

    def __init__(self):
        self.images, self.variants = [], []
        self.whole, self.border, self.objects, self.covered = [], [], [], []

    def add(self, result: ImageResult) -> None:
        """Count one image; without a mask it counts nothing."""
        if result.truth is None:
            return
        self.variants = sorted(result.labels)
        near = replace(result, truth=np.where(near_borders(result.truth), result.truth, IGNORE))
        self.whole.append([result.matrices[variant].counts() for variant in self.variants])
        self.border.append([near.matrices[variant].counts() for variant in self.variants])
        objects = number_objects(result.truth)
        sizes = np.bincount(objects.flat)
        covered = []
        for variant in self.variants:
            right = objects[result.labels[variant] == result.truth]
            covered.append(np.bincount(right, minlength=len(sizes)))
        self.covered.append(np.stack(covered, axis=1)[1:])
        number = np.full(len(sizes), len(self.images))
        area = np.full(len(sizes), result.truth.size)
        self.objects.append(np.stack([number, sizes, area], axis=1)[1:])  # without all that is no object
        self.images.append(result.sample.name)

    def save(self, folder: Path) -> None:
        """Write counts.npz into a folder."""
        content = io.BytesIO()
        np.savez_compressed(
            content,
            images=self.images,
            variants=[f"{variant.recipe} {variant.crf:d} {variant.tags}" for variant in self.variants],
            whole=np.array(self.whole, np.int32),
            border=np.array(self.border, np.int32),
            objects=np.concatenate(self.objects),
            covered=np.concatenate(self.covered),
        )
        atomic_write(folder / DIAGNOSTICS_FILE, content.getvalue())


@dataclass(frozen=True)
class Diagnostics:
    """Counts of N images and M objects under V post-processings, as `DiagnosticsRecorder` saved them.

    whole, border: (N, V, 3, K) pixels per class that are right, true, predicted; in the picture, and near
    borders.
    objects: (M, 3) number of the image, pixels, pixels of the image; covered: (M, V) pixels of the object
    that are right.
    """

    images: tuple[str, ...]
    variants: tuple[PostProcessing, ...]
    whole: np.ndarray
    border: np.ndarray
    objects: np.ndarray
    covered: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> "Diagnostics":
        """Read counts.npz of a folder."""
        with np.load(folder / DIAGNOSTICS_FILE) as file:
            content = dict(file)
        content["images"] = tuple(content["images"].tolist())
        variants = []
        for words in content["variants"]:
            recipe, crf, tags = words.split()
            variants.append(PostProcessing(recipe, crf == "1", tags))
        content["variants"] = tuple(variants)
        return cls(**content)

    def of(self, variant: PostProcessing) -> np.ndarray:
        """The counts (N, 3, K) of one variant, which `statistics.resampled` takes."""
        return self.whole[:, self.variants.index(variant)]

    def measures(self, variant: PostProcessing) -> dict[str, float]:
        """What is measured of one variant; all in 0..1, nan where there is nothing to measure.

        mean_iou. border_iou: mIoU of the pixels within BAND of a border, which SF2 is to improve.
        recall_small, _medium,
        _large: mean share of an object that is found, for thirds of the objects by their share of the image.
        object_incomplete: share of the objects of which less than COMPLETE_OBJECT is found;
        background_incomplete: share of the images of whose background less than COMPLETE_BACKGROUND is found,
        the rest being taken for objects. The paper's introduction says that its ancestor's masks suffer from
        both, for lack of local contents and of global context; the cuts are ours.
        """
        once = np.ones((1, len(self.images)))
        return {key: float(value[0]) for key, value in self.drawn(variant, once).items()}

    def drawn(self, variant: PostProcessing, times: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `measures`, (T,), where image n counts times[t, n] times, as `statistics.redrawn` draws it.

        What is small or large stays as in the whole set. nan in a draw that has nothing to measure.
        """
        index = self.variants.index(variant)
        image, pixels, area = self.objects.T
        share = self.covered[:, index] / pixels
        size = pixels / area
        third = size
        if len(size):
            third = np.searchsorted(np.quantile(size, [1 / 3, 2 / 3]), size)
        measures = {
            "mean_iou": _drawn_iou(self.whole[:, index], times),
            "border_iou": _drawn_iou(self.border[:, index], times),
        }
        for number, name in enumerate(("small", "medium", "large")):
            inside = third == number
            measures[f"recall_{name}"] = _drawn_mean(share[inside], image[inside], times)
        measures["object_incomplete"] = _drawn_mean(share < COMPLETE_OBJECT, image, times)
        right, true, _ = self.whole[:, index, :, 0].T
        (known,) = np.nonzero(true)
        incomplete = right[known] < COMPLETE_BACKGROUND * true[known]
        measures["background_incomplete"] = _drawn_mean(incomplete, known, times)
        return measures


def _drawn_iou(counts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean IoU (T,) of the counts (N, 3, K) of images that count `times` (T, N)."""
    sums = times @ counts.reshape(len(counts), -1)
    return mean_iou(sums.reshape(-1, *counts.shape[1:]))


def _drawn_mean(values: np.ndarray, images: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean (T,) of values (M,) of `images` (M,), which count `times` (T, N); nan where none counts."""
    sums = times @ np.bincount(images, values, times.shape[1])
    numbers = times @ np.bincount(images, minlength=times.shape[1])
    return np.divide(sums, numbers, out=np.full(len(times), np.nan), where=numbers > 0)
