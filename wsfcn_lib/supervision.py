"""How a network teaches itself: masks, refined by PAMR, become pseudo labels (paper, section III-D)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.normalisation import denormalise
from wsfcn_lib.losses import classification_loss, mask_loss, pseudo_labels
from wsfcn_lib.modules import resize
from wsfcn_lib.network import NetOutput
from wsfcn_lib.pamr import pamr


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says why and what to do."""


class Supervision(NamedTuple):
    """What the network learns from: refined masks (B, K, h, w) and pseudo labels (B, K, H, W) of 0 and 1."""

    refined: Tensor
    pseudo: Tensor


def with_background_tag(tags: Tensor) -> Tensor:
    """Tags (B, K-1) -> (B, K): background, which comes first, is in every image."""
    return torch.cat((torch.ones_like(tags[:, :1]), tags), 1)


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
    present = with_background_tag(tags) > 0
    small = resize(denormalise(images), masks.shape[-2:], align_corners=True)
    refined = pamr(small, masks.detach(), config.pamr_dilations, config.pamr_iterations, present)
    large = interpolate(refined, images.shape[-2:], mode="bilinear", align_corners=True)
    pseudo = pseudo_labels(large, config.foreground_cut, config.background_cut, config.floor)
    return Supervision(refined, pseudo)


def training_losses(
    out: NetOutput,
    images: Tensor,
    tags: Tensor,
    config: TrainConfig,
    with_masks: bool,
    truth: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Classification loss and weighted mask loss of a batch, two scalars.

    The warm-up and a CAM baseline have no mask loss. `truth`, true labels (B, H, W) uint8, takes the place of
    the pseudo labels where the masks are supervised.
    """
    classification = classification_loss(out.scores, tags)
    if not with_masks or config.context == "none":
        return classification, classification.new_zeros(())
    if truth is None:
        pseudo = supervise(images, out.masks, tags, config).pseudo
    else:
        pseudo = labels_of_truth(truth, out.masks.shape[1])
    return classification, config.mask_weight * mask_loss(out.logits, pseudo, tags).mean()


def labels_of_truth(truth: Tensor, num_classes: int) -> Tensor:
    """True labels (B, H, W) uint8, 255 for none, in the form of pseudo labels: (B, K, H, W) of 0 and 1."""
    classes = torch.arange(num_classes, device=truth.device)[:, None, None]
    return (truth[:, None] == classes).float()


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """bf16 for the network where the settings ask for it; scores, losses and PAMR stay in fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")


def require_finite(numbers: Sequence[float], what: str, images: Sequence[Path], checkpoints: Path) -> None:
    """TrainingError where a number is infinite or not a number.

    It says what they are, the images that led to it (if any), and the snapshot in `checkpoints` to fall
    back on.
    """
    wrong = [number for number in numbers if not math.isfinite(number)]
    if not wrong:
        return
    on, last = "", checkpoints / "last.safetensors"
    if images:
        on = f", on {', '.join(path.name for path in images)}"
    snapshot = f"the last good snapshot is {last}" if last.is_file() else "there is no snapshot yet"
    advice = "Look at these pictures, lower lr, or set precision='fp32', and train under another run name"
    raise TrainingError(f"{what} is {wrong[0]:g}{on}; {snapshot}. {advice}.")


@torch.no_grad()
def supervision_steps(
    net: nn.Module, images: Tensor, tags: Tensor, config: TrainConfig
) -> dict[str, np.ndarray]:
    """The way from image to pseudo label, in evaluation mode; every map at image size.

    Args:
        net: the network, on the images' device.
        images: (B, 3, H, W), ImageNet-normalised.
        tags: (B, K-1) in {0, 1}.
        config: the settings of its training.

    Returns:
        image (B, H, W, 3) uint8; masks, refined (B, K, H, W) in [0, 1], absent classes zeroed; pseudo (B,
        H, W) class indices, 255 where no class or more than one claims the pixel.
    """
    training = net.training
    net.eval()
    with autocast(config, images.device):
        masks = net(images.contiguous(memory_format=torch.channels_last)).masks
    net.train(training)
    masks = masks * with_background_tag(tags)[:, :, None, None]
    refined, pseudo = supervise(images, masks, tags, config)
    labels = torch.where(pseudo.sum(1) == 1, pseudo.argmax(1), IGNORE)
    rgb = (denormalise(images) * 255).round().clamp(0, 255).permute(0, 2, 3, 1)
    size = images.shape[-2:]
    return {
        "image": rgb.byte().cpu().numpy(),
        "masks": resize(masks.float(), size, align_corners=True).cpu().numpy(),
        "refined": resize(refined.float(), size, align_corners=True).cpu().numpy(),
        "pseudo": labels.byte().cpu().numpy(),
    }
