"""Published files: each that people hold loads, any other is refused by name, and none runs code."""

import json
import pickle
from argparse import Namespace
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from factories import BIRD, SOURCES, released_file
from published import BACKBONES, drawn, published_state
from wsfcn_lib import WSFCN, BaselineCAM, NetConfig
from wsfcn_lib.checkpoints import save_snapshot
from wsfcn_lib.data.manifest import Sample, write_manifest
from wsfcn_lib.data.model_zoo import ARTEFACTS, WeightsError
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.modules import CONTEXTS, PooledBranch
from wsfcn_lib.network import build_network
from wsfcn_lib.weights import (
    PUBLISHED,
    load_network,
    load_published,
    published_names,
    read_state,
    released_config,
)


class Code:
    """A pickle that would touch a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def published_file(key, file="state_dicts"):
    """A state dict as the published programs save it, constants and shared tensors included."""
    shapes = published_state(file)[key]["state"]
    return {n: torch.zeros(s) if n.endswith("kernel") else drawn(n, tuple(s)) for n, s in shapes.items()}


@pytest.fixture(scope="module")
def wsfcn_file():
    return published_file("resnet50/ae")


def small(**switches):
    return WSFCN(NetConfig(backbone="resnet50", **switches))


def refusing():
    """A network that is never filled, so needs no weights of its own."""
    with torch.device("meta"):
        return small()


def test_a_file_with_prefix_loads_and_reaches_every_parameter(wsfcn_file, tmp_path):
    path = tmp_path / "model_enc_e018Xs0.905.pth"
    torch.save({f"module.{k}": v for k, v in wsfcn_file.items()}, path)
    net = small()
    assert load_published(net, path) == []
    for ours, theirs in published_names(net).items():
        assert torch.equal(net.state_dict()[ours], wsfcn_file[theirs]), ours


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50"])
def test_baseline_and_ancestor_files(backbone):
    cam = BaselineCAM(NetConfig(backbone=backbone))
    assert load_published(cam, published_file(f"{backbone}/bsl")) == []
    ancestor = WSFCN(NetConfig(backbone=backbone, context="aspp", fusion="gci"))
    assert load_published(ancestor, published_file(f"{backbone}/ae", "state_dicts_1stage")) == []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_imagenet_files_fill_the_backbone_alone(backbone):
    """Names as in the ImageNet files: the backbone's own, and a classifier that is not wanted."""
    net = BaselineCAM(NetConfig(backbone=backbone))
    names = published_names(net)
    file = {names[k]: torch.full_like(v, 2) for k, v in net.state_dict().items() if k.startswith("backbone.")}
    untouched = net.classifier.weight.clone()
    assert load_published(net, file | {"fc.weight": torch.zeros(1000, 7), "fc.bias": torch.zeros(1000)}) == [
        "classifier.weight"
    ]
    assert all((v == 2).all() for k, v in net.backbone.state_dict().items() if not k.endswith("tracked"))
    assert torch.equal(net.classifier.weight, untouched)


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v2", "vgg16"])
def test_torchvision_files(backbone):
    source = getattr(torchvision.models, backbone)(weights=None).state_dict()
    net = BaselineCAM(NetConfig(backbone=backbone))
    left = load_published(net, source)
    extra = (
        {"backbone.fc6.weight", "backbone.fc6.bias", "backbone.fc7.weight", "backbone.fc7.bias"}
        if backbone == "vgg16"
        else set()
    )
    assert set(left) == {"classifier.weight"} | extra
    if backbone == "vgg16":
        assert torch.equal(net.backbone.conv5_3.weight, source["features.28.weight"])
    if backbone == "mobilenet_v2":
        assert torch.equal(net.backbone.features[18][0].weight, source["features.18.0.weight"])


def test_half_precision_weights_become_single(wsfcn_file):
    net = small()
    load_published(net, {k: v.half() if v.is_floating_point() else v for k, v in wsfcn_file.items()})
    assert all(v.dtype == torch.float32 for v in net.state_dict().values() if v.is_floating_point())


def test_another_network_is_named(wsfcn_file):
    net = small(context="aspp", fusion="gci")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(
        WeightsError,
        match=r"WSFCN\(aspp, gci\) on resnet50; missing .*first 'aspp.aspp1.atrous_conv.*'align1.down_h",
    ):
        load_published(net, wsfcn_file)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()), (
        "a refused file must leave the network as it was"
    )


def test_one_missing_and_one_unexpected_entry_are_named(wsfcn_file):
    broken = {k: v for k, v in wsfcn_file.items() if k != "sf2.bn1h.bias"} | {"sf3.weight": torch.zeros(1)}
    with pytest.raises(
        WeightsError, match=r"missing 1, first 'sf2.bn1h.bias'; unexpected 1, first 'sf3.weight'"
    ):
        load_published(refusing(), broken)


