"""The comparison of two runs shows what their files hold: who is ahead, where, and in which class."""

import json
import shutil

import numpy as np
import pytest

from explored import differ
from wsfcn_lib.explore import draw
from wsfcn_lib.explore.browse import BEST, LISTED
from wsfcn_lib.explore.evaluated import PREDICTION, TRUTH
from wsfcn_lib.explore.runs import ERRORS, RunComparison

FIRST, WHO_IS_RIGHT = np.s_[24:234, :280], np.s_[258:468, 280:560]  # panels in the picture


@pytest.fixture
def view(evaluated, better):
    return RunComparison(evaluated[0], better, evaluated[1])


def test_who_is_right_is_shown_by_colour(view):
    view.set(order=LISTED, image="c")
    one, other = (files.labels("c", PREDICTION) for files in view.files)
    truth = view.files[0].labels("c", TRUTH)
    red, _, blue = np.moveaxis(view.picture[WHO_IS_RIGHT].astype(int), 2, 0)
    is_blue, is_orange = blue > red + 60, red > blue + 60
    alone = ((other == truth) & (one != truth) & (truth != 255)).astype(np.uint8)
    resize = draw.fitted(truth.shape, *draw.QUARTER, shrink=True)
    assert is_orange.any() and (is_orange == resize(alone)).all() and not is_blue.any(), (
        "the second is the truth"
    )
    assert not is_orange[:5].any() and (truth[0] == 255).all(), "what truth leaves open counts for nobody"


def test_exchanged_runs_give_the_opposite(view, evaluated, better):
    back = RunComparison(better, *evaluated)
    assert view.titles == ("run", "better") and view.gains == {
        name: -gain for name, gain in back.gains.items()
    }
    for comparison in (view, back):
        comparison.set(order=LISTED, image="a")
    second = np.s_[24:234, 280:560]
    assert (view.picture[FIRST] == back.picture[second]).all()
    assert (view.picture[WHO_IS_RIGHT] != back.picture[WHO_IS_RIGHT]).any()


def test_bars_follow_the_metrics(view, evaluated, better, tmp_path):
    copy = shutil.copytree(better, tmp_path / "better")
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["per_class_iou"]["cat"] = 0.0
    (copy / "metrics.json").write_text(json.dumps(metrics))
    other = RunComparison(evaluated[0], copy, evaluated[1])
    assert differ(view.aside[:100], other.aside[:100]) and not differ(view.picture, other.picture)


def test_missing_things_are_said(evaluated, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    view = RunComparison(evaluated[0], bare, evaluated[1])
    assert view.error is None and view.state["order"] == LISTED and view.aside is not None
    assert view.note.value.startswith("a: IoU ") and view.note.value.endswith(" by run")
    view.set(order=BEST)
    assert view.state["image"] is None and "bare holds no IoU of single pictures of val" in view.note.value
    view.set(order=LISTED, show=ERRORS)
    assert view.error is None and view.state["image"] == "a"


def test_without_ground_truth_there_are_masks(without_masks, tmp_path):
    run, manifest = without_masks
    view = RunComparison(run, shutil.copytree(run, tmp_path / "other"), manifest)
    assert view.error is None and view.state["image"] == "a" and view.titles == ("run", "other")
    before = view.picture
    view.set(opacity=0.0)
    assert differ(before, view.picture)


def test_runs_of_one_name_are_told_apart(evaluated, tmp_path):
    twin = shutil.copytree(evaluated[0], tmp_path / "run")
    assert RunComparison(evaluated[0], twin, evaluated[1]).titles == (str(evaluated[0]), str(twin))


def test_other_runs_that_were_measured_on_the_same_images_can_be_chosen(evaluated, better, tmp_path):
    home = tmp_path / "home"
    runs = {}
    for name, source in (("one", evaluated[0]), ("two", better), ("three", better)):
        runs[name] = shutil.copytree(source, home / name)
        (runs[name] / "run.json").write_text('{"stages": {}}')
    other = shutil.copytree(better, home / "of other classes")
    (other / "run.json").write_text('{"stages": {}}')
    metrics = json.loads((other / "metrics.json").read_text())
    metrics["per_class_iou"] = {"boat": 1.0}
    (other / "metrics.json").write_text(json.dumps(metrics))
    view = RunComparison(runs["one"], runs["two"], evaluated[1])
    assert [title for title, _ in view.controls["second"].options][:3] == ["one", "two", "three"]
    assert "of other classes" not in dict(view.controls["second"].options)
    before, gains = view.picture, view.gains
    view.set(second=str(runs["three"]))
    assert view.titles == ("one", "three") and view.gains == gains and differ(before, view.picture)
    assert [title for title, _ in view.controls["order"].options][:2] == ["one ahead", "three ahead"]
    view.set(first=str(runs["three"]))
    assert set(view.gains.values()) == {0.0} and view.error is None, "a run beside itself"


def test_a_run_stands_once_in_the_list_however_it_is_written(evaluated, better, tmp_path, monkeypatch):
    home = tmp_path / "home"
    for name, source in (("one", evaluated[0]), ("two", better)):
        (shutil.copytree(source, home / name) / "run.json").write_text('{"stages": {}}')
    view = RunComparison(home / "two" / ".." / "one", str(home / "two"), evaluated[1])
    listed = [title for title, _ in view.controls["first"].options]
    assert listed.count("one") == listed.count("two") == 1 and not any("/" in title for title in listed[:2])
