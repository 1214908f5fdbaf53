"""The way to released files: where they are looked for, how they are fetched, and what is said where they are not."""

import hashlib
import os
import re
import urllib.request
from typing import get_args
from urllib.error import URLError

import pytest
import torch
import torchvision

from wsfcn_lib import WSFCN, NetConfig
from wsfcn_lib.config import Backbone
from wsfcn_lib.data import downloads
from wsfcn_lib.data import model_zoo as artefacts
from wsfcn_lib.data.model_zoo import ARTEFACTS, WeightsError, initial_weights, table
from wsfcn_lib.weights import load_published

REAL = os.environ.get("WSFCN_WEIGHTS")
FP16 = "mobilenet_v2_imagenet_fp16.pth"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty repository without a network; its data/weights does not exist yet."""
    monkeypatch.delenv("WSFCN_WEIGHTS", raising=False)
    monkeypatch.setattr(artefacts, "ROOT", tmp_path)
    monkeypatch.setattr(downloads, "PAUSE", 0)

    def offline(request, timeout):
        raise URLError("no route to host")

    monkeypatch.setattr(downloads, "urlopen", offline)
    return tmp_path


def place(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("weights")
    return folder / name


def test_every_backbone_but_tiny_has_a_row():
    assert set(get_args(Backbone)) - {"tiny"} <= set(ARTEFACTS)
    assert len({row.file for row in ARTEFACTS.values()}) == len(ARTEFACTS), "one row per file"


def test_torchvision_rows_are_what_torchvision_says():
    models = torchvision.models
    enums = (
        models.ResNet50_Weights,
        models.ResNet101_Weights,
        models.MobileNet_V2_Weights,
        models.VGG16_Weights,
    )
    for key, enum in zip(("resnet50", "resnet101", "mobilenet_v2", "vgg16_torchvision"), enums):
        row, meta = ARTEFACTS[key], enum.IMAGENET1K_V1
        assert (row.source, row.mb) == (meta.url, round(meta.meta["_file_size"], 1))
        assert row.sha256 and row.file.endswith(f"-{row.sha256}.pth")


def test_the_table_is_for_people(root, monkeypatch):
    place(root / "data/weights", "model_enc_e018Xs0.905.pth")
    rows = {row["name"]: row for row in table()}
    assert list(rows["wsfcn"]) == ["name", "what", "file", "MB", "source", "folder", "there"]
    assert [name for name, row in rows.items() if row["there"] == "yes"] == ["wsfcn"]
    assert rows["wsfcn"]["MB"] == 565 and rows["wsfcn"]["source"].startswith(
        "by hand: https://drive.google.com"
    )
    assert rows["resnet38"]["source"].startswith(
        "https://download.visinf.tu-darmstadt.de/data/2020-cvpr-araslanov-1-stage-wseg/models/"
    )
    assert rows["1stage_val"]["folder"] == rows["wsfcn_val"]["folder"] == "data/raw/masks"
    checked = {name for name in rows if ARTEFACTS[name].sha256}
    assert checked == {"vgg16_torchvision", "resnet50", "resnet101", "mobilenet_v2"}


def test_the_named_folder_comes_first(root, monkeypatch):
    own = place(root / "data/weights", "resnet50-0676ba61.pth")
    assert initial_weights("resnet50") == own
    other = place(root / "mine", "resnet50-19c8e357.pth")
    monkeypatch.setenv("WSFCN_WEIGHTS", str(root / "mine"))
    assert initial_weights("resnet50") == other, (
        "another name of the file, in the folder that is looked at first"
    )
    place(root / "data/weights", "vgg16-397923af.pth")
    assert initial_weights("vgg16").name == initial_weights("vgg16_torchvision").name == "vgg16-397923af.pth"
    place(root / "data/weights", "vgg16_20M.pth")
    assert initial_weights("vgg16").name == "vgg16_20M.pth"
    monkeypatch.setenv("WSFCN_WEIGHTS", str(root / "nowhere"))
    with pytest.raises(
        WeightsError, match="WSFCN_WEIGHTS names .*nowhere, which is no folder; correct it, or unset it"
    ):
        initial_weights("resnet50")


def test_what_is_nowhere_is_downloaded_once_and_checked(root, monkeypatch):
    content, asked = b"weights of a backbone", []
    digits = hashlib.sha256(content).hexdigest()[:8]
    file = f"mobilenet_v2-{digits}.pth"
    place(root, "server.pth").write_bytes(content)

    def serve(request, timeout):
        asked.append(request.full_url)
        return urllib.request.urlopen((root / "server.pth").as_uri())

    monkeypatch.setattr(downloads, "urlopen", serve)
    monkeypatch.setitem(
        ARTEFACTS, "mobilenet_v2", artefacts._from("https://host/models/", "mobilenet_v2", file, "", 1)
    )
    path = initial_weights("mobilenet_v2")
    assert (
        path == initial_weights("mobilenet_v2") == root / "data/weights" / file
        and path.read_bytes() == content
    )
    assert asked == [f"https://host/models/{file}"]
    with pytest.raises(
        WeightsError,
        match=r"resnet50-0676ba61.pth came damaged: its sha256 is .*place resnet50-0676ba61.pth or",
    ):
        initial_weights("resnet50")
    assert [p.name for p in (root / "data/weights").iterdir()] == [file]


def test_without_a_network_the_place_is_named(root):
    with pytest.raises(WeightsError) as error:
        initial_weights("resnet38")
    file = "ilsvrc-cls_rna-a1_cls1000_ep-0001.pth"
    for said in (
        "no route to host",
        f"place {file} (402 MB, {ARTEFACTS['resnet38'].source}) in data/weights",
        "WSFCN_WEIGHTS",
    ):
        assert said in str(error.value)
    with pytest.raises(
        WeightsError,
        match=rf"no file for 'mobilenet_v2': place mobilenet_v2-b0353104.pth or {FP16} \(13.6 MB",
    ):
        initial_weights("mobilenet_v2", download=False)


def test_files_behind_a_drive_are_fetched_by_hand(root):
    with pytest.raises(
        WeightsError,
        match=r"no file for 'wsfcn': place model_enc_e018Xs0.905.pth \(565 MB, by hand: https://drive",
    ):
        initial_weights("wsfcn")
    archive = place(root / "data/raw/masks", "val_results.tar")
    assert initial_weights("wsfcn_val") == archive


def test_paths_and_wrong_names(root, monkeypatch):
    path = place(root / "data/weights", "mine.pth")
    assert (
        initial_weights(path)
        == initial_weights(str(path))
        == initial_weights("data/weights/mine.pth")
        == path
    )
    monkeypatch.chdir(path.parent)
    assert initial_weights("mine.pth") == path
    for wrong in ("resnet83", "data/weights", "", root / "absent.pth"):
        message = f"{re.escape(repr(str(wrong)))} is no file and no name of released weights; the names are resnet38, vgg16, .*1stage"
        with pytest.raises(WeightsError, match=message):
            initial_weights(wrong)
    with pytest.raises(
        WeightsError,
        match="tiny has no initial weights: it is trained from nothing; leave initial_weights empty",
    ):
        initial_weights("tiny")


def small():
    return WSFCN(NetConfig(backbone="mobilenet_v2", width=64, num_classes=7))


def filled(net, path):
    """Load a file of MobileNetV2 and see that the backbone holds it in single precision."""
    left = load_published(net, path)
    assert left and not any(name.startswith("backbone.") for name in left)
    source = torch.load(path, weights_only=True)
    for name, value in net.backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, source[name].float()), name
    return all(
        value.dtype == torch.float32 for value in net.state_dict().values() if value.is_floating_point()
    )


def test_a_half_precision_copy_serves(root, monkeypatch):
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, root / FP16)
    monkeypatch.setenv("WSFCN_WEIGHTS", str(root))
    assert initial_weights("mobilenet_v2") == root / FP16
    assert filled(small(), root / FP16)


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="WSFCN_WEIGHTS names no folder of weights")
def test_the_real_mobilenet_serves():
    assert filled(small(), initial_weights("mobilenet_v2", download=False))
