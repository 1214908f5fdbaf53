"""Words and marks drawn into arrays: some milliseconds where a figure takes hundreds. All on a ground of their own."""

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsfcn_lib.plots.overlays import INFERNO
from wsfcn_lib.plots.style import FONT

INK, FAINT, PAPER = (
    (33, 37, 41),
    (92, 102, 112),
    (255, 255, 255),
)  # drawn on own ground: for dark and light pages alike
GROUND, NOTE = (233, 236, 239), (255, 243, 205)
# kinds of error: colour and slant of the stripes; slants tell them apart without colour, and from VOC's flat class colours
ERRORS = {"missed": ((213, 94, 0), 1), "invented": ((86, 180, 233), -1), "confused": ((240, 228, 66), 0)}
GAINED = (0, 114, 178)
RAMP = {f"map {value}": tuple(INFERNO[place]) for value, place in ((0, 0), (0.5, 6), (1, 11))}
_HEAT = np.stack([np.interp(np.linspace(0, 11, 256), range(12), INFERNO[:, c]) for c in range(3)], 1).astype(
    np.float32
)


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """A typeface that knows more than Latin letters."""
    return ImageFont.truetype(FONT, size)


def blank(height: int, width: int, colour: tuple = PAPER) -> np.ndarray:
    """An empty picture (H, W, 3) uint8."""
    return np.full((height, width, 3), colour, np.uint8)


def write(
    picture: np.ndarray, place: tuple[int, int], words: str, size: int = 13, colour: tuple = INK
) -> np.ndarray:
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


def fitted(
    shape: tuple[int, ...], height: int, width: int, shrink: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
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
    return (picture + (np.asarray(colours, np.float32) - picture) * np.float32(opacity) + 0.5).astype(
        np.uint8
    )


def paint(picture: np.ndarray, where: np.ndarray, colour: tuple, opacity: float) -> np.ndarray:
    """A copy with one colour laid over some pixels, (H, W) bool: faster than `blend` where they are few."""
    out = picture.copy()
    out[where] = blend(picture[where], np.array(colour), opacity)
    return out


def warm(picture: np.ndarray, values: np.ndarray, opacity: float) -> np.ndarray:
    """Values (H, W) in [0, 1] over a picture: `pictures.heat` in 256 steps, which is faster."""
    return blend(picture, _HEAT[(values * 255 + 0.5).clip(0, 255).astype(np.uint8)], opacity)


def gains(picture: np.ndarray, change: np.ndarray, opacity: float = 0.9) -> np.ndarray:
    """A change (H, W) in [-1, 1] over a grey picture: orange where something was lost, blue where gained."""
    colours = np.where(change[..., None] < 0, np.float32(ERRORS["missed"][0]), np.float32(GAINED))
    return blend(picture, colours, opacity * np.minimum(1, 2 * np.abs(change))[..., None])


def outline(picture: np.ndarray, label: np.ndarray, opacity: float = 1) -> np.ndarray:
    """The borders of labels (H, W) as white lines with a dark rim, seen on any colour."""
    line = np.zeros(label.shape, bool)
    line[:, 1:] |= label[:, 1:] != label[:, :-1]
    line[1:] |= label[1:] != label[:-1]
    rim = line.copy()
    rim[1:], rim[:, 1:] = rim[1:] | line[:-1], rim[:, 1:] | line[:, :-1]
    rim[:-1], rim[:, :-1] = rim[:-1] | line[1:], rim[:, :-1] | line[:, 1:]
    return paint(paint(picture, rim, INK, opacity), line, PAPER, opacity)


def stripes(
    picture: np.ndarray, where: np.ndarray, colour: tuple, slant: int, opacity: float = 1
) -> np.ndarray:
    """Dark-edged stripes where (H, W) bool: rising (1), falling (-1) or both (0)."""
    y, x = np.ogrid[: where.shape[0], : where.shape[1]]
    phases = [(x + s * y) % 9 for s in ((1, -1) if slant == 0 else (slant,))]
    broad, core = (np.logical_or.reduce([phase < width for phase in phases]) & where for width in (5, 3))
    return paint(paint(picture, broad, INK, opacity), core, colour, opacity)


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
