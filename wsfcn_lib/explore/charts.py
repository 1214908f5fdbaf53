"""Bars, curves and legends as small pictures, drawn by Pillow."""

from collections.abc import Container, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw

from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.explore import draw
from wsfcn_lib.explore.draw import FAINT, GAINED, GROUND, INK, LOST, PAPER, Picture

WIDTH = 280  # pixels, of a column of charts
ROWS = 12  # bars at most in one chart


def bars(
    values: np.ndarray,
    classes: Sequence[int],
    manifest: Manifest,
    title: str,
    hollow: Container[int] = (),
    cut: float | None = None,
    ticks: Mapping[str, float | None] = MappingProxyType({}),
    chosen: str = "",
) -> Picture:
    """Values (K,) in [0, 1] of some classes as bars with their numbers.

    `hollow`: classes whose bar is not filled; `cut`: a dashed line; `ticks`: marks by class name; `chosen`:
    the name that is pointed at.
    """
    names = [manifest.names[c] for c in classes]
    image, pen, tops = _rows(title, names, chosen)
    left, length = 104, WIDTH - 150
    for top, name, c in zip(tops, names, classes):
        colour = PAPER if c in hollow else tuple(manifest.shades[c])
        pen.rectangle((left, top + 1, left + max(1, round(length * values[c])), top + 14), colour, FAINT)
        pen.text((WIDTH - 42, top), f"{values[c]:.2f}", INK)
        if ticks.get(name) is not None:
            x = left + round(length * ticks[name])
            pen.rectangle((x - 2, top - 1, x + 2, top + 16), PAPER)  # a rim, for dark bars
            pen.rectangle((x - 1, top - 1, x + 1, top + 16), INK)
    if cut is not None:
        _dashes(pen, left + length * cut, 28, image.height)
    return np.asarray(image)


def differences(values: Sequence[float], names: Sequence[str], title: str) -> Picture:
    """Values in [-1, 1] as bars around zero with their numbers: blue to the right, orange to the left."""
    image, pen, tops = _rows(title, names)
    zero, scale = 166, 58 / max([0.01, *np.abs(values)])
    for top, value in zip(tops, values):
        low, high = sorted((zero, zero + round(scale * value)))
        pen.rectangle((low, top + 1, high, top + 14), GAINED if value > 0 else LOST)
        pen.text((WIDTH - 4, top), f"{value:+.3f}", INK, anchor="ra")
    pen.line((zero, 28, zero, image.height - 4), INK)
    return np.asarray(image)


def plot(x: np.ndarray, y: np.ndarray, title: str, mark: float, at: float) -> Picture:
    """A curve above 0 with its range in numbers, a dashed line at `mark`, and a dot on the curve at `at`."""
    image, pen = draw.canvas(WIDTH, 120)
    left, top, right, bottom = 40, 28, WIDTH - 20, 98
    highest = max(1.1 * float(y.max()), 1e-3)
    across = left + (right - left) * (x - x[0]) / (x[-1] - x[0])
    down = bottom - (bottom - top) * y / highest
    marked = np.interp(mark, x, across)
    labels = [(left - 4, bottom, "0.00", "rm"), (left - 4, top, f"{highest:.2f}", "rm")]
    for value, end in ((x[0], left), (x[-1], right)):
        if abs(end - marked) > 30:  # else it would run into the mark's number
            labels.append((end, bottom + 4, f"{value:.2f}", "ma"))
    _axes(pen, title, 4, (left, top, right, bottom), labels)
    pen.text((marked, bottom + 4), f"{mark:.2f}", INK, draw.font(11), anchor="ma")
    _dashes(pen, marked, top, bottom)
    pen.line(list(zip(across, down)), GAINED, 2)
    _dot(pen, np.interp(at, x, across), np.interp(at, x, down), 4, LOST, INK)
    return np.asarray(image)


