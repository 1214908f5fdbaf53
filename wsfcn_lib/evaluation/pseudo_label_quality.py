"""How good is what the network teaches itself: CAMs, refined CAMs and pseudo labels beside the true masks."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from wsfcn_lib.checkpoints import CheckpointError, load_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_image, read_mask
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.normalisation import normalise
from wsfcn_lib.evaluation.cam_cuts import chosen_cut, cut_counts, winners
from wsfcn_lib.evaluation.inputs import samples_of
from wsfcn_lib.infer import at_size, predict_view, probabilities, shrink
from wsfcn_lib.metrics import ConfusionMatrix, summary
from wsfcn_lib.postprocess import BACKGROUND_MASK, label_map
from wsfcn_lib.protocol import SCORE_CUT
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.supervision import supervision_steps

KINDS = ("cam", "refined_cam", "pseudo_labels", "prediction")
CUT = ("cam", "refined_cam")  # the kinds that are measured at every cut too


def pseudo_label_quality(
    net: nn.Module,
    manifest: Manifest,
    config: TrainConfig,
    limit: int | None = None,
    long_side: int | None = None,
) -> dict:
    """Measure CAMs, refined CAMs and pseudo labels by the training masks, under the true tags.

    The network sees each whole picture once, in evaluation mode. `cam`: argmax of its masks over background
    (its own mask of it) and the tagged classes; `refined_cam`: the same after PAMR; `pseudo_labels`: as
    `supervise` cuts them, only over pixels that carry a label; `prediction`: what it says itself, recipe
    `wsfcn` on this one view with its own tags. Training cuts pseudo labels from augmented crops, with dropout
    and gate at random and batch statistics in the new layers' norms, and each crop has its own thresholds:
    this is how good the network's labels are, not which it has seen.

    Args:
        net: on the device to compute on; its mode is left as it was.
        manifest: of its training images those with masks are used; DataError where there are none.
        config: of the training (cuts, floor, PAMR, precision).
        limit: at most so many images, evenly spread over the list; None or 0: all.
        long_side: shrink larger pictures to it (bicubic), enlarge the labels to the mask (nearest);
            None or 0: never.

    Returns:
        cam, refined_cam, pseudo_labels, prediction: mIoU in 0..1; pseudo_coverage: share of the counted
        pixels (truth not 255) that carry a pseudo label; images: their number;
        per_class_iou: {kind: {class: IoU, or None}};
        cuts: {cam, refined_cam: `chosen_cut`}: the background is where no tagged class is above a cut, which is
        chosen on every second image and measured on the others, beside the fixed one of the recipe `wsfcn`; None
        for a single image.
    """
    samples = [sample for sample in samples_of("train", manifest) if sample.mask]
    if not samples:
        raise DataError(
            f"{manifest.folder}: no training image has a mask in train_masks.csv, so there is nothing to "
            "measure; add masks"
        )
    if limit and limit < len(samples):
        spread = np.linspace(0, len(samples) - 1, limit).round().astype(int)
        samples = [samples[index] for index in spread]
    matrices = {kind: ConfusionMatrix(manifest.num_classes) for kind in KINDS}
    at_cuts = {kind: [0, 0] for kind in CUT}
    for number, sample in enumerate(progress(samples, "measure")):
        image = read_image(sample.image)
        truth = read_mask(sample.mask, manifest, size=image.shape[:2])
        steps = steps_of(net, image, sample.tags, config, long_side)
        for kind, key in zip(CUT, ("masks", "refined")):
            winner, level = (at_size(part, truth.shape) for part in winners(steps[key]))
            at_cuts[kind][number % 2] += cut_counts(winner, level, truth, manifest.num_classes)
        for kind, labels in labels_of(steps, truth.shape).items():
            labelled = labels != IGNORE
            matrices[kind].update(np.where(labelled, labels, 0), np.where(labelled, truth, IGNORE))
    blocks = {kind: summary(matrix, manifest.names) for kind, matrix in matrices.items()}
    labelled, counted = matrices["pseudo_labels"].matrix.sum(), matrices["cam"].matrix.sum()
    return {
        "images": len(samples),
        **{kind: block["mean_iou"] for kind, block in blocks.items()},
        "pseudo_coverage": float(labelled / max(1, counted)),
        "per_class_iou": {kind: block["per_class_iou"] for kind, block in blocks.items()},
        "cuts": {
            kind: chosen_cut(*halves, BACKGROUND_MASK) if len(samples) > 1 else None
            for kind, halves in at_cuts.items()
        },
    }


def steps_of(
    net: nn.Module, image: np.ndarray, tags: tuple[bool, ...], config: TrainConfig, long_side: int | None
) -> dict[str, np.ndarray]:
    """What the network makes of one image (H, W, 3) uint8 under tags (K-1,), at the size that it sees.

    masks, refined: (K, h, w) in [0, 1], 0 for classes without a tag; pseudo: (h, w), 255 = no label;
    prediction: (h, w), by its own tags.
    """
    device = next(net.parameters()).device
    batch = normalise(shrink(image, long_side))[None].to(device)
    steps = supervision_steps(net, batch, torch.tensor([tags], dtype=torch.float32, device=device), config)
    training = net.training
    masks, scores = predict_view(net.eval(), batch, None, config.precision == "bf16")
    net.train(training)
    present = probabilities(scores[0].float().cpu().numpy()) > SCORE_CUT
    chosen = {key: steps[key][0] for key in ("masks", "refined", "pseudo")}
    return chosen | {"prediction": label_map(masks[0].cpu().numpy(), present)}


def labels_of(steps: dict[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """{kind: class indices `size` (H, W), 255 = no label} of what `steps_of` returns."""
    labels = {
        "cam": steps["masks"].argmax(0),
        "refined_cam": steps["refined"].argmax(0),
        "pseudo_labels": steps["pseudo"],
        "prediction": steps["prediction"],
    }
    return {kind: at_size(each.astype(np.uint8), size) for kind, each in labels.items()}


def quality_over_training(
    run: Path,
    manifest: Manifest,
    config: TrainConfig,
    limit: int | None = None,
    long_side: int | None = None,
    device="cpu",
) -> pd.DataFrame:
    """`pseudo_label_quality` of all snapshots of a run: epoch (finished), KINDS in 0..1, pseudo_coverage.

    The validation keeps a snapshot where it is the best so far; the setting `snapshot_every` keeps more.
    """
    paths = sorted((run / "checkpoints").glob("*.safetensors"))
    if not paths:
        raise CheckpointError(f"no snapshot in {run / 'checkpoints'}: train the run with 02_train first")
    rows = {}
    for path in paths:
        net, _, facts = load_snapshot(path)
        if facts["epoch"] not in rows:
            rows[facts["epoch"]] = pseudo_label_quality(net.to(device), manifest, config, limit, long_side)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*KINDS, "pseudo_coverage"])
    return table.sort_index().rename_axis("epoch").reset_index()
