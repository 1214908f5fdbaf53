"""Measures of a segmentation and of image tags: counts are accumulated, divided once (method: one matrix, 255 ignored)."""

from collections.abc import Sequence

import numpy as np

IGNORE = 255


class ConfusionMatrix:
    """Pixel counts over any number of images: `.matrix` (K, K) int64, rows = truth, columns = prediction.

    Matrices of shards add up: `total = a + b`, or `sum(parts[1:], parts[0])`. Scores lie in [0, 1]; a class that occurs in
    neither truth nor prediction is NaN and left out of the mean, one that occurs in only one of them scores 0.
    """

    def __init__(self, num_classes: int, matrix: np.ndarray | None = None):
        if not 2 <= num_classes <= IGNORE:
            raise ValueError(
                f"num_classes is {num_classes}; it counts the background and must lie in 2..{IGNORE}"
            )
        self.num_classes = num_classes
        self.matrix = (
            np.zeros((num_classes, num_classes), np.int64) if matrix is None else np.array(matrix, np.int64)
        )
        if self.matrix.shape != (num_classes, num_classes):
            raise ValueError(
                f"matrix has shape {self.matrix.shape}; it must be ({num_classes}, {num_classes})"
            )

    def update(self, prediction, truth) -> None:
        """Add class indices (any equal shape; integer arrays or torch tensors). Pixels whose truth is 255 are ignored.

        Raises ValueError for unequal shapes and for ids outside 0..K-1, which it names.
        """
        prediction, truth = _integers(prediction, "prediction"), _integers(truth, "truth")
        if prediction.shape != truth.shape:
            shapes = f"prediction has shape {prediction.shape} but truth {truth.shape}"
            raise ValueError(f"{shapes}; resize the prediction to the mask's size")
        self._check_ids(prediction, "prediction", "")
        if truth.size and (truth.min() < 0 or truth.max() > IGNORE):
            self._check_ids(truth, "truth", f" (or {IGNORE} = ignored)")
        # counted with the ignored pixels, in rows of their own: taking these out first costs more than all the rest
        pairs = truth.ravel().astype(np.int64) * self.num_classes + prediction.ravel()
        counts = np.bincount(pairs, minlength=(IGNORE + 1) * self.num_classes).reshape(-1, self.num_classes)
        if counts[self.num_classes : IGNORE].any():
            self._check_ids(truth[truth != IGNORE], "truth", f" (or {IGNORE} = ignored)")
        self.matrix += counts[: self.num_classes]

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        if self.num_classes != other.num_classes:
            raise ValueError(f"cannot add matrices of {self.num_classes} and {other.num_classes} classes")
        return ConfusionMatrix(self.num_classes, self.matrix + other.matrix)

    def iou(self) -> np.ndarray:
        """Intersection over union per class, (K,) float64."""
        return self._ratio(self._truth() + self._predicted() - self.matrix.diagonal())

    def mean_iou(self) -> float:
        """Mean over the classes that occur; NaN when nothing was counted."""
        iou = self.iou()
        return float(iou[~np.isnan(iou)].mean()) if self.matrix.any() else float("nan")

    def precision(self) -> np.ndarray:
        """Share of the pixels predicted as a class that are of it, (K,) float64."""
        return self._ratio(self._predicted())

    def recall(self) -> np.ndarray:
        """Share of a class's pixels that are predicted as it, (K,) float64."""
        return self._ratio(self._truth())

    def _truth(self) -> np.ndarray:
        return self.matrix.sum(axis=1)

    def _predicted(self) -> np.ndarray:
        return self.matrix.sum(axis=0)

    def _ratio(self, count: np.ndarray) -> np.ndarray:
        occurs = self._truth() + self._predicted() > 0
        return np.where(occurs, self.matrix.diagonal() / np.maximum(count, 1), np.nan)

    def _check_ids(self, ids: np.ndarray, what: str, also: str) -> None:
        if ids.size and (ids.min() < 0 or ids.max() >= self.num_classes):
            unknown = np.unique(ids[(ids < 0) | (ids >= self.num_classes)])[:5].tolist()
            raise ValueError(
                f"{what} holds ids {unknown}; class indices must lie in 0..{self.num_classes - 1}{also}"
            )


def summary(confusion: ConfusionMatrix, names: Sequence[str]) -> dict:
    """The block of `metrics.json`: mean_iou, and per_class_iou, precision, recall as {name: value in [0, 1], or None}."""
    if len(names) != confusion.num_classes:
        raise ValueError(
            f"{len(names)} names for {confusion.num_classes} classes; give one each, the background's first"
        )
    columns = {
        "per_class_iou": confusion.iou(),
        "precision": confusion.precision(),
        "recall": confusion.recall(),
    }
    per_class = {key: dict(zip(names, map(_number, values), strict=True)) for key, values in columns.items()}
    return {"mean_iou": _number(confusion.mean_iou()), **per_class}


def mean_average_precision(scores: np.ndarray, tags: np.ndarray) -> tuple[np.ndarray, float]:
    """Image-level average precision per class (C,) and its mean, from scores and tags (N, C): area of the precision steps.

    Equal scores enter together, so the order of images does not matter. A class without a positive is NaN and left out.
    """
    scores, tags = np.asarray(scores), np.asarray(tags).astype(bool)
    if scores.ndim != 2 or scores.shape != tags.shape:
        raise ValueError(
            f"scores have shape {scores.shape} and tags {tags.shape}; both must be (images, foreground classes)"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            "scores hold NaN or infinity; training has probably diverged: lower the learning rate"
        )
    per_class = np.array([_average_precision(scores[:, c], tags[:, c]) for c in range(scores.shape[1])])
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
