"""Released weights, from the file to the metrics: full-size files whose tensors are views of a single number each."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from published import BACKBONES, published_state
from wsfcn_lib import WSFCN, NetConfig
from wsfcn_lib.artefacts import ARTEFACTS, WeightsError
from wsfcn_lib.checkpoints import save_snapshot
from wsfcn_lib.data.manifest import Sample, write_manifest
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.evaluate import EvalSettings, evaluate
from wsfcn_lib.network import build_network
from wsfcn_lib.released import PUBLISHED, Released, load_network, released
from wsfcn_lib.weights import load_published

BIRD = 3
SOURCES = {"wsfcn": ("state_dicts", {}), "1stage": ("state_dicts_1stage", {"context": "aspp", "fusion": "gci"})}


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
        state["module.last_conv.8.bias"] = torch.where(torch.arange(shapes["last_conv.8.bias"][0]) == BIRD - 1, 9.0, -9.0)
    torch.save(state, path)
    return path


@pytest.mark.parametrize("system", SOURCES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_file_tells_its_network(tmp_path, backbone, system):
    found = released(released_file(tmp_path / "some.pth", backbone, system))
    assert found == Released(NetConfig(backbone=backbone, **SOURCES[system][1]), system, 1024, {})


def test_classes_and_width_are_read(tmp_path):
    def change(shapes):
        return shapes | {"last_conv.8.weight": [80, 48, 1, 1], "last_conv.0.weight": [48, 48, 3, 3]}

    config = released(released_file(tmp_path / "coco.pth", change=change)).config
    assert (config.num_classes, config.width) == (81, 48)


def test_published_rows_go_with_the_name(tmp_path):
    assert released(released_file(tmp_path / ARTEFACTS["wsfcn"].file)).published == PUBLISHED["wsfcn"]
    row = released(released_file(tmp_path / "model_enc_e020Xs0.928.pth", system="1stage")).published
    assert [row[split] for split in ("val", "val_crf", "test", "test_crf")] == [59.7, 62.7, 62.7, 64.3]


def test_a_backbone_alone_is_refused(tmp_path):
    def backbone_only(shapes):
        return {k: s for k, s in shapes.items() if k.startswith("b2")}

    path = released_file(tmp_path / "imagenet.pth", change=backbone_only)
    message = (
        r"imagenet.pth holds no whole published network \(backbone resnet38, context unknown, fusion unknown\); name a file of"
    )
    with pytest.raises(WeightsError, match=message):
        released(path)
    headless = released_file(tmp_path / "headless.pth", change=lambda s: {k: v for k, v in s.items() if "last_conv.8" not in k})
    with pytest.raises(WeightsError, match="headless.pth holds no whole"):
        released(headless)
    with pytest.raises(WeightsError, match="no weights file at .*absent.pth"):
        released(tmp_path / "absent.pth")


def test_a_file_is_opened_by_its_ending(tmp_path):
    net, classes, facts = load_network(released_file(tmp_path / ARTEFACTS["1stage"].file, "vgg16", "1stage"))
    assert facts == {"recipe": "1stage", "canvas": 1024, "published": PUBLISHED["1stage"]} and not net.training
    assert net.config.is_ancestor and net.head[-1].bias.argmax() == BIRD - 1 and classes[BIRD - 1]["name"] == "bird"
    tiny = build_network(NetConfig(backbone="tiny", width=16, num_classes=3))
    own = save_snapshot(tiny, tmp_path / "own.safetensors", classes[:2], epoch=4)
    assert load_network(own)[1:] == (json.loads(json.dumps(classes[:2])), {"epoch": 4})


def test_classes_without_names_are_refused(tmp_path):
    path = released_file(tmp_path / "coco.pth", "vgg16", change=lambda s: s | {"last_conv.8.weight": [80, 256, 1, 1]})
    with pytest.raises(WeightsError, match=r"coco\.pth knows 80 classes, whose names .* only VOC's 20 were released; load_publ"):
        load_network(path)


@pytest.fixture
def manifest(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    Image.fromarray(np.full((40, 30), BIRD, np.uint8)).save(tmp_path / "a_mask.png")
    sample = Sample("a", tmp_path / "a.png", tuple(c == BIRD for c in range(1, 21)), tmp_path / "a_mask.png")
    return write_manifest(tmp_path / "prepared", voc_classes(), {"val": [sample]})


@pytest.mark.slow
@pytest.mark.parametrize("system", SOURCES)
def test_from_the_file_to_the_metrics(tmp_path, manifest, system):
    """The 148 million parameters of ResNet38, under the recipe that belongs to them, on the canvas and without it."""
    path = released_file(tmp_path / ARTEFACTS[system].file, system=system)
    found = released(path)
    with torch.device("meta"):
        net = WSFCN(found.config)
    net = net.to_empty(device="cpu").eval()
    assert load_published(net, path) == []
    for canvas in (0, 96):
        settings = EvalSettings(recipe=found.recipe, canvas=canvas, scales=(1, 0.5), use_crf=False)
        tally = evaluate(net, manifest, settings, tmp_path / "run")
        assert tally.rows == [{"image": "a", "tags": "bird", "predicted": "bird", "iou": 1.0, "iou_true_tags": 1.0}], canvas
        assert json.loads((tmp_path / "run" / "metrics.json").read_text())["mean_iou"] == 1
    assert found.recipe == system and set(found.published) >= {"val", "val_crf"}
