"""COCO 2014: objects outlined one by one become tags, and masks of class ids painted once.

The rule of the masks is that of the conversion (coco2voc) most weakly supervised papers take their ground
truth from, so that numbers compare: every object is painted with its class, larger ones first, so that a
small object before or in a large one (a fork on a table) stays visible; of two equal areas the one listed
first is on top. Crowd regions are objects like others.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
from filelock import FileLock
from joblib import Parallel, delayed
from pycocotools.coco import COCO

from wsfcn_lib.data.classes import is_background, voc_palette
from wsfcn_lib.data.downloads import download
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import MOST_PIXELS, PICTURES, encode_mask
from wsfcn_lib.data.listing import MASKLESS, DatasetListing
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample
from wsfcn_lib.data.scan import same_name
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write, checksum, make_folder, require_space

PUBLISHED = {"train": "82,783 and 82,081", "val": "40,504 and 40,137"}  # images listed, and with a label
# folders of exports, each with its own annotations
EXPORTED = ({"train": "train", "val": "valid"}, {"train": "train", "val": "val"})
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


def layouts_of(root: Path, splits: Sequence[str]) -> dict[str, Layout]:
    """The files of the splits, all of one kind: COCO 2014, COCO 2017, or an export of a labelling tool.

    Kinds are never mixed: the training pictures of one year contain most of the other's validation. DataError
    where no kind has all splits.
    """
    kinds = []
    for year in ("2014", "2017", ""):
        layouts = {}
        for split in splits:
            folders = (root / f"{split}{year}", root / "images" / f"{split}{year}")
            layouts[split] = Layout(root / "annotations" / f"instances_{split}{year}.json", folders)
        kinds.append(layouts)
    for names in EXPORTED:
        folders = {split: root / names[split] for split in splits}
        kinds.append(
            {s: Layout(folder / "_annotations.coco.json", (folder,)) for s, folder in folders.items()}
        )
    for layouts in kinds:
        if all(layout.annotations.is_file() for layout in layouts.values()):
            return layouts
    wanted = "; ".join(
        " and ".join(str(layout.annotations.relative_to(root)) for layout in layouts.values())
        for layouts in kinds
    )
    there = sorted(str(path.relative_to(root)) for path in root.glob("**/*.json"))[:5]
    raise DataError(
        f"{root} has none of the annotations that belong together ({wanted}); JSON files there: {there or 'none'}. "
        "Name the folder that holds annotations/, or rename the files so (an export in one file must be exported "
        "in parts), or set download for COCO 2014"
    )


def find_coco(
    root: Path | str, masks: Path | str, splits: tuple[str, ...] = ("train", "val")
) -> DatasetListing:
    """The pictures of COCO below `root`, tagged as they are annotated; their masks are painted once.

    Args:
        root: as `layouts_of` says; for COCO 2014 annotations/instances_<split>2014.json, and the pictures in
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
    layouts = layouts_of(root, splits)
    contents = {split: _read_json(layout.annotations) for split, layout in layouts.items()}
    headings = _headings(contents.values())
    for split, (path, folders) in layouts.items():
        classes, images = read_instances(path, contents.pop(split), headings)
        if listing is None:
            listing = DatasetListing(classes, {})
            if headings:
                listing.notes.append(
                    f"no classes, but background or headings of others: {', '.join(sorted(headings))}"
                )
        if classes != listing.classes:
            raise DataError(
                f"{path}: its categories differ from those of {splits[0]}; take both files from one release"
            )
        source = f"{checksum(path)} {RULE}"
        if headings:  # the ids in the masks depend on them
            source += f", without {', '.join(sorted(headings))}"
        _list_split(listing, split, path, folders, images, Path(masks) / split, source)
    return listing


def _list_split(
    listing: DatasetListing,
    split: str,
    path: Path,
    folders: tuple[Path, ...],
    images: list[Annotated],
    masks: Path,
    source: str,
) -> None:
    """Add the samples of a split to the listing, and paint their masks."""
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    if not any(image.objects for image in images):
        raise DataError(
            f"{path}: lists {len(images)} pictures and no annotation of any; annotate some, "
            f"or leave {split} out of splits"
        )
    files = _Pictures(folder)
    samples, painted, boxes = [], [], 0
    for image in images:
        name = PurePosixPath(image.file).stem
        labels = {label for _, label, _ in image.objects}
        file = files.take(image.file)
        if file is None:
            listing.missing.append(f"{split}: {name}: {folder / PurePosixPath(image.file).name}")
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
        raise DataError(
            f"{path}: lists {len(images)} pictures, none of them is in {' or '.join(map(str, folders))}; "
            f"put the pictures there, or leave {split} out of splits"
        )
    faults = paint_all(painted, masks, path, source)
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
    else:
        note += f", by {path.name}, which is not COCO 2014's"
    listing.notes.append(note)
    if boxes:
        use = "their tags train" if split == "train" else "they measure tags only"
        listing.notes.append(f"{split}: {boxes} images have objects without an outline, so no mask: {use}")
    if files.left:
        listing.notes.append(
            f"{split}: {len(files.left)} pictures are not in {path.name}, first {min(files.left)}"
        )


