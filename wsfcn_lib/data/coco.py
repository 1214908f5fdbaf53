"""COCO 2014: objects outlined one by one become tags, and masks of class ids painted once.

The rule of the masks is that of the conversion (coco2voc) most weakly supervised papers take their ground
truth from, so that numbers compare: every object is painted with its class, larger ones first, so that a
small object before or in a large one (a fork on a table) stays visible; of two equal areas the one listed
first is on top. Crowd regions are objects like others.
"""

import json
import os
from collections.abc import Collection, Iterable
from dataclasses import replace
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
from filelock import FileLock
from joblib import Parallel, delayed
from pycocotools.coco import COCO

from wsfcn_lib.data.classes import voc_palette
from wsfcn_lib.data.downloads import download
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import MOST_PIXELS, PICTURES, encode_mask
from wsfcn_lib.data.listing import MASKLESS, DatasetListing
from wsfcn_lib.data.manifest import ClassInfo, Sample
from wsfcn_lib.data.scan import same_name
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write, checksum, make_folder, require_space

PUBLISHED = {"train": "82,783 and 82,081", "val": "40,504 and 40,137"}  # images listed, and with a label
EXPORTED = {"train": ("train",), "val": ("valid", "val")}  # folders of exports, each with its own annotations
RULE = "rule 1"  # raise it when masks come to be painted differently


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


class Layout(NamedTuple):
    """Where the annotations of a split lie, and the folders in which its pictures may be."""

    annotations: Path
    pictures: tuple[Path, ...]


def layout_of(root: Path, split: str) -> Layout:
    """The files of a split, as COCO 2014, COCO 2017 or an export of a labelling tool has them.

    DataError where none of them is there.
    """
    layouts = []
    for year in ("2014", "2017", ""):
        folders = (root / f"{split}{year}", root / "images" / f"{split}{year}")
        layouts.append(Layout(root / "annotations" / f"instances_{split}{year}.json", folders))
    for name in EXPORTED[split]:
        layouts.append(Layout(root / name / "_annotations.coco.json", (root / name,)))
    for layout in layouts:
        if layout.annotations.is_file():
            return layout
    there = sorted(str(path.relative_to(root)) for path in root.glob("**/*.json"))[:5]
    raise DataError(
        f"{layouts[0].annotations} is missing, and so are the names of COCO 2017 and of exports "
        f"({', '.join(str(layout.annotations.relative_to(root)) for layout in layouts[1:])}); "
        f"JSON files there: {there or 'none'}. Name the folder that holds annotations/, rename a file so, "
        "or set download for COCO 2014"
    )


def find_coco(
    root: Path | str, masks: Path | str, splits: tuple[str, ...] = ("train", "val")
) -> DatasetListing:
    """The pictures of COCO below `root`, tagged as they are annotated; their masks are painted once.

    Args:
        root: as `layout_of` says; for COCO 2014 annotations/instances_<split>2014.json, and the pictures in
            <split>2014/ or images/<split>2014/. Classes come in ascending category id and get the mask ids
            1, 2, ... (COCO's own 80 ids have gaps up to 90); a category that is only the heading of others
            is none.
        masks: where masks go, as <split>/<name>.png, unless they are there. An image with an object that has
            no outline, only a box, has no mask.
        splits: train or val; COCO's test images have no annotations. Training images without a label are left
            out; val keeps its own, as background only.

    Raises:
        DataError: an annotation file is missing or foreign, or a split lacks all its pictures.
    """
    root, listing = Path(root), None
    layouts = {split: layout_of(root, split) for split in splits}
    contents = {split: _read_json(layout.annotations) for split, layout in layouts.items()}
    headings = _headings(contents.values())
    for split, (path, folders) in layouts.items():
        classes, images = read_instances(path, contents.pop(split), headings)
        if listing is None:
            listing = DatasetListing(classes, {})
            if headings:
                listing.notes.append(f"no classes, but headings of others: {', '.join(sorted(headings))}")
        if classes != listing.classes:
            raise DataError(
                f"{path}: its categories differ from those of {splits[0]}; take both files from one release"
            )
        _list_split(listing, split, path, folders, images, Path(masks) / split)
    return listing


def _list_split(
    listing: DatasetListing,
    split: str,
    path: Path,
    folders: tuple[Path, ...],
    images: list[Annotated],
    masks: Path,
) -> None:
    """Add the samples of a split to the listing, and paint their masks."""
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    files = {same_name(name): name for name in os.listdir(folder)} if folder.is_dir() else {}
    samples, painted, boxes = [], [], 0
    for image in images:
        name = Path(image.file).stem
        labels = {label for _, label, _ in image.objects}
        file = files.pop(same_name(image.file), None)
        if file is None:
            listing.missing.append(f"{split}: {name}: {folder / image.file}")
        elif split == "train" and not labels:
            listing.untagged.append(name)
        else:
            tags = tuple(info.mask_id in labels for info in listing.classes)
            outlined = all(outline for _, _, outline in image.objects)
            boxes += not outlined
            samples.append(Sample(name, folder / file, tags, masks / f"{name}.png" if outlined else None))
            if outlined:
                painted.append(image)
    if not samples:
        labelled = sum(bool(image.objects) for image in images)
        reason = f"none of them is in {' or '.join(map(str, folders))}; put the pictures there"
        if len(listing.untagged) and not labelled:
            reason = "and no annotation of any; annotate some"
        raise DataError(f"{path}: lists {len(images)} pictures, {reason}, or leave {split} out of splits")
    faults = paint_all(painted, masks, path)
    for sample in samples:
        fault = faults.get(sample.name)
        if fault:
            line = f"{split}: {sample.name}: {fault}"
            listing.missing.append(f"{line}; {MASKLESS}" if split == "train" else line)
    kept = []
    for sample in samples:
        if sample.name not in faults:
            kept.append(sample)
        elif split == "train":
            kept.append(replace(sample, mask=None))
    listing.splits[split] = kept
    labelled = sum(bool(image.objects) for image in images)
    note = f"{split}: {len(images):,} images listed, {labelled:,} with a label"
    if path.name == f"instances_{split}2014.json":
        note += f"; published: {PUBLISHED[split]}"
    listing.notes.append(note)
    if boxes:
        listing.notes.append(
            f"{split}: {boxes} images have objects without an outline, so no mask: they train by their tags, "
            "and measure tags only"
        )
    pictures = [name for name in files.values() if Path(name).suffix.lower() in PICTURES]
    if pictures:
        listing.notes.append(
            f"{split}: {len(pictures)} pictures are not in {path.name}, first {min(pictures)}"
        )


