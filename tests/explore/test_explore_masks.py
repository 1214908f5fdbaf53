"""The mask explorer reads what the evaluation wrote; its sweep counts what a slow loop counts."""

import shutil

import numpy as np
import pytest

from explored import decoded, make_run, moved
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_mask
from wsfcn_lib.explore.browse import BEST, LISTED, WORST
from wsfcn_lib.explore.evaluated import KINDS
from wsfcn_lib.explore.inspection import VIEWS, Inspector
from wsfcn_lib.explore.layers import Missing
from wsfcn_lib.explore.masks import DIFFERENCE, FOUR, RECUT, MaskExplorer
from wsfcn_lib.explore.sweep import BACKGROUNDS, SCORE_CUTS, count, recut, sweep
from wsfcn_lib.infer import SCORE_CUT
from wsfcn_lib.metrics import ConfusionMatrix
from wsfcn_lib.postprocess import BACKGROUND_MASK, crf_available, label_map

AS_EVALUATED = {"scales": (1.0,), "flip": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("masks"))


@pytest.fixture
def explorer(run):
    return MaskExplorer(str(run[0]), run[1], "val", **AS_EVALUATED)


NEEDS = {
    "pair": {"show": DIFFERENCE},
    "score_cut": {"show": RECUT, "background": 0.05},
    "background": {"show": RECUT},
}


@pytest.mark.parametrize("key", ["order", "only", "image", "show", "opacity", *NEEDS])
def test_every_control_changes_the_picture(explorer, key):
    explorer.set(
        **{"order": WORST} if key == "order" else {"order": LISTED, "image": "b"} | NEEDS.get(key, {})
    )
    before = explorer.picture
    assert not explorer.controls[key].disabled
    explorer.controls[key].value = moved(explorer.controls[key])
    assert explorer.error is None, explorer.error
    assert before.shape != explorer.picture.shape or (before != explorer.picture).any()
    assert (decoded(explorer) == explorer.render(explorer.state)).all()


@pytest.mark.parametrize("show", [FOUR, *KINDS, DIFFERENCE, RECUT])
@pytest.mark.parametrize("swept", [False, True])
def test_a_control_that_changes_nothing_cannot_be_moved(explorer, show, swept):
    explorer.set(order=LISTED, image="c", show=show)
    if swept:
        explorer.sweep(2)
    before = explorer.picture
    for key, control in explorer.controls.items():
        if control.disabled:
            control.value = moved(control)
            assert before.shape == explorer.picture.shape and (before == explorer.picture).all(), key
    assert explorer.controls["background"].disabled == (show != RECUT and not swept)
    explorer.set(sweep=None)
    assert explorer.controls["background"].disabled == (show != RECUT)


def test_it_shows_the_files_of_the_run(explorer, run):
    for kind, folder in zip(KINDS, ("val", "val_crf")[: 1 + crf_available()]):
        want = read_mask(run[0] / "masks" / folder / "c.png", run[1])
        assert (explorer.labels("c", kind) == want).all()


def test_worst_comes_first_and_needs_no_network(explorer, run):
    iou = explorer.scores
    names = [name for _, name in explorer.controls["image"].options]
    assert explorer.state["order"] == WORST and names == sorted(iou, key=iou.get) and len(names) == 5
    explorer.set(order=BEST)
    assert explorer.state["image"] == max(iou, key=iou.get)
    explorer.set(show=DIFFERENCE)
    assert "source" not in vars(explorer), "the files tell it all"


def test_a_cut_at_the_recipes_values_is_the_evaluations_mask(explorer):
    explorer.set(order=LISTED)
    for name in "abcde":
        explorer.set(image=name, show=RECUT, score_cut=SCORE_CUT, background=BACKGROUND_MASK)
        assert (explorer._recut(explorer.state) == explorer.labels(name, KINDS[0])).all()


def test_cutting_anew_is_the_library_at_other_cuts(monkeypatch):
    rng = np.random.default_rng(3)
    masks, chances = rng.random((4, 9, 8), np.float32), np.array([0.05, 0.4, 0.9], np.float32)
    for cut, background in ((0.1, 0.25), (0.5, 0.75), (0.95, 0.1)):
        monkeypatch.setattr("wsfcn_lib.recipes.BACKGROUND_MASK", background)
        assert (recut(masks, chances, cut, background) == label_map(masks, chances > cut)).all()


