"""Training: settings -> network, optimiser, data -> the loop over steps, with validations and snapshots.

`train` yields the rows of log.csv. Several GPUs: `accelerate launch -m wsfcn_lib.train data/runs/<name>`.
"""

import argparse
import importlib
import json
import math
import os
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from wsfcn_lib.backbones import freeze
from wsfcn_lib.checkpoints import Progress, origin_of, random_states, save_snapshot, snapshots
from wsfcn_lib.config import SUPERVISION, TIMM, TrainConfig
from wsfcn_lib.data.files import DataError, read_text
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.model_zoo import ARTEFACTS, initial_weights
from wsfcn_lib.data.training_set import MaskedTrainSet, TrainSet, epoch_batches, repeated_batches
from wsfcn_lib.metrics import mean_average_precision
from wsfcn_lib.modules import Align
from wsfcn_lib.network import build_network, unreachable_taps
from wsfcn_lib.runs.folder import WAYS_ON, RunFolder, other_run, read_run, stop_requested
from wsfcn_lib.runs.log import RATES, RunLog, show_progress
from wsfcn_lib.runs.paths import resolve_path, shell_path, use_utf8
from wsfcn_lib.runs.processes import (
    as_launched,
    explained_loaders,
    leave_others,
    started,
    usable_cores,
    without_launchers_training,
)
from wsfcn_lib.runs.provenance import files_of, peak_memory_mb
from wsfcn_lib.runs.run_diff import plain
from wsfcn_lib.runs.storage import RunError, checksum, make_folder
from wsfcn_lib.supervision import TrainingError, autocast, require_finite, training_losses
from wsfcn_lib.timm_trunk import HUB
from wsfcn_lib.weights import inherited_protocol, start_from

STAGE = "02_train"
# Settings that change no result or, as device and threads do, its last digits: a run may go on with others.
WITHOUT_EFFECT = ("device", "workers", "threads", "snapshot_every")
DEFAULT_THREADS = torch.get_num_threads()  # as PyTorch or its environment chose
FLOW_RATE = 0.01  # learning rate of SF2's flow under AdamW, over that of other new weights


def train(
    config: TrainConfig, run: Path | str, after_epoch: Callable[[nn.Module, int], None] | None = None
) -> Iterator[dict]:
    """Train one network in a run folder; yields each row of its log.csv as it is written.

    Everything is seeded before the network is built, and each sample draws from a generator of its own.
    Every `validate_every`-th epoch begins with a validation, and one follows the last; from the first epoch
    with mask loss on, a snapshot is kept when 1 - loss is at least the best so far, as published (1-stage-wseg:
    above it); `snapshots_kept` 0 keeps none of these, so that the last network is the one used. A file `stop` in the run folder ends training after the current step, and is then taken away; one that lies
    there before the first step counts, unless an earlier process left it. An interrupted run goes on where
    its last resume state was saved: at the end of an epoch, so a kill costs at most one.

    Args:
        config: the settings of the training (paper, section IV).
        run: the run folder, taken from the repository's root.
        after_epoch: called with the network and the epoch, counted from 0, in the first process after each
            epoch and before its resume state is saved: killed in between, a training does both again.

    Raises:
        TrainingError: settings that no training can have, or a loss or weight that is not finite.
        RunError: the run folder has other settings, another process works in it, or the system ended or
            refused a process that loads.
        DataError: an image cannot be read.
    """
    with explained_loaders():  # one that is ended interrupts this process wherever it is
        yield from _steps(config, run, after_epoch)


