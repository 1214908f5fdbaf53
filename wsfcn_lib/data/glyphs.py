"""Glyph scenes, the built-in data set: symbols of the DejaVu Sans font on random textures, with exact masks.

Every scene is a pure function of (settings, split, index): the splits never share one, and a broken set can
be completed.
"""

import colorsys
import importlib.util
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont
from pydantic import Field

from wsfcn_lib.data.classes import voc_palette
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import encode, encode_mask
from wsfcn_lib.data.manifest import SPLITS
from wsfcn_lib.runs.settings import Settings
from wsfcn_lib.runs.storage import atomic_write, make_folder, writing

SYMBOLS = {"aeroplane": "✈", "telephone": "☎", "umbrella": "☂", "knight": "♞", "heart": "♥", "star": "★"}
GLYPH_CLASSES = tuple(SYMBOLS)
DULL = (0.15, 0.8)  # saturation of the ground's colours; objects are 0.5..1
CROWD = (0.5, 0.33, 0.17)  # probability of one, two and three objects
DRAWING = 8  # raise it when scenes of equal settings come to look different
STENCIL = 144  # side of the stencils that every object is cut from
SPANS = {1: (0.6, 0.85), 2: (0.5, 0.7), 3: (0.42, 0.58)}  # by number of objects: longer side / image side


class GlyphSettings(Settings):
    """What a set of glyph scenes is made from; sets of unequal settings must lie in different folders."""

    size: int = Field(96, ge=48, le=512)  # image side, pixels
    train: int = Field(1200, ge=0)
    val: int = Field(200, ge=0)
    test: int = Field(200, ge=0)
    seed: int = Field(0, ge=0)
    class_hue: float = Field(0.85, ge=0, le=1)  # probability that an object wears its class's hue, else any
    repeat: float = Field(0.15, ge=0, le=1)  # probability that an object repeats a class already in the image
    tilt: float = Field(15.0, ge=0, le=180)  # rotation at most, degrees
    contrast: float = Field(0.4, ge=0, le=1)  # least RGB distance between an object and the ground it covers
    patches: float = Field(
        0.8, ge=0, le=10
    )  # how sharply the ground's colours part; more hides objects better
    relief: float = Field(
        0.06, ge=0, le=0.5
    )  # amplitude of mid-frequency texture, on ground and objects alike
    visible: float = Field(0.6, ge=0.5, le=1)  # part of an object that later ones must leave visible


