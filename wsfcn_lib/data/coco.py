"""COCO 2014: objects outlined one by one become tags, and masks of class ids painted once.

The rule of the masks is that of the conversion (coco2voc) most weakly supervised papers take their ground
truth from, so that numbers compare: every object is painted with its class, larger ones first, so that a
small object before or in a large one (a fork on a table) stays visible; of two equal areas the one listed
first is on top. Crowd regions are objects like others.
"""

import hashlib
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path, PurePosixPath
from random import Random
from typing import NamedTuple
from urllib.parse import unquote
from zipfile import BadZipFile, ZipFile

import numpy as np
from filelock import FileLock
from joblib import Parallel, delayed
from pycocotools import mask as outlines

from wsfcn_lib.data.classes import is_background, voc_palette
from wsfcn_lib.data.downloads import download
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import MOST_PIXELS, PICTURES, encode_mask
from wsfcn_lib.data.listing import MASKLESS, DatasetListing
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample
from wsfcn_lib.data.mask_checks import remarks_on_masks
from wsfcn_lib.data.remarks import twins
from wsfcn_lib.data.scan import same_name, scan, unique_names
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write, checksum, make_folder, require_space

PUBLISHED = {"train": "82,783 and 82,081", "val": "40,504 and 40,137"}  # images listed, and with a label
VALIDATION = ("val", "valid", "validation")  # how labelling tools call it
FARTHEST = 1e6  # pixels: an outline that reaches further is none
RULE = "rule 2"  # raise it when masks come to be painted differently


class Archive(NamedTuple):
    """One of COCO's zip files, what is wanted of it, and the bytes that takes."""

    url: str
    size: int
    sha256: str
    pattern: str
    files: int
    room: float


ARCHIVES = (
    Archive(
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
        252_872_794,
        "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
        "annotations/instances_*2014.json",
        2,
        0.8e9,
    ),
    Archive(
        "http://images.cocodataset.org/zips/train2014.zip",
        13_510_573_713,
        "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
        "train2014/*.jpg",
        82783,
        13.7e9,
    ),
    Archive(
        "http://images.cocodataset.org/zips/val2014.zip",
        6_645_013_297,
        "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
        "val2014/*.jpg",
        40504,
        6.8e9,
    ),
)


class Annotated(NamedTuple):
    """An image of an annotation file, with its objects as (area or None, mask id, outline)."""

    file: str
    height: int
    width: int
    objects: list[tuple]
    name: str = ""  # of its mask, in which no other image of the file has a share


class Layout(NamedTuple):
    """Where the annotations of a split lie, and the folders in which its pictures may be."""

    annotations: Path
    pictures: tuple[Path, ...]


def layouts_of(root: Path, splits: Sequence[str]) -> dict[str, Layout] | None:
    """The files of the splits, all of one kind: COCO 2014, COCO 2017, or an export of a labelling tool.

    Kinds are never mixed: the training pictures of one year contain most of the other's validation. The first
    kind that has pictures counts. None where no kind has all splits.
    """
    kinds = []
    for year, val in (("2014", "val"), ("2017", "val"), *(("", val) for val in VALIDATION)):
        layouts = {}
        for split in splits:
            name = f"{val if split == 'val' else split}{year}"
            folders = [_spelt(root, name), _spelt(root, "images", name)]
            if not year:
                folders.append(_spelt(root, "images"))
            annotations = _spelt(root, "annotations", f"instances_{name}.json")
            layouts[split] = Layout(annotations, tuple(folders))
        kinds.append(layouts)
    for val in VALIDATION:
        layouts = {}
        for split in splits:
            folder = _spelt(root, val if split == "val" else split)
            layouts[split] = Layout(_spelt(folder, "_annotations.coco.json"), (folder,))
        kinds.append(layouts)
    whole = [kind for kind in kinds if all(layout.annotations.is_file() for layout in kind.values())]
    for layouts in whole:
        if all(any(map(_is_filled, layout.pictures)) for layout in layouts.values()):
            return layouts
    return whole[0] if whole else None


