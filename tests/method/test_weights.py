"""The door for published files: every file people hold loads, every other is refused by name, and none runs code."""

import pickle

import pytest
import torch
import torchvision

from published import BACKBONES, drawn, published_state
from wsfcn_lib import WSFCN, BaselineCAM, NetConfig
from wsfcn_lib.data.model_zoo import WeightsError
from wsfcn_lib.weights import load_published, published_names


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
        match=r"WSFCN\(aspp, gci\) on resnet50; missing .*first 'aspp.aspp1.atrous_conv.weight'.*'align1.down_h",
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
        load_published(small(), broken)


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
            load_published(small(), tmp_path / name)
    (tmp_path / "text.pth").write_text("<html>quota exceeded</html>")
    with pytest.raises(WeightsError, match="text.pth is not a readable"):
        load_published(small(), tmp_path / "text.pth")
    with pytest.raises(WeightsError, match="no weights file at .*absent.pth"):
        load_published(small(), tmp_path / "absent.pth")


@pytest.mark.parametrize("torch_format", [True, False])
def test_a_file_with_code_does_not_run_it(tmp_path, torch_format):
    trace, path = tmp_path / "trace", tmp_path / "stranger.pth"
    if torch_format:
        torch.save({"conv1.weight": Code(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Code(trace)))
    with pytest.raises(WeightsError, match="stranger.pth"):
        load_published(small(), path)
    assert not trace.exists()


def test_tiny_has_no_published_file():
    with pytest.raises(WeightsError, match="tiny"):
        load_published(WSFCN(NetConfig(backbone="tiny", width=16)), {"conv1.weight": torch.zeros(1)})
