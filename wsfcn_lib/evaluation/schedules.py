"""Memory and hours of the published schedules on VOC and COCO: on a GPU at hand, or on a kind of GPU, by counting.

    python -m wsfcn_lib.evaluation.schedules                                    # the paper's settings, each kind of GPU
    python -m wsfcn_lib.evaluation.schedules --gpu A100 --precision bf16 --batch 8

What is counted takes no GPU and a few seconds: operations and kept activations of a step, on tensors without values.
Hours follow by the share of a GPU's peak that a training reaches, which is assumed, as a range.
"""

import argparse
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.evaluation.gpus import GPUS, SHARES
from wsfcn_lib.losses import classification_loss, mask_loss
from wsfcn_lib.train import trainable_network

# images that train (of COCO those with a label) and classes with background; each image is seen EPOCHS times
SCHEDULES = {"VOC": (10_582, 21), "COCO": (82_081, 81)}
EPOCHS = 31


class Step(NamedTuple):
    """What a training step with mask loss takes.

    gigaflops: 10^9 operations an image, forth and back (a multiplication and an addition count 2).
    activations_gb: what the images that are computed at once hold for the way back, without weights.
    memory_gb: these, weights, gradients and momentum; at the peak of a step a GPU takes more, for work space.
    """

    gigaflops: float
    activations_gb: float
    memory_gb: float


def count_step(config: TrainConfig, num_classes: int = 21) -> Step:
    """Count a step of a training on tensors that have shapes and no values; what PAMR takes is left out."""
    parts = config.batch_size // config.accumulate
    by_network, by_losses = {}, {}  # what each holds: storages by their identity
    with torch.device("meta"):
        net = trainable_network(config, num_classes).train()
        images = torch.empty(parts, 3, config.crop, config.crop)
        tags = torch.empty(parts, num_classes - 1)
        with FlopCounterMode(display=False) as counter:
            with _kept(by_network):
                out = net(images)
            with _kept(by_losses):
                loss = classification_loss(out.scores, tags)
                if config.context != "none":
                    pseudo = torch.empty(parts, num_classes, config.crop, config.crop)
                    loss = loss + mask_loss(out.logits, pseudo, tags).mean()
            loss.backward()
    weights = {weight.untyped_storage()._cdata for weight in net.state_dict().values()}
    activations = sum(storage.nbytes() for key, storage in by_network.items() if key not in weights)
    stored = sum(tensor.nbytes for tensor in net.state_dict().values())
    if config.precision == "bf16":
        activations = (activations + stored) / 2  # of each weight a copy in bf16
    activations += sum(storage.nbytes() for key, storage in by_losses.items() if key not in by_network)
    # a gradient and a momentum (AdamW: two moments) for each weight that trains
    copies = 3 if config.optimiser == "adamw" else 2
    trained = sum(weight.nbytes for weight in net.parameters() if weight.requires_grad)
    memory = stored + copies * trained + activations
    return Step(counter.get_total_flops() / parts / 1e9, activations / 1e9, memory / 1e9)


def _kept(storages: dict) -> saved_tensors_hooks:
    """A context in which what is kept for the way back is noted in `storages`."""

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    return saved_tensors_hooks(note, lambda tensor: tensor)


def hours(images_per_second: float) -> dict[str, float]:
    """Hours of each schedule at a speed of training."""
    return {name: images * EPOCHS / images_per_second / 3600 for name, (images, _) in SCHEDULES.items()}


def measured(config: TrainConfig, step_seconds: float, memory_mb: float, device: str) -> str:
    """A line on the schedules at the measured speed of a step with mask loss, on this machine."""
    times = hours(config.batch_size / step_seconds)
    told = ", ".join(f"{name} {_spoken(time)}" for name, time in times.items())
    return f"{EPOCHS} epochs with these settings on {device}: {told}; {memory_mb / 1000:.1f} GB of memory"


def counted(config: TrainConfig, names=tuple(GPUS)) -> list[str]:
    """Lines on the schedules for kinds of GPU, and what they assume."""
    steps = {name: count_step(config, num_classes) for name, (_, num_classes) in SCHEDULES.items()}
    step, memory = steps["VOC"], {name: step.memory_gb for name, step in steps.items()}
    at_once = config.batch_size // config.accumulate
    lines = [
        f"{config.backbone}, crop {config.crop}, {at_once} images at once, {config.precision}: {step.gigaflops:,.0f} GFLOP "
        f"an image and step, {memory['VOC']:.1f} GB of memory (COCO {memory['COCO']:.1f}) and some for work space"
    ]
    for name in names:
        gpu = GPUS[name]
        peak = 1000 * (gpu.bf16 if config.precision == "bf16" else gpu.tf32)  # GFLOP/s
        slow, fast = (hours(share * peak / step.gigaflops) for share in SHARES)
        told = ", ".join(f"{kind} {_short(fast[kind])} to {_short(slow[kind])} h" for kind in SCHEDULES)
        room = ""
        if max(memory.values()) > 0.8 * gpu.memory:
            room = f"; its {gpu.memory} GB may be too little: raise accumulate"
        lines.append(f"{name}: {told}{room}")
    lines.append(
        f"assumed: {EPOCHS} epochs, {100 * SHARES[0]:.0f} to {100 * SHARES[1]:.0f} % of the data sheet's dense peak "
        "reached, loaders that keep up; validations not counted"
    )
    return lines


def _spoken(time: float) -> str:
    return f"{time:.1f} h" if time < 48 else f"{time / 24:.0f} days"


def _short(time: float) -> str:
    return f"{time:.1f}" if time < 10 else f"{time:.0f}"


def main() -> None:
    """Print what the published schedules take on kinds of GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m wsfcn_lib.evaluation.schedules", description=main.__doc__
    )
    parser.add_argument("--gpu", choices=GPUS, help="this one alone")
    usual = TrainConfig()  # the published settings, as notebooks/params/voc_resnet38.yaml has them
    parser.add_argument("--precision", choices=("fp32", "bf16"), default=usual.precision)
    parser.add_argument(
        "--batch", type=int, default=usual.batch_size, help="images that are computed at once"
    )
    options = parser.parse_args()
    config = TrainConfig(precision=options.precision, batch_size=options.batch)
    print("\n".join(counted(config, [options.gpu] if options.gpu else GPUS)))


if __name__ == "__main__":
    main()
