"""Text and marks drawn into arrays, on a ground of their own: in milliseconds; a figure takes hundreds."""

import functools
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from wsfcn_lib.plots.stages import ERROR_COLOURS
from wsfcn_lib.plots.style import FONT

Picture = np.ndarray  # (H, W, 3) uint8
HEIGHT, WIDTH = 375, 500  # pixels of one large picture
QUARTER = 210, 280  # and of one of four
THUMB = 69, 92  # and of one among others to choose from

INK, FAINT, PAPER = (33, 37, 41), (92, 102, 112), (255, 255, 255)  # on own ground: for dark and light pages
GROUND = (233, 236, 239)
FILL = 0.6  # a class's fill, as a share of the opacity that is asked for: its outline is what tells
LOST, GAINED = (213, 94, 0), (0, 114, 178)
# kinds of error: colour and slant of their stripes, which tell them apart also without colour
ERRORS = {kind: (colour, slant) for (kind, colour), slant in zip(ERROR_COLOURS.items(), (1, -1, 0))}


class Missing(Exception):
    """Something that cannot be drawn; the text says why."""


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """A typeface that knows more than Latin letters."""
    return ImageFont.truetype(FONT, size)


def canvas(width: int, height: int, colour: tuple = PAPER) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty picture and a pen for it, which writes in size 12 unless told otherwise."""
    image = Image.new("RGB", (width, height), colour)
    pen = ImageDraw.Draw(image)
    pen.font = font(12)
    return image, pen


def blank(height: int, width: int, colour: tuple = PAPER) -> Picture:
    """An empty picture (H, W, 3) uint8."""
    return np.full((height, width, 3), colour, np.uint8)


def paragraph(text: str, width: int, size: int = 13, ground: tuple = PAPER) -> Picture:
    """Text broken into lines, as a picture of this width."""
    lines = []
    for part in text.split("\n"):
        lines.append("")
        for word in part.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and font(size).getlength(longer) > width - 16:
                lines.append(word)
            else:
                lines[-1] = longer
    image, pen = canvas(width, 8 + int(1.4 * size) * len(lines), ground)
    pen.text((8, 4), "\n".join(lines), INK, font(size))
    return np.asarray(image)


def thumb(picture: Picture, name: str, chosen: bool = False) -> Picture:
    """A picture small, in the middle of a fixed frame, with the beginning of its name; a chosen one is framed."""
    small = fitted(picture.shape, *THUMB, shrink=True)(picture)
    height, width = THUMB
    ground = GAINED if chosen else PAPER
    image, pen = canvas(*thumb_size(), ground)
    image.paste(Image.fromarray(framed(small, *THUMB, GROUND)), (4, 4))
    short = name
    while font(11).getlength(short) > width:
        short = short[:-2] + "…"
    pen.text((4 + width / 2, height + 14), short, PAPER if chosen else INK, font(11), anchor="mm")
    return np.asarray(image)


def thumb_size() -> tuple[int, int]:
    """Width and height, in pixels, of a thumbnail with its frame and name."""
    return THUMB[1] + 8, THUMB[0] + 26


def message(text: str, height: int = HEIGHT, width: int = WIDTH) -> Picture:
    """Text in a picture's place: what is missing, and how to get it."""
    return framed(paragraph(text, width - 32, 14), height, width, PAPER)


def framed(picture: Picture, height: int = HEIGHT, width: int = WIDTH, colour: tuple = GROUND) -> Picture:
    """The picture amid a ground of at least this size, so that pages do not jump between images."""
    tall, wide = picture.shape[:2]
    ground = blank(max(tall, height), max(wide, width), colour)
    top, left = (ground.shape[0] - tall) // 2, (ground.shape[1] - wide) // 2
    ground[top : top + tall, left : left + wide] = picture
    return ground