def test_counts_of_all_cuts_are_those_of_a_slow_loop():
    rng = np.random.default_rng(5)
    masks, chances = rng.random((4, 12, 10), np.float32), np.array([0.05, 0.42, 0.9], np.float32)
    masks[1, :3] = 0.25  # exactly on a background value, which it does not exceed
    truth = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (12, 10))
    found = count(masks, chances, truth)
    for s, cut in enumerate(SCORE_CUTS):
        for b, background in enumerate(BACKGROUNDS):
            slow = ConfusionMatrix(4)
            slow.update(recut(masks, chances, cut, background), truth)
            assert (found[s, b] == slow.matrix).all(), (cut, background)


def test_the_grid_holds_the_recipes_values():
    assert SCORE_CUT in SCORE_CUTS and BACKGROUND_MASK in BACKGROUNDS


def test_a_sweep_tells_what_it_was_computed_on(explorer, run):
    before = explorer.picture
    explorer.button.click()
    found, metrics = explorer.state["sweep"], explorer.metrics["mean_iou"]
    at = list(SCORE_CUTS).index(SCORE_CUT), list(BACKGROUNDS).index(BACKGROUND_MASK)
    assert found.mean_iou[at] == pytest.approx(metrics) and (found.images, found.split) == (5, "val")
    assert before.shape != explorer.picture.shape or (before != explorer.picture).any()
    assert "5 pictures of val" in explorer.note.value and "tuned on val" in explorer.note.value
    here = explorer.picture
    explorer.set(background=0.9)
    assert (here != explorer.picture).any(), "the dot moves"


def test_the_marks_of_two_curves_stand_at_the_sliders(explorer):
    explorer.sweep(5)
    left = explorer.picture
    explorer.set(score_cut=0.5)
    assert (left[:, -280:] != explorer.picture[:, -280:]).any() and (
        left[:200, :280] == explorer.picture[:200, :280]
    ).all()


def test_missing_things_are_said(run, tmp_path):
    where, manifest = make_run(tmp_path, evaluated=False)
    explorer = MaskExplorer(str(where), manifest, "val", **AS_EVALUATED)
    assert explorer.error is None and explorer.state["order"] == LISTED
    with pytest.raises(Missing, match="no masks of val in .*: run 05_evaluate on it"):
        explorer.labels("a", KINDS[0])
    explorer.set(order=WORST)
    assert explorer.state["image"] is None and "holds no IoU of single pictures of val" in explorer.note.value
    shutil.copytree(run[0] / "masks" / "val", where / "masks" / "val")
    with pytest.raises(Missing, match="no masks with CRF"):
        MaskExplorer(str(where), manifest, "val").labels("a", KINDS[1])


def test_without_ground_truth_there_are_masks_and_no_iou(tmp_path):
    where, manifest = make_run(tmp_path, masked=False)
    explorer = MaskExplorer(str(where), manifest, "val", **AS_EVALUATED)
    assert explorer.error is None and explorer.state["show"] == FOUR and explorer.labels("a", KINDS[0]).any()
    with pytest.raises(Missing, match="no ground truth"):
        explorer.labels("a", KINDS[2])
    explorer.sweep()
    assert (
        isinstance(explorer.error, DataError)
        and "none of these pictures of val has a mask" in explorer.note.value
    )


def test_a_sweep_looks_with_all_views(run):
    source = Inspector(str(run[0]), "val", scales=(1.0, 1.5))
    said = []
    found = sweep(source, ["a", "e"], "val", said.append)
    total = ConfusionMatrix(3)
    for name in "ae":
        look = source.look(name, VIEWS[1])
        total.update(recut(look.masks, look.chances, 0.3, 0.5), look.truth)
    at = list(SCORE_CUTS).index(0.3), list(BACKGROUNDS).index(0.5)
    assert found.mean_iou[at] == pytest.approx(total.mean_iou()) and said[-1] == "sweep: 2 of 2 pictures"
