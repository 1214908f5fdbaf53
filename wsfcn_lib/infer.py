"""Inference (paper, section IV) from a file of weights to the label map of a picture; `views` looks at it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch.nn.functional import interpolate

from wsfcn_lib.checkpoints import CheckpointError, find_snapshot
from wsfcn_lib.config import Recipe, Settings
from wsfcn_lib.crf import crf, crf_many
from wsfcn_lib.data.files import read_image, upright
from wsfcn_lib.recipes import label_map
from wsfcn_lib.released import load_network
from wsfcn_lib.runs import ROOT
from wsfcn_lib.views import SCALES, Prediction, check_image, predict_masks, view

SHIPPED = ROOT / "data" / "voc_animals_mobilenet.safetensors"  # a small network for six animals, see data/README.md
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
    return interpolate(torch.from_numpy(maps)[:, None], size, mode="bilinear", align_corners=False)[:, 0].numpy()


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
        raise CheckpointError(f"{told}, or name a run folder (data/runs/<name>) or a file of weights as checkpoint")
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


__all__ = [
    "SCALES",
    "Prediction",
    "Segmentation",
    "crf",
    "crf_many",
    "label_map",
    "predict_masks",
    "probabilities",
    "segment",
    "view",
]
