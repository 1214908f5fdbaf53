"""The one door: a source of pictures (built-in scenes, VOC, COCO, a folder of your own) becomes a manifest."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from wsfcn_lib.data.coco import download_coco, find_coco
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.folder import find_folder
from wsfcn_lib.data.glyphs import GLYPH_CLASSES, GlyphSettings, make_glyphs
from wsfcn_lib.data.listing import DatasetListing
from wsfcn_lib.data.manifest import TWICE, Manifest, read_classes, write_manifest
from wsfcn_lib.data.sbd import (
    convert_sbd,
    download_sbd,
    download_voc,
    sbd_base,
    trainaug_names,
    trainaug_notes,
)
from wsfcn_lib.data.selection import copy_pictures, foreign_ids, select_classes, select_images
from wsfcn_lib.data.voc import AUGMENTED, find_voc, voc_base, voc_classes
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.settings import Settings
from wsfcn_lib.runs.storage import require_space

Split = Literal["train", "val", "test"]


class SourceSettings(Settings):
    """Which pictures a manifest is made of."""

    dataset: Literal["glyphs", "voc", "coco", "folder"] = "glyphs"
    raw: str = ""  # what is drawn, downloaded or converted goes here; empty: data/raw/<dataset>
    root: str = Field(
        "", exclude=True
    )  # the source's folder; it changes with the machine, so it is not recorded
    sbd_root: str = Field("", exclude=True)  # SBD's folder, for VOC
    download: bool = False
    lists: dict[Split, str] = {"train": "trainaug", "val": "val"}  # VOC: names in ImageSets/Segmentation
    masks: str = ""  # VOC: folder of the training masks, if not the list's own
    tags: Literal["masks", "boxes"] = "masks"  # VOC: where tags come from
    difficult: bool = False  # VOC: whether boxes marked as difficult give tags
    val_fraction: float = Field(0.1, ge=0, lt=1)  # a folder without splits: drawn by image name
    test_fraction: float = Field(0.0, ge=0, lt=1)
    classes: tuple[str, ...] = ()  # keep only these; empty: all
    ids: dict[Split, str] = {}  # keep only the images in these lists
    max_side: int = Field(
        0, ge=0, le=10000
    )  # pixels, copies are shrunk to it; 0: pictures stay where they are
    strict: bool = False  # missing files are an error
    processes: int = Field(2, ge=1, le=256, exclude=True)
    glyphs: GlyphSettings = GlyphSettings()


@dataclass(frozen=True)
class Report:
    """What `prepare` made and what it left out, a line for each."""

    manifest: Manifest
    missing: list[str]
    untagged: list[str]
    notes: list[str]


def prepare(settings: SourceSettings, folder: Path | str) -> Report:
    """Write the manifest of a source to `folder`, of a part of it as the settings say; see `find`.

    Raises DataError where nothing usable is left, where `folder` holds a data set of other classes, and, if `strict`, for
    a missing file.
    """
    found = find(settings)
    offered = found.classes
    found = select_images(found, {split: resolve_path(path) for split, path in settings.ids.items()})
    if settings.classes:
        found = select_classes(found, settings.classes)
    _check_place(Path(folder), settings, found)
    foreign = foreign_ids(offered, found.classes)
    renamed = any(sample.name != sample.image.stem for samples in found.splits.values() for sample in samples)
    if settings.max_side or foreign or renamed:
        found = copy_pictures(found, Path(folder), settings.max_side, foreign)
    if found.missing and settings.strict:
        first = f"{len(found.missing)} listed images lack a file or cannot be read, first {found.missing[:3]}"
        raise DataError(f"{first}; complete them, take them out of the lists, or set strict to False")
    for split in dict.fromkeys(("train", "val", *found.splits)):  # without the first two there is no training
        if not found.splits.get(split):
            why = [line for line in (*found.missing, *found.notes) if line.startswith(f"{split}: ")][:2]
            lists = f"the splits are {', '.join(found.splits)}; name a list for it, or raise val_fraction"
            text = f"{'; '.join(why)}): choose other classes or images" if why else f"{lists})"
            raise DataError(f"{settings.dataset}: no image of {split} is left ({text}")
    manifest = write_manifest(folder, found.classes, found.splits)
    return Report(manifest, found.missing, found.untagged, [*dict.fromkeys(found.notes)])


def find(settings: SourceSettings) -> DatasetListing:
    """What a source offers before anything is chosen; draws, downloads and converts what is not there yet.

    Folders are taken from ROOT. `root` wins; else WSFCN_VOC_ROOT for VOC; else `raw`, where downloads go.
    """
    raw = resolve_path(settings.raw or f"data/raw/{settings.dataset}")
    if settings.dataset == "glyphs":
        counts = {split: getattr(settings.glyphs, split) for split in ("train", "val", "test")}
        require_space(
            raw, 3 * settings.glyphs.size**2 * sum(counts.values())
        )  # about as much as without compression
        drawn = make_glyphs(raw, settings.glyphs)
        found = find_voc(
            raw, voc_classes(GLYPH_CLASSES), {split: split for split, count in counts.items() if count}
        )
        found.notes[:] = [
            f"{drawn} scenes drawn now, the others were there"
        ]  # VOC's counts mean nothing here
        return found
    if settings.dataset == "voc":
        return _voc(settings, raw)
    if settings.dataset == "coco":
        root = (
            download_coco(raw)
            if settings.download and not settings.root
            else resolve_path(settings.root)
            if settings.root
            else raw
        )
        return find_coco(root, raw / "masks")
    if not settings.root:
        raise DataError(
            "dataset='folder' needs `root`, the folder with your pictures: name it, such as ~/holiday"
        )
    return find_folder(
        resolve_path(settings.root), settings.glyphs.seed, settings.val_fraction, settings.test_fraction
    )


def _voc(settings: SourceSettings, raw: Path) -> DatasetListing:
    named = settings.root or os.environ.get("WSFCN_VOC_ROOT", "")
    root = resolve_path(named) if named else download_voc(raw) if settings.download else raw
    base, augmented, photographs, notes = voc_base(root), None, None, []
    own = any((base / AUGMENTED).glob("*.png"))
    if "trainaug" in settings.lists.values():
        sbd = _sbd(settings, [root, base, raw], settings.download and not own)
        if sbd and not own:
            made = convert_sbd(sbd, base, raw / "augmented", settings.processes)
            augmented, photographs, notes = made.folder, sbd / "img", [*made.notes, *made.faults]
        elif sbd:
            notes = trainaug_notes(base, trainaug_names(base, sbd))
    found = find_voc(
        base,
        None,
        settings.lists,
        settings.masks or None,
        settings.tags,
        settings.difficult,
        augmented,
        photographs,
    )
    found.notes[:0] = notes
    return found


def _sbd(settings: SourceSettings, places: list[Path], download: bool) -> Path | None:
    """SBD's folder: the one that is named, one beside VOC's, or a download; None where there is none."""
    if settings.sbd_root:
        return sbd_base(resolve_path(settings.sbd_root))
    for there in (inner for folder in places for inner in (folder, *folder.parents[:2])):
        with suppress(DataError):
            return sbd_base(there)
    return download_sbd(places[-1]) if download else None


def _check_place(folder: Path, settings: SourceSettings, found: DatasetListing) -> None:
    """DataError where the manifest would lie among the user's own pictures, or replace that of another data set."""
    root, inside = (
        resolve_path(settings.root).resolve(),
        settings.dataset == "folder",
    )  # where copies would pass for pictures next time
    if settings.root and (folder.resolve() == root or inside and folder.resolve().is_relative_to(root)):
        raise DataError(
            f"{folder} lies among the pictures of {root}, where nothing is written: name another folder as `data`"
        )
    path = folder / "classes.json"
    if (there := read_classes(path) if path.is_file() else found.classes) != found.classes:
        listed = ", ".join(info.name for info in there)
        raise DataError(f"{folder} holds another data set ({listed}): name another folder, or delete it")


