"""Label maps as pictures: classes in their colours, laid over a photograph, with a line that names them.

Pure functions of arrays; no matplotlib.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsfcn_lib.data.classes import IGNORE

PAPER, INK = (255, 255, 255), (20, 20, 20)
RIM = 0.8  # opacity of the dark line around a class, by which it is seen on a ground of its own colour


def colour_labels(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Class indices (H, W) in the colours of a palette (256, 3) uint8 by class index (255 = ignored)."""
    label, palette = np.asarray(label), np.asarray(palette)
    is_map = label.ndim == 2 and label.dtype.kind in "iub"
    if not is_map or ((label < 0) | (label >= len(palette))).any():
        raise ValueError(
            f"labels are {label.dtype} {label.shape}; they must be (H, W) integers in 0..{len(palette) - 1}"
        )
    return palette[label.astype(np.intp)].astype(np.uint8)


def overlay(image: np.ndarray, label: np.ndarray, palette: np.ndarray, opacity: float = 0.45) -> np.ndarray:
    """Class colours laid over an image (H, W, 3) uint8; background (class 0) stays as photographed.

    Within its border each class has its full colour, as in a legend, and a dark rim outside; the photograph shows
    through the rest.
    """
    label = np.asarray(label)
    colours = colour_labels(label, palette)
    inside = label != 0
    tinted = np.where(inside[..., None], blend(image, colours, opacity), image)
    if opacity:
        border = edges(label, line_width(label.shape))
        tinted[border & inside] = colours[border & inside]
        dark = np.full_like(tinted, INK)
        tinted[border & ~inside] = blend(tinted, dark, RIM)[border & ~inside]
    return tinted


def blend(image: np.ndarray, colours: np.ndarray, opacity: float | np.ndarray) -> np.ndarray:
    """Mix an image (H, W, 3) uint8 with colours of the same shape.

    `opacity` in [0, 1] is the colours' share: a number, or (H, W) by pixel.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.shape != colours.shape:
        raise ValueError(
            f"image is {image.dtype} {image.shape}; it must be uint8 {colours.shape}: "
            "resize the map to the image"
        )
    share = np.asarray(opacity)
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"opacity is {opacity}; it must lie in [0, 1]")
    if share.ndim:
        share = share[..., None]
    return np.rint((1 - share) * image + share * colours).astype(np.uint8)


def edges(label: np.ndarray, width: int = 1) -> np.ndarray:
    """The pixels (H, W) bool of a label map that touch another label within `width` pixels."""
    label = np.asarray(label)
    found = np.zeros(label.shape, bool)
    for shift in range(1, width + 1):
        down = label[shift:] != label[:-shift]
        right = label[:, shift:] != label[:, :-shift]
        found[shift:] |= down
        found[:-shift] |= down
        found[:, shift:] |= right
        found[:, :-shift] |= right
    return found


def outlined(picture: np.ndarray, label: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A picture (H, W, 3) uint8 with the outlines of a label map (H, W) in a colour; 255 belongs to no object."""
    label = np.where(np.asarray(label) == IGNORE, 0, label)
    drawn = np.array(picture)
    drawn[edges(label, line_width(label.shape))] = colour
    return drawn


def line_width(size: tuple[int, int]) -> int:
    """Pixels of a line that is seen in a picture of a size (H, W)."""
    return max(1, round(max(size) / 400))


def paint(
    image: np.ndarray, label: np.ndarray, colours: np.ndarray, captions: dict[int, str], opacity: float = 0.45
) -> Image.Image:
    """An image with its label map over it: each class tinted, outlined in its colour, and named in a line below.

    Args:
        image: (H, W, 3) uint8.
        label: (H, W) class indices, 0 for background.
        colours: (K, 3) uint8 by class index.
        captions: what the line below says, by class index; 0 for words without a colour.
        opacity: of the tint, in [0, 1].
    """
    picture = overlay(image, label, colours, opacity)
    return _with_legend(Image.fromarray(picture), colours, captions)


def _with_legend(picture: Image.Image, colours: np.ndarray, captions: dict[int, str]) -> Image.Image:
    """The picture with a strip of captions below it, each behind a square of its class's colour."""
    size = max(11, round(max(picture.size) / 36))
    font = ImageFont.load_default(size)
    space = size // 2
    rows, x = [[]], space
    for index, text in captions.items():
        square = size + space if index else 0
        needed = square + round(font.getlength(text)) + 2 * space
        if x + needed > picture.width and rows[-1]:
            rows.append([])
            x = space
        rows[-1].append((x, square, index, text))
        x += needed
    height = len(rows) * (size + space) + space
    page = Image.new("RGB", (picture.width, picture.height + height), PAPER)
    page.paste(picture)
    draw = ImageDraw.Draw(page)
    y = picture.height + space
    for row in rows:
        for x, square, index, text in row:
            if square:
                draw.rectangle((x, y, x + size, y + size), fill=tuple(int(c) for c in colours[index]))
            draw.text((x + square, y + size / 2), text, INK, font, anchor="lm")
        y += size + space
    return page
