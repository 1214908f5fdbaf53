"""How good is what the network teaches itself: CAMs, refined CAMs and pseudo labels against the training masks; over time."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from wsfcn_lib.checkpoints import CheckpointError, load_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import IGNORE, read_image, read_mask
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.normalisation import normalise
from wsfcn_lib.infer import SCORE_CUT, at_size, predict_view, probabilities, shrink
from wsfcn_lib.metrics import ConfusionMatrix, summary
from wsfcn_lib.postprocess import label_map
from wsfcn_lib.supervision import supervision_steps

KINDS = ("cam", "refined_cam", "pseudo_labels", "prediction")


def pseudo_label_quality(
    net: nn.Module,
    manifest: Manifest,
    config: TrainConfig,
    limit: int | None = None,
    long_side: int | None = None,
) -> dict:
    """Measure CAMs, refined CAMs and pseudo labels by the training masks, under the true tags; afterwards, from a snapshot.

    The network looks once at each whole picture, in evaluation mode. `cam`: argmax of its masks over background (its own
    mask of it) and the tagged classes; `refined_cam`: the same after PAMR; `pseudo_labels`: as `supervise` cuts them, only
    over pixels that carry a label; `prediction`: what it says itself, recipe `wsfcn` on this one view with its own tags.
    Training cuts pseudo labels from augmented crops, with dropout and gate at random and batch statistics in the new layers'
    norms, and each crop has its own thresholds: this is how good the network's labels are, not which it has seen.

    Args:
        net: on the device to compute on; its mode is left as it was.
        manifest: of its training images those with masks are used; DataError where there are none.
        config: of the training (cuts, floor, PAMR, precision).
        limit: at most so many images, evenly spread over the list; None or 0: all.
        long_side: shrink larger pictures to it (bicubic), and enlarge the labels to the mask (nearest); None or 0: never.

    Returns:
        cam, refined_cam, pseudo_labels, prediction: mIoU in 0..1; pseudo_coverage: share of the counted pixels (truth not
        255) that carry a pseudo label; images: their number; per_class_iou: {kind: {class: IoU, or None}}.
    """
    masks = manifest.train_masks()
    samples = [sample for sample in manifest.samples("train") if sample.name in masks]
    if not samples:
        raise DataError(
            f"{manifest.folder}: no training image has a mask in train_masks.csv, so there is nothing to measure"
        )
    if limit:
        samples = [
            samples[i] for i in np.linspace(0, len(samples) - 1, min(limit, len(samples))).round().astype(int)
        ]
    matrices = {kind: ConfusionMatrix(manifest.num_classes) for kind in KINDS}
    for sample in tqdm(samples, "quality", file=sys.stdout, mininterval=5, ncols=80):
        image, truth = read_image(sample.image), read_mask(masks[sample.name], manifest)
        if image.shape[:2] != truth.shape:
            raise DataError(
                f"{masks[sample.name]}: its size is not that of its image; `validate` lists all such masks"
            )
        for kind, labels in labels_of(net, image, sample.tags, config, long_side).items():
            labelled = labels != IGNORE
            matrices[kind].update(np.where(labelled, labels, 0), np.where(labelled, truth, IGNORE))
    blocks = {kind: summary(matrix, manifest.names) for kind, matrix in matrices.items()}
    means, per_class = (
        {kind: block[key] for kind, block in blocks.items()} for key in ("mean_iou", "per_class_iou")
    )
    coverage = float(matrices["pseudo_labels"].matrix.sum() / max(1, matrices["cam"].matrix.sum()))
    return {"images": len(samples), **means, "pseudo_coverage": coverage, "per_class_iou": per_class}


def labels_of(
    net: nn.Module, image: np.ndarray, tags: tuple[bool, ...], config: TrainConfig, long_side: int | None
) -> dict:
    """{kind: class indices (H, W), 255 = no label} of one image (H, W, 3) uint8 under tags (K-1,)."""
    device = next(net.parameters()).device
    small = normalise(shrink(image, long_side))[None].to(device)
    found = supervision_steps(net, small, torch.tensor([tags], dtype=torch.float32, device=device), config)
    training = net.training
    masks, scores = predict_view(net.eval(), small, None, config.precision == "bf16")
    net.train(training)
    own = probabilities(scores[0].float().cpu().numpy()) > SCORE_CUT
    maps = (
        found["masks"][0].argmax(0),
        found["refined"][0].argmax(0),
        found["pseudo"][0],
        label_map(masks[0].cpu().numpy(), own),
    )
    return {kind: at_size(labels.astype(np.uint8), image.shape[:2]) for kind, labels in zip(KINDS, maps)}


def quality_over_training(
    run: Path,
    manifest: Manifest,
    config: TrainConfig,
    limit: int | None = None,
    long_side: int | None = None,
    device="cpu",
) -> pd.DataFrame:
    """`pseudo_label_quality` of all snapshots of a run, as far as it kept them: epoch (finished ones), KINDS in 0..1, coverage.

    The validation keeps a snapshot where it is the best so far; the setting `snapshot_every` keeps more.
    """
    rows, paths = {}, sorted((run / "checkpoints").glob("*.safetensors"))
    if not paths:
        raise CheckpointError(f"no snapshot in {run / 'checkpoints'}: train the run with 02_train first")
    for path in paths:
        net, _, facts = load_snapshot(path)
        if facts["epoch"] not in rows:
            rows[facts["epoch"]] = pseudo_label_quality(net.to(device), manifest, config, limit, long_side)
    return pd.DataFrame(
        [
            {"epoch": epoch} | {key: row[key] for key in (*KINDS, "pseudo_coverage")}
            for epoch, row in sorted(rows.items())
        ]
    )