def _spelt(root: Path, *parts: str) -> Path:
    """A path below `root`, in the spelling that is there: some tools write Train, others train."""
    for part in parts:
        path = root / part
        if not path.exists() and root.is_dir():
            alike = sorted(name for name in os.listdir(root) if same_name(name) == same_name(part))
            path = root / (alike or [part])[0]
        root = path
    return root


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _single_file(root: Path, splits: Sequence[str], val_fraction: float) -> Layout:
    """The one annotation file of an export that knows no splits; DataError where there is none, or several."""
    files = [*root.glob("*.json"), *root.glob("annotations/*.json"), *root.glob("*/_annotations.coco.json")]
    if len(files) == 1 and "val" in splits and val_fraction:
        if files[0].name.startswith("_"):
            return Layout(files[0], (files[0].parent,))
        return Layout(files[0], (_spelt(root, "images"), root))
    there = sorted(str(path.relative_to(root)) for path in root.glob("**/*.json"))[:5]
    pairs = [f"annotations/instances_{{}}{year}.json" for year in ("2014", "2017", "")]
    wanted = [" and ".join(map(pair.format, splits)) for pair in pairs]
    wanted.append(
        " and ".join(
            f"{VALIDATION[split == 'val'] if split == 'val' else split}/_annotations.coco.json"
            for split in splits
        )
    )
    raise DataError(
        f"{root} has none of the annotations that belong together ({'; '.join(wanted)}); "
        f"JSON files there: {there or 'none'}. Name the folder that holds annotations/, or rename the files so; of an "
        "export in one file leave that one alone there, and val is drawn from it by val_fraction; or set download "
        "for COCO 2014"
    )


def find_coco(
    root: Path | str,
    masks: Path | str,
    splits: tuple[str, ...] = ("train", "val"),
    val_fraction: float = 0.1,
) -> DatasetListing:
    """The pictures of COCO below `root`, tagged as they are annotated; their masks are painted once.

    Args:
        root: as `layouts_of` says; for COCO 2014 annotations/instances_<split>2014.json, and the pictures in
            <split>2014/ or images/<split>2014/. Classes come in ascending category id and get the mask ids
            1, 2, ... (COCO's own 80 ids have gaps up to 90); a category that is only the heading of others,
            or an unused background, is none.
        masks: where masks go, as <split>/<what they are painted from>/<name>.png, unless they are there: no two
            annotation files share masks. An image with an object that has no outline, only a box, has no mask.
        splits: train or val; COCO's test images have no annotations. Training images without a label are left
            out; val keeps its own, as background only.
        val_fraction: where one file holds all annotations, so much of it is drawn for val, by image name.

    Raises:
        DataError: an annotation file is missing or foreign, or a split lacks all its pictures.
    """
    root, listing, left = Path(root), None, defaultdict(list)
    layouts = layouts_of(root, splits)
    alone = None if layouts else _single_file(root, splits, val_fraction)
    layouts = layouts or dict.fromkeys(splits, alone)
    sums = {split: checksum(layout.annotations) for split, layout in layouts.items()}
    contents = {split: read_annotations(layout.annotations) for split, layout in layouts.items()}
    unused = _unused(contents.values())
    for split, layout in layouts.items():
        classes, images, notes = read_instances(layout.annotations, contents.pop(split), unused)
        if listing is None:
            listing = DatasetListing(classes, {})
            background = {name for name in unused if _is_none(name)}
            if unused - background:
                listing.notes.append(
                    f"no classes, but headings of others: {', '.join(sorted(unused - background))}"
                )
            if background:
                listing.notes.append(f"no class, as no object is one: {', '.join(sorted(background))}")
        if classes != listing.classes:
            raise DataError(
                f"{layout.annotations}: its categories differ from those of {splits[0]}; take both files from one "
                "release"
            )
        if alone:
            drawn = _drawn(images, val_fraction)
            if not all(drawn.values()):
                raise DataError(
                    f"{layout.annotations}: {len(images)} pictures are too few to draw val from; annotate more"
                )
            images = drawn[split]
        listing.notes.extend(f"{split}: {note}" for note in notes)
        source = f"{sums[split]} {RULE}"
        if unused:  # the ids in the masks depend on them
            source += f", without {', '.join(sorted(unused))}"
        folder = Path(masks) / split / hashlib.sha256(source.encode()).hexdigest()[:12]
        folder_of_pictures, others = _list_split(listing, split, layout, images, folder)
        left[folder_of_pictures].append((split, layout.annotations.name, others))
    if not alone and len(set(sums.values())) < len(sums):
        listing.notes.append(
            f"{' and '.join(sums)} have one and the same annotation file, so what is measured is what was learned: "
            "export them apart, or leave one file alone: val is then drawn from it"
        )
    if alone:
        count = sum(map(len, listing.splits.values()))
        listing.notes.append(f"val is drawn by name from the {count} pictures of {alone.annotations.name}")
    for of_folder in left.values():
        others = set.intersection(*(others for _, _, others in of_folder))
        if others:
            names = " or ".join(dict.fromkeys(name for _, name, _ in of_folder))
            owners = ", ".join(split for split, _, _ in of_folder)
            listing.notes.append(f"{owners}: {len(others)} pictures are not in {names}, first {min(others)}")
    samples = [sample for split in listing.splits.values() for sample in split]
    seen = [sample.name for sample in samples]
    if len(set(seen)) < len(seen):
        often = {name for name in seen if seen.count(name) > 1}
        listing.notes.extend(twins([sample.image for sample in samples if sample.name in often]))
    listing.notes.extend(remarks_on_masks(samples))
    return listing


