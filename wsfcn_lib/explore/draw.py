"""Words, bars and marks drawn into arrays by Pillow: some milliseconds where a figure takes hundreds. All on own ground."""

import functools
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsfcn_lib.plots import FONT

INK, FAINT, PAPER = (33, 37, 41), (92, 102, 112), (255, 255, 255)  # readable in dark and light pages alike


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
    return np.asarray(canvas)


def message(words: str, height: int = 375, width: int = 500) -> np.ndarray:
    """Words in a picture's place, broken into lines: what is missing, and how to get it."""
    lines = [line for part in words.split("\n") for line in textwrap.wrap(part, max(10, (width - 48) // 8)) or [""]]
    return write(blank(max(height, 48 + 20 * len(lines)), width), (24, 24), "\n".join(lines))
