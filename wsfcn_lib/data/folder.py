"""A user's own pictures as they lie: tags from a file tags.csv, or from sub-folders named after classes.

`find_folder` makes an `Entry` of each picture, fills it step by step (tags, name, mask, split), and makes
samples of them.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from random import Random

from pydantic import ValidationError

from wsfcn_lib.data.files import DataError, in_utf8, read_table, table_text
from wsfcn_lib.data.images import PICTURES
from wsfcn_lib.data.listing import MASKLESS, DatasetListing
from wsfcn_lib.data.manifest import CLASSES_FILE, SPLITS, ClassInfo, Manifest, Sample, read_classes
from wsfcn_lib.data.remarks import remarks
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.storage import atomic_write

TABLE = "tags.csv"
COLUMNS = ("image", "tags", "mask", "split")  # of tags.csv; the first two are needed


@dataclass
class Entry:
    """A picture: its path below the root, its tags, where they are written, and what else is known of it."""

    path: PurePosixPath
    tags: tuple[str, ...]
    where: str
    mask: Path | None = None
    split: str = ""
    name: str = ""


def find_folder(
    root: Path | str, seed: int = 0, val_fraction: float = 0.1, test_fraction: float = 0.0
) -> DatasetListing:
    """The pictures below `root` with their tags; nothing is written there.

    Tags: root/tags.csv has the columns image,tags, and mask and split if wanted; paths below root, ';'
    between tags. Without it, every sub-folder with pictures is a class, and its name the tag.
    Classes: in alphabetical order, mask id = position; root/classes.json, a list of {name, mask_id, colour},
    overrules that.
    Masks: the column, else root/masks/<path or name of the picture>.png. They only measure: a training image
    whose mask lacks stays.
    Splits: the column; an empty cell is train. Without it, or where it is all empty, pictures with masks go
    to val, as only they can measure; where more than half have one, or none has, the fractions are drawn from
    them or from all, by a hash of seed and path, so that new pictures move no others. One at least goes to
    val, unless its fraction is 0.
    Names: the file's stem; of pictures that share it, the path with "__" for "/" and "_" for ".".

    DataError where the folder does not say enough.
    """
    root = resolve_path(root)
    pictures, others = scan(root)
    if (root / TABLE).is_file():
        entries, notes = read_tags(root, pictures)
    else:
        entries, notes = tag_by_folder(root, pictures)
    give_names(entries)
    find_masks(root, entries)
    notes.append(give_splits(entries, seed, val_fraction, test_fraction))
    classes = classes_of(root, entries)
    if others:
        counts = ", ".join(f"{count} {kind}" for kind, count in others.most_common())
        notes.append(f"no pictures, passed over: {counts}")
    listing = list_samples(root, entries, classes)
    listing.notes.extend(notes + remarks(listing))
    return listing


def write_template(root: Path | str) -> Path:
    """Write tags.csv, a line for each picture below `root` without its tags; DataError if it is there.

    `root` is what notebook 01 takes as `root`: absolute, from the repository, or in the home folder (~).
    """
    root = resolve_path(root)
    path = root / TABLE
    pictures, _ = scan(root)
    if path.exists():
        raise DataError(f"{path} is there and is never overwritten; move it away for a fresh one")
    if not pictures:
        raise DataError(f"{root} holds no pictures ({', '.join(PICTURES)}); name the folder that holds yours")
    text = table_text(("image", "tags"), [{"image": picture} for picture in pictures])
    atomic_write(path, "\ufeff" + text)  # the mark by which spreadsheets know UTF-8
    return path


def scan(root: Path) -> tuple[list[PurePosixPath], Counter]:
    """Pictures below `root`, relative and sorted, and counts of other files by ending.

    What is hidden or in masks/ is passed over.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder; name the one that holds your pictures")
    pictures, others = [], Counter()
    for path in sorted(PurePosixPath(file.relative_to(root)) for file in root.rglob("*") if file.is_file()):
        hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
        if hidden or path.parts[0] == "masks" or str(path) in (TABLE, CLASSES_FILE):
            continue
        if in_utf8(path) != str(path):
            others["named not in UTF-8"] += 1  # no list can hold the name
        elif path.suffix.lower() in PICTURES:
            pictures.append(path)
        else:
            others[path.suffix.lower() or "without ending"] += 1
    return pictures, others


