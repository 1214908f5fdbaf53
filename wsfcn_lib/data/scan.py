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

SYSTEM_FOLDERS = ("@eadir", "#recycle", "$recycle.bin", "__macosx", "system volume information", "lost+found")
# the ends of names of masks; those of other words than mask may name photographs too, which are JPEGs
MASK_ENDING = re.compile(r"[ _.-]+(mask|masks)([ _-]?\d+)?$", re.I)
LABEL_ENDING = re.compile(
    r"[ _.-]+(seg|segmentation|gt|groundtruth|ground_truth|label|labels|trimap)([ _-]?\d+)?$", re.I
)


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
                "no pictures, and are not used"
            )
        if self.others:
            kinds = sorted(self.others.items(), key=lambda item: -len(item[1]))
            counts = ", ".join(f"{len(paths)} {kind} ({in_utf8(paths[0])})" for kind, paths in kinds)
            notes.append(f"no {wanted}, passed over: {counts}")
        return notes


def scan(root: Path, beside: tuple[str, ...] = ()) -> Scan:
    """The files below `root`; links are followed. `beside`: files and folders of the top that others read."""
    if not root.is_dir():
        raise DataError(f"{root} is no folder; name the one that holds your pictures")
    result = Scan()
    for path in sorted(_files(root, result.others, beside)):
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


def _files(
    root: Path, others: dict[str, list[PurePosixPath]], beside: tuple[str, ...]
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
    """Those called like another picture and "mask", or like it alone where they have one channel and it has three."""
    by_stem = defaultdict(list)
    for path in pictures:
        by_stem[path.with_suffix("")].append(path)
    masks = []
    for path in pictures:
        named = MASK_ENDING.sub("", path.stem)
        if path.suffix.lower() not in (".jpg", ".jpeg"):
            named = LABEL_ENDING.sub("", named)
        if named != path.stem and named and path.with_name(named) in by_stem:
            masks.append(path)
            continue
        twins = by_stem[path.with_suffix("")]
        if len(twins) > 1 and path.suffix.lower() == ".png" and channels(root / path) == 1:
            if any(channels(root / twin) == 3 for twin in twins):
                masks.append(path)
    return masks


def channels(path: Path) -> int:
    """1 for palettes and greys, 3 for colours; 0 where the file says neither. Nothing is decoded."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return {"1": 1, "L": 1, "P": 1, "I;16": 1, "RGB": 3}.get(image.mode, 0)
    except Exception:  # as in images.py: Pillow raises many types
        return 0


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