def _steps(
    config: TrainConfig, run: Path | str, after_epoch: Callable[[nn.Module, int], None] | None
) -> Iterator[dict]:
    """The rows of `train`."""
    run, began = resolve_path(run), time.perf_counter()
    accelerator = build_accelerator(config)
    device, leads = accelerator.device, accelerator.is_main_process  # the leading process alone writes

    # data
    manifest = Manifest.load(config.data)
    pictures = MaskedTrainSet if config.supervision == "masks" else TrainSet
    data = pictures(manifest, "train", config.crop, config.seed, rule=config.crop_rule)
    val_data = pictures(manifest, "val", config.crop, config.seed, augment=False)
    val_batches = DataLoader(val_data, config.batch_size)
    check_sizes(config, len(data), len(val_data), accelerator.num_processes)
    starts = epoch_starts(config, len(data))
    steps = starts[-1]

    # run folder
    if leads:
        folder = open_run(config, run, manifest, device)
        began -= read_run(run)["stages"][STAGE].get("seconds", 0)  # of earlier parts of this training
        folder.record(STAGE, stopped_at=None)
        origin = {"settings": plain(config.model_dump()), "data": manifest.checksums()}
    checkpoints = make_folder(run / "checkpoints")
    classes = [info.model_dump() for info in manifest.classes]
    protocol = inherited_protocol(config.initial_weights)

    def keep(name: str, epoch: int) -> None:
        facts = {"epoch": epoch, "step": progress.step, "crop": config.crop}
        facts |= config.model_dump(include=set(SUPERVISION))
        save_snapshot(net, checkpoints / f"{name}.safetensors", classes, **facts | protocol)

    # network and optimiser, as they begin or as the last resume state left them
    set_seed(config.seed)
    net = initial_network(config, [info.name for info in manifest.classes], accelerator)
    optimiser = build_optimiser(net, config)
    torch.manual_seed(
        config.seed + 1000 * accelerator.process_index
    )  # dropout and gate: a stream per process
    progress = Progress.restore(checkpoints, net, optimiser, accelerator.process_index)
    model = accelerator.prepare_model(net)
    if leads and progress.step == 0:
        folder.record(STAGE, initial_weights=file_of(config.initial_weights))
    batches = started(step_loader(data, config, accelerator, progress.step))
    log = RunLog(run, progress.step) if leads else None

    while True:
        epoch = bisect_right(starts, progress.step) - 1
        trained = progress.step == steps
        if trained or (progress.step == starts[epoch] and epoch % config.validate_every == 0):
            val_loss, val_map = validate(net, val_batches, config, epoch, checkpoints)
            score = 1 - val_loss
            better = score > progress.best if config.is_ancestor else score >= progress.best
            if config.snapshots_kept and epoch >= config.warmup_epochs and better:
                progress.best = score
                if leads:
                    keep(f"e{epoch:03d}Xs{score:.3f}", epoch)
                    for old in snapshots(checkpoints)[: -config.snapshots_kept]:
                        old.unlink()
            row = {"epoch": epoch, "step": progress.step, "val_loss": val_loss, "val_map": val_map}
            yield log.write(row) if leads else row
        if trained:
            break

        start = time.perf_counter()
        images, tags, indices, *truth = next_batch(batches)
        waited = time.perf_counter() - start
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        tags = tags.to(device)
        truth = truth[0].to(device) if truth else None
        factor = lr_factor(progress.step, steps, config.lr_schedule)
        with_masks = epoch >= config.warmup_epochs
        losses = train_step(
            model, optimiser, images, tags, config, factor, with_masks, accelerator.backward, truth
        )
        paths = [data.paths[index] for index in indices]
        require_finite(losses, f"the loss of step {progress.step + 1}", paths, checkpoints)
        progress.add(*losses, time.perf_counter() - start, waited)

        stop = all_stop(accelerator, run)
        epoch_ends = progress.step in starts
        if epoch_ends or progress.step % config.log_every == 0:
            row = {"epoch": epoch, "step": progress.step}
            row |= mean_losses(progress, accelerator, config.batch_size)
            row |= {name: group["lr"] for name, group in zip(RATES, optimiser.param_groups)}
            yield log.write(row) if leads else row

        if epoch_ends or stop:
            # the resume state comes after all else of its epoch: killed before it, a training does that again
            largest = [weight.abs().max().item() for weight in net.state_dict().values() if weight.numel()]
            require_finite(largest, f"a weight after step {progress.step}", (), checkpoints)
            names = ["last"]
            if epoch_ends and config.snapshot_every and (epoch + 1) % config.snapshot_every == 0:
                names.append(f"epoch-{epoch + 1:03d}")
            finished_epochs = bisect_right(starts, progress.step) - 1
            if leads:
                for name in names:
                    keep(name, finished_epochs)
            if leads and epoch_ends and after_epoch:
                after_epoch(net, epoch)
            processes = gather_object([(random_states(), progress.sums)])
            if leads:
                log.sync()
                progress.save(checkpoints, net, optimiser, processes, origin)
                seconds = round(time.perf_counter() - began, 1)
                folder.record(STAGE, seconds=seconds, stopped_at=progress.step if stop else None)
        if stop:  # all processes have agreed
            if leads:
                (run / "stop").unlink(missing_ok=True)
            return

    if leads:
        log.close()
        seconds = round(time.perf_counter() - began, 1)
        folder.record(
            STAGE, finished=True, seconds=seconds, peak_memory_mb=peak_memory_mb(), files=files_of(run)
        )


