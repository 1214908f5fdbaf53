"""What is probably a slip in a folder of pictures: names written two ways, rare classes, equal pictures."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from wsfcn_lib.data.images import pages
from wsfcn_lib.data.listing import DatasetListing
from wsfcn_lib.runs.storage import checksum

RARE = 20  # a class with fewer training images is named


def remarks(listing: DatasetListing) -> list[str]:
    """A line for each thing about classes, images and masks that their owner should know."""
    samples = [sample for split in listing.splits.values() for sample in split]
    counts = {}
    for k, info in enumerate(listing.classes):
        counts[info.name] = sum(sample.tags[k] for sample in listing.splits.get("train", []))
    notes = alike(counts) + untaught(listing) + joined(counts)
    if any(sample.mask for sample in samples):
        ids = ", ".join(f"{info.mask_id} {info.name}" for info in listing.classes)
        notes.append(f"masks are read with the ids {ids}")
    pictures = [sample.image for sample in samples]
    return notes + several_pages(pictures) + twins(pictures)


def several_pages(paths: list[Path]) -> list[str]:
    """A line, if any of the pictures are animated or hold several pages; those of JPEG are made by cameras."""
    several = [path for path in paths if path.suffix.lower() not in (".jpg", ".jpeg") and pages(path) > 1]
    if not several:
        return []
    return [
        f"{len(several)} pictures hold several pages or frames, first {several[0].name}: the first of each is "
        "used; save the others as pictures of their own where they count"
    ]


def untaught(listing: DatasetListing, few: int = RARE) -> list[str]:
    """Lines on classes that tags cannot teach or teach little (`few` images), or that validation cannot measure."""
    notes, together = [], defaultdict(list)
    training = listing.splits.get("train", [])
    counts = {info.name: sum(sample.tags[k] for sample in training) for k, info in enumerate(listing.classes)}
    rare = [f"{name} ({count})" for name, count in counts.items() if count < few]
    if rare:
        notes.append(f"fewer than {few} training images, little to learn from: {', '.join(rare)}")
    for k, info in enumerate(listing.classes):
        shown = tuple(bool(sample.tags[k]) for sample in training)
        if any(shown) and not all(shown):
            together[shown].append(info.name)
    for names in together.values():
        if len(names) > 1:
            notes.append(
                f"{' and '.join(names)} always occur together in training: tags cannot tell them apart; add pictures of "
                "one without the other, or make them one class"
            )
    for k, info in enumerate(listing.classes):
        if training and all(sample.tags[k] for sample in training):
            without = (
                f", {len(listing.untagged)} pictures without a tag are left out" if listing.untagged else ""
            )
            notes.append(
                f"every one of the {len(training)} training pictures shows {info.name}{without}: tags teach a class "
                f"only by pictures without it; give such pictures a tag of their own, such as 'no {info.name}'"
            )
    for split in ("val", "test"):
        samples = listing.splits.get(split, [])
        lacking = [
            info.name
            for k, info in enumerate(listing.classes)
            if not any(sample.tags[k] for sample in samples)
        ]
        if samples and lacking:
            notes.append(
                f"{split} has no picture of {', '.join(lacking)}, so nothing can be measured of that: "
                f"{'raise val_fraction, or ' if split == 'val' else ''}name some in the column split"
            )
    return notes


def joined(names: Iterable[str]) -> list[str]:
    """Lines on class names that are made of other class names: perhaps several tags in one."""
    names = list(names)
    lines = []
    for name in names:
        parts = [part for part in re.split(r"\s+and\s+|[\s+/&_-]+", name) if part]
        others = [part for part in parts if part in names]
        if len(parts) > 1 and (others == parts or (others and re.search("[/+&]", name))):
            lines.append(
                f"{name!r} is read as one class, {' and '.join(map(repr, others))} "
                f"{'are others' if len(others) > 1 else 'is another'}; "
                "if it means both, put ';' between them"
            )
    return lines


def alike(counts: dict[str, int]) -> list[str]:
    """A line for each group of class names, with counts of training images, equal but for case and blanks."""
    groups = defaultdict(list)
    for name, count in counts.items():
        letters = re.sub(r"[\s_-]", "", unicodedata.normalize("NFKC", name).casefold())
        groups[letters].append(f"{name!r} ({count} training images)")
    return [
        f"{' and '.join(group)} differ only in case or blanks, or in _ and -; if they are one class, write them alike"
        for group in groups.values()
        if len(group) > 1
    ]


def twins(paths: list[Path]) -> list[str]:
    """A line, if any of the pictures are equal byte for byte."""
    by_size, first, pairs = defaultdict(list), {}, []
    for path in paths:
        with suppress(OSError):  # one that cannot be read is told by `manifest.validate`
            by_size[path.stat().st_size].append(path)
    for path in (path for equal in by_size.values() if len(equal) > 1 for path in equal):
        with suppress(OSError):
            other = first.setdefault(checksum(path), path)
            if other != path:
                pairs.append(f"{other} = {path}")
    if not pairs:
        return []
    return [f"{len(pairs)} pictures occur twice, each time with its own tags; keep one: {pairs[0]}"]
