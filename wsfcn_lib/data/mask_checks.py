"""Masks compared with what else is known of their pictures: tags, and how a camera was held.

Where tags come from masks, or masks from another program, nothing else would find them wrong.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import TURN_CODE, TURNS, open_mask, orientation, read_ids
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import checksum

ENOUGH = 4  # of so many masks most decide, of fewer all
FIRST = 3  # so many files are named of each kind


@dataclass(frozen=True)
class CheckedMask:
    """A mask beside its picture: the ids in it, those of its picture's tags (both without 0 and 255)."""

    sample: Sample
    ids: frozenset[int]
    tagged: frozenset[int]
    has_background: bool  # 0 occurs
    has_ignored: bool  # 255 occurs
    framed: bool  # one class fills all corners, around background

    @property
    def contrary(self) -> bool:
        """It shows no class of the tags, or another one while it lacks a tagged one."""
        return not self.ids & self.tagged or bool(self.ids - self.tagged and self.tagged - self.ids)


def check_masks(samples: Sequence[Sample], draft: Manifest, own_tags: Collection[str] = ()) -> list[str]:
    """A line for each kind of contradiction between masks and the tags of their pictures.

    Args:
        samples: images of which some have masks. Masks that cannot be read are passed over: `validate` names
            them.
        draft: knows the classes.
        own_tags: names of images whose tags were read from their masks, so that they prove nothing.

    Raises:
        DataError: most masks contradict the tags, or another numbering of the classes fits them far better.
    """
    masked = [sample for sample in samples if sample.mask]
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda sample: _check(sample, draft), masked)
        checked = [mask for mask in progress(results, "compare masks", len(masked), least=2000) if mask]
    lines = compare_with_tags([mask for mask in checked if mask.sample.name not in own_tags], draft.classes)
    shown = [mask for mask in checked if mask.ids]
    framed = [mask for mask in shown if mask.framed]
    if 2 * len(framed) > len(shown) > 1:
        lines.append(
            f"in {len(framed)} of {len(shown)} masks one class fills all four corners around background, "
            f"first {_names(framed)}: if object and background are exchanged there, "
            "exchange 0 and the class's id"
        )
    return lines


def _check(sample: Sample, draft: Manifest) -> CheckedMask | None:
    """The ids of one mask; None where it cannot be read."""
    try:
        pixels = read_ids(sample.mask, draft)
    except DataError:
        return None
    ids = frozenset(np.flatnonzero(np.bincount(pixels.ravel())).tolist())
    tagged = frozenset(info.mask_id for info, tag in zip(draft.classes, sample.tags) if tag)
    framed = 0 in ids and len(ids - {0, IGNORE}) == 1 and pixels[[0, 0, -1, -1], [0, -1, 0, -1]].all()
    return CheckedMask(sample, ids - {0, IGNORE}, tagged, 0 in ids, IGNORE in ids, bool(framed))