def epoch_starts(config: TrainConfig, images: int) -> list[int]:
    """The step before which each epoch begins, and the number of all steps as the last."""
    if config.steps:
        return [round(epoch * config.steps / config.epochs) for epoch in range(config.epochs + 1)]
    epoch_steps = images // config.batch_size
    return [epoch * epoch_steps for epoch in range(config.epochs + 1)]


def initial_network(config: TrainConfig, classes: list[str], accelerator: Accelerator) -> nn.Module:
    """The network as a training begins, on its device; prints what a user should know of it."""
    net, lines = starting_network(config, classes)
    if accelerator.is_main_process:
        for line in lines:
            print(line)
    # outer taps see only padding in the paper's own setting too; a branch of which all do is a mistake
    for kernel, dilation, offsets in unreachable_taps(net, config.crop):
        if len(offsets) == kernel // 2 and accelerator.is_main_process:
            print(
                f"WARNING: of kernel {kernel}, dilation {dilation}, all taps but the middle see only padding; "
                "lower the dilation or raise the crop"
            )
    if config.batch_norm == "synchronised" and accelerator.num_processes > 1:
        synchronise_norms(net, accelerator.device)
    return net.to(accelerator.device, memory_format=torch.channels_last).train()


def starting_network(config: TrainConfig, classes: Sequence[str]) -> tuple[nn.Module, list[str]]:
    """The network as a training begins, random but for its initial weights, and lines on where it begins.

    `classes`: names of the foreground classes. Raises what `start_from` raises.
    """
    net = trainable_network(config, 1 + len(classes))
    if config.initial_weights:
        return net, start_from(net, config.initial_weights, classes)
    if config.backbone == "tiny":
        return net, []
    named = config.backbone.removeprefix("timm:tf_").removeprefix(TIMM)
    advice = named if named in ARTEFACTS else "a file, or hub for those that timm fetches"
    return net, [
        f"{config.backbone} starts from random weights, which seldom learn from photographs; set initial_weights "
        f"to {advice}"
    ]


def trainable_network(config: TrainConfig, num_classes: int) -> nn.Module:
    """The network of a training, with what `config.frozen` names taken out of training."""
    net = build_network(config.network(num_classes))
    if config.frozen == "backbone":
        freeze(net.backbone)
    if config.frozen == "depthwise":
        for module in net.backbone.modules():
            if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
                freeze(module)
    return net


def build_accelerator(config: TrainConfig) -> Accelerator:
    """The device, processes and threads of a run; `auto` takes CUDA, then MPS, then the CPU."""
    available = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[config.device]:
        raise TrainingError(
            f"device={config.device!r}, but PyTorch finds none on this machine; use device='auto'"
        )
    # `tiny`'s operations are too small to share: a second thread takes a core from the loaders and gains 13 %
    usual_threads = 1 if config.backbone == "tiny" else DEFAULT_THREADS
    torch.set_num_threads(config.threads or usual_threads)
    # unused parameters: FCA keeps norms that the published checkpoints hold and no forward pass calls
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
    # precision and parts of a batch are the settings' alone, as run.json records them
    with without_launchers_training(), as_launched():
        accelerator = Accelerator(
            cpu=config.device == "cpu", mixed_precision="no", kwargs_handlers=[parallel]
        )
    device = accelerator.device.type
    if config.device not in ("auto", device):
        raise TrainingError(
            f"device={config.device!r}, but this process already works on {device!r}; "
            "restart it (or its kernel)"
        )
    return accelerator


