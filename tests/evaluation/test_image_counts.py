"""Counts of an image and measures of a set, against loops over pixels and definitions taken literally."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, label

from wsfcn_lib.ablation.statistics import redrawn
from wsfcn_lib.evaluation import image_counts
from wsfcn_lib.evaluation.image_counts import (
    BAND,
    SPECK,
    Counts,
    boundary_counts,
    boundary_width,
    count_image,
    inner_boundaries,
    near_borders,
    number_objects,
    redrawn_blocks,
    stacked,
)
from wsfcn_lib.metrics import error_shares, mean_iou

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def label_maps(draw, number=1, shapes=SHAPES, ids=(0, 1, 2, 255)):
    """Label maps of one size, of patches and of single pixels."""
    shape, maps = draw(shapes), []
    for _ in range(number):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        labels = np.full(shape, rng.choice(ids), np.uint8)
        for _ in range(draw(st.integers(0, 5))):
            top, left = rng.integers(0, shape[0]), rng.integers(0, shape[1])
            labels[top : top + rng.integers(1, 20), left : left + rng.integers(1, 20)] = rng.choice(ids)
        if draw(st.booleans()):
            labels[rng.random(shape) < 0.02] = rng.choice(ids)
        maps.append(labels)
    return maps


def slow_band(truth):
    """Pixels less than BAND from one with a differing neighbour, distances measured straight."""
    edge = [
        (y, x)
        for y, x in np.ndindex(truth.shape)
        for b, a in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1))
        if 0 <= b < truth.shape[0] and 0 <= a < truth.shape[1] and truth[b, a] != truth[y, x]
    ]
    out = np.zeros(truth.shape, bool)
    rows, columns = np.indices(truth.shape)
    for y, x in edge:
        out |= (rows - y) ** 2 + (columns - x) ** 2 < BAND**2
    return out


@given(label_maps())
@settings(max_examples=60, deadline=None)
def test_the_band_is_that_of_distances(maps):
    assert (near_borders(maps[0]) == slow_band(maps[0])).all()


def published_boundary(mask):
    """The authors' mask_to_boundary: frame of zeros, erosion by 3 x 3 as often as the strip is wide."""
    width = max(1, int(round(0.02 * np.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))))
    eroded = binary_erosion(np.pad(mask, 1), np.ones((3, 3)), width, border_value=1)[1:-1, 1:-1]
    return mask & ~eroded


@given(label_maps(2, st.tuples(st.integers(1, 130), st.integers(1, 130)), (0, 1, 2)))
@settings(max_examples=60, deadline=None)
def test_boundary_iou_is_the_published_one_class_by_class(maps):
    truth, labels = maps
    found = boundary_counts(labels, truth, 3)
    for value in range(3):
        of_truth, of_labels = published_boundary(truth == value), published_boundary(labels == value)
        assert (inner_boundaries(truth) & (truth == value) == of_truth).all()
        expected = ((of_truth & of_labels).sum(), of_truth.sum(), of_labels.sum())
        assert tuple(found[:, value]) == expected


def test_the_strip_is_two_per_cent_of_the_diagonal():
    assert [boundary_width(size) for size in ((375, 500), (10, 10), (96, 96))] == [12, 1, 3]


def test_what_the_truth_ignores_is_no_boundary_error():
    """VOC draws a strip of 255 around objects: an answer that is right beside it has Boundary IoU 1."""
    truth = np.zeros((60, 80), np.uint8)
    truth[20:40, 20:60] = 1
    truth[18:22, 18:62] = truth[38:42, 18:62] = truth[18:42, 18:22] = truth[18:42, 58:62] = 255
    labels = np.zeros_like(truth)
    labels[19:41, 19:61] = 1
    assert mean_iou(boundary_counts(labels, truth, 2)) == 1
    labels[30:, 30:] = 0
    assert 0.3 < mean_iou(boundary_counts(labels, truth, 2)) < 0.95


def test_boundaries_see_what_mean_iou_hardly_does():
    """Cheng et al., figure 1: the larger an object, the less a ragged contour costs in IoU."""
    whole, strip = [], []
    for side in (40, 120):
        truth = np.zeros((200, 200), np.uint8)
        truth[40 : 40 + side, 40 : 40 + side] = 1
        labels = truth.copy()
        labels[40:44] = 0
        counts = count_image(truth, [labels], 2)
        whole.append(mean_iou(counts.whole[0][:, 1:]))
        strip.append(mean_iou(counts.boundary[0][:, 1:]))
    assert whole[1] - whole[0] > 0.05 and all(s < w for s, w in zip(strip, whole))


