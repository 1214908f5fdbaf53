"""Evaluation: under both recipes, with and without CRF, with predicted and true tags (paper, section IV)."""

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import torch.distributed as dist
from pydantic import Field
from torch import nn

from wsfcn_lib.config import Fraction, Recipe
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_mask, save_mask
from wsfcn_lib.data.manifest import Manifest, Sample
from wsfcn_lib.evaluation.inputs import (
    file_suffix,
    images_label,
    images_path,
    none_opens,
    passed_over,
    read_images,
    samples_of,
)
from wsfcn_lib.evaluation.results import EvaluationResults, ImageResult, PostProcessing
from wsfcn_lib.infer import at_size, predict_masks, probabilities, shrink
from wsfcn_lib.postprocess import RECIPES, crf_many, label_map
from wsfcn_lib.protocol import SCALES, SCORE_CUT
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.run_diff import plain
from wsfcn_lib.runs.settings import Settings
from wsfcn_lib.runs.storage import atomic_write

# values of notebook 05's parameters that stand for those of the weights, see `protocol.protocol_of`
UNSAID = {"recipe": "", "scales": [], "canvas": -1, "long_side": -1, "score_cut": -1}


class EvalSettings(Settings):
    """How a network is evaluated; the defaults are the published protocol on views of their own size."""

    images: str = "val"  # a split of the manifest, a file that lists image names, or a folder of pictures
    snapshot: str = "best"  # best, last or a file, see `inputs.load_trained`
    recipe: Recipe = "wsfcn"
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field(SCALES, min_length=1)
    flip: bool = True
    canvas: int = Field(0, ge=0, le=4096)  # 0: views of their own size; 1024: the published canvas
    # larger pictures are shrunk to it for network and CRF, and their labels enlarged; 0: never
    long_side: int = Field(0, ge=0, le=8192)
    score_cut: Fraction = SCORE_CUT
    use_crf: bool = True
    processes: int = Field(2, ge=1, le=256)  # of the CRF
    bf16: bool = False


class Prediction(NamedTuple):
    """One image that the network has seen, and what its labels are made of."""

    result: ImageResult  # still without labels
    image: np.ndarray  # (h, w, 3) uint8, shrunk to `long_side`
    masks: np.ndarray  # (K, h, w) in [0, 1], fused over the views
    wanted: list[PostProcessing]


def post_processings(settings: EvalSettings, with_truth: bool) -> list[PostProcessing]:
    """Recipe x CRF x tags where the truth is known, else the chosen recipe on the predicted tags."""
    recipes = RECIPES if with_truth else (settings.recipe,)
    crfs = (False, True) if settings.use_crf else (False,)
    kinds = ("predicted", "true") if with_truth else ("predicted",)
    return [PostProcessing(*one) for one in product(recipes, crfs, kinds)]


def predict(
    net: nn.Module,
    manifest: Manifest,
    samples: list[Sample],
    settings: EvalSettings,
    left_out: list[str] | None = None,
) -> Iterator[ImageResult]:
    """Predict image after image, in order, under `post_processings`; the CRF runs in its processes meanwhile.

    Needs no ground truth. `left_out` as in `read_images`.
    """

    def predictions() -> Iterator[Prediction]:
        for sample, image in read_images(settings.images, samples, left_out, part=True):
            truth = None
            if sample.mask is not None:
                truth = read_mask(sample.mask, manifest, size=image.shape[:2])
            wanted = post_processings(settings, with_truth=truth is not None)
            yield predict_image(net, sample, image, settings, wanted, truth)

    return add_labels(predictions(), settings)


def predict_image(
    net: nn.Module,
    sample: Sample,
    image: np.ndarray,
    settings: EvalSettings,
    wanted: list[PostProcessing],
    truth: np.ndarray | None = None,
) -> Prediction:
    """Let the network see one image (H, W, 3) uint8, whose true labels are (H, W), if known."""
    small = shrink(image, settings.long_side)
    canvas = settings.canvas or None
    masks, scores = predict_masks(net, small, settings.scales, settings.flip, canvas, settings.bf16)
    chances = probabilities(scores)
    tags = {"predicted": chances > settings.score_cut, "true": np.array(sample.tags, bool)}
    return Prediction(ImageResult(sample, image.shape[:2], truth, chances, tags), small, masks, wanted)


def add_labels(predictions: Iterable[Prediction], settings: EvalSettings) -> Iterator[ImageResult]:
    """The results of predictions, in order, with the wanted labels of each, at the size of its picture.

    With `settings.use_crf` each must want the CRF at least once; it runs in `settings.processes` processes of
    its own while the next images are predicted.
    """
    if not settings.use_crf:
        yield from map(_label_without_crf, predictions)
        return
    waiting = deque()  # of each CRF under way: result, post-processings it is for, whether it is the last

    def crf_jobs() -> Iterator[tuple]:
        for prediction in predictions:
            result = _label_without_crf(prediction)
            same = defaultdict(list)  # where the predicted tags are the true ones, one CRF serves both
            for each in prediction.wanted:
                if each.crf:
                    same[each.recipe, result.tags[each.tags].tobytes()].append(each)
            for number, group in enumerate(same.values(), 1):
                waiting.append((result, group, number == len(same)))
                tags, recipe = result.tags[group[0].tags], group[0].recipe
                yield result.sample.name, prediction.image, prediction.masks, tags, recipe

    for _, labels in crf_many(crf_jobs(), settings.processes):
        result, group, last = waiting.popleft()
        result.labels |= dict.fromkeys(group, at_size(labels, result.size))
        if last:
            yield result


