"""Galleries: every mask stands beside or below its own image."""

import numpy as np

from factories import rows_of, texts
from wsfcn_lib.plots.galleries import below_each_other, segmented, side_by_side, strongest

PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[1:3] = [(200, 0, 0), (0, 200, 0)]
GREY = np.full((6, 6, 3), 100, np.uint8)
CAT, DOG = np.full((6, 6), 1, np.uint8), np.full((6, 6), 2, np.uint8)
LEGEND = {"cat": (200, 0, 0)}


def test_masks_side_by_side():
    figure = side_by_side([GREY], [{"A": CAT, "B": None, "truth": DOG}], ["first"], PALETTE, LEGEND)
    ((image, a, b, truth),) = rows_of(figure)
    assert (image == GREY).all() and a[0, 0].argmax() == 0 and b is None and truth[0, 0].argmax() == 1
    assert {"A", "truth", "first", "cat"} <= set(texts(figure))


def test_a_row_that_no_image_has_is_left_out():
    masks = [{"network": CAT, "truth": None}, {"network": DOG, "truth": None}]
    figure = below_each_other([GREY, GREY], masks, ["a", "b"], PALETTE, {})
    first, second = rows_of(figure)
    assert second[0][0, 0].argmax() == 0 and second[1][0, 0].argmax() == 1
    assert "truth" not in texts(figure) and {"image", "network", "a"} <= set(texts(figure))
    masks[1]["truth"] = CAT
    assert rows_of(below_each_other([GREY, GREY], masks, ["a", "b"], PALETTE, {}))[2][0] is None


def test_one_picture_with_its_maps():
    figure = segmented(GREY, DOG, {"dog 0.90": np.full((6, 6), 1.2)}, PALETTE, LEGEND)
    ((image, labels, heat),) = rows_of(figure)
    assert labels[0, 0].argmax() == 1 and heat.min() >= 0 and "dog 0.90" in texts(figure)


def test_the_strongest_map_above_the_outlined_labels():
    half = np.zeros((6, 6), np.uint8)
    half[:, 3:] = 1
    figure = strongest([GREY], [half.astype(float)], [half], ["cat"], PALETTE)
    (image,), (heat,), (painted,) = rows_of(figure)
    assert heat[0, 5].sum() > heat[0, 0].sum(), "brighter where the map is higher"
    assert (painted[0, 2:4] == 255).all() and painted[0, 5].argmax() == 0
