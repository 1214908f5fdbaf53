"""Image scores and losses, as pure functions (1-stage-wseg, sections 3.1 to 3.3; WS-FCN, section III-D)."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, multilabel_soft_margin_loss


def image_scores(logits: Tensor, size_power: float | None = 3, size_offset: float = 0.01) -> Tensor:
    """Score each foreground class of each image: normalised pooling of its logits plus the size penalty.

    Args:
        logits: (B, K, h, w), background first.
        size_power: p of the penalty (1 - m)^p log(lambda + m), where m is the class's mean mask; None: no
            penalty.
        size_offset: lambda; small values punish small masks harder.

    Returns:
        (B, K-1) scores; a sigmoid makes them probabilities.
    """
    logits = logits.float()
    masks = logits.softmax(1)
    pooled = (logits * masks).sum((2, 3)) / (1 + masks.sum((2, 3)))
    size = masks.mean((2, 3))
    penalty = 0 if size_power is None else (1 - size).pow(size_power) * (size_offset + size).log()
    return (pooled + penalty)[:, 1:]


def classification_loss(scores: Tensor, tags: Tensor) -> Tensor:
    """Multi-label soft margin loss of (B, K-1) scores against (B, K-1) tags in {0, 1}; a scalar."""
    return multilabel_soft_margin_loss(scores, tags)


def pseudo_labels(
    masks: Tensor, foreground_cut: float = 0.6, background_cut: float = 0.7, floor: float = 0.2
) -> Tensor:
    """Cut refined masks into pseudo labels: each class keeps what lies above a fraction of its own maximum.

    Args:
        masks: (B, K, H, W) in [0, 1], absent classes zeroed.
        foreground_cut, background_cut: fractions of the class's maximum over the image.
        floor: no threshold is below this.

    Returns:
        (B, K, H, W) of 0 and 1, at most one 1 per pixel: a pixel that two classes claim belongs to none.
    """
    cut = masks.new_full((masks.shape[1], 1, 1), foreground_cut)
    cut[0] = background_cut
    threshold = (masks.amax((2, 3), keepdim=True) * cut).clamp_min(floor)
    claimed = (masks > threshold).to(masks.dtype)
    return claimed * (claimed.sum(1, keepdim=True) == 1)


def mask_loss(logits: Tensor, pseudo: Tensor, tags: Tensor) -> Tensor:
    """Class-balanced cross entropy against pseudo labels, one value per image.

    Each pixel weighs (N - n_c) / (1 + N): N labelled pixels, n_c of its class. The mean is over all pixels.
    An image whose pseudo labels miss background or any tagged class has loss 0.

    Args:
        logits: (B, K, h, w); they are upsampled to the pseudo labels (bilinear, align_corners=True).
        pseudo: (B, K, H, W) of 0 and 1, at most one 1 per pixel.
        tags: (B, K-1) in {0, 1}.

    Returns:
        (B,) losses.
    """
    logits = interpolate(logits.float(), pseudo.shape[-2:], mode="bilinear", align_corners=True)
    counts = pseudo.sum((2, 3))
    labelled = counts.sum(1, keepdim=True)
    class_weights = (labelled - counts) / (1 + labelled)
    likelihood = (logits.log_softmax(1) * pseudo * class_weights[:, :, None, None]).sum(1)
    expected = torch.cat((torch.ones_like(tags[:, :1]), tags), 1) > 0
    complete = ((counts > 0) | ~expected).all(1)
    return -likelihood.mean((1, 2)) * complete
