"""A user's own pictures as they lie: tags from a file tags.csv, or from sub-folders named after classes."""

import csv
import io
import os
from collections import Counter
from pathlib import Path, PurePosixPath
from random import Random
from typing import NamedTuple

from pydantic import ValidationError

from wsfcn_lib.data.classes import voc_colour
from wsfcn_lib.data.files import DataError, read_text
from wsfcn_lib.data.listing import MASKLESS, DatasetListing
from wsfcn_lib.data.manifest import SPLITS, ClassInfo, Manifest, Sample, read_classes
from wsfcn_lib.data.remarks import remarks, twins
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.storage import atomic_write

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
COLUMNS = ("image", "tags", "mask", "split")  # of tags.csv


class Entry(NamedTuple):
    """A picture: its path below the root, what is said about it, and where that is written."""

    path: PurePosixPath
    tags: tuple[str, ...]
    where: str
    mask: Path | None = None
    split: str | None = None


def find_folder(
    root: Path | str, seed: int = 0, val_fraction: float = 0.1, test_fraction: float = 0.0
) -> DatasetListing:
    """The pictures below `root` with their tags; nothing is written there. DataError where the folder does not say enough.

    Tags: root/tags.csv has the columns image,tags, and mask and split if wanted; paths below root, ';' between tags. Without
    it, every sub-folder with pictures is a class, and its name the tag.
    Classes: in alphabetical order, mask id = position; root/classes.json, a list of {name, mask_id, colour}, overrules that.
    Masks: the column, else root/masks/<path or name of the picture>.png. They only measure: training goes on where one lacks.
    Splits: the column (empty: train; some must be val). Without it, or where it is all empty, pictures with masks go to val,
    as only they can measure; where more than half have one, or none has, the fractions are drawn from them or from all, by a
    hash of seed and path, so that new pictures move no others. One at least goes to val, unless its fraction is 0.
    Names: the file's stem; of pictures that share it, the path with "__" for "/" and "_" for ".".
    """
    root = Path(root)
    pictures, others = scan(root)
    entries, notes = _listed(root, pictures) if (root / "tags.csv").is_file() else _foldered(root, pictures)
    names = _names([entry.path for entry in entries])
    for k, entry in enumerate(entries):
        places = [
            root / "masks" / entry.path.with_suffix(".png"),
            root / "masks" / f"{names[entry.path]}.png",
        ]
        entries[k] = entry._replace(mask=entry.mask or next(filter(os.path.isfile, places), None))
    entries, drawn = draw(entries, seed, val_fraction, test_fraction)
    classes, splits, missing, untagged = _classes(root, entries), {split: [] for split in SPLITS}, [], []
    for entry in entries:
        name, image, training = names[entry.path], root / entry.path, entry.split == "train"
        absent = [file for file in (image, entry.mask) if file and not os.path.isfile(file)]
        stays = not absent or training and image not in absent
        if absent:
            missing.append(f"{entry.split}: {name}: {', '.join(map(str, absent))}{f'; {MASKLESS}' * stays}")
        if stays and training and not entry.tags:
            untagged.append(name)
        elif stays:
            tags = tuple(info.name in entry.tags for info in classes)
            splits[entry.split].append(Sample(name, image, tags, None if absent else entry.mask))
    if not splits["train"]:
        text = f"of {len(entries)} pictures {len(missing)} lack files and {len(untagged)} a tag, and none is left for training"
        raise DataError(f"{root}: {text}; tag more of them, correct their paths, or lower val_fraction")
    notes += [
        drawn,
        *remarks(classes, splits),
        *twins([s.image for samples in splits.values() for s in samples]),
    ]
    notes += [
        f"no pictures, passed over: {', '.join(f'{count} {kind}' for kind, count in others.most_common())}"
    ] * bool(others)
    return DatasetListing(
        classes, {split: samples for split, samples in splits.items() if samples}, missing, untagged, notes
    )


