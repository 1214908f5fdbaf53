"""Label maps over photographs: tints, outlines, and the line that names the classes."""

import numpy as np
from PIL import Image

from wsfcn_lib.data.painting import edges, outlined, overlay, paint

COLOURS = np.array([(0, 0, 0), (200, 0, 0), (0, 0, 200)], np.uint8)


def scene(height=60, width=90):
    image = np.full((height, width, 3), 100, np.uint8)
    label = np.zeros((height, width), np.uint8)
    label[10:40, 20:60] = 1
    return image, label


def test_edges_lie_on_both_sides_of_a_border():
    label = np.zeros((5, 6), np.uint8)
    label[:, 3:] = 1
    assert edges(label).any(0).tolist() == [False, False, True, True, False, False]
    assert edges(label, 2).any(0).tolist() == [False, True, True, True, True, False]
    assert not edges(np.ones((4, 4), np.uint8)).any()


def test_a_class_is_tinted_and_outlined_and_background_stays():
    image, label = scene()
    picture = np.asarray(paint(image, label, COLOURS, {1: "dog 0.9, 22 %"}))
    assert picture.shape[1] == 90 and picture.shape[0] > 60, "the line stands below"
    inside = overlay(image, label, COLOURS)
    far = ~edges(label, 3) & (label == 0)
    assert (picture[:60][far] == 100).all() and far.sum() > 1000
    assert (picture[9, 30] < 50).all(), "a dark rim outside"
    assert (picture[20, 30] == inside[20, 30]).all() and (picture[10, 30] == COLOURS[1]).all()
    square = (picture[60:] == COLOURS[1]).all(2)
    assert square.sum() > 50, "its colour stands before its name"


def test_a_long_line_is_broken_and_words_without_a_class_have_no_square():
    image, label = scene()
    one = paint(image, label, COLOURS, {1: "dog"})
    many = paint(image, label, COLOURS, {1: "a dog of many words", 2: "a cat of many words"})
    assert many.height > one.height and many.width == 90
    none = np.asarray(paint(image, np.zeros_like(label), COLOURS, {0: "nothing"}))[60:]
    assert (none.max(2) - none.min(2)).max() < 40, "no colour"
    assert Image.fromarray(none).convert("L").getextrema()[0] < 100, "but words"


def test_outlines_are_those_of_objects_alone():
    label = np.zeros((9, 9), np.uint8)
    label[3:6, 3:6] = 2
    label[2, 2:7] = label[6, 2:7] = label[2:7, 2] = label[2:7, 6] = 255  # VOC's border
    picture = np.full((9, 9, 3), 7, np.uint8)
    drawn = outlined(picture, label, (1, 2, 3))
    marked = (drawn == (1, 2, 3)).all(-1)
    assert (picture == 7).all() and (drawn[~marked] == 7).all()
    assert marked[3, 3:6].all() and marked[2, 3:6].all(), "one line, a pixel on either side"
    assert not marked[1].any() and not marked[4, 4] and not marked[7].any()
