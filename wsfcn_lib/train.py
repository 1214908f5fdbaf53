"""Training (paper, section IV): one function that yields the rows of the log.

accelerate launch -m wsfcn_lib.train data/runs/<name>     # several processes; starts or continues the run
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from torch.utils.data import DataLoader

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.transforms import TrainSet, epoch_batches
from wsfcn_lib.job import STAGE, Job, TrainingError
from wsfcn_lib.objective import autocast, losses
from wsfcn_lib.runs import ROOT, RunError, read_run


def lr_factor(step: int, steps: int, schedule: str) -> float:
    """Learning rate of a step over its group's base: constant as published, or half a cosine from 1 to 0."""
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * step / steps))


def step_loader(data: TrainSet, config: TrainConfig, accelerator: Accelerator, start: int) -> DataLoader:
    """All batches from step `start` to the last; each process loads its share of every global batch."""
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    epoch_steps = len(data) // config.batch_size
    batches = [
        [(epoch, index) for index in batch[share]]
        for epoch in range(start // epoch_steps, config.epochs)
        for batch in epoch_batches(len(data), config.batch_size, config.seed, epoch)
    ]
    remaining, pin = batches[start % epoch_steps :], accelerator.device.type == "cuda"
    # an own generator: the loader's seed must not come out of the stream that dropout and gate draw from
    return DataLoader(data, batch_sampler=remaining, num_workers=config.workers, pin_memory=pin, generator=torch.Generator())


def next_batch(batches: Iterator) -> list[torch.Tensor]:
    """The next batch; DataError where a picture has gone bad since preparation, in a line, wherever it was read."""
    try:
        return next(batches)
    except DataError as error:
        told = str(error)
        if told.startswith("Caught "):  # by a worker, whose traceback the loader puts before the message
            told = told.rpartition("DataError: ")[2].strip()
        raise DataError(f"{told}; then give the same command again, it goes on") from None


def train_step(model, optimiser, images, tags, config: TrainConfig, factor: float, with_masks: bool, backward) -> list[float]:
    """One update of the weights; returns classification and mask loss of this process's share of the batch.

    The share is computed in `config.accumulate` parts of equal size, whose gradients are averaged; several processes exchange
    them once, with the last part. Norms that train take their statistics from a part.
    """
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor
    optimiser.zero_grad(set_to_none=True)
    means, count = [0.0, 0.0], config.accumulate
    for number, (part, part_tags) in enumerate(zip(images.chunk(count), tags.chunk(count)), 1):
        # `no_sync`: of the wrapper that several processes train in
        with model.no_sync() if number < count and hasattr(model, "no_sync") else nullcontext():
            with autocast(config, images.device):
                out = model(part)
            found = losses(out, part, part_tags, config, with_masks)
            backward(sum(found) / count)
        means = [mean + loss.item() / count for mean, loss in zip(means, found)]
    optimiser.step()
    return means


def train(config: TrainConfig, run: Path | str) -> Iterator[dict]:
    """Train one network in a run folder; yields each row of its log.csv as it is written.

    Everything is seeded before the network is built, and each sample draws from a generator of its own. Every
    `validate_every`-th epoch begins with a validation, and one follows the last; from the first epoch with mask loss
    on, a snapshot is kept when 1 - loss is at least the best so far, as published. A file `stop` in the run folder
    ends training after the current step, and is then taken away; one that lies there before the first step counts, unless an
    earlier process left it. An interrupted run goes on where its last resume state was saved: at the end of an epoch, so a kill
    costs at most one. A loss that is not finite is a TrainingError, and no such weights are saved.
    """
    job = Job(config, ROOT / run)
    progress, steps = job.progress, job.epoch_steps * config.epochs
    batches = iter(step_loader(job.trainset, config, job.accelerator, progress.step))
    while progress.step < steps:
        epoch, within = divmod(progress.step, job.epoch_steps)
        if within == 0 and epoch % config.validate_every == 0:
            yield job.judge(epoch)
        began = time.perf_counter()
        images, tags, indices = next_batch(batches)
        waited = time.perf_counter() - began
        images = images.to(job.device, memory_format=torch.channels_last, non_blocking=True)
        factor, with_masks = lr_factor(progress.step, steps, config.lr_schedule), epoch >= config.warmup_epochs
        parts = train_step(
            job.model, job.optimiser, images, tags.to(job.device), config, factor, with_masks, job.accelerator.backward
        )
        job.check(parts, "loss", [job.trainset.paths[index] for index in indices])
        progress.add(*parts, time.perf_counter() - began, waited)
        stop = job.stop_requested()
        last = within + 1 == job.epoch_steps
        if last or progress.step % config.log_every == 0:
            yield job.log_row(epoch)
        if last or stop:
            job.save(epoch, panel=last, stopped_at=progress.step if stop else None)
        if stop:
            return
    yield job.judge(config.epochs)
    job.finish()


def show_progress(rows: Iterable[dict], epochs: int, pause: float = 30) -> Iterator[dict]:
    """Pass rows on and print them as lines, one an epoch and one every `pause` seconds; readable in a notebook and a log file."""
    began = told = time.perf_counter()
    first = epoch = last = turn = None
    for row in rows:
        yield row
        now, first = time.perf_counter(), first or (row["step"], time.perf_counter())
        if "val_loss" in row:
            line = f"validation: loss {row['val_loss']:.4f}, mAP {row['val_map']:.3f}"
        elif row["epoch"] != epoch or now - told >= pause:
            if row["epoch"] != epoch:  # the row before ended an epoch, unless this is the first
                epoch, turn = row["epoch"], epoch is not None and last
            line, told = f"step {row['step']}: classification {row['classification_loss']:.4f}, mask {row['mask_loss']:.4f}", now
            line += f"  ({row['images_per_second']:.0f} images/s, {now - began:.0f} s so far"
            if turn:
                rest = (now - first[1]) / (row["step"] - first[0]) * (turn / epoch * epochs - row["step"])
                line += f", about {rest:.0f} s to go"
            line += ")"
        else:
            line = ""
        last = row["step"]
        if line:
            print(f"epoch {row['epoch']:3d}/{epochs}  {line}", flush=True)


def main() -> None:
    """Run or continue the training of a run folder, as accelerate starts it."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m wsfcn_lib.train", description=main.__doc__)
    parser.add_argument("run", type=Path, help="run folder, such as data/runs/demo")
    parser.add_argument("--settings", type=Path, help="JSON file of TrainConfig settings, for a folder without run.json")
    arguments = parser.parse_args()
    try:
        config = settings_of(arguments.run, arguments.settings)
        rows = train(config, arguments.run)
        for _ in show_progress(rows, config.epochs) if os.environ.get("RANK", "0") == "0" else rows:
            pass
    except (OSError, ValueError, RunError, TrainingError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    PartialState().destroy_process_group()  # else PyTorch aborts every second process as Python ends


def settings_of(run: Path, file: Path | None) -> TrainConfig:
    """The settings in a JSON file, or else those that notebook 02 recorded in the run's run.json."""
    if file:
        return TrainConfig.model_validate_json(file.read_text())
    stage = read_run(run)["stages"].get(STAGE)
    if not stage:
        raise RunError(f"{run} has no training yet: begin it in notebook 02, or give --settings with a JSON file")
    return TrainConfig(**stage["settings"])


if __name__ == "__main__":
    main()
