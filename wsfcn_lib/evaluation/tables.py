"""Tables of an evaluation in percent: recipes and tags, classes, and the tags that were predicted."""

import numpy as np
import pandas as pd

from wsfcn_lib.evaluation.results import EvaluationResults, PostProcessing
from wsfcn_lib.metrics import ConfusionMatrix, mean_average_precision
from wsfcn_lib.postprocess import RECIPES


def recipe_table(results: EvaluationResults) -> pd.DataFrame:
    """A row for each recipe and kind of tags that was measured: recipe, tags, mIoU, + CRF (nan where it did not run)."""
    rows = []
    for recipe in RECIPES:
        for tags in ("predicted", "true"):
            matrices = [results.matrices.get(PostProcessing(recipe, crf, tags)) for crf in (False, True)]
            numbers = [100 * matrix.mean_iou() if matrix else np.nan for matrix in matrices]
            rows.append((recipe, tags, *numbers))
    table = pd.DataFrame(rows, columns=["recipe", "tags", "mIoU", "+ CRF"])
    return table.dropna(how="all", subset=["mIoU", "+ CRF"]).reset_index(drop=True)


def class_table(matrices: dict[str, ConfusionMatrix | None], names: tuple[str, ...]) -> pd.DataFrame:
    """IoU, precision and recall of each class under each matrix, {words added to the column's name: matrix or None}."""
    columns = {}
    for words, matrix in matrices.items():
        if matrix:
            columns[f"IoU{words}"] = matrix.iou()
            columns[f"precision{words}"] = matrix.precision()
            columns[f"recall{words}"] = matrix.recall()
    return 100 * pd.DataFrame(columns, names)


def tag_table(chances: np.ndarray, truth: np.ndarray, names: tuple[str, ...], cut: float) -> pd.DataFrame:
    """A row a class, from probabilities and true tags (N, K - 1): in how many images it is, and is predicted.

    Where any tag is known, its average precision too, and precision and recall of what lies above the cut.
    """
    taken = chances > cut
    table = pd.DataFrame({"images": truth.sum(0), "predicted": taken.sum(0)}, names)
    if truth.any():
        hits = (taken & truth).sum(0)
        table["average precision"] = 100 * mean_average_precision(chances, truth)[0]
        table["precision"] = 100 * hits / np.maximum(taken.sum(0), 1)
        table["recall"] = 100 * hits / np.maximum(truth.sum(0), 1)
    return table.round(1)
