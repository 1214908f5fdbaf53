import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
    multilabel_average_precision,
)

from wsfcn_lib.metrics import ConfusionMatrix, mean_average_precision, mean_iou, summary


def noisy_pair(classes=6, absent=(), seed=0, shape=(4, 17, 23)):
    """Truth with ignored pixels and a prediction that is right about half the time."""
    generator = np.random.default_rng(seed)
    ids = np.setdiff1d(np.arange(classes), absent)
    truth = generator.choice(np.append(ids, 255), shape).astype(np.uint8)
    prediction = np.where(
        (generator.random(shape) < 0.5) & (truth != 255), truth, generator.choice(ids, shape)
    )
    return prediction.astype(np.uint8), truth


def slow_matrix(prediction, truth, classes):
    matrix = [[0] * classes for _ in range(classes)]
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if t != 255:
            matrix[t][p] += 1
    return np.array(matrix)


def measured(prediction, truth, classes):
    confusion = ConfusionMatrix(classes)
    confusion.update(prediction, truth)
    return confusion


@pytest.mark.parametrize("absent", [(), (2,), (0, 5)])
def test_matrix_equals_pixel_loop_and_torchmetrics(absent):
    prediction, truth = noisy_pair(absent=absent)
    confusion = measured(prediction, truth, 6)
    assert confusion.matrix.dtype == np.int64
    np.testing.assert_array_equal(confusion.matrix, slow_matrix(prediction, truth, 6))
    pair = torch.from_numpy(prediction).long(), torch.from_numpy(truth).long()
    np.testing.assert_array_equal(confusion.matrix, multiclass_confusion_matrix(*pair, 6, ignore_index=255))
    present = np.setdiff1d(np.arange(6), absent)
    for ours, theirs in (
        (confusion.iou(), multiclass_jaccard_index),
        (confusion.precision(), multiclass_precision),
        (confusion.recall(), multiclass_recall),
    ):
        expected = theirs(*pair, 6, average=None, ignore_index=255).numpy()
        np.testing.assert_allclose(ours[present], expected[present], rtol=1e-6)
        assert np.isnan(ours[list(absent)]).all()


def test_class_absent_from_both_is_left_out_and_class_on_one_side_scores_zero():
    confusion = measured(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]), 5)  # 2 only predicted
    confusion.update(np.array([1]), np.array([4]))  # 4 only true
    np.testing.assert_allclose(confusion.iou(), [1, 1 / 3, 0, np.nan, 0])
    assert confusion.mean_iou() == pytest.approx((1 + 1 / 3) / 4)
    np.testing.assert_allclose(confusion.precision(), [1, 1 / 2, 0, np.nan, 0])
    np.testing.assert_allclose(confusion.recall(), [1, 1 / 2, 0, np.nan, 0])


def test_perfect_wrong_and_empty():
    truth = np.arange(3).repeat(5)
    assert measured(truth, truth, 3).mean_iou() == 1
    assert measured((truth + 1) % 3, truth, 3).mean_iou() == 0
    assert math.isnan(measured(np.array([0, 1]), np.array([255, 255]), 3).mean_iou())


def test_shards_add_up_to_the_whole():
    prediction, truth = noisy_pair()
    parts = [measured(p, t, 6) for p, t in zip(prediction, truth, strict=True)]
    total = sum(parts[1:], parts[0])
    np.testing.assert_array_equal(total.matrix, measured(prediction, truth, 6).matrix)
    assert parts[0].matrix.sum() < total.matrix.sum()  # adding changes no part
    np.testing.assert_array_equal(ConfusionMatrix(6, total.matrix.tolist()).iou(), total.iou())