def _read_json(path: Path) -> dict:
    """The content of an annotation file; DataError if it is truncated or no such file."""
    print(f"reading {path.name}")
    try:
        content = json.loads(path.read_bytes())
        for key in ("categories", "images", "annotations"):
            if not isinstance(content[key], list):
                raise TypeError(f"{key} is no list")
        return content
    except (ValueError, KeyError, TypeError) as error:
        advice = "export it again from the program that made it"
        if path.name.endswith("2014.json"):
            advice = "if it is COCO's own and torn, fetch it again with download_coco"
        raise DataError(
            f"{path} is no whole file of COCO instances, with the lists categories, images and annotations "
            f"({type(error).__name__}: {error}); {advice}"
        ) from error


def _headings(contents: Iterable[dict]) -> set[str]:
    """Names of categories without objects that others name as what they belong to, as Roboflow writes them."""
    contents = list(contents)
    used = {str(entry.get("category_id")) for content in contents for entry in content["annotations"]}
    categories = [entry for content in contents for entry in content["categories"]]
    parents = {
        entry.get("supercategory") for entry in categories if entry.get("supercategory") != entry.get("name")
    }
    unused = {entry.get("name") for entry in categories if str(entry.get("id")) not in used}
    return unused & parents


def read_instances(
    path: Path, content: dict, headings: Collection[str] = ()
) -> tuple[tuple[ClassInfo, ...], list[Annotated]]:
    """Classes and images of an annotation file; ids may be numbers or text. DataError where they do not fit."""
    try:
        categories = [entry for entry in content["categories"] if entry["name"] not in headings]
        categories.sort(key=lambda entry: int(entry["id"]))
        mask_ids = {str(category["id"]): k for k, category in enumerate(categories, 1)}
        classes = voc_classes([category["name"] for category in categories])
        images = {}
        for entry in content["images"]:
            file = PurePosixPath(entry["file_name"].replace("\\", "/")).name
            image = Annotated(file, int(entry["height"]), int(entry["width"]), [])
            if not 0 < image.height * image.width <= MOST_PIXELS:
                raise ValueError(f"{file} has no size that a picture can have")
            images[str(entry["id"])] = image
        for entry in content["annotations"]:
            thing = (entry.get("area"), mask_ids[str(entry["category_id"])], entry.get("segmentation"))
            images[str(entry["image_id"])].objects.append(thing)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: an entry does not fit the others ({type(error).__name__}: {error}): images need id, "
            "file_name, height and width, annotations the image_id and category_id of listed ones; correct it"
        ) from error
    if not classes:
        raise DataError(f"{path}: it names no categories; export the classes too")
    return classes, list(images.values())


def paint_all(images: list[Annotated], folder: Path, path: Path) -> dict[str, str]:
    """Paint the masks that `folder` lacks; DataError if it holds those of another annotation file.

    Returns what is wrong with outlines, by the image's name.
    """
    record = folder / "painted_from.txt"
    source = f"{checksum(path)} {RULE}\n"
    if record.is_file() and record.read_text("utf-8") != source:
        raise DataError(
            f"{folder} holds masks painted from another annotation file than {path}, or by another rule; "
            f"move it away, or name another folder for the masks"
        )
    atomic_write(record, source)
    jobs = []
    for image in images:
        mask = folder / f"{Path(image.file).stem}.png"
        if not mask.is_file():
            jobs.append(delayed(paint)(mask, image))
    results = Parallel(n_jobs=-1)(progress(jobs, f"{folder.name} masks", len(jobs)))
    return {name: fault for name, fault in results if fault}


def paint(path: Path, image: Annotated) -> tuple[str, str]:
    """Write one mask, a palette PNG of mask ids in VOC's colours; its name, and what is wrong with an outline."""
    coco = COCO()
    coco.imgs = {0: {"height": image.height, "width": image.width}}
    outlines = []
    for area, label, outline in image.objects:
        try:
            mask = coco.annToMask({"image_id": 0, "segmentation": outline}) > 0
        except Exception as error:  # pycocotools raises many types
            return path.stem, (
                f"an outline (mask id {label}) is no polygon or run lengths of {image.width} x {image.height} "
                f"pixels ({error})"
            )
        outlines.append((mask.sum() if area is None else area, label, mask))
    labels = np.zeros((image.height, image.width), np.uint8)
    for _, label, mask in sorted(outlines, key=itemgetter(0))[::-1]:
        labels[mask] = label
    atomic_write(path, encode_mask(labels, voc_palette()))
    return path.stem, ""


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
