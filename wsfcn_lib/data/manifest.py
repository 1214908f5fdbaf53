"""The manifest, the door between data and all else: `classes.json` and one CSV per split in one folder.

Class indices everywhere: 0 = background, c = classes[c - 1], 255 = ignored. Tags are foreground only:
tags[c - 1] is class c.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from wsfcn_lib.data.classes import BORDER_COLOUR, IGNORE, is_background, shown_colours, voc_colour
from wsfcn_lib.data.files import DataError, plain, read_table, read_text, table_text
from wsfcn_lib.data.images import TURN_CODE, TURNS, orientation, read_image, read_mask
from wsfcn_lib.runs.paths import ROOT, expanded, resolve_path
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.settings import Settings
from wsfcn_lib.runs.storage import atomic_write, checksum

SPLITS = ("train", "val", "test")
MASKED = ("image", "tags", "mask")
COLUMNS = {"train": ("image", "tags"), "val": MASKED, "test": MASKED, "train_masks": ("image", "mask")}
CLASSES_FILE = "classes.json"
FILES = (CLASSES_FILE, *(f"{name}.csv" for name in COLUMNS))
Channel = Annotated[int, Field(ge=0, le=255)]


class ClassInfo(Settings):
    """A foreground class: its name, its id in the mask files, its colour in pictures."""

    name: str = Field(min_length=1)
    mask_id: int = Field(ge=1, le=254)
    colour: tuple[Channel, Channel, Channel]

    @field_validator("name")
    @classmethod
    def _usable(cls, name: str) -> str:
        if ";" in name or name != name.strip() or is_background(name):
            raise ValueError(
                f"{name!r} cannot name a class: no ';', no outer blanks, and 'background' is taken, "
                "it is id 0 in masks"
            )
        return name


def read_classes(path: Path) -> tuple[ClassInfo, ...]:
    """The classes of a file classes.json, by default in VOC's colours; DataError where it is damaged."""
    wanted = f"{path} must be a list of {{name, mask_id, colour}}; correct this"
    try:
        entries = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{wanted}: {error}") from error
    if not isinstance(entries, list):
        raise DataError(f'{wanted}: it is no list, such as [{{"name": "dog", "mask_id": 1}}]')
    classes = []
    for entry in entries:
        try:
            name, number = plain(entry["name"]), int(entry["mask_id"])
            if not (number == 0 and is_background(name)):
                classes.append(ClassInfo(**{"colour": voc_colour(number)} | entry | {"name": name}))
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(
                f"{wanted}: {json.dumps(entry)}. A class has a name (no ';', and background is taken), a mask_id "
                "from 1 to 254 and perhaps a colour, its red, green and blue from 0 to 255, and nothing else"
            ) from error
    return tuple(classes)


@dataclass(frozen=True)
class Sample:
    """One image of a split: name (file stem), path, tags (K-1,), and mask if it has one (never in train)."""

    name: str
    image: Path
    tags: tuple[bool, ...]
    mask: Path | None = None


