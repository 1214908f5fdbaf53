"""Pictures of a data set: what belongs to an image is drawn with it."""

import numpy as np

from factories import texts
from wsfcn_lib.plots.scenes import class_colours, legend_of, with_masks, with_words

NAMES = ("background", "cat", "dog", "cow")
PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[1:4] = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]


def pictures(figure):
    return [np.asarray(axis.images[0].get_array()) if axis.images else None for axis in figure.axes]


def test_a_legend_leaves_background_out_and_keeps_the_order_of_classes():
    assert class_colours(NAMES, PALETTE, [3, 0, 1, 3]) == {"cat": (200, 0, 0), "cow": (0, 0, 200)}
    assert list(legend_of(NAMES, PALETTE, [(True, False, False)])) == ["cat", "dog", "cow"]
    many = ("background", *(f"class {k}" for k in range(1, 31)))
    tags = [[k == 4 for k in range(30)], [k == 2 for k in range(30)]]
    assert list(legend_of(many, np.zeros((256, 3), np.uint8), tags)) == ["class 3", "class 5"]


def test_each_image_stands_below_its_words():
    images = [np.full((8, 9, 3), value, np.uint8) for value in (10, 90)]
    figure = with_words(images, ["a cat", "a dog"])
    assert [drawn[0, 0, 0] for drawn in pictures(figure)] == [10, 90]
    assert [axis.get_title(loc="center") for axis in figure.axes] == ["a cat", "a dog"]


def test_a_mask_is_painted_on_its_own_image():
    images = [np.full((4, 4, 3), value, np.uint8) for value in (10, 90)]
    masks = [np.zeros((4, 4), np.uint8), np.full((4, 4), 2, np.uint8)]
    figure = with_masks(images, masks, PALETTE, class_colours(NAMES, PALETTE, [2]))
    above, beside, below, painted = pictures(figure)
    assert (above == 10).all() and (beside == 90).all()
    assert (below == 10).all(), "background stays as photographed"
    assert painted[0, 0].argmax() == 1 and "dog" in texts(figure)
