"""The crop of torchvision 0.2.1 beside today's, by their distributions on pictures as large as VOC's."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from wsfcn_lib.data.crop_2019 import Crop2019
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.training_set import TrainSet

# height, width: about how often they come among VOC's pictures
SIZES = {
    (375, 500): 0.50,
    (500, 375): 0.16,
    (333, 500): 0.15,
    (500, 333): 0.05,
    (334, 500): 0.04,
    (400, 500): 0.03,
    (480, 500): 0.04,
    (281, 500): 0.03,
}
HOW = {"size": 321, "scale": (0.9, 1.0), "ratio": (3 / 4, 4 / 3)}


def crops(rule, height, width, count=1000):
    picture, transform = Image.new("L", (width, height)), rule(**HOW)
    return [transform.make_params([picture]) for _ in range(count)]


def shares(rule):
    """Of all crops: the mean share of the picture, the mean stretch on the way to a square, and the share of squares."""
    torch.manual_seed(0)
    area = stretch = squares = 0.0
    for (height, width), weight in SIZES.items():
        drawn = crops(rule, height, width)
        area += weight * np.mean([crop["height"] * crop["width"] for crop in drawn]) / (height * width)
        ratios = np.array([crop["width"] / crop["height"] for crop in drawn])
        stretches = np.maximum(ratios, 1 / ratios)
        stretch += weight * stretches.mean()
        squares += weight * (stretches < 1.005).mean()
    return area, stretch, squares


def test_the_older_rule_keeps_less_and_stretches_less():
    area, stretch, squares = shares(Crop2019)
    assert area == pytest.approx(0.81, abs=0.015)
    assert stretch == pytest.approx(1.11, abs=0.03)
    assert squares == pytest.approx(0.55, abs=0.04)
    area, stretch, squares = shares(v2.RandomResizedCrop)
    assert area == pytest.approx(0.93, abs=0.015)
    assert stretch == pytest.approx(1.29, abs=0.03)
    assert squares < 0.02


def test_where_nothing_fits_the_middle_square_is_taken():
    assert crops(Crop2019, 333, 500, 20) == [{"top": 0, "left": 83, "height": 333, "width": 333}] * 20
    assert crops(Crop2019, 500, 333, 20) == [{"top": 83, "left": 0, "height": 333, "width": 333}] * 20


def test_on_a_square_the_ratio_is_uniform_turned_over_half_the_time_and_the_place_too():
    """Ratios that fit into a square with 0.9 of its area are at most 1/0.9; every place that there is comes."""
    torch.manual_seed(0)
    drawn = [crop for crop in crops(Crop2019, 400, 400, 4000) if crop["width"] != crop["height"]]
    ratios = np.array([crop["width"] / crop["height"] for crop in drawn])
    assert 0.89 < ratios.min() < 0.92 and 1.09 < ratios.max() < 1.12
    assert (ratios > 1).mean() == pytest.approx(0.5, abs=0.03)
    room = np.array([400 - crop["height"] for crop in drawn])
    top = np.array([crop["top"] for crop in drawn])
    assert (top >= 0).all() and (top <= room).all() and (top == room).any() and (top == 0).any()
    assert (top[room > 8] / room[room > 8]).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "rule, quarters", [(Crop2019, (1.75, 2.5, 3.25)), (v2.RandomResizedCrop, (4**0.25, 4**0.5, 4**0.75))]
)
def test_ratios_are_uniform_by_the_older_rule_and_their_logarithms_by_the_newer(rule, quarters):
    """From 1 to 4, of parts so small that every one fits; the older rule turns half of them over."""
    torch.manual_seed(0)
    picture, transform = Image.new("L", (2000, 2000)), rule(size=8, scale=(0.04, 0.08), ratio=(1, 4))
    drawn = [transform.make_params([picture]) for _ in range(4000)]
    ratios = np.array([crop["width"] / crop["height"] for crop in drawn])
    stretches = np.maximum(ratios, 1 / ratios)
    assert np.quantile(stretches, [0.25, 0.5, 0.75]) == pytest.approx(quarters, abs=0.1)
    assert (ratios > 1).mean() == pytest.approx(0.5 if rule is Crop2019 else 1, abs=0.03)
    shares = np.array([crop["width"] * crop["height"] for crop in drawn]) / 2000**2
    assert np.quantile(shares, [0.25, 0.5, 0.75]) == pytest.approx((0.05, 0.06, 0.07), abs=0.002)


def test_a_training_set_crops_by_the_rule_that_is_named(data):
    manifest = Manifest.load(data)
    usual = TrainSet(manifest, "train", 40, 0)
    older = TrainSet(manifest, "train", 40, 0, rule="published-2019")
    assert type(usual.chain.transforms[0]) is v2.RandomResizedCrop
    crop = older.chain.transforms[0]
    assert (type(crop), tuple(crop.size), crop.scale, crop.interpolation.value) == (
        Crop2019,
        (40, 40),
        (0.9, 1.0),
        "bicubic",
    )
    image = older[2, 5][0]
    assert torch.equal(image, older[2, 5][0]) and not torch.equal(image, usual[2, 5][0])
    assert torch.equal(image, pickle.loads(pickle.dumps(older))[2, 5][0]), "worker processes may be spawned"
