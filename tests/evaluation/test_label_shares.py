"""What pseudo labels cover, and how much of it is right."""

import numpy as np
import pytest

from wsfcn_lib.evaluation.label_shares import label_shares

LABELS = np.array([[0, 0, 255, 1, 1, 2, 2, 255]])


def test_shares_without_truth():
    shares = label_shares(LABELS, np.array([True, True]))
    assert (shares["foreground"], shares["background"], shares["complete"]) == (0.5, 0.25, 1)
    assert np.isnan(shares["right"])


def test_right_is_of_judged_foreground_alone():
    truth = np.array([[9, 9, 9, 1, 2, 2, 255, 9]])
    assert label_shares(LABELS, np.array([True, True]), truth)["right"] == pytest.approx(2 / 3)
    assert np.isnan(label_shares(np.zeros((1, 8), int), np.array([True, True]), truth)["right"])


@pytest.mark.parametrize(
    "labels, tags", [([[1, 2]], (True, True)), ([[0, 1]], (True, True)), ([[255, 255]], (False, False))]
)
def test_an_image_that_lacks_a_label_has_no_mask_loss(labels, tags):
    assert label_shares(np.array(labels), np.array(tags))["complete"] == 0
