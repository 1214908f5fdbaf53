"""Several processes: batches, gradients and results are those of one, they stop together and end cleanly."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from factories import SETTINGS, equal, log_of, settings, weights
from processes import learn
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.training_set import TrainSet
from wsfcn_lib.evaluation.__main__ import main as evaluate
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.supervision import TrainingError
from wsfcn_lib.train import STAGE, main, step_loader, train


def launch(*command):
    """Two processes on the CPU, by torchrun: for CPUs alone `accelerate launch` starts one."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [*torchrun, *map(str, command)],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
EVALUATED = ("metrics.json", "per_image.csv", "scores.csv")
LEARN = SETTINGS | {"gate_rate": 0.0, "optimiser": "sgd", "lr": 0.01}


@pytest.fixture(scope="module")
def launched(data, tmp_path_factory):
    """The folder in which two processes did what tests/processes.py says, and what they printed."""
    folder = tmp_path_factory.mktemp("processes")
    given = {"learn": LEARN, "train": SETTINGS | {"epochs": 2}}
    text = json.dumps({name: values | {"data": str(data)} for name, values in given.items()})
    (folder / "settings.json").write_text(text)
    evaluation = {"scales": [1.0, 0.5], "processes": 1, "images": "test"}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder, launch(ROOT / "tests" / "processes.py", folder)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_learn_what_one_does_in_twice_as_many_parts(data, launched, accumulate):
    """Each part has the images of one process's part. Running statistics differ: each process has its own."""
    two, two_weights, exchanges = torch.load(launched[0] / f"learned-{accumulate}-0")
    one, one_weights, _ = learn(
        settings(data, **LEARN | {"accumulate": 2 * accumulate}), order=[0, 2, 4, 6, 1, 3, 5, 7]
    )
    for (losses, gradients), (two_losses, two_gradients) in zip(one, two, strict=True):
        assert losses[1] > 0, "the mask loss takes part"
        assert torch.allclose(losses, two_losses, atol=1e-5)
        assert len(gradients) > 50 and gradients.keys() <= two_gradients.keys()
        for name, gradient in gradients.items():
            assert torch.allclose(gradient, two_gradients[name], atol=1e-5), name
    for name, weight in one_weights.items():
        assert name.endswith(STATISTICS) or torch.allclose(weight, two_weights[name], atol=1e-5), name
    assert exchanges == torch.load(launched[0] / "learned-1-0")[2] > 0, "once a step, however many its parts"


def test_both_processes_hold_the_same_weights(launched):
    first, second = (torch.load(launched[0] / f"learned-1-{process}")[1] for process in (0, 1))
    for name, weight in first.items():
        assert name.endswith(STATISTICS) or torch.equal(weight, second[name]), name


def test_two_processes_train_stop_together_and_go_on(launched):
    folder, printed = launched
    whole, parts = folder / "whole", folder / "parts"
    steps = [row["step"] for row in log_of(whole) if not row["val_loss"]]
    assert steps == ["2", "4", "6", "8"] and read_run(whole)["stages"][STAGE]["finished"]
    rows = [json.loads((folder / f"rows-{process}.json").read_text()) for process in (0, 1)]
    assert rows[0]["step"] == rows[1]["step"] == 2, "no row after the stop"
    assert not (parts / "stop").exists()
    # what the command then does, as accelerate starts it
    assert printed.count("epoch   2/2  validation") == 1, "one process speaks"
    assert log_of(parts) == log_of(whole) and equal(weights(parts), weights(whole))
    assert read_run(parts)["stages"][STAGE]["files"] == read_run(whole)["stages"][STAGE]["files"]
    assert sorted(path.name for path in (parts / "panels").iterdir()) == ["epoch-000.png", "epoch-001.png"]


def test_norms_are_not_synchronised_on_several_cpu_processes(data, tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(TrainingError, match="batch_norm='synchronised' needs GPUs"):
        next(train(settings(data, batch_norm="synchronised"), tmp_path / "run"))


def test_two_processes_evaluate_what_one_does(launched, tmp_path, monkeypatch):
    folder, printed = launched
    two, one = folder / "whole", shutil.copytree(folder / "whole", tmp_path / "one")
    for name in EVALUATED:
        (one / name).unlink()
    shutil.rmtree(one / "masks")
    monkeypatch.setattr(sys, "argv", ["evaluate", str(one), "--settings", str(folder / "evaluation.json")])
    evaluate()
    assert printed.count('"mean_iou"') == 1, "one process speaks"
    for name in EVALUATED:
        assert (one / name).read_text() == (two / name).read_text(), name
    assert len(list((two / "masks" / "test").glob("*.png"))) == 8


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are read from Linux's /proc")
def test_no_thread_of_the_group_is_left_when_python_ends(launched):
    """One that frees a tensor while Python ends aborts the process; seen once on a busy machine."""
    for process in (0, 1):
        threads = json.loads((launched[0] / f"threads-{process}.json").read_text())
        assert threads and not [name for name in threads if "gloo" in name]


def test_the_command_line_says_what_is_missing(tmp_path, monkeypatch, capsys):
    command = [sys.executable, "-m", "wsfcn_lib.train", str(tmp_path / "absent")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "is not a run" in done.stderr and "Traceback" not in done.stderr

    def exit_of(*arguments):
        monkeypatch.setattr(sys, "argv", ["train", str(tmp_path), *arguments])
        with pytest.raises(SystemExit) as error:
            main()
        return error.value.code

    (tmp_path / "run.json").write_text(json.dumps({"stages": {}}))
    assert "no training yet: begin it in notebook 02" in exit_of()
    (tmp_path / "settings.json").write_text('{"epohcs": 3}')
    assert "epohcs" in exit_of("--settings", str(tmp_path / "settings.json"))


@pytest.mark.parametrize("start", [0, 3])
def test_shares_make_up_the_batches_of_one_process(data, start):
    config = settings(data)
    images = TrainSet(Manifest.load(data), "train", config.crop, config.seed)

    def indices(index, count):
        process = SimpleNamespace(process_index=index, num_processes=count, device=torch.device("cpu"))
        return [batch[2].tolist() for batch in step_loader(images, config, process, start)]

    whole, first, second = indices(0, 1), indices(0, 2), indices(1, 2)
    assert len(whole) == 12 - start
    assert [sorted(batch) for batch in whole] == [sorted(a + b) for a, b in zip(first, second)]
    assert all(len(a) == len(b) == 4 for a, b in zip(first, second))
