"""Several processes: the same batches, a clean end, and going on from a resume state, with parameters nobody uses (FCA)."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch

from test_train import SETTINGS, data  # noqa: F401, the built-in scenes of those tests
from wsfcn_lib.checkpoints import load_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.transforms import TrainSet
from wsfcn_lib.runs import ROOT, read_run
from wsfcn_lib.train import step_loader


def launch(run, *arguments):
    """Two processes on the CPU. (`accelerate launch` starts them on GPUs; for CPUs alone it starts one, so torchrun does.)"""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "wsfcn_lib.train", str(run)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_two_processes_train_and_go_on(data, tmp_path):  # noqa: F811
    run, file = tmp_path / "run", tmp_path / "settings.json"
    file.write_text(TrainConfig(data=str(data), **SETTINGS | {"epochs": 2}).model_dump_json())
    run.mkdir()
    (run / "stop").touch()  # a leftover is taken away at the start
    done = launch(run, "--settings", str(file))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("epoch   0/2  validation") == 1, "one process speaks"
    with open(run / "log.csv", newline="") as log:
        steps = [row["step"] for row in csv.DictReader(log) if not row["val_loss"]]
    assert steps == ["2", "4", "6", "8"] and read_run(run)["stages"]["02_train"]["finished"]

    # back to the state after the first epoch: what follows has to come out as it did
    before = load_snapshot(run / "checkpoints" / "last.safetensors")[0].state_dict()
    next((run / "checkpoints").glob("state-00000008-*.pt")).unlink()
    (run / "checkpoints" / "last.safetensors").unlink()
    done = launch(run)
    assert done.returncode == 0, done.stderr[-3000:]
    after = load_snapshot(run / "checkpoints" / "last.safetensors")[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_command_line_says_what_is_missing(tmp_path):
    def say(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "wsfcn_lib.train", *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    assert "is not a run" in say(tmp_path / "absent")
    (tmp_path / "run.json").write_text(json.dumps({"stages": {}}))
    assert "no training yet: begin it in notebook 02" in say(tmp_path)
    (tmp_path / "settings.json").write_text('{"epohcs": 3}')
    assert "epohcs" in say(tmp_path, "--settings", tmp_path / "settings.json")


class Process:
    """One of several processes, as the loader asks for it."""

    device = type("Device", (), {"type": "cpu"})

    def __init__(self, index, count):
        self.process_index, self.num_processes = index, count


@pytest.mark.parametrize("start", [0, 3])
def test_shares_make_up_the_batches_of_one_process(data, start):  # noqa: F811
    config = TrainConfig(data=str(data), **SETTINGS)
    trainset = TrainSet(Manifest.load(data), "train", config.crop, config.seed)

    def indices(index, count):
        return [batch[2].tolist() for batch in step_loader(trainset, config, Process(index, count), start)]

    whole, first, second = indices(0, 1), indices(0, 2), indices(1, 2)
    assert len(whole) == 12 - start
    assert [sorted(batch) for batch in whole] == [sorted(a + b) for a, b in zip(first, second)]
    assert all(len(a) == len(b) == 4 for a, b in zip(first, second))
