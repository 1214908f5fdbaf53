"""A folder in the VOC layout: its lists, photographs, masks and boxes become samples with tags, whole or in part."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from wsfcn_lib.data.classes import VOC_CLASSES, voc_colour
from wsfcn_lib.data.files import DataError, read_text
from wsfcn_lib.data.images import open_mask, read_mask
from wsfcn_lib.data.listing import DatasetListing
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample
from wsfcn_lib.runs.progress import progress

AUGMENTED = "SegmentationClassAug"
FULL = {
    "train": 1464,
    "val": 1449,
    "trainaug": 10582,
    "test": 1456,
}  # images in VOC 2012's lists (method, section 6)
MANY = 500  # masks take over two seconds from about here


def voc_classes(names: Sequence[str] = VOC_CLASSES) -> tuple[ClassInfo, ...]:
    """Classes numbered as VOC does it: mask id = position in `names` + 1, colour from VOC's colour map."""
    return tuple(ClassInfo(name=name, mask_id=i, colour=voc_colour(i)) for i, name in enumerate(names, 1))


def voc_base(root: Path | str) -> Path:
    """The folder under `root` that holds JPEGImages: `root` itself, or VOC2012 or VOCdevkit/VOC2012 in it."""
    places = [Path(root) / inner for inner in ("", "VOC2012", "VOCdevkit/VOC2012")]
    for place in places:
        if (place / "JPEGImages").is_dir():
            return place
    raise DataError(
        f"no JPEGImages in {', '.join(map(str, places))}; point to the folder that VOC's archive was unpacked to"
    )


def list_file(base: Path, split_list: str, augmented: Path | None = None) -> Path:
    """ImageSets/Segmentation/<split_list>.txt; the list trainaug may lie in the folder `augmented` instead."""
    own = base / "ImageSets" / "Segmentation" / f"{split_list}.txt"
    return augmented / "trainaug.txt" if augmented and split_list == "trainaug" and not own.is_file() else own


def voc_names(base: Path, split_list: str, augmented: Path | None = None) -> list[str]:
    """Image names in `list_file`. Of trainaug without a list: (masks in SegmentationClassAug − VOC val) ∪ VOC train, sorted.

    Lines may be names, or paths of image and mask as some programs write them ("/JPEGImages/a.jpg /SegmentationClass/a.png").
    """
    path = list_file(base, split_list, augmented)
    if not path.is_file():
        masks = {p.stem for p in (base / AUGMENTED).glob("*.png")} if split_list == "trainaug" else ()
        if masks:
            return sorted(masks - {*voc_names(base, "val")} | {*voc_names(base, "train")})
        own = list_file(base, split_list)
        there = sorted(other.stem for other in own.parent.glob("*.txt"))
        sbd = "; SBD's folder gives this one" if split_list == "trainaug" else ""
        raise DataError(
            f"{own} is missing; the lists there are {there}: name one of them, or add the file{sbd}"
        )
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return [Path(line.split()[0]).stem if "/" in line else line for line in lines]


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
    """What the VOC folder under `root` offers; DataError for a missing list or one without usable images, and foreign classes.

    Args:
        root: the folder, as `voc_base` takes it.
        classes: by default VOC's twenty.
        lists: split -> name of its list; by default train and val.
        train_masks: folder of the training masks; by default SegmentationClassAug for trainaug, else SegmentationClass.
        tags: "masks", the classes a mask shows (the published programs' way), or "boxes", the objects in
            Annotations/<name>.xml: training images then need no mask. Test images need neither, and have no boxes.
        difficult: whether objects marked as difficult give a tag too; for "boxes".
        augmented: holds SegmentationClassAug, and perhaps trainaug.txt, where the VOC folder does not.
        more_images: folder of photographs that JPEGImages may lack, such as SBD's img.
    """
    if tags not in ("masks", "boxes"):
        raise DataError(
            f"tags={tags!r} must be 'masks' or 'boxes': say where the tags of VOC's images come from"
        )
    base, augmented = voc_base(root), Path(augmented) if augmented else None
    if augmented and augmented.name == AUGMENTED:
        augmented = augmented.parent
    images = [base / "JPEGImages", *([Path(more_images)] if more_images else [])]
    found = DatasetListing(tuple(classes or voc_classes()), {})
    draft = Manifest(base, found.classes)  # knows the classes; it is not written
    for split, split_list in (lists or {"train": "train", "val": "val"}).items():
        names = voc_names(base, split_list, augmented)
        boxes = base / "Annotations" if tags == "boxes" and split != "test" else None
        masks = [_mask_folder(base, split_list, augmented, train_masks if split == "train" else None)]
        if not list_file(base, split_list, augmented).is_file():
            masks.append(base / "SegmentationClass")  # of VOC train, if not among the others
            found.notes.append(
                f"no {split_list}.txt: its names are those of {AUGMENTED}, without VOC's val, with VOC's train"
            )
        _add(found, split, split_list, names, _Reader(split, images, masks, boxes, difficult, draft))
    return found


