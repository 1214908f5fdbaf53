"""COCO 2014: objects outlined one by one become tags, and masks of class ids painted once.

The rule of the masks is that of the conversion (coco2voc) most weakly supervised papers take their ground truth from, so that
numbers compare: every object is painted with its class, larger ones first, so that a small object before or in a large one
(a fork on a table) stays visible; of two equal areas the one listed first is on top. Crowd regions are objects like others.
"""

import hashlib
import json
import os
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
from joblib import Parallel, delayed
from PIL import Image
from pycocotools.coco import COCO
from tqdm.utils import CallbackIOWrapper

from wsfcn_lib.data.classes import voc_colour, voc_palette
from wsfcn_lib.data.downloads import fetch
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import MOST_PIXELS, encode
from wsfcn_lib.data.listing import DatasetListing
from wsfcn_lib.data.manifest import ClassInfo, Sample
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write, make_folder, require_space

PUBLISHED = {"train": "82,783 and 82,081", "val": "40,504 and 40,137"}
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
    Archive("http://images.cocodataset.org/annotations/annotations_trainval2014.zip", 252_872_794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009", "annotations/instances_*2014.json", 2, 0.8e9),
    Archive("http://images.cocodataset.org/zips/train2014.zip", 13_510_573_713,
            "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775", "train2014/*.jpg", 82783, 13.7e9),
    Archive("http://images.cocodataset.org/zips/val2014.zip", 6_645_013_297,
            "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0", "val2014/*.jpg", 40504, 6.8e9),
)  # fmt: skip


class Instances(NamedTuple):
    """An annotation file: images as (id, file name, height, width), and by image id its objects as (area, mask id, outline)."""

    path: Path
    classes: tuple[ClassInfo, ...]
    images: list[tuple]
    objects: dict[int, list[tuple]]
    checksum: str


def find_coco(
    root: Path | str, masks: Path | str, splits: tuple[str, ...] = ("train", "val")
) -> DatasetListing:
    """The pictures of COCO 2014 below `root`, tagged with the classes of their annotations; their masks are painted once.

    `root` holds annotations/instances_<split>2014.json and the pictures in <split>2014/ or images/<split>2014/. Classes come
    in ascending category id and get the mask ids 1, 2, ... (COCO's own 80 ids have gaps up to 90). Masks go to
    `masks`/<split>/<name>.png, unless they are there and whole. Training images without a label are left out; val keeps its
    own, as background only. DataError where an annotation file is missing or foreign, or a split lacks all its pictures.
    """
    classes, found, missing, untagged, notes = None, {}, [], [], []
    if not splits or set(splits) - set(PUBLISHED):
        raise DataError(
            f"splits={splits}: choose from {', '.join(PUBLISHED)}, as COCO's test images have no annotations"
        )
    for split in splits:
        listed = read_instances(Path(root) / "annotations" / f"instances_{split}2014.json")
        if classes not in (None, listed.classes):
            raise DataError(
                f"{listed.path}: its categories differ from those of {splits[0]}; take both files from one release"
            )
        classes = listed.classes
        places = [Path(root) / inner / f"{split}2014" for inner in ("", "images")]
        home = next((place for place in places if place.is_dir()), places[0])
        there = set(os.listdir(home)) if home.is_dir() else set()
        blank = [
            Path(name).stem for key, name, *_ in listed.images if not listed.objects[key] and name in there
        ]
        missing += [
            f"{split}: {Path(name).stem}: {home / name}" for _, name, *_ in listed.images if name not in there
        ]
        wanted = [
            image
            for image in listed.images
            if image[1] in there and (listed.objects[image[0]] or split != "train")
        ]
        if not wanted:
            text = f"none of the pictures of {listed.path.name} is in {' or '.join(map(str, places))}"
            raise DataError(f"{text}; unpack {split}2014.zip there, or leave {split} out of splits")
        found[split] = paint_all(listed, wanted, home, Path(masks) / split)
        untagged += blank if split == "train" else []
        labelled = sum(map(bool, listed.objects.values()))
        notes.append(
            f"{split}: {len(listed.images):,} images listed, {labelled:,} with a label; published: {PUBLISHED[split]}"
        )
    return DatasetListing(classes, found, missing, untagged, notes)


def read_instances(path: Path) -> Instances:
    """Read an annotation file; DataError if it is missing, truncated, or holds no instances."""
    if not path.is_file():
        raise DataError(
            f"{path} is missing; name the folder that holds COCO's annotations/, or fetch it with download_coco"
        )
    try:
        with (
            progress(None, path.name, path.stat().st_size, unit="B", unit_scale=True) as bar,
            open(path, "rb") as file,
        ):
            data = CallbackIOWrapper(bar.update, file).read()
        content = json.loads(data)
        categories = sorted(content["categories"], key=itemgetter("id"))
        number = {category["id"]: k for k, category in enumerate(categories, 1)}
        classes = tuple(
            ClassInfo(name=c["name"], mask_id=k, colour=voc_colour(k)) for k, c in enumerate(categories, 1)
        )
        images = [
            (i["id"], PurePosixPath(i["file_name"]).name, int(i["height"]), int(i["width"]))
            for i in content["images"]
        ]
        if huge := [name for _, name, height, width in images if not 0 < height * width <= MOST_PIXELS]:
            raise ValueError(f"{huge[0]} has no size that a picture can have")
        objects = {image[0]: [] for image in images}
        for a in content["annotations"]:
            objects[a["image_id"]].append((a["area"], number[a["category_id"]], a["segmentation"]))
    except (ValueError, KeyError, TypeError) as error:
        text = f"{path} is no whole file of COCO instances: categories, images, and annotations that fit them"
        raise DataError(
            f"{text} ({type(error).__name__}: {error}); remove it and fetch it with download_coco"
        ) from error
    return Instances(path, classes, images, objects, hashlib.sha256(data).hexdigest())


