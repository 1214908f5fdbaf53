"""What the network says of one picture: several scales and a flip, fused into masks and scores (paper, section IV)."""

from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from wsfcn_lib.data.transforms import normalise
from wsfcn_lib.tiles import in_tiles, tile_side

SCALES = (1.0, 0.5, 1.5, 2.0)


class Prediction(NamedTuple):
    """What the network says of one picture.

    masks: (K, H, W) float32 in [0, 1], fused over the views, no class zeroed.
    scores: (K-1,) float32 image scores, the maximum over the views; `probabilities` maps them to [0, 1].
    """

    masks: np.ndarray
    scores: np.ndarray


def check_image(image: np.ndarray) -> None:
    """Raise ValueError for anything but (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
        raise ValueError(f"image is {image.dtype} {image.shape}; it must be (H, W, 3) uint8 RGB, as data.files.read_image gives")


def view(image: np.ndarray, scale: float, flip: bool) -> Tensor:
    """One view of an image (H, W, 3) uint8: resized (bicubic) to int(round(scale * side)), normalised, (1, 3, h, w)."""
    height, width = image.shape[:2]
    size = max(1, int(round(scale * width))), max(1, int(round(scale * height)))
    resized = Image.fromarray(image) if scale == 1 else Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    tensor = normalise(np.asarray(resized))[None]
    return tensor.flip(-1) if flip else tensor


def pad_to(tensor: Tensor, canvas: int) -> tuple[Tensor, slice, slice]:
    """Centre a view on a square canvas of zeros, as published; also returns where it lies."""
    height, width = tensor.shape[-2:]
    if max(height, width) > canvas:
        raise ValueError(f"a view of {width}x{height} exceeds canvas={canvas}; raise canvas, lower scales or long_side")
    top, left = (canvas - height) // 2, (canvas - width) // 2
    rows, columns = slice(top, top + height), slice(left, left + width)
    padded = tensor.new_zeros((1, 3, canvas, canvas))
    padded[..., rows, columns] = tensor
    return padded, rows, columns


@torch.no_grad()
def predict_view(net: nn.Module, tensor: Tensor, canvas: int | None, bf16: bool) -> tuple[Tensor, Tensor]:
    """Masks (1, K, h, w) at the view's own size and scores (1, K-1) of one view."""
    rows = columns = slice(None)
    if canvas:
        tensor, rows, columns = pad_to(tensor, canvas)
    device = next(net.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        out = net(tensor.to(device, memory_format=torch.channels_last))
    masks = out.masks.float()
    if masks.shape[-2:] != tensor.shape[-2:]:
        masks = interpolate(masks, tensor.shape[-2:], mode="bilinear", align_corners=True)
    return masks[..., rows, columns], out.scores


def look(net: nn.Module, part: np.ndarray, scale: float, flip: bool, canvas: int | None, bf16: bool) -> tuple[Tensor, Tensor]:
    """Masks (K, H, W) at the size of a picture, or of a tile of it, and scores (K-1,) from one view."""
    masks, scores = predict_view(net, view(part, scale, flip), canvas, bf16)
    masks = interpolate(masks, part.shape[:2], mode="bilinear", align_corners=False)[0]
    return masks.flip(-1) if flip else masks, scores[0]


@torch.no_grad()
def predict_masks(
    net: nn.Module,
    image: np.ndarray,
    scales=SCALES,
    flip: bool = True,
    canvas: int | None = None,
    bf16: bool = False,
    tile: int | None = None,
) -> Prediction:
    """Fuse the views of one image: the mean of their masks at image size, the maximum of their scores.

    Args:
        net: a network in evaluation mode.
        image: (H, W, 3) uint8.
        scales: of the views, relative to the image.
        flip: whether each view is also seen mirrored.
        canvas: None runs each view at its own size; 1024 is the published protocol, whose padding the scores see.
        bf16: run the network in bfloat16.
        tile: without a canvas, a view of a larger image is put together from tiles of so many image pixels a side, see
            `tiles.in_tiles`; None: as many as the free memory allows.
    """
    check_image(image)
    if net.training:
        raise ValueError("the network is in training mode, where dropout and the gate draw at random; call net.eval() first")
    device = next(net.parameters()).device
    total, scores = None, []
    for scale, flipped in product(scales, (False, True)[: 1 + flip]):
        one = partial(look, net, scale=scale, flip=flipped, canvas=canvas, bf16=bf16)
        side = tile or tile_side(device, scale)
        whole = canvas or image.shape[0] * image.shape[1] <= side**2
        masks, view_scores = one(image) if whole else in_tiles(one, image, side)
        total = masks if total is None else total.add_(masks)  # in place: at twelve million pixels each copy is a gigabyte
        scores.append(view_scores)
    fused = total.div_(len(scores)).cpu().numpy()
    return Prediction(fused, torch.stack(scores).amax(0).float().cpu().numpy())
