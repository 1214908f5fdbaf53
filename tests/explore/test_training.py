"""The training view shows what the files of a run hold, follows a training, and stops it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from explored import decoded
from factories import settings
from wsfcn_lib.explore import training
from wsfcn_lib.explore.training import TrainingView
from wsfcn_lib.plots.saving import to_png
from wsfcn_lib.plots.tiles import tile
from wsfcn_lib.plots.training_panels import panel_writer, row_ends
from wsfcn_lib.runs.log import read_rows
from wsfcn_lib.train import train


@pytest.fixture
def view(finished, tmp_path):
    """A view of a copy, so that each test may change its files."""
    return TrainingView(shutil.copytree(finished[0], tmp_path / "copy"))


def test_a_finished_run_is_read_from_its_files(view):
    assert view.error is None and view.state == {"live": False, "epoch": 2} and view.stop_button.disabled
    assert "copy: epoch 3 of 3, step 12; finished in" in view.note.value
    assert (decoded(view) == view.render(view.state)).all()


def test_the_slider_changes_the_panel_alone(view):
    before = view.picture
    view.controls["epoch"].value = 0
    changed = (before != view.picture).any((1, 2))
    assert changed.any() and not changed[:300].any(), "the curves stay"
    assert (decoded(view) == view.render(view.state)).all()


def test_the_panel_holds_the_first_two_images(view):
    path = view.folder / "panels" / "epoch-002.png"
    colours = [(200, 0, 0), (0, 0, 200), (0, 200, 0), (0, 0, 0)]
    for size, titles in (((40, 40), ("one", "two")), ((40, 70), ()), ((60, 40), ("of\ntwo lines", "two"))):
        panel = tile([[np.full((*size, 3), colour, np.uint8)] * 2 for colour in colours], titles, "abcd")
        path.write_bytes(to_png(panel, rows=row_ends(panel)))
        view.again.click()
        red, blue, green = ((view.picture[320:] == colour).all(2).sum() for colour in colours[:3])
        assert red > 5000 and red == pytest.approx(blue, rel=0.05) and not green, (
            "however the panel is laid out"
        )


def test_a_panel_that_does_not_tell_its_rows_is_shown_whole(view):
    path = view.folder / "panels" / "epoch-002.png"
    with Image.open(path) as file:
        assert len(file.text["rows"].split()) == 4, "a training tells them"
        panel, before = np.array(file.convert("RGB")), view.picture
    Image.fromarray(panel).save(path)
    view.again.click()
    assert len(view.picture) > len(before) + 200


@pytest.mark.parametrize("column", [name for columns in training.CHARTS.values() for name, *_ in columns])
def test_every_column_is_drawn(view, column):
    path, before = view.folder / "log.csv", view.picture
    names, *lines = (line.split(",") for line in path.read_text().splitlines())
    place = names.index(column)
    filled = [line for line in lines if line[place]]
    filled[-1][place] = str(3 * float(filled[-1][place]) + 0.1)
    path.write_text("\n".join(map(",".join, [names, *lines])) + "\n")
    view.again.click()
    changed = (before != view.picture).any(2)
    assert changed[:320].any() and not changed[320:].any()


def test_it_follows_a_training_and_passes_its_rows_on(data, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "PAUSE", 0)
    monkeypatch.setattr(training, "SHARE", 0)
    view, seen, pictures = TrainingView(tmp_path / "run"), [], []
    assert (
        view.stop_button.disabled and "run has logged nothing yet: train it with 02_train" in view.note.value
    )
    config, run = settings(data), tmp_path / "run"
    for row in view.follow(train(config, run, panel_writer(config, run))):
        pictures.append(view.picture)
        seen.append((row["step"], view.state["live"], view.state["epoch"]))
    assert [step for step, *_ in seen] == [row["step"] for row in finished[1]] and all(
        live for _, live, _ in seen
    )
    assert [epoch for *_, epoch in seen] == sorted(epoch for *_, epoch in seen), (
        "the slider goes to the newest panel"
    )
    assert len({picture.tobytes() for picture in pictures}) == len(seen), (
        "each row is drawn before the next one comes"
    )
    assert (
        view.state == {"live": False, "epoch": 2}
        and "finished in" in view.note.value
        and view.stop_button.disabled
    )


def test_a_slider_that_was_moved_back_stays(view):
    view.controls["epoch"].value = 1
    shutil.copy(view.folder / "panels" / "epoch-000.png", view.folder / "panels" / "epoch-003.png")
    view.again.click()
    assert (view.state["epoch"], view.controls["epoch"].max) == (1, 3)


def test_drawing_waits_after_each_drawing(view, monkeypatch):
    now, drawn = [0.0], []

    def render(state):
        drawn.append(now[0])
        now[0] += 0.5
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    view.render = render
    for _ in view.follow(range(200)):
        now[0] += 1
    between = np.diff(drawn[1:-1])
    assert len(between) >= 2 and (between >= training.SHARE * 0.5).all(), (
        "a drawing takes a hundredth of the time at most"
    )


def test_the_button_stops_a_training_and_what_is_there_goes_on(data, tmp_path):
    run = tmp_path / "run"
    view = TrainingView(run)
    for row in view.follow(train(settings(data), run)):
        if row["step"] == 6:
            assert not view.stop_button.disabled
            view.stop_button.click()
            assert "stopping after this step" in view.note.value
    assert not (run / "stop").exists() and row["step"] <= 8 and view.state["live"] is False
    assert (
        f"; stopped after step {view.stage['stopped_at']}. " in view.note.value
        and not view.stop_button.disabled
    )
    again = TrainingView(run)
    assert (again.picture == view.picture).all(), "an interrupted run is reopened from its files"
    for _ in again.follow(train(settings(data), run)):
        pass
    assert len(read_rows(run / "log.csv")) > 6 and "finished" in again.note.value


def test_stopped_is_told_from_interrupted_and_from_asked_to_stop(data, tmp_path):
    run = tmp_path / "run"
    view, rows = TrainingView(run), train(settings(data), run)
    for row in rows:
        if row["step"] == 6:
            break
    rows.close()
    view.renew()
    assert "; interrupted, or under way in another process. 02_train goes on" in view.note.value
    view.stop_button.click()  # before the next start
    assert "; asked to stop: a training ends after its next step. 02_train goes on" in view.note.value
    for _ in view.follow(train(settings(data), run)):
        pass
    assert "; stopped after step 5. 02_train goes on" in view.note.value, (
        "an epoch of four steps was saved, one more was done"
    )
    next(view.follow(train(settings(data), run)))
    assert view.stage["stopped_at"] is None


def test_an_error_ends_the_following_and_is_passed_on(view):
    def failing():
        yield {}
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(view.follow(failing()))
    assert view.state["live"] is False


def test_missing_things_are_said(view, tmp_path):
    shutil.rmtree(view.folder / "panels")
    (view.folder / "run.json").write_text(json.dumps({"stages": {}}))
    before = view.picture
    again = TrainingView(view.folder)
    assert (
        again.error is None
        and again.picture.shape[0] < before.shape[0]
        and "of ?, step 12; interrupted" in again.note.value
    )
    assert TrainingView(tmp_path / "none").error is None