def check_sizes(config: TrainConfig, train_images: int, val_images: int, processes: int) -> None:
    """Raise TrainingError where no whole batch, no validation or no equal share per process is possible."""
    if not train_images or not val_images:
        raise TrainingError(
            f"{config.data} has {train_images} training and {val_images} validation images; "
            "it needs some of both"
        )
    if config.batch_size > train_images:
        raise TrainingError(
            f"batch_size={config.batch_size} is more than the {train_images} training images; lower it"
        )
    if config.batch_size % (processes * config.accumulate):
        parts = f"{processes} processes with accumulate={config.accumulate} parts each"
        raise TrainingError(
            f"batch_size={config.batch_size} does not split evenly over {parts}; use a multiple"
        )


def open_run(config: TrainConfig, run: Path, manifest: Manifest, device: object) -> RunFolder:
    """The run's folder, locked for training; RunError where its training began with other settings or lists."""
    settings = config.model_dump()
    # a start that failed before its first checkpoint binds nobody to its settings
    begun = any((run / "checkpoints").glob("*"))
    ignore = WITHOUT_EFFECT if begun else settings
    recorded = (run / "run.json").exists() and "settings" in read_run(run)["stages"].get(STAGE, {})
    origin = origin_of(run / "checkpoints")  # which outlives a run.json that is lost or edited
    if begun and not recorded and not origin:
        raise RunError(
            f"run {run.name} has checkpoints, and no record of the settings they came from\n{WAYS_ON}"
        )
    changed = []
    for name, before in origin.get("settings", {}).items():
        now = plain(settings).get(name, "(absent)")
        if name not in WITHOUT_EFFECT and now != before:
            changed.append(f"{name} {before!r} → {now!r}")
    if changed:
        raise other_run(run.name, f"settings in its checkpoints: {', '.join(changed)}")
    folder = RunFolder.open(
        run, settings, STAGE, str(device), ignore=ignore, defaults=TrainConfig().model_dump()
    )
    before, now = read_run(run)["stages"][STAGE].get("data") or origin.get("data"), manifest.checksums()
    if begun and before:
        lists = ("classes.json", "train.csv", "val.csv")
        changed = [name for name in lists if before.get(name) != now.get(name)]
        if changed:
            folder.close()
            raise other_run(run.name, f"lists in {config.data}: {', '.join(changed)} changed since it began")
    folder.record(STAGE, data=now)
    return folder


def file_of(weights: str) -> dict[str, str] | None:
    """The name and the checksum of the file behind `initial_weights`; None where no file is."""
    if weights in ("", HUB):
        return None
    path = initial_weights(weights)
    return {"file": path.name, "sha256": checksum(path)}


def synchronise_norms(net: nn.Module, device: torch.device) -> None:
    """Let norms that train take their statistics over all processes; those with stored statistics stay."""
    if device.type != "cuda":
        raise TrainingError(
            f"batch_norm='synchronised' needs GPUs: on several {device.type} processes no norm shares its "
            "statistics; use batch_norm='process', or one process"
        )
    for parent in list(net.modules()):
        for name, norm in parent.named_children():
            if type(norm) is nn.BatchNorm2d:
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(norm))


