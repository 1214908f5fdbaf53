"""Processes beside a training: what a launcher left in the environment, and loaders that the system ends."""

import gc
import importlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from wsfcn_lib.runs.storage import RunError

LAUNCHERS_TRAINING = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "FP8_")
LAUNCHERS_PLACEMENT = ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE", "ACCELERATE_CPU_AFFINITY")
LAUNCHERS_PROCESSES = re.compile(
    "(LOCAL_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|(PMI|OMPI_COMM_WORLD|MV2_COMM_WORLD)_.*(RANK|SIZE)"
    "|ACCELERATE_TORCH_DEVICE"
)


@contextmanager
def without_launchers_training() -> Iterator[None]:
    """Hide variables by which a launcher or a shell would change how accelerate trains.

    ACCELERATE_GRADIENT_ACCUMULATION_STEPS would divide every loss. Those for devices and processes stay.
    """
    hidden = {}
    for name in list(os.environ):
        if name.startswith(LAUNCHERS_TRAINING) and name not in LAUNCHERS_PLACEMENT:
            hidden[name] = os.environ.pop(name)
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def as_launched() -> Iterator[None]:
    """Say which variables make this process one of several, or choose its device, where that waits or fails.

    Shells and clusters keep them after a launcher has ended.
    """
    from accelerate import PartialState  # a second to import, which reading a run need not pay

    left = [name for name in os.environ if LAUNCHERS_PROCESSES.fullmatch(name)]
    told = (
        f"this process is told by {', '.join(f'{name}={os.environ[name]}' for name in left)} how to work with others: "
        f"if no launcher started it, unset {' '.join(left)}; else start all of them by accelerate launch"
    )
    if any(name.endswith("WORLD_SIZE") for name in left):
        # DistributedDataParallel imports it too, and a group that is older than this import is never freed
        importlib.import_module("torch._dynamo")
    waits = "MASTER_ADDR" in left and any(name.endswith(("RANK", "SIZE")) for name in left)
    by_launcher = "TORCHELASTIC_RUN_ID" in os.environ  # of accelerate and torch, which start all at once
    if waits and not by_launcher and not PartialState._shared_state:
        print(f"NOTE: {told}", flush=True)
    try:
        yield
    except Exception as error:  # torch and accelerate raise a dozen kinds here
        if not left:
            raise
        PartialState._reset_state()
        raise RunError(f"{told} ({str(error).splitlines()[0]})") from error


def leave_others() -> None:
    """End what this process shares with others, as the last thing before Python ends.

    A thread of gloo that still frees tensors while Python ends would abort the process, and with it the launch.
    The group ends its threads when nothing holds it any more, so parallel networks are collected first.
    """
    from accelerate import PartialState

    gc.collect()
    PartialState().destroy_process_group()


def started(loader: Iterable) -> Iterator:
    """The batches of a loader, whose processes start here; RunError, in a line, where the system refuses."""
    with explained_loaders():
        try:
            return iter(loader)
        except OSError as error:  # of semaphores, pipes and forks, which have no file's name
            raise RuntimeError(f"DataLoader worker did not start: {error}") from error


@contextmanager
def explained_loaders() -> Iterator[None]:
    """RunError, in a line, where the system ended a process that loads, or refused it something."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not any(word in text for word in ("DataLoader worker", "shared memory", "ancdata")):
            raise
        cause, step = "was ended by the system, perhaps for want of memory", "lower `workers`, or set it to 0"
        if any(word in text for word in ("shared memory", "shm", "Bus error", "No space left", "Read-only")):
            cause = "found no room in shared memory (/dev/shm, 64 MB in Docker)"
            step = "set workers: 0, or give more: docker run --shm-size=2g"
        elif "Too many open files" in text or "ancdata" in text:
            cause, step = "may open no more files", "set workers: 0, or allow more: ulimit -n 4096"
        elif "did not start" in text:
            cause = f"did not start ({text.partition('start: ')[2]})"
        raise RunError(
            f"a process that loads pictures {cause}; {step}, and run the same command again; it goes on"
        ) from None


def usable_cores() -> int:
    """The processor cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