@given(label_maps(shapes=st.tuples(st.integers(1, 60), st.integers(1, 60))))
@settings(max_examples=60, deadline=None)
def test_objects_are_pieces_one_after_another(maps):
    (truth,), expected = maps, np.zeros(maps[0].shape, int)
    for value in (1, 2):
        pieces, count = label(truth == value, np.ones((3, 3)))
        for number in range(1, count + 1):
            if (pieces == number).sum() >= SPECK * truth.size:
                expected[pieces == number] = expected.max() + 1
    assert (number_objects(truth) == expected).all()


def test_an_object_has_a_thousandth_of_the_image_at_least():
    truth = np.zeros((40, 50), np.uint8)
    truth[3, 3:5], truth[9, 9] = 1, 1
    assert number_objects(truth).sum() == 2 == number_objects(truth)[3].sum()


@given(label_maps(4, st.just((12, 15))), label_maps(4, st.just((12, 15)), (0, 1, 2)))
@settings(max_examples=30, deadline=None)
def test_measures_are_those_of_loops(truths, answers):
    """Of four images under two segmentations, counted pixel after pixel."""
    shifted = [np.roll(answer, 2, 1) for answer in answers]
    counted = [count_image(t, pair, 3) for t, *pair in zip(truths, answers, shifted)]
    counts = Counts(tuple("abcd"), ("A", "B"), **stacked(counted))
    for variant, labels in (("A", answers), ("B", shifted)):
        measured = counts.measures(variant)
        pairs = [(a, t) for a, t in zip(labels, truths)]
        ious, wrong, missed = slow_shares(pairs)
        if ious:
            assert measured["mean_iou"] == pytest.approx(np.mean(ious))
            assert measured["false_positive"] == pytest.approx(np.mean(wrong))
            assert measured["false_negative"] == pytest.approx(np.mean(missed))
        own = [np.mean(slow_shares([pair])[0]) for pair in pairs if (pair[1] != 255).any()]
        assert measured["image_iou"] == pytest.approx(np.mean(own) if own else np.nan, nan_ok=True)
        masked = [(a, np.where(slow_band(t), t, 255)) for a, t in pairs]
        near = slow_shares(masked)[0]
        assert measured["border_iou"] == pytest.approx(np.mean(near) if near else 0)


def slow_shares(pairs):
    """IoU, false positives and false negatives by the union, of each class that occurs."""
    ious, wrong, missed = [], [], []
    for value in range(3):
        right = sum(((a == value) & (t == value)).sum() for a, t in pairs)
        more = sum(((a == value) & (t != value) & (t != 255)).sum() for a, t in pairs)
        less = sum(((a != value) & (t == value)).sum() for a, t in pairs)
        if right + more + less:
            ious.append(right / (right + more + less))
            wrong.append(more / (right + more + less))
            missed.append(less / (right + more + less))
    return ious, wrong, missed


def test_errors_and_hits_make_up_the_union():
    counts = np.array([[3, 0, 0], [5, 2, 0], [4, 1, 0]])
    wrong, missed = error_shares(counts)
    assert (wrong, missed) == (pytest.approx((1 / 6 + 1 / 3) / 2), pytest.approx((2 / 6 + 2 / 3) / 2))
    assert wrong + missed + mean_iou(counts) == pytest.approx(1)


@pytest.mark.parametrize("images", [1, 9, 1449])
def test_blocks_of_draws_are_the_draws_of_one_call(monkeypatch, images):
    """To the bit, so that intervals of an ablation and of a comparison are those of NumPy's own draw."""
    shares = np.full(images, 1 / images)
    expected = np.random.default_rng(4).multinomial(images, shares, 150).astype(float)
    found = redrawn(images, 150, seed=4)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()
    monkeypatch.setattr(image_counts, "BLOCK", 70)
    blocks = [*redrawn_blocks(images, 150, seed=4)]
    assert [len(block) for block in blocks] == [70, 70, 10]
    assert np.concatenate(blocks).tobytes() == expected.tobytes()
