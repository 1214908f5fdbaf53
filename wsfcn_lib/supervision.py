"""The training objective: classification from tags, and segmentation against the network's own refined masks."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.normalisation import denormalise
from wsfcn_lib.losses import classification_loss, mask_loss, pseudo_labels
from wsfcn_lib.modules import resize
from wsfcn_lib.network import NetOutput
from wsfcn_lib.pamr import pamr


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says why and what to do."""


class Supervision(NamedTuple):
    """What the network teaches itself: refined masks (B, K, h, w) and pseudo labels (B, K, H, W) of 0 and 1."""

    refined: Tensor
    pseudo: Tensor


@torch.no_grad()
def supervise(images: Tensor, masks: Tensor, tags: Tensor, config: TrainConfig) -> Supervision:
    """Refine masks by their image and cut them into pseudo labels (paper, section III-D).

    Absent classes are left at zero: PAMR treats each class alone, so it need not see them.

    Args:
        images: (B, 3, H, W), ImageNet-normalised, as the network saw them.
        masks: (B, K, h, w) softmax masks.
        tags: (B, K-1) in {0, 1}.
        config: cuts, floor, and PAMR's dilations and iterations.
    """
    present = torch.cat((torch.ones_like(tags[:, :1]), tags), 1) > 0
    small = resize(denormalise(images), masks.shape[-2:], align_corners=True)
    refined = pamr(small, masks.detach(), config.pamr_dilations, config.pamr_iterations, present)
    large = interpolate(refined, images.shape[-2:], mode="bilinear", align_corners=True)
    return Supervision(
        refined, pseudo_labels(large, config.foreground_cut, config.background_cut, config.floor)
    )


def training_losses(
    out: NetOutput, images: Tensor, tags: Tensor, config: TrainConfig, with_masks: bool
) -> tuple[Tensor, Tensor]:
    """Classification loss and weighted mask loss of a batch, two scalars; a CAM baseline and the warm-up have no mask loss."""
    classification = classification_loss(out.scores, tags)
    if not with_masks or config.context == "none":
        return classification, classification.new_zeros(())
    pseudo = supervise(images, out.masks, tags, config).pseudo
    return classification, config.mask_weight * mask_loss(out.logits, pseudo, tags).mean()


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """bf16 for the network where the settings ask for it; scores, losses and PAMR stay in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def require_finite(
    numbers: Sequence[float], what: str, step: int, pictures: Sequence[Path], last: Path
) -> None:
    """TrainingError that names step, pictures and the snapshot to fall back on, where a number is infinite or not a number."""
    if wrong := [number for number in numbers if not math.isfinite(number)]:
        named = f", on {', '.join(path.name for path in pictures)}" if pictures else ""
        good = f"the last good snapshot is {last}" if last.is_file() else "there is no snapshot yet"
        advice = "Look at these pictures, lower lr, or set precision='fp32', and train under another run name"
        raise TrainingError(f"{what} is {wrong[0]:g} at step {step}{named}; {good}. {advice}.")


@torch.no_grad()
def supervision_steps(
    net: nn.Module, images: torch.Tensor, tags: torch.Tensor, config: TrainConfig
) -> dict[str, np.ndarray]:
    """The way from image to pseudo label, in evaluation mode; every map at image size.

    Args:
        net: the network, on the images' device.
        images: (B, 3, H, W), ImageNet-normalised.
        tags: (B, K-1) in {0, 1}.
        config: the settings of its training.

    Returns:
        image (B, H, W, 3) uint8; masks, refined (B, K, H, W) in [0, 1], absent classes zeroed; pseudo (B, H, W) class
        indices, 255 where no class or more than one claims the pixel.
    """
    training = net.training
    net.eval()
    with autocast(config, images.device):
        masks = net(images.contiguous(memory_format=torch.channels_last)).masks
    net.train(training)
    masks = masks * torch.cat((torch.ones_like(tags[:, :1]), tags), 1)[:, :, None, None]
    refined, pseudo = supervise(images, masks, tags, config)
    large = [resize(m.float(), images.shape[-2:], align_corners=True).cpu().numpy() for m in (masks, refined)]
    labels = torch.where(pseudo.sum(1) == 1, pseudo.argmax(1), 255).byte().cpu().numpy()
    rgb = (denormalise(images) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return {"image": rgb, "masks": large[0], "refined": large[1], "pseudo": labels}
