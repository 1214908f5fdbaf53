"""Errors of a prediction by kind and place."""

import numpy as np
import pytest

from wsfcn_lib.evaluation.errors import KINDS, error_kinds, shares_by_border


def test_kinds_of_errors():
    labels = np.array([[0, 0, 1, 2, 1, 2]])
    truth = np.array([[0, 1, 0, 1, 1, 255]])
    kinds = error_kinds(labels, truth)
    assert [KINDS[k] if k < 255 else "" for k in kinds[0]] == [
        "right",
        "missed",
        "invented",
        "confused",
        "right",
        "",
    ]


def test_shares_are_of_all_judged_pixels_and_split_at_borders():
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 10:] = 1
    truth[0] = 255
    labels = np.zeros_like(truth)
    labels[:, 19] = 1
    shares = shares_by_border([(labels, truth)], width=1)
    assert shares.to_numpy().sum() == pytest.approx(100)
    assert shares.loc["missed"].sum() == pytest.approx(100 * 9 / 20)
    near = shares["within 1 pixels of a border"]
    assert near["missed"] > 0 and near["invented"] == 0
    twice = shares_by_border([(labels, truth), (labels, truth)], width=1)
    assert np.allclose(shares, twice)
    assert (shares_by_border([]).to_numpy() == 0).all()
