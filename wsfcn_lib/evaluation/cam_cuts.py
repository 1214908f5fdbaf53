"""The quality of maps at every cut: which cut is best on some images, and what it is worth on the others."""

import numpy as np

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.metrics import mean_iou

CUTS = np.arange(100) / 100  # a pixel is foreground where a map is above


def winners(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The strongest foreground class of each pixel, and how many of CUTS its map is above; (H, W) uint8 both.

    Of masks (K, H, W) in [0, 1], background first (which is not looked at), 0 where a class is not tagged.
    """
    foreground = masks[1:]
    level = np.searchsorted(CUTS, foreground.max(0), side="left")
    return (1 + foreground.argmax(0)).astype(np.uint8), level.astype(np.uint8)


def cut_counts(winner: np.ndarray, level: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Pixels per class that are right, true, predicted at each of CUTS, (T, 3, K) int64.

    `winner` and `level` (H, W) from `winners`; truth (H, W), 255 ignored. The background is what no map is
    above the cut in.
    """
    known = truth != IGNORE
    winner, level, truth = (part[known].astype(np.int64) for part in (winner, level, truth))

    def above(where: np.ndarray) -> np.ndarray:
        """(T, K) pixels among `where` that are painted as each class at each cut."""
        pairs = level[where] * classes + winner[where]
        by_level = np.bincount(pairs, minlength=(len(CUTS) + 1) * classes).reshape(-1, classes)
        return by_level[::-1].cumsum(0)[::-1][1:]  # those above more than t cuts

    painted, right = above(np.full(winner.shape, True)), above(winner == truth)
    true = np.tile(np.bincount(truth, minlength=classes), (len(CUTS), 1))
    painted[:, 0] = len(truth) - painted.sum(1)
    right[:, 0] = true[:, 0] - above(truth == 0).sum(1)
    return np.stack([right, true, painted], axis=1)


def chosen_cut(dev: np.ndarray, test: np.ndarray, fixed: float) -> dict[str, float]:
    """The cut that is best on `dev`, and mIoU on `test` there and at the `fixed` cut; counts (T, 3, K) of both.

    cut: of CUTS, the first of the best; mean_iou: on test, with the cut chosen on dev, as it may be reported;
    peak: the best on test itself, which is an upper bound (as papers of CAMs often give it), at peak_cut;
    fixed_cut, mean_iou_fixed. All in 0..1.
    """
    tuned, values = mean_iou(dev), mean_iou(test)
    best, peak, place = tuned.argmax(), values.argmax(), np.abs(CUTS - fixed).argmin()
    return {
        "cut": float(CUTS[best]),
        "mean_iou": float(values[best]),
        "fixed_cut": float(CUTS[place]),
        "mean_iou_fixed": float(values[place]),
        "peak_cut": float(CUTS[peak]),
        "peak": float(values[peak]),
    }
