"""COCO 2014: objects outlined one by one become tags, and masks of class ids painted once.

The rule of the masks is that of the conversion (coco2voc) most weakly supervised papers take their ground
truth from, so that numbers compare: every object is painted with its class, larger ones first, so that a
small object before or in a large one (a fork on a table) stays visible; of two equal areas the one listed
first is on top. Crowd regions are objects like others.
"""

import json
import os
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
from wsfcn_lib.data.images import MOST_PIXELS, encode_mask
from wsfcn_lib.data.listing import DatasetListing
from wsfcn_lib.data.manifest import ClassInfo, Sample
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write, checksum, make_folder, require_space

PUBLISHED = {"train": "82,783 and 82,081", "val": "40,504 and 40,137"}  # images listed, and with a label
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
    """An image of an annotation file, with its objects as (area, mask id, outline)."""

    file: str
    height: int
    width: int
    objects: list[tuple]


def find_coco(
    root: Path | str, masks: Path | str, splits: tuple[str, ...] = ("train", "val")
) -> DatasetListing:
    """The pictures of COCO 2014 below `root`, tagged as they are annotated; their masks are painted once.

    Args:
        root: holds annotations/instances_<split>2014.json, and the pictures in <split>2014/ or
            images/<split>2014/. Classes come in ascending category id and get the mask ids 1, 2, ... (COCO's
            own 80 ids have gaps up to 90).
        masks: where masks go, as <split>/<name>.png, unless they are there.
        splits: train or val; COCO's test images have no annotations. Training images without a label are left
            out; val keeps its own, as background only.

    Raises:
        DataError: an annotation file is missing or foreign, or a split lacks all its pictures.
    """
    listing = None
    for split in splits:
        path = Path(root) / "annotations" / f"instances_{split}2014.json"
        classes, images = read_instances(path)
        if listing is None:
            listing = DatasetListing(classes, {})
        if classes != listing.classes:
            raise DataError(
                f"{path}: its categories differ from those of {splits[0]}; take both files from one release"
            )
        folders = [Path(root) / inner / f"{split}2014" for inner in ("", "images")]
        folder = folders[1] if folders[1].is_dir() else folders[0]
        files = set(os.listdir(folder)) if folder.is_dir() else ()
        samples, painted = [], []
        for image in images:
            name = Path(image.file).stem
            labels = {label for _, label, _ in image.objects}
            if image.file not in files:
                listing.missing.append(f"{split}: {name}: {folder / image.file}")
            elif split == "train" and not labels:
                listing.untagged.append(name)
            else:
                tags = tuple(info.mask_id in labels for info in classes)
                mask = Path(masks) / split / f"{name}.png"
                samples.append(Sample(name, folder / image.file, tags, mask))
                painted.append(image)
        if not samples:
            raise DataError(
                f"none of the pictures of {path.name} is in {' or '.join(map(str, folders))}; "
                f"unpack {split}2014.zip there, or leave {split} out of splits"
            )
        paint_all(painted, Path(masks) / split, path)
        listing.splits[split] = samples
        labelled = sum(bool(image.objects) for image in images)
        listing.notes.append(
            f"{split}: {len(images):,} images listed, {labelled:,} with a label; "
            f"published: {PUBLISHED[split]}"
        )
    return listing


def read_instances(path: Path) -> tuple[tuple[ClassInfo, ...], list[Annotated]]:
    """Classes and images of an annotation file; DataError if it is missing, truncated, or no such file."""
    if not path.is_file():
        raise DataError(
            f"{path} is missing; name the folder that holds COCO's annotations/, "
            f"or fetch it with download_coco"
        )
    print(f"reading {path.name}")
    try:
        content = json.loads(path.read_bytes())
        categories = sorted(content["categories"], key=itemgetter("id"))
        mask_ids = {category["id"]: k for k, category in enumerate(categories, 1)}
        classes = voc_classes([category["name"] for category in categories])
        images = {}
        for entry in content["images"]:
            file = PurePosixPath(entry["file_name"]).name
            image = Annotated(file, int(entry["height"]), int(entry["width"]), [])
            if not 0 < image.height * image.width <= MOST_PIXELS:
                raise ValueError(f"{file} has no size that a picture can have")
            images[entry["id"]] = image
        for entry in content["annotations"]:
            thing = (entry["area"], mask_ids[entry["category_id"]], entry["segmentation"])
            images[entry["image_id"]].objects.append(thing)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no whole file of COCO instances: categories, images, and annotations that fit them "
            f"({type(error).__name__}: {error}); remove it and fetch it with download_coco"
        ) from error
    return classes, list(images.values())


def paint_all(images: list[Annotated], folder: Path, path: Path) -> None:
    """Paint the masks that `folder` lacks; DataError if it holds those of another annotation file."""
    record = folder / "painted_from.txt"
    source = f"{checksum(path)} {RULE}\n"
    if record.is_file() and record.read_text() != source:
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
    Parallel(n_jobs=-1)(progress(jobs, f"{folder.name} masks", len(jobs)))


def paint(path: Path, image: Annotated) -> None:
    """Write one mask, a palette PNG of mask ids in VOC's colours."""
    coco = COCO()
    coco.imgs = {0: {"height": image.height, "width": image.width}}
    labels = np.zeros((image.height, image.width), np.uint8)
    for area, label, outline in sorted(image.objects, key=itemgetter(0))[::-1]:
        try:
            labels[coco.annToMask({"image_id": 0, "segmentation": outline}) > 0] = label
        except Exception as error:  # pycocotools raises many types
            raise DataError(
                f"{path.stem}: an outline (area {area}, mask id {label}) is no polygon or run lengths "
                f"of {image.width} x {image.height} pixels ({error}); fetch the annotations again"
            ) from error
    atomic_write(path, encode_mask(labels, voc_palette()))


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
