import numpy as np
import pytest

from wsfcn_lib.data.classes import VOC_CLASSES, voc_colour, voc_palette


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
