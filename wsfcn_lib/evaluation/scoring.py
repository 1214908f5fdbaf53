"""Evaluation of pictures: with and without CRF, with predicted and true tags, under both recipes (paper, section IV).

accelerate launch -m wsfcn_lib.evaluate data/runs/<name>     # shares the list among several processes
"""

import argparse
import csv
import io
import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch.distributed as dist
from accelerate import PartialState
from pydantic import Field
from torch import nn
from tqdm import tqdm

from wsfcn_lib.config import Fraction, Recipe
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_image, save_mask
from wsfcn_lib.data.manifest import Manifest, Sample
from wsfcn_lib.evaluation.inputs import (
    file_suffix,
    images_label,
    images_path,
    load_trained,
    none_opens,
    readable,
    samples_of,
)
from wsfcn_lib.evaluation.results import EvaluationResults, ImageResult, PostProcessing
from wsfcn_lib.infer import SCALES, SCORE_CUT, at_size, predict_masks, probabilities, shrink
from wsfcn_lib.postprocess import RECIPES, crf_many, label_map
from wsfcn_lib.runs.folder import RunFolder
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import files_of, peak_memory_mb, provenance
from wsfcn_lib.runs.run_diff import plain
from wsfcn_lib.runs.settings import Settings
from wsfcn_lib.runs.storage import atomic_write
from wsfcn_lib.train import build_accelerator

STAGE = "05_evaluate"


class EvalSettings(Settings):
    """How a trained network is evaluated; the defaults are the published protocol on views of their own size."""

    images: str = "val"  # a split of the manifest, a file that lists image names, or a folder of pictures
    snapshot: str = "best"  # best, last or a file, see `subjects.open_trained`
    recipe: Recipe = "wsfcn"
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field(SCALES, min_length=1)
    flip: bool = True
    canvas: int = Field(0, ge=0, le=4096)  # 0: views of their own size; 1024: the published canvas
    long_side: int = Field(
        0, ge=0, le=8192
    )  # larger pictures are shrunk to it for network and CRF, labels enlarged; 0: never
    score_cut: Fraction = SCORE_CUT
    use_crf: bool = True
    processes: int = Field(2, ge=1, le=256)  # of the CRF
    bf16: bool = False


def post_processings(settings: EvalSettings, with_truth: bool) -> list[PostProcessing]:
    """What is computed: recipe x CRF x tags where the truth is known, else the chosen recipe on the predicted tags."""
    recipes, kinds = (RECIPES, ("predicted", "true")) if with_truth else ((settings.recipe,), ("predicted",))
    return [
        PostProcessing(*chosen) for chosen in product(recipes, (False, True)[: 1 + settings.use_crf], kinds)
    ]


def look(net: nn.Module, sample: Sample, settings: EvalSettings) -> tuple[ImageResult, list[tuple]]:
    """Predict one image: its result without CRF, and (variants, job for `crf_many`) pairs that are to complete it.

    Where the predicted tags are the true ones, one job serves both.
    """
    picture = read_image(sample.image)
    image, size = shrink(picture, settings.long_side), picture.shape[:2]
    masks, scores = predict_masks(
        net, image, settings.scales, settings.flip, settings.canvas or None, settings.bf16
    )
    chances = probabilities(scores)
    tags = {"predicted": chances > settings.score_cut, "true": np.array(sample.tags, bool)}
    chosen, asked = post_processings(settings, with_truth=sample.mask is not None), {}
    labels = {v: at_size(label_map(masks, tags[v.tags], v.recipe), size) for v in chosen if not v.crf}
    for v in chosen:
        if v.crf:
            asked.setdefault((v.recipe, tags[v.tags].tobytes()), []).append(v)
    jobs = [
        (these, (sample.name, image, masks, tags[these[0].tags], these[0].recipe)) for these in asked.values()
    ]
    return ImageResult(sample, chances, tags["predicted"], labels, size), jobs


def predict(net: nn.Module, samples: Iterable[Sample], settings: EvalSettings) -> Iterator[ImageResult]:
    """Predict image after image, in order; the CRF runs in its processes meanwhile. Needs no ground truth."""
    if not settings.use_crf:
        yield from (look(net, sample, settings)[0] for sample in samples)
        return
    waiting = (
        deque()
    )  # for each job under way: its image's result, the variants it is for, and whether it is the last

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


