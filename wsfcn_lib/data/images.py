"""Pictures and masks are opened and encoded here alone, with errors that say which file is bad and why."""

import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.files import DataError, in_utf8
from wsfcn_lib.runs.paths import require_utf8, resolve_path
from wsfcn_lib.runs.storage import atomic_write, machine_fault

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # endings of pictures
MOST_PIXELS = 80_000_000  # of a picture: a small file may claim to be one that fills the memory
# Whatever the file is called; of the formats that Pillow knows some, such as EPS, start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
NOT_NOW = "cannot be read now"  # of a picture that may be sound
PNG_STEPS = {"1": 1, "L;2": 85, "L;4": 17}  # how far apart Pillow puts grey values of 1, 2 and 4 bits


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


def orientation(path: Path | str) -> tuple[int, tuple[int, int]]:
    """How EXIF turns a picture (1: not at all, to 8) and its stored size (width, height); nothing is decoded.

    (1, (0, 0)) for what is no picture: that is for those to tell who read it.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1), image.size
    except Exception:  # as in `_decode`
        return 1, (0, 0)


def read_image(path: Path | str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its EXIF says; DataError as `open_image`."""
    return np.asarray(open_image(path))


def to_array(image: Path | str | Image.Image | np.ndarray) -> np.ndarray:
    """A path, a PIL image or an array (as it is) as (H, W, 3) uint8 RGB; DataError as `open_image`."""
    if isinstance(image, Path | str):
        return read_image(resolve_path(image))
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
    """The picture of a mask, its pixels as they are stored: ids (mode P or L) or colours (mode RGB).

    DataError if it is missing, truncated, of another size, or of a kind whose values a decoder changes.
    `content` as in `open_image`; `size` is (height, width) of the mask's image.
    """
    image = _decode(path, content, size)
    if image.format in ("JPEG", "WEBP"):
        raise DataError(
            f"{path}: a mask stored as {image.format} is not exact, its ids are blurred at every border; "
            "export it as PNG from the program that made it"
        )
    stored = image.info["stored as"]
    if stored in PNG_STEPS and image.format == "PNG":
        # Pillow spreads ids of few bits over 0..255
        return _with_ids(image, np.asarray(image).astype(np.uint8) // PNG_STEPS[stored])
    if image.mode.startswith("I;16"):
        ids = np.asarray(image)
        if ids.max() > 255:
            raise DataError(f"{path}: a mask of 16 bits whose ids reach {ids.max()}; ids lie in 0..255")
        return _with_ids(image, ids.astype(np.uint8))
    if image.mode == "RGBA" and stored == "RGBA" and image.getextrema()[3] == (255, 255):
        return _with_ids(image, np.asarray(image)[..., :3])
    if stored not in ("P", "P;1", "P;2", "P;4", "L", "RGB", "BGR", ""):
        raise DataError(
            f"{path}: a mask must be a palette or grey picture of mask ids, or one in the classes' colours; "
            f"this one is stored as {stored} and read as {image.mode}, which may change its values; "
            "save it as a PNG of 8 bits from the program that made it"
        )
    return image


def _with_ids(image: Image.Image, pixels: np.ndarray) -> Image.Image:
    """Other pixels for a picture, which keeps what its format is called."""
    changed = Image.fromarray(np.ascontiguousarray(pixels))
    changed.format = image.format
    return changed


def read_ids(
    path: Path | str, manifest, content: bytes | None = None, size: tuple[int, int] | None = None
) -> np.ndarray:
    """(H, W) uint8 mask ids of a file of ids or of the classes' colours.

    `manifest` is only asked for `mask_ids` and `palette`; else as `open_mask`. DataError also for a colour
    that no class has, and for a palette that has the classes' colours at other ids.
    """
    picture = open_mask(path, content, size)
    pixels = np.asarray(picture)
    if picture.mode == "RGB":
        return _ids_of_colours(path, pixels, manifest)
    if picture.mode == "P":
        _check_palette(path, pixels, picture.getpalette(), manifest)
    return pixels


def id_of_colours(manifest) -> dict[tuple[int, ...], int]:
    """The mask id of each colour that one class alone has, background (0) and ignored pixels (255) too."""
    ids = dict(zip(range(len(manifest.mask_ids)), manifest.mask_ids)) | {IGNORE: IGNORE}
    colours = {index: tuple(manifest.palette[index].tolist()) for index in ids}
    often = Counter(colours.values())
    return {colours[index]: mask_id for index, mask_id in ids.items() if often[colours[index]] == 1}


def _ids_of_colours(path: Path | str, pixels: np.ndarray, manifest) -> np.ndarray:
    """The ids of a mask (H, W, 3) in the classes' colours."""
    known = id_of_colours(manifest)
    red, green, blue = pixels.astype(np.int32).transpose(2, 0, 1)
    codes, positions = np.unique(red * 65536 + green * 256 + blue, return_inverse=True)
    colours = [(code // 65536, code // 256 % 256, code % 256) for code in codes.tolist()]
    unknown = [colour for colour in colours if colour not in known]
    if unknown:
        raise DataError(
            f"{path}: a mask in colours, of which {len(unknown)} are no class's (such as {unknown[0]}); "
            "give the classes these colours in classes.json, or save mask ids in one channel"
        )
    ids = np.array([known[colour] for colour in colours], np.uint8)
    return ids[positions].reshape(pixels.shape[:2])


def _check_palette(path: Path | str, ids: np.ndarray, palette: list[int], manifest) -> None:
    """DataError where a palette shows the classes' colours at other ids than theirs.

    Programs that make PNGs smaller, or quantise coloured masks, number the colours anew.
    """
    known = id_of_colours(manifest)
    shown = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist()
    colours = {number: tuple(palette[3 * number : 3 * number + 3]) for number in shown}
    foreground = [number for number in shown if number != IGNORE and any(colours[number])]
    moved = [number for number in foreground if known.get(colours[number], number) != number]
    if moved and all(colours[number] in known for number in foreground):
        number = moved[0]
        raise DataError(
            f"{path}: the palette has the classes' colours in another order: id {number} has the colour of "
            f"id {known[colours[number]]}, so ids and colours say different things. If the colours are right, "
            'save the mask in them, as Image.open(path).convert("RGB").save(path) does: then they count; '
            "if the ids are right, correct the palette, or the colours in classes.json"
        )


def read_mask(
    path: Path | str, manifest, content: bytes | None = None, size: tuple[int, int] | None = None
) -> np.ndarray:
    """(H, W) uint8 class indices of a mask, 255 kept; DataError where an id belongs to no class.

    Arguments and other errors as those of `read_ids`.
    """
    ids = read_ids(path, manifest, content, size)
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
    atomic_write(path, encode_mask(ids[labels], palette_of_ids(manifest)))


def palette_of_ids(manifest) -> bytes:
    """The classes' colours as a palette of mask ids: R G B of id 0, of id 1, ... to 255."""
    ids = list(manifest.mask_ids)
    palette = np.zeros((256, 3), np.uint8)
    palette[ids] = manifest.palette[: len(ids)]
    palette[IGNORE] = manifest.palette[IGNORE]
    return palette.tobytes()


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
    require_utf8(path)
    name = in_utf8(path)
    if name != str(path):
        raise DataError(f"{name}: the name is not UTF-8, so no list can hold it; rename the file")
    if content is None and not os.path.isfile(path):  # Path.is_file fails where a name is too long
        raise DataError(f"{path}: the file is missing; restore it, or prepare the data set again without it")
    try:
        image = Image.open(path if content is None else io.BytesIO(content), formats=FORMATS)
        too_large = image.width * image.height > MOST_PIXELS
        other_size = size not in (None, image.size[::-1])
        image.info["stored as"] = _stored_as(image)
        if not too_large and not other_size:
            image.load()
    except Exception as error:  # Pillow's decoders raise many types: OSError, SyntaxError, ValueError, ...
        if told := machine_fault(error):
            raise DataError(f"{path}: {NOT_NOW}: {told}") from error
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
        raise DataError(
            f"{path}: the mask is {image.size}, its image {size[::-1]} (width, height); make them equal"
        )
    return image


def _stored_as(image: Image.Image) -> str:
    """How the pixels lie in the file, by Pillow's name: another one than the mode where reading changes them.

    Empty where the format (GIF) keeps ids alone.
    """
    if image.format == "GIF" or not image.tile:
        return ""
    arguments = image.tile[0].args
    return arguments if isinstance(arguments, str) else str(arguments[0])
