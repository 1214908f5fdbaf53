"""Pixel-adaptive mask refinement (1-stage-wseg, section 3.2): masks flow between neighbours of similar colour."""

import warnings
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # a plain product is all that is asked of it
RING = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


@lru_cache(maxsize=16)
def _neighbours(height: int, width: int, dilations: tuple[int, ...], device: torch.device) -> Tensor:
    """Flat indices (H*W, 8*D) of each pixel's neighbours, clamped to the image (replicate padding)."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    shifts = [(dilation * dy, dilation * dx) for dilation in dilations for dy, dx in RING]
    flat = [(y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1) for dy, dx in shifts]
    return torch.stack(flat, -1).reshape(height * width, -1)


def _affinity(image: Tensor, neighbours: Tensor, copies: int) -> Tensor:
    """Softmax affinities (H*W, N) of one image (3, H*W): colour distance in units of the local deviation."""
    around = image[:, neighbours]  # (3, H*W, N)
    centre = image[:, :, None]
    count = neighbours.shape[1] + copies  # the centre counts once per dilation
    mean = (around.sum(2, keepdim=True) + copies * centre) / count
    variance = ((around - mean).square().sum(2, keepdim=True) + copies * (centre - mean).square()) / (count - 1)
    distance = (around - centre).abs() / (1e-8 + 0.1 * variance.sqrt())
    return (-distance.mean(0)).softmax(1)


def _sparse(rows: Tensor, columns: Tensor, values: Tensor, merge: bool) -> Tensor:
    """The affinities as a CSR matrix.

    At the border a clamped neighbour occurs more than once in a row. The CPU's product adds such entries up; for CUDA's
    they have to be sorted and merged (`merge`).
    """
    pixels = len(rows) - 1
    if not merge:
        return torch.sparse_csr_tensor(rows, columns, values, (pixels, pixels), check_invariants=False)
    places = torch.stack((torch.arange(pixels, device=rows.device).repeat_interleave(rows.diff()), columns))
    return torch.sparse_coo_tensor(places, values, (pixels, pixels)).coalesce().to_sparse_csr()


@torch.no_grad()
def pamr(
    images: Tensor, masks: Tensor, dilations=(1, 2, 4, 8, 12, 24), iterations: int = 10, present: Tensor | None = None
) -> Tensor:
    """Refine masks by the image's colours; no gradient passes.

    The affinities form one sparse (H*W, H*W) matrix per image and an iteration is one product with it, so nothing of
    size B*K*48*H*W is ever built. Classes do not interact, so absent ones need no work.

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
        raise ValueError(f"pamr got {images.shape[0]} images and {masks.shape[0]} sets of masks; give one set per image")
    if images.device.type == "mps":  # PyTorch has no sparse product there
        present = present if present is None else present.cpu()
        return pamr(images.cpu(), masks.cpu(), dilations, iterations, present).to(images.device)
    height, width = images.shape[-2:]
    masks = interpolate(masks.float(), (height, width), mode="bilinear", align_corners=True)
    neighbours = _neighbours(height, width, tuple(dilations), images.device)
    pixels, count = neighbours.shape
    rows = torch.arange(0, pixels * count + 1, count, device=images.device)
    present = masks.new_ones(masks.shape[:2], dtype=torch.bool) if present is None else present
    refined = torch.zeros_like(masks)
    with torch.autocast(images.device.type, enabled=False):
        for b, image in enumerate(images.float().flatten(2)):
            values = _affinity(image, neighbours, len(dilations)).flatten()
            matrix = _sparse(rows, neighbours.flatten(), values, merge=images.is_cuda)
            state = masks[b, present[b]].flatten(1).T.contiguous()
            for _ in range(iterations):
                state = matrix @ state
            refined[b, present[b]] = state.T.reshape(-1, height, width)
    return refined
