from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from wsfcn_lib.config import Recipe
from wsfcn_lib.postprocess import RECIPES, crf_masks, label_map, present_classes

PUBLISHED = np.load(Path(__file__).parents[1] / "fixtures" / "inference.npz")


def one_pixel(*values):
    return np.array(values, np.float32).reshape(-1, 1, 1)


@pytest.mark.parametrize(("recipe", "key"), [("wsfcn", "label_map"), ("1stage", "label_map_pow3")])
def test_label_maps_are_the_published_ones(recipe, key):
    labels = label_map(PUBLISHED["merged"], PUBLISHED["tags"], recipe)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, PUBLISHED[key])


def test_the_two_rules_differ_as_described():
    masks = one_pixel(0.6, 0.24, 0.16)
    assert label_map(masks, [1, 1], "wsfcn") == 0  # 0.24 < 0.25
    assert label_map(masks, [1, 1], "1stage") == 1  # 0.6³ = 0.216 < 0.24
    assert (
        label_map(one_pixel(0.9, 0.26, 0.1), [1, 1], "wsfcn") == 1
    )  # the network's own background plays no part
    np.testing.assert_allclose(crf_masks(masks, [1, 1], "wsfcn").ravel(), [0.76**5, 0.24, 0.16], rtol=1e-5)
    np.testing.assert_allclose(crf_masks(masks, [1, 1], "1stage").ravel(), [0.216, 0.24, 0.16], rtol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_absent_classes_never_win_and_take_no_part_in_the_background(recipe):
    masks = one_pixel(0.1, 0.2, 0.7)
    assert label_map(masks, [1, 0], recipe) != 2
    assert crf_masks(masks, [1, 0], recipe)[2] == 0
    np.testing.assert_allclose(crf_masks(masks, [1, 0], "wsfcn")[0], 0.8**5, rtol=1e-5)
    assert (label_map(masks, [0, 0], recipe) == 0).all()


def test_input_stays_as_it_was_and_half_precision_works():
    masks = PUBLISHED["merged"].copy()
    label_map(masks, PUBLISHED["tags"]), crf_masks(masks, PUBLISHED["tags"])
    np.testing.assert_array_equal(masks, PUBLISHED["merged"])
    half = crf_masks(masks.astype(np.float16), PUBLISHED["tags"])
    np.testing.assert_allclose(half, crf_masks(masks, PUBLISHED["tags"]), atol=2e-3)


def test_present_classes():
    assert present_classes([0, 1, 0, 1]).tolist() == [0, 2, 4]
    assert present_classes(np.array([False, False])).tolist() == [0]


def test_config_and_recipes_name_the_same():
    assert get_args(Recipe) == RECIPES


@pytest.mark.parametrize(
    ("masks", "tags", "recipe", "message"),
    [
        (np.ones((3, 2, 2)), [1, 1], "wsfnc", "'wsfnc'.*'wsfcn', '1stage'"),
        (np.ones((3, 2, 2)), [1, 1, 1], "wsfcn", r"\(3, 2, 2\) and tags \(3,\).*leave the background out"),
        (np.ones((2, 2)), [1], "wsfcn", r"\(K, H, W\)"),
        (np.full((3, 2, 2), np.nan), [1, 1], "wsfcn", "no finite probabilities"),
        (np.ones((3, 2, 2), np.uint8), [1, 1], "wsfcn", "masks of uint8"),
        (np.ones((3, 2, 2)), [0.3, 1], "wsfcn", "tags hold 0.3.*threshold"),
    ],
)
def test_bad_input_is_named(masks, tags, recipe, message):
    for function in (label_map, crf_masks):
        with pytest.raises(ValueError, match=message):
            function(masks, tags, recipe)
