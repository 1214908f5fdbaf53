"""Pictures too large for memory at once: overlapping tiles, each seen by the network alone, blended into one answer."""

import math
from collections.abc import Callable

import numpy as np
import psutil
import torch
from torch import Tensor

PIXEL_BYTES = 2000  # of the network per pixel of a view; measured on a CPU: about 1,000, and at most 250 MB once
SHARE = 0.5  # of the free memory that one view may take
OVERLAP = 0.25  # of a tile's side
WHOLE = 2048  # a view of so many pixels squared is never cut: VOC's and COCO's pictures give the same numbers on any machine


def tile_side(device: torch.device, scale: float = 1.0) -> int:
    """The side, in pixels of the picture, of the largest square whose view at `scale` fits into the free memory of a device."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + cached
    else:
        free = psutil.virtual_memory().available
    return int(max(WHOLE, math.sqrt(SHARE * free / PIXEL_BYTES)) / scale)


def spans(length: int, side: int) -> list[slice]:
    """Equal spans of at most `side` that cover `length`, neighbours overlapping by at least OVERLAP of them."""
    if length <= side:
        return [slice(0, length)]
    count = math.ceil((length - side) / (side * (1 - OVERLAP))) + 1
    starts = np.linspace(0, length - side, count).round().astype(int).tolist()
    return [slice(start, start + side) for start in starts]


def _ramp(span: slice, length: int, device: torch.device) -> Tensor:
    """Weights of a tile's places along one axis: they fall towards a neighbouring tile, not towards the picture's border."""
    places = torch.arange(span.start, span.stop, device=device, dtype=torch.float32)
    before = places - span.start + 0.5 if span.start else torch.full_like(places, math.inf)
    after = span.stop - places - 0.5 if span.stop < length else torch.full_like(places, math.inf)
    return torch.minimum(before, after).clamp_max((span.stop - span.start) * OVERLAP)


def in_tiles(look: Callable, image: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
    """Masks (K, H, W) and scores (K-1,) of an image (H, W, 3) from `look(crop)`, which gives them for one tile.

    Masks are blended over the overlaps, the scores are the maximum over the tiles. A tile does not know what lies around
    it: the answer is not that of the whole picture, and objects much larger than a tile may be missed.
    """
    height, width = image.shape[:2]
    masks = scores = None
    for rows in spans(height, side):
        for columns in spans(width, side):
            part, part_scores = look(np.ascontiguousarray(image[rows, columns]))
            if masks is None:
                masks, weights = part.new_zeros(len(part), height, width), part.new_zeros(height, width)
                scores = part_scores
            weight = _ramp(rows, height, part.device)[:, None] * _ramp(columns, width, part.device)
            masks[:, rows, columns] += part.mul_(weight)
            weights[rows, columns] += weight
            scores = torch.maximum(scores, part_scores)
    return masks.div_(weights), scores
