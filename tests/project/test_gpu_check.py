"""`make gpu-check`, rehearsed on a processor: whole, and what happens where a part fails or no time is left."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

import run_all

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import gpu_check

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.runs.paths import ROOT

CPU = torch.device("cpu")
SCRIPT = ROOT / "tests/benchmarks/gpu_check.py"


@pytest.mark.slow
def test_the_whole_of_it(tmp_path, monkeypatch):
    monkeypatch.delenv("WSFCN_VOC_ROOT", raising=False)
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--home", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["stage"]: row for row in json.loads((tmp_path / "cpu.json").read_text())}
    assert list(rows) == ["gpu_tests", "resume", "training", "training_fp32", "voc_animals", "pamr"]
    tests = rows["gpu_tests"]
    assert tests["ok"] and tests.get("passed", 0) + tests.get("skipped", 0) >= 1
    assert rows["resume"]["ok"] and rows["resume"]["losses"] == 0, "on a processor to the same bits"
    for stage in ("training", "training_fp32"):
        row = rows[stage]
        assert (row["backbone"], row["crop"], row["batch"]) == ("tiny", 48, 2)
        assert row["images_per_second"] > 0 and 0 < row["share_of_peak"] < 1.5
        assert row["coco_hours"] / row["voc_hours"] == pytest.approx(82_081 / 10_582, rel=1e-2)
    assert rows["voc_animals"]["left_out"] == "WSFCN_VOC_ROOT names no photographs"
    machine = json.loads((tmp_path / "cpu_machine.json").read_text())
    assert machine["command"] == "make gpu-check" and machine["seconds"] < gpu_check.LIMIT
    printed = done.stdout
    assert "VOC" in printed and "COCO" in printed and "nothing failed of what ran" in printed
    assert "LEFT OUT, WSFCN_VOC_ROOT names no photographs: voc_animals" in printed
    assert f"Send back: {tmp_path}/cpu.json, {tmp_path}/cpu_machine.json" in printed


def test_a_resumed_training_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        row = gpu_check.resume(CPU)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert row["ok"] and (row["losses"], row["mean_ap"]) == (0, 0), "on a processor to the same bits"


@pytest.fixture
def parts(monkeypatch):
    """Three parts, of which the second fails."""

    def broken(left):
        raise torch.OutOfMemoryError("CUDA out of memory\nand much more")

    row = {"stage": "training", "images_per_second": 8.0, "share_of_peak": 0.5, "megabytes": 9e3}
    row |= {"voc_hours": 11.4, "coco_hours": 88.4, "precision": "bf16", "device": "cpu"}
    made = {"training": lambda left: dict(row), "training_fp32": broken}
    made["pamr"] = lambda left: {"stage": "pamr"}
    monkeypatch.setattr(gpu_check, "parts_of", lambda device, tiny: made)
    return made


def test_what_fails_is_said_and_takes_nothing_along(parts, tmp_path):
    rows = gpu_check.check(CPU, home=tmp_path)
    assert [row["stage"] for row in rows] == list(parts)
    assert rows[1]["ok"] is False and rows[1]["error"] == "OutOfMemoryError: CUDA out of memory"
    assert json.loads((tmp_path / "cpu.json").read_text()) == rows
    lines = gpu_check.summary(rows, CPU, tmp_path)
    assert "training, bf16: 8 images/s, 50 % of the matrix peak, 9.0 GB; VOC 11.4 h, COCO 88.4 h" in lines
    assert "FAILED: training_fp32" in lines and not [line for line in lines if "LEFT OUT" in line]
    assert not [line for line in lines if "nothing failed" in line]


def test_it_says_which_speed_is_that_of_the_parameter_files(parts, tmp_path):
    whole = parts["training"](600)
    parts["training_fp32"] = lambda left: whole | {"stage": "training_fp32", "precision": "fp32"}
    lines = gpu_check.summary(gpu_check.check(CPU, home=tmp_path), CPU, tmp_path)
    assert [line.split(": ")[0] for line in lines if line.startswith("training")] == [
        "training, bf16",
        "training_fp32, fp32 (as the parameter files train)",
    ]
    assert "nothing failed of what ran" in lines


def test_no_part_begins_in_the_last_minute(parts, tmp_path):
    rows = gpu_check.check(CPU, home=tmp_path, limit=59)
    assert {row["left_out"] for row in rows} == {"no time is left"}
    assert json.loads((tmp_path / "cpu.json").read_text()) == rows, "what is left out is written, too"
    lines = gpu_check.summary(rows, CPU, tmp_path)
    assert "LEFT OUT, no time is left: training, training_fp32, pamr" in lines


def test_what_time_is_left_for_runs_and_the_rest_is_said(parts, tmp_path, monkeypatch):
    """The clock of the check: the first part takes all but 59 seconds."""
    now = iter([0.0, 0.0, *[601.0] * 9])
    clock = type("Clock", (), {"perf_counter": staticmethod(lambda: next(now))})
    monkeypatch.setattr(gpu_check, "time", clock)
    rows = gpu_check.check(CPU, home=tmp_path)
    assert [row.get("left_out") for row in rows] == [None, "no time is left", "no time is left"]
    assert json.loads((tmp_path / "cpu.json").read_text()) == rows


def test_a_kill_loses_no_part_that_had_ended(parts, tmp_path):
    """As each part begins, all before it are written, and those to come have a row that says so."""
    path, seen = tmp_path / "cpu.json", []
    path.write_text("those of an earlier check")
    first = parts["training"](600)

    def begin(left):
        seen.append(path.read_text())
        return first

    def killed(left):
        seen.append(path.read_text())
        raise KeyboardInterrupt

    parts["training"], parts["pamr"] = begin, killed
    with pytest.raises(KeyboardInterrupt):
        gpu_check.check(CPU, home=tmp_path)
    assert seen[0] == "those of an earlier check" and seen[1] == path.read_text()
    training, failed, last = json.loads(seen[1])
    assert training == first and failed["ok"] is False and last["left_out"] == "the check ended before it"
    assert json.loads((tmp_path / "cpu_machine.json").read_text())["command"] == "make gpu-check"


@pytest.mark.parametrize(
    "code, output, verdict",
    [
        (0, "5 passed, 1 skipped in 3 s", {"passed": 5, "skipped": 1, "ok": True}),
        (1, "4 passed, 1 failed in 3 s", {"passed": 4, "failed": 1, "ok": False}),
        (2, "2 error in 3 s", {"error": 2, "ok": False}),
    ],
)
def test_the_verdict_on_the_tests_is_that_of_pytest(monkeypatch, code, output, verdict):
    monkeypatch.setattr(gpu_check, "finished", lambda command, seconds: (code, output))
    assert gpu_check.gpu_tests(CPU, 5) == {"stage": "gpu_tests"} | verdict


@pytest.mark.parametrize(
    "losses, mean_ap, ok",
    [(0.0, 0.0, True), (1.0, 1.0, True), (1.01, 0.0, False), (0.0, 1.01, False)],
)
def test_the_verdict_on_resuming_allows_both_differences(monkeypatch, losses, mean_ap, ok):
    """Given in shares of what is allowed."""
    allowed = gpu_check.RESUMED_LOSSES, gpu_check.RESUMED_MAP
    found = losses * allowed[0], mean_ap * allowed[1]
    monkeypatch.setattr(gpu_check, "prepare", lambda *_: None)
    monkeypatch.setattr(gpu_check, "resume_differences", lambda *_: found)
    assert gpu_check.resume(CPU)["ok"] is ok


@pytest.mark.parametrize("ok, code", [(True, False), (False, True)])
def test_it_exits_with_the_verdict(parts, tmp_path, monkeypatch, capsys, ok, code):
    parts["training_fp32"] = lambda left: {"stage": "training_fp32", "ok": ok}
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--device", "cpu", "--home", str(tmp_path)])
    assert gpu_check.main() is code
    assert ("FAILED: training_fp32" in capsys.readouterr().out) == code


def test_a_part_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    code = "import subprocess; child = subprocess.Popen(['sleep', '60']); open('child', 'w').write(str(child.pid)); child.wait()"
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        gpu_check.finished([sys.executable, "-c", code], 3)
    child = int((tmp_path / "child").read_text())
    alive = {process.pid for process in psutil.process_iter() if process.status() != psutil.STATUS_ZOMBIE}
    assert child not in alive


def test_the_animals_are_two_of_their_epochs_by_the_notebooks(tmp_path, monkeypatch):
    given = gpu_check.animals_parameters()
    whole = run_all.read_parameters(gpu_check.ANIMALS)
    assert given["steps"] / given["epochs"] == whole["steps"] / whole["epochs"] and given["epochs"] == 2
    changed = {name for name in given if given[name] != whole.get(name)}
    assert changed == {"run", "steps", "epochs", "warmup_epochs"}
    training = run_all.parameters_of("02_train", given)
    assert TrainConfig(**{name: training[name] for name in ("steps", "epochs", "warmup_epochs")}).steps == 600

    asked = []

    def failing(command, seconds):
        asked.append(command)
        return 1, "the end"

    monkeypatch.setattr(gpu_check, "finished", failing)
    assert gpu_check.voc_animals(CPU, 5) == {"stage": "voc_animals", "ok": False}
    ((_, script, option, _, *rest),) = asked
    assert (script, option, rest) == ("notebooks/run_all.py", "--params", ["--only", "01", "02", "--fresh"])


def test_the_last_values_of_a_log_are_those_that_are_there(tmp_path):
    head = "epoch,step,classification_loss,mask_loss,images_per_second,stall,val_loss,val_map"
    lines = [head, "0,0,,,,,0.9,0.1", "0,4,0.5,0,7,0.2,,", "1,8,0.4,0.3,8,0.1,,", "2,8,,,,,0.7,0.6"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    assert gpu_check.last_values(tmp_path / "log.csv") == {
        "step": 8,
        "classification_loss": 0.4,
        "mask_loss": 0.3,
        "images_per_second": 8,
        "stall": 0.1,
        "val_loss": 0.7,
        "val_map": 0.6,
    }


def test_without_a_gpu_it_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "PyTorch finds no CUDA GPU" in done.stderr


@pytest.mark.parametrize(
    "options, says",
    [
        (["--device", "cpu"], "what `make bench` measures"),
        (["--tiny"], "--tiny rehearses on a tiny network"),
        (["--tiny", "--device", "cpu"], "--tiny rehearses on a tiny network"),
        (["--tiny", "--home", str(gpu_check.HOME / ".." / "bench")], "--tiny rehearses on a tiny network"),
    ],
)
def test_it_replaces_no_figures_of_the_bench(monkeypatch, options, says):
    monkeypatch.setattr(gpu_check, "check", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["gpu_check", *options])
    with pytest.raises(SystemExit, match=says) as refused:
        gpu_check.main()
    assert "--home" in str(refused.value)
