"""Evaluation of pictures: with and without CRF, with predicted and true tags, under both recipes (paper, section IV)."""

import csv
import io
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field
from torch import nn
from tqdm import tqdm

from wsfcn_lib.config import Fraction, Recipe, Settings
from wsfcn_lib.crf import crf_many
from wsfcn_lib.data.files import DataError, read_image, read_mask, save_mask
from wsfcn_lib.data.manifest import Manifest, Sample
from wsfcn_lib.infer import SCALES, SCORE_CUT, at_size, predict_masks, probabilities, shrink
from wsfcn_lib.metrics import ConfusionMatrix, mean_average_precision, summary
from wsfcn_lib.recipes import RECIPES, label_map
from wsfcn_lib.runs import atomic_write, plain
from wsfcn_lib.subjects import ending_of, label_of, place_of, readable, samples_of


class EvalSettings(Settings):
    """How a trained network is evaluated; the defaults are the published protocol on views of their own size."""

    images: str = "val"  # a split of the manifest, a file that lists image names, or a folder of pictures
    snapshot: str = "best"  # best, last or a file, see `subjects.open_trained`
    recipe: Recipe = "wsfcn"
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field(SCALES, min_length=1)
    flip: bool = True
    canvas: int = Field(0, ge=0, le=4096)  # 0: views of their own size; 1024: the published canvas
    long_side: int = Field(0, ge=0, le=8192)  # larger pictures are shrunk to it for network and CRF, labels enlarged; 0: never
    score_cut: Fraction = SCORE_CUT
    use_crf: bool = True
    processes: int = Field(2, ge=1, le=256)  # of the CRF
    bf16: bool = False


class Variant(NamedTuple):
    """One way to turn fused masks into labels."""

    recipe: str
    crf: bool
    tags: str  # "predicted" or "true"; true tags are the upper bound that papers call clean


class ImageResult(NamedTuple):
    """All labels of one image, (H, W) uint8 each, its probabilities (K-1,), tags (K-1,) bool and size (H, W)."""

    sample: Sample
    probabilities: np.ndarray
    tags: np.ndarray
    labels: dict[Variant, np.ndarray]
    size: tuple[int, int]


def variants(settings: EvalSettings, with_truth: bool) -> list[Variant]:
    """What is computed: recipe x CRF x tags where the truth is known, else the chosen recipe on the predicted tags."""
    recipes, kinds = (RECIPES, ("predicted", "true")) if with_truth else ((settings.recipe,), ("predicted",))
    return [Variant(*chosen) for chosen in product(recipes, (False, True)[: 1 + settings.use_crf], kinds)]


def look(net: nn.Module, sample: Sample, settings: EvalSettings) -> tuple[ImageResult, list[tuple]]:
    """Predict one image: its result without CRF, and (variants, job for `crf_many`) pairs that are to complete it.

    Where the predicted tags are the true ones, one job serves both.
    """
    picture = read_image(sample.image)
    image, size = shrink(picture, settings.long_side), picture.shape[:2]
    masks, scores = predict_masks(net, image, settings.scales, settings.flip, settings.canvas or None, settings.bf16)
    chances = probabilities(scores)
    tags = {"predicted": chances > settings.score_cut, "true": np.array(sample.tags, bool)}
    chosen, asked = variants(settings, with_truth=sample.mask is not None), {}
    labels = {v: at_size(label_map(masks, tags[v.tags], v.recipe), size) for v in chosen if not v.crf}
    for v in chosen:
        if v.crf:
            asked.setdefault((v.recipe, tags[v.tags].tobytes()), []).append(v)
    jobs = [(these, (sample.name, image, masks, tags[these[0].tags], these[0].recipe)) for these in asked.values()]
    return ImageResult(sample, chances, tags["predicted"], labels, size), jobs


def predict(net: nn.Module, samples: Iterable[Sample], settings: EvalSettings) -> Iterator[ImageResult]:
    """Predict image after image, in order; the CRF runs in its processes meanwhile. Needs no ground truth."""
    if not settings.use_crf:
        yield from (look(net, sample, settings)[0] for sample in samples)
        return
    waiting = deque()  # for each job under way: its image's result, the variants it is for, and whether it is the last

    def jobs():
        for sample in samples:
            result, own = look(net, sample, settings)
            waiting.extend((result, these, these is own[-1][0]) for these, _ in own)
            yield from (job for _, job in own)

    for _, labels in crf_many(jobs(), settings.processes):
        result, these, last = waiting.popleft()
        result.labels.update(dict.fromkeys(these, at_size(labels, result.size)))
        if last:
            yield result


