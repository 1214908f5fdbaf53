"""What a training works with and leaves behind; the loop itself stands in train.py."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object, set_seed
from torch.utils.data import DataLoader

from wsfcn_lib.checkpoints import Progress, random_states, save_snapshot, snapshots
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.transforms import TrainSet
from wsfcn_lib.log import RATES, RunLog
from wsfcn_lib.metrics import mean_average_precision
from wsfcn_lib.network import build_network, unreachable_taps
from wsfcn_lib.objective import TrainingError, autocast, losses, require_finite
from wsfcn_lib.optimiser import build_optimiser
from wsfcn_lib.panels import write_panel
from wsfcn_lib.runs import ROOT, RunFolder, files_of, peak_memory_mb, read_run, stop_requested
from wsfcn_lib.storage import make_folder
from wsfcn_lib.syncnorm import synchronise
from wsfcn_lib.weights import initial_weights, load_published

STAGE = "02_train"
FREE = ("device", "workers", "threads", "snapshot_every")  # change no result, or, as devices and threads do, its last digits
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
            print(f"WARNING: taps (kernel, dilation, offsets) {taps} see only padding; lower the dilations or raise the crop")
        if config.batch_norm == "synchronised":
            synchronise(self.net, self.accelerator)
        self.net.to(self.device, memory_format=torch.channels_last).train()
        self.optimiser = build_optimiser(self.net, config)
        torch.manual_seed(config.seed + 1000 * self.accelerator.process_index)  # dropout and gate: a stream per process
        self.progress = Progress.restore(self.checkpoints, self.net, self.optimiser, self.accelerator.process_index)
        self.log = RunLog(run, self.progress.step) if self.lead else None
        self.model = self.accelerator.prepare_model(self.net)

    def check(self, numbers: Sequence[float], what: str, pictures: Sequence[Path] = ()) -> None:
        """TrainingError where a number is not finite, before anything is saved; `pictures` are those of the step under way."""
        require_finite(numbers, what, self.progress.step + bool(pictures), pictures, self.checkpoints / "last.safetensors")

    def judge(self, epoch: int) -> dict:
        """Validate before `epoch`, keep a snapshot where it is the best so far, and log the row."""
        trained = min(epoch, self.config.epochs - 1)  # after the last epoch: the losses that this one was trained with
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
        row = {"epoch": epoch, "step": self.progress.step, "classification_loss": means[0], "mask_loss": means[1]}
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
        self.check([weight.abs().max().item() for weight in self.net.state_dict().values() if weight.numel()], "a weight")
        if self.lead:
            self.snapshot("last")
            if panel and self.config.snapshot_every and (epoch + 1) % self.config.snapshot_every == 0:
                self.snapshot(f"epoch-{epoch + 1:03d}")
            if panel:
                write_panel(self.net, self.manifest, self.config, self.run / "panels" / f"epoch-{epoch:03d}.png")
            self.log.sync()
            self.progress.save(self.checkpoints, self.net, self.optimiser, random)
            self.folder.record(STAGE, seconds=round(time.perf_counter() - self.began, 1), stopped_at=stopped_at)
            if stopped_at:  # all processes have agreed
                (self.run / "stop").unlink(missing_ok=True)

    def snapshot(self, name: str) -> None:
        """Write the weights under a name, with the number of finished epochs."""
        if self.lead:
            epoch = self.progress.step // self.epoch_steps
            classes = [c.model_dump() for c in self.manifest.classes]
            save_snapshot(self.net, self.checkpoints / f"{name}.safetensors", classes, epoch=epoch, crop=self.config.crop)

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
            self.folder.record(STAGE, finished=True, seconds=seconds, peak_memory_mb=peak_memory_mb(), files=files_of(self.run))


def open_run(config: TrainConfig, run: Path, manifest: Manifest, device: object) -> RunFolder:
    """The run's folder, locked for training; TrainingError where its training began on other lists of images."""
    settings = config.model_dump()
    begun = any((run / "checkpoints").glob("*"))  # a start that failed before its first state binds nobody to its settings
    folder = RunFolder.open(run, settings, STAGE, str(device), FREE if begun else settings, TrainConfig().model_dump())
    known, now = read_run(run)["stages"][STAGE].get("data", {}), manifest.checksums()
    changed = [name for name in ("classes.json", "train.csv", "val.csv") if known and known.get(name) != now.get(name)]
    if changed and begun:
        folder.close()
        where = f"{', '.join(changed)} in {config.data} changed since run {run.name} began"
        raise TrainingError(f"{where}; choose another run name, or delete that run")
    folder.record(STAGE, data=now)
    return folder


def build_accelerator(config: TrainConfig) -> Accelerator:
    """The device, processes and threads of a run; `auto` takes CUDA, then MPS, then the CPU."""
    found = {"auto": True, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not found[config.device]:
        raise TrainingError(f"device={config.device!r}, but PyTorch finds none on this machine; use device='auto'")
    # `tiny`'s operations are too small to share: a second thread takes a core from the loaders and gains 13 %
    torch.set_num_threads(config.threads or (1 if config.backbone == "tiny" else THREADS))
    # unused parameters: FCA keeps norms that the published checkpoints hold and no forward pass calls
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
    # bf16 is ours to switch, by `precision`: a launcher's mixed precision must not change what run.json records
    accelerator = Accelerator(cpu=config.device == "cpu", mixed_precision="no", kwargs_handlers=[parallel])
    if config.device not in ("auto", accelerator.device.type):
        found = accelerator.device.type
        raise TrainingError(f"device={config.device!r}, but this process already works on {found!r}; restart it (or its kernel)")
    return accelerator


def check_sizes(config: TrainConfig, train_images: int, val_images: int, processes: int) -> None:
    """Raise TrainingError where no whole batch, no validation or no equal share per process is possible."""
    if not train_images or not val_images:
        told = f"{train_images} training and {val_images} validation images"
        raise TrainingError(f"{config.data} has {told}; it needs some of both")
    if config.batch_size > train_images:
        raise TrainingError(f"batch_size={config.batch_size} is more than the {train_images} training images; lower it")
    if config.batch_size % (processes * config.accumulate):
        parts = f"{processes} processes with accumulate={config.accumulate} parts each"
        raise TrainingError(f"batch_size={config.batch_size} does not split evenly over {parts}; use a multiple")


@torch.no_grad()
def validate(job: Job, with_masks: bool) -> dict:
    """Validation loss (classification + mask) and mAP over centre crops. It reads tags, never masks."""
    job.net.eval()
    total, scores, truth = 0.0, [], []
    for images, tags, indices in job.val_batches:
        images, tags = images.to(job.device, memory_format=torch.channels_last), tags.to(job.device)
        with autocast(job.config, job.device):
            out = job.net(images)
        loss = sum(losses(out, images, tags, job.config, with_masks)).item()
        job.check([loss], "validation loss", [job.val_batches.dataset.paths[index] for index in indices])
        total += loss * len(images)
        scores.append(out.scores.cpu())
        truth.append(tags.cpu())
    job.net.train()
    scores, truth = torch.cat(scores), torch.cat(truth)
    return {"val_loss": total / len(scores), "val_map": float(mean_average_precision(scores.numpy(), truth.numpy())[1])}
