"""A folder in the VOC layout: its lists, photographs, masks and boxes become samples with tags."""

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from wsfcn_lib.data.classes import IGNORE, VOC_CLASSES, is_background, voc_colour
from wsfcn_lib.data.files import DataError, plain, read_text
from wsfcn_lib.data.images import PICTURES, read_ids, read_mask
from wsfcn_lib.data.listing import DatasetListing
from wsfcn_lib.data.manifest import CLASSES_FILE, ClassInfo, Manifest, Sample
from wsfcn_lib.data.mask_checks import remarks_on_masks
from wsfcn_lib.data.scan import Spellings
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.progress import progress

AUGMENTED = "SegmentationClassAug"
LABELMAP = "labelmap.txt"  # CVAT's
CLASS_NAMES = "class_names.txt"  # labelme's
IGNORED = ("ignored", "__ignore__")  # in these, what is no class
MASKS = ("SegmentationClass", "SegmentationClassPNG")  # the second of labelme
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

    Names alone, as in labelme's class_names.txt, have VOC's colours. Ids are the positions in the list, where
    background is 0. DataError for a line that says something else.
    """
    classes = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name, *rest = plain(line).split(":")
        is_none = name.lower() in IGNORED or is_background(name)
        if not name or name.startswith("#") or is_none:
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
    """ImageSets/Segmentation/<split_list>.txt, or in Main where there is no such folder, as of sets of boxes.

    The list trainaug may lie in the folder `augmented`.
    """
    kinds = [kind for kind in ("Segmentation", "Main") if (base / "ImageSets" / kind).is_dir()]
    own = base / "ImageSets" / (kinds or ["Segmentation"])[0] / f"{split_list}.txt"
    if augmented and split_list == "trainaug" and not own.is_file():
        return augmented / "trainaug.txt"
    return own


def voc_names(base: Path, split_list: str, augmented: Path | None = None) -> list[str]:
    """Image names in `list_file`; trainaug without it: (masks in SegmentationClassAug − val) ∪ train, sorted.

    Lines may be names, with an ending or a flag (-1, 0, 1) or without, in folders of JPEGImages or not, or paths
    of image and mask ("/JPEGImages/a.jpg /SegmentationClass/a.png").
    """
    path = list_file(base, split_list, augmented)
    if path.is_file():
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        flagged = [re.fullmatch(r"(.*\S)\s+(-1|0|1)", line) for line in lines]
        named_so = {path.stem for path in (base / "JPEGImages").iterdir()} if all(flagged) else set()
        if all(flagged) and not named_so.intersection(lines):
            lines = [match[1] for match in flagged]
        return [_name_in_line(base, line) for line in lines]
    if split_list == "trainaug":
        masks = {mask.stem for mask in (base / AUGMENTED).glob("*.png")}
        if masks:
            return sorted(masks - set(voc_names(base, "val")) | set(voc_names(base, "train")))
    own = list_file(base, split_list)
    lists = sorted(other.stem for other in own.parent.glob("*.txt"))
    advice = "name one of them as train_list, val_list or test_list, or add the file"
    if split_list == "trainaug":
        advice += "; SBD's folder gives this one"
    raise DataError(f"{own} is missing; the lists there are {lists}, each of names of pictures: {advice}")


def _name_in_line(base: Path, line: str) -> str:
    """The name of an image in a line of a list: below JPEGImages, without ending."""
    pair = re.match(r"(.+?)(\.(jpe?g|png|webp|bmp|tiff?)\s+\S.*|\s+/?SegmentationClass\w*/.*)$", line, re.I)
    name = (pair[1] if pair else line).replace("\\", "/").rpartition("JPEGImages/")[2].lstrip("/")
    path = PurePosixPath(name)
    if path.suffix.lower() in PICTURES:
        path = path.with_suffix("")
    inside = ".." not in path.parts and (base / "JPEGImages" / path.parent).is_dir()
    return str(path) if inside else path.name


def in_words_of_voc(error: DataError) -> DataError:
    """The error with the file that VOC's classes are read from."""
    return DataError(str(error).replace(CLASSES_FILE, LABELMAP))


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
        classes: by default those of labelmap.txt or class_names.txt, if the folder has one, else VOC's twenty.
        lists: split -> name of its list; by default train and val.
        train_masks: folder of the training masks, in the VOC folder or as `resolve_path` takes it; by default SegmentationClass, for the list trainaug after
            SegmentationClassAug.
        tags: "masks", the classes a mask shows (the published programs' way), or "boxes", the objects in
            Annotations/<name>.xml: training images then need no mask, and no image does where there are no masks
            at all. Test images never need a mask or boxes.
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
    notes, assumed = [], False
    if classes is None:
        own = [base / name for name in (LABELMAP, CLASS_NAMES) if (base / name).is_file()]
        assumed = not own
        if own:
            classes = labelmap_classes(own[0])
            notes.append(
                f"the classes are those of {own[0].name}: {', '.join(info.name for info in classes)}"
            )
    listing = DatasetListing(tuple(classes or voc_classes()), {}, notes=notes)
    list_of = {}
    try:
        draft = Manifest(base, listing.classes)  # knows the classes; it is not written
        for split, split_list in (lists or {"train": "train", "val": "val"}).items():
            names = voc_names(base, split_list, augmented)
            path = list_file(base, split_list, augmented)
            if not path.is_file():
                listing.notes.append(
                    f"no {split_list}.txt: its names are those of {AUGMENTED}, "
                    f"without VOC's val, with VOC's train"
                )
            listing.notes.extend(_list_notes(split, path, names, list_of))
            names = list(dict.fromkeys(names))
            list_of[split] = (path, set(names))
            masks = [base / kind for kind in MASKS]
            if split == "train" and train_masks:
                own = base / train_masks
                masks = [own if own.is_dir() else resolve_path(train_masks)]
            elif split_list == "trainaug":
                masks.insert(0, base / AUGMENTED)
                if augmented:
                    masks.insert(1, augmented / AUGMENTED)
            boxes = base / "Annotations" if tags == "boxes" and split != "test" else None
            has_masks = not boxes or any(any(folder.rglob("*.png")) for folder in masks)
            if split == "val" and not has_masks:
                listing.notes.append(f"val: there are no masks in {masks[0]}, so tags alone are measured")
            needs_mask = (split == "val" and has_masks) or (split == "train" and not boxes)
            reader = _SplitReader(split, images, masks, boxes, difficult, draft, needs_mask)
            _read_list(listing, reader, split_list, names)
    except DataError as error:
        raise in_words_of_voc(error) from error
    of_voc = all(re.fullmatch(r"20\d\d_\d{6}", name) for _, names in list_of.values() for name in names)
    samples = [sample for split in listing.splits.values() for sample in split]
    if assumed and tags == "masks" and not of_voc:
        shown = [
            f"{info.mask_id} {info.name}"
            for k, info in enumerate(listing.classes)
            if any(sample.tags[k] for sample in samples)
        ]
        listing.notes.append(
            f"no {LABELMAP} or {CLASS_NAMES} in {base}, so the classes are taken for VOC's: {', '.join(shown)}; "
            f"if they are others, write their names into {CLASS_NAMES}, one a line, in the order of the ids"
        )
    listing.notes.extend(remarks_on_masks(samples))
    return listing


def _list_notes(
    split: str, path: Path, names: list[str], list_of: dict[str, tuple[Path, set[str]]]
) -> list[str]:
    """Lines on names that a list, or it and another split's, hold more than once."""
    notes = []
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        notes.append(f"{path}: {len(twice)} names occur twice, first {twice[0]}, and count once")
    for other, (path_of_other, names_of_other) in list_of.items():
        shared = sorted(names_of_other.intersection(names))
        if shared:
            notes.append(
                f"{len(shared)} images are in {other} and {split}, first {shared[0]}: take them out of "
                f"{path_of_other} or {path}"
            )
    return notes


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
    stems = Counter(sample.image.stem for sample in samples)
    listing.splits[split] = [
        replace(s, name=s.image.stem if stems[s.image.stem] == 1 else s.name.replace("/", "__"))
        for s in samples
    ]
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
    needs_mask: bool
    files: Spellings = field(default_factory=Spellings)

    def sample(self, name: str) -> Sample | str:
        """One image with its tags; or its files that are missing, or the one that cannot be read."""
        image = self._first(self.images, name, PICTURES)
        mask = self._first(self.masks, name, (".png",))
        needed = [image]
        if self.needs_mask:
            needed.append(mask)
        if self.boxes:
            boxes = self._first([self.boxes], name, (".xml",))
            needed.append(boxes)
        missing = [str(path) for path in needed if not path.is_file()]
        if missing:
            return ", ".join(missing)
        if not mask.is_file():
            mask = None
        try:
            if self.boxes:
                shown = self._shown_in_boxes(boxes)
            elif mask:
                shown = self._shown_in_mask(mask)
            else:
                shown = set()
        except _Unreadable as error:
            return str(error)
        return Sample(name, image, tuple(info.name in shown for info in self.draft.classes), mask)

    def _first(self, folders: list[Path], name: str, endings: Sequence[str]) -> Path:
        """The file of this name in the first folder that has one, else where it should lie."""
        for folder in folders:
            found = self.files.find(folder / f"{name}{endings[0]}", endings)
            if found:
                return found[0]
        return folders[0] / f"{name}{endings[0]}"

    def _shown_in_mask(self, path: Path) -> set[str]:
        try:
            ids = np.flatnonzero(np.bincount(read_ids(path, self.draft).ravel()))
        except DataError as error:
            raise _Unreadable(in_words_of_voc(error)) from error
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
                f"known are {', '.join(known)}; correct it, or write the classes into {LABELMAP} beside JPEGImages, "
                "one a line"
            )
        return shown


class _Unreadable(Exception):
    """One file of an image is damaged, which concerns this image alone."""
