"""A folder in the VOC layout becomes a manifest. Tags are the classes found in the masks, as in the published programs."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..classes import VOC_CLASSES, voc_colour
from .files import DataError, read_mask
from .manifest import ClassInfo, Manifest, Sample, write_manifest


@dataclass(frozen=True)
class VocReport:
    """What `prepare_voc` made and what it left out: one line per listed image that is not in the manifest."""

    manifest: Manifest
    missing: list[str]  # a file the list promises is not there
    untagged: list[str]  # training images whose mask shows no class


def voc_classes(names: Sequence[str] = VOC_CLASSES) -> tuple[ClassInfo, ...]:
    """Classes numbered as VOC does it: mask id = position in `names` + 1, colour from VOC's colour map."""
    return tuple(ClassInfo(name=name, mask_id=i, colour=voc_colour(i)) for i, name in enumerate(names, 1))


def voc_base(root: Path | str) -> Path:
    """The folder under `root` that holds JPEGImages: `root` itself, or VOC2012 or VOCdevkit/VOC2012 in it."""
    places = [Path(root) / inner for inner in ("", "VOC2012", "VOCdevkit/VOC2012")]
    for place in places:
        if (place / "JPEGImages").is_dir():
            return place
    raise DataError(f"no JPEGImages in {', '.join(map(str, places))}; point to the folder that VOC's archive was unpacked to")


def voc_names(base: Path, split_list: str) -> list[str]:
    """Image names in ImageSets/Segmentation/<split_list>.txt."""
    path = base / "ImageSets" / "Segmentation" / f"{split_list}.txt"
    if not path.is_file():
        there = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise DataError(f"{path} is missing; the lists there are {there}: name one of them, or add the file")
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def prepare_voc(
    root: Path | str,
    folder: Path | str,
    classes: tuple[ClassInfo, ...] | None = None,
    lists: dict[str, str] | None = None,
    train_masks: str | None = None,
    strict: bool = False,
) -> VocReport:
    """Write the manifest of the VOC folder under `root` to `folder`.

    `classes` default to VOC's twenty, `lists` (split -> name of its list) to train and val. Training masks lie in
    `train_masks`, by default SegmentationClassAug for the list trainaug and SegmentationClass for others; they give
    the tags and are listed for evaluation only. Images whose files are missing, and training images without any class,
    are left out and reported; `strict` makes missing files a DataError. A test image needs no mask.
    """
    base, missing, untagged, splits = voc_base(root), [], [], {}
    lists = lists or {"train": "train", "val": "val"}
    draft = Manifest(Path(folder), classes or voc_classes())  # knows the classes; its lists come below
    train_masks = train_masks or ("SegmentationClassAug" if lists.get("train") == "trainaug" else "SegmentationClass")

    for split, split_list in lists.items():
        with ThreadPoolExecutor() as pool:
            masks = base / (train_masks if split == "train" else "SegmentationClass")
            entries = [(base / "JPEGImages" / f"{n}.jpg", masks / f"{n}.png") for n in voc_names(base, split_list)]
            found = list(pool.map(lambda files, split=split: _sample(*files, split, draft), entries))
        missing += [entry for entry in found if isinstance(entry, str)]
        splits[split] = [entry for entry in found if isinstance(entry, Sample) and (split != "train" or any(entry.tags))]
        if split == "train":
            untagged = [entry.name for entry in found if isinstance(entry, Sample) and not any(entry.tags)]
        if not splits[split]:
            raise DataError(f"{base}: none of the {len(found)} images of list {split_list!r} can be used; first: {found[:1]}")
    if missing and strict:
        raise DataError(f"{base}: {len(missing)} listed images lack files, first {missing[:3]}; complete the folder or the lists")
    return VocReport(write_manifest(folder, draft.classes, splits), missing, untagged)


def _sample(image: Path, mask: Path, split: str, draft: Manifest) -> Sample | str:
    """One image with the tags its mask shows, or a line that says which of its files are missing."""
    name = image.stem
    if absent := [path for path in (image, mask) if not path.is_file() and (split != "test" or path == image)]:
        return f"{split}: {name}: {', '.join(map(str, absent))}"
    if not mask.is_file():
        return Sample(name, image, (False,) * len(draft.classes))
    present = np.bincount(read_mask(mask, draft).ravel(), minlength=256)[1 : draft.num_classes] > 0
    return Sample(name, image, tuple(present.tolist()), mask)
