"""What tests share: small data sets, networks and runs, made by functions."""

import csv
import io
import json
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_array

from published import published_state
from wsfcn_lib.checkpoints import (
    find_snapshot,
    load_snapshot,
)
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.images import read_image
from wsfcn_lib.data.manifest import ClassInfo, Sample, write_manifest
from wsfcn_lib.evaluation.scoring import EvalSettings
from wsfcn_lib.infer import predict_masks, probabilities
from wsfcn_lib.network import NetOutput
from wsfcn_lib.plots.saving import to_png
from wsfcn_lib.postprocess import crf, crf_available
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.train import train

SETTINGS = {
    "backbone": "tiny",
    "width": 16,
    "dilations": (1, 2, 4, 6),
    "epochs": 3,
    "warmup_epochs": 1,
    "batch_size": 8,
    "crop": 48,
    "optimiser": "adamw",
    "device": "cpu",
    "workers": 0,
    "log_every": 2,
}


def settings(data, **changes):
    return TrainConfig(data=str(data), **SETTINGS | changes)


def weights(run, which="last"):
    return load_snapshot(find_snapshot(run, which))[0].state_dict()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# a GPU adds in another order each time: two trainings that ran through differ too
RESUMED_LOSSES, RESUMED_MAP = 0.05, 0.1  # relative, of each row's losses; absolute, of the validation's mAP


def resume_differences(config, folder):
    """Largest differences of a training that was interrupted in epoch 1 from one that was not.

    Of all losses in the rows of both logs, relative to the loss and 0.02 at least, and of mAP.
    """
    whole = list(train(config, folder / "whole"))
    begun = []
    for row in train(config, folder / "parts"):
        begun.append(row)
        if row["epoch"] == 1:  # the state after epoch 0 is there, some steps beyond it are lost
            break
    rows = [row for row in begun if row["epoch"] == 0] + list(train(config, folder / "parts"))
    assert [row["step"] for row in rows] == [row["step"] for row in whole]
    losses, mean_ap = [], []
    for one, other in zip(rows, whole, strict=True):
        for name in {"classification_loss", "mask_loss", "val_loss"} & other.keys():
            losses.append(abs(one[name] - other[name]) / max(abs(other[name]), 0.02))
        if "val_map" in other:
            mean_ap.append(abs(one["val_map"] - other["val_map"]))
    return max(losses), max(mean_ap)


def without_times(rows):
    return [{k: v for k, v in row.items() if k not in ("images_per_second", "stall")} for row in rows]


def log_of(run):
    with open(run / "log.csv", newline="") as file:
        return without_times(csv.DictReader(file))


NAMES, SIZE = ("background", "cat", "dog", "cow"), (20, 26)


CLASSES = tuple(ClassInfo(name=n, mask_id=i, colour=(i, 200, 9)) for n, i in zip(NAMES[1:], (3, 7, 200)))


ID_OF = {0: 0, 1: 3, 2: 7, 3: 200, 255: 255}


QUICK = EvalSettings(images="test", scales=(1.0, 1.5), use_crf=False)


needs_crf = pytest.mark.skipif(
    not crf_available(), reason="pydensecrf2 is not installed (needs g++ and python3-dev)"
)


