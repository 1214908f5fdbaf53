"""Masks compared with what else is known of their pictures: tags, and how a camera was held.

Where tags come from masks, or masks from another program, nothing else would find them wrong.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import orientation, read_ids
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample
from wsfcn_lib.runs.progress import progress

ENOUGH = 4  # of so many masks most decide, of fewer all
FIRST = 3  # so many files are named of each kind


@dataclass(frozen=True)
class CheckedMask:
    """A mask beside its picture: the ids in it, those of its picture's tags (both without 0 and 255)."""

    sample: Sample
    ids: frozenset[int]
    tagged: frozenset[int]
    has_ignored: bool  # 255 occurs


def check_masks(samples: Sequence[Sample], draft: Manifest) -> list[str]:
    """A line for each kind of contradiction between masks and the tags of their pictures.

    Args:
        samples: images whose tags come from elsewhere than their masks. Masks that cannot be read are passed
            over, `validate` names them.
        draft: knows the classes.

    Raises:
        DataError: most masks show no class of their picture's tags, or all ids are shifted against them.
    """
    masked = [sample for sample in samples if sample.mask]
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda sample: _check(sample, draft), masked)
        checked = [mask for mask in progress(results, "compare masks", len(masked), least=2000) if mask]
    return compare_with_tags(checked, draft.classes)


def _check(sample: Sample, draft: Manifest) -> CheckedMask | None:
    """The ids of one mask; None where it cannot be read."""
    try:
        pixels = read_ids(sample.mask, draft)
    except DataError:
        return None
    ids = frozenset(np.flatnonzero(np.bincount(pixels.ravel())).tolist())
    tagged = frozenset(info.mask_id for info, tag in zip(draft.classes, sample.tags) if tag)
    return CheckedMask(sample, ids - {0, IGNORE}, tagged, IGNORE in ids)


def compare_with_tags(masks: Sequence[CheckedMask], classes: Sequence[ClassInfo]) -> list[str]:
    """Lines on masks that differ from the tags; DataError where the ids as a whole do not fit."""
    empty = [mask for mask in masks if mask.has_ignored and not mask.ids]
    masks = [mask for mask in masks if mask.tagged]
    if not masks:
        return _unused_white(empty)
    name_of = {info.mask_id: info.name for info in classes}
    seen = frozenset().union(*(mask.ids for mask in masks))
    # an empty mask is right where its tags are never painted, such as 'no crack' and other words for a whole picture
    strangers = [
        mask
        for mask in masks
        if not mask.ids & mask.tagged and (mask.ids or mask.has_ignored or mask.tagged & seen or not seen)
    ]
    shift = _shift(masks)
    all_differ = len(strangers) == len(masks)
    most_differ = len(masks) >= ENOUGH and 2 * len(strangers) > len(masks)
    if shift or all_differ or most_differ:
        first = (strangers or masks)[0]
        tags = ", ".join(f"{name_of[number]} (id {number})" for number in sorted(first.tagged))
        shown = sorted(first.ids | ({IGNORE} if first.has_ignored else set()))
        raise DataError(
            f"{len(strangers)} of {len(masks)} masks show no class of their picture's tags: "
            f"{first.sample.mask} has the ids {shown}, its picture is tagged {tags}. "
            f"{_likely_cause(strangers, shift)}. Scores against such masks would be wrong: correct the masks, "
            "or name the classes with the ids that the masks have in classes.json, or move the masks away"
        )
    lines = _unused_white(empty)
    if strangers:
        lines.append(
            f"{len(strangers)} of {len(masks)} masks show no class of their picture's tags, "
            f"first {_names(strangers)}: look at them"
        )
    more = [mask for mask in masks if mask.ids & name_of.keys() - mask.tagged]
    if more:
        extra = sorted(name_of[number] for number in more[0].ids & name_of.keys() - more[0].tagged)
        lines.append(
            f"{len(more)} of {len(masks)} masks show classes that their picture's tags lack, "
            f"first {more[0].sample.mask.name} ({', '.join(extra)}): complete the tags"
        )
    tagged = frozenset().union(*(mask.tagged for mask in masks))
    shown = frozenset().union(*(mask.ids for mask in masks))
    never = [name_of[number] for number in sorted(tagged - shown)]
    if never:
        lines.append(
            f"tagged in pictures with masks, but in no mask: {', '.join(never)}; "
            "right for tags of whole pictures such as 'no crack', else complete the masks"
        )
    return lines


def _unused_white(masks: Sequence[CheckedMask]) -> list[str]:
    if not masks:
        return []
    return [
        f"{len(masks)} masks hold 0 and 255 only, first {_names(masks)}: 255 is what is ignored, so they measure "
        "next to nothing; write the class's id where 255 stands for one"
    ]


def _shift(masks: Sequence[CheckedMask]) -> int:
    """By how much all ids differ from those of the tags; 0 where no single number explains them."""
    if len(masks) < 2 or any(mask.ids == mask.tagged for mask in masks):
        return 0
    for shift in (1, -1):
        moved = [frozenset(number + shift for number in mask.tagged) - {0} for mask in masks]
        if any(moved) and all(mask.ids == wanted for mask, wanted in zip(masks, moved)):
            return shift
    return 0


def _likely_cause(strangers: Sequence[CheckedMask], shift: int) -> str:
    if shift:
        return f"All ids are one too {'large' if shift > 0 else 'small'}"
    if all(mask.has_ignored and not mask.ids for mask in strangers):
        return "They hold 0 and 255 only, and 255 is what is ignored: write the class's id where 255 stands"
    if not any(mask.ids for mask in strangers):
        return "They are background only"
    return "Their ids may follow another order of the classes"


def turned_pictures(samples: Sequence[Sample]) -> list[str]:
    """A line, if EXIF turns or mirrors pictures in a way that the size of their masks cannot tell."""
    turned = []
    for sample in samples:
        if not sample.mask:
            continue
        direction, size = orientation(sample.image)
        if direction in (2, 3, 4) or (direction > 4 and size[0] == size[1]):
            turned.append(sample)
    if not turned:
        return []
    names = ", ".join(sample.image.name for sample in turned[:FIRST])
    return [
        f"{len(turned)} pictures with masks are turned or mirrored by EXIF at the same size, first {names}: "
        "masks must fit the picture as it is shown; those drawn on the stored pixels are wrong, look at them"
    ]


def _names(masks: Sequence[CheckedMask]) -> str:
    return ", ".join(mask.sample.mask.name for mask in masks[:FIRST])
