"""The table of released files: where they are looked for, and what is said where they are not."""

import os
import re

import pytest
import torch
import torchvision

from wsfcn_lib import WSFCN, NetConfig
from wsfcn_lib.config import BACKBONES
from wsfcn_lib.data import model_zoo
from wsfcn_lib.data.model_zoo import ARTEFACTS, WeightsError, initial_weights
from wsfcn_lib.runs import paths
from wsfcn_lib.weights import load_published

REAL = os.environ.get("WSFCN_WEIGHTS")
FP16 = "mobilenet_v2_imagenet_fp16.pth"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty repository; its data/weights does not exist yet."""
    monkeypatch.delenv("WSFCN_WEIGHTS", raising=False)
    for module in (model_zoo, paths):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def put(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("weights")
    return folder / name


def test_every_backbone_but_tiny_has_a_row():
    assert set(BACKBONES) - {"tiny"} <= set(ARTEFACTS)
    assert len({row.file for row in ARTEFACTS.values()}) == len(ARTEFACTS), "one row per file"
    assert all([row.url, row.page, row.package].count("") == 2 for row in ARTEFACTS.values()), (
        "a URL, a page for people, or a package"
    )


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
        assert (row.url, row.mb) == (meta.url, round(meta.meta["_file_size"], 1))
        assert row.sha256 and row.file.endswith(f"-{row.sha256}.pth")


def test_the_named_folder_comes_first(root, monkeypatch):
    own = put(root / "data/weights", "resnet50-0676ba61.pth")
    assert initial_weights("resnet50") == own
    other = put(root / "mine", "resnet50-19c8e357.pth")
    monkeypatch.setenv("WSFCN_WEIGHTS", str(root / "mine"))
    assert initial_weights("resnet50") == other, (
        "another name of the file, in the folder that is looked at first"
    )
    put(root / "data/weights", "vgg16-397923af.pth")
    assert initial_weights("vgg16").name == initial_weights("vgg16_torchvision").name == "vgg16-397923af.pth"
    put(root / "data/weights", "vgg16_20M.pth")
    assert initial_weights("vgg16").name == "vgg16_20M.pth"
    monkeypatch.setenv("WSFCN_WEIGHTS", str(root / "nowhere"))
    with pytest.raises(
        WeightsError, match="WSFCN_WEIGHTS names .*nowhere, which is no folder; correct it, or unset it"
    ):
        initial_weights("resnet50")


def test_what_is_nowhere_is_not_downloaded_but_its_ways_are_told(root):
    with pytest.raises(WeightsError) as error:
        initial_weights("mobilenet_v2")
    assert str(error.value) == (
        "no file for 'mobilenet_v2': python -m wsfcn_lib.data.downloads mobilenet_v2 fetches it, "
        f"or place mobilenet_v2-b0353104.pth or {FP16} (13.6 MB, {ARTEFACTS['mobilenet_v2'].url}) "
        "in data/weights or the folder that WSFCN_WEIGHTS names"
    )
    by_hand = (
        r"no file for 'wsfcn': place model_enc_e018Xs0.905.pth \(565 MB, by hand: https://drive.google.com"
    )
    with pytest.raises(WeightsError, match=by_hand):
        initial_weights("wsfcn")
    archive = put(root / "data/raw/masks", "val_results.tar")
    assert initial_weights("wsfcn_val") == archive


def test_paths_and_wrong_names(root, monkeypatch):
    path = put(root / "data/weights", "mine.pth")
    assert (
        initial_weights(path)
        == initial_weights(str(path))
        == initial_weights("data/weights/mine.pth")
        == path
    )
    monkeypatch.chdir(path.parent)
    assert initial_weights("mine.pth") == path
    for wrong in ("resnet83", "data/weights", "", root / "absent.pth"):
        message = "is neither a file nor a name of weights; the names are shipped, resnet38, vgg16, .*1stage"
        with pytest.raises(WeightsError, match=f"{re.escape(repr(str(wrong)))} {message}"):
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
    assert filled(small(), initial_weights("mobilenet_v2"))