def _label_without_crf(prediction: Prediction) -> ImageResult:
    result = prediction.result
    for each in prediction.wanted:
        if not each.crf:
            labels = label_map(prediction.masks, result.tags[each.tags], each.recipe)
            result.labels[each] = at_size(labels, result.size)
    return result


def evaluate(
    net: nn.Module,
    manifest: Manifest,
    settings: EvalSettings,
    run: Path | str,
    also: Sequence[Callable[[ImageResult], None]] = (),
) -> EvaluationResults:
    """Predict the pictures that `settings.images` names (see `samples_of`), and score those with a mask.

    Writes into the run folder: masks/<name of images>[_crf]/*.png; metrics.json, its numbers null where
    nothing has a mask; per_image.csv; and scores.csv, the probability of each class in each picture. These
    three belong to splits; those of a list or folder end in _<name> (metrics_holiday.json). DataError where
    these are of another folder with the same name. A picture of a folder that cannot be opened is left out,
    named at the end and in `left_out` of the metrics; files there that are no pictures are counted in
    `passed_over`. Each function in `also` is called with each
    `ImageResult`, such as `DiagnosticsRecorder.add`. Several processes take a share of the list each; all
    return the results of the whole, the first one writes the tables; `also` sees the share of its process.
    """
    run, images = resolve_path(run), settings.images
    ending = file_suffix(images)
    metrics = run / f"metrics{ending}.json"
    facts = {"source": plain(images_path(images))} if ending else {}
    if ending and metrics.exists():
        source = json.loads(metrics.read_text("utf-8")).get("source")
        if source != facts["source"]:
            raise DataError(
                f"{metrics} is of {source}, not of {images_path(images)}: "
                "rename this, or choose another run name"
            )
    samples = share_of(samples_of(images, manifest))
    results, left_out = EvaluationResults(manifest, settings), []
    predicted = predict(net, manifest, samples, settings, left_out)
    for result in progress(predicted, "evaluate", len(samples)):
        for record in (results.add, *also):
            record(result)
        for crf in (False, True):
            chosen = PostProcessing(settings.recipe, crf, "predicted")
            if chosen in result.labels:
                path = run / "masks" / (images_label(images) + chosen.suffix) / f"{result.sample.name}.png"
                save_mask(path, result.labels[chosen], manifest)
    results, left_out = gathered(results), gathered(left_out)
    if left_out and not results.rows:
        raise none_opens(images, left_out)
    if process()[0] == 0:
        for line in left_out:
            print(f"left out: {line}")
        if left_out:
            facts["left_out"] = plain(left_out)
        for line in passed_over(images):
            print(line)
            facts.setdefault("passed_over", []).append(line)
        if results.unpainted:
            print(unpainted(results))
        atomic_write(metrics, json.dumps(results.metrics() | facts, indent=1) + "\n")
        atomic_write(run / f"per_image{ending}.csv", pd.DataFrame(results.rows).to_csv(index=False))
        atomic_write(run / f"scores{ending}.csv", results.scores().to_csv(index=False))
    return results


def unpainted(results: EvaluationResults) -> str:
    """A line on the pictures that are all background, and why."""
    names = results.unpainted
    without_class = [row["image"] for row in results.rows if not row["painted"] and not row["predicted"]]
    reasons = []
    if without_class:
        reasons.append(f"in {len(without_class)} no class scores above {results.settings.score_cut:g}")
    if below := len(names) - len(without_class):
        reasons.append(f"in {below} a class does, and its masks stay below the background")
    return (
        f"no pixel painted in {len(names)} of {len(results.rows)} pictures, first {', '.join(names[:3])}: "
        f"{'; '.join(reasons)}"
    )


def add_metrics(path: Path, **blocks: object) -> None:
    """Add entries to a file of metrics, or begin one."""
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    atomic_write(path, json.dumps(known | plain(blocks), indent=1) + "\n")


def process() -> tuple[int, int]:
    """The number of this process among those of a launcher, and theirs; (0, 1) without one."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def share_of(samples: list) -> list:
    """This process's part of a list; the parts of all processes follow each other."""
    number, count = process()
    return samples[number * len(samples) // count : (number + 1) * len(samples) // count]


def gathered(part):
    """The sum of the processes' parts, in their order."""
    count = process()[1]
    if count == 1:
        return part
    parts = [None] * count
    dist.all_gather_object(parts, part)
    return sum(parts[1:], parts[0])
