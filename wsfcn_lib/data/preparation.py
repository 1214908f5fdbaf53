"""The one door: a source of pictures (built-in scenes, VOC, COCO, your own folder) becomes a manifest."""

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
from wsfcn_lib.data.images import NOT_NOW
from wsfcn_lib.data.listing import DatasetListing
from wsfcn_lib.data.manifest import (
    CLASSES_FILE,
    SPLITS,
    Manifest,
    read_classes,
    write_lists,
    write_manifest,
)
from wsfcn_lib.data.mask_checks import check_masks
from wsfcn_lib.data.sbd import (
    convert_sbd,
    download_sbd,
    download_voc,
    sbd_base,
    trainaug_names,
    trainaug_notes,
)
from wsfcn_lib.data.selection import copy_pictures, select_classes, select_images
from wsfcn_lib.data.voc import AUGMENTED, find_voc, in_words_of_voc, voc_base, voc_classes
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.settings import Settings
from wsfcn_lib.runs.storage import require_space

Split = Literal[SPLITS]


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
    val_fraction: float = Field(0.1, ge=0, lt=1)  # a folder or COCO file without splits: drawn by image name
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
    """Write the manifest of a source, or of the part of it that the settings choose, to `folder`; see `find`.

    Raises DataError where nothing usable is left, where `folder` holds a data set of other classes, and, if
    `strict`, for a missing file. A list in `folder` that differs from the new one is kept beside it, and a
    note says so.
    """
    folder = resolve_path(folder)
    listing = find(settings)
    offered = listing.classes
    listing = select_images(listing, {split: resolve_path(path) for split, path in settings.ids.items()})
    if settings.classes:
        listing = select_classes(listing, settings.classes)
    _check_target(folder, settings, listing)
    samples = [sample for split in listing.splits.values() for sample in split]
    renamed = any(sample.name != sample.image.stem for sample in samples)
    if settings.max_side or len(listing.classes) < len(offered) or renamed:
        listing = copy_pictures(listing, folder, settings.max_side, offered)
    if listing.missing and settings.strict:
        raise DataError(
            f"{len(listing.missing)} listed images lack a file or cannot be read, "
            f"first {listing.missing[:3]}; complete them, take them out of the lists, or set strict to False"
        )
    _check_splits(settings.dataset, listing)
    kept = write_lists(Manifest(folder, listing.classes), listing.splits)
    notes = list(dict.fromkeys(listing.notes + kept))
    return Report(Manifest.load(folder), listing.missing, listing.untagged, notes)


def find(settings: SourceSettings) -> DatasetListing:
    """What a source offers before anything is chosen; draws, downloads and converts what is not there yet.

    The source lies in `root` where one is given; VOC's else in the folder that WSFCN_VOC_ROOT names; else in
    `raw`, where downloads go. Relative folders are found as `resolve_path` finds them.
    """
    raw = resolve_path(settings.raw or f"data/raw/{settings.dataset}")
    if settings.dataset == "glyphs":
        return _find_glyphs(settings.glyphs, raw)
    if settings.dataset == "voc":
        return _find_voc(settings, raw)
    if settings.dataset == "coco":
        if settings.root:
            root = resolve_path(settings.root)
        elif settings.download:
            root = download_coco(raw)
        else:
            root = raw
        return find_coco(root, raw / "masks", val_fraction=settings.val_fraction)
    if not settings.root:
        raise DataError(
            "dataset='folder' needs `root`, the folder with your pictures: name it, such as ~/holiday"
        )
    return find_folder(settings.root, settings.glyphs.seed, settings.val_fraction, settings.test_fraction)


def _find_glyphs(glyphs: GlyphSettings, raw: Path) -> DatasetListing:
    counts = {split: getattr(glyphs, split) for split in SPLITS}
    require_space(raw, 3 * glyphs.size**2 * sum(counts.values()))  # about as much as without compression
    drawn = make_glyphs(raw, glyphs)
    lists = {split: split for split, count in counts.items() if count}
    listing = find_voc(raw, voc_classes(GLYPH_CLASSES), lists)
    # VOC's counts mean nothing here
    return replace(listing, notes=[f"{drawn} scenes drawn now, the others were there"])


