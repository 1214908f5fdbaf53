"""Anyone's masks, by image name: a folder or archive of PNGs, COCO's outlines, or the masks of a data set."""

import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

from wsfcn_lib.data.classes import is_background
from wsfcn_lib.data.coco import Annotated, painted_labels, plain_id, read_annotations, read_instances
from wsfcn_lib.data.files import DataError, plain
from wsfcn_lib.data.images import read_mask
from wsfcn_lib.data.manifest import CLASSES_FILE, SPLITS, Manifest, read_classes
from wsfcn_lib.data.scan import SYSTEM_FOLDERS, same_name
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.evaluation.mask_archives import contents
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.paths import shell_path

TELL_IMAGES = "give an annotation file that lists the images, with id and file_name, by --categories"


class MaskFile(NamedTuple):
    """A mask that is a file, or the bytes of one in an archive."""

    path: str
    content: bytes | None = None

    def read(self, manifest: Manifest, size: tuple[int, int] | None = None) -> np.ndarray:
        """(H, W) uint8 class indices, as `read_mask` with its errors."""
        return read_mask(self.path, manifest, self.content, size)


class OutlinedMask(NamedTuple):
    """A mask that is painted from outlines or run lengths; the labels of its objects are class indices."""

    path: str
    image: Annotated

    def read(self, manifest: Manifest, size: tuple[int, int] | None = None) -> np.ndarray:
        """(H, W) uint8 class indices; DataError where an outline does not fit."""
        image = self.image
        if size and not image.height:
            image = image._replace(height=size[0], width=size[1])
        if size and (image.height, image.width) != tuple(size):
            raise DataError(
                f"{self.path}: the mask of {image.name} is {(image.width, image.height)}, "
                f"its image {size[::-1]} (width, height); make them equal"
            )
        try:
            return painted_labels(image)
        except DataError as error:
            raise DataError(f"{self.path}: {image.name}: {error}") from error


class Member(NamedTuple):
    """Where a mask of an archive lies in the file that holds all of them."""

    path: PurePosixPath
    begin: int
    size: int


class Ids(NamedTuple):
    """What the numbers in a list of COCO's results mean, by the annotation file that tells it."""

    path: Path
    categories: dict[int, str]  # names of classes
    images: dict[str, Annotated]  # by `plain_id`; empty where the file lists none


@dataclass(frozen=True)
class MaskSource:
    """The masks of one folder, archive or file."""

    path: Path
    places: dict[str, Path | Member | OutlinedMask]  # by image name
    spool: BinaryIO | None = None  # what an archive holds, unpacked into one file that vanishes by itself
    ids: Ids | None = None  # of an annotation file
    notes: tuple[str, ...] = ()

    def mask(self, name: str) -> MaskFile | OutlinedMask:
        """The mask of an image, to be read here or in another process."""
        place = self.places[name]
        if isinstance(place, Path):
            return MaskFile(str(place))
        if isinstance(place, Member):
            self.spool.seek(place.begin)
            return MaskFile(f"{self.path}: {place.path}", self.spool.read(place.size))
        return place

    def spelt_like(self, names: Collection[str]) -> "MaskSource":
        """The same with the names of `names` for those that differ from one in case or Unicode form only."""
        meant, own = defaultdict(list), Counter(map(same_name, self.places))
        for name in names:
            meant[same_name(name)].append(name)
        places = {}
        for name, place in self.places.items():
            others = meant[same_name(name)]
            if len(others) == 1 and own[same_name(name)] == 1:
                name = others[0]
            places[name] = place
        return replace(self, places=places)


