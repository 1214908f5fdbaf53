"""SIGKILL inside each notebook of a real pass: given again, the command goes on and ends with the same results."""

import json
import os
import random
import signal
import subprocess
import time

import pytest
import yaml

from factories import MARK, RUN_ALL, SMOKE, kill, log_of, until
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.notebook import STAGES
from wsfcn_lib.runs.paths import ROOT

pytestmark = pytest.mark.kill


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Begins a pass with the smallest settings; its images are its own, its processes bear its mark."""
    home = tmp_path_factory.mktemp("passes")

    def begin(name, *more):
        places = {
            "run": str(home / name / "run"),
            "raw": str(home / name / "raw"),
            "data": str(home / name / "data"),
        }
        (home / f"{name}.yaml").write_text(yaml.safe_dump(yaml.safe_load(SMOKE.read_text()) | places))
        command = ["env", f"{MARK}={home / name}", *RUN_ALL, "--params", str(home / f"{name}.yaml"), *more]
        words = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return home / name, subprocess.Popen(command, cwd=ROOT, **words)

    return begin


def ended(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def whole(start):
    home, process = start("whole")
    code, _, err = ended(process)
    assert code == 0, err
    return home / "run"


def record_of(run, stage):
    return read_run(run)["stages"].get(stage, {}) if (run / "run.json").exists() else {}


def at_work(run, stage):
    """Whether a notebook has opened the run and not finished it."""
    record = record_of(run, stage)
    return bool(record) and not record.get("finished")


def results(run):
    """What a pass found out: its metrics, hashes of its files, each image's numbers, the ablation's table, the training's log."""
    files = {stage: read_run(run)["stages"][stage]["files"] for stage in ("02_train", "05_evaluate")}
    tables = [(run / name).read_bytes() for name in ("per_image.csv", "ablation/table.csv")]
    return json.loads((run / "metrics.json").read_text()), files, *tables, log_of(run)


def test_killed_inside_every_notebook_a_pass_ends_with_the_same_results(start, whole):
    for stage in STAGES:
        home, process = start("killed")
        run = home / "run"
        until(process, lambda: at_work(run, stage), 300)  # noqa: B023 — used at once
        time.sleep(random.uniform(0, 0.6) * read_run(whole)["stages"][stage]["seconds"])
        known = record_of(run, stage)
        assert kill(process, home), process.stderr.read()
        print(f"{stage}: killed; finished by then: {bool(known.get('finished'))}", flush=True)
    code, out, err = ended(start("killed")[1])
    assert code == 0, err
    assert out.count("finished before, nothing changed") >= 3
    assert results(run) == results(whole)
    assert not run.with_name("run-before").exists()


def test_a_notebook_that_outlives_its_command_does_no_harm(start, whole):
    """Only the command is killed: the notebook it began holds the run, and the next command is refused until it ends."""
    home, process = start("orphaned", "--only", "01", "02")
    run = home / "run"
    until(process, lambda: at_work(run, "02_train"), 300)
    kernel = int((run / ".lock").read_text())
    os.kill(kernel, signal.SIGSTOP)  # else the smallest training ends before the next command has a kernel
    try:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not record_of(run, "02_train").get("finished")
        code, _, err = ended(start("orphaned", "--only", "01", "02")[1])
        assert code == 1 and f"is in use by process {kernel}" in err and "wait for it" in err, err
    finally:
        os.kill(kernel, signal.SIGCONT)
    for _ in range(100):
        code, _, err = ended(start("orphaned", "--only", "01", "02")[1])
        if code == 0:
            break
        assert f"is in use by process {kernel}" in err, err
        time.sleep(1)
    assert code == 0
    assert log_of(run) == log_of(whole)
    weights = [read_run(path)["stages"]["02_train"]["files"] for path in (run, whole)]
    assert weights[0] == weights[1] and weights[0]