@cache
def stencils() -> tuple[tuple[Image.Image, Image.Image], ...]:
    """Per class (silhouette, ink), mode L, STENCIL x STENCIL: the symbol with holes filled, and as it is."""
    package = importlib.util.find_spec("matplotlib")  # only its font is used, so it is not imported
    origin = package.origin if package else "matplotlib/__init__.py"
    path = Path(origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    if not path.is_file():
        raise DataError(
            f"{path} is missing: the glyph scenes need DejaVu Sans of matplotlib; install matplotlib"
        )
    font = ImageFont.truetype(str(path), STENCIL)
    return tuple(_stencil(symbol, font) for symbol in SYMBOLS.values())


def _stencil(symbol: str, font: ImageFont.FreeTypeFont) -> tuple[Image.Image, Image.Image]:
    ink = Image.new("L", (2 * STENCIL, 2 * STENCIL), 0)
    # The stroke makes thin parts (handle, wings) wide enough to be seen at the network's stride.
    ImageDraw.Draw(ink).text(
        (STENCIL, STENCIL), symbol, 255, font, anchor="mm", stroke_width=4, stroke_fill=255
    )
    left, top, right, bottom = ink.getbbox()
    side = max(right - left, bottom - top) + 4
    x = (left + right - side) // 2
    y = (top + bottom - side) // 2
    ink = ink.crop((x, y, x + side, y + side)).resize((STENCIL, STENCIL), Image.Resampling.BICUBIC)
    outside = ink.point(lambda value: 255 if value > 127 else 0)
    ImageDraw.floodfill(outside, (0, 0), 128)
    holes = outside.point(lambda value: 255 if value == 0 else 0)
    return ImageChops.lighter(ink, holes), ink


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """(size, size) float32, about -1..1: `cells` x `cells` random numbers, interpolated smoothly."""
    grid = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def relief(rng: np.random.Generator, settings: GlyphSettings) -> np.ndarray:
    """(size, size, 1) float32: mid-frequency texture of random strength, to be added to colours."""
    strength = settings.relief * rng.uniform(0.3, 1.7)
    return strength * smooth_noise(rng, settings.size, settings.size // 6)[..., None]


def colour(rng: np.random.Generator, hue: float, saturation: tuple[float, float] = (0.5, 1)) -> np.ndarray:
    """(3,) float32 in [0,1]: a colour of that hue, of random saturation and value."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), rng.uniform(0.3, 1)), np.float32)


def ground(rng: np.random.Generator, settings: GlyphSettings) -> np.ndarray:
    """(size, size, 3) float32: three random colours mixed by smooth noise, with relief."""
    size = settings.size
    image = np.broadcast_to(colour(rng, rng.random(), DULL), (size, size, 3))
    for _ in range(2):
        mix = np.clip(0.5 + settings.patches * smooth_noise(rng, size, 4), 0, 1)[..., None]
        image = image + (colour(rng, rng.random(), DULL) - image) * mix
    return image + relief(rng, settings)


def surface(rng: np.random.Generator, settings: GlyphSettings, label: int, under: np.ndarray) -> np.ndarray:
    """(size, size, 3) float32: what an object of class `label` looks like over the mean colour `under`."""
    for _ in range(20):  # an object must stand out from what it covers, else nobody could tell its border
        if rng.random() < settings.class_hue:
            hue = (label - 1) / len(SYMBOLS) + rng.normal(0, 0.04)
        else:
            hue = rng.random()
        body = colour(rng, hue)
        if np.linalg.norm(body - under) >= settings.contrast:
            break
    angle = rng.uniform(0, 2 * np.pi)
    steps = settings.size * 1j
    y, x = np.mgrid[-1:1:steps, -1:1:steps].astype(np.float32)
    shading = 1 + 0.25 * (np.cos(angle) * x + np.sin(angle) * y)[..., None]
    return body * shading + relief(rng, settings)


def lay_out(
    rng: np.random.Generator, settings: GlyphSettings, label: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Silhouette and ink, (size, size) float32 in [0,1], of one of `count` objects, somewhere and tilted."""
    size = settings.size
    angle = rng.uniform(-settings.tilt, settings.tilt)
    span = rng.uniform(*SPANS[count]) * size
    turned = [part.rotate(angle, Image.Resampling.BILINEAR, expand=True) for part in stencils()[label - 1]]
    left, top, right, bottom = box = turned[0].getbbox()
    factor = span / max(right - left, bottom - top)
    width = max(1, round((right - left) * factor))
    height = max(1, round((bottom - top) * factor))
    x = int(rng.integers(0, max(1, size - width + 1)))
    y = int(rng.integers(0, max(1, size - height + 1)))
    layers = []
    for part in turned:
        layer = Image.new("L", (size, size), 0)
        layer.paste(part.crop(box).resize((width, height), Image.Resampling.BICUBIC), (x, y))
        layers.append(np.asarray(layer, np.float32) / 255)
    return layers[0], layers[1]


def scene(settings: GlyphSettings, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (size, size, 3), class indices (size, size), uint8; 0 = ground, c = GLYPH_CLASSES[c - 1]."""
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    image = ground(rng, settings)
    owner = np.zeros(
        (settings.size, settings.size), np.int64
    )  # of each pixel: 0 = ground, k = the k-th object
    labels = [0]  # class of the ground and of each object
    areas = []  # pixels of each object, before later ones hide some
    count = int(rng.choice((1, 2, 3), p=CROWD))
    for _ in range(count):
        if len(labels) > 1 and rng.random() < settings.repeat:
            choice = labels[1:]
        else:
            choice = [c for c in range(1, len(SYMBOLS) + 1) if c not in labels]
        label = int(rng.choice(choice))
        for _ in range(30):
            silhouette, ink = lay_out(rng, settings, label, count)
            covered = silhouette > 0.5
            left = np.bincount(owner[~covered], minlength=len(labels))[1:]
            if np.all(left >= settings.visible * np.array(areas)):
                break
        else:
            continue  # no room left in this scene
        body = surface(rng, settings, label, image[covered].mean(0))
        # holes of the symbol: dark details
        body = body * (0.45 + 0.55 * ink / np.maximum(silhouette, 1e-3))[..., None]
        image = image + (body - image) * silhouette[..., None]
        owner[covered] = len(labels)
        labels.append(label)
        areas.append(int(covered.sum()))
    grain = rng.normal(0, 0.015, image.shape)
    image = (np.clip(image + grain, 0, 1) * 255).round().astype(np.uint8)
    return image, np.array(labels, np.uint8)[owner]


def make_glyphs(root: Path, settings: GlyphSettings | None = None) -> int:
    """Write a set in the VOC layout under `root`; the number of scenes made now (0 = the set was complete).

    An unfinished set is completed; a set made from other settings is an error and stays untouched.
    """
    settings = settings or GlyphSettings()
    record = Path(root) / "glyphs.json"
    spans = [list(span) for span in SPANS.values()]
    wanted = settings.model_dump() | {"drawing": DRAWING, "classes": list(GLYPH_CLASSES), "spans": spans}
    if record.is_file():
        there = json.loads(record.read_text("utf-8"))
        unequal = [
            f"{key} {there.get(key)} there, {value} asked"
            for key, value in wanted.items()
            if there.get(key) != value
        ]
        if unequal:
            raise DataError(
                f"{record}: made from other settings ({'; '.join(unequal)}); "
                f"name another folder, or move {root} away"
            )
    base = Path(root) / "VOCdevkit" / "VOC2012"
    images = make_folder(base / "JPEGImages")
    masks = make_folder(base / "SegmentationClass")
    lists = make_folder(base / "ImageSets" / "Segmentation")
    atomic_write(record, json.dumps(wanted, indent=1))
    palette = voc_palette()
    made = 0
    for split in SPLITS:
        names = [f"{split}_{index:05d}" for index in range(getattr(settings, split))]
        (lists / f"{split}.txt").write_text("".join(name + "\n" for name in names), "utf-8")
        for index, name in enumerate(names):
            image_path = images / f"{name}.jpg"
            mask_path = masks / f"{name}.png"
            if image_path.is_file() and mask_path.is_file():
                continue
            image, labels = scene(settings, split, index)
            _write_whole(mask_path, encode_mask(labels, palette))
            _write_whole(image_path, encode(Image.fromarray(image), "JPEG", quality=92))
            made += 1
    return made


def _write_whole(path: Path, data: bytes) -> None:
    """As `atomic_write`, without waiting for the disk: a scene that is lost is drawn again."""
    part = path.with_suffix(f".{os.getpid()}.part")
    with writing(path):
        part.write_bytes(data)
        part.replace(path)