def read_tags(root: Path, pictures: list[PurePosixPath]) -> tuple[list[Entry], list[str]]:
    """An entry for each line of tags.csv, and notes on what is left out."""
    columns, rows = read_table(root / TABLE, COLUMNS[:2])
    entries = {}
    for where, row in rows:
        entry = _read_row(root, where, row)
        if entry.path in entries:
            raise DataError(
                f"{where}: {entry.path} is listed before ({entries[entry.path].where}); make it one line"
            )
        entries[entry.path] = entry
    notes = []
    known = {root / path for path in entries} | {entry.mask for entry in entries.values()}
    unlisted = [path for path in pictures if root / path not in known]
    if unlisted:
        notes.append(f"{len(unlisted)} pictures are not in tags.csv and are left out, first {unlisted[0]}")
    unused = [name for name in columns if name and name not in COLUMNS]
    if unused:
        notes.append(f"tags.csv: the columns {unused} are not used; known are {', '.join(COLUMNS)}")
    return list(entries.values()), notes


def _read_row(root: Path, where: str, row: dict[str, str]) -> Entry:
    """The entry that one line of tags.csv describes."""
    path = PurePosixPath(row["image"].replace("\\", "/"))
    if path.suffix.lower() not in PICTURES:
        raise DataError(
            f"{where}: {str(path)!r} is no picture of a kind known here ({', '.join(PICTURES)}); convert it"
        )
    split = row.get("split", "").lower()
    if split and split not in SPLITS:
        raise DataError(
            f"{where}: split is {split!r}; write one of {', '.join(SPLITS)}, or nothing for train"
        )
    tags = tuple(tag.strip() for tag in row["tags"].split(";") if tag.strip())
    mask = row.get("mask", "").replace("\\", "/")
    return Entry(path, tags, where, root / mask if mask else None, split)


def tag_by_folder(root: Path, pictures: list[PurePosixPath]) -> tuple[list[Entry], list[str]]:
    """An entry for each picture in a sub-folder, which is its tag, and notes on what is left out."""
    inside = [path for path in pictures if len(path.parts) > 1]
    folders = sorted({path.parts[0] for path in inside})
    if len(folders) < 2 or {folder.lower() for folder in folders} <= {*SPLITS, "valid", "validation"}:
        raise DataError(
            f"{root} has {len(pictures)} pictures, no tags.csv, and no two sub-folders named after classes "
            f"(found {folders}); sort the pictures so, or call write_template({str(root)!r}) "
            "and fill the column tags, with ';' between tags"
        )
    entries = [Entry(path, path.parts[:1], str(root / path.parts[0])) for path in inside]
    alone = len(pictures) - len(inside)
    return entries, [f"{alone} pictures lie in no class's sub-folder and are left out"] if alone else []


def give_names(entries: list[Entry]) -> None:
    """Give each entry a name that no other has, upper and lower case taken as one: some disks do."""
    stems = Counter(entry.path.stem.casefold() for entry in entries)
    first = {}
    for entry in entries:
        entry.name = entry.path.stem
        if stems[entry.path.stem.casefold()] > 1:
            entry.name = str(entry.path).replace("/", "__").replace(".", "_")
        other = first.setdefault(entry.name.casefold(), entry)
        if other is not entry:
            raise DataError(
                f"{other.path} and {entry.path} would both be called {entry.name!r}; "
                "rename one of them, or join their folders"
            )


