"""Choose from what a source offers: classes, images by lists of names, and a size; copies are made only where needed."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from wsfcn_lib.data.classes import voc_palette
from wsfcn_lib.data.files import DataError, read_list
from wsfcn_lib.data.images import encode, open_image, open_mask
from wsfcn_lib.data.listing import MASKLESS, DatasetListing
from wsfcn_lib.data.manifest import ClassInfo, Sample
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write, make_folder


def select_images(found: DatasetListing, ids: Mapping[str, Path | str]) -> DatasetListing:
    """Keep, of each split that `ids` names, the images in its list; a listed name that the source lacks counts as missing."""
    splits, missing, untagged = dict(found.splits), list(found.missing), list(found.untagged)
    for split, path in ids.items():
        if split not in splits:
            raise DataError(
                f"ids names the split {split!r}, the source has {', '.join(splits)}; name one of these"
            )
        names = read_list(path)
        wanted = set(names)
        splits[split] = [sample for sample in splits[split] if sample.name in wanted]
        if not splits[split]:
            raise DataError(
                f"{path}: none of its {len(names)} names is in the split {split!r} of the source; correct the list"
            )
        if split == "train":
            untagged = [name for name in untagged if name in wanted]
        # of what the source found missing in this split, only what the list asks for matters
        told = {line: line.split(": ", 2)[1] for line in missing if line.startswith(f"{split}: ")}
        missing = [line for line in missing if line not in told or told[line] in wanted]
        absent = (
            wanted
            - {sample.name for sample in splits[split]}
            - {*told.values()}
            - {*(untagged if split == "train" else ())}
        )
        missing += [
            f"{split}: {name}: in the list {Path(path).name}, not in the source" for name in sorted(absent)
        ]
    return replace(found, splits=splits, missing=missing, untagged=untagged)


def select_classes(found: DatasetListing, classes: Sequence[str]) -> DatasetListing:
    """Keep some classes, in the order of the source. Images that show none of them are left out, and said so."""
    names = [info.name for info in found.classes]
    if unknown := [name for name in classes if name not in names]:
        raise DataError(f"classes={unknown} are not among the source's; choose from {', '.join(names)}")
    kept = [index for index, name in enumerate(names) if name in set(classes)]
    splits, notes = {}, list(found.notes)
    for split, samples in found.splits.items():
        fewer = [replace(sample, tags=tuple(sample.tags[index] for index in kept)) for sample in samples]
        splits[split] = [new for new, old in zip(fewer, samples) if any(new.tags) or not any(old.tags)]
        if left := len(samples) - len(splits[split]):
            notes.append(f"{split}: {left} images show other classes only and are left out")
    return replace(found, classes=tuple(found.classes[index] for index in kept), splits=splits, notes=notes)


def copy_pictures(
    found: DatasetListing, folder: Path, max_side: int, foreign: Sequence[int]
) -> DatasetListing:
    """Copies of the pictures below `folder`, at most `max_side` pixels wide or high (0: as they are, masks only).

    A picture that is small enough is copied byte for byte; others are shrunk (Lanczos, masks by nearest neighbour). Mask
    ids in `foreign`, those of classes that were not chosen, become background: what nobody asked for is background.
    A copy is kept where it is there in the right size and has the time of its picture, so that another picture, or another
    version of it, is copied anew. DataError where pictures of the source lie where copies go.
    """
    jobs = {sample.name: (split, sample) for split, samples in found.splits.items() for sample in samples}
    taken = {
        path.parent.resolve() for _, sample in jobs.values() for path in (sample.image, sample.mask) if path
    }
    for target in (folder / "images", folder / "masks"):
        if target.resolve() in taken:
            raise DataError(
                f"{target} is where copies go, and the source's own pictures lie there: name another folder"
            )
        make_folder(target)
    bar = progress(None, "copy", len(jobs))

    def copied(job: tuple[str, Sample]) -> tuple[Path | None, Path | None, str]:
        (split, sample), image, mask, fault = job, None, None, ""
        try:
            needed = max_side or sample.name != sample.image.stem  # a manifest knows a picture by its stem
            image = _copy_image(sample, folder / "images", max_side) if needed else sample.image
            mask = sample.mask and _copy_mask(sample, folder / "masks", max_side, foreign)
        except DataError as error:
            fault = f"{split}: {sample.name}: {error}"
            fault, image = (f"{fault}; {MASKLESS}", image) if image and split == "train" else (fault, None)
        bar.update()
        return image, mask, fault

    with bar, ThreadPoolExecutor() as pool:
        copies = dict(
            zip(jobs, pool.map(copied, jobs.values()))
        )  # of a picture in two splits, which `validate` refuses, one
    whole = {name: {"image": image, "mask": mask} for name, (image, mask, _) in copies.items() if image}
    splits = {
        split: [replace(s, **whole[s.name]) for s in samples if s.name in whole]
        for split, samples in found.splits.items()
    }
    return replace(
        found, splits=splits, missing=found.missing + [fault for *_, fault in copies.values() if fault]
    )


def foreign_ids(offered: Sequence[ClassInfo], chosen: Sequence[ClassInfo]) -> list[int]:
    """Mask ids of the classes that were not chosen."""
    return sorted({info.mask_id for info in offered} - {info.mask_id for info in chosen})


def _shrunk(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    factor = min(1, max_side / max(size)) if max_side else 1
    return max(1, round(factor * size[0])), max(1, round(factor * size[1]))


def _copy_image(sample: Sample, folder: Path, max_side: int) -> Path:
    image = open_image(sample.image)
    size = _shrunk(image.size, max_side)
    small = size != image.size
    target = folder / f"{sample.name}{'.jpg' if small else sample.image.suffix}"
    if not _is_there(target, size, sample.image):
        shrunk = (
            encode(image.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=95, subsampling=0)
            if small
            else None
        )
        atomic_write(target, shrunk or sample.image.read_bytes())
        os.utime(target, (time := sample.image.stat().st_mtime, time))
    return target


def _copy_mask(sample: Sample, folder: Path, max_side: int, foreign: Sequence[int]) -> Path:
    mask, target = open_mask(sample.mask), folder / f"{sample.name}.png"
    size = _shrunk(mask.size, max_side)
    recoded = np.isin(foreign, np.asarray(mask)).any()
    if not max_side and not recoded:
        return sample.mask
    if size == mask.size and not recoded:
        data = sample.mask.read_bytes()
    else:
        table = np.arange(256, dtype=np.uint8)
        table[list(foreign)] = 0
        small = Image.fromarray(table[np.asarray(mask.resize(size, Image.Resampling.NEAREST))])
        small.putpalette(mask.getpalette() or voc_palette())
        data = encode(small, "PNG")
    if not target.is_file() or target.read_bytes() != data:
        atomic_write(target, data)
    return target


def _is_there(path: Path, size: tuple[int, int], source: Path) -> bool:
    """Whether a copy of the right size was made before, of this version of the picture."""
    try:
        with Image.open(path) as image:
            same = size in (image.size, image.size[::-1])  # EXIF may turn it
        return (
            same and abs(path.stat().st_mtime - source.stat().st_mtime) < 3
        )  # some disks know whole seconds only
    except OSError:
        return False
