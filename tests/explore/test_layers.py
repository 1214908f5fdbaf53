"""Layers of made-up inspections: errors, gaps, changes and the reading are what the arrays say."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wsfcn_lib.explore.draw import Missing
from wsfcn_lib.explore.inspection import Inspection
from wsfcn_lib.explore.layers import ALL, changed, class_map, errors, layered, reading

PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[1:3], PALETTE[255] = ((64, 0, 0), (64, 0, 128)), (224, 224, 192)
MANIFEST = SimpleNamespace(names=("background", "cat", "dog"), shades=PALETTE)
LEFT = np.zeros((3, 375, 500), np.float32)  # a cat in the left half
LEFT[0], LEFT[1, :, :250] = 0.2, 0.9


def inspection(masks=LEFT, probabilities=(0.9, 0.0), truth=None, refined=None):
    refined = torch.from_numpy(masks if refined is None else refined)
    rgb = np.full((*masks.shape[1:], 3), 90, np.uint8)
    steps = [refined] * 11
    return Inspection(
        rgb, truth, None, np.array(probabilities), masks, refined, steps, "wsfcn", 0.1, MANIFEST
    )


def state(**values):
    plain = {"layer": "", "over": "", "since": "", "opacity": 1.0}
    return plain | {"target": ALL, "iterations": 0, "across": 0, "down": 0, "foreground_cut": 0.6} | values


def test_errors_are_told_apart_and_only_of_the_class_asked_for():
    truth = np.zeros((375, 500), np.uint8)
    truth[:100, :250], truth[200:, 250:], truth[100:150, :250] = 2, 1, 255
    seen = inspection(truth=truth)
    kinds = errors(seen, state())
    assert set(np.unique(kinds[:100, :250])) == {3} and set(np.unique(kinds[200:, 250:])) == {1}
    assert set(np.unique(kinds[150:, :250])) == {2} and not kinds[100:150].any()
    painted, legend, notes = layered(seen, state(layer="errors"))
    assert list(legend) == ["missed", "invented", "confused"] and not notes
    assert (painted[:200, 250:] == 90).all()
    of_dog = layered(seen, state(layer="errors", target="dog"))[0]
    assert (of_dog[100:] == 90).all(), "the dog is taken for a cat in one place"
    assert (of_dog[:100, :250] != 90).any()


def test_classes_below_the_cut_are_said():
    picture, _, notes = layered(inspection(probabilities=[0.05, 0.0]), state(layer="mask"))
    assert notes[0].startswith("no class scores above 0.1") and len(np.unique(picture)) <= 3
    notes = layered(inspection(probabilities=[0.05, 0.0]), state(layer="cam", target="cat"))[2]
    assert notes == ["cat scores 0.05, not above 0.1: it has maps, but no prediction"]


def test_missing_truth_is_said_once():
    assert layered(inspection(), state(layer="truth", over="errors"))[2] == [
        "no ground truth: this picture has no mask"
    ]
    with pytest.raises(Missing, match="no ground truth"):
        changed(inspection(), state(since="label", layer="truth"))


def test_missing_crf_is_said_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    painted, _, notes = layered(inspection(), state(layer="crf", over="label"))
    assert (
        notes[0].startswith("no CRF: the dense CRF needs the package pydensecrf2") and (painted != 90).any()
    )
    assert "cat" in reading(inspection(), state(layer="crf"))


def test_a_change_of_maps_shows_where():
    smaller = LEFT.copy()
    smaller[1, :, :50] = 0
    picture, legend, text = changed(inspection(smaller, refined=LEFT), state(since="pamr", layer="mask"))
    still = np.unique(picture[:, 60:].reshape(-1, 3), axis=0)
    assert len(still) == 1 and (picture[:, :40] != still[0]).any(2).all()
    assert list(legend) == ["lost", "gained"]
    assert text == "refined by PAMR → softmax mask, cat: mean 0.45 → 0.36"


def test_a_change_of_labels_names_what_they_became():
    truth = inspection().label.copy()
    truth[:75] = 2
    seen = inspection(truth=truth)
    _, legend, text = changed(seen, state(since="label", layer="truth"))
    assert text == "prediction → ground truth: 20.0 % of the pixels changed" and list(legend) == ["now dog"]
    _, legend, text = changed(seen, state(since="label", layer="truth", target="cat"))
    assert text == "prediction → ground truth, cat: 10.0 % of the pixels changed"
    assert list(legend) == ["now background"]


def test_the_reading_is_of_the_place_under_the_cross():
    truth = np.zeros((375, 500), np.uint8)
    truth[:, :125] = 1
    seen = inspection(probabilities=[0.9, 0.3], truth=truth)
    assert reading(seen, state(across=10, down=50)) == (
        "at the cross: cat · in truth cat · cat has mask 0.90 here and score 0.90 · IoU of cat 0.50"
    )
    assert reading(seen, state(across=90, down=50, target="dog")) == (
        "at the cross: background · in truth background · dog has mask 0.00 here and score 0.30"
        " · IoU of background 0.67"
    )


def test_maps_of_one_class_and_of_all_predicted():
    both = LEFT.copy()
    both[2, :, 250:] = 0.5
    seen = inspection(both, [0.9, 0.8])
    assert (class_map(seen, "mask", state(target="dog")) == both[2]).all()
    assert (class_map(seen, "mask", state()) == both[1:].max(0)).all()
