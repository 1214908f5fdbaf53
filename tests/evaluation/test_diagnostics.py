"""Diagnostics of an evaluation: bands along borders, objects and their recall, against loops over pixels."""

import numpy as np
import pytest

from factories import CLASSES, QUICK, Painter, folder_of, mean, slow_iou
from wsfcn_lib.ablation.statistics import redrawn
from wsfcn_lib.data.images import read_mask
from wsfcn_lib.data.manifest import Sample
from wsfcn_lib.evaluation.diagnostics import DIAGNOSTICS_FILE, Diagnostics, DiagnosticsRecorder
from wsfcn_lib.evaluation.image_counts import BAND, near_borders, number_objects
from wsfcn_lib.evaluation.results import EvaluationResults, ImageResult, PostProcessing
from wsfcn_lib.evaluation.scoring import evaluate, predict
from wsfcn_lib.metrics import mean_iou


def slow_band(truth, width):
    """Pixels that lie less than `width` from one with a differing neighbour, distances measured straight."""
    edge, out = set(), np.zeros(truth.shape, bool)
    for y, x in np.ndindex(truth.shape):
        for b, a in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if 0 <= b < truth.shape[0] and 0 <= a < truth.shape[1] and truth[b, a] != truth[y, x]:
                edge.add((y, x))
    for y, x in np.ndindex(truth.shape):
        out[y, x] = any((y - b) ** 2 + (x - a) ** 2 < width**2 for b, a in edge)
    return out


def test_the_band_is_so_wide_on_either_side():
    truth = np.zeros((30, 40), np.uint8)
    truth[:, 20:] = 1
    assert (near_borders(truth) == ((np.arange(40) >= 20 - BAND) & (np.arange(40) < 20 + BAND))).all()
    truth[8:12, 5:9], truth[:, 36:] = 2, 255
    assert (near_borders(truth) == slow_band(truth, BAND)).all()
    assert not near_borders(np.ones((9, 9), np.uint8)).any(), "no border, no band"


def test_objects_are_connected_pieces_of_a_class():
    truth = np.zeros((40, 50), np.uint8)
    truth[2:12, 2:12] = 1
    truth[12:20, 12:20] = 1  # touches the first at a corner: one object
    truth[30:38, 2:12] = 1
    truth[30:38, 12:20] = 2
    truth[0, 49] = truth[39, 49] = 3  # specks, below a thousandth of 2000 pixels
    truth[20:28, 30:40] = 255
    found = number_objects(truth)
    assert found.max() == 3 and found[3, 3] == found[15, 15] != found[33, 5] != found[33, 15] > 0
    assert set(np.unique(found[(truth == 0) | (truth == 3) | (truth == 255)])) == {0}


@pytest.fixture
def counted(tmp_path):
    """(manifest, results, Diagnostics, network) of five coarse pictures, one of which has no mask."""
    manifest, net = folder_of(tmp_path, masked=(0, 1, 2, 4)), Painter().eval()
    counter = DiagnosticsRecorder()
    results = evaluate(net, manifest, QUICK, tmp_path, [counter.add])
    counter.save(tmp_path)
    return manifest, results, Diagnostics.load(tmp_path), net


def test_an_evaluation_is_counted_image_by_image(counted):
    manifest, results, counts, net = counted
    assert counts.images == ("p4", "p2", "p1", "p0") and set(counts.variants) == set(results.matrices)
    for variant, matrix in results.matrices.items():
        found, measured = counts.of(variant), counts.measures(variant)
        assert found.shape == (4, 3, len(CLASSES) + 1)
        assert found[:, 0].sum(0).tolist() == matrix.matrix.diagonal().tolist()
        assert measured["mean_iou"] == pytest.approx(matrix.mean_iou())
    variant, pairs = PostProcessing("1stage", False, "true"), []
    for sample in manifest.samples("test"):
        if sample.mask:
            truth = read_mask(sample.mask, manifest)
            (result,) = predict(net, manifest, [sample], QUICK)
            pairs.append((result.labels[variant], np.where(slow_band(truth, BAND), truth, 255)))
    assert counts.measures(variant)["border_iou"] == pytest.approx(mean(slow_iou(pairs)))


def test_metrics_hold_the_measures_of_the_masks_that_are_kept(counted):
    _, results, counts, _ = counted
    metrics, variant = results.metrics(), PostProcessing(QUICK.recipe, False, "predicted")
    details = metrics["details"]
    for key, value in counts.measures(variant).items():
        assert details[key] == (pytest.approx(value) if value == value else None), key
    assert details["mean_iou"] == pytest.approx(metrics["mean_iou"]) and "details_crf" not in metrics
    for name, row in details["per_class"].items():
        iou = metrics["per_class_iou"][name]
        whole = 1 if iou is None else iou + row["false_positive"] + row["false_negative"]
        assert whole == pytest.approx(1) and (iou is None) == (row["boundary_iou"] is None)
    own = [row["iou"] for row in results.rows if "iou" in row]
    assert details["image_iou"] == pytest.approx(mean(dict(enumerate(own))), abs=1e-4)
    error = np.mean((np.array(results.probabilities) - np.array(results.tags)) ** 2)
    assert metrics["tag_calibration"]["brier"] == pytest.approx(error)
    alone = {row["class"]: row["alone"] for row in metrics["companions"]}
    assert alone and set(alone) <= {"cat", "dog", "cow"} and max(alone.values()) <= len(own)


