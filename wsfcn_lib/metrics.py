"""Measures of a segmentation and of image tags: pixels are counted over all images, divided at the end."""

from collections.abc import Sequence

import numpy as np

from wsfcn_lib.data.classes import IGNORE


class ConfusionMatrix:
    """Pixel counts over any number of images: `.matrix` (K, K) int64, rows = truth, columns = prediction.

    Matrices of shards add up: `total = a + b`, or `sum(parts[1:], parts[0])`. Scores lie in [0, 1]; a class
    that occurs in neither truth nor prediction is NaN and left out of the mean, one that occurs in only one
    of them scores 0.
    """

    def __init__(self, num_classes: int, matrix: np.ndarray | None = None):
        if not 2 <= num_classes <= IGNORE:
            raise ValueError(
                f"num_classes is {num_classes}; it counts the background and must lie in 2..{IGNORE}"
            )
        shape = (num_classes, num_classes)
        self.num_classes = num_classes
        self.matrix = np.zeros(shape, np.int64) if matrix is None else np.array(matrix, np.int64)
        if self.matrix.shape != shape:
            raise ValueError(f"matrix has shape {self.matrix.shape}; it must be {shape}")

    def update(self, prediction, truth) -> None:
        """Add class indices, integer arrays or tensors of equal shape; pixels whose truth is 255 are ignored.

        Raises ValueError for unequal shapes and for ids outside 0..K-1, which it names.
        """
        prediction, truth = _integers(prediction, "prediction"), _integers(truth, "truth")
        if prediction.shape != truth.shape:
            raise ValueError(
                f"prediction has shape {prediction.shape} but truth {truth.shape}; "
                "resize the prediction to the mask's size"
            )
        self._check_ids(prediction, "prediction")
        self._check_ids(truth * (truth != IGNORE), "truth")
        # ignored pixels are counted too, in a row far below: taking them out first costs more than the rest
        pairs = truth.ravel().astype(np.int64) * self.num_classes + prediction.ravel()
        counts = np.bincount(pairs, minlength=(IGNORE + 1) * self.num_classes)
        self.matrix += counts.reshape(-1, self.num_classes)[: self.num_classes]

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        if self.num_classes != other.num_classes:
            raise ValueError(f"cannot add matrices of {self.num_classes} and {other.num_classes} classes")
        return ConfusionMatrix(self.num_classes, self.matrix + other.matrix)

    def counts(self) -> np.ndarray:
        """Pixels per class that are right, true and predicted, (3, K) int64."""
        return np.stack([self.matrix.diagonal(), self.matrix.sum(axis=1), self.matrix.sum(axis=0)])

    def iou(self) -> np.ndarray:
        """Intersection over union per class, (K,) float64."""
        right, true, predicted = self.counts()
        return self._right_among(true + predicted - right)

    def mean_iou(self) -> float:
        """Mean over the classes that occur; NaN when nothing was counted."""
        counts = self.counts()
        occurs = counts.any(axis=0)
        return float(mean_iou(counts[:, occurs])) if occurs.any() else float("nan")

    def precision(self) -> np.ndarray:
        """Share of the pixels predicted as a class that are of it, (K,) float64."""
        return self._right_among(self.matrix.sum(axis=0))

    def recall(self) -> np.ndarray:
        """Share of a class's pixels that are predicted as it, (K,) float64."""
        return self._right_among(self.matrix.sum(axis=1))

    def _right_among(self, pixels: np.ndarray) -> np.ndarray:
        counts = self.counts()
        return np.where(counts.any(axis=0), counts[0] / np.maximum(pixels, 1), np.nan)

    def _check_ids(self, ids: np.ndarray, what: str) -> None:
        if ids.size and (ids.min() < 0 or ids.max() >= self.num_classes):
            unknown = np.unique(ids[(ids < 0) | (ids >= self.num_classes)])[:5].tolist()
            raise ValueError(
                f"{what} holds ids {unknown}; class indices must lie in 0..{self.num_classes - 1}, "
                f"and only truth may hold {IGNORE} (ignored)"
            )


def mean_iou(counts: np.ndarray) -> np.ndarray:
    """Mean IoU in [0, 1], (...), of pixels per class that are right, true and predicted, (..., 3, K).

    The mean is over the classes that are true or predicted somewhere; 0 where nothing was counted.
    """
    right, true, predicted = np.moveaxis(np.asarray(counts, float), -2, 0)
    union = true + predicted - right
    classes = (union > 0).sum(axis=-1)
    return (right / np.maximum(union, 1)).sum(axis=-1) / np.maximum(classes, 1)


def error_shares(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the union that are false positives and false negatives, (...) each, of counts (..., 3, K).

    Means over the classes that are true or predicted somewhere, so that mean IoU and both shares add up to 1.
    Over- and under-activation, as SEAM (Wang et al., CVPR 2020) and others report them, are the same pixels by
    those that are right: of a class, false positives / IoU and false negatives / IoU.
    """
    counts = np.asarray(counts, float)
    right, true, predicted = np.moveaxis(counts, -2, 0)
    union = true + predicted - right
    classes = np.maximum((union > 0).sum(axis=-1), 1)
    wrong, missed = ((part - right) / np.maximum(union, 1) for part in (predicted, true))
    return wrong.sum(axis=-1) / classes, missed.sum(axis=-1) / classes


def summary(confusion: ConfusionMatrix, names: Sequence[str]) -> dict:
    """The block of metrics.json: mean_iou, and per_class_iou, precision, recall as {name: [0, 1] or None}.

    `names` are the K names of the classes, the background's first; ValueError for another number of them.
    """
    columns = {
        "per_class_iou": confusion.iou(),
        "precision": confusion.precision(),
        "recall": confusion.recall(),
    }
    per_class = {key: dict(zip(names, map(_number, values), strict=True)) for key, values in columns.items()}
    return {"mean_iou": _number(confusion.mean_iou()), **per_class}


def mean_average_precision(scores: np.ndarray, tags: np.ndarray) -> tuple[np.ndarray, float]:
    """Average precision of image tags per class (C,) and its mean, from scores and tags (N, C).

    The area of the precision steps; equal scores enter together, so the order of images does not matter.
    A class without a positive is NaN and left out of the mean.
    """
    scores, tags = np.asarray(scores), np.asarray(tags).astype(bool)
    if scores.ndim != 2 or scores.shape != tags.shape:
        raise ValueError(
            f"scores have shape {scores.shape} and tags {tags.shape}; "
            "both must be (images, foreground classes)"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            "scores hold NaN or infinity; training has probably diverged: lower the learning rate"
        )
    per_class = np.array([_average_precision(*column) for column in zip(scores.T, tags.T)])
    known = per_class[~np.isnan(per_class)]
    return per_class, float(known.mean()) if known.size else float("nan")


def _average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores)
    hits = positive[order].cumsum()
    last = np.append(np.diff(scores[order]) != 0, True)  # the last image of each group of equal scores
    precision = (hits / np.arange(1, len(hits) + 1))[last]
    return float(np.sum(np.diff(hits[last], prepend=0) * precision) / hits[-1])


def _integers(ids, what: str) -> np.ndarray:
    ids = np.asarray(ids.detach().cpu() if hasattr(ids, "detach") else ids)
    if ids.dtype.kind not in "iub":
        raise TypeError(
            f"{what} is of {ids.dtype}; it must hold integer class indices: take the argmax first"
        )
    return ids


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