def _drawn(images: list[Annotated], val_fraction: float) -> dict[str, list[Annotated]]:
    """The images of train and val, drawn by name, so that new pictures move no others; one at least is in val."""
    lots = {image.name: Random(f"0/{image.file}").random() for image in images}
    last = max(val_fraction, min(lots.values(), default=0))
    drawn = {"train": [], "val": []}
    for image in images:
        drawn["val" if lots[image.name] < val_fraction or lots[image.name] == last else "train"].append(image)
    return drawn


def _list_split(
    listing: DatasetListing, split: str, layout: Layout, images: list[Annotated], masks: Path
) -> tuple[Path, set[str]]:
    """Add the samples of a split to the listing, and paint their masks; the pictures' folder and unlisted ones."""
    path = layout.annotations
    folder = next(filter(_is_filled, layout.pictures), layout.pictures[0])
    if not any(image.objects for image in images):
        raise DataError(f"{path}: lists {len(images)} pictures and no annotation of any; annotate some")
    left = set()
    if folder.is_dir():
        there = scan(folder, (path.name,))
        left = {str(file) for file in there.pictures + there.sibling_masks}
        there.sibling_masks = []  # what the annotations name is a picture
        listing.notes.extend(f"{split}: {line}" for line in there.notes())
    found = match_names([image.file for image in images], left)
    left -= set(found.values())
    # those that share a stem are copied, train's and val's into one folder
    names = dict(zip(found, unique_names([PurePosixPath(split, file) for file in found.values()])))
    samples, painted, boxes = {}, [], 0
    for image in images:
        labels = {label for _, label, _ in image.objects}
        file = found.get(image.file)
        if file is None:
            name = PurePosixPath(image.file).name
            listing.missing.append(f"{split}: {PurePosixPath(name).stem}: {folder / name}")
        elif split == "train" and not labels:
            listing.untagged.append(names[image.file])
        else:
            tags = tuple(info.mask_id in labels for info in listing.classes)
            boxes += not all(outline for _, _, outline in image.objects)
            has_mask = all(outline for _, _, outline in image.objects) and bool(image.objects or image.height)
            mask = masks / f"{image.name}.png" if has_mask else None
            samples[image.name] = Sample(names[image.file], folder / file, tags, mask)
            if has_mask:
                painted.append(image)
    if not samples:
        raise DataError(
            f"{path}: lists {len(images)} pictures, none of them is in {' or '.join(map(str, layout.pictures))}; "
            "put the pictures there"
        )
    faults = paint_all(painted, masks)
    for name, sample in samples.items():
        if name in faults:
            line = f"{split}: {sample.name}: {faults[name]}"
            listing.missing.append(f"{line}; {MASKLESS}" if split == "train" else line)
    kept = []
    for name, sample in samples.items():
        if name not in faults:
            kept.append(sample)
        elif split == "train":
            kept.append(replace(sample, mask=None))
    listing.splits[split] = kept
    labelled = sum(bool(image.objects) for image in images)
    note = f"{split}: {len(images):,} images listed, {labelled:,} with a label"
    if path.name == f"instances_{split}2014.json":
        note += f"; published: {PUBLISHED[split]}"
    else:
        note += f", by {path.name}, which is not COCO 2014's"
    listing.notes.append(note)
    if boxes:
        use = "their tags train" if split == "train" else "they measure tags only"
        listing.notes.append(f"{split}: {boxes} images have objects without an outline, so no mask: {use}")
    return folder, left


