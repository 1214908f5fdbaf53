"""Tables of an evaluation, from matrices that are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from wsfcn_lib.evaluation.results import PostProcessing
from wsfcn_lib.evaluation.tables import class_table, recipe_table, tag_table
from wsfcn_lib.metrics import ConfusionMatrix


def matrix(counts):
    found = ConfusionMatrix(2)
    found.matrix = np.array(counts)
    return found


def test_a_row_for_what_was_measured():
    results = SimpleNamespace(
        matrices={
            PostProcessing("wsfcn", False, "predicted"): matrix([[5, 0], [0, 5]]),
            PostProcessing("wsfcn", False, "true"): matrix([[5, 5], [0, 5]]),
            PostProcessing("wsfcn", True, "true"): matrix([[5, 0], [0, 5]]),
        }
    )
    table = recipe_table(results)
    assert table[["recipe", "tags"]].to_numpy().tolist() == [["wsfcn", "predicted"], ["wsfcn", "true"]]
    assert table.mIoU.tolist() == pytest.approx([100, 50])
    assert np.isnan(table["+ CRF"][0]) and table["+ CRF"][1] == 100
    assert recipe_table(SimpleNamespace(matrices={})).empty


def test_classes_under_each_matrix_that_there_is():
    table = class_table({"": matrix([[5, 5], [0, 5]]), " + CRF": None}, ("background", "cat"))
    assert list(table) == ["IoU", "precision", "recall"]
    assert table.loc["cat"].tolist() == pytest.approx([50, 50, 100])
    both = class_table(
        {"": matrix([[5, 5], [0, 5]]), " + CRF": matrix([[9, 0], [0, 9]])}, ("background", "cat")
    )
    assert both["IoU + CRF"].tolist() == [100, 100]


def test_tags_with_and_without_truth():
    chances = np.array([[0.9, 0.3], [0.2, 0.6]])
    truth = np.array([[True, True], [False, True]])
    table = tag_table(chances, truth, ("cat", "dog"), 0.5)
    assert table.loc["cat"].tolist() == [1, 1, 100, 100, 100]
    assert table.loc["dog", ["precision", "recall"]].tolist() == [100, 50]
    assert list(tag_table(chances, np.zeros((2, 2), bool), ("cat", "dog"), 0.5)) == ["images", "predicted"]


def test_what_lies_above_the_cut_is_predicted_and_what_lies_at_it_is_not():
    chances = np.array([[0.25, 0.3], [0.26, 0.1], [0.75, 0.2]])
    truth = np.array([[True, True], [True, False], [False, False]])
    table = tag_table(chances, truth, ("cat", "dog"), 0.25)
    assert table.predicted.tolist() == [2, 1] and table.images.tolist() == [2, 1]
    assert table.precision.tolist() == [50, 100] and table.recall.tolist() == [50, 100]
    assert tag_table(chances, truth, ("cat", "dog"), 0.75).predicted.tolist() == [0, 0]
