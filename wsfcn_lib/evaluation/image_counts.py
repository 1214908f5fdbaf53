"""What is counted of segmentations image by image, and the measures that are made of such counts.

Every measure is made of sums over images, so that images drawn anew (a bootstrap) need no picture again.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import generate_binary_structure, label

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.metrics import ConfusionMatrix, error_shares, mean_iou

BAND = 5  # pixels on either side of a border
BOUNDARY_SHARE = 0.02  # of the image's diagonal: how wide the strip of Boundary IoU is
SPECK = 0.001  # of the image's area: smaller pieces are no objects, but remains behind others
COMPLETE_OBJECT = 0.5  # an object is complete where at least this share of it is right
COMPLETE_BACKGROUND = 0.9  # so is the background of an image
BLOCK = 64  # draws at a time: of 40,000 images they take 20 MB

WORDS = {  # what the measures of `Counts.measures` are called, in the table's order
    "mean_iou": "mIoU",
    "image_iou": "mIoU, image by image",
    "boundary_iou": "Boundary IoU",
    "border_iou": "mIoU near borders",
    "recall_small": "found of small objects",
    "recall_medium": "found of medium objects",
    "recall_large": "found of large objects",
    "object_incomplete": "objects less than half found",
    "false_positive": "false positives",
    "false_negative": "false negatives",
}


def near_borders(truth: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool at most BAND from where the truth (H, W) changes, on either side of each border.

    Ignored regions (255) count as regions here: VOC draws its borders as such, so the band lies beside them.
    """
    edges = np.zeros(truth.shape, bool)
    across, along = truth[1:] != truth[:-1], truth[:, 1:] != truth[:, :-1]
    edges[1:] |= across
    edges[:-1] |= across
    edges[:, 1:] |= along
    edges[:, :-1] |= along
    near = edges.copy()
    for rows in range(
        min(BAND, len(near))
    ):  # a disc is a stack of rows, the shorter the further they are from its middle
        columns = int(np.ceil(np.sqrt(BAND**2 - rows**2))) - 1
        wide = _spread(edges, columns, columns, 1)
        near[rows:] |= wide[: len(wide) - rows]
        near[: len(near) - rows] |= wide[rows:]
    return near


def boundary_width(size: tuple[int, int]) -> int:
    """How wide the strip of Boundary IoU is, in pixels, for an image of `size` (height, width)."""
    return max(1, round(BOUNDARY_SHARE * float(np.hypot(*size))))


