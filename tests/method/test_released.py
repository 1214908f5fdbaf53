"""Released weights, from the file to the metrics: full-size files whose tensors are views of a single number each."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from factories import BIRD, SOURCES, released_file
from published import BACKBONES
from wsfcn_lib import WSFCN, NetConfig
from wsfcn_lib.checkpoints import save_snapshot
from wsfcn_lib.data.manifest import Sample, write_manifest
from wsfcn_lib.data.model_zoo import ARTEFACTS, WeightsError
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.network import build_network
from wsfcn_lib.weights import PUBLISHED, Released, load_network, load_published, released


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
    message = r"imagenet.pth holds no whole published network \(backbone resnet38, context unknown, fusion unknown\); name a file of"
    with pytest.raises(WeightsError, match=message):
        released(path)
    headless = released_file(
        tmp_path / "headless.pth", change=lambda s: {k: v for k, v in s.items() if "last_conv.8" not in k}
    )
    with pytest.raises(WeightsError, match="headless.pth holds no whole"):
        released(headless)
    with pytest.raises(WeightsError, match="no weights file at .*absent.pth"):
        released(tmp_path / "absent.pth")


def test_a_file_is_opened_by_its_ending(tmp_path):
    net, classes, facts = load_network(released_file(tmp_path / ARTEFACTS["1stage"].file, "vgg16", "1stage"))
    assert (
        facts == {"recipe": "1stage", "canvas": 1024, "published": PUBLISHED["1stage"]} and not net.training
    )
    assert (
        net.config.is_ancestor
        and net.head[-1].bias.argmax() == BIRD - 1
        and classes[BIRD - 1]["name"] == "bird"
    )
    tiny = build_network(NetConfig(backbone="tiny", width=16, num_classes=3))
    own = save_snapshot(tiny, tmp_path / "own.safetensors", classes[:2], epoch=4)
    assert load_network(own)[1:] == (json.loads(json.dumps(classes[:2])), {"epoch": 4})


def test_classes_without_names_are_refused(tmp_path):
    path = released_file(
        tmp_path / "coco.pth", "vgg16", change=lambda s: s | {"last_conv.8.weight": [80, 256, 1, 1]}
    )
    with pytest.raises(
        WeightsError,
        match=r"coco\.pth knows 80 classes, whose names .* only VOC's 20 were released; load_publ",
    ):
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
        assert tally.rows == [
            {"image": "a", "tags": "bird", "predicted": "bird", "iou": 1.0, "iou_true_tags": 1.0}
        ], canvas
        assert json.loads((tmp_path / "run" / "metrics.json").read_text())["mean_iou"] == 1
    assert found.recipe == system and set(found.published) >= {"val", "val_crf"}