def build_optimiser(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 over the four parameter groups, as published; or AdamW, over five with SF2.

    AdamW takes steps of one size however small the gradient, and nothing in the losses holds SF2's flow in
    place: at its full rate it grew until the masks lay beside the objects. So there it forms a fifth group,
    at FLOW_RATE.
    """
    groups = net.parameter_groups(config.lr, config.weight_decay, config.lr_multipliers)
    flow = {id(module.flow.weight) for module in net.modules() if isinstance(module, Align)}
    if config.optimiser == "adamw" and flow:
        new_weights = groups[2]
        groups.append(
            new_weights
            | {
                "params": [p for p in new_weights["params"] if id(p) in flow],
                "lr": FLOW_RATE * new_weights["lr"],
            }
        )
        new_weights["params"] = [p for p in new_weights["params"] if id(p) not in flow]
    for group in groups:
        group["base_lr"] = group["lr"]
    if config.optimiser == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    return torch.optim.SGD(groups, momentum=0.9)


def step_loader(data: TrainSet, config: TrainConfig, accelerator: Accelerator, start: int) -> DataLoader:
    """All batches from step `start` to the last; each process loads its share of every global batch."""
    if config.steps:
        batches = repeated_batches(len(data), config.batch_size, config.seed, config.steps)
    else:
        batches = []
        for epoch in range(config.epochs):
            for batch in epoch_batches(len(data), config.batch_size, config.seed, epoch):
                batches.append([(epoch, index) for index in batch])
    shares = [batch[accelerator.process_index :: accelerator.num_processes] for batch in batches[start:]]
    return DataLoader(
        data,
        batch_sampler=shares,
        num_workers=min(config.workers, usable_cores()),  # of more, PyTorch warns
        pin_memory=accelerator.device.type == "cuda",
        # an own generator: the loader's seed must not come out of the stream that dropout and gate draw from
        generator=torch.Generator(),
    )


def next_batch(batches: Iterator) -> list[Tensor]:
    """The next batch; DataError, in a line, where a picture has gone bad since preparation.

    RunError as `explained_loaders`.
    """
    try:
        with explained_loaders():
            return next(batches)
    except DataError as error:
        # a worker's traceback comes before the message
        message = str(error).rpartition("DataError: ")[2].strip()
        raise DataError(f"{message}; then run the same command again; it goes on") from None


def lr_factor(step: int, steps: int, schedule: str) -> float:
    """Learning rate of a step over its group's base: constant as published, or half a cosine from 1 to 0."""
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def train_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    tags: Tensor,
    config: TrainConfig,
    factor: float,
    with_masks: bool,
    backward: Callable[[Tensor], None],
    truth: Tensor | None = None,
) -> list[float]:
    """One update of the weights; returns classification and mask loss of this process's share of the batch.

    The share is computed in `config.accumulate` parts of equal size, whose gradients are averaged; several
    processes exchange them once, with the last part. Norms that train take their statistics from a part.

    Args:
        model: the network, or what wraps it for several processes.
        optimiser: as `build_optimiser` makes it.
        images: (B, 3, H, W), ImageNet-normalised.
        tags: (B, K-1) in {0, 1}.
        config: the settings of the training.
        factor: learning rate over its base, see `lr_factor`.
        with_masks: whether the mask loss takes part; not in the warm-up.
        backward: computes the gradients of a loss.
        truth: (B, H, W) uint8 true labels, where the masks are supervised.
    """
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor
    optimiser.zero_grad(set_to_none=True)
    means, parts = [0.0, 0.0], config.accumulate
    truths = [None] * parts if truth is None else truth.chunk(parts)
    shares = zip(images.chunk(parts), tags.chunk(parts), truths)
    for number, (part, part_tags, part_truth) in enumerate(shares, start=1):
        exchange = nullcontext()
        if number < parts and hasattr(model, "no_sync"):  # of the wrapper for several processes
            exchange = model.no_sync()
        with exchange:
            with autocast(config, images.device):
                out = model(part)
            losses = training_losses(out, part, part_tags, config, with_masks, part_truth)
            backward(sum(losses) / parts)
        means = [mean + loss.item() / parts for mean, loss in zip(means, losses)]
    optimiser.step()
    return means


