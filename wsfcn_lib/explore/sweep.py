"""What the two cuts of the evaluation do to the mIoU: all values of both, from one pass over some images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.files import DataError
from wsfcn_lib.explore.inspection import ALL_VIEWS, Inspector
from wsfcn_lib.metrics import ConfusionMatrix

SCORE_CUTS = np.arange(19) / 20  # from 0, in steps of 0.05; the recipe's 0.1 is among them
BACKGROUNDS = np.arange(1, 20) / 20  # and its 0.25 among these


@dataclass(frozen=True, eq=False)
class Sweep:
    """mIoU (score cuts, background values) of WS-FCN's rule, and what it was computed on."""

    mean_iou: np.ndarray
    images: int
    split: str


def recut(masks: np.ndarray, probabilities: np.ndarray, score_cut: float, background: float) -> np.ndarray:
    """`label_map` at other cuts: masks (K, H, W), probabilities (K-1,), background > 0 → (H, W) uint8."""
    masks = masks.copy()
    masks[0] = background
    masks[1:][probabilities <= score_cut] = 0
    return masks.argmax(0).astype(np.uint8)


def count(masks: np.ndarray, probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Confusion counts of one image at all cuts: (score cuts, background values, K, K), rows = truth."""
    counts, earlier = [], {}
    for cut in SCORE_CUTS:
        present = np.append(True, probabilities > cut)
        if present.tobytes() not in earlier:
            earlier[present.tobytes()] = _count_present(masks, np.flatnonzero(present), truth)
        counts.append(earlier[present.tobytes()])
    return np.stack(counts)


def _count_present(masks: np.ndarray, present: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Confusion counts (background values, K, K) where these classes are present, background among them."""
    classes, values, valid = len(masks), len(BACKGROUNDS), truth != IGNORE
    candidates = masks[present][:, valid]
    candidates[0] = 0  # where no class is present, none exceeds any background value
    label = present[candidates.argmax(0)]
    exceeded = np.searchsorted(BACKGROUNDS, candidates.max(0))  # how many of the background values
    cells = (truth[valid].astype(np.int64) * classes + label) * (values + 1) + exceeded
    counts = np.bincount(cells, minlength=classes**2 * (values + 1)).reshape(classes, classes, values + 1)
    # a pixel keeps its class at background value j where it exceeds more than j of them
    kept = counts[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
    kept[:, 0] += counts.sum((1, 2))[:, None] - kept.sum(1)
    return kept.transpose(2, 0, 1)


def sweep(
    inspector: Inspector, names: Sequence[str], split: str, notify: Callable[[str], None] = print
) -> Sweep:
    """Count the images that have a mask among `names`; DataError where none has."""
    names = [name for name in names if inspector.samples[name].mask]
    if not names:
        raise DataError(
            f"none of these pictures of {split} has a mask, so no mIoU can be told; choose a split with masks"
        )
    total = 0
    for number, name in enumerate(names, 1):
        inspection = inspector.inspect(name, ALL_VIEWS)
        total = total + count(inspection.masks, inspection.probabilities, inspection.truth)
        notify(f"sweep: {number} of {len(names)} pictures")
    classes = total.shape[-1]
    mean_iou = [[ConfusionMatrix(classes, matrix).mean_iou() for matrix in row] for row in total]
    return Sweep(np.array(mean_iou), len(names), split)
