"""What lies below a folder: pictures, and all else, which is counted by kind, so that nothing vanishes."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from wsfcn_lib.data.files import DataError, in_utf8
from wsfcn_lib.data.images import FORMATS, PICTURES
from wsfcn_lib.runs.paths import require_utf8

SYSTEM_FOLDERS = (
    "@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler", "found.000", "__macosx",
    "__pycache__", "thumbnails", "system volume information", "lost+found",
)  # fmt: skip
TABLE_ENDINGS = ("tsv", "txt", "xlsx", "xls", "ods")  # of tables that would be tags.csv
JPEG = (".jpg", ".jpeg")
MASK_COLOURS = 64  # a mask has no more
# what names of masks begin or end with; other words than mask may name photographs too, which are JPEGs
LABELS = "(seg|segmentation|gt|groundtruth|ground_truth|label|labels|labelids|trimap)"
MASK_BEGINNING = re.compile("^masks?[ _.-]+", re.I)
MASK_ENDING = re.compile(r"[ _.-]+masks?([ _-]?\d+)?$", re.I)
LABEL_BEGINNING = re.compile(f"^{LABELS}[ _.-]+", re.I)
LABEL_ENDING = re.compile(rf"[ _.-]+{LABELS}([ _-]?\d+)?$", re.I)
MASK_ALONE = re.compile(f"(masks?|{LABELS})$", re.I)  # beside a picture in a folder of its own
OVERLAY = re.compile(
    r"[ _.-]+(overlays?|segmented)$|^overlays?[ _.-]+", re.I
)  # a picture with its mask drawn over it


@dataclass
class Scan:
    """What lies below a folder, relative to it and sorted: pictures, masks beside them, and all else by kind."""

    pictures: list[PurePosixPath] = field(default_factory=list)
    sibling_masks: list[PurePosixPath] = field(default_factory=list)
    others: dict[str, list[PurePosixPath]] = field(default_factory=lambda: defaultdict(list))

    def notes(self, wanted: str = "pictures") -> list[str]:
        """A line for each kind of what is not used; `wanted`: what was looked for."""
        notes = []
        if self.sibling_masks:
            notes.append(
                f"{len(self.sibling_masks)} files such as {self.sibling_masks[0]} are masks beside their pictures, "
                "not pictures, and are not used; list those that are photographs in tags.csv"
            )
        counts = Counter(path.with_suffix("") for path in self.pictures)
        twins = [path for path in self.pictures if counts[path.with_suffix("")] > 1]
        if twins:
            notes.append(
                f"{len(twins)} files such as {twins[0]} and {twins[1]} differ in their ending alone, and none looks "
                "like a mask: each is read as a picture"
            )
        if self.others:
            kinds = sorted(self.others.items(), key=lambda item: -len(item[1]))
            counts = ", ".join(f"{len(paths)} {kind} ({in_utf8(paths[0])})" for kind, paths in kinds)
            notes.append(f"not {wanted}, passed over: {counts}")
        return notes


def scan(root: Path, beside: tuple[str, ...] = ()) -> Scan:
    """The files below `root`; links are followed. `beside`: files and folders of the top that others read."""
    if not root.is_dir():
        raise DataError(f"{root} is no folder; name the one that holds your pictures")
    result = Scan()
    for path in sorted(walk(root, result.others, beside)):
        require_utf8(path)
        if path.name.startswith("."):
            result.others["hidden"].append(path)
        elif in_utf8(path) != str(path):
            result.others["named not in UTF-8"].append(path)  # no list can hold the name
        elif path.suffix.lower() in PICTURES:
            result.pictures.append(path)
        else:
            result.others[path.suffix.lower() or "without ending"].append(path)
    result.sibling_masks = _sibling_masks(root, result.pictures)
    masks = set(result.sibling_masks)
    result.pictures = [path for path in result.pictures if path not in masks]
    return result


def walk(
    root: Path, others: dict[str, list[PurePosixPath]], beside: tuple[str, ...] = ()
) -> Iterator[PurePosixPath]:
    """Every file below `root`, relative; folders of the system, hidden ones and circles go to `others`."""
    entered = set()

    def cannot_be_read(error: OSError) -> None:
        others["folder that cannot be read"].append(PurePosixPath(error.filename))

    for folder, inner, files in os.walk(root, onerror=cannot_be_read, followlinks=True):
        here = PurePosixPath(Path(folder).relative_to(root))
        real = os.path.realpath(folder)
        if real in entered:
            others["link to a folder that was entered before"].append(here)
            inner.clear()
            continue
        entered.add(real)
        # in one order on every disk, and folders before links to them, whose names are then none of classes
        inner.sort(key=lambda name: (os.path.islink(Path(folder) / name), name))
        skipped = beside if here == PurePosixPath(".") else ()
        for name in list(inner):
            if name in skipped:
                inner.remove(name)
            elif name.lower() in SYSTEM_FOLDERS or name.startswith("."):
                others["system or hidden folder"].append(here / name)
                inner.remove(name)
        for name in files:
            if name in skipped:
                continue
            if os.path.isfile(Path(folder) / name):
                yield here / name
            else:
                others["broken link"].append(here / name)


def _sibling_masks(root: Path, pictures: list[PurePosixPath]) -> list[PurePosixPath]:
    """Those called like another picture and "mask", and those that look like masks where names say so.

    Such a name holds that of a photograph beside it, or is "mask" or like it alone.
    """
    by_stem = defaultdict(list)
    for path in pictures:
        by_stem[path.with_suffix("")].append(path)
    masks = []
    for path in pictures:
        named = OVERLAY.sub("", name_of_picture(path))
        if named != path.stem and named and path.with_name(named) in by_stem:
            masks.append(path)
        elif MASK_ALONE.match(path.stem) and looks_like_mask(root / path):
            masks.append(path)
        elif path.suffix.lower() not in JPEG and looks_like_mask(root / path):
            if any(not looks_like_mask(root / other) for other in _within_name(path, by_stem)):
                masks.append(path)
    return masks


def _within_name(path: PurePosixPath, by_stem: dict) -> list[PurePosixPath]:
    """Pictures beside one whose whole name stands at the begin or the end of its own, such as x1 of x1_fuse.

    That of x12 does not hold x1: there a number goes on.
    """
    stem, found = path.stem, []
    for cut in range(1, len(stem) + 1):
        begin, rest = stem[:cut], stem[cut:]
        if begin.strip() and not (begin[-1].isdigit() and rest[:1].isdigit()):
            found += by_stem.get(path.with_name(begin), [])
        if rest.strip() and not (begin[-1].isdigit() and rest[0].isdigit()):
            found += by_stem.get(path.with_name(rest), [])
    return [other for other in found if other != path]


def name_of_picture(mask: PurePosixPath) -> str:
    """The name of the picture to which a mask belongs by its own name; this itself if that names no mask."""
    name = MASK_ENDING.sub("", MASK_BEGINNING.sub("", mask.stem))
    return name if mask.suffix.lower() in JPEG else LABEL_ENDING.sub("", LABEL_BEGINNING.sub("", name))


def looks_like_mask(path: Path) -> bool:
    """Whether a picture has few colours, each of many pixels, as masks of ids or colours have."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode.startswith("I"):
                return True  # no picture of 16 bits can be read
            image.draft("RGB", (256, 256))  # a photograph need not be decoded in full
            colours = image.getcolors(MASK_COLOURS)
            in_colour = image.mode.startswith(("RGB", "CMYK", "YCbCr"))
            pixels = image.width * image.height
    except Exception:  # as in images.py: Pillow raises many types
        return False
    if not colours or 4 * len(colours) > pixels:
        return False
    return (
        not in_colour or len(colours) > 1 or not any(colours[0][1][:3])
    )  # one colour: black alone is a mask