def open_masks(
    given: str,
    manifest: Manifest,
    known: MaskSource | None = None,
    split: str = "val",
    ids: Ids | None = None,
) -> MaskSource:
    """The masks that a command line names; nothing is decoded yet.

    Args:
        given: a folder or archive (tar, zip) with PNGs at any depth, called as their images; a path into an
            archive (masks.tar.gz/crf) takes those of the folder that ends so, and a last "/." those of the top
            alone. A COCO file (.json): annotations, or a list of results. A folder that 01_prepare_data wrote:
            the masks of `split`.
        manifest: knows the classes.
        known: the truth; a list of results has no names of its own.
        split: of a prepared folder.
        ids: of a list of results; without them those of the truth, where that is an annotation file.

    Raises DataError for what is none of these, for no mask at all, for two masks of one image, and for a prepared
    folder of other classes.
    """
    path, inside = _located(given)
    if path.suffix.lower() == ".json":
        return _coco_source(path, manifest, known, ids)
    if is_prepared(path):
        _require_classes(path, manifest)
        if not (path / f"{split}.csv").is_file():
            raise DataError(
                f"{path}: there is no list of {split!r}; name another --split of {', '.join(SPLITS)}"
            )
        samples = Manifest.load(path).masked_samples(split)
        places = {sample.name: sample.mask for sample in samples if sample.mask}
        if not places:
            raise DataError(f"{path}: no image of {split} has a mask; name another --split")
        return MaskSource(path, places)
    return _png_source(path, inside, given)


def is_prepared(path: Path) -> bool:
    """Whether 01_prepare_data wrote a folder."""
    return (path / CLASSES_FILE).is_file() and any((path / f"{name}.csv").is_file() for name in SPLITS)


def prepared_classes(path: Path) -> Manifest:
    """The classes of a prepared folder, whose lists are not read."""
    return Manifest(path, read_classes(path / CLASSES_FILE))


def _require_classes(path: Path, manifest: Manifest) -> None:
    """DataError where a prepared folder has other classes, or other ids of them, than the manifest."""
    own = prepared_classes(path)
    if (own.names, own.mask_ids) != (manifest.names, manifest.mask_ids):
        raise DataError(
            f"{path}: its {CLASSES_FILE} has {_ids_and_names(own)}, but --classes or the truth gives "
            f"{_ids_and_names(manifest)}; leave --classes out where the truth is prepared, or prepare the folder anew "
            "with these classes"
        )


def _ids_and_names(manifest: Manifest) -> str:
    pairs = zip(manifest.mask_ids, manifest.names)
    return ", ".join(f"{number} {name}" for number, name in pairs if number)


def _located(given: str) -> tuple[Path, str]:
    """The folder or file that is named, and the folder in it; "" is any depth."""
    path = shell_path(given)
    for place in (path, *path.parents):
        if place.is_file() or place == path and place.is_dir():
            inside = path.relative_to(place).as_posix()
            return place, inside if inside != "." or given.endswith("/.") else ""
    raise DataError(
        f"{given}: there is no such folder or archive; name a folder of masks, a .tar, .tar.gz or .zip, or a "
        "COCO .json"
    )


def _png_source(path: Path, inside: str, given: str) -> MaskSource:
    others, places = Counter(), {}
    spool = None if path.is_dir() else tempfile.TemporaryFile()

    def wanted(file: PurePosixPath) -> bool:
        hidden = file.name.startswith(".") or any(part.lower() in SYSTEM_FOLDERS for part in file.parts[:-1])
        elsewhere = inside and not f"/{file.parent}".endswith(f"/{inside}")
        if len(file.parts) > 1 if inside == "." else elsewhere:
            others["in other folders"] += 1
        elif hidden or file.suffix.lower() != ".png":
            others["hidden" if hidden else file.suffix.lower() or "without ending"] += 1
        else:
            return True
        return False

    def add(file: PurePosixPath, place: Path | Member) -> None:
        if file.stem in places:
            before = places[file.stem]
            first = before.path if isinstance(before, Member) else before.relative_to(path)
            folder = file.parent if file.parent != PurePosixPath(".") else first.parent
            raise DataError(
                f"{path}: {first} and {file} are masks of one image; name the folder of the right ones, "
                f"such as {given.rstrip('/.')}/{folder}, or {given.rstrip('/.')}/. for the top alone"
            )
        places[file.stem] = place

    if spool is None:
        for file in sorted(path.rglob("*")):
            if file.is_file() and wanted(PurePosixPath(file.relative_to(path))):
                add(PurePosixPath(file.relative_to(path)), file)
    else:
        for file, content in contents(path, wanted):
            add(file, Member(file, spool.tell(), len(content)))
            spool.write(content)
    counted = ", ".join(f"{count} {kind}" for kind, count in others.most_common())
    if not places:
        advice = "name the folder of the masks"
        if others[".jpg"] + others[".jpeg"]:
            advice = "a mask stored as JPEG is not exact, its ids are blurred at every border: export PNG"
        raise DataError(f"{given}: no PNG mask lies there, only {counted or 'nothing'}; {advice}")
    return MaskSource(path, places, spool, notes=(f"{path.name}: passed over {counted}",) if counted else ())


