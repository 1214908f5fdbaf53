"""Notebook 05 on what people bring: released weights, lists, folders of pictures, masks of others; and what it exports."""

import json
import subprocess
import sys
import tarfile

import nbformat
import numpy as np
import papermill
import pytest
import torch
import yaml
from PIL import Image

from factories import BIRD, released_file
from wsfcn_lib.checkpoints import save_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.images import read_mask, save_mask
from wsfcn_lib.data.manifest import Sample, write_manifest
from wsfcn_lib.data.model_zoo import ARTEFACTS
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.evaluation.mask_archives import SERVER_FOLDER
from wsfcn_lib.network import build_network
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.paths import ROOT

NOTEBOOK = ROOT / "notebooks" / "05_evaluate.ipynb"
SIZE = (40, 32)  # height, width
pytestmark = pytest.mark.notebooks


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """VOC's classes; two training and two validation pictures of noise, of which all or the left half is a bird."""
    home = tmp_path_factory.mktemp("voc")
    rng, samples = np.random.default_rng(0), []
    tags = tuple(c == BIRD for c in range(1, 21))
    for name, width in (("a", 32), ("b", 16), ("c", 32), ("d", 16)):
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(home / f"{name}.jpg")
        labels = np.zeros(SIZE, np.uint8)
        labels[:, :width] = BIRD
        Image.fromarray(labels).save(home / f"{name}.png")
        samples.append(Sample(name, home / f"{name}.jpg", tags, home / f"{name}.png"))
    return write_manifest(home / "prepared", voc_classes(), {"train": samples[:2], "val": samples[2:]})


