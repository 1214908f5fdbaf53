"""A folder in the VOC layout: its lists, photographs, masks and boxes become samples with tags."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from wsfcn_lib.data.classes import IGNORE, VOC_CLASSES, is_background, voc_colour
from wsfcn_lib.data.files import DataError, plain, read_text
from wsfcn_lib.data.images import PICTURES, read_ids, read_mask
from wsfcn_lib.data.listing import DatasetListing
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample
from wsfcn_lib.data.mask_checks import remarks_on_masks
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.progress import progress

AUGMENTED = "SegmentationClassAug"
LABELMAP = "labelmap.txt"
FULL = {
    "train": 1464,
    "val": 1449,
    "trainaug": 10582,
    "test": 1456,
}  # images in VOC 2012's lists (method, section 6)


def voc_classes(names: Sequence[str] = VOC_CLASSES) -> tuple[ClassInfo, ...]:
    """Classes numbered as VOC does it: mask id = position in `names` + 1, colour from VOC's colour map."""
    names = map(plain, names)
    return tuple(ClassInfo(name=name, mask_id=i, colour=voc_colour(i)) for i, name in enumerate(names, 1))


def labelmap_classes(path: Path) -> tuple[ClassInfo, ...]:
    """The classes of a labelmap.txt, as CVAT writes it beside its VOC folders: name:r,g,b:parts:actions.

    Ids are the positions in the list, where background is 0. DataError for a line that says something else.
    """
    classes = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name, *rest = plain(line).split(":")
        if not name or name.startswith("#") or name == "ignored" or is_background(name):
            continue
        try:
            colour = [int(value) for value in rest[0].split(",")] if rest and rest[0] else None
            colour = colour or voc_colour(len(classes) + 1)
            classes.append(ClassInfo(name=name, mask_id=len(classes) + 1, colour=colour))
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: not name:red,green,blue: but {line!r} ({error})"
            ) from error
    return tuple(classes)


def voc_base(root: Path | str) -> Path:
    """The folder under `root` that holds JPEGImages: `root` itself, or VOC2012 or VOCdevkit/VOC2012 in it."""
    folders = [Path(root) / inner for inner in ("", "VOC2012", "VOCdevkit/VOC2012")]
    for folder in folders:
        if (folder / "JPEGImages").is_dir():
            return folder
    raise DataError(
        f"no JPEGImages in {', '.join(map(str, folders))}; "
        f"point to the folder that VOC's archive was unpacked to"
    )


def list_file(base: Path, split_list: str, augmented: Path | None = None) -> Path:
    """ImageSets/Segmentation/<split_list>.txt; the list trainaug may lie in the folder `augmented`."""
    own = base / "ImageSets" / "Segmentation" / f"{split_list}.txt"
    if augmented and split_list == "trainaug" and not own.is_file():
        return augmented / "trainaug.txt"
    return own


def voc_names(base: Path, split_list: str, augmented: Path | None = None) -> list[str]:
    """Image names in `list_file`; trainaug without it: (masks in SegmentationClassAug − val) ∪ train, sorted.

    Lines may be names, or paths of image and mask ("/JPEGImages/a.jpg /SegmentationClass/a.png").
    """
    path = list_file(base, split_list, augmented)
    if path.is_file():
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        return [Path(line.split()[0]).stem if "/" in line else line for line in lines]
    if split_list == "trainaug":
        masks = {mask.stem for mask in (base / AUGMENTED).glob("*.png")}
        if masks:
            return sorted(masks - set(voc_names(base, "val")) | set(voc_names(base, "train")))
    own = list_file(base, split_list)
    lists = sorted(other.stem for other in own.parent.glob("*.txt"))
    advice = "name one of them, or add the file"
    if split_list == "trainaug":
        advice += "; SBD's folder gives this one"
    raise DataError(f"{own} is missing; the lists there are {lists}: {advice}")


def find_voc(
    root: Path | str,
    classes: tuple[ClassInfo, ...] | None = None,
    lists: dict[str, str] | None = None,
    train_masks: str | None = None,
    tags: str = "masks",
    difficult: bool = False,
    augmented: Path | str | None = None,
    more_images: Path | str | None = None,
) -> DatasetListing:
    """What the VOC folder under `root` offers.

    Args:
        root: the folder, as `voc_base` takes it.
        classes: by default those of labelmap.txt, if the folder has one, else VOC's twenty.
        lists: split -> name of its list; by default train and val.
        train_masks: folder of the training masks, in the VOC folder or as `resolve_path` takes it; by default SegmentationClass, for the list trainaug after
            SegmentationClassAug.
        tags: "masks", the classes a mask shows (the published programs' way), or "boxes", the objects in
            Annotations/<name>.xml: training images then need no mask. Test images never need a mask or boxes.
        difficult: whether objects marked as difficult give a tag too; for "boxes".
        augmented: a folder with SegmentationClassAug and trainaug.txt, for what the VOC folder lacks of them.
        more_images: folder of photographs that JPEGImages may lack, such as SBD's img.

    Raises:
        DataError: a missing list, a list without usable images, or foreign classes.
    """
    if tags not in ("masks", "boxes"):
        raise DataError(
            f"tags={tags!r} must be 'masks' or 'boxes': say where the tags of VOC's images come from"
        )
    base = voc_base(root)
    augmented = Path(augmented) if augmented else None
    images = [base / "JPEGImages"]
    if more_images:
        images.append(Path(more_images))
    notes = []
    if classes is None and (base / LABELMAP).is_file():
        classes = labelmap_classes(base / LABELMAP)
        notes.append(f"the classes are those of {LABELMAP}: {', '.join(info.name for info in classes)}")
    listing = DatasetListing(tuple(classes or voc_classes()), {}, notes=notes)
    draft = Manifest(base, listing.classes)  # knows the classes; it is not written
    for split, split_list in (lists or {"train": "train", "val": "val"}).items():
        names = voc_names(base, split_list, augmented)
        if not list_file(base, split_list, augmented).is_file():
            listing.notes.append(
                f"no {split_list}.txt: its names are those of {AUGMENTED}, "
                f"without VOC's val, with VOC's train"
            )
        masks = [base / "SegmentationClass"]
        if split == "train" and train_masks:
            own = base / train_masks
            masks = [own if own.is_dir() else resolve_path(train_masks)]
        elif split_list == "trainaug":
            masks.insert(0, base / AUGMENTED)
            if augmented:
                masks.insert(1, augmented / AUGMENTED)
        boxes = base / "Annotations" if tags == "boxes" and split != "test" else None
        reader = _SplitReader(split, images, masks, boxes, difficult, draft)
        _read_list(listing, reader, split_list, names)
    samples = [sample for split in listing.splits.values() for sample in split]
    listing.notes.extend(remarks_on_masks(samples))
    return listing