def inner_boundaries(labels: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool that lie in the inner boundary of their own class: G_d ∩ G of each class at once.

    Cheng et al., "Boundary IoU", CVPR 2021: those at most d pixels (rows or columns) from a pixel of another
    class, or from outside the picture; d is 2 % of the diagonal.
    """
    width = boundary_width(labels.shape)
    framed = np.pad(labels.astype(np.int16), 1, constant_values=-1)
    across = _spread(framed[1:] != framed[:-1], width, width - 1, 0)
    along = _spread(framed[:, 1:] != framed[:, :-1], width, width - 1, 1)
    across = _spread(across, width, width, 1)[1:, 1:-1]
    along = _spread(along, width, width, 0)[1:-1, 1:]
    return across | along


def boundary_counts(labels: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of inner boundaries per class that are right, true, predicted, (3, K) int64.

    Of label maps (H, W) of ids below K = `classes`; their `mean_iou` is Boundary IoU, pixels being summed over
    images as in mIoU. What the truth ignores (255) is ignored in both: the prediction takes its place over.
    """
    labels = np.where(truth == IGNORE, np.uint8(IGNORE), labels)
    of_truth, of_labels = inner_boundaries(truth), inner_boundaries(labels)
    parts = (truth[of_truth & of_labels & (truth == labels)], truth[of_truth], labels[of_labels])
    return np.stack([np.bincount(part, minlength=IGNORE + 1)[:classes] for part in parts])


def number_objects(truth: np.ndarray) -> np.ndarray:
    """The objects of a truth (H, W), numbered from 1; 0 is everything else.

    An object is a connected piece (8 neighbours) of one class's pixels, not smaller than SPECK. Masks of
    classes do not tell two cows apart where they touch, and an object cut in two by another counts twice.
    """
    objects = np.zeros(truth.shape, np.int32)
    count = 0
    for value in np.flatnonzero(np.bincount(truth.ravel())).tolist():
        if value not in (0, IGNORE):
            pieces, _ = label(truth == value, generate_binary_structure(2, 2))
            large = np.bincount(pieces.ravel()) >= SPECK * truth.size
            large[0] = False
            numbers = np.where(large, large.cumsum() + count, 0)
            objects += numbers[pieces].astype(np.int32)
            count += int(large.sum())
    return objects


class ImageCounts(NamedTuple):
    """What is counted of V segmentations of one image with K classes and M objects."""

    whole: np.ndarray  # (V, 3, K) pixels per class that are right, true, predicted
    border: np.ndarray  # (V, 3, K) the same within BAND of a border of the truth
    boundary: np.ndarray  # (V, 3, K) the same of inner boundaries, see `boundary_counts`
    sizes: np.ndarray  # (M,) pixels of each object
    covered: np.ndarray  # (M, V) those of them that are right
    area: int  # pixels of the image


def count_image(truth: np.ndarray, segmentations: Sequence[np.ndarray], classes: int) -> ImageCounts:
    """Count one image: truth (H, W) uint8 class indices, 255 ignored, and V segmentations of its size.

    ValueError as `ConfusionMatrix.update`.
    """
    near = np.where(near_borders(truth), truth, np.uint8(IGNORE))
    objects = number_objects(truth)
    sizes = np.bincount(objects.ravel())
    whole, border, boundary, covered = [], [], [], []
    for labels in segmentations:
        whole.append(_counts(labels, truth, classes))
        border.append(_counts(labels, near, classes))
        boundary.append(boundary_counts(labels, truth, classes))
        covered.append(np.bincount(objects[labels == truth], minlength=len(sizes))[1:])
    pixels = (np.array(part, np.int32) for part in (whole, border, boundary))
    return ImageCounts(*pixels, sizes[1:], np.stack(covered, axis=1), truth.size)


def stacked(images: Sequence[ImageCounts]) -> dict[str, np.ndarray]:
    """The counts of all images as the arrays of `Counts`: whole, border, boundary, objects, covered."""
    arrays = {
        key: np.array([getattr(each, key) for each in images], np.int32)
        for key in ("whole", "border", "boundary")
    }
    objects = [
        np.stack([np.full(len(each.sizes), number), each.sizes, np.full(len(each.sizes), each.area)], axis=1)
        for number, each in enumerate(images)
    ]
    covered = [each.covered for each in images]
    return arrays | {"objects": np.concatenate(objects), "covered": np.concatenate(covered)}


@dataclass(frozen=True)
class Counts:
    """Counts of N images and M objects under V segmentations, such as post-processings or people's masks.

    whole, border, boundary: (N, V, 3, K) pixels per class that are right, true, predicted; in the picture,
    near borders, in inner boundaries (None where they were not counted).
    objects: (M, 3) number of the image, pixels, pixels of the image; covered: (M, V) pixels of the object
    that are right.
    """

    images: tuple[str, ...]
    variants: tuple[Hashable, ...]  # what the segmentations are called
    whole: np.ndarray
    border: np.ndarray
    objects: np.ndarray
    covered: np.ndarray
    boundary: np.ndarray | None = None

    def of(self, variant: Hashable) -> np.ndarray:
        """The counts (N, 3, K) of one variant, which `statistics.resampled` takes."""
        return self.whole[:, self.variants.index(variant)]

    def measures(self, variant: Hashable) -> dict[str, float]:
        """What is measured of one variant; all in 0..1, nan where there is nothing to measure.

        mean_iou. border_iou: mIoU of the pixels within BAND of a border, which SF2 is to improve.
        boundary_iou: see `boundary_counts`.
        image_iou: mean over the images of each image's own mIoU, where small pictures and rare classes weigh
        as much as others (Csurka et al., BMVC 2013).
        false_positive, false_negative: what mean_iou lacks to 1, see `metrics.error_shares`.
        recall_small, _medium,
        _large: mean share of an object that is found, for thirds of the objects by their share of the image.
        object_incomplete: share of the objects of which less than COMPLETE_OBJECT is found;
        background_incomplete: share of the images of whose background less than COMPLETE_BACKGROUND is found,
        the rest being taken for objects. The paper's introduction says that its ancestor's masks suffer from
        both, for lack of local contents and of global context; the cuts are ours.
        """
        once = np.ones((1, len(self.images)))
        return {key: float(value[0]) for key, value in self.drawn(variant, once).items()}

    def drawn(self, variant: Hashable, times: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `measures`, (T,), where image n counts times[t, n] times, as `redrawn_blocks` draws it.

        What is small or large stays as in the whole set. nan in a draw that has nothing to measure.
        """
        index = self.variants.index(variant)
        image, pixels, area = self.objects.T
        share = self.covered[:, index] / pixels
        size = pixels / area
        third = size
        if len(size):
            third = np.searchsorted(np.quantile(size, [1 / 3, 2 / 3]), size)
        whole = drawn_counts(self.whole[:, index], times)
        measures = {
            "mean_iou": mean_iou(whole),
            "border_iou": mean_iou(drawn_counts(self.border[:, index], times)),
        }
        if self.boundary is not None:
            measures["boundary_iou"] = mean_iou(drawn_counts(self.boundary[:, index], times))
        (counted,) = np.nonzero(self.whole[:, index].any((1, 2)))
        own = mean_iou(self.whole[counted, index])
        measures["image_iou"] = _drawn_mean(own, counted, times)
        measures["false_positive"], measures["false_negative"] = error_shares(whole)
        for number, name in enumerate(("small", "medium", "large")):
            inside = third == number
            measures[f"recall_{name}"] = _drawn_mean(share[inside], image[inside], times)
        measures["object_incomplete"] = _drawn_mean(share < COMPLETE_OBJECT, image, times)
        right, true, _ = self.whole[:, index, :, 0].T
        (known,) = np.nonzero(true)
        incomplete = right[known] < COMPLETE_BACKGROUND * true[known]
        measures["background_incomplete"] = _drawn_mean(incomplete, known, times)
        return measures


def measure_words(measure: str) -> str:
    """What a measure is called: by WORDS, and the IoU of a class by its name."""
    return WORDS.get(measure) or f"IoU {measure.removeprefix('iou_')}"


def redrawn_blocks(images: int, draws: int, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each image occurs, where as many are drawn anew with replacement: (BLOCK or fewer, images).

    The rows of all blocks together, `draws`, do not depend on BLOCK.
    """
    generator = np.random.default_rng(seed)
    for begin in range(0, draws, BLOCK):
        rows = min(BLOCK, draws - begin)
        yield generator.multinomial(images, np.full(images, 1 / images), rows).astype(float)


def drawn_counts(counts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The sums (T, 3, K) of the counts (N, 3, K) of images that count `times` (T, N)."""
    sums = times @ counts.reshape(len(counts), -1)
    return sums.reshape(-1, *counts.shape[1:])


def _counts(labels: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    matrix = ConfusionMatrix(classes)
    matrix.update(labels, truth)
    return matrix.counts()


def _drawn_mean(values: np.ndarray, images: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean (T,) of values (M,) of `images` (M,), which count `times` (T, N); nan where none counts."""
    sums = times @ np.bincount(images, values, times.shape[1])
    numbers = times @ np.bincount(images, minlength=times.shape[1])
    return np.divide(sums, numbers, out=np.full(len(times), np.nan), where=numbers > 0)


def _spread(mask: np.ndarray, before: int, after: int, axis: int) -> np.ndarray:
    """Whether any of the places i - before .. i + after along an axis of a bool array is set, for each i."""
    length, size = before + after + 1, mask.shape[axis]
    room = [(0, 0)] * mask.ndim
    room[axis] = (length - 1, length - 1)
    run = np.moveaxis(np.pad(mask, room), axis, 0)
    reach = 1
    while reach < length:
        step = min(reach, length - reach)
        run = run[:-step] | run[step:]
        reach += step
    return np.moveaxis(run[after : after + size], 0, axis)