class _Pictures:
    """The pictures below a folder, by the names of annotation files; `left` are those that none has taken."""

    def __init__(self, folder: Path):
        self.left = set()
        self._alike = defaultdict(list)
        for inner, _, files in os.walk(folder):
            for name in files:
                if Path(name).suffix.lower() in PICTURES:
                    path = (Path(inner) / name).relative_to(folder).as_posix()
                    self.left.add(path)
                    self._alike[same_name(path)].append(path)

    def take(self, written: str) -> str | None:
        """The file that is meant, relative to the folder; a name may hold folders above it, in other spelling."""
        parts = PurePosixPath(written).parts
        for first in range(len(parts)):
            path = "/".join(parts[first:])
            meant = [path] if path in self._alike[same_name(path)] else self._alike[same_name(path)]
            if len(meant) == 1:
                self.left.discard(meant[0])
                return meant[0]
        return None


def _read_json(path: Path) -> dict:
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


def _headings(contents: Iterable[dict]) -> set[str]:
    """Names of categories without objects: the background, and what others belong to, as Roboflow writes it."""
    contents = list(contents)
    used = {str(entry.get("category_id")) for content in contents for entry in content["annotations"]}
    categories = [entry for content in contents for entry in content["categories"]]
    parents = {
        entry.get("supercategory") for entry in categories if entry.get("supercategory") != entry.get("name")
    }
    unused = {entry.get("name") for entry in categories if str(entry.get("id")) not in used}
    return {name for name in unused if name in parents or is_background(str(name))}


def read_instances(
    path: Path, content: dict, headings: Collection[str] = ()
) -> tuple[tuple[ClassInfo, ...], list[Annotated]]:
    """Classes and images of an annotation file; ids may be numbers or text. DataError where they do not fit."""
    categories = [entry for entry in content["categories"] if entry.get("name") not in headings]
    try:
        categories.sort(key=lambda entry: int(entry["id"]))
        mask_ids = {_id(category["id"]): k for k, category in enumerate(categories, 1)}
        classes = Manifest(path.parent, voc_classes([category["name"] for category in categories])).classes
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: its {len(categories)} categories cannot be used ({type(error).__name__}: {error}): each needs a "
            "number as id and a name of its own, and 254 are possible; correct them"
        ) from error
    try:
        images, names = {}, {}
        for entry in content["images"]:
            file = entry["file_name"].replace("\\", "/")
            image = Annotated(file, int(entry["height"]), int(entry["width"]), [])
            if not 0 < image.height * image.width <= MOST_PIXELS:
                raise ValueError(f"{PurePosixPath(file).name} has no size that a picture can have")
            if _id(entry["id"]) in images:
                raise ValueError(f"the image id {entry['id']} is listed twice")
            other = names.setdefault(same_name(PurePosixPath(file).stem), file)
            if other is not file:
                raise ValueError(f"{other} and {file} would share one name and mask")
            images[_id(entry["id"])] = image
        for entry in content["annotations"]:
            area = entry.get("area")
            thing = (
                None if area is None else float(area),
                mask_ids[_id(entry["category_id"])],
                entry.get("segmentation"),
            )
            images[_id(entry["image_id"])].objects.append(thing)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: an entry does not fit the others ({type(error).__name__}: {error}): images need an id and a "
            "file_name of their own, height and width, annotations the image_id and category_id of listed ones; "
            "correct it"
        ) from error
    return classes, list(images.values())


def _id(value: object) -> str:
    """An id as text; 5, 5.0, "5" and "05" are one."""
    try:
        return str(int(float(value)))
    except (TypeError, ValueError):
        return str(value)


def paint_all(images: list[Annotated], folder: Path, path: Path, source: str) -> dict[str, str]:
    """Paint the masks that `folder` lacks; DataError if it holds those of another annotation file.

    `source` says what masks of this file are painted from, and by which rule. Returns what is wrong with outlines, by the image's name.
    """
    record = folder / "painted_from.txt"
    if record.is_file() and record.read_text("utf-8").rstrip("\n") != source:
        raise DataError(
            f"{folder} holds masks painted from another annotation file than {path}, or by another rule; "
            f"move it away, or name another folder for the masks"
        )
    atomic_write(record, f"{source}\n")
    jobs = []
    for image in images:
        mask = folder / f"{PurePosixPath(image.file).stem}.png"
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
            if mask.shape != (image.height, image.width):
                raise ValueError(f"its size is {mask.shape[1]} x {mask.shape[0]}")
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
