"""Processes that load pictures and are ended by the system: one line with cause and step."""

import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from wsfcn_lib.supervision import TrainingError
from wsfcn_lib.train import next_batch


class Killed(Dataset):
    """Ends the process that loads it."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_loader_is_one_line():
    with pytest.raises(
        TrainingError, match="ended by the system, .*lower `workers`, or set it to 0"
    ) as error:
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

    with pytest.raises(TrainingError, match=r"no room in shared memory .*workers: 0, .*--shm-size") as error:
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
