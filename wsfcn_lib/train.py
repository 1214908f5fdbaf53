"""The optimiser of a training: the published one, or AdamW for small networks that start from nothing."""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, gather_object, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from wsfcn_lib.checkpoints import Progress, random_states, save_snapshot, snapshots
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.model_zoo import initial_weights
from wsfcn_lib.data.training_set import TrainSet, epoch_batches
from wsfcn_lib.metrics import mean_average_precision
from wsfcn_lib.modules import Align
from wsfcn_lib.network import build_network, unreachable_taps
from wsfcn_lib.plots.training_panels import write_panel
from wsfcn_lib.runs.folder import RunFolder, read_run, stop_requested
from wsfcn_lib.runs.log import RATES, RunLog
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import files_of, peak_memory_mb
from wsfcn_lib.runs.storage import RunError, make_folder
from wsfcn_lib.supervision import TrainingError, autocast, require_finite, training_losses
from wsfcn_lib.weights import load_published

FLOW_RATE = 0.01  # of SF2's flow under AdamW, over that of other new weights


def build_optimiser(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 over the four parameter groups, as published; or AdamW, over five where there is SF2.

    AdamW takes steps of one size however small the gradient, and nothing in the losses holds SF2's flow in place: at its full
    rate it grew until the masks lay beside the objects. So there the flow forms a fifth group, at FLOW_RATE.
    """
    groups = net.parameter_groups(config.lr, config.weight_decay, config.lr_multipliers)
    if config.optimiser == "adamw":
        flow = {id(m.flow.weight) for m in net.modules() if isinstance(m, Align)}
        slow = [
            groups[2]
            | {"params": [p for p in groups[2]["params"] if id(p) in flow], "lr": FLOW_RATE * groups[2]["lr"]}
        ]
        groups[2]["params"] = [p for p in groups[2]["params"] if id(p) not in flow]
        groups += slow if flow else []
    groups = [group | {"base_lr": group["lr"]} for group in groups]
    return (
        torch.optim.SGD(groups, momentum=0.9)
        if config.optimiser == "sgd"
        else torch.optim.AdamW(groups, fused=True)
    )


class _Mean(torch.autograd.Function):
    """The mean of a tensor over all processes; so is its gradient, since each process's loss is a mean over its share."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Mean.apply(gradient)


class SyncedNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the statistics of the global batch, whose shares must be equal; for what `nn.SyncBatchNorm` cannot.

    That one serves GPUs alone. Evaluation uses the stored statistics, as ever.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        exact = x.float()
        mean = _Mean.apply(exact.mean((0, 2, 3)))[:, None, None]
        variance = _Mean.apply((exact - mean).square().mean((0, 2, 3)))
        count = x.numel() / x.shape[1] * dist.get_world_size()
        if count <= 1:
            raise ValueError(
                f"a norm that trains got one value per channel, from a map of {tuple(x.shape)}; raise batch_size"
            )
        with torch.no_grad():
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        y = (exact - mean) * (variance + self.eps).rsqrt()[:, None, None]
        y = y if self.weight is None else y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)


def synchronise(net: nn.Module, accelerator: Accelerator) -> None:
    """Exchange every norm that trains (not those that keep their stored statistics) for one over all processes, if several.

    Then any number of processes trains as one does with the same global batch.
    """
    for parent in [*net.modules()] if accelerator.num_processes > 1 else ():
        for name, norm in parent.named_children():
            if type(norm) is nn.BatchNorm2d and accelerator.device.type == "cuda":
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(norm))
            elif type(norm) is nn.BatchNorm2d:
                norm.__class__ = SyncedNorm  # it differs only in how it computes


STAGE = "02_train"
FREE = (
    "device",
    "workers",
    "threads",
    "snapshot_every",
)  # change no result, or, as devices and threads do, its last digits
THREADS = torch.get_num_threads()  # as PyTorch or its environment chose