def test_another_number_of_classes_is_named(wsfcn_file):
    with pytest.raises(
        WeightsError, match=r"last_conv.8.weight has another shape \(\(20, 256, 1, 1\).*num_classes"
    ):
        load_published(small(num_classes=7), wsfcn_file)


def test_what_is_no_state_dict_is_refused(tmp_path):
    cases = {"list.pth": [1, 2], "numbers.pth": {"a": 1}, "empty.pth": {}}
    for name, content in cases.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(WeightsError, match=f"{name} is not a state dict"):
            load_published(refusing(), tmp_path / name)
    (tmp_path / "text.pth").write_text("<html>quota exceeded</html>")
    with pytest.raises(WeightsError, match="text.pth is a web page, not the weights"):
        load_published(refusing(), tmp_path / "text.pth")
    with pytest.raises(WeightsError, match="no weights file at .*absent.pth"):
        load_published(refusing(), tmp_path / "absent.pth")


@pytest.mark.parametrize("torch_format", [True, False])
def test_a_file_with_code_does_not_run_it(tmp_path, torch_format):
    trace, path = tmp_path / "trace", tmp_path / "stranger.pth"
    if torch_format:
        torch.save({"conv1.weight": Code(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Code(trace)))
    with pytest.raises(WeightsError, match="stranger.pth"):
        load_published(refusing(), path)
    assert not trace.exists()


def test_only_what_may_be_torn_is_worth_another_download(tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save({"conv1.weight": torch.zeros(400, 4)}, whole)
    (tmp_path / "torn.pth").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="torn.pth is not a readable .*: it is torn .* download it again"):
        load_published(refusing(), tmp_path / "torn.pth")
    torch.save({"conv1.weight": Code(tmp_path / "trace")}, tmp_path / "code.pth")
    with ZipFile(whole) as source, ZipFile(tmp_path / "squeezed.pth", "w", ZIP_DEFLATED) as target:
        for part in source.infolist():
            target.writestr(part.filename, source.read(part))
    for name in ("code.pth", "squeezed.pth"):
        with pytest.raises(WeightsError, match=f"{name} .*another download gives the same. .*torch.save"):
            load_published(refusing(), tmp_path / name)


@pytest.mark.parametrize(
    "name, content, kind",
    [
        ("a.params", (0x112).to_bytes(8, "little") + bytes(99), "of MXNet"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "of Keras or HDF5"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("a.pth.gz", b"\x1f\x8b" + bytes(99), "compressed by gzip; unpack it"),
        ("a.pth", b"\n<!DOCTYPE html>", "a web page"),
        ("a.onnx", b"\x08\x07" + bytes(99), r"of another program \(.onnx\)"),
    ],
)
def test_other_programs_files_are_called_what_they_are(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name} is {kind}") as error:
        load_published(refusing(), tmp_path / name)
    assert "download it again" not in str(error.value)


def test_a_program_of_torchscript_a_network_and_an_archive_of_numpy_are_told_with_a_way_that_works(tmp_path):
    layer = torch.nn.Linear(2, 2)
    torch.jit.save(torch.jit.script(layer), tmp_path / "script.pth")
    with pytest.raises(WeightsError, match="script.pth is a program of TorchScript, not a state dict"):
        read_state(tmp_path / "script.pth")
    torch.save(torch.jit.load(tmp_path / "script.pth").state_dict(), tmp_path / "new.pth")
    assert read_state(tmp_path / "new.pth").keys() == {"weight", "bias"}

    torch.save(layer, tmp_path / "whole.pth")
    with pytest.raises(
        WeightsError, match=r"holds a whole network \(torch.nn.modules.linear.Linear\).*state_dict"
    ):
        read_state(tmp_path / "whole.pth")
    torch.save(torch.load(tmp_path / "whole.pth", weights_only=False).state_dict(), tmp_path / "new.pth")
    assert read_state(tmp_path / "new.pth").keys() == {"weight", "bias"}

    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    (tmp_path / "arrays.npz").rename(tmp_path / "arrays.pth")
    with pytest.raises(WeightsError, match="arrays.pth is of NumPy"):
        read_state(tmp_path / "arrays.pth")


def test_a_resume_state_is_no_weights_file(finished):
    state = max((finished[0] / "checkpoints").glob("state-*.pt"))
    with pytest.raises(WeightsError, match="is a resume state of this kit, .* such as last.safetensors"):
        load_network(state)


@pytest.mark.parametrize("more", [Namespace(lr=0.1), np.float64(0.7)])
def test_what_stands_beside_the_tensors_is_named_and_the_way_named_works(tmp_path, more):
    path, state = tmp_path / "more.pth", {"a": torch.zeros(3)}
    torch.save({"state_dict": state, "more": more}, path)
    with pytest.raises(WeightsError, match=r"more than tensors \((argparse.Namespace|numpy.*scalar)\)"):
        read_state(path)
    torch.save(torch.load(path, weights_only=False)["state_dict"], tmp_path / "new.pth")
    assert read_state(tmp_path / "new.pth").keys() == {"a"}


def test_safetensors_of_others_are_read(tmp_path):
    save_file({"module.a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert read_state(tmp_path / "a.safetensors")["a"].tolist() == [1, 1]


def test_tiny_has_no_published_file():
    with pytest.raises(WeightsError, match="tiny"):
        load_published(WSFCN(NetConfig(backbone="tiny", width=16)), {"conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize("system", SOURCES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_file_tells_its_network(tmp_path, backbone, system):
    path = released_file(tmp_path / "some.pth", backbone, system)
    assert released_config(read_state(path), path) == NetConfig(backbone=backbone, **SOURCES[system][1])


def test_classes_and_width_are_read(tmp_path):
    def change(shapes):
        return shapes | {"last_conv.8.weight": [80, 48, 1, 1], "last_conv.0.weight": [48, 48, 3, 3]}

    path = released_file(tmp_path / "coco.pth", change=change)
    config = released_config(read_state(path), path)
    assert (config.num_classes, config.width) == (81, 48)


def test_the_published_rows_are_the_papers():
    assert PUBLISHED["wsfcn"] == {"val": 61.57, "val_crf": 63.23, "test": 62.30, "test_crf": 64.22}
    row = PUBLISHED["1stage"]
    assert [row[split] for split in ("val", "val_crf", "test", "test_crf")] == [59.7, 62.7, 62.7, 64.3]


def test_a_backbone_alone_is_refused(tmp_path):
    def backbone_only(shapes):
        return {k: s for k, s in shapes.items() if k.startswith("b2")}

    path = released_file(tmp_path / "imagenet.pth", change=backbone_only)
    message = (
        r"no whole published network \(backbone resnet38, context unknown, fusion unknown\); name a file of"
    )
    with pytest.raises(WeightsError, match=message):
        load_network(path)
    headless = released_file(
        tmp_path / "headless.pth", change=lambda s: {k: v for k, v in s.items() if "last_conv.8" not in k}
    )
    with pytest.raises(WeightsError, match="headless.pth holds no whole"):
        load_network(headless)
    with pytest.raises(WeightsError, match="absent.pth' is neither a file nor a name of weights"):
        load_network(tmp_path / "absent.pth")


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


@pytest.mark.parametrize("system", SOURCES)
def test_from_the_file_to_the_metrics(tmp_path, system):
    """A released file under the recipe that belongs to it, on the canvas and without it."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    Image.fromarray(np.full((40, 30), BIRD, np.uint8)).save(tmp_path / "a_mask.png")
    sample = Sample("a", tmp_path / "a.png", tuple(c == BIRD for c in range(1, 21)), tmp_path / "a_mask.png")
    manifest = write_manifest(tmp_path / "prepared", voc_classes(), {"val": [sample]})
    net, _, facts = load_network(released_file(tmp_path / ARTEFACTS[system].file, "vgg16", system))
    assert facts == {"recipe": system, "canvas": 1024, "published": PUBLISHED[system]}
    for canvas in (0, 96):
        settings = EvalSettings(recipe=system, canvas=canvas, scales=(1, 0.5), use_crf=False)
        results = evaluate(net, manifest, settings, tmp_path / "run")
        assert results.rows == [
            {
                "image": "a",
                "tags": "bird",
                "predicted": "bird",
                "painted": 1.0,
                "iou": 1.0,
                "iou_true_tags": 1.0,
            }
        ], canvas
        assert json.loads((tmp_path / "run" / "metrics.json").read_text())["mean_iou"] == 1


def test_a_module_that_nobody_published_is_left_out(monkeypatch, wsfcn_file):
    """ImageNet weights fill the backbone of a network with a module of one's own; whole files do not."""
    monkeypatch.setitem(CONTEXTS, "fca", lambda inputs, config: PooledBranch(inputs, config.width))
    monkeypatch.setattr("wsfcn_lib.weights._DECODER", {})
    net = small()
    names = published_names(net)
    assert not any(name.startswith(("context.", "fusion.")) for name in names)
    imagenet = {name: wsfcn_file[theirs] for name, theirs in names.items() if name.startswith("backbone.")}
    left = load_published(net, {names[name]: tensor for name, tensor in imagenet.items()})
    assert "context.conv.weight" in left and not any(name.startswith("backbone.") for name in left)
    with pytest.raises(WeightsError, match="is not of this network, .*unexpected 110"):
        load_published(net, wsfcn_file)