def compare_with_tags(masks: Sequence[CheckedMask], classes: Sequence[ClassInfo]) -> list[str]:
    """Lines on masks that differ from the tags; DataError where the ids as a whole do not fit."""
    empty = [mask for mask in masks if mask.has_ignored and not mask.ids]
    masks = [mask for mask in masks if mask.tagged]
    if not masks:
        return _unused_white(empty)
    name_of = {info.mask_id: info.name for info in classes}
    seen = frozenset().union(*(mask.ids for mask in masks))
    # an empty mask is right where its tags are never painted, such as 'no crack' and other words for a whole picture
    wrong = [
        mask
        for mask in masks
        if mask.contrary and (mask.ids or mask.has_ignored or mask.tagged & seen or not seen)
    ]
    order = _other_order(masks, name_of)
    most = len(masks) / 2 if len(masks) >= ENOUGH else len(masks) - 1
    if order or len(wrong) > most:
        first = wrong[0] if wrong else next(mask for mask in masks if mask.ids != mask.tagged)
        tags = ", ".join(f"{name_of[number]} (id {number})" for number in sorted(first.tagged))
        shown = sorted(first.ids | ({IGNORE} if first.has_ignored else set()))
        raise DataError(
            f"{len(wrong)} of {len(masks)} masks contradict their picture's tags: "
            f"{first.sample.mask} has the ids {shown}, its picture is tagged {tags}. "
            f"{order or _likely_cause(wrong)}. Scores against such masks would be wrong: correct the masks, "
            "or name the classes with the ids that the masks have in classes.json, or move the masks away"
        )
    lines = _unused_white(empty)
    if wrong:
        lines.append(
            f"{len(wrong)} of {len(masks)} masks contradict their picture's tags, "
            f"first {_names(wrong)}: look at them"
        )
    more = [mask for mask in masks if not mask.contrary and mask.ids & name_of.keys() - mask.tagged]
    if more:
        extra = sorted(name_of[number] for number in more[0].ids & name_of.keys() - more[0].tagged)
        lines.append(
            f"{len(more)} of {len(masks)} masks show classes that their picture's tags lack, "
            f"first {more[0].sample.mask.name} ({', '.join(extra)}): complete the tags, if the masks are right"
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


def _other_order(masks: Sequence[CheckedMask], name_of: Mapping[int, str]) -> str:
    """The numbering of the classes that fits the tags far better than their ids do; empty where none does."""
    said = ""
    if not any(mask.has_background for mask in masks):
        everywhere = frozenset.intersection(*(mask.ids for mask in masks))
        background = {n for n in everywhere if 2 * sum(n in mask.tagged for mask in masks) < len(masks)}
        masks = [replace(mask, ids=mask.ids - background) for mask in masks]
        said = (
            f"No mask has 0, which is background, and all have {sorted(background)}. " if background else ""
        )
    differences = Counter(max(mask.ids) - max(mask.tagged) for mask in masks if mask.ids)
    del differences[0]
    if len(masks) < 2 or not any(mask.ids for mask in masks):
        return ""
    shift = max(differences, key=differences.get, default=0)
    shifted = [{number + shift for number in mask.tagged} - {0, IGNORE} == mask.ids for mask in masks]
    meant = _best_order(masks)
    reordered = [{meant.get(number, 0) for number in mask.ids} == mask.tagged for mask in masks]
    renamed = [f"{number} is {name_of[meant[number]]}" for number in sorted(meant) if meant[number] != number]
    fits, order = reordered, f"Their ids follow another order of the classes: {', '.join(renamed)}"
    if sum(shifted) >= sum(reordered):
        amount = "one" if abs(shift) == 1 else abs(shift)
        fits, order = shifted, f"All ids are {amount} too {'large' if shift > 0 else 'small'}"
    gained = [mask for mask, fit in zip(masks, fits) if fit and mask.ids != mask.tagged]
    lost = [mask for mask, fit in zip(masks, fits) if not fit and mask.ids == mask.tagged]
    enough = len(gained) >= min(ENOUGH, len(masks)) and len(gained) > 3 * len(lost)
    if not enough or 2 * sum(fits) <= len(masks):
        return ""
    if all(mask.ids < mask.tagged for mask in gained):
        return ""  # a class that no mask shows looks like that too
    return f"{said}{order} (so {sum(fits)} of {len(masks)} masks fit)"


def _best_order(masks: Sequence[CheckedMask]) -> dict[int, int]:
    """The class's id that each id in masks most probably means: they occur in the same pictures."""
    from scipy.optimize import linear_sum_assignment

    shown = sorted(frozenset().union(*(mask.ids for mask in masks)))
    tagged = sorted(frozenset().union(*(mask.tagged for mask in masks)))
    in_mask = np.array([[number in mask.ids for number in shown] for mask in masks])
    in_tags = np.array([[number in mask.tagged for number in tagged] for mask in masks])
    together = (in_mask[:, :, None] == in_tags[:, None, :]).sum(0, dtype=float)
    together += 0.5 * (np.array(shown)[:, None] == np.array(tagged))  # at a tie, what the id says
    return {
        shown[row]: tagged[column] for row, column in zip(*linear_sum_assignment(together, maximize=True))
    }


def _likely_cause(wrong: Sequence[CheckedMask]) -> str:
    if all(mask.has_ignored and not mask.ids for mask in wrong):
        return "They hold 0 and 255 only, and 255 is what is ignored: write the class's id where 255 stands"
    if not any(mask.ids for mask in wrong):
        return "They are background only"
    return "Their ids may follow another order of the classes, or belong to other pictures"


def colours_of_palettes(
    masks: Sequence[tuple[Path, Sequence[str]]], classes: tuple[ClassInfo, ...]
) -> tuple[tuple[ClassInfo, ...], list[str]]:
    """The classes in the colours of the masks' palette, and a note, where tags prove that its ids are right.

    Else colours that nobody chose would contradict a palette that has the same ones in another order.
    `masks`: each with its picture's tags.
    """
    id_of = {info.name: info.mask_id for info in classes}
    default = {info.colour: info.mask_id for info in classes}
    palette, proofs, doubts = {}, 0, 0
    for path, tags in masks:
        try:
            picture = open_mask(path)
        except DataError:
            continue  # `validate` names it
        if picture.mode != "P":
            continue
        values, tagged = picture.getpalette(), {id_of[tag] for tag in tags}
        ids = {number for _, number in picture.getcolors()} - {0, IGNORE}
        colours = {number: tuple(values[3 * number : 3 * number + 3]) for number in range(len(values) // 3)}
        palette = palette or colours
        if any(colours.get(number) != palette.get(number) for number in ids):
            return classes, []
        meant = {default.get(colours.get(number), number) for number in ids}
        proofs += ids == tagged != meant
        doubts += meant == tagged != ids
    if proofs <= 3 * doubts:
        return classes, []
    own = tuple(
        info.model_copy(update={"colour": palette.get(info.mask_id, info.colour)}) for info in classes
    )
    return own, ["the classes have the colours of the masks' palette, whose ids fit the tags"]


def remarks_on_masks(samples: Sequence[Sample]) -> list[str]:
    """Lines on masks whose pixels may lie otherwise than their picture's, and on one mask for most."""
    masked = [sample for sample in samples if sample.mask]
    return turned_pictures(masked) + same_masks([sample.mask for sample in masked])


def same_masks(paths: Sequence[Path]) -> list[str]:
    """A line, if most masks are equal byte for byte, and not empty."""
    sizes = Counter(path.stat().st_size for path in paths)
    contents = Counter(checksum(path) for path in paths if 2 * sizes[path.stat().st_size] > len(paths))
    if not contents:
        return []
    content, count = contents.most_common(1)[0]
    first = next(path for path in paths if checksum(path) == content)
    if count < 2 or 2 * count <= len(paths) or _is_empty(first):
        return []
    return [
        f"{count} of {len(paths)} masks are equal byte for byte, first {first}: give each picture its own mask"
    ]


def _is_empty(path: Path) -> bool:
    try:
        return open_mask(path).getbbox() is None
    except DataError:  # `validate` names it
        return True


def turned_pictures(samples: Sequence[Sample]) -> list[str]:
    """A line, if EXIF turns or mirrors pictures in a way that the size of their masks cannot tell."""
    turned = []
    for sample in samples:
        direction, size = orientation(sample.image)
        if direction in (2, 3, 4) or (direction > 4 and size[0] == size[1]):
            turned.append((sample, TURNS[direction]))
    if not turned:
        return []
    names = ", ".join(sample.image.name for sample, _ in turned[:FIRST])
    first, turn = turned[0]
    return [
        f"{len(turned)} pictures with masks are turned or mirrored by EXIF at the same size, first {names}: "
        "masks must fit the picture as it is shown, look at them. Turn one that was drawn on the stored pixels, "
        f"as {TURN_CODE.format(turn)} does for {first.mask.name}. Then save the pictures as they are shown, as "
        "open_image(path).save(path, quality=95) does, and this line ends"
    ]


def _names(masks: Sequence[CheckedMask]) -> str:
    return ", ".join(mask.sample.mask.name for mask in masks[:FIRST])