class Job:
    """One training: its network, optimiser, data, progress, log and run folder. Only the lead process writes."""

    def __init__(self, config: TrainConfig, run: Path):
        self.config, self.run, self.began = config, run, time.perf_counter()
        self.accelerator = build_accelerator(config)
        self.device, self.lead = self.accelerator.device, self.accelerator.is_main_process
        self.manifest = Manifest.load(ROOT / config.data)
        self.trainset = TrainSet(self.manifest, "train", config.crop, config.seed)
        valset = TrainSet(self.manifest, "val", config.crop, config.seed, augment=False)
        self.val_batches = DataLoader(valset, config.batch_size)
        self.epoch_steps = len(self.trainset) // config.batch_size
        check_sizes(config, len(self.trainset), len(valset), self.accelerator.num_processes)
        if self.lead:
            self.folder = open_run(config, run, self.manifest, self.device)
            self.began -= read_run(run)["stages"][STAGE].get("seconds", 0)
            self.folder.record(STAGE, stopped_at=None)
        self.checkpoints = make_folder(run / "checkpoints")
        set_seed(config.seed)
        self.net = build_network(config.network(self.manifest.num_classes))
        if config.initial_weights:
            load_published(self.net, initial_weights(config.initial_weights))
        if self.lead and (taps := unreachable_taps(self.net, config.crop)):
            print(
                f"WARNING: taps (kernel, dilation, offsets) {taps} see only padding; lower the dilations or raise the crop"
            )
        if config.batch_norm == "synchronised":
            synchronise(self.net, self.accelerator)
        self.net.to(self.device, memory_format=torch.channels_last).train()
        self.optimiser = build_optimiser(self.net, config)
        torch.manual_seed(
            config.seed + 1000 * self.accelerator.process_index
        )  # dropout and gate: a stream per process
        self.progress = Progress.restore(
            self.checkpoints, self.net, self.optimiser, self.accelerator.process_index
        )
        self.log = RunLog(run, self.progress.step) if self.lead else None
        self.model = self.accelerator.prepare_model(self.net)

    def check(self, numbers: Sequence[float], what: str, pictures: Sequence[Path] = ()) -> None:
        """TrainingError where a number is not finite, before anything is saved; `pictures` are those of the step under way."""
        require_finite(
            numbers,
            what,
            self.progress.step + bool(pictures),
            pictures,
            self.checkpoints / "last.safetensors",
        )

    def judge(self, epoch: int) -> dict:
        """Validate before `epoch`, keep a snapshot where it is the best so far, and log the row."""
        trained = min(
            epoch, self.config.epochs - 1
        )  # after the last epoch: the losses that this one was trained with
        result = validate(self, with_masks=trained >= self.config.warmup_epochs)
        merit = 1 - result["val_loss"]
        if epoch >= self.config.warmup_epochs and merit >= self.progress.best:
            self.progress.best = merit
            self.snapshot(f"e{epoch:03d}Xs{merit:.3f}")
            for old in snapshots(self.checkpoints)[: -self.config.snapshots_kept] if self.lead else ():
                old.unlink()
        return self.write({"epoch": epoch, "step": self.progress.step, **result})

    def log_row(self, epoch: int) -> dict:
        """Log the means since the last row, over all processes."""
        classification, mask, seconds, waited, count = self.progress.take()
        means = torch.tensor([classification, mask], device=self.device) / count
        means = self.accelerator.reduce(means, "mean").tolist()
        rates = {name: group["lr"] for name, group in zip(RATES, self.optimiser.param_groups)}
        speed = {"images_per_second": count * self.config.batch_size / seconds, "stall": waited / seconds}
        row = {
            "epoch": epoch,
            "step": self.progress.step,
            "classification_loss": means[0],
            "mask_loss": means[1],
        }
        return self.write(row | rates | speed)

    def write(self, row: dict) -> dict:
        """Append a row to the log, numbers to six digits."""
        row = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
        return self.log.write(row) if self.lead else row

    def save(self, epoch: int, panel: bool, stopped_at: int | None) -> None:
        """Write the `last` snapshot, after a whole epoch the panel, and the resume state; an obeyed `stop` file goes.

        The state comes after all that belongs to its epoch: killed between them, a training does that epoch again.
        """
        random = gather_object([random_states()])
        self.check(
            [weight.abs().max().item() for weight in self.net.state_dict().values() if weight.numel()],
            "a weight",
        )
        if self.lead:
            self.snapshot("last")
            if panel and self.config.snapshot_every and (epoch + 1) % self.config.snapshot_every == 0:
                self.snapshot(f"epoch-{epoch + 1:03d}")
            if panel:
                write_panel(
                    self.net, self.manifest, self.config, self.run / "panels" / f"epoch-{epoch:03d}.png"
                )
            self.log.sync()
            self.progress.save(self.checkpoints, self.net, self.optimiser, random)
            self.folder.record(
                STAGE, seconds=round(time.perf_counter() - self.began, 1), stopped_at=stopped_at
            )
            if stopped_at:  # all processes have agreed
                (self.run / "stop").unlink(missing_ok=True)

    def snapshot(self, name: str) -> None:
        """Write the weights under a name, with the number of finished epochs."""
        if self.lead:
            epoch = self.progress.step // self.epoch_steps
            classes = [c.model_dump() for c in self.manifest.classes]
            save_snapshot(
                self.net,
                self.checkpoints / f"{name}.safetensors",
                classes,
                epoch=epoch,
                crop=self.config.crop,
            )

    def stop_requested(self) -> bool:
        """Whether the run's `stop` file is there; all processes agree on the answer."""
        if self.lead and stop_requested(self.run):
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def finish(self) -> None:
        """Close the log and record time and memory."""
        if self.lead:
            self.log.close()
            seconds = round(time.perf_counter() - self.began, 1)
            self.folder.record(
                STAGE,
                finished=True,
                seconds=seconds,
                peak_memory_mb=peak_memory_mb(),
                files=files_of(self.run),
            )