def match_names(written: Collection[str], paths: Collection[str]) -> dict[str, str]:
    """The file that each written name means, where it means one and no other name means that file too.

    First those spelt alike, then in upper or lower case, with %20 for a blank, with another ending; first with the
    folders as written, then with folders above that are not there, last in any folder.
    """
    found, names, files = {}, set(written), set(paths)
    tails = {text: _tails(text) for text in names | files}
    depth = max((len(tails[name]) for name in names), default=0)
    for cut in (*range(depth), -1):  # so many folders less than written; -1: in any folder
        for spelling in (str, same_name, _plain, _without_ending):
            wanted, there = defaultdict(list), defaultdict(list)
            for name in names:
                if cut < len(tails[name]):
                    wanted[spelling(tails[name][max(cut, 0)])].append(name)
            if not wanted:
                break
            for file in files:
                for tail in tails[file] if cut < 0 else (file,):
                    there[spelling(tail)].append(file)
            for key, meant in wanted.items():
                if len(meant) == len(there.get(key, ())) == 1 and there[key][0] in files:
                    found[meant[0]] = there[key][0]
                    names.remove(meant[0])
                    files.remove(there[key][0])
    return {name: found[name] for name in written if name in found}


def _tails(path: str) -> list[str]:
    """The path, and what is left of it without its first folder, without its first two, ..."""
    parts = path.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _plain(name: str) -> str:
    return same_name(unquote(name))


def _without_ending(name: str) -> str:
    path = PurePosixPath(_plain(name))
    return str(path.with_suffix("")) if path.suffix in PICTURES else str(path)


def read_annotations(path: Path) -> dict:
    """The content of an annotation file; DataError if it is truncated or no such file."""
    print(f"reading {path.name}")
    try:
        content = json.loads(path.read_bytes())
        for key in ("categories", "images", "annotations"):
            if not all(isinstance(entry, dict) for entry in content[key]):
                raise TypeError(f"{key} is no list of entries with names")
        return content
    except (ValueError, KeyError, TypeError) as error:
        advice = "export it again from the program that made it"
        if re.fullmatch(r"instances_(train|val)20\d\d\.json", path.name):
            advice = "if it is COCO's own and torn, fetch it again (2014: set download)"
        raise DataError(
            f"{path} is no whole file of COCO instances, with the lists categories, images and annotations "
            f"({type(error).__name__}: {error}); {advice}"
        ) from error


def _unused(contents: Iterable[dict]) -> set[str]:
    """Names of categories without objects that are no classes.

    Those that others name as what they belong to, as Roboflow writes them, and the background.
    """
    contents = list(contents)
    used = {plain_id(entry.get("category_id")) for content in contents for entry in content["annotations"]}
    categories = [entry for content in contents for entry in content["categories"]]
    parents = {
        entry.get("supercategory") for entry in categories if entry.get("supercategory") != entry.get("name")
    }
    unused = {entry.get("name") for entry in categories if plain_id(entry.get("id")) not in used}
    return {name for name in unused if name in parents or _is_none(name)}


