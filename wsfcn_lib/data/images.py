"""Pictures and masks are opened and encoded here alone, with errors that say which file is bad and why."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.files import DataError, in_utf8
from wsfcn_lib.runs.storage import atomic_write

MOST_PIXELS = 80_000_000  # of a picture: a small file may claim to be one that fills the memory
# Whatever the file is called; of the formats that Pillow knows some, such as EPS, start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def open_image(path: Path | str, content: bytes | None = None) -> Image.Image:
    """The picture as 8-bit RGB, turned as its EXIF says.

    DataError if it is missing, truncated, too large or of another depth.
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
    """A path, a PIL image or an array (as it is) as (H, W, 3) uint8 RGB; DataError as `open_image`."""
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
    """The palette or grey picture of mask ids (mode P or L).

    DataError if it is missing, truncated, or of another kind or size.
    `content` as in `open_image`; `size` is (height, width) of the mask's image.
    """
    image = _decode(path, content, size)
    if image.mode not in ("P", "L"):
        raise DataError(
            f"{path}: a mask must be a palette or grey picture of mask ids, this one is {image.mode}; "
            "convert it"
        )
    return image


def read_mask(
    path: Path | str, manifest, content: bytes | None = None, size: tuple[int, int] | None = None
) -> np.ndarray:
    """(H, W) uint8 class indices of a file of mask ids, 255 kept; DataError where an id belongs to no class.

    `manifest` is only asked for `mask_ids`, the id in the files of each class index; else as `open_mask`.
    """
    ids = np.asarray(open_mask(path, content, size))
    index_of = np.full(256, -1, np.int16)
    index_of[list(manifest.mask_ids)] = range(len(manifest.mask_ids))
    index_of[IGNORE] = IGNORE
    labels = index_of[ids]
    if labels.min() < 0:
        unknown = np.unique(ids[labels < 0]).tolist()
        allowed = [*manifest.mask_ids, IGNORE]
        raise DataError(
            f"{path}: the mask ids {unknown} belong to no class, allowed are {allowed}; "
            "correct it or classes.json"
        )
    return labels.astype(np.uint8)


def save_mask(path: Path, labels: np.ndarray, manifest) -> None:
    """Write class indices (H, W) as a palette PNG of mask ids in the classes' colours, as VOC does.

    `manifest` is only asked for `mask_ids` and `palette`, the id and the colour (256, 3) of each class index.
    """
    ids = np.array(manifest.mask_ids, np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    palette[ids] = manifest.palette[: len(ids)]
    atomic_write(path, encode_mask(ids[labels], palette.tobytes()))


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    """The bytes of a picture file of a kind that Pillow knows, such as PNG."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def encode_mask(ids: np.ndarray, palette: bytes | list[int]) -> bytes:
    """The bytes of a palette PNG of mask ids (H, W) uint8; `palette` is R G B of id 0, of id 1, ..."""
    picture = Image.fromarray(ids)
    picture.putpalette(palette)
    return encode(picture, "PNG")


def _decode(
    path: Path | str, content: bytes | None = None, size: tuple[int, int] | None = None
) -> Image.Image:
    """Open and decode fully, so that a truncated file fails here; a picture of wrong size is not decoded."""
    name = in_utf8(path)
    if name != str(path):
        raise DataError(f"{name}: the name is not UTF-8, so no list can hold it; rename the file")
    if content is None and not os.path.isfile(path):  # Path.is_file fails where a name is too long
        raise DataError(f"{path}: the file is missing; restore it, or prepare the data set again without it")
    try:
        image = Image.open(path if content is None else io.BytesIO(content), formats=FORMATS)
        too_large = image.width * image.height > MOST_PIXELS
        other_size = size not in (None, image.size[::-1])
        if not too_large and not other_size:
            image.load()
    except Exception as error:  # Pillow's decoders raise many types: OSError, SyntaxError, ValueError, ...
        raise DataError(
            f"{path}: not a readable picture, perhaps truncated ({error}); replace or remove it"
        ) from error
    if too_large:
        image.close()
        raise DataError(
            f"{path}: {image.width} x {image.height} pixels are more than the {MOST_PIXELS:,} allowed; "
            "shrink it"
        )
    if other_size:
        image.close()
        sizes = f"the mask is {image.size}, its image {size[::-1]} (width, height)"
        raise DataError(f"{path}: {sizes}; they must be equal: correct it")
    return image