def unique_names(paths: Sequence[PurePosixPath]) -> list[str]:
    """A name for each path: its stem, or of those that share it the path with "__" for "/" and "_" for ".".

    Upper and lower case are taken as one: some disks do. DataError where that names two alike.
    """
    stems = Counter(path.stem.casefold() for path in paths)
    names, first = [], {}
    for path in paths:
        name = path.stem
        if stems[path.stem.casefold()] > 1:
            name = str(path).replace("/", "__").replace(".", "_")
        other = first.setdefault(name.casefold(), path)
        if other is not path:
            raise DataError(
                f"{other} and {path} would both be called {name!r}; rename one of them, or join their folders"
            )
        names.append(name)
    return names


def same_name(name: str) -> str:
    """A name as people mean it: without upper and lower case and the Unicode form that a disk chose."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def at_top(root: Path, name: str) -> Path:
    """The file or folder in `root` that is called so, in any case; as it should be where there is none.

    DataError where two are, or where a table lies there under another ending.
    """
    names = sorted(os.listdir(root)) if root.is_dir() else []
    found = [other for other in names if other.lower() == name]
    if len(found) > 1:
        raise DataError(f"{root}: {found[0]} and {found[1]} may both be {name}; keep one")
    stem, _, ending = name.partition(".")
    if ending and not found:
        likely = [f"{name}.txt", *(f"{stem}.{other}" for other in TABLE_ENDINGS if ending == "csv")]
        for other in names:
            if other.lower() in likely:
                raise DataError(
                    f"{root / other}: what it holds is read from {name} alone; save it as {name} (tables as CSV "
                    "UTF-8), or move it away"
                )
    return root / (found[0] if found else name)


class Spellings:
    """Files by the names that tables give them: spelt alike but for case, Unicode form or ending."""

    def __init__(self):
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def find(self, path: Path, endings: tuple[str, ...] = PICTURES) -> list[Path]:
        """The file itself, else those beside it that may be meant."""
        if os.path.isfile(path):
            return [path]
        if path.parent not in self._folders:
            self._folders[path.parent] = self._read(path.parent)
        known = self._folders[path.parent]
        exact = known.get(same_name(path.name), [])
        if exact:
            return exact
        stem = path.stem if path.suffix.lower() in endings else path.name
        return [file for ending in endings for file in known.get(same_name(stem + ending), [])]

    @staticmethod
    def _read(folder: Path) -> dict[str, list[Path]]:
        files = defaultdict(list)
        if folder.is_dir():
            for name in sorted(os.listdir(folder)):
                files[same_name(name)].append(folder / name)
        return files
