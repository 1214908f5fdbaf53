"""Processes that load pictures and are ended by the system: one line with cause and step."""

import os
import signal
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from factories import settings
from wsfcn_lib import train as training
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.runs.processes import started, usable_cores
from wsfcn_lib.runs.storage import RunError
from wsfcn_lib.train import main, next_batch, train


class Killed(Dataset):
    """Ends the process that loads it."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_loader_is_one_line():
    with pytest.raises(RunError, match="ended by the system, .*lower `workers`, or set it to 0") as error:
        next_batch(iter(DataLoader(Killed(), num_workers=1)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit.",
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback ...\nRuntimeError: unable to allocate "
        "shared memory(shm) for file </torch_1>: Resource temporarily unavailable (11)",
        "unable to write to file </torch_7_8_0>: No space left on device (28) in DataLoader worker process 1",
    ],
)
def test_too_little_shared_memory_is_one_line(text):
    def batches():
        raise RuntimeError(text)
        yield

    with pytest.raises(RunError, match=r"no room in shared memory .*workers: 0, .*--shm-size") as error:
        next_batch(batches())
    assert "\n" not in str(error.value)


def test_other_errors_stay_what_they_are():
    class Bad(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError, match="size"):
        next_batch(iter(DataLoader(Bad())))


@pytest.mark.parametrize(
    "number, words",
    [
        (28, r"no room in shared memory .*workers: 0, .*--shm-size"),
        (30, r"no room in shared memory .*workers: 0, .*--shm-size"),
        (24, r"may open no more files; set workers: 0, or allow more: ulimit -n"),
        (11, r"did not start \(.*temporarily unavailable\); lower `workers`"),
    ],
)
def test_loaders_that_cannot_start_are_one_line(monkeypatch, number, words):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(torch.multiprocessing, "Queue", refuse)
    with pytest.raises(RunError, match=words) as error:
        started(DataLoader(Killed(), num_workers=1))
    assert "\n" not in str(error.value)


def test_a_loader_killed_anywhere_in_a_step_is_one_line(data, tmp_path, monkeypatch):
    """As torch tells it: its handler of signals raises wherever this process is."""

    def interrupted(*arguments):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(training, "train_step", interrupted)
    (tmp_path / "settings.json").write_text(settings(data).model_dump_json())
    with pytest.raises(RunError, match="ended by the system, .*lower `workers`, or set it to 0, and run"):
        list(train(settings(data), tmp_path / "run"))
    monkeypatch.setattr(
        sys, "argv", ["", str(tmp_path / "run"), "--settings", str(tmp_path / "settings.json")]
    )
    with pytest.raises(SystemExit, match="^RunError: a process that loads pictures was ended by the system"):
        main()


def test_no_more_processes_load_than_there_are_cores(data, monkeypatch):
    """PyTorch would warn of the kit's own default on a machine of one core."""
    monkeypatch.setattr(training, "usable_cores", lambda: 1)
    config = settings(data, workers=2)
    pictures = training.TrainSet(Manifest.load(data), "train", config.crop, config.seed)
    loader = training.step_loader(pictures, config, training.build_accelerator(config), 0)
    assert loader.num_workers == 1
    assert 1 <= usable_cores() <= os.cpu_count()
