"""Opening the pictures a manifest names, with errors that say which file is bad and why; `validate` opens them all."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from wsfcn_lib.data.files import DataError
from wsfcn_lib.runs.storage import atomic_write

if TYPE_CHECKING:
    from .manifest import Manifest


IGNORE = 255
MOST_PIXELS = 80_000_000  # of a picture: a small file may claim to be one that fills the memory
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "TIFF",
    "GIF",
)  # whatever the file is called; others, such as EPS, start programs


def open_image(path: Path | str, content: bytes | None = None) -> Image.Image:
    """The picture as 8-bit RGB, turned as its EXIF says; DataError if missing, truncated, too large or of another depth.

    `content` holds the bytes of a picture that is no file; `path` is then only its name.
    """
    return upright(_decode(path, content), path)


def upright(image: Image.Image, name: Path | str) -> Image.Image:
    """A picture as 8-bit RGB, turned as its EXIF says; DataError if it is truncated or of another depth."""
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{name}: the picture has more than 8 bits per channel (mode {image.mode}); convert it to 8 bits"
        )
    try:
        return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # a torn EXIF, or colours that Pillow cannot convert
        raise DataError(f"{name}: not to be had as RGB (mode {image.mode}: {error}); convert it") from error


def read_image(path: Path | str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its EXIF says; DataError as `open_image`."""
    return np.asarray(open_image(path))


def to_array(image: Path | str | Image.Image | np.ndarray) -> np.ndarray:
    """A path, a PIL image or an array as (H, W, 3) uint8 RGB; DataError as `open_image`, an array comes as it is."""
    if isinstance(image, Path | str):
        return read_image(image)
    return np.asarray(upright(image, "the picture") if isinstance(image, Image.Image) else image)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 resized to `size` (height, width), bicubic."""
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 resized to `size` (height, width), to the nearest pixel."""
    height, width = size
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))


def open_mask(
    path: Path | str, content: bytes | None = None, size: tuple[int, int] | None = None
) -> Image.Image:
    """The palette or grey picture of mask ids (mode P or L); DataError if it is missing, truncated or of another kind.

    `content` as in `open_image`. A mask of another `size` (height, width), that of its image, is a DataError, and is
    not decoded.
    """
    image = _decode(path, content, size)
    if image.mode not in ("P", "L"):
        raise DataError(
            f"{path}: a mask must be a palette or grey picture of mask ids, this one is {image.mode}; convert it"
        )
    return image


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    """The bytes of a picture file of a kind that Pillow knows, such as PNG."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def read_mask(
    path: Path | str,
    manifest: "Manifest",
    content: bytes | None = None,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """(H, W) uint8 class indices: mask ids mapped by the manifest's classes, 255 kept; an unknown id is a DataError.

    `content` and `size` as in `open_mask`.
    """
    image = open_mask(path, content, size)
    table = np.full(256, -1, np.int16)
    table[[0, IGNORE]] = 0, IGNORE
    for index, info in enumerate(manifest.classes, 1):
        table[info.mask_id] = index
    ids = np.asarray(image)
    labels = table[ids]
    if labels.min() < 0:
        unknown, known = (
            np.unique(ids[labels < 0]).tolist(),
            [0, *(info.mask_id for info in manifest.classes), IGNORE],
        )
        raise DataError(
            f"{path}: the mask ids {unknown} belong to no class, allowed are {known}; correct it or classes.json"
        )
    return labels.astype(np.uint8)


def save_mask(path: Path, labels: np.ndarray, manifest: "Manifest") -> None:
    """Write class indices (H, W) as a palette PNG of mask ids in the classes' colours, as VOC's tools read them."""
    ids = np.array([0, *(c.mask_id for c in manifest.classes)], np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    palette[ids] = manifest.palette[: manifest.num_classes]
    picture = Image.fromarray(ids[labels])
    picture.putpalette(palette.tobytes())
    atomic_write(path, encode(picture, "PNG"))


def _decode(
    path: Path | str, content: bytes | None = None, size: tuple[int, int] | None = None
) -> Image.Image:
    """Open and decode fully, so that a truncated file fails here and not later."""
    name = str(path).encode(errors="replace").decode()
    if name != str(path):
        raise DataError(f"{name}: the name is not UTF-8, so no list can hold it; rename the file")
    if content is None and not os.path.isfile(path):  # Path.is_file fails where a name is too long
        raise DataError(f"{path}: the file is missing; restore it, or prepare the data set again without it")
    try:
        image = Image.open(path if content is None else io.BytesIO(content), formats=FORMATS)
        large = image.width * image.height > MOST_PIXELS
        resized = size is not None and image.size != size[::-1]
        if large or resized:
            image.close()
        else:
            image.load()
    except (
        Exception
    ) as error:  # Pillow's decoders raise many types: OSError, SyntaxError, ValueError, struct.error, ...
        raise DataError(
            f"{path}: not a readable picture, perhaps truncated ({error}); replace or remove it"
        ) from error
    if large:
        raise DataError(
            f"{path}: {image.width} x {image.height} pixels are more than the {MOST_PIXELS:,} allowed; shrink it"
        )
    if resized:
        raise DataError(
            f"{path}: the mask is {image.size}, its image {size[::-1]} (width, height); they must be equal: correct it"
        )
    return image