def lines(
    series: Sequence[tuple[str, str, Sequence[tuple[float, float]]]], title: str, end: float, width: int
) -> Picture:
    """Curves above 0 from 0 to `end`: name, colour and points (x, y) of each.

    Earlier ones are broader, so that equal ones show. What is higher at 0 than ever after is drawn on top.
    """
    image, pen = draw.canvas(width, 150)
    left, top, right, bottom = 52, 32, width - 14, 128
    # the loss of an untrained network would flatten all that follows
    heights = [y for *_, points in series for x, y in points if x or len(points) == 1]
    highest = 1.08 * max(heights, default=0) or 1
    labels = [
        (left - 5, bottom, "0", "rm"),
        (left - 5, bottom - (bottom - top) / 1.08, f"{float(f'{highest / 1.08:.2g}'):g}", "rm"),
        (left, bottom + 4, "0", "ma"),
        (right, bottom + 4, f"step {end:g}", "ra"),
    ]
    _axes(pen, title, 8, (left, top, right, bottom), labels)
    x = right
    for name, colour, _ in reversed(series):
        pen.text((x, 7), name, INK, draw.font(11), anchor="ra")
        x -= draw.font(11).getlength(name) + 14
        pen.rectangle((x, 11, x + 9, 17), colour)
        x -= 10
    for index, (_, colour, points) in enumerate(series):
        across = [left + (right - left) * x / end for x, _ in points]
        down = [bottom - (bottom - top) * min(1, y / highest) for _, y in points]
        pen.line(list(zip(across, down)), colour, len(series) + 1 - index)
        if len(points) <= 40:
            for x, y in zip(across, down):
                _dot(pen, x, y, 2, colour)
    return np.asarray(image)


def legend(entries: Mapping[str, tuple], width: int) -> Picture:
    """Patches with names, in rows; an entry is a colour, or a colour and the slant of its stripes."""
    places, x, y = [], 8, 4
    for name in entries:
        needed = 34 + round(draw.font(12).getlength(name))
        if x + needed > width:
            x, y = 8, y + 20
        places.append((x, y))
        x += needed
    image, pen = draw.canvas(width, y + 22 if entries else 0)
    for (x, y), (name, style) in zip(places, entries.items()):
        patch, striped = draw.blank(13, 16, FAINT), isinstance(style[0], tuple)
        patch[1:-1, 1:-1] = GROUND if striped else style
        if striped:
            patch = draw.stripes(patch, np.ones((13, 16), bool), *style)
        image.paste(Image.fromarray(patch), (x, y + 1))
        pen.text((x + 20, y), name, INK)
    return np.asarray(image)


def page(panels: Sequence[Picture], entries: Mapping[str, tuple]) -> Picture:
    """Panels in rows of two with their legend below."""
    picture = draw.grid(*panels)
    return draw.below(picture, legend(entries, picture.shape[1]))


def _rows(
    title: str, names: Sequence[str], chosen: str = ""
) -> tuple[Image.Image, ImageDraw.ImageDraw, range]:
    """A chart with a row for each name, its pen, and where the rows begin."""
    image, pen = draw.canvas(WIDTH, 34 + 19 * len(names))
    pen.text((4, 6), title, INK, draw.font(13))
    tops = range(30, image.height, 19)
    for top, name in zip(tops, names):
        mark = "▸ " if name == chosen else ""
        short = name if len(name) <= 13 else name[:12] + "…"
        pen.text((98, top), mark + short, INK, anchor="ra")
    return image, pen, tops


def _axes(pen: ImageDraw.ImageDraw, title: str, indent: int, box: tuple, labels: Iterable[tuple]) -> None:
    """A chart's title, its frame, and labels (x, y, text, anchor) at its sides."""
    pen.text((indent, 6), title, INK, draw.font(13))
    pen.rectangle(box, outline=GROUND)
    for x, y, text, anchor in labels:
        pen.text((x, y), text, FAINT, draw.font(11), anchor=anchor)


def _dashes(pen: ImageDraw.ImageDraw, x: float, top: int, bottom: int) -> None:
    for y in range(top, bottom, 6):
        pen.line((x, y, x, y + 3), INK)


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, radius: int, *colours: object) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), *colours)
