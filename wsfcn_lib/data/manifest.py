"""The manifest, the door between data and everything else: `classes.json` and one CSV per split in one folder.

Class indices everywhere: 0 = background, c = classes[c - 1], 255 = ignored. Tags are foreground only: tags[c - 1] is class c.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from wsfcn_lib.data.classes import BORDER_COLOUR
from wsfcn_lib.data.files import DataError, read_text
from wsfcn_lib.data.images import (
    IGNORE,
    read_image,
    read_mask,
)
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.settings import Settings
from wsfcn_lib.runs.storage import atomic_write

TWICE = "listed in both"
MANY = 2000  # pictures take over two seconds from about here


def validate(manifest: "Manifest") -> list[str]:
    """Open every picture and mask of the manifest; a line "<path>: <reason>" for each fault (empty = all good)."""
    faults, jobs, home = [], [], {}
    train_masks = manifest.train_masks()
    for split in manifest.splits:
        samples = manifest.samples(split)
        jobs += [
            (sample.image, train_masks.get(sample.name) if split == "train" else sample.mask)
            for sample in samples
        ]
        for image in (sample.image.resolve() for sample in samples):
            if home.setdefault(image, split) != split:
                faults.append(f"{image}: {TWICE} {home[image]}.csv and {split}.csv; take it out of one")

    def faults_of(job: tuple[Path, Path | None]) -> list[str]:
        found, sizes = [], []
        readers = (lambda: read_image(job[0]), lambda: read_mask(job[1], manifest) if job[1] else None)
        for read in readers:
            try:
                array = read()
            except DataError as error:
                found.append(str(error))
            else:
                sizes += [] if array is None else [array.shape[1::-1]]
        if len(set(sizes)) == 2:
            found.append(
                f"{job[1]}: the mask is {sizes[1]}, its image {job[0]} is {sizes[0]} (width, height): make them equal"
            )
        return found

    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
        opened = progress(pool.map(faults_of, jobs), "open", len(jobs), MANY)
        return faults + [fault for found in opened for fault in found]


SPLITS = ("train", "val", "test")
MASKED = ("image", "tags", "mask")
COLUMNS = {"train": ("image", "tags"), "val": MASKED, "test": MASKED, "train_masks": ("image", "mask")}
FILES = ("classes.json", *(f"{name}.csv" for name in COLUMNS))
Channel = Annotated[int, Field(ge=0, le=255)]


class ClassInfo(Settings):
    """A foreground class: its name, its id in the mask files, its colour in pictures."""

    name: str = Field(min_length=1)
    mask_id: int = Field(ge=1, le=254)
    colour: tuple[Channel, Channel, Channel]

    @field_validator("name")
    @classmethod
    def _usable(cls, name: str) -> str:
        if ";" in name or name != name.strip() or name == "background":
            raise ValueError(
                f"{name!r} cannot name a class: no ';', no outer blanks, and 'background' is taken"
            )
        return name


def read_classes(path: Path) -> tuple[ClassInfo, ...]:
    """The classes of a file classes.json; DataError where it is damaged."""
    try:
        return tuple(ClassInfo(**entry) for entry in json.loads(read_text(path)))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} must be a list of {{name, mask_id, colour}}; correct this: {error}"
        ) from error


@dataclass(frozen=True)
class Sample:
    """One image of a split: its name (file stem), path, tags (K-1,), and its mask if it has one (never in train)."""

    name: str
    image: Path
    tags: tuple[bool, ...]
    mask: Path | None = None


@dataclass(frozen=True)
class Manifest:
    """A data set ready for use: `folder` holds the lists, `classes` are the foreground classes in index order."""

    folder: Path
    classes: tuple[ClassInfo, ...]

    def __post_init__(self):
        for field in ("name", "mask_id"):
            values = [getattr(info, field) for info in self.classes]
            if not values or len(set(values)) < len(values):
                raise DataError(
                    f"{self.folder / 'classes.json'}: each {field} must occur once, found {values}; correct the list"
                )

    @classmethod
    def load(cls, folder: Path | str) -> "Manifest":
        """Read a manifest and check its lists (columns, tags, duplicates), without opening a picture; DataError if broken."""
        path = Path(folder) / "classes.json"
        if not path.is_file():
            raise DataError(
                f"{path} is missing: no data set was prepared here; run notebooks/01_prepare_data"
            )
        manifest = cls(Path(folder), read_classes(path))
        for split in manifest.splits or ("train",):
            manifest.samples(split)
        manifest.train_masks()
        return manifest

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have a list."""
        return tuple(split for split in SPLITS if (self.folder / f"{split}.csv").is_file())

    @property
    def num_classes(self) -> int:
        """K, background counted."""
        return 1 + len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by class index."""
        return ("background", *(info.name for info in self.classes))

    @property
    def palette(self) -> np.ndarray:
        """(256, 3) uint8 colours by class index; 255 (ignored) is VOC's cream."""
        colours = np.zeros((256, 3), np.uint8)
        colours[1 : self.num_classes] = [info.colour for info in self.classes]
        colours[IGNORE] = BORDER_COLOUR
        return colours

    def samples(self, split: str) -> list[Sample]:
        """The images of "train", "val" or "test" in the order of the list; those of train come without masks."""
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
        found = []
        for where, row in self._rows(split):
            names = [name.strip() for name in row["tags"].split(";") if name.strip()]
            if unknown := sorted(set(names) - set(self.names[1:])):
                known = ", ".join(self.names[1:])
                raise DataError(
                    f"{where}: no class is called {unknown}; correct it, or add it to classes.json ({known})"
                )
            if split == "train" and not names:
                raise DataError(
                    f"{where}: {row['image']} has no tag, so it can teach nothing; tag it or remove the line"
                )
            image, tags = self.folder / row["image"], tuple(name in names for name in self.names[1:])
            found.append(
                Sample(image.stem, image, tags, self.folder / row["mask"] if row.get("mask") else None)
            )
        return found

    def train_masks(self) -> dict[str, Path]:
        """Masks of training images by image name, for evaluation only; empty where there are none."""
        if not (self.folder / "train_masks.csv").is_file():
            return {}
        return {
            Path(row["image"]).stem: self.folder / row["mask"]
            for _, row in self._rows("train_masks")
            if row["mask"]
        }

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file of the manifest, by file name."""
        return checksums(self.folder, FILES)

    def _rows(self, split: str) -> Iterator[tuple[str, dict[str, str]]]:
        """("file, line n", row) of one CSV, after the checks that need nothing but the row."""
        path, seen = self.folder / f"{split}.csv", {}
        if not path.is_file():
            raise DataError(
                f"{path} is missing: there is no list of {split!r}; run notebooks/01_prepare_data, or write it"
            )
        with io.StringIO(read_text(path), newline="") as file:
            try:
                list(csv.reader(file, strict=True))  # an open quote would swallow the lines after it
            except csv.Error as error:
                raise DataError(f"{path}: not a whole CSV file ({error}); save it as CSV again") from error
            file.seek(0)
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS[split] if name not in (reader.fieldnames or ())]:
                raise DataError(
                    f"{path}: the columns {missing} are missing, found {reader.fieldnames}; name them in line 1"
                )
            for row in reader:
                where, row = (
                    f"{path}, line {reader.line_num}",
                    {key: (row[key] or "").strip() for key in COLUMNS[split]},
                )
                name = Path(row["image"]).stem
                if not name:
                    raise DataError(f"{where}: the image cell is empty; name a file, or remove the line")
                if name in seen:
                    raise DataError(
                        f"{where}: a second image is called {name!r} (also {seen[name]}); remove or rename one"
                    )
                seen[name] = f"line {reader.line_num}"
                yield where, row


def write_manifest(
    folder: Path | str, classes: tuple[ClassInfo, ...], splits: dict[str, list[Sample]]
) -> Manifest:
    """Write the lists of `splits` (train's masks go to train_masks.csv) and read them back; older lists there are removed.

    DataError, and nothing is written, where that would change or remove a list that somebody else wrote or edited.
    """
    manifest = Manifest(Path(os.path.abspath(folder)), tuple(classes))

    def row(sample: Sample) -> tuple:
        tags = ";".join(
            name for name, present in zip(manifest.names[1:], sample.tags, strict=True) if present
        )
        return (
            _portable(sample.image, manifest.folder),
            tags,
            sample.mask and _portable(sample.mask, manifest.folder),
        )

    rows = {split: [*map(row, samples)] for split, samples in splits.items()}
    rows["train_masks"] = [whole for whole in rows.get("train", ()) if whole[2]]
    lists = {"classes.json": "[" + ",\n ".join(info.model_dump_json() for info in manifest.classes) + "]\n"}
    for name, columns in COLUMNS.items():
        if rows.get(name):
            cells = itemgetter(*map(MASKED.index, columns))
            csv.writer(text := io.StringIO(), lineterminator="\n").writerows(
                [columns, *map(cells, rows[name])]
            )
            lists[f"{name}.csv"] = text.getvalue()
    write_lists(manifest.folder, lists, FILES)
    return Manifest.load(folder)


def _portable(path: Path, folder: Path) -> str:
    """`path` relative to `folder`, so that both can move together; absolute if only one of them lies in the repository."""
    path = Path(os.path.abspath(path))
    together = path.is_relative_to(ROOT) == folder.is_relative_to(ROOT)
    return Path(os.path.relpath(path, folder)).as_posix() if together else path.as_posix()


RECORD = "prepared.json"  # list -> checksums of what the kit wrote


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those of the named files that are in the folder."""
    paths = [folder / name for name in names if (folder / name).is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def write_lists(folder: Path, lists: dict[str, str], names: Iterable[str]) -> None:
    """Write the text of each list, and remove those of `names` that are not among them.

    DataError, and nothing is changed, where that would change a list that is not as it was written here. A list of the user's
    that is equal to what would be written remains the user's.
    """
    record, there = folder / RECORD, checksums(folder, names)
    new = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in lists.items()}
    try:
        ours = dict(json.loads(record.read_text("utf-8"))) if record.is_file() else {}
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{record} is damaged ({error}); delete it: all lists beside it then count as yours"
        ) from error
    theirs = [name for name, checksum in there.items() if checksum not in ours.get(name, ())]
    for name in theirs:
        if there[name] != new.get(name):
            rule = "was written or changed by hand, or before records were kept, and is not replaced"
            raise DataError(f"{folder / name} {rule}: name another folder as `data`, or move this file away")
    # old and new: when the writing is interrupted half way, it can be begun again
    names = sorted({*there, *new}.difference(theirs))
    both = {name: sorted({part[name] for part in (there, new) if name in part}) for name in names}
    atomic_write(record, json.dumps(both, indent=1) + "\n")
    for name in there.keys() - lists:
        (folder / name).unlink()
    for name, text in lists.items():
        atomic_write(folder / name, text)