def _is_none(name: object) -> bool:
    """Whether a category names no object."""
    return is_background(str(name)) or name == "__ignore__"


def read_instances(
    path: Path, content: dict, unused: Collection[str] = ()
) -> tuple[tuple[ClassInfo, ...], list[Annotated], list[str]]:
    """Classes and images of an annotation file, and lines on what is odd; ids may be numbers or text.

    DataError where its entries do not fit together.
    """
    categories = [entry for entry in content["categories"] if entry.get("name") not in unused]
    try:
        categories.sort(key=lambda entry: int(entry["id"]))
        names = [category["name"].strip() for category in categories]
        mask_ids = {}
        for k, category in enumerate(categories, 1):
            first = mask_ids.setdefault(plain_id(category["id"]), k)
            if first != k:
                raise ValueError(f"{names[first - 1]} and {names[k - 1]} have one id, {category['id']}")
        classes = Manifest(path.parent, voc_classes(names)).classes
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: its {len(categories)} categories cannot be used ({type(error).__name__}: {error}): each needs a "
            "number as id and a name of its own, and 254 are possible; correct them"
        ) from error
    try:
        images = _read_images(content["images"])
        unlisted = []
        rectangles, nothing, outlined = [], [], 0
        for entry in content["annotations"]:
            label = mask_ids.get(plain_id(entry["category_id"]))
            if label is None:
                raise ValueError(f"the category_id {entry['category_id']} is no category's")
            image = images.get(plain_id(entry["image_id"]))
            if image is None:
                unlisted.append(entry["image_id"])
                continue
            area, outline = float(entry.get("area") or 0), _outline(entry.get("segmentation"))
            image.objects.append((area if 0 < area < math.inf else None, label, outline))
            outlined += bool(outline)
            if outline and image.height and _paints_nothing(outline, image):
                nothing.append(image.file)
            elif outline and _is_box(outline, entry.get("bbox")):
                rectangles.append(image.file)
        if 2 * len(unlisted) > len(content["annotations"]):
            raise ValueError(
                f"{len(unlisted)} of {len(content['annotations'])} annotations are of images that are not listed, "
                f"the first of {unlisted[0]}"
            )
        if 2 * len(nothing) > outlined:
            raise ValueError(
                f"{len(nothing)} of {outlined} outlines lie outside their pictures or in fractions of them, the first "
                f"in {nothing[0]}; they must be in pixels"
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: an entry does not fit the others ({type(error).__name__}: {error}): images need an id and a "
            "file_name of their own, height and width, annotations the image_id and category_id of listed ones; "
            "correct it"
        ) from error
    notes = []
    if unlisted:
        notes.append(
            f"{len(unlisted)} annotations are of images that are not listed, first {unlisted[0]}, and do not count"
        )
    if nothing:
        notes.append(
            f"{len(nothing)} of {outlined} outlines lie outside their pictures or in fractions of them and paint "
            f"nothing, first in {nothing[0]}: look at them"
        )
    if 10 * len(rectangles) > outlined:
        notes.append(
            f"{len(rectangles)} of {outlined} outlines are the rectangles of their boxes, first in {rectangles[0]}: if "
            "the objects are none, such masks measure boxes; empty the segmentation of these, and their tags count"
        )
    return classes, list(images.values()), notes


def _read_images(entries: list[dict]) -> dict[str, Annotated]:
    """Images without objects, by id; one without height and width can have boxes only."""
    files = [entry["file_name"].replace("\\", "/") for entry in entries]
    twice = [file for file, count in Counter(files).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]} is listed twice")
    names = unique_names([PurePosixPath(file) for file in files])
    images = {}
    for entry, file, name in zip(entries, files, names):
        height, width = (int(float(entry.get(side) or 0)) for side in ("height", "width"))
        if not 0 <= height * width <= MOST_PIXELS:
            raise ValueError(f"{PurePosixPath(file).name} has no size that a picture can have")
        image = Annotated(file, height, width, [], name)
        if images.setdefault(plain_id(entry["id"]), image) is not image:
            raise ValueError(f"the image id {entry['id']} is listed twice")
    return images