def place_in_frame(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Where a picture of a shape lies once it is fitted and framed: first row and column, height, width."""
    tall, wide = fitted(shape, shrink=True)(np.zeros(shape[:2], bool)).shape
    return max(0, HEIGHT - tall) // 2, max(0, WIDTH - wide) // 2, tall, wide


def panel(title: str, shape: tuple[int, ...], size: tuple[int, int], paint: Callable) -> Picture:
    """A painted image of a size (height, width) under its title; where something is Missing, what it says.

    `paint` receives the function that brings arrays of the image's shape to that size; returns the picture.
    """
    try:
        picture = paint(fitted(shape, *size, shrink=True))
    except Missing as error:
        picture = message(str(error), *size)
    return below(paragraph(title, size[1], 12), framed(picture, *size))


def fitted(
    shape: tuple[int, ...], height: int = HEIGHT, width: int = WIDTH, shrink: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that makes arrays of a picture's shape grow to fill a height or a width.

    Photographs and maps grow smoothly, labels to the nearest pixel. `shrink`: larger ones become smaller too.
    """
    tall, wide = shape[:2]
    factor = min(height / tall, width / wide)
    if not shrink:
        factor = max(1, factor)
    size = max(1, round(factor * tall)), max(1, round(factor * wide))
    rows = np.arange(size[0]) * tall // size[0]
    columns = np.arange(size[1]) * wide // size[1]

    def resize(array: np.ndarray) -> np.ndarray:
        if size == (tall, wide):
            return array
        if array.ndim == 2 and array.dtype.kind != "f":
            return array[rows[:, None], columns]
        return np.asarray(Image.fromarray(array).resize(size[::-1], Image.Resampling.BILINEAR))

    return resize


def beside(*pictures: Picture) -> Picture:
    """Pictures from left to right, their upper edges level."""
    tall = max(len(picture) for picture in pictures)
    return np.hstack([np.vstack([p, blank(tall - p.shape[0], p.shape[1])]) for p in pictures])


def below(*pictures: Picture) -> Picture:
    """Pictures from top to bottom, their left edges level."""
    wide = max(picture.shape[1] for picture in pictures)
    return np.vstack([np.hstack([p, blank(p.shape[0], wide - p.shape[1])]) for p in pictures])


def grid(*pictures: Picture) -> Picture:
    """Pictures in rows of two."""
    return below(*[beside(*pictures[first : first + 2]) for first in range(0, len(pictures), 2)])


def blend(picture: Picture, colours: np.ndarray, opacity: float | np.ndarray) -> Picture:
    """Colours (..., 3) laid over a picture (H, W, 3) uint8; the opacity may differ by pixel, (H, W, 1)."""
    change = (np.asarray(colours, np.float32) - picture) * np.float32(opacity)
    return (picture + change + 0.5).astype(np.uint8)


def grey(picture: Picture) -> Picture:
    """The picture without its colours, still (H, W, 3)."""
    return blend(picture, picture.mean(2, keepdims=True), 1.0)


def paint(picture: Picture, where: np.ndarray, colour: tuple | np.ndarray, opacity: float) -> Picture:
    """A copy with a colour, or one for each (N, 3), laid over some pixels, (H, W) bool: faster than `blend` where they are few."""
    out = picture.copy()
    out[where] = blend(picture[where], colour, opacity)
    return out


def gains(picture: Picture, change: np.ndarray, opacity: float = 0.9) -> Picture:
    """A change (H, W) in [-1, 1] over a grey picture: orange where something was lost, blue where gained."""
    change = change[..., None]
    return blend(picture, np.where(change < 0, LOST, GAINED), opacity * np.minimum(1, 2 * np.abs(change)))


def tint(picture: Picture, label: np.ndarray, palette: np.ndarray, opacity: float) -> Picture:
    """Labels (H, W) as light fills within strong outlines of their colours; background stays as photographed."""
    painted = blend(picture, palette[label], FILL * opacity * (label != 0)[..., None])
    return outline(painted, label, palette, opacity)


def outline(picture: Picture, label: np.ndarray, palette: np.ndarray, opacity: float = 1) -> Picture:
    """The borders of labels (H, W) in their colours, with a dark rim outside, seen on any photograph."""
    change = np.zeros(label.shape, bool)
    change[:, 1:] |= label[:, 1:] != label[:, :-1]
    change[1:] |= label[1:] != label[:-1]
    wide = change.copy()
    wide[:, :-1] |= change[:, 1:]
    wide[:-1] |= change[1:]
    wide[:, 1:] |= change[:, :-1]
    wide[1:] |= change[:-1]
    strength = min(1, 2 * opacity)
    rimmed = paint(picture, wide & (label == 0), INK, 0.6 * strength)
    return paint(rimmed, wide & (label != 0), palette[label[wide & (label != 0)]], strength)


def named(picture: Picture, label: np.ndarray, names: Mapping[int, str]) -> Picture:
    """The picture with the name of each class in the middle of its largest part, where it fits in.

    So that nobody has to match colours with a legend. `label` (H, W); `names` by class index.
    """
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for index in np.unique(label):
        # inside: how far from the border each place is, at a quarter of the size, for speed
        inside = distance_transform_edt(np.pad(label[::4, ::4] == index, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(inside.argmax(), inside.shape)
        if index in names and 4 * inside.max() >= 9:
            width = font(13).getlength(names[index]) / 2 + 2
            x = min(max(4 * column, width), picture.shape[1] - width)
            style = {"anchor": "mm", "stroke_width": 2, "stroke_fill": INK}
            pen.text((x, 4 * row), names[index], PAPER, font(13), **style)
    return np.asarray(image)


def stripes(picture: Picture, where: np.ndarray, colour: tuple, slant: int, opacity: float = 1) -> Picture:
    """Dark-edged stripes where (H, W) bool: rising (1), falling (-1) or both (0)."""
    y, x = np.ogrid[: where.shape[0], : where.shape[1]]
    phase = (x + slant * y) % 9
    if slant == 0:
        phase = np.minimum((x + y) % 9, (x - y) % 9)
    edged = paint(picture, where & (phase < 5), INK, opacity)
    return paint(edged, where & (phase < 3), colour, opacity)


def striped(picture: Picture, kinds: np.ndarray, opacity: float = 1) -> Picture:
    """Stripes over errors, (H, W) of 0 for none and else the place in ERRORS, from 1."""
    for kind, (colour, slant) in enumerate(ERRORS.values(), 1):
        picture = stripes(picture, kinds == kind, colour, slant, opacity)
    return picture


def cross(picture: Picture, x: int, y: int) -> Picture:
    """A cross-hair at (x, y) that leaves the place itself free."""
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for colour, rim in ((INK, 1), (PAPER, 0)):
        for near, far in ((-22, -5), (5, 22)):
            pen.rectangle((x + near, y - rim, x + far, y + rim), colour)
            pen.rectangle((x - rim, y + near, x + rim, y + far), colour)
    return np.asarray(image)
