"""Companions, calibration of tags and cuts of maps, against loops over images and pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from oracles import confusion
from wsfcn_lib.evaluation.cam_cuts import CUTS, chosen_cut, cut_counts, winners
from wsfcn_lib.evaluation.image_counts import SPECK, Counts, count_image, stacked
from wsfcn_lib.evaluation.reviewed import co_occurrence, companions, per_class, tag_calibration
from wsfcn_lib.metrics import mean_iou

SIZE = (30, 40)


@st.composite
def images(draw, number=5, classes=4):
    """(truth, labels) pairs: few classes in each, some of them as specks."""
    rng, pairs = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), []
    for _ in range(number):
        maps = []
        for ignored in (255, 0):
            labels = np.zeros(SIZE, np.uint8)
            for _ in range(rng.integers(0, 4)):
                y, x = rng.integers(0, SIZE[0]), rng.integers(0, SIZE[1])
                side = rng.choice([1, 2, 9])
                labels[y : y + side, x : x + side] = rng.choice([*range(classes), ignored])
            maps.append(labels)
        pairs.append(tuple(maps))
    return pairs


def counts_of(pairs, classes=4, name="A"):
    counted = [count_image(truth, [labels], classes) for truth, labels in pairs]
    return Counts(tuple(str(n) for n in range(len(pairs))), (name,), **stacked(counted))


@given(images())
@settings(max_examples=60, deadline=None)
def test_companions_are_counted_image_by_image(pairs):
    alone, painted, together = co_occurrence(counts_of(pairs).of("A"))
    expected = np.zeros((3, 4, 4), int)
    for truth, labels in pairs:
        known = truth != 255
        for c in range(1, 4):
            for k in range(1, 4):
                if c == k or not (truth == c).any():
                    continue
                there = (truth == k).any()
                expected[2, c, k] += there
                expected[0, c, k] += not there
                share = (labels[known] == k).sum() / max(1, known.sum())
                expected[1, c, k] += not there and share > 0 and share >= SPECK
    assert (np.stack([alone, painted, together]) == expected).all()


def test_the_companion_painted_most_comes_first():
    """Rails (2) are painted into two of three images of trains (1) without rails, a boat (3) into one."""
    pairs = []
    for painted in (2, 2, 3):
        truth = np.zeros(SIZE, np.uint8)
        truth[5:15, 5:15] = 1
        labels = truth.copy()
        labels[20:25, 5:25] = painted
        pairs.append((truth, labels))
    truth = truth.copy()
    truth[20:25, 5:25] = 2
    pairs.append((truth, truth))
    rows = companions(counts_of(pairs), ("background", "train", "rails", "boat"))
    assert rows == [
        {"class": "train", "companion": "rails", "together": 1, "alone": 3, "painted": {"A": 2}},
        {"class": "train", "companion": "boat", "together": 0, "alone": 4, "painted": {"A": 1}},
    ]
    assert companions(counts_of([(truth, truth)]), ("background", "train", "rails", "boat")) == []


@given(images())
@settings(max_examples=20, deadline=None)
def test_shares_of_each_class_make_up_its_union(pairs):
    counts = counts_of(pairs)
    found = per_class(counts, "A", "abcd")
    total = sum(confusion(labels, truth, 4) for truth, labels in pairs)
    for k, name in enumerate("abcd"):
        right, wrong, missed = total[k, k], total[:, k].sum() - total[k, k], total[k].sum() - total[k, k]
        union = right + wrong + missed
        row = found[name]
        if not union:
            assert set(row.values()) == {None}
            continue
        assert (row["false_positive"], row["false_negative"]) == pytest.approx(
            (wrong / union, missed / union)
        )
        assert 0 <= row["boundary_iou"] <= 1
    assert mean_iou(counts.boundary.sum((0, 1))) == pytest.approx(
        np.mean([row["boundary_iou"] for row in found.values() if row["boundary_iou"] is not None])
    )


def slow_calibration(probabilities, tags, bins):
    error = 0
    for k in range(bins):
        inside = [
            (p, t)
            for p, t in zip(probabilities, tags)
            if k / bins < p <= (k + 1) / bins or (k == 0 and p == 0)
        ]
        if inside:
            p, t = np.mean(inside, axis=0)
            error += len(inside) / len(tags) * abs(p - t)
    return error


@given(
    st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), min_size=2, max_size=60),
    st.integers(2, 20),
)
@settings(max_examples=60, deadline=None)
def test_calibration_is_that_of_bins(pairs, bins):
    probabilities, tags = np.array([p for p, _ in pairs]), np.array([t for _, t in pairs])
    edges = np.abs(probabilities[:, None] * bins - np.arange(bins + 1)).min(1)
    if (edges < 1e-4).any():
        return  # on an edge it may fall either way
    found = tag_calibration(probabilities[:, None], tags[:, None], bins)
    assert found["calibration_error"] == pytest.approx(slow_calibration(probabilities, tags, bins))
    kept = binary_calibration_error(torch.tensor(probabilities), torch.tensor(tags).int(), bins, "l1")
    assert found["calibration_error"] == pytest.approx(float(kept), abs=1e-5)
    assert found["brier"] == pytest.approx(sum((p - t) ** 2 for p, t in zip(probabilities, tags)) / len(tags))


def test_calibration_of_the_sure_and_the_honest():
    tags = np.array([[1, 0, 0, 0], [0, 0, 0, 1]])
    honest, sure = tag_calibration(np.full((2, 4), 0.25), tags), tag_calibration(np.full((2, 4), 0.98), tags)
    assert honest["calibration_error"] == pytest.approx(0, abs=1e-6) and honest["brier"] == pytest.approx(
        3 / 16
    )
    assert sure["calibration_error"] == pytest.approx(0.73, abs=1e-6)
    assert (sure["mean_probability"], sure["present"]) == pytest.approx((0.98, 0.25))
    with pytest.raises(ValueError, match=r"shape \(2, 4\) and tags \(4,\); both must be"):
        tag_calibration(np.zeros((2, 4)), np.zeros(4))


@st.composite
def maps(draw, classes=4):
    """Masks (K, H, W), some of whose values lie on cuts, of which a class is not tagged, and a truth."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = (rng.integers(1, 9), rng.integers(1, 9))
    masks = rng.random((classes, *size)).astype(np.float32)
    on_cut = rng.random(masks.shape) < 0.3
    masks[on_cut] = CUTS[rng.integers(0, 100, on_cut.sum())].astype(np.float32)
    masks[rng.integers(1, classes)] = 0
    return masks, rng.choice([0, 1, 2, 3, 255], size).astype(np.uint8)


@given(maps())
@settings(max_examples=40, deadline=None)
def test_counts_at_each_cut_are_those_of_the_labels(made):
    masks, truth = made
    found = cut_counts(*winners(masks), truth, 4)
    for place, cut in enumerate(CUTS):
        painted = masks[1:].max(0).astype(float) > cut
        labels = np.where(painted, 1 + masks[1:].argmax(0), 0)
        matrix = confusion(labels, truth, 4)
        assert (found[place] == [matrix.diagonal(), matrix.sum(1), matrix.sum(0)]).all(), cut


def test_the_cut_is_chosen_on_other_images():
    """Dev says 0.3, the fixed one is 0.25, and the images reported on would have liked 0.6."""
    dev, test = np.ones((2, 100, 3, 2), int) * [[50], [90], [90]]
    dev[30, 0], test[30, 0], test[25, 0], test[60, 0] = 80, 60, 55, 85
    found = chosen_cut(dev, test, 0.25)
    assert (found["cut"], found["fixed_cut"], found["peak_cut"]) == (0.3, 0.25, 0.6)
    values = (found["mean_iou"], found["mean_iou_fixed"], found["peak"])
    assert values == pytest.approx((60 / 120, 55 / 125, 85 / 95))
