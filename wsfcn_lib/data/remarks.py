"""What is probably a slip in a folder of pictures: names written in two ways, rare classes, pictures that occur twice."""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

from wsfcn_lib.data.manifest import ClassInfo, Sample

RARE = 20  # fewer training images of a class are told


def remarks(classes: tuple[ClassInfo, ...], splits: dict[str, list[Sample]]) -> list[str]:
    """A line for each thing about classes, training images and masks that their owner should know."""
    counts = {info.name: sum(sample.tags[k] for sample in splits["train"]) for k, info in enumerate(classes)}
    alike, notes = defaultdict(list), []
    for name, count in counts.items():
        alike["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(
            f"{name!r} ({count} training images)"
        )
    for group in filter(lambda names: len(names) > 1, alike.values()):
        notes.append(
            f"{' and '.join(group)} differ only in case or blanks; if they are one class, write them alike"
        )
    if rare := [f"{name} ({count})" for name, count in counts.items() if count < RARE]:
        notes.append(f"fewer than {RARE} training images, little to learn from: {', '.join(rare)}")
    if any(sample.mask for samples in splits.values() for sample in samples):
        notes.append(
            f"masks are read with the ids {', '.join(f'{info.mask_id} {info.name}' for info in classes)}"
        )
    return notes


def twins(paths: list[Path]) -> list[str]:
    """A line, if any of the pictures are equal byte for byte."""
    sizes, first = Counter(path.stat().st_size for path in paths), {}
    equal = [path for path in paths if sizes[path.stat().st_size] > 1]
    pairs = [(first.setdefault(hashlib.sha256(path.read_bytes()).digest(), path), path) for path in equal]
    twins = [f"{one} = {other}" for one, other in pairs if one != other]
    return (
        [f"{len(twins)} pictures occur twice, each time with its own tags; keep one: {twins[0]}"]
        if twins
        else []
    )