def paint_all(listed: Instances, wanted: list[tuple], home: Path, folder: Path) -> list[Sample]:
    """Samples of the `wanted` images, whose masks `folder` gets unless it has them; DataError if it was painted otherwise."""
    make_folder(folder)
    record, wish = folder / "painted_from.txt", f"{listed.checksum} {RULE}\n"
    if record.is_file() and record.read_text() != wish:
        text = f"{folder} holds masks painted from another annotation file than {listed.path}, or by another rule"
        raise DataError(f"{text}; delete it, or name another folder for the masks")
    atomic_write(record, wish)
    samples, jobs = [], []
    for key, name, *size in wanted:
        shown = {label for _, label, _ in listed.objects[key]}
        tags, mask = (
            tuple(k in shown for k in range(1, len(listed.classes) + 1)),
            folder / f"{Path(name).stem}.png",
        )
        samples.append(Sample(mask.stem, home / name, tags, mask))
        jobs.append((mask, *size, listed.objects[key]))
    bar = progress(jobs, f"{folder.name} masks", len(jobs))
    Parallel(n_jobs=-1)(delayed(paint)(*job) for job in bar if not _whole(*job[:3]))
    return samples


def paint(path: Path, height: int, width: int, objects: list[tuple]) -> None:
    """Write one mask, a palette PNG of mask ids in VOC's colours, from objects (area, mask id, outline)."""
    coco, labels = COCO(), np.zeros((height, width), np.uint8)
    coco.imgs = {0: {"height": height, "width": width}}
    for area, label, outline in sorted(objects, key=itemgetter(0))[::-1]:
        try:
            labels[coco.annToMask({"image_id": 0, "segmentation": outline}) > 0] = label
        except Exception as error:  # pycocotools raises many types
            text = f"an outline (area {area}, mask id {label}) is no polygon or run lengths of {width} x {height} pixels"
            raise DataError(f"{path.stem}: {text} ({error}); fetch the annotations again") from error
    mask = Image.fromarray(labels)
    mask.putpalette(voc_palette())
    atomic_write(path, encode(mask, "PNG"))


def download_coco(raw: Path | str) -> Path:
    """Fetch COCO 2014 into `raw`, 21 GB, and return it, ready for `find_coco`; a call after an interruption goes on.

    A zip file fetched here is removed once what is wanted of it is unpacked; one that you placed is kept. RunError if the disk
    is too small (35 GB while unpacking), DownloadError or DataError for a damaged archive.
    """
    raw = Path(raw)
    left = {raw / Path(archive.url).name: archive for archive in ARCHIVES if not _complete(raw, archive)}
    absent = [archive.size for path, archive in left.items() if not path.exists()]
    require_space(raw.absolute(), sum(archive.room for archive in left.values()) + max(absent, default=0))
    for path, archive in left.items():
        placed = path.exists()  # by the user, who may want to keep it
        unpack(fetch(archive.url, path, archive.size, archive.sha256), raw, archive.pattern)
        if not _complete(raw, archive):
            raise DataError(
                f"{path} holds fewer than {archive.files} files {archive.pattern}; delete it and call again"
            )
        if not placed:
            path.unlink()
        print(f"{path.name}: unpacked in {raw}, the archive is {'kept' if placed else 'removed'}")
    return raw


def unpack(path: Path, folder: Path, pattern: str) -> None:
    """Write the members of a zip file that match `pattern` into `folder`, whole or not at all; those there are kept."""
    try:
        with ZipFile(path) as archive:
            members = [
                member for member in archive.infolist() if PurePosixPath(member.filename).match(pattern)
            ]
            for member in progress(members, f"unpack {path.name}", len(members)):
                target = folder / member.filename
                if not target.resolve().is_relative_to(folder.resolve()):
                    raise DataError(
                        f"{path}: its member {member.filename} would lie outside {folder}; delete it, fetch it again"
                    )
                if target.exists() and target.stat().st_size != member.file_size:
                    raise DataError(
                        f"{target} is not the file in {path.name}, which has {member.file_size} bytes; move it away"
                    )
                if not target.exists():
                    atomic_write(target, archive.read(member))
    except BadZipFile as error:
        raise DataError(f"{path} is no whole zip file ({error}); delete it and call again") from error


def _complete(raw: Path, archive: Archive) -> bool:
    return any(len(list(place.glob(archive.pattern))) >= archive.files for place in (raw, raw / "images"))


def _whole(path: Path, height: int, width: int) -> bool:
    """Whether a PNG of this size is there, to its last chunk."""
    data = path.read_bytes() if path.is_file() else b""
    return data[16:24] == width.to_bytes(4) + height.to_bytes(4) and data.endswith(b"IEND\xaeB`\x82")