def _find_voc(settings: SourceSettings, raw: Path) -> DatasetListing:
    named = settings.root or os.environ.get("WSFCN_VOC_ROOT", "")
    if named:
        root = resolve_path(named)
    elif settings.download:
        root = download_voc(raw)
    else:
        root = raw
    base = voc_base(root)
    augmented, photographs, notes = None, None, []
    if "trainaug" in settings.lists.values():
        has_masks = any((base / AUGMENTED).glob("*.png"))
        sbd = _find_sbd(settings, [root, base, raw], settings.download and not has_masks)
        if sbd and has_masks:
            notes = trainaug_notes(base, trainaug_names(base, sbd))
        elif sbd:
            converted = convert_sbd(sbd, base, raw / "augmented", settings.processes)
            augmented, photographs = converted.folder, sbd / "img"
            notes = converted.notes + converted.faults
    listing = find_voc(
        base,
        None,
        settings.lists,
        settings.masks or None,
        settings.tags,
        settings.difficult,
        augmented,
        photographs,
    )
    notes = notes + listing.notes
    if settings.tags == "boxes":  # else the masks are where the tags come from
        samples = [sample for split in listing.splits.values() for sample in split]
        try:
            notes += check_masks(samples, Manifest(base, listing.classes))
        except DataError as error:
            raise in_words_of_voc(error) from error
    return replace(listing, notes=notes)


def _find_sbd(settings: SourceSettings, near: list[Path], download: bool) -> Path | None:
    """SBD's folder: the one that is named, one beside VOC's, or a download; None where there is none."""
    if settings.sbd_root:
        return sbd_base(resolve_path(settings.sbd_root))
    for folder in near:
        for candidate in (folder, *folder.parents[:2]):
            with suppress(DataError):
                return sbd_base(candidate)
    return download_sbd(near[-1]) if download else None


def _check_target(folder: Path, settings: SourceSettings, listing: DatasetListing) -> None:
    """DataError where the manifest would lie among the user's pictures, or replace another data set's."""
    if settings.root:
        root, target = resolve_path(settings.root).resolve(), folder.resolve()
        # below the pictures of a folder, copies would pass for pictures next time
        if target == root or (settings.dataset == "folder" and target.is_relative_to(root)):
            raise DataError(
                f"{folder} lies among the pictures of {root}, where nothing is written: "
                "name another folder as `data`"
            )
    path = folder / CLASSES_FILE
    if path.is_file():
        there = read_classes(path)
        if there != listing.classes:
            names = ", ".join(info.name for info in there)
            raise DataError(
                f"{folder} holds another data set ({names}): "
                "name another folder as `data`, or move this one away"
            )


def _check_splits(dataset: str, listing: DatasetListing) -> None:
    """DataError where a split is empty, or there is none for training or validation."""
    for split in ("train", "val", *listing.splits):
        if not listing.splits.get(split):
            reasons = [line for line in listing.missing + listing.notes if line.startswith(f"{split}: ")]
            reason = "; ".join(reasons[:2]) or "the source has none"
            advice = (
                "name a list for it, or raise val_fraction; "
                f"where tags.csv has a column split, write {split} at some pictures"
            )
            if dataset == "coco":
                advice = "or correct the annotations"
            raise DataError(
                f"{dataset}: no image of {split} is left ({reason}): choose other classes or images, {advice}"
            )


def leave_out(manifest: Manifest, faults: list[str], settings: SourceSettings) -> Manifest:
    """Write the manifest again without the images whose files the lines of `validate` begin with.

    A training image whose mask alone is bad stays, without it, as masks only measure; unless its tags were
    read from it. DataError where other lines remain.
    """
    tags_from_masks = settings.dataset in ("glyphs", "voc") and settings.tags == "masks"
    splits, explained = {}, set()
    bad = [line for line in faults if NOT_NOW not in line]  # what may be sound is not given up
    for split in manifest.splits:
        splits[split] = []
        for sample in manifest.masked_samples(split):
            of_image = [line for line in bad if line.startswith(f"{sample.image}: ")]
            of_mask = [line for line in bad if line.startswith(f"{sample.mask}: ")]
            explained.update(of_image, of_mask)
            if of_mask and split == "train" and not tags_from_masks:
                sample = replace(sample, mask=None)
                of_mask = []
            if not of_image and not of_mask:
                splits[split].append(sample)
    unexplained = [line for line in faults if line not in explained]
    if unexplained:
        raise DataError(
            f"{manifest.folder}: {len(unexplained)} faults are for you to mend, the first: {unexplained[0]}"
        )
    empty = [split for split, samples in splits.items() if not samples]
    if empty:
        raise DataError(f"{manifest.folder}: no image of {empty} is readable; first: {faults[0]}")
    return write_manifest(manifest.folder, manifest.classes, splits)
