"""What a variant costs, to be seen beside what it brings: parameters, FLOPs, time and memory of a training step."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.training_set import TrainSet
from wsfcn_lib.network import build_network
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import peak_memory_mb
from wsfcn_lib.runs.storage import require_space
from wsfcn_lib.supervision import TrainingError
from wsfcn_lib.train import build_accelerator, build_optimiser, train_step


def cost(config: TrainConfig, num_classes: int, steps: int = 3) -> dict[str, float]:
    """Measure a network of these settings on noise; random states stay as they are.

    Returns:
        parameters; gflops: 10^9 operations of convolutions and products (a multiplication and an addition count 2) of one
        crop going forward; step_ms: median time of `steps` training steps with mask loss on one batch of one class, PAMR
        included; activations_mb: what such a step holds for its way back, the weights included, the same on any machine.
    """
    device, kept, times = build_accelerator(config).device, {}, []
    with torch.random.fork_rng():
        net = build_network(config.network(num_classes)).to(device, memory_format=torch.channels_last)
        size, config = (
            config.batch_size // config.accumulate,
            config.model_copy(update={"accumulate": 1}),
        )  # one part of a batch
        images = torch.randn(size, 3, config.crop, config.crop, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        tags = torch.eye(num_classes - 1, device=device)[:1].expand(size, -1)
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            net.eval()(images[:1])
        optimiser = build_optimiser(net.train(), config)
        given = net, optimiser, images, tags, config, 1.0, True, torch.Tensor.backward
        with saved_tensors_hooks(
            lambda x: kept.update({x.untyped_storage().data_ptr(): x.untyped_storage()}) or x, lambda x: x
        ):
            train_step(*given)  # it warms up too: libraries choose their kernels
        for _ in range(steps):
            began = time.perf_counter()
            train_step(*given)  # it reads its losses, so a GPU has finished too
            times.append(time.perf_counter() - began)
    out = {"parameters": sum(p.numel() for p in net.parameters()), "gflops": flops.get_total_flops() / 1e9}
    held = sum(storage.nbytes() for storage in kept.values())
    return out | {"step_ms": 1000 * sorted(times)[len(times) // 2], "activations_mb": held / 1e6}


PANEL_BYTES, LOG_BYTES = 400_000, 5_000_000  # a picture panel; log.csv and TensorBoard's events


@dataclass(frozen=True)
class Estimate:
    """What a training will take: seconds in all and of a step without and with mask loss, memory and disk in MB."""

    seconds: float
    warmup_step: float
    full_step: float
    memory_mb: float
    disk_mb: float


def preflight(config: TrainConfig, run: Path | str) -> Estimate:
    """Measure one step of either kind on a network of its own, and reckon with the whole training.

    Random states stay as they are and nothing is written. Memory is this process's peak so far, or the GPU's of these
    steps. Raises TrainingError where the device has not enough memory, RunError where the run's disk has not enough room.
    """
    device, manifest = build_accelerator(config).device, Manifest.load(ROOT / config.data)
    data, vals = TrainSet(manifest, "train", config.crop, config.seed), len(manifest.samples("val"))
    with torch.random.fork_rng():
        try:
            loading, steps, net, optimiser = _measure(config, data, manifest.num_classes, device)
        except torch.OutOfMemoryError:
            advice = f"lower batch_size={config.batch_size} or crop={config.crop}, or set precision='bf16'"
            raise TrainingError(f"{device} has not enough memory for one training step: {advice}") from None
    loading, checks = loading / max(1, config.workers), 1 + -(-config.epochs // config.validate_every)
    warmup, full = (max(step, loading) if config.workers else step + loading for step in steps)
    epochs = config.warmup_epochs * warmup + (config.epochs - config.warmup_epochs) * full
    seconds = epochs * (len(data) // config.batch_size) + checks * vals / config.batch_size * (
        loading + full / 3
    )
    weights = sum(t.numel() * t.element_size() for t in net.state_dict().values())
    moments = sum(t.numel() * t.element_size() for state in optimiser.state.values() for t in state.values())
    snapshots = (
        min(config.snapshots_kept, checks)
        + 1
        + (config.epochs // config.snapshot_every if config.snapshot_every else 0)
    )
    disk = (
        snapshots * weights + 3 * (weights + moments) + config.epochs * PANEL_BYTES + LOG_BYTES
    )  # two states, one being written
    require_space(run, disk)
    memory = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_memory_mb()
    return Estimate(seconds, warmup, full, memory, disk / 1e6)


def _measure(config: TrainConfig, data: TrainSet, num_classes: int, device: torch.device):
    """Seconds to load a batch, seconds of a step without and with mask loss, and the network and optimiser that made them."""
    net = build_network(config.network(num_classes)).to(device, memory_format=torch.channels_last).train()
    optimiser = build_optimiser(net, config)
    began = time.perf_counter()
    images, tags, _ = default_collate([data[0, index % len(data)] for index in range(config.batch_size)])
    loading, times = time.perf_counter() - began, []
    images, tags = images.to(device, memory_format=torch.channels_last), tags.to(device)
    for with_masks in (True, False, True):  # the first one warms up: libraries choose their kernels
        began = time.perf_counter()
        train_step(
            net, optimiser, images, tags, config, 1.0, with_masks, torch.Tensor.backward
        )  # its .item() waits for the device
        times.append(time.perf_counter() - began)  # train_step reads its losses, so a GPU has finished too
    return loading, times[1:], net, optimiser
