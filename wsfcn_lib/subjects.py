"""The pictures an evaluation looks at: a split, a list of image names, or any folder of pictures without tags and masks."""

import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from wsfcn_lib.data.manifest import SPLITS, ClassInfo, DataError, Manifest, Sample
from wsfcn_lib.data.selection import read_list
from wsfcn_lib.runs import ROOT

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def samples_of(images: str, manifest: Manifest, root: Path = ROOT) -> list[Sample]:
    """The pictures that `images` names, with their masks where the manifest knows them (opened by evaluation only).

    `images` is a split; or a path, from `root`: a list file with one image name a line, of any split, in its order; or a
    folder, whose pictures come sorted, without tags and masks (sub-folders are left alone), or one picture.
    Raises DataError for what is none of these, and for names that are unknown or stand for two pictures.
    """
    if images in SPLITS:
        return _split(images, manifest)
    path = root / Path(images).expanduser()
    if path.is_dir() or path.suffix.lower() in PICTURES and path.is_file():
        return _pictures(path, manifest)
    if path.is_file():
        return _listed(path, manifest)
    raise DataError(f"images={images!r} is no split ({', '.join(SPLITS)}), and no list or folder lies at {path}; correct it")


def label_of(images: str, root: Path = ROOT) -> str:
    """What `images` is called in file names and metrics.json: the split, or a list's or folder's name without its path."""
    if images in SPLITS:
        return images
    path = Path(os.path.abspath(root / Path(images).expanduser()))
    return path.stem if path.stem not in SPLITS else f"{path.parent.name}_{path.stem}"  # a list called val is not the split


def manifest_of(classes: list[dict], folder: Path | str = ROOT) -> Manifest:
    """A manifest without lists, from the classes that `load_snapshot` returns: enough for pictures that have no data set."""
    return Manifest(Path(folder), tuple(ClassInfo(**entry) for entry in classes))


def _split(split: str, manifest: Manifest) -> list[Sample]:
    samples = manifest.samples(split)
    if split == "train":
        masks = manifest.train_masks()
        samples = [replace(sample, mask=masks.get(sample.name)) for sample in samples]
    return samples


def _listed(path: Path, manifest: Manifest) -> list[Sample]:
    known, names = defaultdict(list), read_list(path)
    for sample in (sample for split in manifest.splits for sample in _split(split, manifest)):
        known[sample.name].append(sample)
    if unknown := [name for name in names if name not in known]:
        counts = f"{len(unknown)} of its {len(names)} names are unknown, first {unknown[0]!r}"
        raise DataError(f"{path}: {counts}; name images of {manifest.folder}, without their endings")
    if double := [name for name in names if len({sample.image for sample in known[name]}) > 1]:
        raise DataError(f"{path}: {double[0]!r} stands for two pictures of {manifest.folder}; rename one of them, prepare again")
    return [next((sample for sample in known[name] if sample.mask), known[name][0]) for name in names]


def _pictures(path: Path, manifest: Manifest) -> list[Sample]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix.lower() in PICTURES and file.name[0] != "." and file.is_file()]
    if not files:
        raise DataError(f"{path}: there is no picture in this folder; known endings are {', '.join(PICTURES)}")
    first = {}
    for file in files:
        if (other := first.setdefault(file.stem, file)) != file:
            raise DataError(f"{path}: {other.name} and {file.name} would share one mask file; rename one of them")
    return [Sample(file.stem, file, (False,) * len(manifest.classes)) for file in files]
