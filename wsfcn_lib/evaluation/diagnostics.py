"""What the pixels of an evaluation say, image by image: near object borders, and object by object; kept in counts.npz."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, label

from wsfcn_lib.data.images import IGNORE, read_mask
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.evaluation.results import ImageResult, PostProcessing
from wsfcn_lib.metrics import mean_iou
from wsfcn_lib.runs.storage import atomic_write

DIAGNOSTICS_FILE = "counts.npz"
NEAR = 5  # pixels from an object's border
SPECK = 0.001  # of the image's area: smaller pieces are no objects, but remains behind others
FOUND, KEPT = (
    0.5,
    0.9,
)  # an object, or an image's background, is complete where at least this share of it is found


def near_borders(truth: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool at most NEAR from where the truth changes: so many on either side of each border.

    Ignored regions (255) count as regions here: VOC draws its borders as such, so the band lies beside them.
    """
    other = np.zeros(truth.shape, bool)
    rows, columns = truth[1:] != truth[:-1], truth[:, 1:] != truth[:, :-1]
    other[1:] |= rows
    other[:-1] |= rows
    other[:, 1:] |= columns
    other[:, :-1] |= columns
    return distance_transform_edt(~other) < NEAR if other.any() else other


def pieces(truth: np.ndarray) -> np.ndarray:
    """Objects (H, W) numbered from 1; 0 is everything else.

    An object is a connected piece (8 neighbours) of one class's pixels, not smaller than SPECK. Masks of classes do not tell
    two cows apart where they touch, and an object cut in two by another counts twice.
    """
    found, count = np.zeros(truth.shape, np.int32), 0
    for value in set(np.unique(truth)) - {0, IGNORE}:
        numbered, _ = label(truth == value, np.ones((3, 3)))
        sizes = np.bincount(numbered.flat)
        for number in 1 + np.flatnonzero(sizes[1:] >= SPECK * truth.size):
            count += 1
            found[numbered == number] = count
    return found


def tally(labels: np.ndarray, truth: np.ndarray, classes: int, where: np.ndarray | bool = True) -> np.ndarray:
    """Pixels per class that are right, true and predicted, (3, K) int32, where the truth is not 255."""
    counted = where & (truth != IGNORE)
    labels, truth = labels[counted], truth[counted]
    return np.stack(
        [np.bincount(x, minlength=classes) for x in (truth[labels == truth], truth, labels)]
    ).astype(np.int32)


class DiagnosticsRecorder:
    """Collects the counts of an evaluation: pass `add` to `evaluate` as `also`, and `save` what it found."""

    def __init__(self, manifest: Manifest):
        self.manifest, self.variants, self.images = manifest, [], []
        self.whole, self.border, self.objects, self.covered = [], [], [], []

    def add(self, result: ImageResult) -> None:
        """Count one image; without a mask it counts nothing."""
        if result.sample.mask is None:
            return
        truth, classes = read_mask(result.sample.mask, self.manifest), self.manifest.num_classes
        near, objects = near_borders(truth), pieces(truth)
        self.variants = sorted(result.labels)
        labels = [result.labels[variant] for variant in self.variants]
        self.whole.append([tally(each, truth, classes) for each in labels])
        self.border.append([tally(each, truth, classes, near) for each in labels])
        sizes = np.bincount(objects.flat)[1:]
        self.covered.append(
            np.stack(
                [np.bincount(objects[each == truth], minlength=len(sizes) + 1)[1:] for each in labels], 1
            )
        )
        self.objects.append(
            np.stack([np.full(len(sizes), len(self.images)), sizes, np.full(len(sizes), truth.size)], 1)
        )
        self.images.append(result.sample.name)

    def save(self, folder: Path) -> None:
        """Write counts.npz into a folder."""
        parts = {"images": self.images, "variants": [f"{v.recipe} {v.crf:d} {v.tags}" for v in self.variants]}
        parts |= {"whole": np.array(self.whole), "border": np.array(self.border)}
        parts |= {"objects": np.concatenate(self.objects), "covered": np.concatenate(self.covered)}
        content = io.BytesIO()
        np.savez_compressed(content, **parts)
        atomic_write(folder / DIAGNOSTICS_FILE, content.getvalue())


@dataclass(frozen=True)
class Diagnostics:
    """The counts of N images in V variants of M objects, as `DiagnosticsRecorder` saved them.

    whole, border: (N, V, 3, K) pixels per class that are right, true, predicted; in the picture, and near borders.
    objects: (M, 3) number of the image, pixels, pixels of the image; covered: (M, V) pixels of the object that are right.
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
            found = {name: file[name] for name in file.files}
        split = [name.split() for name in found.pop("variants")]
        variants = tuple(PostProcessing(recipe, crf == "1", tags) for recipe, crf, tags in split)
        return cls(tuple(found.pop("images").tolist()), variants, **found)

    def of(self, variant: PostProcessing) -> np.ndarray:
        """The counts (N, 3, K) of one variant, which `effects.resampled` takes."""
        return self.whole[:, self.variants.index(variant)]

    def measures(self, variant: PostProcessing) -> dict[str, float]:
        """What is measured of one variant; all in 0..1, nan where there is nothing to measure.

        mean_iou. border_iou: mIoU of the pixels within NEAR of a border, which SF2 is to improve. recall_small, _medium,
        _large: mean share of an object that is found, for thirds of the objects by their share of the image.
        object_incomplete: share of the objects of which less than FOUND is found; background_incomplete: share of the images
        of whose background less than KEPT is found, the rest being taken for objects. The paper's introduction says that
        its ancestor's masks suffer from both, for lack of local contents and of global context; the cuts are ours.
        """
        once = np.ones((1, len(self.images)))
        return {key: float(value[0]) for key, value in self.drawn(variant, once).items()}

    def drawn(self, variant: PostProcessing, times: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `measures`, (T,), where image n counts times[t, n] times; (T, N), as `effects.redrawn` makes it.

        What is small or large stays as in the whole set. nan in a draw that has nothing to measure.
        """
        place, (image, pixels, area) = self.variants.index(variant), self.objects.T
        shares, size = self.covered[:, place] / pixels, pixels / area
        thirds = np.searchsorted(np.quantile(size, [1 / 3, 2 / 3]), size) if len(size) else size
        right, true = self.whole[:, place, 0, 0], self.whole[:, place, 1, 0]

        def iou(counts: np.ndarray) -> np.ndarray:
            own = counts[:, place]
            return mean_iou((times @ own.reshape(len(own), -1)).reshape(-1, *own.shape[1:]))

        def mean(values: np.ndarray, where: np.ndarray, images: np.ndarray) -> np.ndarray:
            sums, numbers = (
                times @ np.bincount(images[where], w, times.shape[1]) for w in (values[where], None)
            )
            return np.divide(sums, numbers, out=np.full(len(times), np.nan), where=numbers > 0)

        out = {"mean_iou": iou(self.whole), "border_iou": iou(self.border)}
        out |= {
            f"recall_{name}": mean(shares, thirds == third, image)
            for third, name in enumerate(("small", "medium", "large"))
        }
        out["object_incomplete"] = mean(shares < FOUND, np.full(len(shares), True), image)
        return out | {"background_incomplete": mean(right < KEPT * true, true > 0, np.arange(len(true)))}
