"""Where a prediction is wrong, and how: missed, invented or confused, along borders or elsewhere."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.ndimage import maximum_filter, minimum_filter

from wsfcn_lib.data.classes import IGNORE

KINDS = ("right", "missed", "invented", "confused")


def error_kinds(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The error of each pixel (H, W) uint8, an index of KINDS, of class indices (H, W); 255 where truth is 255.

    An object is missed where it is painted as background, invented where background is painted as an object,
    confused where it is painted as another class.
    """
    kinds = np.where(labels == 0, 1, np.where(truth == 0, 2, 3))
    kinds = np.where(labels == truth, 0, kinds).astype(np.uint8)
    return np.where(truth == IGNORE, IGNORE, kinds).astype(np.uint8)


def shares_by_border(pairs: Iterable[tuple[np.ndarray, np.ndarray]], width: int = 3) -> pd.DataFrame:
    """Percent of all judged pixels by kind of error, within `width` pixels of a true border and elsewhere.

    From (labels, truth) of each image, class indices (H, W).
    """
    pixels = np.zeros((len(KINDS), 2))
    for labels, truth in pairs:
        kinds = error_kinds(labels, truth)
        size = 2 * width + 1
        near = maximum_filter(truth, size) != minimum_filter(truth, size)
        for border in (False, True):
            pixels[:, int(border)] += np.bincount(kinds[near == border], minlength=256)[: len(KINDS)]
    columns = ["elsewhere", f"within {width} pixels of a border"]
    return pd.DataFrame(100 * pixels / max(1, pixels.sum()), KINDS, columns)