def find_masks(root: Path, entries: list[Entry]) -> None:
    """Give entries without a mask the one in root/masks that is called like their path or their name."""
    for entry in entries:
        for name in (entry.path.with_suffix(".png"), f"{entry.name}.png"):
            # os.path, as Path.is_file fails where a name is too long
            if not entry.mask and os.path.isfile(root / "masks" / name):
                entry.mask = root / "masks" / name


def give_splits(entries: list[Entry], seed: int, val_fraction: float, test_fraction: float) -> str:
    """Give entries their splits, and say how; see `find_folder`."""
    given = any(entry.split for entry in entries)
    for entry in entries:
        entry.split = entry.split or "train"
    if given:
        return "the splits are those of tags.csv"
    masked = [entry for entry in entries if entry.mask]
    pool = masked or [entry for entry in entries if entry.tags]
    fraction = test_fraction + val_fraction
    all_measure = 0 < 2 * len(masked) <= len(entries) and fraction > 0
    lots = {}  # a random number for each picture of the pool, from its own path
    for entry in pool:
        lot = Random(f"{seed}/{entry.path}").random()
        if all_measure:
            lot *= fraction
        if lot < test_fraction:
            entry.split = "test"
        elif lot < fraction:
            entry.split = "val"
        lots[entry.path] = lot
    if val_fraction and len(pool) > 1 and all(entry.split != "val" for entry in pool):
        nearest = min(pool, key=lambda entry: abs(lots[entry.path] - test_fraction))
        nearest.split = "val"
    if all_measure:
        return f"the {len(pool)} pictures with masks measure, the {len(entries) - len(pool)} without train"
    kind = "masks" if masked else "tags; without masks, only tags can be measured"
    return f"val is drawn by name (seed {seed}) from the {len(pool)} pictures with {kind}"


def classes_of(root: Path, entries: list[Entry]) -> tuple[ClassInfo, ...]:
    """The classes of root/classes.json, else the tags in alphabetical order; DataError for another tag."""
    path = root / CLASSES_FILE
    used = {}  # tag -> where it is written first
    for entry in entries:
        for tag in entry.tags:
            used.setdefault(tag, entry.where)
    if not 0 < len(used) < 255:
        raise DataError(
            f"{root}: {len(entries)} pictures have {len(used)} different tags, 1 to 254 are possible; "
            "fill the column tags of tags.csv, or join classes"
        )
    if path.is_file():
        classes = read_classes(path)
    else:
        names = sorted(used, key=lambda name: (name.casefold(), name))
        try:
            classes = voc_classes(names)
        except ValidationError as error:
            raise DataError(f"{root}: a class cannot be used, correct it: {error}") from error
    unknown = sorted(used.keys() - {info.name for info in classes})
    if unknown:
        raise DataError(
            f"{used[unknown[0]]}: no class is called {unknown[0]!r}; correct it, or add it to {path}"
        )
    return Manifest(root, classes).classes  # which refuses names and ids that occur twice


def list_samples(root: Path, entries: list[Entry], classes: tuple[ClassInfo, ...]) -> DatasetListing:
    """The samples of entries whose files are there; training images may lack a mask, but not a tag."""
    listing = DatasetListing(classes, {})
    for entry in entries:
        image, mask, training = root / entry.path, entry.mask, entry.split == "train"
        absent = [file for file in (image, mask) if file and not os.path.isfile(file)]
        usable = not absent or (training and image not in absent)
        if absent:
            line = f"{entry.split}: {entry.name}: {', '.join(map(str, absent))}"
            listing.missing.append(f"{line}; {MASKLESS}" if usable else line)
            mask = None
        if usable and training and not entry.tags:
            listing.untagged.append(entry.name)
        elif usable:
            tags = tuple(info.name in entry.tags for info in classes)
            sample = Sample(entry.name, image, tags, mask)
            listing.splits.setdefault(entry.split, []).append(sample)
    return listing