def open_run(config: TrainConfig, run: Path, manifest: Manifest, device: object) -> RunFolder:
    """The run's folder, locked for training; TrainingError where its training began on other lists of images."""
    settings = config.model_dump()
    begun = any(
        (run / "checkpoints").glob("*")
    )  # a start that failed before its first state binds nobody to its settings
    folder = RunFolder.open(
        run, settings, STAGE, str(device), FREE if begun else settings, TrainConfig().model_dump()
    )
    known, now = read_run(run)["stages"][STAGE].get("data", {}), manifest.checksums()
    changed = [
        name
        for name in ("classes.json", "train.csv", "val.csv")
        if known and known.get(name) != now.get(name)
    ]
    if changed and begun:
        folder.close()
        where = f"{', '.join(changed)} in {config.data} changed since run {run.name} began"
        raise TrainingError(f"{where}; choose another run name, or delete that run")
    folder.record(STAGE, data=now)
    return folder


def build_accelerator(config: TrainConfig) -> Accelerator:
    """The device, processes and threads of a run; `auto` takes CUDA, then MPS, then the CPU."""
    found = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not found[config.device]:
        raise TrainingError(
            f"device={config.device!r}, but PyTorch finds none on this machine; use device='auto'"
        )
    # `tiny`'s operations are too small to share: a second thread takes a core from the loaders and gains 13 %
    torch.set_num_threads(config.threads or (1 if config.backbone == "tiny" else THREADS))
    # unused parameters: FCA keeps norms that the published checkpoints hold and no forward pass calls
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
    # bf16 is ours to switch, by `precision`: a launcher's mixed precision must not change what run.json records
    accelerator = Accelerator(cpu=config.device == "cpu", mixed_precision="no", kwargs_handlers=[parallel])
    if config.device not in ("auto", accelerator.device.type):
        found = accelerator.device.type
        raise TrainingError(
            f"device={config.device!r}, but this process already works on {found!r}; restart it (or its kernel)"
        )
    return accelerator


def check_sizes(config: TrainConfig, train_images: int, val_images: int, processes: int) -> None:
    """Raise TrainingError where no whole batch, no validation or no equal share per process is possible."""
    if not train_images or not val_images:
        told = f"{train_images} training and {val_images} validation images"
        raise TrainingError(f"{config.data} has {told}; it needs some of both")
    if config.batch_size > train_images:
        raise TrainingError(
            f"batch_size={config.batch_size} is more than the {train_images} training images; lower it"
        )
    if config.batch_size % (processes * config.accumulate):
        parts = f"{processes} processes with accumulate={config.accumulate} parts each"
        raise TrainingError(
            f"batch_size={config.batch_size} does not split evenly over {parts}; use a multiple"
        )


@torch.no_grad()
def validate(job: Job, with_masks: bool) -> dict:
    """Validation loss (classification + mask) and mAP over centre crops. It reads tags, never masks."""
    job.net.eval()
    total, scores, truth = 0.0, [], []
    for images, tags, indices in job.val_batches:
        images, tags = images.to(job.device, memory_format=torch.channels_last), tags.to(job.device)
        with autocast(job.config, job.device):
            out = job.net(images)
        loss = sum(training_losses(out, images, tags, job.config, with_masks)).item()
        job.check([loss], "validation loss", [job.val_batches.dataset.paths[index] for index in indices])
        total += loss * len(images)
        scores.append(out.scores.cpu())
        truth.append(tags.cpu())
    job.net.train()
    scores, truth = torch.cat(scores), torch.cat(truth)
    return {
        "val_loss": total / len(scores),
        "val_map": float(mean_average_precision(scores.numpy(), truth.numpy())[1]),
    }


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
    return DataLoader(
        data, batch_sampler=remaining, num_workers=config.workers, pin_memory=pin, generator=torch.Generator()
    )


def next_batch(batches: Iterator) -> list[torch.Tensor]:
    """The next batch; DataError where a picture has gone bad since preparation, in a line, wherever it was read."""
    try:
        return next(batches)
    except DataError as error:
        told = str(error)
        if told.startswith("Caught "):  # by a worker, whose traceback the loader puts before the message
            told = told.rpartition("DataError: ")[2].strip()
        raise DataError(f"{told}; then give the same command again, it goes on") from None


def train_step(
    model, optimiser, images, tags, config: TrainConfig, factor: float, with_masks: bool, backward
) -> list[float]:
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
            found = training_losses(out, part, part_tags, config, with_masks)
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
        factor, with_masks = (
            lr_factor(progress.step, steps, config.lr_schedule),
            epoch >= config.warmup_epochs,
        )
        parts = train_step(
            job.model,
            job.optimiser,
            images,
            tags.to(job.device),
            config,
            factor,
            with_masks,
            job.accelerator.backward,
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
            line, told = (
                f"step {row['step']}: classification {row['classification_loss']:.4f}, mask {row['mask_loss']:.4f}",
                now,
            )
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
    parser.add_argument(
        "--settings", type=Path, help="JSON file of TrainConfig settings, for a folder without run.json"
    )
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
        raise RunError(
            f"{run} has no training yet: begin it in notebook 02, or give --settings with a JSON file"
        )
    return TrainConfig(**stage["settings"])


if __name__ == "__main__":
    main()