@pytest.mark.parametrize("absent", [(), (0, 3)])
def test_mean_iou_of_counts_is_that_of_the_matrix(absent):
    confusion = measured(*noisy_pair(absent=absent), 6)
    counts = confusion.counts()
    assert mean_iou(counts) == pytest.approx(confusion.mean_iou())
    np.testing.assert_allclose(mean_iou(np.stack([counts, 2 * counts])), [confusion.mean_iou()] * 2)
    assert mean_iou(np.zeros((3, 6))) == 0


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.int32])
def test_tensors_and_arrays_agree(kind):
    prediction, truth = noisy_pair()
    tensors = measured(torch.from_numpy(prediction).to(kind), torch.from_numpy(truth).to(kind), 6)
    np.testing.assert_array_equal(tensors.matrix, measured(prediction, truth, 6).matrix)


def test_most_classes_a_mask_can_hold():
    ids = np.arange(255)
    assert measured(ids, ids, 255).mean_iou() == 1


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        ([0, 7, 9], [0, 1, 1], r"prediction holds ids \[7, 9\].*0\.\.2"),
        ([0, -1, 1], [0, 1, 255], r"prediction holds ids \[-1\]"),
        ([0, 1, 1], [0, 4, 254], r"truth holds ids \[4, 254\].*255"),
        ([0, 1], [0, 1, 1], r"\(2,\) but truth \(3,\)"),
        ([0.0, 1.0], [0, 1], "argmax"),
    ],
)
def test_bad_pixels_are_named_and_count_nothing(prediction, truth, message):
    confusion = ConfusionMatrix(3)
    with pytest.raises((ValueError, TypeError), match=message):
        confusion.update(np.array(prediction), np.array(truth))
    assert confusion.matrix.sum() == 0


def test_bad_matrices():
    with pytest.raises(ValueError, match="num_classes is 1"):
        ConfusionMatrix(1)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        ConfusionMatrix(3, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="3 and 4 classes"):
        ConfusionMatrix(3) + ConfusionMatrix(4)


def test_summary_is_json_with_null_for_absent():
    names = ["background", "cat", "dog"]
    block = summary(measured(np.array([0, 0, 1]), np.array([0, 1, 1]), 3), names)
    assert block["mean_iou"] == pytest.approx(0.5)
    assert block["per_class_iou"] == {"background": 0.5, "cat": 0.5, "dog": None}
    assert block["precision"] == {"background": 0.5, "cat": 1.0, "dog": None}
    assert block["recall"] == {"background": 1.0, "cat": 0.5, "dog": None}
    assert summary(ConfusionMatrix(3), names)["mean_iou"] is None
    with pytest.raises(ValueError, match="longer"):
        summary(ConfusionMatrix(3), names[:2])


@pytest.mark.parametrize("steps", [None, 4])  # 4: many equal scores
def test_average_precision_equals_torchmetrics(steps):
    generator = np.random.default_rng(1)
    scores, tags = generator.random((60, 5)), generator.random((60, 5)) < 0.3
    scores = np.floor(scores * steps) / steps if steps else scores
    per_class, mean = mean_average_precision(scores, tags)
    tensors = torch.from_numpy(scores), torch.from_numpy(tags).long()
    expected = multilabel_average_precision(*tensors, num_labels=5, average=None).numpy()
    np.testing.assert_allclose(per_class, expected, rtol=1e-5)
    assert mean == pytest.approx(expected.mean(), rel=1e-5)


def test_average_precision_limits():
    tags = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    per_class, mean = mean_average_precision(np.array([[3, 3, 0], [1, 3, 0], [2, 3, 0], [-5, 3, 0]]), tags)
    np.testing.assert_allclose(per_class, [1, np.nan, 1])
    assert mean == 1
    assert mean_average_precision(np.zeros((4, 3)), tags)[0][0] == 0.5  # no ranking: the share of positives
    assert math.isnan(mean_average_precision(np.zeros((4, 3)), np.zeros((4, 3)))[1])
    with pytest.raises(ValueError, match=r"\(4, 2\) and tags \(4, 3\)"):
        mean_average_precision(np.zeros((4, 2)), tags)
    with pytest.raises(ValueError, match="NaN"):
        mean_average_precision(np.full((4, 3), np.nan), tags)
