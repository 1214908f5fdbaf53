"""Several processes: the same batches, a clean end, and going on from a resume state, with parameters nobody uses (FCA)."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch

from factories import SETTINGS
from wsfcn_lib.checkpoints import load_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.training_set import TrainSet
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.train import step_loader, train


def launch(run, *arguments, meanwhile=lambda: None):
    """Two processes on the CPU. (`accelerate launch` starts them on GPUs; for CPUs alone it starts one, so torchrun does.)"""
    command = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "wsfcn_lib.train",
        str(run),
    ]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, *command, *arguments], env=environment, cwd=ROOT, **pipes
    ) as process:
        meanwhile()
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


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


def test_two_processes_stop_after_the_same_step(data, tmp_path):  # noqa: F811
    run, file = tmp_path / "run", tmp_path / "settings.json"
    file.write_text(TrainConfig(data=str(data), **SETTINGS | {"epochs": 999}).model_dump_json())

    def stop():
        for _ in range(600):
            if (run / "log.csv").exists():  # begun: what lay there before was taken away
                return (run / "stop").touch()
            time.sleep(0.1)

    done = launch(run, "--settings", str(file), meanwhile=stop)
    assert done.returncode == 0, done.stderr[-3000:]
    stage = read_run(run)["stages"]["02_train"]
    assert stage["stopped_at"] > 0 and not stage.get("finished") and not (run / "stop").exists()
    assert len(list((run / "checkpoints").glob(f"state-{stage['stopped_at']:08d}-*.pt"))) == 1


def test_the_command_line_says_what_is_missing(tmp_path):
    def say(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "wsfcn_lib.train", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    assert "is not a run" in say(tmp_path / "absent")
    (tmp_path / "run.json").write_text(json.dumps({"stages": {}}))
    assert "no training yet: begin it in notebook 02" in say(tmp_path)
    (tmp_path / "settings.json").write_text('{"epohcs": 3}')
    assert "epohcs" in say(tmp_path, "--settings", tmp_path / "settings.json")


EQUAL = """
import os, sys, torch
from accelerate import PartialState
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.job import Job
from wsfcn_lib.runs import ROOT
from wsfcn_lib.train import step_loader, train_step

config, run, out = TrainConfig.model_validate_json(sys.argv[1]), ROOT / sys.argv[2], sys.argv[3]
job = Job(config, run)
for module in job.net.modules():
    if "Dropout" in type(module).__name__:
        module.p = 0.0
exchanges = []
if job.accelerator.num_processes > 1:
    job.model.register_comm_hook(None, lambda state, bucket: exchanges.append(1) or allreduce_hook(None, bucket))
found = []
for step, (images, tags, index) in enumerate(step_loader(job.trainset, config, job.accelerator, 0)):
    if step == 3:
        break
    losses = train_step(job.model, job.optimiser, images, tags, config, 1.0, True, job.accelerator.backward)
    losses = job.accelerator.reduce(torch.tensor(losses), "mean")
    gradients = {name: p.grad for name, p in job.net.named_parameters() if p.grad is not None}
    found.append((losses, {name: g.clone() for name, g in gradients.items()}))
torch.save((found, job.net.state_dict(), len(exchanges)), f"{out}-{job.accelerator.process_index}")
PartialState().destroy_process_group()
"""


def test_two_processes_learn_what_one_does(data, tmp_path):  # noqa: F811
    """The same global batch: losses, gradients, weights and the norms' statistics; gate and dropout, which draw, are off."""

    def learn(name, processes, **changes):
        script = tmp_path / "equal.py"
        script.write_text(EQUAL)
        same = {"gate_rate": 0.0, "optimiser": "sgd", "lr": 0.01, "batch_norm": "synchronised"}
        config = TrainConfig(data=str(data), **SETTINGS | same | changes).model_dump_json()
        launched = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] * (
            processes > 1
        )
        command = [
            sys.executable,
            *launched,
            str(script),
            config,
            str(tmp_path / name),
            str(tmp_path / f"{name}.out"),
        ]
        environment = os.environ | {
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return torch.load(tmp_path / f"{name}.out-0")

    counts = []
    # in parts a ReLU meets a value within rounding of 0 here, which falls to its other side: 0.3 % of a gradient, then more
    for accumulate, steps, most in ((1, 3, 1e-5), (2, 1, 1e-2)):
        (one, state, _), (two, other, exchanges) = (
            learn(f"{processes}-{accumulate}", processes, accumulate=accumulate) for processes in (1, 2)
        )
        for (losses, gradients), (others, other_gradients) in zip(one[:steps], two[:steps], strict=True):
            assert losses[1] > 0, "the mask loss takes part"
            assert torch.allclose(losses, others, atol=most)
            assert gradients.keys() == {n for n in other_gradients if n in gradients} and len(gradients) > 50
            for name, gradient in gradients.items():
                size = gradient.abs().max() if accumulate > 1 else max(1, gradient.abs().max())
                assert (gradient - other_gradients[name]).abs().max() <= most * size + 1e-6, name
        assert all(torch.allclose(state[name], other[name], atol=most) for name in state)
        counts.append(exchanges)
    assert counts[0] == counts[1] > 0, "gradients are exchanged once a step, however many parts it has"
    (together, *_), (apart, *_) = learn("1-1", 1), learn("apart", 2, batch_norm="process")
    assert not torch.allclose(together[0][0], apart[0][0], atol=1e-5), (
        "with statistics of each process the losses differ"
    )


def test_two_processes_evaluate_what_one_does(data, tmp_path):  # noqa: F811
    config = TrainConfig(data=str(data), **SETTINGS | {"epochs": 1})
    for _ in train(config, tmp_path / "one"):
        pass
    RunFolder.open(tmp_path / "one", config.model_dump(), "02_train").close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps({"scales": [1.0, 0.5], "processes": 1, "images": "test"}))
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    for name, launched in (
        ("one", ()),
        ("two", ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")),
    ):
        command = [*launched, "-m", "wsfcn_lib.evaluation", str(tmp_path / name), "--settings", str(asked)]
        done = subprocess.run(
            [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count('"mean_iou"') == 1, "one process speaks"
    for file in ("metrics.json", "per_image.csv", "scores.csv"):
        assert (tmp_path / "one" / file).read_text() == (tmp_path / "two" / file).read_text(), file
    assert len(list((tmp_path / "two" / "masks" / "test").glob("*.png"))) == 8


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