def leave_out(manifest: Manifest, faults: list[str], settings: SourceSettings) -> Manifest:
    """Write the manifest again without the images that lines of `validate` begin with; DataError where other lines remain.

    A training image whose mask alone is bad stays, without it, as masks only measure; unless its tags were read from it.
    """
    needed = settings.dataset in ("glyphs", "voc") and settings.tags == "masks"
    masks, splits, explained = manifest.train_masks(), {}, set()
    for split in manifest.splits:
        splits[split] = []
        for sample in manifest.samples(split):
            mask = masks.get(sample.name) if split == "train" else sample.mask
            own = [
                line
                for line in faults
                if line.startswith((f"{sample.image}: ", f"{mask}: ")) and TWICE not in line
            ]
            explained.update(own)
            stays = split == "train" and not needed and all(line.startswith(f"{mask}: ") for line in own)
            splits[split] += [replace(sample, mask=None if own else mask)] if stays or not own else []
    if rest := [line for line in faults if line not in explained]:
        raise DataError(f"{manifest.folder}: {len(rest)} faults are for you to mend, the first: {rest[0]}")
    if empty := [split for split, samples in splits.items() if not samples]:
        raise DataError(f"{manifest.folder}: no image of {empty} is readable; first: {faults[0]}")
    return write_manifest(manifest.folder, manifest.classes, splits)