def write_table(path: Path, rows: list[list]) -> None:
    """Write rows as CSV."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    atomic_write(path, table.getvalue())


def add_metrics(path: Path, **blocks: object) -> None:
    """Add entries to a file of metrics, or begin one."""
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    atomic_write(path, json.dumps(known | plain(blocks), indent=1) + "\n")


def evaluate(
    net: nn.Module, manifest: Manifest, settings: EvalSettings, run: Path, also: Sequence = ()
) -> EvaluationResults:
    """Predict, and score where there are masks, the pictures that `settings.images` names (see `subjects.samples_of`).

    Writes into the run folder: masks/<name of images>[_crf]/*.png; metrics.json, its numbers null where nothing has a mask;
    per_image.csv; and scores.csv, the probability of each class in each picture. These three belong to splits; those of a
    list or folder end in _<name> (metrics_holiday.json). DataError where these are of another folder with the same name.
    A picture of a folder that cannot be opened is left out, told at the end and in `left_out` of the metrics; see `readable`.
    Each function in `also` is called with each `ImageResult`, such as `counts.Counter.add`. Several processes take a share of
    the list each; all return the tally of the whole, the first one writes the tables; `also` sees the share of its process.
    """
    images, ending = settings.images, file_suffix(settings.images)
    path, source = run / f"metrics{ending}.json", {"source": plain(images_path(images))} if ending else {}
    if (
        source
        and path.exists()
        and (known := json.loads(path.read_text("utf-8")).get("source")) != source["source"]
    ):
        raise DataError(
            f"{path} is of {known}, not of {images_path(images)}: rename this, or choose another run name"
        )
    samples, tally, bad = share_of(samples_of(images, manifest)), EvaluationResults(manifest, settings), []
    results = predict(net, readable(images, samples, bad, part=process()[1] > 1), settings)
    for result in tqdm(results, "evaluate", len(samples), file=sys.stdout, mininterval=5, ncols=80):
        for count in (tally.add, *also):
            count(result)
        for crf in (False, True):
            if (labels := result.labels.get(PostProcessing(settings.recipe, crf, "predicted"))) is not None:
                save_mask(
                    run / "masks" / f"{images_label(images)}{'_crf' * crf}" / f"{result.sample.name}.png",
                    labels,
                    manifest,
                )
    tally, bad = gathered(tally), gathered(bad)
    if bad and not tally.rows:
        raise none_opens(images, bad)
    if process()[0]:
        return tally
    print(*(f"left out: {line}" for line in bad), sep="\n", end="\n" * bool(bad))
    source |= {"left_out": plain(bad)} if bad else {}
    atomic_write(path, json.dumps(tally.metrics() | source, indent=1) + "\n")
    columns = list(dict.fromkeys(key for row in tally.rows for key in row))
    write_table(
        run / f"per_image{ending}.csv",
        [columns, *([row.get(key, "") for key in columns] for row in tally.rows)],
    )
    scores = [
        [row["image"], *chances.astype(float).round(4).tolist()]
        for row, chances in zip(tally.rows, tally.probabilities)
    ]
    write_table(run / f"scores{ending}.csv", [["image", *manifest.names[1:]], *scores])
    return tally


def process() -> tuple[int, int]:
    """The number of this process among those of a launcher, and theirs; (0, 1) without one."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def share_of(samples: list) -> list:
    """This process's part of a list; the parts of all processes follow each other."""
    number, count = process()
    return samples[number * len(samples) // count : (number + 1) * len(samples) // count]


def gathered(part):
    """The sum of the processes' parts, in their order."""
    parts = [None] * process()[1]
    if len(parts) == 1:
        return part
    dist.all_gather_object(parts, part)
    return sum(parts[1:], parts[0])


def main() -> None:
    """Evaluate a trained run as accelerate starts it, on as many processes as it starts; writes what 05_evaluate writes first."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m wsfcn_lib.evaluate", description=main.__doc__)
    parser.add_argument("run", help="run folder, such as data/runs/demo")
    parser.add_argument(
        "--settings", type=Path, help="JSON file of EvalSettings; what it leaves out is as in 05_evaluate"
    )
    arguments = parser.parse_args()
    try:
        given = json.loads(arguments.settings.read_text()) if arguments.settings else {}
        trained = load_trained(arguments.run, given.get("snapshot", "best"))
        settings = EvalSettings(**{"images": "test", "long_side": 640} | trained.protocol | given)
        device, began = build_accelerator(trained.config).device, time.perf_counter()
        folder = (
            None
            if process()[0]
            else RunFolder.open(arguments.run, settings.model_dump(), STAGE, ignore=settings.model_dump())
        )
        tally = evaluate(trained.net.to(device), trained.manifest, settings, ROOT / arguments.run)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        sys.exit(
            f"{type(error).__name__}: {error}"
            + f" (settings: {arguments.settings})" * bool(arguments.settings)
        )
    if folder:
        done = {
            "settings": settings.model_dump(),
            "weights": trained.path.name,
            "data": trained.manifest.checksums(),
        }
        done |= {
            "seconds": round(time.perf_counter() - began, 1),
            "peak_memory_mb": peak_memory_mb(),
            "finished": True,
        }
        folder.record(STAGE, **done, files=files_of(folder.path), **provenance(str(device)))
        folder.close()
        print(
            json.dumps(
                {key: value for key, value in tally.metrics().items() if key.startswith(("images", "mean"))}
            )
        )
    PartialState().destroy_process_group()  # else PyTorch aborts every second process as Python ends


if __name__ == "__main__":
    main()
