"""Words, bars and marks drawn into arrays by Pillow: some milliseconds where a figure takes hundreds. All on own ground."""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsfcn_lib.pictures import INFERNO
from wsfcn_lib.plots import FONT

INK, FAINT, PAPER = (33, 37, 41), (92, 102, 112), (255, 255, 255)  # drawn on own ground: for dark and light pages alike
GROUND, NOTE = (233, 236, 239), (255, 243, 205)
# kinds of error: colour and slant of the stripes; slants tell them apart without colour, and from VOC's flat class colours
ERRORS = {"missed": ((213, 94, 0), 1), "invented": ((86, 180, 233), -1), "confused": ((240, 228, 66), 0)}
GAINED = (0, 114, 178)
RAMP = {f"map {value}": tuple(INFERNO[place]) for value, place in ((0, 0), (0.5, 6), (1, 11))}
_HEAT = np.stack([np.interp(np.linspace(0, 11, 256), range(12), INFERNO[:, c]) for c in range(3)], 1).astype(np.float32)


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """A typeface that knows more than Latin letters."""
    return ImageFont.truetype(FONT, size)


def blank(height: int, width: int, colour: tuple = PAPER) -> np.ndarray:
    """An empty picture (H, W, 3) uint8."""
    return np.full((height, width, 3), colour, np.uint8)


def write(picture: np.ndarray, place: tuple[int, int], words: str, size: int = 13, colour: tuple = INK) -> np.ndarray:
    """A copy of the picture with words whose upper left corner is at `place` (x, y)."""
    canvas = Image.fromarray(picture)
    ImageDraw.Draw(canvas).text(place, words, colour, font(size))
    return np.array(canvas)


def paragraph(words: str, width: int, size: int = 13, ground: tuple = PAPER) -> np.ndarray:
    """Words broken into lines, as a picture of this width."""
    lines, face = [], font(size)
    for part in words.split("\n"):
        lines.append("")
        for word in part.split():
            longer = f"{lines[-1]} {word}".strip()
            if face.getlength(longer) <= width - 16 or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(word)
    return write(blank(8 + int(1.4 * size) * len(lines), width, ground), (8, 4), "\n".join(lines), size)


def message(words: str, height: int = 375, width: int = 500) -> np.ndarray:
    """Words in a picture's place: what is missing, and how to get it."""
    return framed(paragraph(words, width - 32, 14), height, width, PAPER)