class Tally:
    """Confusion matrices per variant, one row per image, and what mean average precision needs; divides only at the end."""

    def __init__(self, manifest: Manifest, settings: EvalSettings):
        self.manifest, self.settings = manifest, settings
        self.matrices: dict[Variant, ConfusionMatrix] = {}
        self.rows: list[dict] = []
        self.probabilities: list[np.ndarray] = []
        self.truth: list[tuple[bool, ...]] = []

    def add(self, result: ImageResult) -> None:
        """Count one image; without a mask it is listed, but enters no matrix."""
        sample, names = result.sample, np.array(self.manifest.names[1:])
        self.probabilities.append(result.probabilities)
        self.truth.append(sample.tags)
        row = {"image": sample.name, "tags": ";".join(names[list(sample.tags)]), "predicted": ";".join(names[result.tags])}
        if sample.mask is not None:
            truth = read_mask(sample.mask, self.manifest)
            for variant, labels in result.labels.items():
                if labels.shape != truth.shape:
                    sizes = f"{truth.shape[::-1]}, its image {labels.shape[::-1]}"
                    raise DataError(f"{sample.mask}: the mask is {sizes} (width, height); they must be equal: correct the mask")
                single = ConfusionMatrix(self.manifest.num_classes)
                single.update(labels, truth)
                self.matrices[variant] = self.matrices.get(variant, ConfusionMatrix(self.manifest.num_classes)) + single
                if variant.recipe == self.settings.recipe:
                    row["iou" + suffix(variant)] = round(single.mean_iou(), 4)
        self.rows.append(row)

    def metrics(self) -> dict:
        """The content of metrics.json: the chosen recipe on top, and all that was measured in `variants`; IoU in 0..1."""
        recipe, tagged = self.settings.recipe, any(map(any, self.truth))
        out = {"images": len(self.rows), "split": label_of(self.settings.images), "recipe": recipe}
        for crf in (False, True):
            for kind in ("predicted", "true"):
                variant = Variant(recipe, crf, kind)
                block = summary(self.matrices[variant], self.manifest.names) if variant in self.matrices else {}
                out["mean_iou" + suffix(variant)] = block.get("mean_iou")
                if kind == "predicted" and block:
                    ending = suffix(variant)
                    out |= {f"{key}{ending}": block[key] for key in ("per_class_iou", "precision", "recall")}
        out["variants"] = [v._asdict() | summary(self.matrices[v], self.manifest.names) for v in sorted(self.matrices)]
        out["mean_ap"] = mean_average_precision(np.array(self.probabilities), np.array(self.truth))[1] if tagged else None
        return out


def suffix(variant: Variant) -> str:
    """The ending of a variant's name in metrics.json and per_image.csv: "", _crf, _true_tags or _crf_true_tags."""
    return "_crf" * variant.crf + "_true_tags" * (variant.tags == "true")


def write_table(path: Path, rows: list[list]) -> None:
    """Write rows as CSV."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    atomic_write(path, table.getvalue())


def add_metrics(path: Path, **blocks: object) -> None:
    """Add entries to a file of metrics, or begin one."""
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    atomic_write(path, json.dumps(known | plain(blocks), indent=1) + "\n")


def evaluate(net: nn.Module, manifest: Manifest, settings: EvalSettings, run: Path, also: Sequence = ()) -> Tally:
    """Predict, and score where there are masks, the pictures that `settings.images` names (see `subjects.samples_of`).

    Writes into the run folder: masks/<name of images>[_crf]/*.png; metrics.json, its numbers null where nothing has a mask;
    per_image.csv; and scores.csv, the probability of each class in each picture. These three belong to splits; those of a
    list or folder end in _<name> (metrics_holiday.json). DataError where these are of another folder with the same name.
    A picture of a folder that cannot be opened is left out, told at the end and in `left_out` of the metrics; see `readable`.
    Each function in `also` is called with each `ImageResult`, such as `counts.Counter.add`.
    """
    images, ending = settings.images, ending_of(settings.images)
    path, source = run / f"metrics{ending}.json", {"source": plain(place_of(images))} if ending else {}
    if source and path.exists() and (known := json.loads(path.read_text("utf-8")).get("source")) != source["source"]:
        raise DataError(f"{path} is of {known}, not of {place_of(images)}: rename this, or choose another run name")
    samples, tally, bad = samples_of(images, manifest), Tally(manifest, settings), []
    results = predict(net, readable(images, samples, bad), settings)
    for result in tqdm(results, "evaluate", len(samples), file=sys.stdout, mininterval=5, ncols=80):
        for count in (tally.add, *also):
            count(result)
        for crf in (False, True):
            if (labels := result.labels.get(Variant(settings.recipe, crf, "predicted"))) is not None:
                save_mask(run / "masks" / f"{label_of(images)}{'_crf' * crf}" / f"{result.sample.name}.png", labels, manifest)
    print(*(f"left out: {line}" for line in bad), sep="\n", end="\n" * bool(bad))
    source |= {"left_out": plain(bad)} if bad else {}
    atomic_write(path, json.dumps(tally.metrics() | source, indent=1) + "\n")
    columns = list(dict.fromkeys(key for row in tally.rows for key in row))
    write_table(run / f"per_image{ending}.csv", [columns, *([row.get(key, "") for key in columns] for row in tally.rows)])
    scores = [[row["image"], *chances.astype(float).round(4).tolist()] for row, chances in zip(tally.rows, tally.probabilities)]
    write_table(run / f"scores{ending}.csv", [["image", *manifest.names[1:]], *scores])
    return tally
