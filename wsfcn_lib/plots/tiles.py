"""Pictures side by side, with titles, row labels and a legend."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from wsfcn_lib.plots.style import GREY, SQUARES, styled

PAGE, LARGEST = 9, 2.6  # inches: a figure is at most so wide, and a picture
LETTERS = 11  # of a row label in an inch


@styled
def tile(
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    legend: Mapping = {},
) -> Figure:
    """A panel of RGB pictures (None: a gap) with column titles, row labels, a legend {name: (r, g, b)}."""
    columns = max(map(len, rows), default=0)
    if not columns or not all(any(picture is not None for picture in row) for row in rows):
        raise ValueError("a panel needs at least one picture in every row")
    heights, widths = _proportions(rows, columns)
    label_width = 0.3 if row_labels else 0
    unit = min(LARGEST, (PAGE - label_width) / sum(widths))  # inches
    heights, widths = unit * heights, unit * widths
    title_height = 0.2 * max((title.count("\n") + 1.25 for title in titles), default=0)
    legend_rows = math.ceil(len(legend) / max(1, int(sum(widths) / 1.2)))  # an entry takes 1.2 inches
    height = sum(heights) + title_height + 0.24 * legend_rows + 0.1
    figure = Figure((sum(widths) + label_width, height), layout="compressed")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights, width_ratios=widths)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axes, row in zip(grid, rows):
        for axis, picture in zip(axes, row):
            if picture is not None:
                axis.imshow(picture)

    size = _font_size(titles, widths, 10.5)
    for axis, title in zip(grid[0], titles):
        axis.set_title(title, loc="center", fontsize=size)
    folded = []
    for label, length in zip(row_labels, heights):
        lines = textwrap.wrap(label, max(9, int(LETTERS * length)), break_long_words=False)
        folded.append("\n".join(lines))
    size = _font_size(folded, heights, 9.5)
    for axis, label in zip(grid[:, 0], folded):
        axis.set_ylabel(label, fontsize=size)
    if legend:
        patches = [
            Patch(facecolor=np.array(colour) / 255, edgecolor=GREY, lw=0.4, label=name)
            for name, colour in legend.items()
        ]
        columns = math.ceil(len(patches) / legend_rows)
        figure.legend(handles=patches, loc="outside lower center", ncols=columns, **SQUARES)
    return figure


def _proportions(rows: Sequence, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Heights of rows and widths of columns, so that pictures of unlike shapes leave little room empty.

    Where the pictures of each row have one shape, columns are equally wide; else rows are equally high.
    """
    aspects = np.full((len(rows), columns), np.nan)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            if picture is not None:
                aspects[r, c] = picture.shape[0] / picture.shape[1]
    highest, lowest = np.fmax.reduce(aspects, axis=1), np.fmin.reduce(aspects, axis=1)  # nan counts nowhere
    if (highest - lowest < 0.02).all():
        return highest, np.ones(columns)
    widest = np.fmax.reduce(1 / aspects, axis=0)
    return np.ones(len(rows)), np.nan_to_num(widest, nan=1)


def _font_size(texts: Sequence[str], inches: Sequence[float], largest: float) -> float:
    """The largest size, from 6 points on, at which each of the texts fits into its length."""
    sizes = [largest]
    for text, length in zip(texts, inches):
        longest = max(map(len, text.split("\n")))
        sizes.append(100 * length / max(1, longest))  # a bold letter is 0.7 of its size wide
    return max(6, min(sizes))
