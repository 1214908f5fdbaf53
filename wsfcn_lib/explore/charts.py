"""Bars, curves and legends as small pictures, drawn by Pillow."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from wsfcn_lib.explore import draw
from wsfcn_lib.explore.draw import FAINT, INK, PAPER

WIDTH = 280  # pixels, of a column of charts


def bars(
    values: Sequence[float],
    names: Sequence[str],
    colours: np.ndarray,
    title: str,
    filled: Sequence[bool] | None = None,
    cut: float | None = None,
    ticks: Sequence[float] | None = None,
    chosen: str = "",
) -> np.ndarray:
    """Values in [0, 1] as bars with their numbers, hollow where not filled; `cut` is a dashed line, `ticks` are marks."""
    canvas = Image.new("RGB", (WIDTH, 34 + 19 * len(names)), PAPER)
    pen, left, span = ImageDraw.Draw(canvas), 104, WIDTH - 150
    pen.text((4, 6), title, INK, draw.font(13))
    for line, (value, name, colour) in enumerate(zip(values, names, np.asarray(colours).tolist())):
        top, short = 30 + 19 * line, name if len(name) <= 13 else name[:12] + "…"
        pen.text((left - 6, top), "▸ " * (name == chosen) + short, INK, draw.font(12), anchor="ra")
        fill = tuple(colour) if filled is None or filled[line] else PAPER
        pen.rectangle((left, top + 1, left + max(1, round(span * value)), top + 14), fill, FAINT)
        pen.text((WIDTH - 42, top), f"{value:.2f}", INK, draw.font(12))
        if ticks is not None and ticks[line] == ticks[line]:
            for half, shade in ((2, PAPER), (1, INK)):  # a rim, for dark bars
                at = left + round(span * ticks[line])
                pen.rectangle((at - half, top - 1, at + half, top + 16), shade)
    for y in range(28, canvas.height, 6) if cut is not None else ():
        pen.line((left + span * cut, y, left + span * cut, y + 3), INK, 1)
    return np.asarray(canvas)


def differences(values: Sequence[float], names: Sequence[str], title: str) -> np.ndarray:
    """Values in [-1, 1] as bars around zero with their numbers: blue to the right, orange to the left."""
    canvas = Image.new("RGB", (WIDTH, 34 + 19 * len(names)), PAPER)
    pen, zero, span = ImageDraw.Draw(canvas), 166, 58 / max([0.01, *np.abs(values)])
    pen.text((4, 6), title, INK, draw.font(13))
    for top, (value, name) in zip(range(30, canvas.height, 19), zip(values, names)):
        pen.text((98, top), name if len(name) <= 13 else name[:12] + "…", INK, draw.font(12), anchor="ra")
        ends = sorted((zero, zero + round(span * value)))
        pen.rectangle(
            (ends[0], top + 1, ends[1], top + 14), draw.GAINED if value > 0 else draw.ERRORS["missed"][0]
        )
        pen.text((WIDTH - 4, top), f"{value:+.3f}", INK, draw.font(12), anchor="ra")
    pen.line((zero, 28, zero, canvas.height - 4), INK)
    return np.asarray(canvas)


def plot(x: np.ndarray, y: np.ndarray, title: str, mark: float, at: float) -> np.ndarray:
    """A curve above 0 with its range in numbers, a dashed line at the place `mark`, and a dot at the place `at`."""
    canvas = Image.new("RGB", (WIDTH, 120), PAPER)
    pen, (left, top, right, bottom), high = (
        ImageDraw.Draw(canvas),
        (40, 28, WIDTH - 20, 98),
        max(1.1 * float(y.max()), 1e-3),
    )
    points = list(
        zip(left + (right - left) * (x - x[0]) / (x[-1] - x[0]), bottom - (bottom - top) * y / high)
    )
    dashed, (across, down) = (
        np.array([np.interp(place, x, side) for side in zip(*points)]) for place in (mark, at)
    )
    pen.text((4, 6), title, INK, draw.font(13))
    pen.rectangle((left, top, right, bottom), outline=draw.GROUND)
    for value, place in ((0, bottom), (high, top)):
        pen.text((left - 4, place), f"{value:.2f}", FAINT, draw.font(11), anchor="rm")
    ends = [(value, place) for value, place in ((x[0], left), (x[-1], right)) if abs(place - dashed[0]) > 30]
    for value, place in (*ends, (mark, dashed[0])):
        pen.text(
            (place, bottom + 4), f"{value:.2f}", INK if value == mark else FAINT, draw.font(11), anchor="ma"
        )
    for dash in range(top, bottom, 6):
        pen.line((dashed[0], dash, dashed[0], dash + 3), INK)
    pen.line(points, draw.GAINED, 2)
    pen.ellipse((across - 4, down - 4, across + 4, down + 4), draw.ERRORS["missed"][0], INK)
    return np.asarray(canvas)


def lines(
    series: Sequence[tuple[str, str, Sequence[tuple[float, float]]]], title: str, end: float, width: int
) -> np.ndarray:
    """Curves above 0 from 0 to `end`: name, colour and points (x, y) of each; earlier ones broader, so that equal ones show.

    What is higher at 0 than ever after is drawn at the upper edge.
    """
    canvas, face = Image.new("RGB", (width, 150), PAPER), draw.font(11)
    pen, (left, top, right, bottom) = ImageDraw.Draw(canvas), (52, 32, width - 14, 128)
    # the loss of an untrained network would flatten all that follows
    high = (
        1.08 * max((y for *_, points in series for x, y in points if x or len(points) == 1), default=0) or 1
    )
    pen.text((8, 6), title, INK, draw.font(13))
    pen.rectangle((left, top, right, bottom), outline=draw.GROUND)
    for value, place in ((0, bottom), (high / 1.08, bottom - (bottom - top) / 1.08)):
        pen.text((left - 5, place), f"{float(f'{value:.2g}'):g}", FAINT, draw.font(11), anchor="rm")
    for words, place, anchor in (("0", left, "ma"), (f"step {end:g}", right, "ra")):
        pen.text((place, bottom + 4), words, FAINT, draw.font(11), anchor=anchor)
    x = right
    for name, colour, _ in reversed(series):
        pen.text((x, 7), name, INK, face, anchor="ra")
        x -= face.getlength(name) + 14
        pen.rectangle((x, 11, x + 9, 17), colour)
        x -= 10
    for broad, (_, colour, points) in zip(range(len(series) + 1, 0, -1), series):
        at = [
            (left + (right - left) * x / end, bottom - (bottom - top) * min(1, y / high)) for x, y in points
        ]
        pen.line(at, colour, broad)
        for x, y in at if len(at) <= 40 else ():
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), colour)
    return np.asarray(canvas)


def legend(entries: Mapping[str, tuple | tuple[tuple, int]], width: int) -> np.ndarray:
    """Patches with names, in rows; an entry is a colour, or a colour and the slant of its stripes."""
    places, x, y = [], 8, 4
    for name in entries:
        wide = 34 + round(draw.font(12).getlength(name))
        x, y = (8, y + 20) if x + wide > width else (x, y)
        places.append((x, y))
        x += wide
    picture = draw.blank(y + 22 if entries else 0, width)
    for (x, y), (name, colour) in zip(places, entries.items()):
        patch = draw.blank(13, 16, FAINT)
        patch[1:-1, 1:-1] = draw.GROUND if np.ndim(colour[0]) else colour
        patch = draw.stripes(patch, np.ones((13, 16), bool), *colour) if np.ndim(colour[0]) else patch
        picture[y + 1 : y + 14, x : x + 16] = patch
        picture = draw.write(picture, (x + 20, y), name, 12)
    return picture
