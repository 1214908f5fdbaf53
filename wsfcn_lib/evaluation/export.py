"""Masks and CAMs as files: of training pictures under true tags, to train a second network on; or of any."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn

from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import save_mask
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.evaluation.inputs import none_opens, passed_over, read_images, samples_of
from wsfcn_lib.evaluation.results import PostProcessing
from wsfcn_lib.evaluation.scoring import EvalSettings, Prediction, add_labels, predict_image
from wsfcn_lib.infer import at_size
from wsfcn_lib.runs.folder import RunFolder
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write

STAGE = "export"
MASKS = {"true": "pseudo_masks", "predicted": "masks"}  # tags -> folder


def export_training(
    net: nn.Module, manifest: Manifest, settings: EvalSettings, folder: Path | str, cams: bool = True
) -> int:
    """Export the training pictures under their true tags, see `export`.

    Needs no ground truth: folder/pseudo_masks/<name>.png and, with `cams`, folder/cams/<name>.npz.
    """
    return export(net, manifest, settings.model_copy(update={"images": "train"}), folder, "true", cams)


def export(
    net: nn.Module,
    manifest: Manifest,
    settings: EvalSettings,
    folder: Path | str,
    tags: str = "predicted",
    cams: bool = True,
) -> int:
    """Write masks and CAMs of pictures into a folder of their own, but for those that are there already.

    masks/<name>.png (pseudo_masks/ under true tags) are palette pictures of mask ids, every pixel labelled by
    the recipe and, with settings.use_crf, the CRF. cams/<name>.npz holds `classes` (n,) uint8, the present
    ones in 1..K-1, and `cams` (n, H, W) float16 in [0, 1], their masks fused over the views, before any
    background rule. All have the size of their picture, also where the network saw it shrunk to
    settings.long_side. run.json holds the settings, and in `left_out` the pictures of a folder that cannot be
    opened, in `passed_over` its files that are no pictures.

    Args:
        net: a network in evaluation mode.
        manifest: knows the classes.
        settings: pictures, views, recipe, CRF; `snapshot` is not looked at.
        folder: created; relative to the repository.
        tags: "true" or "predicted", which classes are present.
        cams: whether to write cams/.

    Returns the number of pictures worked on. Raises RunError for a folder begun with another network or other
    settings.
    """
    if tags not in MASKS:
        raise ValueError(f"tags is {tags!r}; it must be one of {', '.join(map(repr, MASKS))}")
    samples = samples_of(settings.images, manifest)
    if tags == "true" and not any(any(sample.tags) for sample in samples):
        raise DataError(
            f"no picture of images={settings.images!r} has a tag; tag them, or use tags='predicted'"
        )
    asked = settings.model_dump(exclude={"images", "snapshot", "processes"})
    asked |= {"tags": tags, "weights": fingerprint(net), "classes": manifest.names[1:]}
    chosen = PostProcessing(settings.recipe, settings.use_crf, tags)
    with RunFolder.open(folder, asked, STAGE, str(next(net.parameters()).device)) as run:
        masks_folder, cams_folder = run.path / MASKS[tags], run.path / "cams"
        # files are renamed into place when complete: what is there is whole
        masked = {path.stem for path in masks_folder.glob("*.png")}
        done = masked & {path.stem for path in cams_folder.glob("*.npz")} if cams else masked
        todo = [sample for sample in samples if sample.name not in done]
        left_out = []

        def predictions() -> Iterator[Prediction]:
            images = read_images(settings.images, todo, left_out, part=True)
            for sample, image in progress(images, "export", len(todo)):
                prediction = predict_image(net, sample, image, settings, [chosen])
                if cams:
                    path = cams_folder / f"{sample.name}.npz"
                    save_cams(path, prediction.masks, prediction.result.tags[tags], image.shape[:2])
                if sample.name not in masked:
                    yield prediction

        for result in add_labels(predictions(), settings):
            save_mask(masks_folder / f"{result.sample.name}.png", result.labels[chosen], manifest)
        if left_out and len(left_out) == len(samples):
            raise none_opens(settings.images, left_out)
        run.record(STAGE, finished=True, left_out=left_out, passed_over=passed_over(settings.images))
    return len(todo) - len(left_out)


def save_cams(path: Path, masks: np.ndarray, tags: np.ndarray, size: tuple[int, int]) -> None:
    """Write the masks (K, h, w) of the classes in `tags` (K-1,) at another size, see `export`."""
    classes = 1 + np.flatnonzero(tags).astype(np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, cams=at_size(masks[classes], size).astype(np.float16), classes=classes)
    atomic_write(path, stream.getvalue())


def fingerprint(net: nn.Module) -> str:
    """16 hex digits that change with any weight."""
    digest = hashlib.sha256()
    for value in net.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