def _coco_source(path: Path, manifest: Manifest, known: MaskSource | None, ids: Ids | None) -> MaskSource:
    content = _read_json(path)
    if isinstance(content, list):
        return _results_source(path, content, manifest, known, ids)
    content = read_annotations(path)
    classes, images, notes = read_instances(path, content)
    index_of = {info.mask_id: _index(path, info.name, manifest) for info in classes}
    places = {}
    for image in images:
        objects = [(area, index_of[label], outline) for area, label, outline in image.objects]
        places[image.name] = OutlinedMask(str(path), image._replace(objects=objects))
    return MaskSource(
        path,
        places,
        ids=_ids(path, content, images),
        notes=tuple(f"{path.name}: {note}" for note in notes),
    )


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not a whole JSON file ({error}); export it again") from error


def read_ids(path: Path) -> Ids:
    """The ids that an annotation file explains; it needs no annotations, and without images tells categories only."""
    if not path.is_file():
        raise DataError(f"--categories {path}: there is no such file; name a COCO annotation file")
    content = _read_json(path)
    lists = {}
    for key in ("categories", "images"):
        lists[key] = content.get(key, []) if isinstance(content, dict) else []
        if not isinstance(lists[key], list) or not all(isinstance(entry, dict) for entry in lists[key]):
            raise DataError(f"{path}: {key} is no list of entries with names; name a COCO annotation file")
    if not lists["categories"]:
        raise DataError(f"{path}: it has no categories; name a COCO annotation file, which lists id and name")
    _, images, _ = read_instances(path, lists | {"annotations": []})
    return _ids(path, lists, images)


def _ids(path: Path, content: dict, images: list[Annotated]) -> Ids:
    """The ids of a content that `read_instances` took, and of its images in the same order."""
    categories = {int(entry["id"]): plain(entry["name"]) for entry in content["categories"]}
    listed = {plain_id(entry["id"]): image for entry, image in zip(content["images"], images)}
    return Ids(path, categories, listed)


def _results_source(
    path: Path, entries: list, manifest: Manifest, known: MaskSource | None, ids: Ids | None
) -> MaskSource:
    """A list of {image_id, category_id, segmentation, score}; on top of others is what scores higher.

    Images without an entry are background.
    """
    if known is None:
        raise DataError(f"{path}: a list of results has no names of images, so it cannot be the truth")
    ids = ids or known.ids
    if ids is None:
        raise DataError(
            f"{path}: its category_id are ids of COCO's categories, not of masks, and the truth {known.path} does not "
            "tell their names; give the annotation file by --categories, or name it as --truth"
        )
    index_of = cache(lambda name: _index(path, name, manifest))
    meant = _listed_images(ids, known) if ids.images else _images_by_digits(known.places)
    objects, strangers = defaultdict(list), []
    for entry in entries:
        try:
            identity, category = entry["image_id"], ids.categories[int(entry["category_id"])]
            outline, score = entry["segmentation"], entry.get("score")
            rank = None if score is None else -float(score)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: an entry is no result ({type(error).__name__}: {error}): each has an image_id, a "
                f"category_id of {sorted(ids.categories)}, a segmentation and perhaps a score; correct it"
            ) from error
        name = _image_meant(path, identity, meant, known)
        if name is None:
            strangers.append(str(identity))
        else:
            objects[name].append((rank, index_of(category), outline))
    if strangers and not ids.images:
        raise DataError(
            f"{path}: {len(strangers)} of its {len(entries)} results have an image_id that fits no image of the "
            f"truth, neither its name nor its digits, first {strangers[0]}; {TELL_IMAGES}"
        )
    if not objects:
        raise DataError(f"{path}: not one of its {len(entries)} results is of an image of the truth")
    notes = [f"{path.name}: {len(known.places) - len(objects)} images have no result, so they are background"]
    if strangers:
        notes.append(
            f"{path.name}: {len(strangers)} results are of images that the truth lacks, first {strangers[0]}"
        )
    if len(objects) == len(known.places):
        del notes[0]
    places = {}
    for name in known.places:
        own = objects.get(name, [])
        sizes = [outline["size"] for _, _, outline in own if isinstance(outline, dict)]
        height, width = sizes[0] if sizes else (0, 0)
        places[name] = OutlinedMask(str(path), Annotated(name, height, width, own, name))
    return MaskSource(path, places, notes=tuple(notes))


