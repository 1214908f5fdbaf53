"""Any masks measured, and any two compared on the same images, with intervals over the images."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, cpu_count, delayed

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.files import DataError, read_list
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.evaluation.image_counts import (
    WORDS,
    Counts,
    ImageCounts,
    count_image,
    drawn_counts,
    measure_words,
    redrawn_blocks,
    stacked,
)
from wsfcn_lib.evaluation.mask_sources import MaskFile, MaskSource, OutlinedMask
from wsfcn_lib.metrics import mean_iou
from wsfcn_lib.runs.progress import progress

DRAWS = 1000
BATCH = 16  # images that a process counts at a time
FEW = 64  # so many are counted at once, without other processes
FIRST = 3  # names told of each kind
MOST_DIFFERENT = 10  # images listed
INTERVAL = (0.025, 0.975)
Mask = MaskFile | OutlinedMask


def images_to_compare(
    truth: MaskSource,
    sources: dict[str, MaskSource],
    wanted: Sequence[str] | None = None,
    common: bool = False,
) -> list[str]:
    """The names of the images to score, sorted: those of the truth, or of `wanted`, if all have all masks.

    With `common` those that all have. Else DataError that counts what each lacks or has alone, and names the
    first ones.
    """
    images = set(truth.places)
    if wanted is not None:
        if unknown := [name for name in wanted if name not in images]:
            raise DataError(f"the truth lacks {_first(unknown)} of the {len(wanted)} images in the list")
        images = set(wanted)
    faults, shared = [], images
    for label, source in sources.items():
        lacking, alone = images - source.places.keys(), source.places.keys() - images
        if lacking:
            faults.append(f"{label} lacks {_first(lacking)} of the {len(images):,} images of the truth")
        if alone and wanted is None:
            faults.append(f"{label} has {_first(alone)} that the truth lacks")
        shared = shared & source.places.keys()
    if not shared:
        raise DataError(
            f"no image has a mask everywhere: {'; '.join(faults)}. Masks are called as their images, "
            "such as <image name>.png; of a prepared folder --split names another list than val"
        )
    if faults and not common:
        raise DataError(
            f"{'; '.join(faults)}. Complete the masks, name the right images by --images LIST, or give --common "
            f"to score the {len(shared):,} that all have"
        )
    return sorted(shared)


def read_wanted(path: Path | None) -> list[str] | None:
    """The names in a list, see `read_list`; None without one."""
    return None if path is None else read_list(path)


def _first(names: Sequence[str] | set[str]) -> str:
    names = sorted(names)
    return f"{len(names):,} ({', '.join(names[:FIRST])}{', …' if len(names) > FIRST else ''})"


def count_masks(
    truth: MaskSource,
    sources: dict[str, MaskSource],
    names: Sequence[str],
    manifest: Manifest,
    processes: int | None = None,
) -> Counts:
    """Counts of the images `names` under the masks of each source, read in `processes` (None: one a core).

    One batch of masks a process is in memory. DataError that names the file: it cannot be read, has another
    size than the truth, an unknown id, or 255 where the truth has a class; and where nothing can be counted.
    """

    def batches() -> Iterator[list[tuple[Mask, ...]]]:
        for begin in range(0, len(names), BATCH):
            chosen = names[begin : begin + BATCH]
            yield [(truth.mask(name), *(source.mask(name) for source in sources.values())) for name in chosen]

    if len(names) <= FEW:
        processes = 1
    pool = Parallel(processes or cpu_count(), return_as="generator", pre_dispatch="2*n_jobs")
    counted = pool(delayed(_count_batch)(batch, manifest) for batch in batches())
    images = []
    for part in progress(counted, "count masks", -(-len(names) // BATCH), least=FEW):
        images += part
    if not sum(each.whole[0, 1].sum() for each in images):
        raise DataError(
            f"{truth.path}: the truth of all {len(names)} images holds {IGNORE} only, which is ignored, so there "
            "is nothing to measure; write the classes' ids"
        )
    return Counts(tuple(names), tuple(sources), **stacked(images))


def _count_batch(batch: list[tuple[Mask, ...]], manifest: Manifest) -> list[ImageCounts]:
    counted = []
    for of_truth, *others in batch:
        truth = of_truth.read(manifest)
        answers = []
        for mask in others:
            labels = mask.read(manifest, truth.shape)
            unsure = labels == IGNORE
            if (unsure & (truth != IGNORE)).any():
                raise DataError(
                    f"{mask.path}: the id {IGNORE} is no answer where the truth has a class; give each pixel a class"
                )
            answers.append(np.where(unsure, np.uint8(0), labels))
        counted.append(count_image(truth, answers, manifest.num_classes))
    return counted


def compare(
    counts: Counts, classes: Sequence[str], draws: int = DRAWS, seed: int = 0, notes: Sequence[str] = ()
) -> dict:
    """The measures of one or two variants, in 0..1, and the difference of the second to the first.

    `classes` are the K names, background first. 95 % intervals by the bootstrap: images are drawn anew with
    replacement, the same for both variants, their pixel counts summed, and measures made of the sums.

    Returns:
        variants, classes, images, draws, seed, notes; rows: measure, value of each variant (`a`, `b`),
        difference, low, high (of the difference, or of the value where there is one variant; None where
        nothing can be measured); images_apart: the MOST_DIFFERENT images whose own mIoU differs most, or is
        lowest: image, a, b, difference; sentence.
    """
    variants, rows = counts.variants, []
    once = np.ones((1, len(counts.images)))
    values = [_measured(counts, variant, classes, once) for variant in variants]
    drawn = [[] for _ in variants]
    for times in redrawn_blocks(len(counts.images), draws, seed):
        for number, variant in enumerate(variants):
            drawn[number].append(_measured(counts, variant, classes, times))
    for measure in values[0]:
        points = [value[measure][0] for value in values]
        draw = [np.concatenate([block[measure] for block in blocks]) for blocks in drawn]
        spread = draw[-1] - draw[0] if len(variants) == 2 else draw[0]
        spread = spread[~np.isnan(spread)]
        low, high = np.quantile(spread, INTERVAL) if len(spread) else (np.nan, np.nan)
        row = {"measure": measure} | dict(zip("ab", map(_number, points)))
        if len(variants) == 2:
            row["difference"] = _number(points[1] - points[0])
        rows.append(row | {"low": _number(low), "high": _number(high)})
    result = {
        "variants": list(variants),
        "classes": list(classes),
        "images": len(counts.images),
        "draws": draws,
        "seed": seed,
        "notes": [*notes, *_ignored(counts)],
        "rows": rows,
        "images_apart": _apart(counts),
    }
    return result | {"sentence": _sentence(result, counts)}


def _measured(
    counts: Counts, variant: str, classes: Sequence[str], times: np.ndarray
) -> dict[str, np.ndarray]:
    """`WORDS` and iou_<class>, (T,) each; nan for a class that is neither true nor predicted in a draw."""
    drawn = counts.drawn(variant, times)
    measures = {key: drawn[key] for key in WORDS}
    right, true, predicted = np.moveaxis(drawn_counts(counts.of(variant), times), 1, 0)
    union = true + predicted - right
    iou = np.where(union > 0, right / np.maximum(union, 1), np.nan)
    return measures | {f"iou_{name}": iou[:, index] for index, name in enumerate(classes)}


def _ignored(counts: Counts) -> list[str]:
    nothing = [name for name, whole in zip(counts.images, counts.whole) if not whole[0, 1].any()]
    if not nothing:
        return []
    return [f"the truth of {_first(nothing)} holds {IGNORE} only: such images count nothing"]


def _apart(counts: Counts) -> list[dict]:
    own = np.stack([mean_iou(counts.of(variant)) for variant in counts.variants], axis=1)
    difference = own[:, -1] - own[:, 0]
    counted = counts.whole[:, 0].any((1, 2))
    order = np.argsort(-abs(difference) if len(counts.variants) == 2 else own[:, 0], kind="stable")
    rows = []
    for place in order[counted[order]][:MOST_DIFFERENT]:
        row = {"image": counts.images[place]} | dict(zip("ab", map(_number, own[place])))
        if len(counts.variants) == 2:
            row["difference"] = _number(difference[place])
        rows.append(row)
    return rows


def _sentence(result: dict, counts: Counts) -> str:
    """What can be cited of a comparison."""
    first, row = result["variants"][0], result["rows"][0]
    images = f"{result['images']:,} images"
    if len(result["variants"]) == 1:
        low, high = (f"{100 * row[key]:.1f}" for key in ("low", "high"))
        return f"{first} has {100 * row['a']:.1f} % mIoU (95 % over images {low} to {high}; {images})."
    second = result["variants"][1]
    if (counts.whole[:, 0] == counts.whole[:, 1]).all():
        return f"{second} is as good as {first} in every image and class: no mIoU differs ({images})."
    ends = sorted((row["low"], row["high"]))
    word = "above"
    if row["difference"] < 0:
        word, ends = "below", [-ends[1], -ends[0]]
    low, high = (f"{100 * end:.1f}" for end in ends)
    sentence = (
        f"{second} is {100 * abs(row['difference']):.1f} points mIoU {word} {first} "
        f"(95 % over images {low} to {high}; {images})"
    )
    return f"{sentence}." if ends[0] > 0 else f"{sentence}; an interval that holds 0 shows no difference."


def as_text(result: dict) -> str:
    """A result of `compare` as a table in per cent for a terminal, and the sentence."""
    two = len(result["variants"]) == 2
    heads = [*result["variants"], *(["difference"] * two), "95 % over images"]
    keys = ["a", *(["b", "difference"] * two)]
    rows, absent = [["", *heads]], []
    for row in result["rows"]:
        if row["low"] is None:
            absent.append(measure_words(row["measure"]).removeprefix("IoU "))
            continue
        cells = [_cell(row[key], key == "difference") for key in keys]
        ends = [_cell(row[key], two) for key in ("low", "high")]
        rows.append([measure_words(row["measure"]), *cells, " to ".join(ends)])
    lines = _aligned(rows)
    if absent:
        lines.append(f"nothing to measure: {', '.join(absent)}")
    lines += ["", "images that differ most, mIoU" if two else "lowest images, mIoU"]
    apart = [
        [row["image"], *(_cell(row[key], key == "difference") for key in keys)]
        for row in result["images_apart"]
    ]
    lines += _aligned([["", *heads[:-1]], *apart])
    lines += ["", *result["notes"], *([""] if result["notes"] else []), result["sentence"]]
    return "\n".join(lines)


def as_csv(result: dict) -> str:
    """The rows of a result of `compare`: measure, the variants by name, difference, low, high; in 0..1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [key for key in result["rows"][0] if key != "measure"]
    names = dict(zip("ab", result["variants"]))
    writer.writerow(["measure", *(names.get(key, key) for key in keys)])
    for row in result["rows"]:
        writer.writerow([row["measure"], *("" if row[key] is None else f"{row[key]:.6f}" for key in keys)])
    return text.getvalue()


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for first, *cells in rows:
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
        lines.append("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
    return lines


def _cell(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "–"
    text = f"{100 * value:{'+' if signed else ''}.1f}"
    return "0.0" if text in ("-0.0", "+0.0") else text


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
