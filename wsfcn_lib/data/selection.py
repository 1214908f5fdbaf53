"""Choose from what a source offers: classes, images by lists of names, a size; copies only where needed."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from wsfcn_lib.data.files import DataError, read_list
from wsfcn_lib.data.images import encode, encode_mask, open_image, palette_of_ids, read_ids, shown_size
from wsfcn_lib.data.listing import MASKLESS, DatasetListing
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample, turned
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write


def select_images(listing: DatasetListing, lists: Mapping[str, Path | str]) -> DatasetListing:
    """Keep, of each split that `lists` names, the images in its list.

    A listed name that the source lacks counts as missing.
    """
    splits, missing, untagged = dict(listing.splits), listing.missing, listing.untagged
    for split, path in lists.items():
        if split not in splits:
            raise DataError(
                f"ids names the split {split!r}, the source has {', '.join(splits)}; name one of these"
            )
        names = read_list(path)
        wanted = set(names)
        splits[split] = [sample for sample in splits[split] if sample.name in wanted]
        if not splits[split]:
            raise DataError(
                f"{path}: none of its {len(names)} names is in the split {split!r} of the source; "
                "correct the list"
            )
        known = {sample.name for sample in splits[split]}
        if split == "train":
            untagged = [name for name in untagged if name in wanted]
            known.update(untagged)
        relevant = []  # what the source found missing in this split matters only where the list names it
        for line in missing:
            of_split, name, _ = line.split(": ", 2)
            if of_split != split or name in wanted:
                relevant.append(line)
            if of_split == split:
                known.add(name)
        for name in sorted(wanted - known):
            relevant.append(f"{split}: {name}: in the list {Path(path).name}, not in the source")
        missing = relevant
    return replace(listing, splits=splits, missing=missing, untagged=untagged)


def select_classes(listing: DatasetListing, classes: Sequence[str]) -> DatasetListing:
    """Keep some classes, in the source's order. Images that show only others are left out; a note says so."""
    names = [info.name for info in listing.classes]
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise DataError(f"classes={unknown} are not among the source's; choose from {', '.join(names)}")
    kept = [index for index, name in enumerate(names) if name in classes]
    splits, notes = {}, list(listing.notes)
    for split, samples in listing.splits.items():
        splits[split] = []
        for sample in samples:
            tags = tuple(sample.tags[index] for index in kept)
            if any(tags) or not any(sample.tags):
                splits[split].append(replace(sample, tags=tags))
        left_out = len(samples) - len(splits[split])
        if left_out:
            notes.append(f"{split}: {left_out} images show other classes only and are left out")
    return replace(listing, classes=tuple(listing.classes[k] for k in kept), splits=splits, notes=notes)


def copy_pictures(
    listing: DatasetListing, folder: Path, max_side: int, offered: Sequence[ClassInfo]
) -> DatasetListing:
    """Copies of the pictures below `folder`, at most `max_side` pixels wide or high.

    With `max_side` 0 only pictures whose name is not their file's, and masks with foreign ids, are copied. A
    picture that is small enough is copied byte for byte; others are shrunk (Lanczos, masks by nearest
    neighbour). Classes that the source `offered` and that were not chosen become background in masks. A copy
    that would not change is not written again. DataError where pictures of the source lie where copies go.
    """
    source = Manifest(folder, tuple(offered))
    foreign = sorted({info.mask_id for info in offered} - {info.mask_id for info in listing.classes})
    samples = [sample for split in listing.splits.values() for sample in split]
    occupied = {path.parent.resolve() for sample in samples for path in (sample.image, sample.mask) if path}
    images = {(sample.name, sample.image) for sample in samples}
    apart = len({name for name, _ in images}) < len(images)  # pictures of two splits may be called alike
    homes = {split: folder / split if apart else folder for split in listing.splits}
    for target in (home / kind for home in homes.values() for kind in ("images", "masks")):
        if target.resolve() in occupied:
            raise DataError(
                f"{target} is where copies go, and the source's own pictures lie there: name another folder"
            )

    def copy(sample: Sample, home: Path) -> tuple[Sample, str]:
        """The sample with the paths of its copies, None where a file is bad, and what is wrong with it."""
        image = mask = None
        fault = ""
        try:
            image = _copy_image(sample, home / "images", max_side)
            if sample.mask:
                mask = _copy_mask(sample, home / "masks", max_side, source, foreign)
        except DataError as error:
            fault = turned(sample) or str(error)
        return replace(sample, image=image, mask=mask), fault

    splits, missing = {}, list(listing.missing)
    with ThreadPoolExecutor() as pool:
        for split, samples in listing.splits.items():
            splits[split] = []
            copies = pool.map(copy, samples, [homes[split]] * len(samples))
            for sample, fault in progress(copies, f"copy {split}", len(samples)):
                stays = not fault or (split == "train" and sample.image)
                if stays:
                    splits[split].append(sample)
                if fault:
                    line = f"{split}: {sample.name}: {fault}"
                    missing.append(f"{line}; {MASKLESS}" if stays else line)
    return replace(listing, splits=splits, missing=missing)


def _copy_image(sample: Sample, folder: Path, max_side: int) -> Path:
    if not max_side and sample.name == sample.image.stem:  # a manifest knows a picture by its stem
        return sample.image
    image = open_image(sample.image)
    size = _shrunk(image.size, max_side)
    if size == image.size:
        return _write(folder / f"{sample.name}{sample.image.suffix}", sample.image.read_bytes())
    small = image.resize(size, Image.Resampling.LANCZOS)
    return _write(folder / f"{sample.name}.jpg", encode(small, "JPEG", quality=95, subsampling=0))


def _copy_mask(sample: Sample, folder: Path, max_side: int, source: Manifest, foreign: Sequence[int]) -> Path:
    ids = read_ids(sample.mask, source, size=shown_size(sample.image))
    if not max_side and not np.isin(foreign, ids).any():
        return sample.mask
    new_id = np.arange(256, dtype=np.uint8)
    new_id[list(foreign)] = 0
    mask = Image.fromarray(new_id[ids])
    small = mask.resize(_shrunk(mask.size, max_side), Image.Resampling.NEAREST)
    return _write(folder / f"{sample.name}.png", encode_mask(np.asarray(small), palette_of_ids(source)))


def _shrunk(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The size (width, height) of a copy whose longer side is at most `max_side`; 0: as it is."""
    if not max_side or max(size) <= max_side:
        return size
    factor = max_side / max(size)
    return max(1, round(factor * size[0])), max(1, round(factor * size[1]))


def _write(path: Path, data: bytes) -> Path:
    """Write a file unless it holds these bytes already."""
    if not path.is_file() or path.read_bytes() != data:
        atomic_write(path, data)
    return path