def _mask_folder(base: Path, split_list: str, augmented: Path | None, chosen: str | None) -> Path:
    name = chosen or (AUGMENTED if split_list == "trainaug" else "SegmentationClass")
    elsewhere = augmented and name == AUGMENTED and not (base / name).is_dir()
    return (augmented if elsewhere else base) / name


def _add(found: DatasetListing, split: str, split_list: str, names: list[str], reader: "_Reader") -> None:
    """Read one list into `found`."""
    with ThreadPoolExecutor() as pool:
        read = list(progress(pool.map(reader.sample, names), f"list {split_list}", len(names), MANY))
    samples, faults = ([entry for entry in read if isinstance(entry, kind)] for kind in (Sample, str))
    found.splits[split] = [sample for sample in samples if split != "train" or any(sample.tags)]
    if not found.splits[split]:
        why = (
            f"first: {faults[0]}; complete the folder" if faults else "they show no class; correct their tags"
        )
        place = f"{reader.draft.folder}: none of the {len(names)} images of list {split_list!r} can be used"
        raise DataError(f"{place}, {why} or name another list")
    found.missing.extend(faults)
    found.untagged.extend(sample.name for sample in samples if split == "train" and not any(sample.tags))
    full = FULL.get(split_list) if found.classes == voc_classes() else None
    if full not in (None, len(names)):
        found.notes.append(f"list {split_list} holds {len(names)} of VOC 2012's {full} images")


@dataclass(frozen=True)
class _Reader:
    """Where the files of a split lie, and how its tags are found."""

    split: str
    images: Iterable[Path]
    masks: Iterable[Path]
    boxes: Path | None  # None: tags come from the masks
    difficult: bool
    draft: Manifest

    def sample(self, name: str) -> Sample | str:
        """One image with its tags, or a line that says which of its files are missing or cannot be read."""
        places = [f / f"{name}.jpg" for f in self.images], [f / f"{name}.png" for f in self.masks]
        image, mask = (next((path for path in paths if path.is_file()), paths[0]) for paths in places)
        box = self.boxes and self.boxes / f"{name}.xml"
        unmasked = self.split == "test" or (self.split == "train" and box)
        needed = [image, *([] if unmasked else [mask]), *([box] if box else [])]
        if absent := [path for path in needed if not path.is_file()]:
            return f"{self.split}: {name}: {', '.join(map(str, absent))}"
        mask = mask if mask.is_file() else None
        tags = (
            self._box_tags(box)
            if box
            else self._mask_tags(mask)
            if mask
            else (False,) * len(self.draft.classes)
        )
        return f"{self.split}: {name}: {tags}" if isinstance(tags, str) else Sample(name, image, tags, mask)

    def _mask_tags(self, path: Path) -> tuple[bool, ...] | str:
        try:
            labels = read_mask(path, self.draft)
        except DataError as error:
            try:
                open_mask(path)
            except DataError:
                return str(error)
            raise  # it opens, so its ids are foreign: the classes are wrong, not this one file
        present = np.bincount(labels.ravel(), minlength=256)[1 : self.draft.num_classes] > 0
        return tuple(present.tolist())

    def _box_tags(self, path: Path) -> tuple[bool, ...] | str:
        try:
            # the parser opens no other files, and expat refuses entities that blow up
            objects = ElementTree.parse(path).getroot().findall("object")
        except (ElementTree.ParseError, LookupError, ValueError) as error:
            return f"{path}: not readable XML ({error}); replace it"
        known = self.draft.names[1:]
        things = [
            ((thing.findtext("name") or "").strip(), thing.findtext("difficult", "0").strip())
            for thing in objects
        ]
        if unknown := sorted({name for name, _ in things}.difference(known)):
            raise DataError(
                f"{path}: the objects {unknown} belong to no class, known are {', '.join(known)}; correct it"
            )
        shown = {name for name, difficult in things if self.difficult or difficult != "1"}
        return tuple(name in shown for name in known)
