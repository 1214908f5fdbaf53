"""What an evaluation keeps of each image, from labels that are known: one recipe of all that were measured."""

from itertools import product

import numpy as np
import pytest

from factories import CLASSES, NAMES, QUICK
from wsfcn_lib.data.manifest import Manifest, Sample
from wsfcn_lib.evaluation.results import EvaluationResults, ImageResult, PostProcessing
from wsfcn_lib.postprocess import RECIPES

SIDE = 16
TRUTH = np.zeros((SIDE, SIDE), np.uint8)
TRUTH[:8] = 1
VARIANTS = [
    PostProcessing(recipe, crf, tags)
    for recipe, crf, tags in product(RECIPES, (False, True), ("predicted", "true"))
]
ROWS_OF = {variant: 1 + number for number, variant in enumerate(VARIANTS)}  # rows of cat that each paints


def iou_of(variant):
    """mIoU of the variant's mask, whose upper rows are cat."""
    rows = ROWS_OF[variant]
    return (rows / 8 + 8 / (SIDE - rows)) / 2


def result(tmp_path, variants):
    labels = {}
    for variant in variants:
        labels[variant] = np.zeros_like(TRUTH)
        labels[variant][: ROWS_OF[variant]] = 1
    tags = {"predicted": np.array([True, False, False]), "true": np.array([True, False, False])}
    sample = Sample("p0", tmp_path / "p0.jpg", (True, False, False))
    return ImageResult(sample, TRUTH.shape, TRUTH, np.array([0.9, 0.1, 0.2]), tags, labels)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("crf", [True, False])
@pytest.mark.parametrize("recipe", RECIPES)
def test_rows_counts_and_metrics_are_those_of_the_chosen_recipe(tmp_path, recipe, crf, order):
    variants = [variant for variant in VARIANTS[::order] if crf or not variant.crf]
    results = EvaluationResults(Manifest(tmp_path, CLASSES), QUICK.model_copy(update={"recipe": recipe}))
    results.add(result(tmp_path, variants))
    own = {variant.suffix: iou_of(variant) for variant in variants if variant.recipe == recipe}
    (row,) = results.rows
    found = {key.removeprefix("iou"): value for key, value in row.items() if key.startswith("iou")}
    assert found == {suffix: pytest.approx(iou, abs=1e-4) for suffix, iou in own.items()}
    kept = [PostProcessing(recipe, each, "predicted") for each in (False, True)[: 1 + crf]]
    assert results.kept[: 1 + crf] == kept
    assert row["painted"] == pytest.approx(ROWS_OF[kept[-1]] / SIDE, abs=1e-4)
    assert results.counts["p0"].whole[:, 0, 1].tolist() == [ROWS_OF[variant] * SIDE for variant in kept]
    for both in (results, results + EvaluationResults(results.manifest, results.settings)):
        metrics = both.metrics()
        assert metrics["recipe"] == recipe
        for suffix, iou in own.items():
            assert metrics[f"mean_iou{suffix}"] == pytest.approx(iou)
        for variant in kept:
            missed = metrics[f"details{variant.suffix}"]["per_class"][NAMES[1]]["false_negative"]
            assert missed == pytest.approx(1 - ROWS_OF[variant] / 8)
        measured = {PostProcessing(each["recipe"], each["crf"], each["tags"]) for each in metrics["variants"]}
        assert measured == set(variants)