def framed(picture: np.ndarray, height: int, width: int, colour: tuple = GROUND) -> np.ndarray:
    """The picture in the middle of a ground of at least this size, so that pages do not jump from image to image."""
    tall, wide = (max(have, least) for have, least in zip(picture.shape[:2], (height, width)))
    ground = blank(tall, wide, colour)
    top, left = (tall - picture.shape[0]) // 2, (wide - picture.shape[1]) // 2
    ground[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return ground


def fitted(shape: tuple[int, ...], height: int, width: int, shrink: bool = False) -> Callable[[np.ndarray], np.ndarray]:
    """How arrays of a picture grow to fill a height or a width: photographs and maps smoothly, labels to the nearest pixel.

    `shrink`: larger ones become smaller too.
    """
    tall, wide = shape[:2]
    factor = max(0 if shrink else 1, min(height / tall, width / wide))
    size = max(1, round(factor * tall)), max(1, round(factor * wide))
    rows, columns = (np.arange(after) * before // after for after, before in zip(size, (tall, wide)))

    def grow(array: np.ndarray) -> np.ndarray:
        if size == (tall, wide):
            return array
        if array.ndim == 2 and array.dtype.kind != "f":
            return array[rows[:, None], columns]
        return np.asarray(Image.fromarray(array).resize(size[::-1], Image.Resampling.BILINEAR))

    return grow


def beside(*pictures: np.ndarray) -> np.ndarray:
    """Pictures from left to right, their upper edges level."""
    tall = max(picture.shape[0] for picture in pictures)
    return np.hstack([np.vstack([p, blank(tall - p.shape[0], p.shape[1])]) for p in pictures])


def below(*pictures: np.ndarray) -> np.ndarray:
    """Pictures from top to bottom, their left edges level."""
    wide = max(picture.shape[1] for picture in pictures)
    return np.vstack([np.hstack([p, blank(p.shape[0], wide - p.shape[1])]) for p in pictures])


def blend(picture: np.ndarray, colours: np.ndarray, opacity: float | np.ndarray) -> np.ndarray:
    """Colours (..., 3) laid over a picture (H, W, 3) uint8; the opacity may differ by pixel, (H, W, 1)."""
    return (picture + (np.asarray(colours, np.float32) - picture) * np.float32(opacity) + 0.5).astype(np.uint8)


def warm(picture: np.ndarray, values: np.ndarray, opacity: float) -> np.ndarray:
    """Values (H, W) in [0, 1] over a picture: `pictures.heat` in 256 steps, which is faster."""
    return blend(picture, _HEAT[(values * 255 + 0.5).clip(0, 255).astype(np.uint8)], opacity)


def gains(picture: np.ndarray, change: np.ndarray, opacity: float = 0.9) -> np.ndarray:
    """A change (H, W) in [-1, 1] over a grey picture: orange where something was lost, blue where gained."""
    colours = np.where(change[..., None] < 0, np.float32(ERRORS["missed"][0]), np.float32(GAINED))
    return blend(picture, colours, opacity * np.minimum(1, 2 * np.abs(change))[..., None])


def edges(label: np.ndarray) -> np.ndarray:
    """Where (H, W) one label meets another: a bool line one pixel wide."""
    found = np.zeros(label.shape, bool)
    found[:, 1:] |= label[:, 1:] != label[:, :-1]
    found[1:] |= label[1:] != label[:-1]
    return found


def outline(picture: np.ndarray, label: np.ndarray, opacity: float = 1) -> np.ndarray:
    """The borders of labels as white lines with a dark rim, seen on any colour."""
    line = edges(label)
    rim = line.copy()
    for axis in (0, 1):
        rim |= np.roll(line, 1, axis) | np.roll(line, -1, axis)
    out = blend(picture, INK, (opacity * rim)[..., None])
    return blend(out, PAPER, (opacity * line)[..., None])


def stripes(picture: np.ndarray, where: np.ndarray, colour: tuple, slant: int, opacity: float = 1) -> np.ndarray:
    """Dark-edged stripes where (H, W) bool: rising (1), falling (-1) or both (0)."""
    y, x = np.ogrid[: where.shape[0], : where.shape[1]]
    phases = [(x + s * y) % 9 for s in ((1, -1) if slant == 0 else (slant,))]
    broad, core = (np.logical_or.reduce([phase < width for phase in phases]) & where for width in (5, 3))
    out = blend(picture, INK, (opacity * broad)[..., None])
    return blend(out, colour, (opacity * core)[..., None])


def striped(picture: np.ndarray, kind: np.ndarray, opacity: float = 1) -> np.ndarray:
    """Stripes over errors, (H, W) of 0 for none and else the place in ERRORS, from 1."""
    for place, style in enumerate(ERRORS.values(), 1):
        picture = stripes(picture, kind == place, *style, opacity)
    return picture


def cross(picture: np.ndarray, x: int, y: int) -> np.ndarray:
    """A cross-hair at (x, y) that leaves the place itself free."""
    out, (tall, wide) = picture.copy(), picture.shape[:2]
    for colour, rim in ((INK, 2), (PAPER, 1)):
        for low, high in ((-22, -4), (5, 23)):
            out[max(0, y - rim + 1) : y + rim, max(0, x + low) : max(0, min(wide, x + high))] = colour
            out[max(0, y + low) : max(0, min(tall, y + high)), max(0, x - rim + 1) : x + rim] = colour
    return out


def bars(
    values: Sequence[float],
    names: Sequence[str],
    colours: Sequence[tuple],
    title: str,
    filled: Sequence[bool],
    cut: float | None = None,
    ticks: Sequence[float] | None = None,
    chosen: str = "",
    width: int = 280,
) -> np.ndarray:
    """Values in [0, 1] as bars with their numbers; NaN reads "absent". Hollow where not filled; `cut` a dashed line."""
    canvas = Image.new("RGB", (width, 34 + 19 * len(names)), PAPER)
    pen, left, span = ImageDraw.Draw(canvas), 104, width - 104 - 46
    pen.text((4, 6), title, INK, font(13))
    for row, (value, name, colour, fill) in enumerate(zip(values, names, colours, filled)):
        top, known = 30 + 19 * row, value == value
        short = name if len(name) <= 13 else name[:12] + "…"
        pen.text((left - 6, top), ("▸ " if name == chosen else "") + short, INK, font(12), anchor="ra")
        if known:
            colour = tuple(int(part) for part in colour)
            box = (left, top + 1, left + max(1, round(span * value)), top + 14)
            pen.rectangle(box, fill=colour if fill else PAPER, outline=FAINT)
        pen.text((width - 42, top), f"{value:.2f}" if known else "absent", INK if known else FAINT, font(12))
        if ticks is not None and ticks[row] == ticks[row]:
            at = left + round(span * ticks[row])
            pen.rectangle((at - 2, top - 1, at + 2, top + 16), fill=PAPER)
            pen.rectangle((at - 1, top - 1, at + 1, top + 16), fill=INK)
    for y in range(28, canvas.height, 6) if cut is not None else ():
        pen.line((left + span * cut, y, left + span * cut, y + 3), INK, 1)
    return np.asarray(canvas)


def plot(
    x: np.ndarray, y: np.ndarray, title: str, marks: Mapping[str, float], at: float, width: int = 280, height: int = 120
) -> np.ndarray:
    """A curve with its range in numbers, dashed lines at named places, and a dot at the place `at`."""
    canvas = Image.new("RGB", (width, height), PAPER)
    pen, (left, top, right, bottom) = ImageDraw.Draw(canvas), (40, 28, width - 12, height - 22)
    low, high = float(np.nanmin(y)), max(float(np.nanmax(y)), float(np.nanmin(y)) + 1e-3)

    def place(a: float, b: float) -> tuple[float, float]:
        return left + (right - left) * (a - x[0]) / (x[-1] - x[0]), bottom - (bottom - top) * (b - low) / (high - low)

    pen.text((4, 6), title, INK, font(13))
    pen.rectangle((left, top, right, bottom), outline=(206, 212, 218))
    for value, height in ((low, bottom), (high, top)):
        pen.text((left - 4, height), f"{value:.2f}", FAINT, font(11), anchor="rm")
    for value in (x[0], x[-1]):
        pen.text((place(value, low)[0], bottom + 4), f"{value:.2f}", FAINT, font(11), anchor="ma")
    for name, value in marks.items():
        across = place(value, low)[0]
        for y_dash in range(top, bottom, 6):
            pen.line((across, y_dash, across, y_dash + 3), INK)
        pen.text((across, bottom + 4), name, INK, font(11), anchor="ma")
    pen.line([place(a, b) for a, b in zip(x, y)], GAINED, 2)
    across, down = place(at, float(np.interp(at, x, y)))
    pen.ellipse((across - 4, down - 4, across + 4, down + 4), fill=ERRORS["missed"][0], outline=INK)
    return np.asarray(canvas)


def legend(entries: Mapping[str, tuple | tuple[tuple, int]], width: int) -> np.ndarray:
    """Patches with names, in rows; an entry is a colour, or a colour and the slant of its stripes."""
    places, x, y = [], 8, 4
    for name in entries:
        wide = 34 + round(font(12).getlength(name))
        x, y = (8, y + 20) if x + wide > width else (x, y)
        places.append((x, y))
        x += wide
    picture = blank(y + 22 if entries else 0, width)
    for (x, y), (name, colour) in zip(places, entries.items()):
        patch = blank(13, 16, FAINT)
        patch[1:-1, 1:-1] = GROUND if np.ndim(colour[0]) else colour
        patch = stripes(patch, np.ones((13, 16), bool), *colour) if np.ndim(colour[0]) else patch
        picture[y + 1 : y + 14, x : x + 16] = patch
        picture = write(picture, (x + 20, y), name, 12)
    return picture
