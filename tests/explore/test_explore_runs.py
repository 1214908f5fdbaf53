"""The comparison of two runs shows what their files hold: who is ahead, where, and in which class."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from explored import decoded, make_run, moved
from wsfcn_lib.data.images import read_mask
from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.browse import ANY, BEST, LISTED, WORST
from wsfcn_lib.explore.evaluated import KINDS
from wsfcn_lib.explore.layers import iou_of
from wsfcn_lib.explore.runs import ERRORS, RIGHT, RunComparison


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, another that paints the truth (but misses a class in d), and their manifest."""
    run, manifest = make_run(tmp_path_factory.mktemp("runs"))
    better = shutil.copytree(run, run.with_name("better"))
    lines, metrics = ["image,iou"], json.loads((better / "metrics.json").read_text())
    for sample in manifest.samples("val"):
        mask = np.asarray(Image.open(sample.mask)).copy()
        mask[mask == 255] = 0
        mask[:, :40] *= sample.name != "d"
        Image.fromarray(mask).save(better / "masks" / "val" / f"{sample.name}.png")
        truth = read_mask(sample.mask, manifest)
        painted = read_mask(better / "masks" / "val" / f"{sample.name}.png", manifest)
        lines.append(f"{sample.name},{np.nanmean(iou_of(painted, truth, 3)):.4f}")
    (better / "per_image.csv").write_text("\n".join(lines) + "\n")
    metrics["per_class_iou"] |= {"background": 1.0, "cat": 0.5, "dog": 1.0}
    (better / "metrics.json").write_text(json.dumps(metrics))
    return run, better, manifest


@pytest.fixture
def view(runs):
    return RunComparison(*runs)


@pytest.mark.parametrize("key", ["order", "only", "image", "show", "opacity"])
def test_every_control_changes_the_picture(view, key):
    view.set(order=LISTED if key != "order" else BEST, image="b")
    before = view.picture
    view.controls[key].value = moved(view.controls[key])
    assert view.error is None, view.error
    assert before.shape != view.picture.shape or (before != view.picture).any()
    assert (decoded(view) == view.render(view.state)).all()


def test_it_begins_where_the_first_is_most_ahead(view):
    one, other = (side.scores for side in view.sides)
    gains = {name: one[name] - other[name] for name in "abcde"}
    assert [name for _, name in view.controls["image"].options] == sorted(gains, key=gains.get, reverse=True)
    view.set(order=WORST)
    assert view.state["image"] == min(gains, key=gains.get) and view.titles == ("run", "better")
    label = view.controls["image"].options[0][0]
    assert label == f"{view.state['image']} · {min(gains.values()):+.2f}"
    first = view.state["image"]
    view.on.click()
    assert view.state["image"] != first
    view.back.click()
    assert view.state["image"] == first


def test_a_class_filters_the_list(view, runs):
    view.set(order=LISTED, only="dog")
    assert [name for _, name in view.controls["image"].options] == ["b", "c"]
    view.set(only=ANY)
    assert len(view.controls["image"].options) == 5


def test_who_is_right_is_told_by_colour(view):
    view.set(order=LISTED, image="c")
    one, other, truth = (
        view.sides[k].labels("c", kind) for k, kind in ((0, KINDS[0]), (1, KINDS[0]), (0, KINDS[2]))
    )
    panel = view._panel(view.state, RIGHT)[-240:].astype(int)
    colours = draw.fitted(truth.shape, 240, 320, shrink=True)
    blue, orange = (panel[..., 2] > panel[..., 0] + 60), (panel[..., 0] > panel[..., 2] + 60)
    alone = colours(((other == truth) & (one != truth) & (truth != 255)).astype(np.uint8)) > 0
    assert orange.any() and (orange == alone).all() and not blue.any(), "the second paints the truth"
    assert not orange[:5].any() and (truth[0] == 255).all(), "what truth leaves open counts for nobody"


def test_exchanged_runs_give_the_opposite(runs):
    there, back = RunComparison(*runs), RunComparison(runs[1], runs[0], runs[2])
    assert there.gains == pytest.approx({name: -gain for name, gain in back.gains.items()})
    for view in (there, back):
        view.set(order=LISTED, image="a")
    assert (there._panel(there.state, "run") == back._panel(back.state, "run")).all()
    assert (there._panel(there.state, RIGHT) != back._panel(back.state, RIGHT)).any()


def test_bars_stand_on_their_sides():
    picture = charts.differences([0.5, -0.25], ["up", "down"], "t").astype(int)
    blue, orange = ((picture == colour).all(2) for colour in (draw.GAINED, draw.ERRORS["missed"][0]))
    assert np.flatnonzero(blue.any(0)).min() >= 165 and np.flatnonzero(orange.any(0)).max() <= 167
    assert blue.any(0).sum() == pytest.approx(2 * orange.any(0).sum(), abs=3)


def test_bars_follow_metrics_and_picture(runs, tmp_path):
    copy = shutil.copytree(runs[1], tmp_path / "better")
    before = RunComparison(runs[0], copy, runs[2])
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["per_class_iou"]["cat"] = 0.0
    (copy / "metrics.json").write_text(json.dumps(metrics))
    changed = (before.picture != RunComparison(runs[0], copy, runs[2]).picture).any(2)
    assert changed[:100, 640:].any() and not changed[:, :640].any()


def test_missing_things_are_said(runs, tmp_path):
    run, better, manifest = runs
    bare = tmp_path / "bare"
    bare.mkdir()
    view = RunComparison(run, bare, manifest)
    assert view.error is None and view.state["order"] == LISTED and view.picture.shape[1] > 640
    assert (
        view.note.value.startswith("a: IoU ")
        and "by run" in view.note.value
        and "by bare" not in view.note.value
    )
    view.set(order=BEST)
    assert view.state["image"] is None and "bare holds no IoU of single pictures of val" in view.note.value
    view.set(order=LISTED, show=ERRORS)
    assert view.error is None and view.state["image"] == "a"


def test_without_ground_truth_there_are_masks(tmp_path):
    run, manifest = make_run(tmp_path, masked=False)
    view = RunComparison(run, shutil.copytree(run, tmp_path / "other"), manifest)
    assert view.error is None and view.state["image"] == "a" and view.titles == ("run", "other")
    before = view.picture
    view.set(opacity=0.0)
    assert (before != view.picture).any()


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    twin = shutil.copytree(runs[0], tmp_path / "run")
    assert RunComparison(runs[0], twin, runs[2]).titles == (str(runs[0]), str(twin))
