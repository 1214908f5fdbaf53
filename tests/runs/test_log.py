"""The log of a training, and the lines that it prints."""

import re
import shutil
from types import SimpleNamespace

import pytest

from wsfcn_lib.runs.log import RunLog, read_rows, show_progress


def test_rows_of_steps_that_are_done_again_are_dropped(finished, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    before = read_rows(run / "log.csv")
    RunLog(run, 8).close()
    # of step 8 the training's row; the validation that followed comes again
    assert read_rows(run / "log.csv") == [
        row for row in before if int(row["step"]) <= 8 and row["epoch"] < "2"
    ]


def test_a_torn_row_is_dropped(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    path = tmp_path / "run" / "log.csv"
    before = path.read_bytes()
    path.write_bytes(before + b"2,1")  # of step 14, or of step 1?
    RunLog(tmp_path / "run", 13).close()
    assert path.read_bytes() == before


def test_numbers_have_six_digits(tmp_path):
    log = RunLog(tmp_path, 0)
    row = log.write({"epoch": 1, "step": 1234567, "val_loss": 1 / 3, "val_map": 0.5})
    log.close()
    assert row == {"epoch": 1, "step": 1234567, "val_loss": 0.333333, "val_map": 0.5}
    assert read_rows(tmp_path / "log.csv")[0]["val_loss"] == "0.333333"


def test_progress_lines(finished, capsys):
    rows = finished[1]
    assert list(show_progress(iter(rows), 3)) == rows
    printed = capsys.readouterr().out.splitlines()
    trained = [line for line in printed if "images/s" in line]
    assert sum("validation" in line for line in printed) == 3 and len(trained) == 3
    assert ["to go" in line for line in trained] == [False, True, True]
    list(show_progress(iter(rows), 3, pause=0))
    assert capsys.readouterr().out.count("images/s") == sum("lr_old_weights" in row for row in rows)


@pytest.mark.parametrize("begin", [0, 5])
def test_the_time_to_go_is_right(capsys, monkeypatch, begin):
    """Four epochs of twelve steps of two seconds, logged every five steps and at the end of each epoch."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("wsfcn_lib.runs.log.time", SimpleNamespace(perf_counter=lambda: clock.now))
    numbers = {"classification_loss": 1.0, "mask_loss": 0.0, "images_per_second": 8}

    def rows():
        for step in range(begin + 1, 49):
            clock.now += 2
            if step % 5 == 0 or step % 12 == 0:
                yield {"epoch": (step - 1) // 12, "step": step} | numbers

    list(show_progress(rows(), 4, pause=0))
    seconds = {}
    for line in capsys.readouterr().out.splitlines():
        if "to go" in line:
            step, left = re.search(r"step (\d+):.* about (\d+) s to go", line).groups()
            seconds[int(step)] = int(left)
    assert seconds == {step: 2 * (48 - step) for step in (15, 20, 24, 25, 30, 35, 36, 40, 45, 48)}
