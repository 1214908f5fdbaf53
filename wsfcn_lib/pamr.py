"""Pixel-adaptive mask refinement (1-stage-wseg, section 3.2): masks flow between like-coloured neighbours."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, interpolate, pad

RING = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def _shifts(dilations) -> list[tuple[int, int]]:
    """The (dy, dx) of each of a pixel's 8*D neighbours."""
    return [(dilation * dy, dilation * dx) for dilation in dilations for dy, dx in RING]


@lru_cache(maxsize=2)  # training has one size; the indices of a large image take 200 bytes a pixel
def _neighbours(height: int, width: int, dilations: tuple[int, ...], device: torch.device) -> Tensor:
    """Flat indices (H*W, 8*D) of each pixel's neighbours, clamped to the image (replicate padding)."""
    y = torch.arange(height, device=device)[:, None]
    x = torch.arange(width, device=device)
    indices = [
        (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1) for dy, dx in _shifts(dilations)
    ]
    return torch.stack(indices, -1).reshape(height * width, -1).int()


def affinity(image: Tensor, dilations) -> Tensor:
    """Softmax affinities (H*W, 8*D) of one image (3, H, W): colour distance over the local deviation."""
    height, width = image.shape[1:]
    reach = max(dilations)
    shifts = _shifts(dilations)
    count = len(shifts) + len(dilations)  # in the deviation the centre counts once per dilation
    total = image.new_zeros(len(shifts), height, width)
    for centre in image:
        wide = pad(centre[None], [reach] * 4, mode="replicate")[0]
        around = torch.stack(
            [wide[reach + dy : reach + dy + height, reach + dx : reach + dx + width] for dy, dx in shifts]
        )
        around -= centre  # as differences from the centre, flat regions deviate by exactly 0
        squares = around.square().sum(0) - around.sum(0).square() / count
        deviation = (squares.clamp_min(0) / (count - 1)).sqrt()
        total -= around.abs_() / (1e-8 + 0.1 * deviation)
    return (total / len(image)).softmax(0).flatten(1).T.contiguous()


@torch.no_grad()
def pamr(
    images: Tensor,
    masks: Tensor,
    dilations=(1, 2, 4, 8, 12, 24),
    iterations: int = 10,
    present: Tensor | None = None,
) -> Tensor:
    """Refine masks by the image's colours; no gradient passes.

    An iteration is a weighted sum of rows of the (H*W, K) masks, as PyTorch computes for bags of embeddings,
    so nothing of size B*K*48*H*W is ever built. Classes do not interact, so absent ones need no work.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        masks: (B, K, h, w); resized to (H, W) first (bilinear, align_corners=True).
        dilations: rings of 8 neighbours, in pixels.
        iterations: how often each value is replaced by the weighted sum of its neighbours'.
        present: (B, K) bool, the classes to refine; None: all.

    Returns:
        (B, K, H, W) float32, 0 where a class is not present.
    """
    if images.shape[0] != masks.shape[0]:
        raise ValueError(
            f"pamr got {images.shape[0]} images and {masks.shape[0]} sets of masks; give one set per image"
        )
    if present is None:
        present = masks.new_ones(masks.shape[:2], dtype=torch.bool)
    if images.device.type == "mps":  # not every PyTorch has bags of embeddings there
        return pamr(images.cpu(), masks.cpu(), dilations, iterations, present.cpu()).to(images.device)
    height, width = images.shape[-2:]
    masks = interpolate(masks.float(), (height, width), mode="bilinear", align_corners=True)
    neighbours = _neighbours(height, width, tuple(dilations), images.device)
    refined = torch.zeros_like(masks)
    with torch.autocast(images.device.type, enabled=False):
        for b, image in enumerate(images.float()):
            weights = affinity(image, dilations)
            state = masks[b, present[b]].flatten(1).T.contiguous()
            for _ in range(iterations):
                state = embedding_bag(neighbours, state, per_sample_weights=weights, mode="sum")
            refined[b, present[b]] = state.T.reshape(-1, height, width)
    return refined
