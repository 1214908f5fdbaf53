"""A small finished run for the explorers' tests: five scenes, an untrained network, its evaluation."""

import csv
import io
import json
import shutil

import numpy as np
import torch
from PIL import Image

from wsfcn_lib.checkpoints import save_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.images import read_mask
from wsfcn_lib.data.manifest import ClassInfo, Sample, write_manifest
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.explore.layers import class_iou
from wsfcn_lib.network import build_network
from wsfcn_lib.postprocess import crf_available
from wsfcn_lib.runs.folder import RunFolder

CLASSES = tuple(
    ClassInfo(name=n, mask_id=i, colour=c) for n, i, c in (("cat", 8, (64, 0, 0)), ("dog", 12, (64, 0, 128)))
)
SIZE = (48, 64)  # height, width
NETWORK = {"backbone": "tiny", "width": 16, "dilations": (1, 2, 3, 4)}


def make_run(folder, evaluated=True, masked=True):
    """The run folder and its manifest: split val, of a to e, where c holds both classes and e none."""
    rng, samples = np.random.default_rng(0), []
    for name, tags in zip("abcde", ((1, 0), (0, 1), (1, 1), (1, 0), (0, 0))):
        picture, mask = rng.integers(0, 60, (*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
        for c in np.flatnonzero(tags):
            place = slice(8, 40), slice(4 + 30 * c, 28 + 30 * c)
            picture[place], mask[place] = (220, 60 + 120 * c, 40), CLASSES[c].mask_id
        mask[0] = 255
        Image.fromarray(picture).save(folder / f"{name}.png")
        Image.fromarray(mask).save(folder / f"{name}_mask.png")
        samples.append(
            Sample(
                name,
                folder / f"{name}.png",
                tuple(map(bool, tags)),
                folder / f"{name}_mask.png" if masked else None,
            )
        )
    manifest = write_manifest(folder / "prepared", CLASSES, {"val": samples})
    config = TrainConfig(**NETWORK, data=str(manifest.folder), device="cpu")
    torch.manual_seed(1)
    net = build_network(config.network(num_classes=3)).eval()
    torch.manual_seed(3)  # so drawn, it sees both classes everywhere, now one stronger and now the other
    torch.nn.init.normal_(net.head[-1].weight, std=0.02)
    run = folder / "run"
    with RunFolder.open(run, config.model_dump(), "02_train") as opened:
        opened.record("02_train", finished=True)
    (run / "checkpoints").mkdir()
    save_snapshot(
        net, run / "checkpoints" / "last.safetensors", [info.model_dump() for info in CLASSES], epoch=0
    )
    if evaluated:
        settings = EvalSettings(images="val", scales=(1.0,), flip=False, use_crf=crf_available(), processes=1)
        evaluate(net, manifest, settings, run)
    return run, manifest


def make_better(run, manifest):
    """A copy of the run beside it that paints the truth, but misses a class in d."""
    better = shutil.copytree(run, run.with_name("better"))
    rows = []
    for sample in manifest.samples("val"):
        mask = np.array(Image.open(sample.mask))
        mask[mask == 255] = 0
        if sample.name == "d":
            mask[:, :40] = 0
        path = better / "masks" / "val" / f"{sample.name}.png"
        Image.fromarray(mask).save(path)
        iou = class_iou(read_mask(path, manifest), read_mask(sample.mask, manifest), 3)
        rows.append((sample.name, np.nanmean(iou)))
    with (better / "per_image.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "iou"), *rows])
    metrics = json.loads((better / "metrics.json").read_text())
    metrics["per_class_iou"] |= {"background": 1.0, "cat": 0.5, "dog": 1.0}
    (better / "metrics.json").write_text(json.dumps(metrics))
    return better


def listed(explorer):
    """The images in the list, in its order."""
    return [name for _, name in explorer.controls["image"].options]


def differ(before, after):
    """Whether two pictures differ, in size or in a pixel."""
    return before.shape != after.shape or bool((before != after).any())


def decoded(explorer):
    """The pixels that a page shows."""
    return np.asarray(Image.open(io.BytesIO(explorer.image.value)))


def moved(control):
    """Another value that a control can have."""
    if hasattr(control, "options"):
        values = (
            [value for _, value in control.options]
            if isinstance(control.options[0], tuple)
            else list(control.options)
        )
        return values[(values.index(control.value) + 1) % len(values)]
    if isinstance(control.value, bool):
        return not control.value
    return control.min if control.value > (control.min + control.max) / 2 else control.max
