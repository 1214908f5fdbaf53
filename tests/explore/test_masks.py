"""The mask explorer reads what the evaluation wrote; its sweep counts what a slow loop counts."""

import json
import shutil

import numpy as np
import pytest

from explored import differ, listed
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_mask
from wsfcn_lib.explore.browse import BEST, LISTED, WORST
from wsfcn_lib.explore.draw import Missing
from wsfcn_lib.explore.evaluated import KINDS, PREDICTION, TRUTH, WITH_CRF, read_image_iou
from wsfcn_lib.explore.inspection import ALL_VIEWS, Inspector
from wsfcn_lib.explore.masks import DIFFERENCE, FOUR, RECUT, MaskExplorer
from wsfcn_lib.explore.sweep import BACKGROUNDS, SCORE_CUTS, count, recut, sweep
from wsfcn_lib.metrics import ConfusionMatrix
from wsfcn_lib.postprocess import BACKGROUND_MASK, crf_available, label_map
from wsfcn_lib.protocol import SCORE_CUT

AS_EVALUATED = {"scales": (1.0,), "flip": False}


@pytest.fixture
def explorer(evaluated):
    return MaskExplorer(str(evaluated[0]), evaluated[1], "val", **AS_EVALUATED)


def test_it_shows_the_files_of_the_run(explorer, evaluated):
    run, manifest = evaluated
    for kind, folder in zip(KINDS, ("val", "val_crf")[: 1 + crf_available()]):
        expected = read_mask(run / "masks" / folder / "c.png", manifest)
        assert (explorer.files.labels("c", kind) == expected).all()


def test_worst_comes_first_and_needs_no_network(explorer):
    assert explorer.state["order"] == WORST and len(listed(explorer)) == 5
    explorer.set(order=BEST, show=DIFFERENCE)
    assert "inspector" not in vars(explorer), "the files tell it all"


def test_a_cut_at_the_recipes_values_is_the_evaluations_mask(explorer):
    cuts = {"score_cut": SCORE_CUT, "background": BACKGROUND_MASK}
    for name in "abcde":
        recut_labels = explorer._labels(explorer.state | cuts | {"image": name}, RECUT)
        assert (recut_labels == explorer.files.labels(name, PREDICTION)).all()


@pytest.mark.parametrize("cut, background", [(0.1, 0.25), (0.5, 0.75), (0.95, 0.1)])
def test_cutting_anew_is_the_library_at_other_cuts(monkeypatch, cut, background):
    rng = np.random.default_rng(3)
    masks, scores = rng.random((4, 9, 8), np.float32), np.array([0.05, 0.4, 0.9], np.float32)
    monkeypatch.setattr("wsfcn_lib.postprocess.BACKGROUND_MASK", background)
    assert (recut(masks, scores, cut, background) == label_map(masks, scores > cut)).all()


def test_counts_of_all_cuts_are_those_of_a_slow_loop():
    rng = np.random.default_rng(5)
    masks, scores = rng.random((4, 12, 10), np.float32), np.array([0.05, 0.42, 0.9], np.float32)
    masks[1, :3] = 0.25  # exactly on a background value, which it does not exceed
    truth = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (12, 10))
    counts = count(masks, scores, truth)
    for s, cut in enumerate(SCORE_CUTS):
        for b, background in enumerate(BACKGROUNDS):
            slow = ConfusionMatrix(4)
            slow.update(recut(masks, scores, cut, background), truth)
            assert (counts[s, b] == slow.matrix).all(), (cut, background)


def test_a_sweep_says_what_it_was_computed_on_and_holds_the_recipes_values(explorer):
    before = explorer.aside
    assert explorer.controls["background"].disabled
    explorer.button.click()
    result = explorer.state["sweep"]
    published = list(SCORE_CUTS).index(SCORE_CUT), list(BACKGROUNDS).index(BACKGROUND_MASK)
    assert result.mean_iou[published] == pytest.approx(explorer.files.metrics["mean_iou"])
    assert (result.images, result.split) == (5, "val") and differ(before, explorer.aside)
    assert "5 pictures of val" in explorer.note.value and "tuned on val" in explorer.note.value
    for key in ("background", "score_cut"):
        charts, picture = explorer.aside, explorer.picture
        assert not explorer.controls[key].disabled
        explorer.set(**{key: 0.5})
        assert differ(charts, explorer.aside), "the dot moves"
        assert not differ(picture, explorer.picture)


def test_a_sweep_looks_with_all_views(evaluated):
    inspector, texts = Inspector(str(evaluated[0]), "val", scales=(1.0, 1.5)), []
    result = sweep(inspector, ["a", "e"], "val", texts.append)
    total = ConfusionMatrix(3)
    for name in "ae":
        seen = inspector.inspect(name, ALL_VIEWS)
        total.update(recut(seen.masks, seen.probabilities, 0.3, 0.5), seen.truth)
    at = list(SCORE_CUTS).index(0.3), list(BACKGROUNDS).index(0.5)
    assert result.mean_iou[at] == pytest.approx(total.mean_iou()) and texts[-1] == "sweep: 2 of 2 pictures"


def test_missing_masks_and_scores_are_said(unevaluated, evaluated):
    run, manifest = evaluated
    explorer = MaskExplorer(str(unevaluated), manifest, "val", **AS_EVALUATED)
    assert explorer.error is None and explorer.state["order"] == LISTED
    with pytest.raises(Missing, match="no masks of val in .*: run 05_evaluate on it"):
        explorer.files.labels("a", PREDICTION)
    explorer.set(order=WORST)
    assert explorer.state["image"] is None and "holds no IoU of single pictures of val" in explorer.note.value
    shutil.copytree(run / "masks" / "val", unevaluated / "masks" / "val")
    with pytest.raises(Missing, match="no masks with CRF"):
        MaskExplorer(str(unevaluated), manifest, "val").files.labels("a", WITH_CRF)


def test_an_empty_split_is_said(unevaluated, evaluated, tmp_path):
    folder = shutil.copytree(evaluated[1].folder, tmp_path / "empty")
    (folder / "val.csv").write_text("image,tags,mask\n")
    explorer = MaskExplorer(str(unevaluated), type(evaluated[1]).load(folder), "val")
    assert explorer.state["image"] is None and "val holds no picture" in explorer.note.value


def test_the_scores_of_another_split_are_not_taken(evaluated, unevaluated):
    for name in ("per_image.csv", "metrics.json"):
        shutil.copy(evaluated[0] / name, unevaluated / name)
    assert read_image_iou(str(unevaluated), "val").keys() == set("abcde")
    metrics = json.loads((unevaluated / "metrics.json").read_text())
    (unevaluated / "metrics.json").write_text(json.dumps(metrics | {"split": "test"}))
    assert read_image_iou(str(unevaluated), "val") == {}


def test_without_ground_truth_there_are_masks_and_no_iou(without_masks):
    run, manifest = without_masks
    explorer = MaskExplorer(str(run), manifest, "val", **AS_EVALUATED)
    assert explorer.error is None and explorer.state["show"] == FOUR
    assert explorer.files.labels("a", PREDICTION).any()
    with pytest.raises(Missing, match="no ground truth"):
        explorer.files.labels("a", TRUTH)
    explorer.sweep()
    assert isinstance(explorer.error, DataError)
    assert "none of these pictures of val has a mask" in explorer.note.value