def _read_list(listing: DatasetListing, reader: "_SplitReader", split_list: str, names: list[str]) -> None:
    """Read the samples of one list into `listing`."""
    split = reader.split
    samples, faults = [], []
    with ThreadPoolExecutor() as pool:
        results = progress(pool.map(reader.sample, names), f"list {split_list}", len(names), least=500)
        for sample, name in zip(results, names):
            if isinstance(sample, str):
                faults.append(f"{split}: {name}: {sample}")
            elif split == "train" and not any(sample.tags):
                listing.untagged.append(name)
            else:
                samples.append(sample)
    if not samples:
        reason = "they show no class; correct their tags"
        if faults:
            reason = f"first: {faults[0]}; complete the folder"
        raise DataError(
            f"{reader.draft.folder}: none of the {len(names)} images of list {split_list!r} can be used, "
            f"{reason} or name another list"
        )
    listing.splits[split] = samples
    listing.missing.extend(faults)
    if listing.classes == voc_classes() and len(names) != FULL.get(split_list, len(names)):
        listing.notes.append(f"list {split_list} holds {len(names)} of VOC 2012's {FULL[split_list]} images")


@dataclass(frozen=True)
class _SplitReader:
    """Where the files of a split lie, and how its tags are read."""

    split: str
    images: list[Path]  # folders, the first that has the file counts
    masks: list[Path]
    boxes: Path | None  # None: tags come from the masks
    difficult: bool
    draft: Manifest

    def sample(self, name: str) -> Sample | str:
        """One image with its tags; or its files that are missing, or the one that cannot be read."""
        image = _first(self.images, name, PICTURES)
        mask = _first(self.masks, name, (".png",))
        needed = [image]
        if self.split == "val" or (self.split == "train" and not self.boxes):
            needed.append(mask)
        if self.boxes:
            needed.append(self.boxes / f"{name}.xml")
        missing = [str(path) for path in needed if not path.is_file()]
        if missing:
            return ", ".join(missing)
        if not mask.is_file():
            mask = None
        try:
            if self.boxes:
                shown = self._shown_in_boxes(self.boxes / f"{name}.xml")
            elif mask:
                shown = self._shown_in_mask(mask)
            else:
                shown = set()
        except _Unreadable as error:
            return str(error)
        return Sample(name, image, tuple(info.name in shown for info in self.draft.classes), mask)

    def _shown_in_mask(self, path: Path) -> set[str]:
        try:
            ids = np.flatnonzero(np.bincount(read_ids(path, self.draft).ravel()))
        except DataError as error:
            raise _Unreadable(error) from error
        shown = {info.name for info in self.draft.classes if info.mask_id in ids}
        if len(shown) < len(set(ids.tolist()) - {0, IGNORE}):
            # raises: its ids are foreign, so the classes are wrong, not this file
            read_mask(path, self.draft)
        return shown

    def _shown_in_boxes(self, path: Path) -> set[str]:
        try:
            # the parser opens no other files, and expat refuses entities that blow up
            objects = ElementTree.parse(path).getroot().findall("object")
        except (ElementTree.ParseError, LookupError, ValueError) as error:
            raise _Unreadable(f"{path}: not readable XML ({error}); replace it") from error
        known = self.draft.names[1:]
        shown, unknown = set(), set()
        for entry in objects:
            name = plain(entry.findtext("name") or "")
            if name not in known:
                unknown.add(name)
            elif self.difficult or entry.findtext("difficult", "0").strip() != "1":
                shown.add(name)
        if unknown:
            raise DataError(
                f"{path}: the objects {sorted(unknown)} belong to no class, "
                f"known are {', '.join(known)}; correct it"
            )
        return shown


class _Unreadable(Exception):
    """One file of an image is damaged, which concerns this image alone."""


def _first(folders: list[Path], name: str, endings: Sequence[str]) -> Path:
    """The first file of this name in the folders with one of the endings, else where it should lie."""
    for ending in endings:
        for folder in folders:
            for path in (folder / f"{name}{ending}", folder / f"{name}{ending.upper()}"):
                if path.is_file():
                    return path
    return folders[0] / f"{name}{endings[0]}"