@pytest.fixture(scope="module")
def run(tmp_path_factory, manifest):
    """A run as 02_train leaves it, with an untrained network and the numbers of an earlier evaluation."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    config = TrainConfig(
        data=str(manifest.folder), backbone="tiny", width=16, dilations=(1, 2, 3, 4), device="cpu"
    )
    with RunFolder.open(run, config.model_dump(), "02_train") as folder:
        (run / "checkpoints").mkdir()
        torch.manual_seed(0)
        net = build_network(config.network(manifest.num_classes))
        save_snapshot(
            net,
            run / "checkpoints" / "last.safetensors",
            [info.model_dump() for info in manifest.classes],
            epoch=3,
        )
        folder.record("02_train", finished=True)
    for name in ("metrics.json", "per_image.csv", "scores.csv"):
        (run / name).write_text("{}")
    return run


def said(executed):
    """All that an executed notebook printed and showed as text; fails where it complained."""
    outputs = [output for cell in nbformat.read(executed, 4).cells for output in cell.get("outputs", ())]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def evaluated(tmp_path, run, **given):
    given |= {
        "run": str(run),
        "snapshot": "last",
        "scales": [1.0],
        "device": "cpu",
        "count": 1,
        "processes": 1,
    }
    papermill.execute_notebook(NOTEBOOK, tmp_path / "out.ipynb", given, cwd=tmp_path, progress_bar=False)
    for name in ("metrics.json", "per_image.csv", "scores.csv"):
        assert (run / name).read_text() == "{}", "these belong to splits"
    return said(tmp_path / "out.ipynb")


def test_released_weights_masks_of_others_and_the_server_archive(tmp_path, manifest):
    """The weights see birds everywhere: 1.5 of 2 pictures are right, so birds have an IoU of 0.75 and background of 0."""
    weights = released_file(tmp_path / ARTEFACTS["wsfcn"].file, backbone="vgg16")
    with tarfile.open(tmp_path / "theirs.tar", "w") as archive:
        for sample in manifest.samples("val"):
            archive.add(sample.mask, f"deep/{sample.name}.png")
    given = {
        "snapshot": str(weights),
        "data": str(manifest.folder),
        "images": "val",
        "canvas": 96,
        "use_crf": False,
    }
    given |= {"masks": str(tmp_path / "theirs.tar"), "export": "server", "device": "cpu"}
    (tmp_path / "released.yaml").write_text(yaml.safe_dump(given))
    run, command = tmp_path / "run", [sys.executable, str(ROOT / "notebooks" / "run_all.py"), "--only", "05"]
    command += ["--params", str(tmp_path / "released.yaml"), "--run-name", str(run)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words, metrics = said(run / "notebooks" / NOTEBOOK.name), json.loads((run / "metrics.json").read_text())
    assert (
        "it belongs to recipe wsfcn, canvas 1024; published mIoU of VOC 2012: val 61.57, val crf 63.23, test 62.3"
        in words
    )
    assert "predicted tags: 37.50, -24.07 from the published 61.57" in words
    assert "on 2 of 1449 images, canvas 96, scales (1.0, 0.5, 1.5, 2.0)" in words
    assert (metrics["mean_iou"], metrics["recipe"], metrics["split"], metrics["mean_iou_crf"]) == (
        0.375,
        "wsfcn",
        "val",
        None,
    )
    theirs = json.loads((run / "metrics_masks.json").read_text())
    assert (theirs["mean_iou"], theirs["images"], theirs["missing"]) == (1, 2, 0)
    assert "this run 37.50, theirs.tar 100.00" in words
    with tarfile.open(run / "comp6_test_cls.tar.gz") as archive:
        assert archive.getnames() == [f"{SERVER_FOLDER}/{name}.png" for name in "cd"]
        picture = Image.open(archive.extractfile(archive.getnames()[0]))
        assert picture.mode == "P" and (np.asarray(picture) == BIRD).all()
    stage = read_run(run)["stages"]["05_evaluate"]
    assert stage["weights"] == weights.name and stage["finished"] and stage["data"] == manifest.checksums()


def test_a_folder_of_pictures(tmp_path, run):
    (tmp_path / "holiday").mkdir()
    for name, size in (("beach.jpg", (30, 40, 3)), ("dog.png", (90, 60, 3))):
        Image.fromarray(np.random.default_rng(1).integers(0, 256, size, np.uint8)).save(
            tmp_path / "holiday" / name
        )
    words = evaluated(
        tmp_path,
        run,
        images=str(tmp_path / "holiday"),
        long_side=48,
        picture=str(tmp_path / "holiday/dog.png"),
    )
    assert "last, after 3 epochs: fca + sf2 on tiny; 2 images of holiday" in words
    assert "none has a mask" in words and "2 images of holiday, 21 classes" in words
    assert "left out" not in words and "pseudo labels cover" not in words, "what is not asked for is not told"
    metrics = json.loads((run / "metrics_holiday.json").read_text())
    assert (
        metrics["images"] == 2
        and metrics["mean_iou"] is None
        and metrics["source"] == str(tmp_path / "holiday")
    )
    for folder in ("holiday", "holiday_crf"):
        sizes = {path.name: Image.open(path).size for path in (run / "masks" / folder).iterdir()}
        assert sizes == {"beach.png": (40, 30), "dog.png": (60, 90)}
    figures = {path.name for path in (run / "figures").glob("*.png")}
    assert figures == {
        f"{name}_holiday.png" for name in ("best-worst", "explorer-masks", "segment", "shipped")
    }
    assert (run / "per_image_holiday.csv").exists() and (run / "scores_holiday.csv").exists()


def test_a_list_the_supervision_and_the_training_export(tmp_path, run, manifest):
    (tmp_path / "dev.txt").write_text("d\na\n")
    for name in "ad":
        save_mask(tmp_path / "theirs" / "crf" / f"{name}.png", np.zeros(SIZE, np.uint8), manifest)
        save_mask(tmp_path / "theirs" / f"{name}.png", np.full(SIZE, BIRD, np.uint8), manifest)
    given = {"images": str(tmp_path / "dev.txt"), "recipe": "1stage", "use_crf": False, "quality_images": -1}
    words = evaluated(tmp_path, run, **given, export="training", masks=str(tmp_path / "theirs"), inside="crf")
    metrics = json.loads((run / "metrics_dev.json").read_text())
    assert (metrics["images"], metrics["split"], metrics["recipe"]) == (2, "dev", "1stage") and metrics[
        "mean_iou"
    ] is not None
    quality = metrics["training"]
    assert (
        quality["images"] == 2
        and {"cam", "refined_cam", "pseudo_labels", "pseudo_coverage"} <= quality.keys()
    )
    assert f"2 training images; pseudo labels cover {100 * quality['pseudo_coverage']:.1f} %" in words
    assert "theirs 12.50" in words  # background 0.25, bird 0
    written = [path.name for path in sorted((run / "training_masks").glob("*/*.*"))]
    assert written == ["a.npz", "b.npz", "a.png", "b.png"] and "2 written now" in words
    assert set(np.unique(read_mask(run / "training_masks" / "pseudo_masks" / "a.png", manifest))) <= {0, BIRD}