def test_files_of_before_have_no_boundaries(counted, tmp_path):
    counts = counted[2]
    with np.load(tmp_path / DIAGNOSTICS_FILE) as file:
        content = {key: file[key] for key in file if key != "boundary"}
    np.savez(tmp_path / DIAGNOSTICS_FILE, **content)
    variant, older = counts.variants[0], Diagnostics.load(tmp_path)
    expected = counts.measures(variant)
    assert expected.pop("boundary_iou") > 0
    assert older.measures(variant) == pytest.approx(expected, nan_ok=True)


def test_parts_of_a_list_have_the_details_of_the_whole(counted):
    manifest, results, _, net = counted
    parts = [EvaluationResults(manifest, QUICK) for _ in range(2)]
    for number, sample in enumerate(manifest.samples("test")):
        for result in predict(net, manifest, [sample], QUICK):
            parts[number > 1].add(result)
    assert parts[0].metrics()["details"] != results.metrics()["details"]
    assert (parts[0] + parts[1]).metrics() == results.metrics()


def test_drawn_images_count_as_often_as_they_are_drawn(counted):
    """Beside a plain repetition of images, objects and all, with the thirds of the whole set."""
    counts = counted[2]
    variant, times = PostProcessing("1stage", False, "true"), redrawn(len(counts.images), 6, seed=3)
    found, place = counts.drawn(variant, times), counts.variants.index(variant)
    assert {key: value.shape for key, value in found.items()} == dict.fromkeys(counts.measures(variant), (6,))
    size = counts.objects[:, 1] / counts.objects[:, 2]
    first, second = np.quantile(size, [1 / 3, 2 / 3])
    for draw, row in enumerate(times.astype(int)):
        images = [image for image, count in enumerate(row) for _ in range(count)]
        assert found["mean_iou"][draw] == pytest.approx(mean_iou(counts.whole[images, place].sum(0)))
        assert found["border_iou"][draw] == pytest.approx(mean_iou(counts.border[images, place].sum(0)))
        objects = [k for image in images for k in np.flatnonzero(counts.objects[:, 0] == image)]
        shares = [counts.covered[k, place] / counts.objects[k, 1] for k in objects]
        large = [share for k, share in zip(objects, shares) if size[k] > second]
        assert found["recall_large"][draw] == pytest.approx(np.mean(large) if large else np.nan, nan_ok=True)
        small = [share for k, share in zip(objects, shares) if size[k] <= first]
        assert found["recall_small"][draw] == pytest.approx(np.mean(small) if small else np.nan, nan_ok=True)
        assert found["object_incomplete"][draw] == pytest.approx(np.mean([share < 0.5 for share in shares]))
        whole = [counts.whole[image, place, :2, 0] for image in images]
        lost = [right < 0.9 * true for right, true in whole if true]
        assert found["background_incomplete"][draw] == pytest.approx(
            np.mean(lost) if lost else np.nan, nan_ok=True
        )


def painted(tmp_path, truths, labels):
    """Measures of made labels in one variant."""
    variant = PostProcessing("wsfcn", False, "predicted")
    recorder = DiagnosticsRecorder()
    for k, (truth, label) in enumerate(zip(truths, labels)):
        sample = Sample(f"i{k}", tmp_path, (True, True))
        recorder.add(ImageResult(sample, truth.shape, truth, np.zeros(2), {}, {variant: label}))
    recorder.save(tmp_path)
    return Diagnostics.load(tmp_path).measures(variant)


def test_completeness_by_hand(tmp_path):
    """Of objects of 16, 64 and 400 pixels in images of 1600 a quarter, a half and nine tenths are found."""
    truths = [np.zeros((40, 40), np.uint8) for _ in range(3)]
    for truth, side in zip(truths, (4, 8, 20)):
        truth[2 : 2 + side, 2 : 2 + side] = 1
    labels = [truth.copy() for truth in truths]
    labels[0][3:] = labels[1][6:] = labels[2][20:] = 0
    labels[1][30:] = 2  # 400 of 1536 background pixels are taken for an object
    found = painted(tmp_path, truths, labels)
    assert [found[f"recall_{size}"] for size in ("small", "medium", "large")] == pytest.approx(
        [0.25, 0.5, 0.9]
    )
    assert found["object_incomplete"] == pytest.approx(1 / 3) and found[
        "background_incomplete"
    ] == pytest.approx(1 / 3)


def test_a_perfect_answer_and_no_object(tmp_path):
    truth = np.zeros((20, 20), np.uint8)
    empty = painted(tmp_path, [truth], [truth])
    assert (
        empty["mean_iou"] == 1
        and empty["background_incomplete"] == 0
        and np.isnan(empty["object_incomplete"])
    )
    truth[5:15, 5:15] = 1
    whole = painted(tmp_path, [truth], [truth])
    assert (
        whole["mean_iou"],
        whole["border_iou"],
        whole["object_incomplete"],
        whole["background_incomplete"],
    ) == (1, 1, 0, 0)
    assert (tmp_path / DIAGNOSTICS_FILE).stat().st_size < 5000
