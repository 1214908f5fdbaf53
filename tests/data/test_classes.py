import numpy as np
import pytest

from wsfcn_lib.data.classes import SAFE_COLOURS, VOC_CLASSES, shown_colours, voc_colour, voc_palette


def test_the_colours_are_those_of_the_devkit():
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    assert {index: voc_colour(index) for index in known} == known


def test_the_palette_is_flat_and_no_colour_occurs_twice():
    colours = np.array(voc_palette()).reshape(256, 3)
    assert len(np.unique(colours, axis=0)) == 256
    assert tuple(colours[15]) == voc_colour(15)


def test_there_are_twenty_classes_in_the_devkit_order():
    assert len(set(VOC_CLASSES)) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert VOC_CLASSES[8 - 1] == "cat" and VOC_CLASSES[15 - 1] == "person"


@pytest.mark.parametrize("index", [-1, 256])
def test_an_id_without_colour_is_an_error(index):
    with pytest.raises(ValueError, match=f"{index} has no colour"):
        voc_colour(index)


def test_screens_show_few_classes_in_colours_that_all_can_tell_apart():
    ids = (8, 10, 12)
    assert shown_colours([voc_colour(i) for i in ids]) == list(SAFE_COLOURS[:3])
    own = [(1, 2, 3), voc_colour(2)]
    assert shown_colours(own) == own, "somebody chose them"
    many = [voc_colour(i) for i in range(1, 21)]
    assert shown_colours(many) == many, "VOC's twenty are known by VOC's colours"
    assert shown_colours([]) == []


def test_the_colours_of_screens_differ_in_lightness_or_hue():
    lightness = sorted(0.3 * r + 0.59 * g + 0.11 * b for r, g, b in SAFE_COLOURS)
    assert len(set(SAFE_COLOURS)) == 7 and lightness[0] > 80, "none is too dark to see on a photograph"