@dataclass(frozen=True)
class Manifest:
    """A data set ready for use: `folder` holds the lists, `classes` are the foreground, in index order."""

    folder: Path
    classes: tuple[ClassInfo, ...]

    def __post_init__(self):
        for field in ("name", "mask_id"):
            values = [getattr(info, field) for info in self.classes]
            if not values or len(set(values)) < len(values):
                raise DataError(
                    f"{self.folder / CLASSES_FILE}: each {field} must occur once, found {values}; "
                    "correct the list"
                )

    @classmethod
    def load(cls, folder: Path | str) -> "Manifest":
        """Read a manifest and check its lists (columns, tags, duplicates); no picture is opened.

        DataError where a list is broken or missing.
        """
        folder = resolve_path(folder)
        path = folder / CLASSES_FILE
        if not path.is_file():
            raise DataError(
                f"{path} is missing: no data set was prepared here; run notebooks/01_prepare_data"
            )
        manifest = cls(folder, read_classes(path))
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
    def mask_ids(self) -> tuple[int, ...]:
        """Ids in the mask files by class index."""
        return (0, *(info.mask_id for info in self.classes))

    @property
    def palette(self) -> np.ndarray:
        """(256, 3) uint8 colours by class index, of mask files; 255 (ignored) is VOC's cream."""
        return self._by_index([info.colour for info in self.classes])

    @property
    def shades(self) -> np.ndarray:
        """(256, 3) uint8 colours by class index, of pictures on a screen; see `shown_colours`."""
        return self._by_index(shown_colours([info.colour for info in self.classes]))

    @staticmethod
    def _by_index(colours: Sequence[tuple[int, int, int]]) -> np.ndarray:
        table = np.zeros((256, 3), np.uint8)
        table[1 : 1 + len(colours)] = colours
        table[IGNORE] = BORDER_COLOUR
        return table

    def samples(self, split: str) -> list[Sample]:
        """The images of "train", "val" or "test" in the list's order; those of train come without masks."""
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
        samples = []
        for where, row in self._rows(split):
            tags = {plain(tag) for tag in row["tags"].split(";")} - {""}
            if unknown := sorted(tags - set(self.names[1:])):
                known = ", ".join(self.names[1:])
                raise DataError(
                    f"{where}: no class is called {unknown}; correct it, or add it to classes.json ({known})"
                )
            if split == "train" and not tags:
                raise DataError(
                    f"{where}: {row['image']} has no tag, so it can teach nothing; tag it or remove the line"
                )
            image = self.folder / row["image"]
            mask = self.folder / row["mask"] if split != "train" and row["mask"] else None
            samples.append(Sample(image.stem, image, tuple(name in tags for name in self.names[1:]), mask))
        return samples

    def train_masks(self) -> dict[str, Path]:
        """Masks of training images by image name, for evaluation only; empty where there are none."""
        if not (self.folder / "train_masks.csv").is_file():
            return {}
        rows = [row for _, row in self._rows("train_masks") if row["mask"]]
        return {Path(row["image"]).stem: self.folder / row["mask"] for row in rows}

    def masked_samples(self, split: str) -> list[Sample]:
        """The images of a split, those of train with masks too; for evaluation and checks, never training."""
        samples = self.samples(split)
        if split == "train":
            masks = self.train_masks()
            samples = [replace(sample, mask=masks.get(sample.name)) for sample in samples]
        return samples

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file of the manifest, by file name."""
        return {name: checksum(self.folder / name) for name in FILES if (self.folder / name).is_file()}

    def _rows(self, name: str) -> Iterator[tuple[str, dict[str, str]]]:
        """("file, line n", row) of one list, after the checks that need nothing but the row."""
        path = self.folder / f"{name}.csv"
        if not path.is_file():
            raise DataError(
                f"{path} is missing: there is no list of {name!r}; run notebooks/01_prepare_data, or write it"
            )
        first = {}
        for where, row in read_table(path, COLUMNS[name])[1]:
            stem = Path(row["image"]).stem
            if not stem:
                raise DataError(f"{where}: the image cell is empty; name a file, or remove the line")
            if stem in first:
                raise DataError(
                    f"{where}: a second image is called {stem!r} (also {first[stem]}); remove or rename one"
                )
            first[stem] = where
            yield where, row


def validate(manifest: Manifest) -> list[str]:
    """Open every picture and mask of the manifest; an empty list where all is good.

    A line "<path>: <reason>" for each file that is bad, and one for each image that stands in two lists.
    """
    faults, samples, split_of = [], [], {}
    for split in manifest.splits:
        for sample in manifest.masked_samples(split):
            samples.append(sample)
            image = sample.image.resolve()
            other = split_of.setdefault(image, split)
            if other != split:
                faults.append(f"listed in both {other}.csv and {split}.csv: {image}; take it out of one")
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
        faults_of_each = pool.map(lambda sample: _faults(sample, manifest), samples)
        # 2,000 pictures take about two seconds
        for more in progress(faults_of_each, "open", len(samples), least=2000):
            faults += more
    return faults


def _faults(sample: Sample, manifest: Manifest) -> list[str]:
    """What is wrong with the files of one image."""
    faults, size = [], None
    try:
        size = read_image(sample.image).shape[:2]
    except DataError as error:
        faults.append(str(error))
    try:
        if sample.mask:
            read_mask(sample.mask, manifest, size=size)
    except DataError as error:
        faults.append(turned(sample) or str(error))
    return faults


def turned(sample: Sample) -> str:
    """What is wrong where a mask fits the stored pixels of a picture that EXIF turns by a quarter; else ''."""
    direction, stored = orientation(sample.image)
    if direction < 5 or stored[0] == stored[1] or not sample.mask or orientation(sample.mask)[1] != stored:
        return ""
    return (
        f"{sample.mask}: the mask is {stored}, its image {stored[::-1]} (width, height): EXIF turns the picture "
        f"(orientation {direction}), and the mask was drawn on its stored pixels; "
        f"make them equal: turn the mask alike, as {TURN_CODE.format(TURNS[direction])} does, "
        "or draw it on the picture as it is shown"
    )


def write_manifest(
    folder: Path | str, classes: tuple[ClassInfo, ...], splits: dict[str, list[Sample]]
) -> Manifest:
    """Write the lists of `splits` as `write_lists` does, and read them back."""
    folder = resolve_path(folder)
    write_lists(Manifest(folder, tuple(classes)), splits)
    return Manifest.load(folder)


def write_lists(manifest: Manifest, splits: dict[str, list[Sample]]) -> list[str]:
    """Write classes.json and the lists of `splits` to the manifest's folder; train's masks have their own.

    A list there that differs, or is not among the new ones, may be somebody's work: it is kept beside them
    under another name, which ends with a part of its checksum, and a line is returned for it.
    """
    new = {name: text.encode() for name, text in _texts(manifest, splits).items()}
    old = {name: (manifest.folder / name).read_bytes() for name in manifest.checksums()}
    notes = []
    for name, content in old.items():
        if content != new.get(name):
            kept = f"{name}.before-{hashlib.sha256(content).hexdigest()[:8]}"
            atomic_write(manifest.folder / kept, content)
            notes.append(f"{name} was another list before, which is kept beside it as {kept}")
    if new != old:
        # classes.json goes first and comes last: where the writing is interrupted, some lists are old and
        # some new, and a folder without classes.json is refused by `load` until all are written again
        (manifest.folder / CLASSES_FILE).unlink(missing_ok=True)
        for name in reversed(FILES):
            if name in new:
                atomic_write(manifest.folder / name, new[name])
            else:
                (manifest.folder / name).unlink(missing_ok=True)
    return notes


def _texts(manifest: Manifest, splits: dict[str, list[Sample]]) -> dict[str, str]:
    """The text of each file of a manifest, by file name."""
    rows = {name: [] for name in COLUMNS}
    for split, samples in splits.items():
        for sample in samples:
            tags = [name for name, shown in zip(manifest.names[1:], sample.tags, strict=True) if shown]
            row = {
                "image": _portable(sample.image, manifest.folder),
                "tags": ";".join(tags),
                "mask": _portable(sample.mask, manifest.folder) if sample.mask else "",
            }
            rows[split].append(row)
            if split == "train" and sample.mask:
                rows["train_masks"].append(row)
    classes = ",\n ".join(info.model_dump_json() for info in manifest.classes)
    texts = {CLASSES_FILE: f"[{classes}]\n"}
    for name, columns in COLUMNS.items():
        if rows[name]:
            texts[f"{name}.csv"] = table_text(columns, rows[name])
    return texts


def _portable(path: Path, folder: Path) -> str:
    """`path` relative to `folder`, so that both can move; absolute if only one is in the repository."""
    path, folder = os.path.abspath(expanded(path)), os.path.abspath(folder)
    together = Path(path).is_relative_to(ROOT) == Path(folder).is_relative_to(ROOT)
    return Path(os.path.relpath(path, folder) if together else path).as_posix()