class Painter(torch.nn.Module):
    """A network that knows colours: masks and scores are fixed linear maps of the pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.paint = torch.nn.Conv2d(3, 4, 1)

    def forward(self, images):
        logits = 2 * self.paint(torch.nn.functional.avg_pool2d(images, 4))
        return NetOutput(logits, logits.softmax(1), 6 * logits.softmax(1)[:, 1:].mean((2, 3)) - 3.5)


def folder_of(path, count=5, masked=range(5), size=SIZE):
    """A manifest of coarse random pictures; those in `masked` have masks, which ignore some pixels."""
    rng, samples = np.random.default_rng(4), []
    for k in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (4, 5, 3), np.uint8))
        coarse.resize(SIZE[::-1]).save(path / f"p{k}.jpg")
        truth = (
            rng.choice([0, 1, 2, 255] if k else [0, 3], (4, 5))
            .repeat(7, 0)
            .repeat(6, 1)[: size[0], : size[1]]
        )
        Image.fromarray(np.vectorize(ID_OF.get)(truth).astype(np.uint8)).save(path / f"p{k}.png")
        tags = tuple(bool((truth == c).any()) for c in (1, 2, 3))
        samples.append(Sample(f"p{k}", path / f"p{k}.jpg", tags, path / f"p{k}.png" if k in masked else None))
    return write_manifest(path / "prepared", CLASSES, {"train": samples[1:], "test": samples[::-1]})


def slow_labels(net, manifest, sample, settings, variant):
    """Labels of one image by the rule as the method writes it, pixel after pixel."""
    image = np.array(read_image(sample.image))
    masks, scores = predict_masks(net, image, settings.scales, settings.flip)
    tags = np.array(sample.tags) if variant.tags == "true" else probabilities(scores) > settings.score_cut
    if variant.crf:
        return crf(image, masks, tags, variant.recipe)
    labels = np.zeros(image.shape[:2], int)
    for y, x in np.ndindex(labels.shape):
        strengths = {0: 0.25 if variant.recipe == "wsfcn" else masks[0, y, x] ** 3}
        strengths |= {c: masks[c, y, x] for c in (1, 2, 3) if tags[c - 1]}
        labels[y, x] = max(strengths, key=strengths.get)
    return labels


def slow_iou(pairs):
    """{class: intersection over union or None} over (labels, truth) pairs, counted pixel after pixel."""
    both, either = dict.fromkeys(range(4), 0), dict.fromkeys(range(4), 0)
    for labels, truth in pairs:
        for a, b in zip(labels.ravel(), truth.ravel()):
            if b != 255:
                both[int(a)] += a == b
                for c in {int(a), int(b)}:
                    either[c] += 1
    return {c: both[c] / either[c] if either[c] else None for c in range(4)}


def mean(iou):
    known = [value for value in iou.values() if value is not None]
    return sum(known) / len(known)


def to_rgb(figure, dpi=100):
    return np.asarray(Image.open(io.BytesIO(to_png(figure, dpi))).convert("RGB"))


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def rows_of(figure):
    """The pictures (H, W, 3) of a panel of tiles, row by row; None where an axis is empty."""
    columns = figure.axes[0].get_gridspec().ncols
    drawn = [np.asarray(axis.images[0].get_array()) if axis.images else None for axis in figure.axes]
    return [drawn[k : k + columns] for k in range(0, len(drawn), columns)]


BIRD = 3


SOURCES = {
    "wsfcn": ("state_dicts", {}),
    "1stage": ("state_dicts_1stage", {"context": "aspp", "fusion": "gci"}),
}


def released_file(path, backbone="resnet38", system="wsfcn", change=dict):
    """A file with the names and shapes of the published one, as its trainer saves it, in a few hundred KB.

    Each tensor repeats one number, which keeps the features near 1, but for the last bias: it sees birds everywhere.
    """
    shapes = change(published_state(SOURCES[system][0])[f"{backbone}/ae"]["state"])
    state = {}
    for name, shape in shapes.items():
        kind = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        state[f"module.{name}"] = torch.tensor(1 / max(1, int(np.prod(shape[1:]))), dtype=kind).expand(shape)
    if "last_conv.8.bias" in shapes:
        state["module.last_conv.8.bias"] = torch.where(
            torch.arange(shapes["last_conv.8.bias"][0]) == BIRD - 1, 9.0, -9.0
        )
    torch.save(state, path)
    return path


MARK = "TRAINING_TO_BE_KILLED"


def family(run):
    """All processes of a training, with its loaders and those that a launcher started: they share a mark."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{MARK}={run}\0".encode() in path.read_bytes():
                yield int(path.parent.name)


def kill(process, run):
    """SIGKILL to all of them at once, so that nobody can tidy up; whether there was something to kill."""
    while found := [*family(run)]:  # some may be born meanwhile
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
    return process.wait() == -signal.SIGKILL


def until(process, condition, limit=120):
    """Wait until something holds or the process has ended."""
    end = time.monotonic() + limit
    while process.poll() is None and not condition():
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.0005)


SMOKE = ROOT / "notebooks" / "params" / "smoke.yaml"


RUN_ALL = [sys.executable, str(ROOT / "notebooks" / "run_all.py")]


