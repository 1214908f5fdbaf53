"""A user's own pictures as they lie: tags from a file tags.csv, or from sub-folders named after classes.

`find_folder` makes an `Entry` of each picture, fills it step by step (tags, name, mask, split), and makes
samples of them.
"""

import os
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path, PurePosixPath
from random import Random

import numpy as np

from wsfcn_lib.data.classes import voc_colour
from wsfcn_lib.data.files import DataError, plain, table_text
from wsfcn_lib.data.images import PICTURES, orientation, read_mask
from wsfcn_lib.data.listing import MASKLESS, DatasetListing
from wsfcn_lib.data.manifest import CLASSES_FILE, ClassInfo, Manifest, Sample, read_classes
from wsfcn_lib.data.mask_checks import check_masks, colours_of_palettes, remarks_on_masks
from wsfcn_lib.data.remarks import remarks
from wsfcn_lib.data.scan import Scan, Spellings, at_top, name_of_picture, same_name, scan, unique_names
from wsfcn_lib.data.tag_table import MASK_ENDINGS, TABLE, Entry, leave_out_background, read_tags
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.settings import SettingsError
from wsfcn_lib.runs.storage import atomic_write

MASKS = "masks"  # the folder of masks below the root
TOP = (MASKS, TABLE, CLASSES_FILE)  # what is read there beside pictures
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# folders of data sets that hold parts of them, not classes; so do these with a year or a number
MASK_PARTS = (
    "annotations", "annotation", "anns", "labels", "label", "masks", "mask", "ground_truth", "groundtruth", "gt",
    "trimaps", "segmentation", "segmentations", "segmentationclass", "segmentationclassaug", "segmentationclasspng",
    "segmentationclassvisualization", "segmentationobject", "imagesets", "masks_machine", "masks_human", "gtfine",
    "gtcoarse", "overlays",
)  # fmt: skip
PARTS = (*MASK_PARTS, "images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "leftimg8bit")


def find_folder(
    root: Path | str, seed: int = 0, val_fraction: float = 0.1, test_fraction: float = 0.0
) -> DatasetListing:
    """The pictures below `root` with their tags; nothing is written there.

    Tags: root/tags.csv has the columns image,tags, and mask and split if wanted; paths below root, ';'
    between tags. A picture with a mask and no tags has those that its mask shows. Without the table, every
    sub-folder with pictures is a class, and its name the tag; train/, val/ and test/ may stand above them.
    Classes: in alphabetical order, numbers in names by their value, mask id = position; numbers (1 to 254) as
    names are the ids; root/classes.json, a list of {name, mask_id, colour}, overrules that. Background is none.
    Masks: the column, else root/masks/<path or name of the picture>.png, or such a name with "mask" or the like.
    They only measure: a training image whose mask lacks stays.
    Splits: the column, or the folders; an empty cell is train. Without them, or where the column is all
    empty, pictures with masks go to val, as only they can measure; where more than half have one, or none
    has, the fractions are drawn from them or from all, by a hash of seed and path, so that new pictures move
    no others. One at least goes to val, unless its fraction is 0.
    Names: the file's stem; of pictures that share it, the path with "__" for "/" and "_" for ".".

    What is not used is counted in the notes. DataError where the folder does not say enough.
    """
    root = resolve_path(root)
    masks, table, classes_file = (at_top(root, name) for name in TOP)
    files = scan(root, (masks.name, table.name, classes_file.name))
    classes = read_classes(classes_file) if classes_file.is_file() else ()
    if table.is_file():
        entries, notes = read_tags(root, table, files.pictures, tuple(info.name for info in classes))
        origin = TABLE
    else:
        entries, notes = tag_by_folder(root, files.pictures)
        origin = "the folders"
    notes.extend(files.notes())
    if files.sibling_masks:
        notes.append(
            f"to measure with masks beside pictures, put them into {MASKS}/ under the pictures' names"
        )
    for entry, name in zip(entries, unique_names([entry.path for entry in entries])):
        entry.name = name
    notes.extend(find_masks(root, masks, entries))
    given, classes = classes, classes_of(root, entries, classes)
    if not any(os.path.isfile(root / entry.path) for entry in entries):
        raise DataError(
            f"none of the {len(entries)} pictures of {table} is there, first {entries[0].path}: write names as they "
            f"lie below {root}{f', such as {files.pictures[0]}' if files.pictures else ''}"
        )
    if not given:
        classes, more = colours_of_palettes(
            [(entry.mask, entry.tags) for entry in entries if entry.mask and entry.tags], classes
        )
        notes.extend(more)
    of_masks, bad = tags_of_masks(root, entries, classes)
    if of_masks:
        notes.append(f"{len(of_masks)} pictures without tags have those that their masks show")
    notes.append(give_splits(entries, seed, val_fraction, test_fraction, origin))
    listing = list_samples(root, entries, classes, bad)
    samples = [sample for split in listing.splits.values() for sample in split]
    notes.extend(remarks_on_masks(samples))
    notes.extend(check_masks(samples, Manifest(root, classes), of_masks))
    listing.notes.extend(notes + remarks(listing))
    return listing


def write_template(root: Path | str) -> Path:
    """Write tags.csv, a line for each picture below `root` without its tags; DataError if it is there.

    `root` is what notebook 01 takes as `root`: absolute, from the repository, or in the home folder (~).
    """
    root = resolve_path(root)
    masks, path, classes_file = (at_top(root, name) for name in TOP)
    pictures = scan(root, (masks.name, path.name, classes_file.name)).pictures
    if path.exists():
        raise DataError(f"{path} is there and is never overwritten; move it away for a fresh one")
    if not pictures:
        raise DataError(f"{root} holds no pictures ({', '.join(PICTURES)}); name the folder that holds yours")
    text = table_text(("image", "tags"), [{"image": picture} for picture in pictures])
    atomic_write(path, "\ufeff" + text)  # the mark by which spreadsheets know UTF-8
    return path


def tag_by_folder(root: Path, pictures: list[PurePosixPath]) -> tuple[list[Entry], list[str]]:
    """An entry for each picture in a sub-folder, which is its tag, and notes on what is left out."""
    inside = [path for path in pictures if len(path.parts) > 1]
    tops = {path.parts[0] for path in inside}
    split_folders = {name for name in tops if split_named(name)}
    class_folders = {name for name in tops - split_folders if not _is_part(name)}
    if split_folders and class_folders:
        raise DataError(
            f"{root}: {sorted(split_folders)} lie beside {sorted(class_folders)}: are they classes, or parts of the "
            f"data? Rename them, or list the pictures in tags.csv; write_template({str(root)!r}) begins one"
        )
    level = 1 if split_folders else 0  # at which the folder is the class
    entries, left_out = [], Counter()
    for path in pictures:
        folders = path.parts[:-1]
        part = folders[0] if folders else ""
        if split_named(part) and folders[1:2] == folders[:1]:
            folders = folders[1:]  # as unpacking makes it: train/train/cat
        if len(folders) <= level or (split_folders and part not in split_folders):
            left_out[f"{part}/" if part else "no folder"] += 1
        elif _is_part(folders[level]):
            left_out["/".join(folders[: level + 1]) + "/"] += 1
        elif inner := [name for name in folders[level + 1 :] if name.lower() in MASK_PARTS]:
            left_out[f"{folders[level]}/{inner[0]}/"] += 1
        else:
            split = split_named(part)
            where = str(root.joinpath(*folders[: level + 1]))
            entries.append(Entry(path, (plain(folders[level]),), where, split=split))
    classes = sorted({entry.tags[0] for entry in entries})
    if len(classes) < 2:
        raise DataError(
            f"{root} has {len(pictures)} pictures, no tags.csv, and no two sub-folders named after classes "
            f"(found {classes or sorted(tops)}); sort the pictures so, or call write_template({str(root)!r}) "
            f"and fill the column tags, with ';' between tags{_other_dataset(root)}"
        )
    notes = leave_out_background(entries)
    if left_out:
        counts = ", ".join(f"{count} in {place}" for place, count in sorted(left_out.items()))
        notes.append(f"{left_out.total()} pictures lie in no class's sub-folder and are left out: {counts}")
    return entries, notes


def split_named(folder: str) -> str:
    """The split that a folder's name says, such as train, training_set or seg_train; empty for other names."""
    name = re.sub(r"^seg_|[ _-]?(set|data)$", "", folder.lower())
    return SPLIT_FOLDERS.get(name, "")


def _is_part(name: str) -> bool:
    """Whether a folder's name says that it is a part of a data set, such as images, masks_2 or train2017."""
    stem = re.sub(r"[ _-]?\d+$", "", name.lower())
    return name.lower() in PARTS or stem in PARTS or (stem != name.lower() and stem in SPLIT_FOLDERS)


def _other_dataset(root: Path) -> str:
    """What else a folder seems to be, where it is no folder of classes."""
    if any(root.glob("annotations/*.json")) or any(root.glob("*/_annotations.coco.json")):
        return "; its annotations look like COCO's: then set dataset: coco"
    tops = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if len(tops) == 1 and sum(path.is_dir() for path in tops[0].iterdir()) > 1:
        return f"; or name {tops[0]} as root, if its sub-folders are the classes"
    if any(root.glob("**/ImageSets/Segmentation/*.txt")):
        return "; it looks like VOC's: then set dataset: voc"
    return ""


def find_masks(root: Path, folder: Path, entries: list[Entry]) -> list[str]:
    """Give entries without a mask the one in `folder` that is called like their path or their name.

    So too where the mask that is written lies there alone, or is the picture itself. Returns notes on masks
    there that are called otherwise, or belong to no picture.
    """
    spellings, owners = Spellings(), {}
    for entry in entries:
        picture = root / entry.path
        there = entry.mask and os.path.isfile(entry.mask)
        itself = there and os.path.isfile(picture) and os.path.samefile(entry.mask, picture)
        if there and not itself:
            continue
        names = [f"{name}.png" for name in _names(entry)]
        if entry.mask and entry.mask.is_relative_to(root):
            names = [str(entry.mask.relative_to(root))]
        if itself:
            entry.mask = None
        for name in names:
            # photographs' endings come last: beside a mask they are pictures of it
            meant = spellings.find(folder / name, MASK_ENDINGS) or spellings.find(folder / name)
            if _take_mask(root, entry, meant, owners):
                break
        if itself and not entry.mask:
            raise DataError(
                f"{entry.where}: the mask of {entry.path} is the picture itself; write where its mask lies, "
                f"or leave the cell empty"
            )
    if not folder.is_dir():
        return []
    files = scan(folder)
    found = files.pictures + files.sibling_masks + files.others.pop(".gif", [])
    used = {entry.mask for entry in entries}
    by_name = defaultdict(list)  # such as x_mask.png by x
    for path in found:
        if folder / path not in used:
            by_name[same_name(str(path.with_name(name_of_picture(path))))].append(folder / path)
    renamed = []
    for entry in entries:
        for name in (*_names(entry), str(entry.path), f"{entry.name}{entry.path.suffix}"):
            if not entry.mask and _take_mask(root, entry, by_name[same_name(name)], owners):
                renamed.append(f"{entry.mask.relative_to(folder)} of {entry.path}")
    notes = []
    if renamed:
        notes.append(
            f"{len(renamed)} masks are called otherwise than their pictures, first {renamed[0]}; they are used"
        )
    used = {entry.mask for entry in entries}
    unused = [path for path in found if folder / path not in used]
    if unused:
        notes.append(
            f"{len(unused)} files in {MASKS}/ belong to no picture, first {unused[0]}; "
            "call masks like their pictures, with the ending .png"
        )
    notes.extend(Scan(others=files.others).notes(f"masks in {MASKS}/"))
    return notes


def _names(entry: Entry) -> list[str]:
    """What the mask of an entry may be called, without an ending."""
    inside = [] if entry.path.is_absolute() else [str(entry.path.with_suffix(""))]
    return [*inside, entry.name]


def _take_mask(root: Path, entry: Entry, meant: list[Path], owners: dict[Path, Entry]) -> bool:
    """Give an entry the only mask of these that is not its picture; DataError where two masks or pictures fit."""
    meant = [path for path in meant if path != root / entry.path]
    if len(meant) > 1:
        raise DataError(f"{meant[0]} and {meant[1]} may both be the mask of {entry.path}; keep one")
    for mask in meant:
        entry.mask = mask
        owner = owners.setdefault(mask, entry)
        if owner is not entry:
            raise DataError(
                f"{mask} may be the mask of {owner.path} or of {entry.path}; say of which in the column mask of {TABLE}, "
                "or rename one of the pictures"
            )
    return bool(meant)


def give_splits(
    entries: list[Entry], seed: int, val_fraction: float, test_fraction: float, origin: str
) -> str:
    """Give entries their splits, and say how; see `find_folder`. `origin`: where splits stand, if they do."""
    given = {entry.split for entry in entries} - {""}
    for entry in entries:
        entry.split = entry.split or "train"
    if given and (origin == TABLE or "val" in given):
        return f"the splits are those of {origin}"
    if given:
        training = [entry for entry in entries if entry.split == "train"]
        return give_splits_by_lot(training, seed, val_fraction, 0)
    return give_splits_by_lot(entries, seed, val_fraction, test_fraction)


def give_splits_by_lot(entries: list[Entry], seed: int, val_fraction: float, test_fraction: float) -> str:
    """Move entries from train to val and test by lot, and say how; see `find_folder`."""
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
    if val_fraction and len(pool) > 1:
        _give_val_every_class(pool, {path: abs(lot - test_fraction) for path, lot in lots.items()})
    if all_measure:
        return f"the {len(pool)} pictures with masks measure, the {len(entries) - len(pool)} without train"
    kind = "masks" if masked else "tags; without masks, only tags can be measured"
    return f"val is drawn by name (seed {seed}) from the {len(pool)} pictures with {kind}"


def _give_val_every_class(pool: list[Entry], distance: dict[Path, float]) -> None:
    """Move a picture of each class that val lacks from train to val: the one whose lot came nearest to val.

    One that teaches a class alone stays. Of pictures without tags, whose masks will tell, one goes if val is
    empty.
    """
    tags = sorted({tag for entry in pool for tag in entry.tags}) or [""]
    for tag in tags:
        shown = [entry for entry in pool if not tag or tag in entry.tags]
        if any(entry.split == "val" for entry in shown):
            continue
        training = [entry for entry in shown if entry.split == "train"]
        if len(training) > 1:
            min(training, key=lambda entry: distance[entry.path]).split = "val"
    if all(entry.split != "val" for entry in pool):
        min(pool, key=lambda entry: distance[entry.path]).split = "val"


def classes_of(root: Path, entries: list[Entry], given: tuple[ClassInfo, ...] = ()) -> tuple[ClassInfo, ...]:
    """The classes that are given by classes.json, else the tags; DataError for a tag of no class."""
    used = {}  # tag -> where it is written first
    for entry in entries:
        for tag in entry.tags:
            used.setdefault(tag, entry.where)
    if not 0 < len(used) + len(given) < 255:
        raise DataError(
            f"{root}: {len(entries)} pictures have {len(used)} different tags, 1 to 254 are possible; "
            "fill the column tags of tags.csv, or join classes (background is none)"
        )
    try:
        classes = given or _classes_by_name(root, list(used), any(entry.mask for entry in entries))
    except SettingsError as error:
        raise DataError(f"{root}: a class cannot be used, correct it: {error}") from error
    unknown = sorted(used.keys() - {info.name for info in classes})
    if unknown:
        raise DataError(
            f"{used[unknown[0]]}: no class is called {unknown[0]!r}; "
            f"correct it, or add it to {root / CLASSES_FILE}"
        )
    return Manifest(root, classes).classes  # which refuses names and ids that occur twice


def _classes_by_name(root: Path, names: list[str], have_masks: bool) -> tuple[ClassInfo, ...]:
    """Classes in alphabetical order; those called by numbers in theirs, and with these as mask ids."""
    if not all(name.isdecimal() for name in names):
        return voc_classes(sorted(names, key=_in_order))
    numbered = sorted(names, key=int)
    for one, two in pairwise(numbered):
        if int(one) == int(two):
            raise DataError(f"{root}: the classes {one!r} and {two!r} are one number; write it in one way")
    classes = voc_classes(numbered)
    usable = {int(name) for name in names} <= set(range(1, 255))
    if usable:
        return tuple(
            ClassInfo(name=name, mask_id=int(name), colour=voc_colour(int(name))) for name in numbered
        )
    if have_masks:
        raise DataError(
            f"{root}: classes are called by numbers, {numbered[0]} to {numbered[-1]}, and mask ids lie in 1..254 "
            "(0 is background): say in classes.json which id each class has"
        )
    return classes


def _in_order(name: str) -> tuple:
    """The key by which names stand in alphabetical order, class2 before class10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], name


def tags_of_masks(
    root: Path, entries: list[Entry], classes: tuple[ClassInfo, ...]
) -> tuple[set[str], dict[str, str]]:
    """Give entries with a mask and no tags the tags of the classes in their mask.

    Returns the names of these entries, and what is wrong with masks that cannot give any, by name.
    """
    draft, names, bad = Manifest(root, classes), set(), {}
    for entry in entries:
        if entry.mask and not entry.tags and os.path.isfile(entry.mask):
            try:
                labels = read_mask(entry.mask, draft, size=_size(root / entry.path))
            except DataError as error:
                bad[entry.name] = str(error)
                continue
            shown = np.unique(labels)
            entry.tags = tuple(info.name for k, info in enumerate(classes, 1) if k in shown)
            if entry.tags:
                names.add(entry.name)
    return names, bad


def _size(picture: Path) -> tuple[int, int] | None:
    """(height, width) of a picture as it is shown; None where it cannot be read."""
    direction, (width, height) = orientation(picture)
    if not width:
        return None
    return (width, height) if direction > 4 else (height, width)


def list_samples(
    root: Path, entries: list[Entry], classes: tuple[ClassInfo, ...], bad: dict[str, str]
) -> DatasetListing:
    """The samples of entries whose files are there; training images may lack a mask, but not a tag.

    `bad`: by name, what is wrong with masks from which tags should have come.
    """
    listing = DatasetListing(classes, {})
    for entry in entries:
        image, mask, training = root / entry.path, entry.mask, entry.split == "train"
        absent = [file for file in (image, mask) if file and not os.path.isfile(file)]
        usable = not absent or (training and image not in absent)
        if absent:
            line = f"{entry.split}: {entry.name}: {', '.join(map(str, absent))}"
            listing.missing.append(f"{line}; {MASKLESS}" if usable else line)
            mask = None
        if usable and training and not entry.tags and entry.name in bad:
            listing.missing.append(f"train: {entry.name}: no tags, and none from its mask: {bad[entry.name]}")
        elif usable and training and not entry.tags:
            listing.untagged.append(entry.name)
        elif usable:
            tags = tuple(info.name in entry.tags for info in classes)
            sample = Sample(entry.name, image, tags, mask)
            listing.splits.setdefault(entry.split, []).append(sample)
    return listing
