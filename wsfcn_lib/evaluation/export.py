"""Masks and CAMs as files: of training pictures under their true tags, what people train a second network on; or of any."""

import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn
from tqdm import tqdm

from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_image, save_mask
from wsfcn_lib.data.manifest import Manifest, Sample
from wsfcn_lib.evaluation.inputs import readable, samples_of
from wsfcn_lib.evaluation.scoring import EvalSettings
from wsfcn_lib.infer import at_size, predict_masks, probabilities, shrink
from wsfcn_lib.postprocess import crf_many, label_map
from wsfcn_lib.runs.folder import RunFolder
from wsfcn_lib.runs.storage import atomic_write

STAGE = "export"
MASKS = {"true": "pseudo_masks", "predicted": "masks"}  # tags -> folder


def export_training(
    net: nn.Module,
    manifest: Manifest,
    settings: EvalSettings,
    folder: Path | str,
    cams: bool = True,
    crf: bool | None = None,
) -> int:
    """Export the training pictures under their true tags, see `export`; `crf` None: as settings.use_crf says.

    Needs no ground truth: folder/pseudo_masks/<name>.png and, with `cams`, folder/cams/<name>.npz.
    """
    changes = {"images": "train"} | ({} if crf is None else {"use_crf": crf})
    return export(net, manifest, settings.model_copy(update=changes), folder, "true", cams)


def export(
    net: nn.Module,
    manifest: Manifest,
    settings: EvalSettings,
    folder: Path | str,
    tags: str = "predicted",
    cams: bool = True,
) -> int:
    """Write masks and CAMs of pictures into a folder of their own. What is there is skipped, so it goes on where it stopped.

    masks/<name>.png (pseudo_masks/ under true tags) are palette pictures of mask ids, every pixel labelled by the recipe
    and, with settings.use_crf, the CRF. cams/<name>.npz holds `classes` (n,) uint8, the present ones in 1..K-1, and `cams`
    (n, H, W) float16 in [0, 1], their masks fused over the views, before any background rule. All have the size of their
    picture, also where the network saw it shrunk to settings.long_side. run.json holds the settings, and in `left_out` the
    pictures of a folder that cannot be opened.

    Args:
        net: a network in evaluation mode.
        manifest: knows the classes.
        settings: pictures, views, recipe, CRF; `snapshot` is not looked at.
        folder: created; relative to the repository.
        tags: "true" or "predicted", which classes are present.
        cams: whether to write cams/.

    Returns the number of pictures worked on. Raises RunError for a folder begun with another network or other settings.
    """
    if tags not in MASKS:
        raise ValueError(f"tags is {tags!r}; it must be one of {', '.join(map(repr, MASKS))}")
    asked = settings.model_dump(exclude={"images", "snapshot", "processes"})
    asked |= {"tags": tags, "weights": fingerprint(net), "classes": manifest.names[1:]}
    samples = [*readable(settings.images, samples_of(settings.images, manifest), bad := [])]
    if tags == "true" and not any(map(any, (sample.tags for sample in samples))):
        raise DataError(
            f"no picture of images={settings.images!r} has a tag; tag them, or use tags='predicted'"
        )
    with RunFolder.open(folder, asked, STAGE, str(next(net.parameters()).device)) as run:
        masks, sizes = run.path / MASKS[tags], {}
        todo = [
            s
            for s in samples
            if not _whole(masks, s, "png") or cams and not _whole(run.path / "cams", s, "npz")
        ]
        jobs = _jobs(net, todo, settings, tags, run.path, cams, sizes)
        if settings.use_crf:
            results = crf_many(jobs, settings.processes)
        else:
            results = ((name, label_map(maps, present, recipe)) for name, _, maps, present, recipe in jobs)
        for name, labels in results:
            save_mask(masks / f"{name}.png", at_size(labels, sizes.pop(name)), manifest)
        run.record(STAGE, finished=True, left_out=bad)
    return len(todo)


def _jobs(
    net: nn.Module,
    todo: list[Sample],
    settings: EvalSettings,
    tags: str,
    folder: Path,
    cams: bool,
    sizes: dict,
) -> Iterator[tuple]:
    """Predict picture after picture, write its CAMs, and hand on what `crf_many` needs where the mask is still to be made.

    `sizes` is told the size (H, W) of each picture handed on.
    """
    for sample in tqdm(todo, "export", file=sys.stdout, mininterval=5, ncols=80):
        picture = read_image(sample.image)
        image, size = shrink(picture, settings.long_side), picture.shape[:2]
        maps, scores = predict_masks(
            net, image, settings.scales, settings.flip, settings.canvas or None, settings.bf16
        )
        present = (
            np.array(sample.tags, bool) if tags == "true" else probabilities(scores) > settings.score_cut
        )
        if cams:
            save_cams(folder / "cams" / f"{sample.name}.npz", maps, present, size)
        if not _whole(folder / MASKS[tags], sample, "png"):
            sizes[sample.name] = size
            yield sample.name, image, maps, present, settings.recipe


def _whole(folder: Path, sample: Sample, kind: str) -> bool:
    return (folder / f"{sample.name}.{kind}").exists()  # files are renamed into place when complete


def save_cams(path: Path, masks: np.ndarray, tags: np.ndarray, size: tuple[int, int]) -> None:
    """Write the masks (K, h, w) of the present classes as a compressed .npz: `cams` (n, *size) float16, `classes` (n,) uint8."""
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