def _image_meant(path: Path, identity: object, meant: dict[str, list[str]], known: MaskSource) -> str | None:
    """The image of the truth that an image_id means, None for none; DataError where it may be two."""
    if isinstance(identity, str) and plain_id(identity) not in meant and identity in known.places:
        return identity
    names = meant.get(plain_id(identity), [])
    if len(names) > 1:
        raise DataError(
            f"{path}: the image_id {identity} may be {names[0]} or {names[1]} of the truth; {TELL_IMAGES}"
        )
    return names[0] if names else None


def _listed_images(ids: Ids, known: MaskSource) -> dict[str, list[str]]:
    """Names of the truth's images by the ids that an annotation file lists, by their files' names."""
    alike, meant, first = defaultdict(list), {}, {}
    for name in known.places:
        alike[same_name(name)].append(name)
    for number, image in ids.images.items():
        names = alike.get(same_name(image.name)) or alike.get(same_name(PurePosixPath(image.file).stem), [])
        meant[number] = [image.name] if image.name in names else names
        for name in meant[number]:
            other = first.setdefault(name, image)
            if other is not image:
                raise DataError(
                    f"{ids.path}: {other.file} and {image.file} may both be {name} of the truth; name an annotation "
                    "file of the truth's images alone"
                )
    return meant


def _images_by_digits(names: Collection[str]) -> dict[str, list[str]]:
    """Image names by what a list of results may call them: the name, its last number, all of its digits."""
    found = defaultdict(list)
    for name in names:
        ending = re.search(r"\d+$", name)
        spellings = {name, re.sub(r"\D", "", name), ending[0] if ending else ""} - {""}
        for key in set(map(plain_id, spellings)):
            found[key].append(name)
    return dict(found)


def _index(path: Path, name: str, manifest: Manifest) -> int:
    if is_background(name):
        return 0
    if name not in manifest.names:
        raise DataError(
            f"{path}: its category {name!r} is no class; known are {', '.join(manifest.names[1:])}: "
            "correct --classes or the file"
        )
    return manifest.names.index(name)


def classes_of(text: str) -> Manifest:
    """The classes that a command line names, as a manifest without lists.

    `voc`; names with commas between them, whose ids are 1, 2, ...; a classes.json; a folder that holds one, or
    a run folder, whose data set has one. DataError for what is none of these.
    """
    if text.strip().lower() == "voc":
        return Manifest(Path("voc"), voc_classes())
    path = shell_path(text)
    if "," not in text and (path.exists() or "/" in text or text.endswith(".json")):
        file = path
        if path.is_dir():
            file = path / CLASSES_FILE
            if not file.is_file():
                file = shell_path(_data_of_run(path)) / CLASSES_FILE
        if not file.is_file():
            raise DataError(
                f"--classes {text}: {file} is missing; name voc, names with commas between them, a classes.json, "
                "or a run folder"
            )
        return Manifest(file.parent, read_classes(file))
    names = [plain(name) for name in text.split(",")]
    names = [name for number, name in enumerate(names) if number or not is_background(name)]
    if not all(names):
        raise DataError(f"--classes {text}: a name is empty; write them with one comma between them")
    try:
        return Manifest(Path("--classes"), voc_classes(names))
    except ValueError as error:
        raise DataError(f"--classes {text}: {error}") from error


def _data_of_run(path: Path) -> str:
    stages = read_run(path)["stages"]
    for stage in ("02_train", "01_prepare_data"):
        if data := stages.get(stage, {}).get("settings", {}).get("data"):
            return data
    raise DataError(f"{path}: run.json does not say which data set it is of; name its classes.json")
