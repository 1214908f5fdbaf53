"""What training costs, measured on a few steps: a whole training in advance, and a variant."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

from wsfcn_lib.checkpoints import facts_of
from wsfcn_lib.config import TIMM, TrainConfig
from wsfcn_lib.data.listing import DatasetListing
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.model_zoo import SHIPPED
from wsfcn_lib.data.remarks import untaught
from wsfcn_lib.data.training_set import TrainSet
from wsfcn_lib.evaluation.schedules import EPOCHS, SCHEDULES, counted, measured
from wsfcn_lib.runs.provenance import peak_memory_mb
from wsfcn_lib.runs.storage import require_space
from wsfcn_lib.supervision import TrainingError
from wsfcn_lib.train import build_accelerator, build_optimiser, epoch_starts, train_step, trainable_network

PANEL_BYTES = 400_000  # a picture panel
LOG_BYTES = 5_000_000  # log.csv and TensorBoard's events


def trial(config: TrainConfig, num_classes: int, images: Tensor, tags: Tensor) -> tuple:
    """A network, its optimiser, and a function that makes a step on one batch and returns its seconds."""
    images = images.contiguous(memory_format=torch.channels_last)
    net = trainable_network(config, num_classes)
    net.to(images.device, memory_format=torch.channels_last).train()
    optimiser = build_optimiser(net, config)

    def step(with_masks: bool) -> float:
        began = time.perf_counter()
        # it reads its losses, so a GPU has finished too
        train_step(net, optimiser, images, tags, config, 1.0, with_masks, Tensor.backward)
        return time.perf_counter() - began

    return net, optimiser, step


def cost(config: TrainConfig, num_classes: int, steps: int = 3) -> dict[str, float]:
    """Measure a network of these settings on noise; random states stay as they are.

    Returns:
        parameters; gflops: 10^9 operations of convolutions and products (a multiplication and an addition
        count 2) of one crop going forward; step_ms: median time of `steps` training steps with mask loss on
        one batch of one class, PAMR included; activations_mb: what such a step holds for its way back, the
        weights included, the same on any machine.
    """
    device = build_accelerator(config).device
    size = config.batch_size // config.accumulate  # of the part of a batch that is computed at once
    config = config.model_copy(update={"accumulate": 1})
    held = {}

    def hold(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage
        return tensor

    with torch.random.fork_rng():
        images = torch.randn(size, 3, config.crop, config.crop, device=device)
        tags = torch.eye(num_classes - 1, device=device)[:1].expand(size, -1)
        net, _, step = trial(config, num_classes, images, tags)
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            net.eval()(images[:1])
        net.train()
        with saved_tensors_hooks(hold, lambda tensor: tensor):
            step(with_masks=True)  # it warms up too: libraries choose their kernels
        times = [step(with_masks=True) for _ in range(steps)]
    return {
        "parameters": sum(weight.numel() for weight in net.parameters()),
        "gflops": flops.get_total_flops() / 1e9,
        "step_ms": 1000 * sorted(times)[len(times) // 2],
        "activations_mb": sum(storage.nbytes() for storage in held.values()) / 1e6,
    }


DAYS = 2 * 24 * 3600  # seconds, from which on a person thinks of a GPU
FEW_STEPS = 300
FEW_PICTURES = 10  # of a class
VOC_STEPS = EPOCHS * (SCHEDULES["VOC"][0] // 16)  # of the published schedule: epochs of whole batches


@dataclass(frozen=True)
class Estimate:
    """Seconds of a training, and of a step without and with mask loss; MB of memory and disk; and warnings."""

    seconds: float
    warmup_step: float
    full_step: float
    memory_mb: float
    disk_mb: float
    length: str  # steps, beside those of trainings that are known
    notes: list[str]  # what may keep this training from learning, a line each
    schedules: list[str]  # on a GPU, or where this takes days: what the published schedules take, a line each


def preflight(config: TrainConfig, run: Path | str) -> Estimate:
    """Measure one step of either kind on a network of its own, and reckon with the whole training.

    Random states stay as they are and nothing is written. Memory is this process's peak so far, or the
    GPU's of these steps. Raises TrainingError where the device has not enough memory, RunError where the
    run's disk has not enough room.
    """
    device = build_accelerator(config).device
    manifest = Manifest.load(config.data)
    data = TrainSet(manifest, "train", config.crop, config.seed, rule=config.crop_rule)
    with torch.random.fork_rng():
        try:
            loading, warmup_step, full_step, disk = measure(config, data, manifest.num_classes, device)
        except torch.OutOfMemoryError:
            advice = f"lower batch_size={config.batch_size} or crop={config.crop}, or set precision='bf16'"
            raise TrainingError(f"{device} has not enough memory for one training step: {advice}") from None
    require_space(run, disk)
    memory_mb = peak_memory_mb()
    if device.type == "cuda":
        memory_mb = torch.cuda.max_memory_allocated(device) / 1e6
    if config.workers:  # they load while the network works
        loading /= config.workers
        warmup_step, full_step = max(warmup_step, loading), max(full_step, loading)
    else:
        warmup_step, full_step = warmup_step + loading, full_step + loading
    starts = epoch_starts(config, len(data))
    warmup_steps, steps = starts[config.warmup_epochs], starts[-1]
    seconds = warmup_steps * warmup_step + (steps - warmup_steps) * full_step
    val_batches = len(manifest.samples("val")) / config.batch_size
    seconds += validations(config) * val_batches * (loading + full_step / 3)
    notes = doubts(config, manifest)
    if config.precision == "bf16" and device.type == "cpu" and (factor := bf16_slowdown()) > 1.5:
        notes.append(
            f"this processor computes bf16 {factor:.0f} times as slowly as fp32: set precision to fp32"
        )
    length = f"{steps:,} steps; {known_lengths()}"
    schedules = []
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        schedules = [measured(config, full_step, memory_mb, name)]
    elif seconds > DAYS and not config.backbone.startswith(TIMM):
        schedules = counted(config)
    return Estimate(seconds, warmup_step, full_step, memory_mb, disk / 1e6, length, notes, schedules)


def known_lengths() -> str:
    """In words, how many steps trainings had whose results are known."""
    voc = f"VOC's schedule has {VOC_STEPS:,}"
    shipped = facts_of(SHIPPED).get("step")
    return f"the network that ships had {shipped:,}, and {voc}" if shipped else voc


def bf16_slowdown() -> float:
    """How many times as long as in fp32 a product of matrices takes in bf16, on the CPU."""
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(512, 512, dtype=dtype)
        tries = []
        for _ in range(4):
            began = time.perf_counter()
            matrix @ matrix
            tries.append(time.perf_counter() - began)
        times[dtype] = min(tries)
    return times[torch.bfloat16] / times[torch.float32]


def doubts(config: TrainConfig, manifest: Manifest) -> list[str]:
    """Lines on a training that is likely to learn little: too short, or of classes that the data do not teach."""
    samples = {split: manifest.samples(split) for split in manifest.splits}
    images = len(samples["train"])
    steps = epoch_starts(config, images)[-1]
    lines = untaught(DatasetListing(manifest.classes, samples), FEW_PICTURES)
    if steps < FEW_STEPS:
        lines.append(
            f"only {steps} steps ({images} images, batch_size {config.batch_size}, {config.epochs} epochs), and with "
            f"fewer than {FEW_STEPS} masks may stay empty: set `steps`; {known_lengths()}"
        )
    if config.epochs <= config.warmup_epochs:
        lines.append(
            f"epochs={config.epochs} are all warm-up (warmup_epochs={config.warmup_epochs}): the mask loss never "
            "trains; lower warmup_epochs or raise epochs"
        )
    return lines


def measure(
    config: TrainConfig, data: TrainSet, num_classes: int, device: torch.device
) -> tuple[float, float, float, int]:
    """Seconds to load a batch, seconds of a step without and with mask loss, and bytes that the run takes."""
    began = time.perf_counter()
    images, tags, _ = default_collate([data[index % len(data)] for index in range(config.batch_size)])
    loading = time.perf_counter() - began
    net, optimiser, step = trial(config, num_classes, images.to(device), tags.to(device))
    step(with_masks=True)  # it warms up: libraries choose their kernels
    warmup_step, full_step = step(with_masks=False), step(with_masks=True)

    weights = sum(tensor.nbytes for tensor in net.state_dict().values())
    moments = sum(tensor.nbytes for state in optimiser.state.values() for tensor in state.values())
    snapshots = 1 + min(config.snapshots_kept, validations(config))
    if config.snapshot_every:
        snapshots += config.epochs // config.snapshot_every
    states = 3  # two, and one being written
    disk = snapshots * weights + states * (weights + moments)
    return loading, warmup_step, full_step, disk + config.epochs * PANEL_BYTES + LOG_BYTES


def validations(config: TrainConfig) -> int:
    """How often a training validates: before every `validate_every`-th epoch, and after the last."""
    return 1 + -(-config.epochs // config.validate_every)