def plain_id(value: object) -> str:
    """An id as text; 5, 5.0, "5" and "05" are one, 1_1 and 11 are two."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    number = re.fullmatch(r"0*(\d+)(\.0*)?", str(value).strip())
    return number[1] if number else str(value)


def _outline(value: object) -> object:
    """An outline without its empty parts; None where nothing is left of it."""
    if isinstance(value, list):
        value = [value] if value and all(isinstance(x, int | float) for x in value) else value
        value = [part for part in value if part]
    return value or None


def _paints_nothing(outline: object, image: Annotated) -> bool:
    """Whether an outline lies outside its picture, or in fractions of it; what is no outline is found later."""
    try:
        if isinstance(outline, dict):
            runs = _runs(outline["counts"])
            return sum(runs) == image.height * image.width and not any(runs[1::2])
        xs = [x for part in outline for x in part[::2]]
        ys = [y for part in outline for y in part[1::2]]
        if min(xs) >= image.width or min(ys) >= image.height or max(xs) <= 0 or max(ys) <= 0:
            return True
        return min(*xs, *ys) >= 0 and max(*xs, *ys) <= 1 < min(image.width, image.height)
    except (TypeError, ValueError, KeyError, IndexError):
        return False


def _is_box(outline: object, box: object) -> bool:
    """Whether an outline is the rectangle that its box gives, as exports for detection write it."""
    try:
        (part,), (left, top, width, height) = outline, box
        sides = ((left, left + width), (top, top + height))
        corners = {
            tuple(abs(x - low) > abs(x - high) for x, (low, high) in zip(point, sides))
            for point in _points(part)
        }
        far = max(min(abs(x - side) for side in sides[k % 2]) for k, x in enumerate(part))
        return len(part) in (8, 10) and len(corners) == 4 and far < 0.5
    except (TypeError, ValueError):
        return False


def _points(part: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(part[::2], part[1::2]))


def paint_all(images: list[Annotated], folder: Path) -> dict[str, str]:
    """Paint the masks that `folder` lacks; what is wrong with outlines, by the mask's name."""
    jobs = []
    for image in images:
        mask = folder / f"{image.name}.png"
        if not mask.is_file():
            jobs.append(delayed(paint)(mask, image))
    results = Parallel(n_jobs=-1)(progress(jobs, f"{folder.parent.name} masks", len(jobs)))
    return {name: fault for name, fault in results if fault}


def paint(path: Path, image: Annotated) -> tuple[str, str]:
    """Write one mask, a palette PNG of mask ids in VOC's colours; its name, and what is wrong with an outline."""
    try:
        atomic_write(path, encode_mask(painted_labels(image), voc_palette()))
    except DataError as error:
        return path.stem, str(error)
    return path.stem, ""


def painted_labels(image: Annotated) -> np.ndarray:
    """(height, width) uint8 mask ids of an image's objects, larger areas first; 0 where there is none.

    DataError, without the image's name, for an image without a size and an outline that does not fit into it.
    """
    if not image.height * image.width:
        raise DataError("it has no height and width in the annotation file, so no mask; write them there")
    painted = []
    for area, label, outline in image.objects:
        try:
            mask = _inside(outline, image.height, image.width)
        except Exception as error:  # pycocotools raises many types
            raise DataError(
                f"an outline (mask id {label}) is no polygon or run lengths of {image.width} x {image.height} "
                f"pixels ({error})"
            ) from error
        painted.append((mask.sum() if area is None else area, label, mask))
    labels = np.zeros((image.height, image.width), np.uint8)
    for _, label, mask in sorted(painted, key=itemgetter(0))[::-1]:
        labels[mask] = label
    return labels


