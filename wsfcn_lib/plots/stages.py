"""The stages of an image on its way from activation map to prediction, an image or a class in each row."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.painting import blend, colour_labels, outlined, overlay
from wsfcn_lib.plots.overlays import heat
from wsfcn_lib.plots.tiles import tile

# none of the colours in which classes are shown
ERROR_COLOURS = {"missed": (190, 20, 60), "invented": (0, 225, 225), "confused": (110, 60, 190)}
WHITE = (255, 255, 255)


class ClassMaps(NamedTuple):
    """The map of one class in one image, after each number of PAMR's iterations."""

    image: np.ndarray  # (H, W, 3) uint8
    maps: Mapping[int, np.ndarray]  # iterations -> (H, W) in [0, 1]
    claimed: np.ndarray  # (H, W) bool, above the cut of the last map
    truth: np.ndarray | None  # (H, W) bool, where the class truly is
    index: int  # of the class
    label: str


class Stages(NamedTuple):
    """One image from its maps to its errors; what is not known is None."""

    name: str
    image: np.ndarray  # (H, W, 3) uint8
    cam: np.ndarray  # (H, W) in [0, 1], the strongest map of the image's classes
    pseudo: np.ndarray  # (H, W) class indices, 255 left out of the loss
    one_view: np.ndarray  # (H, W) class indices
    all_views: np.ndarray  # (H, W) class indices
    refined: np.ndarray | None  # (H, W) class indices after the dense CRF
    truth: np.ndarray | None  # (H, W) class indices, 255 not judged
    errors: np.ndarray | None  # (H, W): 0 right, 1 missed, 2 invented, 3 confused, 255 not judged


def refinement(rows: Sequence[ClassMaps], palette: np.ndarray) -> Figure:
    """A row a class: image, maps from CAM to refined, what the class claims, and where it truly is, if known."""
    pictures = []
    for row in rows:
        areas = [row.claimed] if row.truth is None else [row.claimed, row.truth]
        maps = [heat(row.image, values) for values in row.maps.values()]
        pictures.append(
            [row.image, *maps, *(overlay(row.image, area * row.index, palette) for area in areas)]
        )
    first, *others = rows[0].maps
    titles = ["image", "CAM" if first == 0 else f"PAMR {first}", *(f"PAMR {n}" for n in others)]
    return tile(pictures, [*titles, "above the cut", "truth"], [row.label for row in rows])


def to_prediction(rows: Sequence[Stages], palette: np.ndarray, legend: Mapping) -> Figure:
    """A row an image: pseudo label, prediction of one and of all views, and where known truth and errors."""
    colours = np.zeros((256, 3), np.uint8)
    colours[1:4], colours[IGNORE] = [*ERROR_COLOURS.values()], palette[IGNORE]
    pictures = []
    for row in rows:
        parts = [row.pseudo, row.one_view, row.all_views]
        if row.truth is not None:
            parts.append(row.truth)
        pictures.append([row.image, *(overlay(row.image, part, palette) for part in parts)])
        if row.errors is not None:
            grey = np.repeat(row.image.mean(2, keepdims=True), 3, 2).astype(np.uint8)
            shares = np.where(row.errors == 0, 0, 0.8)  # no outlines: errors are often as thin as those
            pictures[-1].append(blend(grey, colour_labels(row.errors, colours), shares))
    kinds = ERROR_COLOURS if any(row.errors is not None for row in rows) else {}
    titles = ["image", "pseudo label", "one view", "all views", "truth", "errors"]
    return tile(pictures, titles, [row.name for row in rows], {**legend, **kinds})


def maps_alone(rows: Sequence[Stages], palette: np.ndarray, legend: Mapping) -> Figure:
    """The same without the photographs, which may not be ours to publish: a column an image, true outlines white."""
    columns = []
    for row in rows:
        black = np.zeros_like(row.image)
        labels = [row.pseudo, row.all_views] + ([] if row.refined is None else [row.refined])
        column = [heat(black, row.cam, 1), *(overlay(black, label, palette, 1) for label in labels)]
        if row.truth is not None:
            column = [outlined(picture, row.truth, WHITE) for picture in column]
        columns.append(column)
    stages = ["CAM", "pseudo label", "prediction", "with CRF"]
    pictures = [[*row] for row in zip(*columns)]
    return tile(pictures, [row.name.replace("_", "\n") for row in rows], stages[: len(pictures)], legend)


def map_growth(
    images: Sequence[np.ndarray],
    maps: Sequence[Mapping[int, np.ndarray]],
    names: Sequence[str],
) -> Figure:
    """A row an image (H, W, 3) uint8: its map (H, W) in [0, 1] after each number of epochs in `maps`."""
    rows = [[image, *(heat(image, each) for each in own.values())] for image, own in zip(images, maps)]
    return tile(rows, ["image", *(f"{epoch} epochs" for epoch in maps[0])], names)
