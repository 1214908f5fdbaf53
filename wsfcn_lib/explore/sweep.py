"""What the two cuts of the evaluation do to the mIoU: all values of both, from one pass over a sample of pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import IGNORE
from wsfcn_lib.explore.inspection import VIEWS, Inspector
from wsfcn_lib.metrics import ConfusionMatrix

SCORE_CUTS = np.arange(19) / 20  # from 0, in steps of 0.05; the recipe's 0.1 is among them
BACKGROUNDS = np.arange(1, 20) / 20  # and its 0.25 among these


@dataclass(frozen=True, eq=False)
class Sweep:
    """mIoU (score cuts, background values) of WS-FCN's rule, and what it was computed on."""

    mean_iou: np.ndarray
    images: int
    split: str


def recut(masks: np.ndarray, chances: np.ndarray, score_cut: float, background: float) -> np.ndarray:
    """`recipes.label_map` of "wsfcn" with other cuts: masks (K, H, W), chances (K-1,) → (H, W) uint8."""
    present = np.flatnonzero(chances > score_cut) + 1
    if not len(present):
        return np.zeros(masks.shape[1:], np.uint8)
    strongest = masks[present].argmax(0)
    return np.where(masks[present].max(0) > background, present[strongest], 0).astype(np.uint8)


def count(masks: np.ndarray, chances: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Confusion counts of one picture at all cuts: (score cuts, background values, K, K), rows = truth."""
    classes, steps = len(masks), len(BACKGROUNDS)
    counts, known = np.zeros((len(SCORE_CUTS), steps, classes, classes), np.int64), {}
    valid = truth != IGNORE
    for place, cut in enumerate(SCORE_CUTS):
        present = np.flatnonzero(chances > cut) + 1
        if (key := present.tobytes()) not in known:
            chosen = masks[np.append(0, present)][:, valid]
            chosen[0] = 0  # where no class is present, none exceeds any background
            label = np.append(0, present)[chosen.argmax(0)]
            passed = np.searchsorted(
                BACKGROUNDS, chosen.max(0)
            )  # how many of the background values it exceeds
            cells = (truth[valid].astype(np.int64) * classes + label) * (steps + 1) + passed
            found = np.bincount(cells, minlength=classes**2 * (steps + 1)).reshape(
                classes, classes, steps + 1
            )
            kept = found[..., ::-1].cumsum(-1)[..., ::-1][
                ..., 1:
            ]  # exceeding background j: passed more than j
            kept[:, 0] += found.sum((1, 2))[:, None] - kept.sum(1)
            known[key] = kept.transpose(2, 0, 1)
        counts[place] = known[key]
    return counts


def sweep(source: Inspector, names: Sequence[str], split: str, say: Callable[[str], None] = print) -> Sweep:
    """Count the pictures that have a mask among `names`; DataError where none has."""
    names, total = [name for name in names if source.samples[name].mask], 0
    if not names:
        raise DataError(
            f"none of these pictures of {split} has a mask, so no mIoU can be told; choose a split with masks"
        )
    for number, name in enumerate(names, 1):
        look = source.look(name, VIEWS[1])
        total = total + count(look.masks, look.chances, look.truth)
        say(f"sweep: {number} of {len(names)} pictures")
    classes = total.shape[-1]
    found = [[ConfusionMatrix(classes, matrix).mean_iou() for matrix in line] for line in total]
    return Sweep(np.array(found), len(names), split)