def _inside(outline: object, height: int, width: int) -> np.ndarray:
    """(height, width) bool, the pixels inside polygons or in run lengths; ValueError where they are none."""
    if isinstance(outline, dict):
        if list(outline["size"]) != [height, width]:
            raise ValueError(f"its size is {' x '.join(map(str, outline['size'][::-1]))}")
        runs = _runs(outline["counts"])
        covered = sum(map(abs, runs))
        if min(runs, default=0) < 0 or covered != height * width:
            raise ValueError(f"its runs cover {covered:,} of {height * width:,} pixels")
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    if len(outline[0]) < 6:
        raise ValueError("three points are the least of a polygon")
    for part in outline:
        if not (np.abs(np.asarray(part, float)) < FARTHEST).all():
            raise ValueError("a coordinate is no number, or far from any picture")
    return outlines.decode(outlines.merge(outlines.frPyObjects(outline, height, width))) > 0


def _runs(counts: object) -> list[int]:
    """Run lengths as numbers, also of COCO's compressed text.

    pycocotools reads them unchecked, and what they do not cover is then whatever the memory held.
    """
    if not isinstance(counts, str | bytes):
        return [int(run) for run in counts]
    digits = [ord(letter) - 48 for letter in (counts if isinstance(counts, str) else counts.decode("ascii"))]
    if digits and (not 0 <= min(digits) <= max(digits) < 64 or digits[-1] & 32):
        raise ValueError("its compressed runs are torn")
    runs, run, shift = [], 0, 0
    for digit in digits:  # five bits each, the lowest first; 32: more of this run follow, 16: it is negative
        run |= (digit & 31) << shift
        shift += 5
        if shift > 60:
            raise ValueError("its compressed runs are no numbers")
        if not digit & 32:
            if digit & 16:
                run -= 1 << shift
            runs.append(run + (runs[-2] if len(runs) > 2 else 0))
            run, shift = 0, 0
    return runs


def download_coco(raw: Path | str) -> Path:
    """Fetch COCO 2014, 21 GB, into `raw` and return it, for `find_coco`; after an interruption it goes on.

    A zip file fetched here is removed once what is wanted of it is unpacked; one that you placed is kept.
    RunError if the disk is too small (35 GB while unpacking), DownloadError or DataError for a damaged
    archive.
    """
    raw = make_folder(raw)
    with FileLock(raw / ".download.lock"):  # a second process waits, and then finds it all
        wanted = {
            raw / Path(archive.url).name: archive for archive in ARCHIVES if not _complete(raw, archive)
        }
        largest = max((archive.size for path, archive in wanted.items() if not path.exists()), default=0)
        require_space(raw.absolute(), largest + sum(archive.room for archive in wanted.values()))
        for path, archive in wanted.items():
            placed = path.exists()  # by the user, who may want to keep it
            unpack(download(archive.url, path, archive.size, archive.sha256), raw, archive.pattern)
            if not _complete(raw, archive):
                raise DataError(
                    f"{path} holds fewer than {archive.files} files {archive.pattern}; "
                    f"delete it and call again"
                )
            if not placed:
                path.unlink()
            print(f"{path.name}: unpacked in {raw}, the archive is {'kept' if placed else 'removed'}")
    return raw


def unpack(path: Path, folder: Path, pattern: str) -> None:
    """Write the members of a zip file that match `pattern` below `folder`, whole, unless they are there."""
    try:
        with ZipFile(path) as archive:
            members = [
                member for member in archive.infolist() if PurePosixPath(member.filename).match(pattern)
            ]
            for member in progress(members, f"unpack {path.name}", len(members)):
                inside = PurePosixPath(member.filename)
                target = folder / inside.parent.name / inside.name  # never outside, whatever its name is
                if not target.exists():
                    atomic_write(target, archive.read(member))
                elif target.stat().st_size != member.file_size:
                    raise DataError(
                        f"{target} is not the file in {path.name}, which has {member.file_size} bytes; "
                        f"move it away"
                    )
    except BadZipFile as error:
        raise DataError(f"{path} is no whole zip file ({error}); delete it and call again") from error


def _complete(raw: Path, archive: Archive) -> bool:
    return any(len(list(folder.glob(archive.pattern))) >= archive.files for folder in (raw, raw / "images"))