def write_template(root: Path | str) -> Path:
    """Write tags.csv, a line for each picture below `root`, its tags to be filled in; DataError if it is there already.

    `root` is what notebook 01 takes as `root`: absolute, from the repository, or in the home folder (~).
    """
    root = resolve_path(root)
    path, (pictures, _) = root / "tags.csv", scan(root)
    if path.exists():
        raise DataError(f"{path} is there and is never overwritten; move it away for a fresh one")
    if not pictures:
        raise DataError(f"{root} holds no pictures ({', '.join(PICTURES)}); name the folder that holds yours")
    csv.writer(text := io.StringIO(), lineterminator="\n").writerows(
        [COLUMNS[:2], *((picture, "") for picture in pictures)]
    )
    atomic_write(path, "\ufeff" + text.getvalue())  # the mark by which spreadsheets know UTF-8
    return path


def scan(root: Path) -> tuple[list[PurePosixPath], Counter]:
    """Pictures below `root`, relative and sorted, and counts of other files by ending; what is hidden or in masks/ is skipped."""
    if not root.is_dir():
        raise DataError(f"{root} is no folder; name the one that holds your pictures")
    paths = sorted(PurePosixPath(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    paths = [
        p
        for p in paths
        if p.parts[0] != "masks" and not any(part.startswith((".", "__MACOSX")) for part in p.parts)
    ]
    nameless, paths = [p for p in paths if not _is_utf8(p)], [p for p in paths if _is_utf8(p)]
    others = [
        p for p in paths if p.suffix.lower() not in PICTURES and str(p) not in ("tags.csv", "classes.json")
    ]
    counts = Counter(p.suffix.lower() or "without ending" for p in others) + Counter(
        {"named not in UTF-8": len(nameless)}
    )
    return [p for p in paths if p.suffix.lower() in PICTURES], counts


def _is_utf8(path: PurePosixPath) -> bool:
    """Whether a list can hold the name; those of old archives are often in another coding."""
    return str(path).encode(errors="replace").decode() == str(path)


def _listed(root: Path, pictures: list[PurePosixPath]) -> tuple[list[Entry], list[str]]:
    """What tags.csv says, and notes on what it leaves out."""
    table, entries = root / "tags.csv", {}
    text = read_text(table)
    try:
        list(
            csv.reader(io.StringIO(text, newline=""), strict=True)
        )  # an open quote would swallow the lines after it
    except csv.Error as error:
        raise DataError(f"{table}: a quote in it is not closed ({error}); save it as CSV again") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    reader.fieldnames = columns = [name.strip().lower() for name in reader.fieldnames or ()]
    if not {"image", "tags"} <= set(columns):
        raise DataError(
            f"{table}: line 1 must name the columns image,tags with a comma between them, found {columns}"
        )
    for row in reader:
        where, cells = (
            f"{table}, line {reader.line_num}",
            {key: (cell or "").strip() for key, cell in row.items() if key},
        )
        if any(row.get(None) or ()):
            raise DataError(f"{where}: more cells than columns; put ';' between tags, not ','")
        if not any(cells.values()):
            continue
        path, mask = (PurePosixPath(cells.get(key, "").replace("\\", "/")) for key in ("image", "mask"))
        if path.suffix.lower() not in PICTURES:
            raise DataError(
                f"{where}: {str(path)!r} is no picture of a kind known here ({', '.join(PICTURES)}); convert it"
            )
        if path in entries:
            raise DataError(f"{where}: {path} is listed before ({entries[path].where}); make it one line")
        split = cells.get("split", "").lower() or None
        if split not in (None, *SPLITS):
            raise DataError(
                f"{where}: split is {split!r}; write one of {', '.join(SPLITS)}, or nothing for train"
            )
        tags = tuple(tag.strip() for tag in cells["tags"].split(";") if tag.strip())
        entries[path] = Entry(path, tags, where, root / mask if mask.parts else None, split)
    counts = Counter(entry.split or "train" for entry in entries.values())
    if "val" not in counts and any(entry.split for entry in entries.values()):
        told = f"{table}: its column split makes {', '.join(f'{n} {split}' for split, n in counts.items())} and no val"
        raise DataError(
            f"{told}, which training needs; write val at some pictures, or empty the column to have it drawn"
        )
    known, notes = {root / path for path in entries} | {entry.mask for entry in entries.values()}, []
    if unlisted := [str(path) for path in pictures if root / path not in known]:
        notes.append(f"{len(unlisted)} pictures are not in tags.csv and are left out, first {unlisted[0]}")
    if unused := [name for name in columns if name and name not in COLUMNS]:
        notes.append(f"tags.csv: the columns {unused} are not used; known are {', '.join(COLUMNS)}")
    return list(entries.values()), notes


def _foldered(root: Path, pictures: list[PurePosixPath]) -> tuple[list[Entry], list[str]]:
    """Pictures tagged by the sub-folder they lie in."""
    inside = [path for path in pictures if len(path.parts) > 1]
    folders = sorted({path.parts[0] for path in inside})
    if len(folders) < 2 or {folder.lower() for folder in folders} <= {*SPLITS, "valid", "validation"}:
        text = f"{root} has {len(pictures)} pictures, no tags.csv, and no two sub-folders named after classes (found {folders})"
        advice = f"sort the pictures so, or call write_template({str(root)!r}) and fill the column tags, with ';' between tags"
        raise DataError(f"{text}; {advice}")
    notes = [
        f"{n} pictures lie in no class's sub-folder and are left out"
        for n in [len(pictures) - len(inside)]
        if n
    ]
    return [Entry(path, path.parts[:1], str(root / path.parts[0])) for path in inside], notes


def _names(paths: list[PurePosixPath]) -> dict[PurePosixPath, str]:
    """A name for each picture that no other has, upper and lower case taken as one: some disks do."""
    stems = Counter(path.stem.casefold() for path in paths)
    names = {
        p: p.stem if stems[p.stem.casefold()] == 1 else str(p).replace("/", "__").replace(".", "_")
        for p in paths
    }
    first = {}
    for path, name in names.items():
        if (other := first.setdefault(name.casefold(), path)) != path:
            raise DataError(
                f"{other} and {path} would both be called {name!r}; rename one of them, or join their folders"
            )
    return names


def draw(
    entries: list[Entry], seed: int, val_fraction: float, test_fraction: float
) -> tuple[list[Entry], str]:
    """Give entries their splits, if they have none, and say how; see `find_folder`."""
    if any(entry.split for entry in entries):
        return [
            entry._replace(split=entry.split or "train") for entry in entries
        ], "the splits are those of tags.csv"
    masked, rest = [entry for entry in entries if entry.mask], val_fraction + test_fraction
    pool, few = (
        masked or [entry for entry in entries if entry.tags],
        0 < 2 * len(masked) <= len(entries) and rest > 0,
    )
    lots = {entry.path: Random(f"{seed}/{entry.path}").random() * (rest if few else 1) for entry in pool}
    splits = {
        path: "test" if lot < test_fraction else "val" if lot < rest else "train"
        for path, lot in lots.items()
    }
    if val_fraction and len(pool) > 1 and "val" not in splits.values():
        splits[min(lots, key=lambda path: abs(lots[path] - test_fraction))] = "val"
    kind = "masks" if masked else "tags; without masks, only tags can be measured"
    how = f"val is drawn by name (seed {seed}) from the {len(pool)} pictures with {kind}"
    how = (
        f"the {len(pool)} pictures with masks measure, the {len(entries) - len(pool)} without train"
        if few
        else how
    )
    return [entry._replace(split=splits.get(entry.path, "train")) for entry in entries], how


def _classes(root: Path, entries: list[Entry]) -> tuple[ClassInfo, ...]:
    path, used = root / "classes.json", {tag: entry.where for entry in entries[::-1] for tag in entry.tags}
    if not 0 < len(used) < 255:
        text = f"{len(entries)} pictures have {len(used)} different tags, 1 to 254 are possible"
        raise DataError(f"{root}: {text}; fill the column tags of tags.csv, or join classes")
    names = sorted(used, key=lambda name: (name.casefold(), name))
    ours = [{"name": name, "mask_id": k, "colour": voc_colour(k)} for k, name in enumerate(names, 1)]
    try:
        classes = read_classes(path) if path.is_file() else tuple(ClassInfo(**entry) for entry in ours)
    except ValidationError as error:
        raise DataError(f"{root}: a class cannot be used, correct it: {error}") from error
    if unknown := sorted(used.keys() - {info.name for info in classes}):
        raise DataError(
            f"{used[unknown[0]]}: no class is called {unknown[0]!r}; correct it, or add it to {path}"
        )
    return Manifest(root, classes).classes  # which refuses names and ids that occur twice
