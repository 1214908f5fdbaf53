"""Pictures and masks are opened and encoded here alone, with errors that say which file is bad and why."""

import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from wsfcn_lib.data.classes import BORDER_COLOUR, IGNORE
from wsfcn_lib.data.files import DataError, in_utf8
from wsfcn_lib.runs.paths import require_utf8, resolve_path
from wsfcn_lib.runs.storage import atomic_write, machine_fault

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # endings of pictures
MOST_PIXELS = 80_000_000  # of a picture: a small file may claim to be one that fills the memory
# Whatever the file is called; of the formats that Pillow knows some, such as EPS, start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
NOT_NOW = "cannot be read now"  # of a picture that may be sound
PNG_STEPS = {"1": 1, "L;2": 85, "L;4": 17}  # how far apart Pillow puts grey values of 1, 2 and 4 bits
INEXACT = ("JPEG", "WEBP", "jpeg", "tiff_jpeg", "webp")  # formats, and compressions inside TIFF
EXACT = ("P", "P;1", "P;2", "P;4", "L", "RGB", "BGR", "BGRX", "RGBX", "")  # what reading does not change
SAVE = '.save(path.with_suffix(".png"))'  # ends the code that messages advise; GIF would number colours anew
TURNS = {  # EXIF's orientations as Image.Transpose calls them
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
    7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
TURN_CODE = f"open_mask(path).transpose(Image.Transpose.{{}}){SAVE} (wsfcn_lib.data.images)"
MOST_COLOURS = 12  # so many unknown colours are listed


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
    """How EXIF turns a picture (1: not at all, or a key of TURNS) and its stored size (width, height).

    Nothing is decoded.
    (1, (0, 0)) for what is no picture: that is for those to tell who read it.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            direction = _direction(image)
            # Pillow gives the size of a TIFF as it will be shown
            return direction, image.size[::-1] if image.format == "TIFF" and direction > 4 else image.size
    except Exception:  # as in `_decode`
        return 1, (0, 0)


def pages(path: Path | str, content: bytes | None = None) -> int:
    """How many pictures a file holds; a TIFF's smaller copies and transparency of the first do not count.

    1 for what is no picture. Nothing is decoded.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as image:
            number = getattr(image, "n_frames", 1)
            if number > 1 and image.format == "TIFF":
                number = 0
                for page in range(image.n_frames):
                    image.seek(page)
                    number += not image.tag_v2.get(254, 0) & 5  # NewSubfileType
            return number
    except Exception:  # as in `_decode`
        return 1


def shown_size(path: Path | str) -> tuple[int, int] | None:
    """The (height, width) that a picture will have when it is read; None for what is no picture."""
    direction, (width, height) = orientation(path)
    return ((width, height) if direction > 4 else (height, width)) if width else None


def _direction(image: Image.Image) -> int:
    """The EXIF orientation of an opened picture; 1 for none, an impossible or a torn one."""
    try:
        direction = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as in `_decode`
        return 1
    return direction if direction in TURNS else 1


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
    inexact = [kind for kind in (image.format, image.info.get("compression")) if kind in INEXACT]
    if inexact:
        raise DataError(
            f"{path}: a mask stored as {inexact[0]} is not exact, its ids are blurred at every border; "
            "export it as PNG from the program that made it"
        )
    if (number := pages(path, content)) > 1:
        raise DataError(
            f"{path}: a mask of {number} pages or frames, of which only one could be read; "
            "save the one that counts as a PNG"
        )
    if image.format == "PNG" and (direction := _direction(image)) > 1:  # a TIFF is turned as it is read
        raise DataError(
            f"{path}: the mask itself has an EXIF orientation ({direction}), which some programs follow "
            "and others ignore. If it fits the picture when it is turned so, save it turned, as "
            f"ImageOps.exif_transpose(Image.open(path)){SAVE} does; if it fits as it is stored, "
            f"save it without EXIF, as Image.fromarray(np.asarray(Image.open(path))){SAVE} does"
        )
    stored = image.info["stored as"]
    if stored in PNG_STEPS and image.format == "PNG":
        # Pillow spreads ids of few bits over 0..255
        return _with_ids(image, np.asarray(image).astype(np.uint8) // PNG_STEPS[stored])
    if image.mode.startswith("I;16"):
        ids = np.asarray(image)
        if ids.max() > 255:
            raise DataError(
                f"{path}: a mask of 16 bits whose ids reach {ids.max()}; ids lie in 0..255: "
                "give the classes such ids in the program that made it"
            )
        return _with_ids(image, ids.astype(np.uint8))
    if image.mode in ("RGBA", "LA") and stored == image.mode and image.getextrema()[-1] == (255, 255):
        return _with_ids(image, np.asarray(image.convert(image.mode[:-1])))
    if stored not in EXACT:
        raise DataError(
            f"{path}: a mask must be a palette or grey picture of mask ids, or one in the classes' colours; "
            f"this one is stored as {stored} and read as {image.mode}, which may change its values; "
            f"{_way_to_ids(image.mode)}"
        )
    return image


def _way_to_ids(mode: str) -> str:
    """How a mask that is read as `mode` becomes one that can be used."""
    if mode in ("RGBA", "LA"):
        kind = mode[:-1]
        return (
            "make what is transparent background, as im = Image.open(path); "
            f'Image.composite(im.convert("{kind}"), Image.new("{kind}", im.size), '
            f'im.getchannel("A").point(lambda a: 255 * (a > 0))){SAVE} does'
        )
    if mode == "1":
        return (
            "give its white the id of its class, 1 in "
            f"Image.fromarray((np.asarray(Image.open(path)) > 0) * np.uint8(1)){SAVE}"
        )
    if mode in ("I", "F"):
        return (
            "if its values are whole numbers in 0..255, save them in 8 bits, as "
            f"Image.fromarray(np.asarray(Image.open(path)).astype(np.uint8)){SAVE} does"
        )
    return "save it as a PNG of 8 bits from the program that made it"


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
    codes, positions, counts = np.unique(
        red * 65536 + green * 256 + blue, return_inverse=True, return_counts=True
    )
    colours = [(code // 65536, code // 256 % 256, code % 256) for code in codes.tolist()]
    unknown = [colours[k] for k in np.argsort(-counts, kind="stable") if colours[k] not in known]
    if unknown:
        listed = ", ".join(map(str, unknown[:MOST_COLOURS]))
        more = f" and {len(unknown) - MOST_COLOURS} more" if len(unknown) > MOST_COLOURS else ""
        raise DataError(
            f"{path}: a mask in colours, of which {len(unknown)} are no class's: {listed}{more}. "
            f"Background must be (0, 0, 0), what is ignored {BORDER_COLOUR}; "
            "give the classes their colours in classes.json, or save mask ids in one channel"
        )
    ids = np.array([known[colour] for colour in colours], np.uint8)
    return ids[positions].reshape(pixels.shape[:2])


def _check_palette(path: Path | str, ids: np.ndarray, palette: list[int], manifest) -> None:
    """DataError where a palette shows the classes' colours, or greys, at other ids than theirs.

    Programs that make PNGs smaller, or quantise coloured masks, number the colours anew.
    """
    known = id_of_colours(manifest)
    shown = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist()
    colours = {number: tuple(palette[3 * number : 3 * number + 3]) for number in shown}
    foreground = [number for number in shown if number != IGNORE and any(colours[number])]
    moved = [number for number in foreground if known.get(colours[number], number) != number]
    if len(moved) > 1 or (moved and all(colours[number] in known for number in foreground)):
        number = moved[0]
        raise DataError(
            f"{path}: the palette has the classes' colours in another order: id {number} has the colour of "
            f"id {known[colours[number]]}, so ids and colours say different things. "
            f"{_palette_advice('colours', 'RGB')}, or correct the colours in classes.json"
        )
    greys = {number: colour[0] for number, colour in colours.items() if len(set(colour)) == 1}
    for_the_eye = {IGNORE} if greys.get(0, 0) else {0, IGNORE}  # black is background, unless that is white
    moved = [number for number, grey in greys.items() if grey != number and grey not in for_the_eye]
    if moved and len(greys) == len(shown) and {*greys.values()} <= {*manifest.mask_ids, IGNORE}:
        number = moved[0]
        raise DataError(
            f"{path}: the palette has the classes' ids as greys in another order: id {number} is shown as the "
            f"grey {greys[number]}, which is an id too. {_palette_advice('greys', 'L')}"
        )


def _palette_advice(what: str, mode: str) -> str:
    return (
        f'If the {what} are right, save the mask in them, as Image.open(path).convert("{mode}"){SAVE} does: '
        "then they count; if the ids are right, save them without the palette, as "
        f"Image.fromarray(np.asarray(Image.open(path))){SAVE} does"
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
        # an open file instead of its name: else Pillow maps some TIFFs and scrambles those that it turns
        with open(path, "rb") if content is None else io.BytesIO(content) as file:
            image = Image.open(file, formats=FORMATS)
            too_large = image.width * image.height > MOST_PIXELS
            other_size = size not in (None, image.size[::-1])
            image.info["stored as"] = _stored_as(image)
            if not too_large and not other_size:
                image.load()
    except Exception as error:  # Pillow's decoders raise many types: OSError, SyntaxError, ValueError, ...
        if told := machine_fault(error):
            raise DataError(f"{path}: {NOT_NOW}: {told}") from error
        cause, advice = "perhaps truncated", "replace or remove it"
        if Path(path).suffix.lower() not in PICTURES:
            cause = f"known are {', '.join(FORMATS)}"
            advice = "convert a picture to JPEG, a mask to PNG"
        raise DataError(f"{path}: not a readable picture, {cause} ({error}); {advice}") from error
    if too_large:
        raise DataError(
            f"{path}: {image.width} x {image.height} pixels are more than the {MOST_PIXELS:,} allowed; "
            "shrink it"
        )
    if other_size:
        raise DataError(
            f"{path}: the mask is {image.size}, its image {size[::-1]} (width, height); make them equal, "
            f"the mask without new values between ids, as open_mask(path).resize({size[::-1]}, "
            f"Image.Resampling.NEAREST){SAVE} does (wsfcn_lib.data.images)"
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
