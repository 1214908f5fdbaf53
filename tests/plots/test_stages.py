"""The stages from map to prediction: each is drawn in its column, and what is not known leaves none."""

import numpy as np

from factories import rows_of, texts
from wsfcn_lib.data.classes import SAFE_COLOURS
from wsfcn_lib.plots.stages import (
    ERROR_COLOURS,
    ClassMaps,
    Stages,
    map_growth,
    maps_alone,
    refinement,
    to_prediction,
)

PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[1:3], PALETTE[255] = [(200, 0, 0), (0, 200, 0)], (224, 224, 192)
GREY = np.full((6, 6, 3), 100, np.uint8)
HALF = np.zeros((6, 6), np.uint8)
HALF[:, 3:] = 1
LEGEND = {"cat": (200, 0, 0), "dog": (0, 200, 0)}


def stage(truth=HALF, refined=None, errors=None):
    labels = np.where(HALF == 1, 2, 0).astype(np.uint8)
    pseudo = np.full((6, 6), 255, np.uint8)
    return Stages("a_b", GREY, HALF.astype(float), pseudo, HALF, labels, refined, truth, errors)


def test_a_row_goes_from_map_to_claim_and_truth():
    maps = {0: np.zeros((6, 6)), 3: np.ones((6, 6))}
    known = ClassMaps(GREY, maps, HALF == 1, HALF == 0, 2, "dog, cut 0.30")
    unknown = known._replace(truth=None, label="cat, cut 0.20")
    first, second = rows_of(refinement([known, unknown], PALETTE))
    image, before, after, claimed, truth = first
    assert (image == GREY).all() and before.sum() < after.sum(), "bright where the map is high"
    assert claimed[0, 5].argmax() == 1 and (claimed[0, 0] == 100).all()
    assert truth[0, 0].argmax() == 1 and (truth[0, 5] == 100).all()
    assert second[4] is None, "whose truth is not known"
    assert {"CAM", "PAMR 3", "above the cut", "truth", "dog, cut 0.30"} <= set(
        texts(refinement([known], PALETTE))
    )


def test_errors_are_coloured_on_grey_and_named():
    errors = np.array([[0, 1, 2, 3, 255, 0]] * 6, np.uint8)
    figure = to_prediction([stage(errors=errors)], PALETTE, LEGEND)
    ((image, pseudo, one, every, truth, painted),) = rows_of(figure)
    assert one[0, 5].argmax() == 0 and every[0, 5].argmax() == 1, "cat at a glance, dog by all views"
    assert (painted[0, 0] == 100).all(), "right stays grey"
    for column, colour in enumerate(ERROR_COLOURS.values(), 1):
        assert (painted[0, column] == np.rint(20 + 0.8 * np.array(colour))).all(), "without outlines"
    assert not set(ERROR_COLOURS.values()) & set(SAFE_COLOURS), "no error looks like a class"
    assert {"missed", "invented", "confused", "cat"} <= set(texts(figure))


def test_without_truth_no_errors_are_named():
    figure = to_prediction([stage(truth=None)], PALETTE, LEGEND)
    assert len(rows_of(figure)[0]) == 4 and "missed" not in texts(figure)


def test_maps_stand_on_black_with_true_outlines():
    figure = maps_alone([stage(refined=HALF), stage(truth=None, refined=HALF)], PALETTE, LEGEND)
    rows = rows_of(figure)
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == [
        "CAM",
        "pseudo label",
        "prediction",
        "with CRF",
    ]
    prediction, without = rows[2]
    assert (prediction[:, 2:4] == 255).all(), "the outline is white"
    assert without[0, 5].tolist() == [0, 200, 0] and (without[0, 0] == 0).all()
    assert len(rows_of(maps_alone([stage()], PALETTE, LEGEND))) == 3, "without CRF"


def test_growth_has_a_column_for_each_number_of_epochs():
    maps = [{2: np.zeros((6, 6)), 9: np.ones((6, 6))}]
    figure = map_growth([GREY], maps, ["a"])
    ((image, early, late),) = rows_of(figure)
    assert (image == GREY).all() and early.sum() < late.sum()
    assert {"2 epochs", "9 epochs"} <= set(texts(figure))
