"""Pictures side by side, with titles, row labels and a legend."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from wsfcn_lib.plots.style import GREY, styled


def shares(rows: Sequence[Sequence[np.ndarray | None]], columns: int) -> tuple[list[float], list[float]]:
    """Heights of rows and widths of columns, either all 1, so that pictures of unlike shapes leave little room empty."""
    shapes = [[p.shape[0] / p.shape[1] if p is not None else None for p in row] for row in rows]
    known = [aspect for row in shapes for aspect in row if aspect]
    tall = [max(aspect for aspect in row if aspect) for row in shapes]
    wide = [max((1 / row[c] for row in shapes if c < len(row) and row[c]), default=1) for c in range(columns)]
    filled = sum(known) / (columns * sum(tall)), sum(1 / aspect for aspect in known) / (len(rows) * sum(wide))
    return ([1.0] * len(rows), wide) if filled[1] > filled[0] + 0.1 else (tall, [1.0] * columns)


SQUARES = {"handlelength": 1.1, "handleheight": 1.1}


@styled
def tile(
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    legend: Mapping = {},
) -> Figure:
    """A panel of RGB pictures (None leaves a gap), with column titles, row labels and a legend {class name: (r, g, b)}."""
    columns = max(map(len, rows), default=0)
    if not columns or not all(any(picture is not None for picture in row) for row in rows):
        raise ValueError("a panel needs at least one picture in every row")
    tall, wide = shares(rows, columns)
    cell = min(2.6, (9 - 0.3 * bool(row_labels)) / sum(wide))
    legend_rows = -(-len(legend) // max(1, int(cell * sum(wide) / 1.2)))  # an entry takes 1.2 inches
    height = (
        sum(tall) * cell
        + 0.2 * max((t.count("\n") + 1.25 for t in titles), default=0)
        + 0.24 * legend_rows
        + 0.1
    )
    figure = Figure((cell * sum(wide) + 0.3 * bool(row_labels), height), layout="compressed")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=tall, width_ratios=wide)
    for r, row in enumerate(rows):
        for c, axis in enumerate(axes[r]):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if c < len(row) and row[c] is not None:
                axis.imshow(row[c])
    size = min(
        (100 * cell * share / max(map(len, [*t.split("\n"), "x"])) for t, share in zip(titles, wide)),
        default=10.5,
    )
    for axis, title in zip(axes[0], titles, strict=False):  # points: a bold letter is 0.7 wide
        axis.set_title(title, loc="center", fontsize=min(10.5, max(6, size)))
    fits = [11 * cell * aspect for aspect in tall]  # letters, of which an inch takes 11
    folded = [
        textwrap.wrap(label, max(9, int(fit)), break_long_words=False) or [""]
        for label, fit in zip(row_labels, fits)
    ]
    size = min((10 * fit / max(map(len, lines)) for lines, fit in zip(folded, fits)), default=9.5)
    for axis, lines in zip(axes[:, 0], folded, strict=False):
        axis.set_ylabel("\n".join(lines), fontsize=min(9.5, max(6, size)))
    if legend:
        patches = [
            Patch(facecolor=np.array(rgb) / 255, edgecolor=GREY, lw=0.4, label=name)
            for name, rgb in legend.items()
        ]
        figure.legend(
            handles=patches, loc="outside lower center", ncols=-(-len(patches) // legend_rows), **SQUARES
        )
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    return figure