@torch.no_grad()
def validate(
    net: nn.Module, batches: DataLoader, config: TrainConfig, epoch: int, checkpoints: Path
) -> tuple[float, float]:
    """Validation loss (classification + mask) and mAP over centre crops, before an epoch.

    It reads tags, and masks only where they are what the network learns from. The validation after the last epoch takes the losses that this one was
    trained with.
    """
    device = next(net.parameters()).device
    with_masks = min(epoch, config.epochs - 1) >= config.warmup_epochs
    net.eval()
    total, all_scores, all_tags = 0.0, [], []
    for images, tags, indices, *truth in batches:
        truth = truth[0].to(device) if truth else None
        images, tags = images.to(device, memory_format=torch.channels_last), tags.to(device)
        with autocast(config, device):
            out = net(images)
        loss = sum(training_losses(out, images, tags, config, with_masks, truth)).item()
        paths = [batches.dataset.paths[index] for index in indices]
        require_finite([loss], f"the validation loss before epoch {epoch}", paths, checkpoints)
        total += loss * len(images)
        all_scores.append(out.scores.cpu())
        all_tags.append(tags.cpu())
    net.train()
    _, mean_ap = mean_average_precision(torch.cat(all_scores).numpy(), torch.cat(all_tags).numpy())
    return total / len(batches.dataset), float(mean_ap)


def mean_losses(progress: Progress, accelerator: Accelerator, batch_size: int) -> dict[str, float]:
    """Mean losses since the last row of the log, over all processes, and the speed; the sums start anew."""
    classification, mask, seconds, waited = progress.sums
    means = torch.tensor([classification, mask], device=accelerator.device) / progress.count
    classification, mask = accelerator.reduce(means, "mean").tolist()
    images = progress.count * batch_size
    progress.start_sums()
    return {
        "classification_loss": classification,
        "mask_loss": mask,
        "images_per_second": images / seconds,
        "stall": waited / seconds,
    }


def all_stop(accelerator: Accelerator, run: Path) -> bool:
    """Whether the run's `stop` file is there; all processes agree on the answer."""
    if accelerator.is_main_process and stop_requested(run):
        accelerator.set_trigger()
    return accelerator.check_trigger()


def main() -> None:
    """Run or continue the training of a run folder, as accelerate starts it."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m wsfcn_lib.train", description=main.__doc__)
    parser.add_argument("run", help="run folder, such as data/runs/demo")
    parser.add_argument("--settings", help="JSON file of TrainConfig settings, for a folder without run.json")
    arguments = parser.parse_args()
    # by name: the method draws and measures nothing itself, so no file of it imports the rooms that do
    panels = importlib.import_module("wsfcn_lib.plots.training_panels")
    profiling = importlib.import_module("wsfcn_lib.evaluation.profiling")
    try:
        run = shell_path(arguments.run)
        config = settings_of(run, arguments.settings)
        rows = train(config, run, panels.panel_writer(config, run))
        if os.environ.get("RANK", "0") == "0":
            for line in profiling.doubts(config, Manifest.load(config.data)):
                print(f"NOTE: {line}", flush=True)
            rows = show_progress(rows, config.epochs)
        for _ in rows:
            pass
    except (OSError, ValueError, RunError, TrainingError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    leave_others()


def settings_of(run: Path, file: str | None) -> TrainConfig:
    """The settings in a JSON file, or else those that notebook 02 recorded in the run's run.json."""
    if file:
        try:
            given = json.loads(read_text(shell_path(file)))
        except json.JSONDecodeError as error:
            raise ValueError(
                f'{file} is no JSON ({error}); write an object such as {{"epochs": 20}}'
            ) from None
        if not isinstance(given, dict):
            raise ValueError(
                f'{file} holds a {type(given).__name__}; write an object such as {{"epochs": 20}}'
            )
        return TrainConfig(**given)
    stage = read_run(run)["stages"].get(STAGE)
    if not stage:
        raise RunError(
            f"{run} has no training yet: begin it in notebook 02, or give --settings with a JSON file"
        )
    return TrainConfig(**stage["settings"])


if __name__ == "__main__":
    use_utf8()
    main()