@contextmanager
def replaced(owner, name, value):
    """Set an attribute for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


WIDTH, HEIGHT = 30, 20


CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]


PERSON, SIGN, BRUSH = 1, 13, 90


def box(category, left, top, right, bottom, area=None, crowd=False):
    """An annotation of the pixels left..right-1, top..bottom-1; a crowd is written as run lengths, column after column."""
    if crowd:
        inside = np.zeros((HEIGHT, WIDTH), int)
        inside[top:bottom, left:right] = 1
        flat = inside.T.ravel()
        edges = np.flatnonzero(np.diff(np.r_[0, flat, 1 - flat[-1]]))
        outline = {"counts": np.diff(np.r_[0, edges]).tolist(), "size": [HEIGHT, WIDTH]}
    else:
        outline = [[left, top, right, top, right, bottom, left, bottom]]
    area = area or (right - left) * (bottom - top)
    return {"category_id": category, "segmentation": outline, "area": area, "iscrowd": int(crowd)}


def annotate(root, split, pictures, categories=CATEGORIES):
    """Write <split>'s annotation file: {number: annotations}, and a picture for each number, as COCO names them."""
    images, annotations = [], []
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / f"{split}2014").mkdir(exist_ok=True)
    for number, found in pictures.items():
        name = f"COCO_{split}2014_{number:012d}.jpg"
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        annotations += [{"id": len(annotations) + k, "image_id": number, **a} for k, a in enumerate(found)]
        Image.new("RGB", (WIDTH, HEIGHT), (number, 90, 90)).save(root / f"{split}2014" / name)
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = root / "annotations" / f"instances_{split}2014.json"
    path.write_text(json.dumps(content))
    return path


def picture(path, value=None):
    """A picture of its own colour, unless one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = tuple(os.urandom(3)) if value is None else (value,) * 3
    Image.new("RGB", (6, 5), colour).save(path)
    return path


def mask(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(np.uint8(ids), (5, 6))).save(path)
    return path


def table(root, *lines, header="image,tags", encoding="utf-8"):
    """Write tags.csv, and every picture that it names and that is not there."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "tags.csv").write_text("\n".join([header, *lines]) + "\n", encoding=encoding)
    for line in lines:
        path = root / line.split(",")[0].replace("\\", "/")
        if path.suffix and not path.exists():
            picture(path)
    return root


IDS = {"b": [0, 1], "s1": [0, 12], "s2": [15, 20], "s3": [7], "d": [3]}  # mask ids of SBD's images


def make_voc(base: Path) -> Path:
    """VOC: a and b in train, d in val; s1 among its photographs."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    for name in ("a", "b", "d", "s1"):
        Image.new("RGB", (6, 5), (90, 90, 90)).save(base / f"JPEGImages/{name}.jpg")
    for name, ids in {"a": [0, 8], "b": [0, 255, 12], "d": [15, 8]}.items():
        Image.fromarray(np.resize(np.uint8(ids), (5, 6))).save(base / f"SegmentationClass/{name}.png")
    (base / "ImageSets/Segmentation/train.txt").write_text("b\na\n")
    (base / "ImageSets/Segmentation/val.txt").write_text("d\n")
    return base


def make_mat(path: Path, ids) -> None:
    """One of SBD's files: sparse boundaries per class, the mask, and the list of classes."""
    boundaries = np.empty((20, 1), object)
    boundaries[:, 0] = [csc_array((5, 6), dtype=float) for _ in range(20)]
    struct = {"Boundaries": boundaries, "Segmentation": ids, "CategoriesPresent": np.uint8([[1]])}
    savemat(path, {"GTcls": struct}, do_compression=True)


def make_sbd(base: Path) -> Path:
    """SBD: VOC's b (train) and d (val) are in its lists too."""
    for folder in ("cls", "img"):
        (base / folder).mkdir(parents=True)
    for name, ids in IDS.items():
        make_mat(base / f"cls/{name}.mat", np.resize(np.uint8(ids), (5, 6)))
        Image.new("RGB", (6, 5), (60, 60, 60)).save(base / f"img/{name}.jpg")
    (base / "train.txt").write_text("s2\ns1\nd\n")
    (base / "val.txt").write_text("s3\nb\n")
    return base
