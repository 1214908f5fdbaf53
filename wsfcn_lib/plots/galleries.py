"""Images beside what networks made of them: variants side by side, best and worst, pictures without truth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from wsfcn_lib.data.painting import outlined, overlay
from wsfcn_lib.plots.overlays import heat
from wsfcn_lib.plots.tiles import tile

WHITE = (255, 255, 255)


def side_by_side(
    images: Sequence[np.ndarray],
    masks: Sequence[Mapping[str, np.ndarray | None]],
    names: Sequence[str],
    palette: np.ndarray,
    legend: Mapping,
) -> Figure:
    """A row an image (H, W, 3) uint8, a column each of its masks {title: (H, W) class indices, None: a gap}."""
    rows = [[image, *_painted(image, own.values(), palette)] for image, own in zip(images, masks)]
    return tile(rows, ["image", *masks[0]], names, legend)


def below_each_other(
    images: Sequence[np.ndarray],
    masks: Sequence[Mapping[str, np.ndarray | None]],
    titles: Sequence[str],
    palette: np.ndarray,
    legend: Mapping,
) -> Figure:
    """A column an image, a row each of its masks, as in `side_by_side`; a row without any is left out."""
    columns = [[image, *_painted(image, own.values(), palette)] for image, own in zip(images, masks)]
    labelled = [*zip(["image", *masks[0]], zip(*columns))]
    kept = [(label, row) for label, row in labelled if any(picture is not None for picture in row)]
    return tile([row for _, row in kept], titles, [label for label, _ in kept], legend)


def segmented(
    image: np.ndarray,
    labels: np.ndarray,
    maps: Mapping[str, np.ndarray],
    palette: np.ndarray,
    legend: Mapping,
) -> Figure:
    """One image (H, W, 3) uint8, its labels (H, W), and the map (H, W) in [0, 1] of each class, by its title."""
    heats = [heat(image, values.clip(0, 1)) for values in maps.values()]
    return tile(
        [[image, overlay(image, labels, palette), *heats]], ["picture", "segmentation", *maps], (), legend
    )


def strongest(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    titles: Sequence[str],
    palette: np.ndarray,
) -> Figure:
    """A column an image: the photograph, the map (H, W) of its strongest class, and its labels (H, W), outlined."""
    heats = [heat(image, values.clip(0, 1)) for image, values in zip(images, maps)]
    painted = [
        outlined(overlay(image, label, palette, 0.5), label, WHITE) for image, label in zip(images, labels)
    ]
    return tile([images, heats, painted], titles, ["photograph", "mask", "painted"])


def _painted(image: np.ndarray, masks, palette: np.ndarray) -> list[np.ndarray | None]:
    return [None if mask is None else overlay(image, mask, palette) for mask in masks]
