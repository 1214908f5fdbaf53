"""Pictures too large for memory at once: overlapping tiles, each seen by the network alone, blended into one answer."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import psutil
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate

from wsfcn_lib.checkpoints import CheckpointError, find_snapshot
from wsfcn_lib.config import Recipe
from wsfcn_lib.data.images import read_image, upright
from wsfcn_lib.data.normalisation import normalise
from wsfcn_lib.postprocess import crf, label_map
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.settings import Settings
from wsfcn_lib.weights import load_network

PIXEL_BYTES = (
    2000  # of the network per pixel of a view; measured on a CPU: about 1,000, and at most 250 MB once
)
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
        raise ValueError(
            f"image is {image.dtype} {image.shape}; it must be (H, W, 3) uint8 RGB, as data.files.read_image gives"
        )


def view(image: np.ndarray, scale: float, flip: bool) -> Tensor:
    """One view of an image (H, W, 3) uint8: resized (bicubic) to int(round(scale * side)), normalised, (1, 3, h, w)."""
    height, width = image.shape[:2]
    size = max(1, int(round(scale * width))), max(1, int(round(scale * height)))
    resized = (
        Image.fromarray(image)
        if scale == 1
        else Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    )
    tensor = normalise(np.asarray(resized))[None]
    return tensor.flip(-1) if flip else tensor


def pad_to(tensor: Tensor, canvas: int) -> tuple[Tensor, slice, slice]:
    """Centre a view on a square canvas of zeros, as published; also returns where it lies."""
    height, width = tensor.shape[-2:]
    if max(height, width) > canvas:
        raise ValueError(
            f"a view of {width}x{height} exceeds canvas={canvas}; raise canvas, lower scales or long_side"
        )
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


def look(
    net: nn.Module, part: np.ndarray, scale: float, flip: bool, canvas: int | None, bf16: bool
) -> tuple[Tensor, Tensor]:
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
        raise ValueError(
            "the network is in training mode, where dropout and the gate draw at random; call net.eval() first"
        )
    device = next(net.parameters()).device
    total, scores = None, []
    for scale, flipped in product(scales, (False, True)[: 1 + flip]):
        one = partial(look, net, scale=scale, flip=flipped, canvas=canvas, bf16=bf16)
        side = tile or tile_side(device, scale)
        whole = canvas or image.shape[0] * image.shape[1] <= side**2
        masks, view_scores = one(image) if whole else in_tiles(one, image, side)
        total = (
            masks if total is None else total.add_(masks)
        )  # in place: at twelve million pixels each copy is a gigabyte
        scores.append(view_scores)
    fused = total.div_(len(scores)).cpu().numpy()
    return Prediction(fused, torch.stack(scores).amax(0).float().cpu().numpy())


SHIPPED = (
    ROOT / "data" / "voc_animals_mobilenet.safetensors"
)  # a small network for six animals, see data/README.md
LONG_SIDE = 640  # pixels; VOC's pictures have at most 500, COCO's 640
OWN_SCALES = (1.0, 1.5, 2.0)  # of networks trained here that name none: the built-in scenes gain by enlarging
SCORE_CUT = 0.1  # a class is present where its probability exceeds this


class Protocol(Settings):
    """How a network is evaluated, as its file says."""

    recipe: Recipe
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field(min_length=1, max_length=16)
    canvas: int = Field(ge=0, le=4096)


class Segmentation(NamedTuple):
    """`segment`'s answer: masks (K, H, W) and scores (K-1,) in [0, 1], tags (K-1,) bool, labels (H, W) uint8, K names."""

    masks: np.ndarray
    scores: np.ndarray
    tags: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def shrink(image: np.ndarray, long_side: int | None) -> np.ndarray:
    """An image (H, W, 3) uint8 with at most `long_side` pixels on its longer side (bicubic); None or 0: as it is."""
    check_image(image)
    height, width = image.shape[:2]
    if not long_side or max(height, width) <= long_side:
        return image
    size = (max(1, round(long_side * side / max(height, width))) for side in (width, height))
    return np.asarray(Image.fromarray(image).resize(tuple(size), Image.Resampling.BICUBIC))


def at_size(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) uint8 (nearest) or masks (K, H, W) float32 (bilinear) brought to another size (height, width)."""
    if maps.shape[-2:] == tuple(size):
        return maps
    if maps.ndim == 2:
        return np.asarray(Image.fromarray(maps).resize(size[::-1], Image.Resampling.NEAREST))
    return interpolate(torch.from_numpy(maps)[:, None], size, mode="bilinear", align_corners=False)[
        :, 0
    ].numpy()


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Image scores as probabilities in [0, 1] (sigmoid), same shape."""
    return 1 / (1 + np.exp(-np.clip(scores, -60, 60)))


def protocol_of(facts: dict) -> dict:
    """How a network is evaluated where nobody asks for another way: recipe, scales and canvas, from the facts of its file."""
    own = {"recipe": "wsfcn", "scales": SCALES if "published" in facts else OWN_SCALES, "canvas": 0}
    try:
        return Protocol(**own | {name: facts[name] for name in own if name in facts}).model_dump()
    except ValueError as error:
        raise CheckpointError(f"the facts in this file of weights are none of this kit's: {error}") from error


def segment(
    image,
    checkpoint: Path | str | None = None,
    recipe: str = "",
    use_crf: bool = False,
    long_side: int | None = LONG_SIDE,
    scales: Sequence[float] = (),
) -> Segmentation:
    """Segment one picture with a trained network; needs no tags and no ground truth.

    Args:
        image: a path, a PIL image or an array (H, W, 3) uint8.
        checkpoint: a snapshot (.safetensors), released weights (.pth), or a run folder, whose best snapshot is taken; None:
            the small network that ships with the kit, which knows cat, cow, dog, horse, person and sheep.
        recipe: background rule, "wsfcn" or "1stage"; empty: the one that belongs to the weights, else "wsfcn".
        use_crf: refine by the dense CRF.
        long_side: network and CRF see a larger picture shrunk to so many pixels on its longer side; the answer comes at the
            picture's own size, masks enlarged bilinearly, labels to the nearest pixel. None: all as it is.
        scales: of the views; empty: those that belong to the weights, see `protocol_of`.
    """
    path = SHIPPED if checkpoint is None else Path(checkpoint)
    if checkpoint is None and not path.is_file():
        told = f"{path}, the network that ships with the kit, is missing; bring it back with git"
        raise CheckpointError(
            f"{told}, or name a run folder (data/runs/<name>) or a file of weights as checkpoint"
        )
    net, classes, facts = load_network(find_snapshot(path) if path.is_dir() else path)
    if isinstance(image, str | Path):
        image = read_image(image)
    image = np.asarray(upright(image, "the picture") if isinstance(image, Image.Image) else image)
    small, size, recipe = shrink(image, long_side), image.shape[:2], recipe or protocol_of(facts)["recipe"]
    masks, scores = predict_masks(net, small, scales or protocol_of(facts)["scales"])
    chances = probabilities(scores)
    tags = chances > SCORE_CUT
    labels = crf(small, masks, tags, recipe) if use_crf else label_map(masks, tags, recipe)
    names = ("background", *(c["name"] for c in classes))
    return Segmentation(at_size(masks, size), chances, tags, at_size(labels, size), names)
