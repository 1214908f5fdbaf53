"""Pictures of a data set: images with the words that belong to them, and with their masks below."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from wsfcn_lib.data.painting import overlay
from wsfcn_lib.plots.tiles import tile

MANY = 21  # classes; of more, a legend names only those that are seen


def class_colours(
    names: Sequence[str], palette: np.ndarray, classes: Iterable[int]
) -> dict[str, tuple[int, int, int]]:
    """A legend {name: (r, g, b)} of class indices, in their order; background (0) is left out."""
    return {names[c]: tuple(palette[c].tolist()) for c in sorted({*map(int, classes)} - {0})}


def legend_of(
    names: Sequence[str], palette: np.ndarray, tags: Iterable[Sequence[bool]]
) -> dict[str, tuple[int, int, int]]:
    """A legend of all classes, or where there are more than MANY, of those in any of the `tags` (K - 1,)."""
    seen = np.any([*tags], axis=0) if len(names) > MANY else np.ones(len(names) - 1, bool)
    return class_colours(names, palette, np.flatnonzero(seen) + 1)


def with_words(images: Sequence[np.ndarray], words: Sequence[str]) -> Figure:
    """Images (H, W, 3) uint8 in one row, each below its words."""
    return tile([images], words)


def with_masks(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    palette: np.ndarray,
    legend: Mapping[str, tuple[int, int, int]],
) -> Figure:
    """Images (H, W, 3) uint8 above, and below each the same under its mask (H, W) of class indices."""
    painted = [overlay(image, mask, palette) for image, mask in zip(images, masks)]
    return tile([images, painted], legend=legend)
