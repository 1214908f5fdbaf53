import errno
import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wsfcn_lib.runs import __main__ as command
from wsfcn_lib.runs import paths, provenance
from wsfcn_lib.runs.folder import RunFolder, list_runs, read_run, stop_requested
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import code_hash, files_of, notebook_hash, processor
from wsfcn_lib.runs.run_diff import diff_runs, diff_settings, plain
from wsfcn_lib.runs.storage import RunError, atomic_write, require_space

STAGE = "02_train"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "demo"
    yield path
    RunFolder(path).close()


OPEN = "import sys; from wsfcn_lib.runs import RunFolder; run = RunFolder.open(sys.argv[1], {}, '02_train')"


def other_process(folder, code=OPEN):
    return subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True)


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path):
    atomic_write(tmp_path / "a.txt", "one")
    with open(tmp_path / "a.txt") as reader:
        atomic_write(tmp_path / "a.txt", b"two")
        assert reader.read() == "one"  # who reads already goes on with the old file
    assert (tmp_path / "a.txt").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    atomic_write(tmp_path / "a.txt", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_settings_are_kept_as_json_holds_them():
    settings = {
        "dilations": (1, 2),
        "lr": np.float32(0.5),
        "data": ROOT / "data" / "x",
        "text": f"{ROOT}/data/y",
        "é": None,
    }
    kept = {"dilations": [1, 2], "lr": 0.5, "data": "data/x", "text": "data/y", "é": None}
    assert plain(settings) == kept


def test_a_run_records_settings_provenance_and_facts(folder):
    with RunFolder.open(folder, {"epochs": 3, "dilations": (1, 2)}, STAGE, device="cpu") as run:
        run.record(STAGE, seconds=1.5, checksums={"train.csv": "ab"})
        run.record(STAGE, finished=True)
    stage = json.loads((folder / "run.json").read_text())["stages"][STAGE]
    assert stage["settings"] == {"epochs": 3, "dilations": [1, 2]}
    assert (stage["seconds"], stage["checksums"], stage["finished"]) == (1.5, {"train.csv": "ab"}, True)
    assert stage["device"] == "cpu" and stage["versions"]["numpy"] == np.__version__
    assert stage["code"] == code_hash()
    assert str(ROOT) not in (folder / "run.json").read_text()


def test_stages_share_a_run_and_keep_their_own_settings(folder):
    with RunFolder.open(folder, {"epochs": 3}, STAGE):
        pass
    with RunFolder.open(folder, {"epochs": 99, "crf": True}, "05_evaluate") as run:
        run.record("05_evaluate", seconds=2)
    stages = read_run(folder)["stages"]
    assert (stages[STAGE]["settings"], stages["05_evaluate"]["settings"]) == (
        {"epochs": 3},
        {"epochs": 99, "crf": True},
    )


def test_other_settings_are_refused_one_by_one_and_change_nothing(folder):
    with RunFolder.open(folder, {"epochs": 3, "lr": 0.1, "seed": 0}, STAGE):
        before = (folder / "run.json").read_bytes()
    with pytest.raises(RunError) as error:
        RunFolder.open(folder, {"epochs": 4, "lr": 0.1, "crop": 64}, STAGE)
    differences, *ways = str(error.value).splitlines()
    assert differences == (
        "run demo has other settings for 02_train: epochs 3 → 4, seed 0 → '(absent)', crop '(absent)' → 64"
    )
    assert len(ways) == 2 and "--run-name" in ways[0] and "--fresh" in ways[1]
    assert (folder / "run.json").read_bytes() == before
    assert (
        other_process(folder, OPEN.replace(STAGE, "03_explore")).returncode == 0
    )  # the refusal left no lock behind


def test_free_settings_may_change_and_the_change_is_kept(folder):
    with RunFolder.open(folder, {"epochs": 3, "workers": 0}, STAGE, ignore=("workers",)):
        pass
    with RunFolder.open(folder, {"epochs": 3, "workers": 2}, STAGE, ignore=("workers",)):
        pass
    stage = read_run(folder)["stages"][STAGE]
    assert stage["settings"]["workers"] == 2
    assert len(stage["resumed"]) == 1 and stage["resumed"][0]["code"] == code_hash()


def test_a_setting_of_later_counts_as_its_default_before_it_existed(folder):
    usual, deep = {"epochs": 31, "align": True, "device": "auto"}, {"training": {"epochs": 3}}
    with RunFolder.open(folder, {"epochs": 3}, STAGE):
        pass
    with RunFolder.open(folder, {"epochs": 3, "align": True}, STAGE, defaults=usual):
        assert read_run(folder)["stages"][STAGE]["settings"] == {"epochs": 3, "align": True}, (
            "from now on it is written"
        )
    with pytest.raises(RunError, match="align True → False") as error:
        RunFolder.open(folder, {"epochs": 4, "align": False}, STAGE, defaults=usual)
    assert "epochs 3 → 4" in str(error.value) and "device" not in str(error.value), (
        "what nobody asks for does not count"
    )
    with RunFolder.open(folder, deep, "04_ablations"):
        pass
    with RunFolder.open(
        folder, {"training": {"epochs": 3, "align": True}}, "04_ablations", defaults={"training": usual}
    ):
        pass
    with pytest.raises(RunError, match="training.align True → False"):
        RunFolder.open(
            folder, {"training": {"epochs": 3, "align": False}}, "04_ablations", defaults={"training": usual}
        )


def test_neither_a_finished_stage_nor_a_cell_run_twice_counts_as_resumed(folder):
    with RunFolder.open(folder, {}, STAGE):
        RunFolder.open(folder, {}, STAGE).record(STAGE, finished=True)
    with RunFolder.open(folder, {}, STAGE):
        assert "resumed" not in read_run(folder)["stages"][STAGE]


def test_a_second_process_is_refused_by_pid_until_the_first_closes(folder):
    with RunFolder.open(folder, {}, STAGE):
        refused = other_process(folder)
        assert refused.returncode != 0
        assert (
            f"run demo is in use by process {os.getpid()}:" in refused.stderr
            and "another run name" in refused.stderr
        )
    assert other_process(folder).returncode == 0


def test_a_killed_process_leaves_no_lock(folder):
    killed = other_process(folder, OPEN + "; import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == -9
    with RunFolder.open(folder, {}, STAGE):
        assert len(read_run(folder)["stages"][STAGE]["resumed"]) == 1


def test_forked_workers_hold_no_lock(folder):
    """A data loader's worker that outlives its killed parent must not block the resumed run."""
    fork = OPEN + "; import os, time; os.fork() or (os.close(1), os.close(2), time.sleep(10)); os._exit(0)"
    assert other_process(folder, fork).returncode == 0
    RunFolder.open(folder, {}, STAGE)


def test_a_deleted_run_is_locked_afresh(folder):
    RunFolder.open(folder, {"epochs": 3}, STAGE)
    shutil.rmtree(folder)
    RunFolder.open(folder, {}, STAGE)
    assert "is in use by process" in other_process(folder).stderr


def test_a_closed_run_records_nothing(folder):
    run = RunFolder.open(folder, {}, STAGE)
    run.close()
    with pytest.raises(RunError, match=r"run demo is closed.*RunFolder\.open it again"):
        run.record(STAGE, seconds=1)


def test_stop_file_is_seen_and_taken_away_by_the_next_lock(folder):
    with RunFolder.open(folder, {}, STAGE) as run:
        assert not stop_requested(run)
        (folder / "stop").touch()
        assert stop_requested(run) and stop_requested(folder)
        assert stop_requested(RunFolder.open(folder, {}, STAGE)), (
            "this process has the folder already: it is meant"
        )
    with RunFolder.open(folder, {}, STAGE) as run:
        assert not stop_requested(run)


def test_a_process_that_finds_the_folder_in_use_leaves_its_stop_file(folder):
    with RunFolder.open(folder, {}, STAGE):
        (folder / "stop").touch()
        assert "is in use" in other_process(folder).stderr and stop_requested(folder)


def test_missing_and_damaged_runs_are_named(tmp_path):
    with pytest.raises(RunError, match="nothing is not a run"):
        read_run(tmp_path / "nothing")
    (tmp_path / "run.json").write_text('{"stages": ')
    with pytest.raises(RunError, match=r"damaged run\.json.*bring that file back, or make the run again"):
        read_run(tmp_path)
    for content in ("[]", "{}", "null", '{"stages": null}', '{"stages": {"02_train": null}}'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunError, match=r"damaged run\.json .*\(it holds no stages\)"):
            read_run(tmp_path)
    assert list_runs(tmp_path.parent)
    (tmp_path / "run.json").write_text('{"stages": {}}')
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(RunError, match=r"metrics\.json holds no numbers by name; delete it"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"4711x"])
def test_a_lock_that_tells_no_process_is_held_all_the_same(folder, content):
    with RunFolder.open(folder, {}, STAGE):
        (folder / ".lock").write_bytes(content)
        assert "run demo is in use by another process: wait for it" in other_process(folder).stderr


def test_space_is_checked_before_the_folder_exists(tmp_path):
    require_space(tmp_path / "not" / "yet", 1000)
    with pytest.raises(
        RunError, match=r"not/yet needs 1000000000\.0 GB of disk, .* GB are free; delete old runs"
    ):
        require_space(tmp_path / "not" / "yet", 1e18)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Writes a file of a library of its own; returns the hash of the code."""
    monkeypatch.setattr(provenance, "ROOT", tmp_path)

    def write(name, text):
        path = tmp_path / "wsfcn_lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return code_hash()

    return write


def test_the_hash_of_code_changes_with_code_alone(library):
    code = 'def f(x):\n    """Half."""\n    return x / 2\n'
    before = library("data/a.py", code)
    for same in (
        "# a comment\n" + code,
        code.replace("Half", "Half of x"),
        code.replace("x / 2", "(x\n    / 2)"),
    ):
        assert library("data/a.py", same) == before
    without = code.replace('    """Half."""\n', "")
    assert library("data/a.py", without) == before
    others = {library("data/a.py", code.replace("2", "3")), library("data/a.py", code + "x = 'Half'\n")}
    assert len(others | {before}) == 3
    assert library("data/a.py", code) == before != library("data/b.py", "")


def test_the_hash_of_code_takes_no_notice_of_the_words_of_errors(library):
    code = 'def f(x):\n    if x < 2:\n        raise ValueError(f"{x} is small")\n'
    before = library("a.py", code)
    assert library("a.py", code.replace("is small", "is too small; raise it")) == before
    for old, new in (("x < 2", "x < 3"), ("ValueError", "OSError"), ("raise ", "return ")):
        assert library("a.py", code.replace(old, new)) != before, new


def test_the_hash_of_a_notebook_reads_its_code_but_not_its_outputs(tmp_path):
    def hashes(*lines, outputs=(), injected="", words=""):
        cells = [{"cell_type": "code", "metadata": {}, "source": lines, "outputs": outputs}]
        tags = {"tags": ["injected-parameters"]}
        cells.append({"cell_type": "code", "metadata": tags, "source": [injected]})
        cells.append({"cell_type": "markdown", "metadata": {}, "source": [words]})
        path = tmp_path / "n.ipynb"
        path.write_text(json.dumps({"cells": cells}))
        return notebook_hash(path), code_hash(path)

    before = hashes("a = 1")
    assert before == hashes("a = 1  # one\n", outputs=["printed"], injected="b = 2", words="# Title")
    assert all(old != new for old, new in zip(before, hashes("a = 2")))
    assert before[0] != before[1] != code_hash()


def test_provenance_without_git_says_none(tmp_path, monkeypatch):
    (tmp_path / "wsfcn_lib").mkdir()
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    found = provenance.provenance("cuda")
    assert (found["commit"], found["dirty"], found["device"]) == (None, None, "cuda")


def test_peak_memory_grows_with_what_is_held():
    before = provenance.peak_memory_mb()
    block = np.ones(int(1e6 * (before + 60) / 8))  # more than was ever held, so the peak must rise
    assert 20 < before < provenance.peak_memory_mb() < 8 * before + 1000
    del block


def test_runs_are_listed_and_compared(tmp_path, monkeypatch, capsys):
    for name, epochs, iou in (("a", 3, 0.5), ("b", 4, None)):
        with RunFolder.open(tmp_path / name, {"epochs": epochs, "net": {"width": 8}}, STAGE) as run:
            run.record(STAGE, finished=True)
        if iou:
            atomic_write(tmp_path / name / "metrics.json", json.dumps({"mean_iou": iou}))
    (tmp_path / "not_a_run").mkdir()
    assert sorted((row["name"], row["finished"], row["mean_iou"]) for row in list_runs(tmp_path)) == [
        ("a", [STAGE], 0.5),
        ("b", [STAGE], None),
    ]
    a, b = read_run(tmp_path / "a"), read_run(tmp_path / "b")
    rows = diff_settings(a, b)
    assert ("stages.02_train.settings.epochs", 3, 4) in rows and ("metrics.mean_iou", 0.5, "(absent)") in rows
    assert not any("width" in key for key, _, _ in rows)
    assert diff_settings(a, a) == []

    monkeypatch.setattr(paths, "RUNS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["runs", "a", "b"])
    command.main()
    head, setting, result, *more = capsys.readouterr().out.splitlines()
    assert head.split() == ["why", "what", "a", "b"]
    assert setting.split() == ["settings", "02_train", "epochs", "3", "4"]
    assert result.split() == ["result", "mIoU", "0.500", "–"]
    assert head.index(" a ") + 1 == setting.index("3") == result.index("0.500"), "columns are aligned"
    assert more == ["They differ in more (1 of results): --all shows it."]
    monkeypatch.setattr(sys, "argv", ["runs", "a", "b", "--all"])
    command.main()
    assert "results   metrics.mean_iou" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["runs", "a"])
    with pytest.raises(SystemExit):
        command.main()
    assert "give no run, or two to compare, not 1" in capsys.readouterr().err


def test_a_stage_that_one_run_lacks_is_one_line_and_long_values_are_cut(tmp_path):
    for name in "ab":
        with RunFolder.open(tmp_path / name, {"dilations": [1, 2]}, STAGE) as run:
            run.record(STAGE, finished=True)
    settings = {"ids": "x" * 90, "seeds": 3, "floor": 0.2}
    RunFolder.open(tmp_path / "b", settings, "04_ablations").close()
    lines = command.compared(str(tmp_path / "a"), str(tmp_path / "b"), everything=False)
    assert [line.split() for line in lines[1:2]] == [["stage", "04_ablations", "not", "there", "there"]]
    lines = command.compared(str(tmp_path / "a"), str(tmp_path / "b"), everything=True)
    assert any(line.endswith("x" * 43 + "…") for line in lines)
    same = command.compared(str(tmp_path / "a"), str(tmp_path / "a"), everything=False)
    assert same[1].split() == ["settings", "none", "differs"] and len(same) == 2


def test_the_command_ends_quietly_where_its_reader_has_enough(tmp_path):
    for number in range(300):
        RunFolder.open(tmp_path / f"{'a' * 200}{number}", {}, STAGE).close()
    code = f"from wsfcn_lib.runs import folder; folder.list_runs.__defaults__ = ({str(tmp_path)!r},)"
    run = "import runpy; runpy.run_module('wsfcn_lib.runs', run_name='__main__')"
    text = f"{shlex.quote(sys.executable)} -c {shlex.quote(code + '; ' + run)} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", text], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("run ") and done.stderr == "", done.stderr


@pytest.mark.parametrize(
    "value, words",
    [(0.61643, "0.616"), (12.3456, "12.3"), (0.0004, "0.0004"), (None, "–"), ([1.0, 2], "1.000, 2")],
)
def test_values_are_told_with_three_digits(value, words):
    assert command.text(value) == words


def test_differences_are_explained_by_causes_first():
    def record(**changes):
        facts = {
            "seed": 0,
            "list": "ab",
            "commit": "c0",
            "torch": "2.14",
            "cpus": 2,
            "weights": "w0",
            "iou": 0.5,
        } | changes
        stage = {
            "settings": {"seed": facts["seed"], "code": "dense"},
            "data": {"train.csv": facts["list"]},
            "seconds": len(facts),
        }
        stage |= {
            "commit": facts["commit"],
            "versions": {"torch": facts["torch"]},
            "cpus": facts["cpus"],
            "started": str(facts),
        }
        stage |= {
            "files": {"last.safetensors": facts["weights"]},
            "evidence": {"settings": {"seed": facts["seed"]}},
        }
        return {"metrics": {"mean_iou": facts["iou"]}, "stages": {"02_train": stage}}

    changes = {
        "seed": 1,
        "list": "cd",
        "commit": "c1",
        "torch": "2.13",
        "cpus": 4,
        "weights": "w1",
        "iou": 0.4,
    }
    kinds = ["settings", "data", "code", "versions", "machine", "files", "results"]
    assert [row[0] for row in diff_runs(record(), record(**changes))] == kinds
    for (name, value), kind in zip(changes.items(), kinds):
        ((why, _, before, after),) = diff_runs(record(), record(**{name: value}))
        assert (why, after) == (kind, value) and before != after
    assert diff_runs(record(), record()) == []


def test_files_of_a_run_have_checksums(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for split in ("val", "val_crf"):
        (tmp_path / "masks" / split).mkdir(parents=True)
        for name in ("a.png", "b.png"):
            (tmp_path / "masks" / split / name).write_bytes(name.encode())
    (tmp_path / "checkpoints" / "last.safetensors").write_bytes(b"weights")
    before = files_of(tmp_path)
    assert (
        before.keys() == {"last.safetensors", "masks/val", "masks/val_crf"}
        and before["masks/val"] == before["masks/val_crf"]
    )
    assert before["last.safetensors"] == hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "masks/val/a.png").rename(tmp_path / "masks/val/c.png")
    (tmp_path / "masks/val_crf/a.png").write_bytes(b"other")
    after = files_of(tmp_path)
    assert len({before["masks/val"], after["masks/val"], after["masks/val_crf"]}) == 3


def test_the_command_names_a_run_that_is_not_there():
    done = subprocess.run(
        [sys.executable, "-m", "wsfcn_lib.runs", "no-such-a", "no-such-b"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "no-such-a is not a run" in done.stderr and "Traceback" not in done.stderr


def test_root_is_the_repository():
    assert (ROOT / "wsfcn_lib" / "runs" / "paths.py").samefile(paths.__file__)


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_that_knows_no_locks_is_told(folder, monkeypatch, error):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(
        RunError, match="demo knows no locks, .* make data/runs a link .* --run-name /scratch"
    ):
        RunFolder.open(folder, {}, STAGE)


def test_one_damaged_run_does_not_spoil_the_list(tmp_path):
    with RunFolder.open(tmp_path / "good", {}, "02_train"):
        pass
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"stages": ')
    assert [(row["name"], row["finished"]) for row in list_runs(tmp_path)] == [
        ("torn", ["damaged"]),
        ("good", []),
    ]


def test_the_processor_is_named_since_sums_depend_on_it(tmp_path, monkeypatch):
    text = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 167\nmodel name\t: Some Processor\nstepping\t: 1\n\nprocessor\t: 1\n"
    monkeypatch.setattr(Path, "read_text", lambda *_: text)
    assert processor.__wrapped__() == "Some Processor, family 6, model 167, stepping 1"

    def refuse(*_):
        raise OSError("no such file")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert processor.__wrapped__() in (platform.processor(), platform.machine())
