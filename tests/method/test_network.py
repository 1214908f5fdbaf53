"""The networks beyond parity: sizes of every backbone, switches, training behaviour, initialisation."""

from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import oracles
from wsfcn_lib import WSFCN, BaselineCAM, NetConfig
from wsfcn_lib.modules import CONTEXTS, FUSIONS, DilatedConv2d, stochastic_gate
from wsfcn_lib.network import build_network, unreachable_taps

SMALL = {"width": 16, "dilations": (1, 2, 4, 6), "num_classes": 4}


@pytest.mark.parametrize(
    "backbone, deep", [("tiny", 8), ("mobilenet_v2", 8), ("vgg16", 16), ("resnet50", 16)]
)
@torch.no_grad()
def test_shapes_and_ranges(backbone, deep):
    net = WSFCN(NetConfig(backbone=backbone, **SMALL)).eval()
    images = torch.randn(2, 3, 65, 83)
    low, features = net.backbone(images)
    assert low.shape[-2:] == (17, 21), "low is at stride 4"
    assert features.shape[-2:] == (-(-65 // deep), -(-83 // deep))
    out = net(images)
    assert out.logits.shape == out.masks.shape == (2, 4, 17, 21) and out.scores.shape == (2, 3)
    assert (out.logits[:, 0] == 1).all() and torch.allclose(
        out.masks.sum(1), torch.ones(2, 17, 21), atol=1e-5
    )


@pytest.mark.parametrize("context", ["fca", "aspp"])
@pytest.mark.parametrize("fusion", ["sf2", "gci"])
def test_every_corner_trains(context, fusion):
    """All trainable parameters but the published unused norms get a gradient."""
    torch.manual_seed(0)
    net = WSFCN(NetConfig(backbone="tiny", context=context, fusion=fusion, **SMALL)).train()
    out = net(torch.randn(4, 3, 64, 64))
    (out.scores.sum() + out.logits.square().sum()).backward()
    silent = {
        name
        for name, p in net.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.abs().sum())
    }
    assert all("unused_norm" in name for name in silent), silent


def test_tiny_is_small():
    assert (
        sum(p.numel() for p in WSFCN(NetConfig(backbone="tiny", width=32, num_classes=7)).parameters())
        < 1_000_000
    )


def test_mobilenet_adapters():
    net = WSFCN(NetConfig(backbone="mobilenet_v2", width=64, deep_width=256, num_classes=7))
    assert net.low_adapter[0].weight.shape == (64, 24, 1, 1) and net.deep_adapter[0].weight.shape == (
        256,
        1280,
        1,
        1,
    )
    assert {net.context.branches[0].tall_wide[0].in_channels} == {256}
    new = {id(p) for group in net.parameter_groups(1e-3, 0)[2:] for p in group["params"]}
    assert id(net.low_adapter[0].weight) in new and id(net.deep_adapter[1].bias) in new


def test_learning_rates_of_the_mixed_cells():
    """The cells between the two programs use WS-FCN's multipliers; explicit ones win."""
    for context, fusion, expected in (
        ("fca", "sf2", 40),
        ("aspp", "sf2", 40),
        ("fca", "gci", 40),
        ("aspp", "gci", 20),
    ):
        net = WSFCN(NetConfig(backbone="vgg16", context=context, fusion=fusion, **SMALL))
        assert net.parameter_groups(1.0, 0)[3]["lr"] == expected
    assert [g["lr"] for g in net.parameter_groups(2.0, 0, (1, 2, 3, 4))] == [2, 4, 6, 8]


def test_gate_keeps_the_deep_features_in_expectation():
    torch.manual_seed(0)
    deep, shallow = torch.full((1, 1, 400, 400), 2.0), torch.full((1, 1, 400, 400), -1.0)
    drawn = stochastic_gate(deep, shallow, 0.3, training=True)
    assert drawn.unique().tolist() == pytest.approx([-1.0, (2 + 0.3) / 0.7])
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.02)
    assert (drawn == -1).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert stochastic_gate(deep, shallow, 0.3, training=False).mean().item() == pytest.approx(0.7 * 2 - 0.3)


def test_initialisation():
    torch.manual_seed(0)
    net = WSFCN(NetConfig(backbone="tiny", width=64, num_classes=7))
    conv = net.fusion.low1[0]
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02) and not conv.bias.any()
    assert conv.weight.abs().max() > 3 * conv.weight.std(), "normal, not uniform"
    default = net.fusion.align.flow.weight
    assert default.abs().max() <= (1 / (64 * 9)) ** 0.5 and net.head[-1].bias.any()
    bound = (6 / (7 - 1 + 64)) ** 0.5
    classifier = BaselineCAM(NetConfig(backbone="tiny", num_classes=7)).classifier.weight
    assert classifier.abs().max() <= bound and classifier.std().item() == pytest.approx(
        bound / 3**0.5, rel=0.1
    )


def test_baseline_cam_in_training_drops_channels_of_the_scores_only():
    torch.manual_seed(0)
    net = BaselineCAM(NetConfig(backbone="tiny", num_classes=4)).train()
    net.backbone.eval()
    images = torch.randn(2, 3, 64, 64)
    first, second = net(images), net(images)
    assert torch.equal(first.masks, second.masks) and not torch.equal(first.scores, second.scores)
    assert (first.masks[:, 0] == 0.1).all() and first.masks[:, 1:].max() <= 1


def test_unreachable_taps():
    net = WSFCN(NetConfig(backbone="tiny", **SMALL | {"dilations": (1, 12, 24, 36)}))
    assert unreachable_taps(net, 321) == [(5, 24, [48]), (7, 36, [72, 108])]
    assert unreachable_taps(net, 160) == [(5, 24, [24, 48]), (7, 36, [36, 72, 108])]
    assert unreachable_taps(WSFCN(NetConfig(backbone="tiny", **SMALL)), 160) == []


@pytest.mark.parametrize("branches", [1, 2, 3])
def test_fewer_branches_are_the_first_ones(branches):
    net = WSFCN(
        NetConfig(backbone="tiny", fca_branches=branches, **SMALL | {"dilations": (1, 12, 24, 36)})
    ).eval()
    assert [branch.tall_wide[0].kernel_size[0] for branch in net.context.branches] == [1, 3, 5, 7][:branches]
    assert net(torch.randn(1, 3, 64, 64)).logits.shape == (1, 4, 16, 16)
    assert [kernel for kernel, *_ in unreachable_taps(net, 64)] == [3, 5, 7][: branches - 1], (
        "only of branches that are there"
    )


@torch.no_grad()
def test_without_channel_attention_the_branches_are_joined_as_they_are():
    torch.manual_seed(0)
    net = WSFCN(NetConfig(backbone="tiny", channel_attention=False, **SMALL)).context.eval()
    deep = torch.randn(1, net.branches[0].tall_wide[0].in_channels, 9, 9)
    joined = torch.cat((*(branch(deep) for branch in net.branches), net.pooled(deep)), 1)
    assert torch.equal(net(deep), net.spatial_attention(net.norm(net.project(joined))))


@torch.no_grad()
def test_without_align_the_flow_is_zero():
    torch.manual_seed(0)
    full, bare = (
        WSFCN(NetConfig(backbone="tiny", align=align, **SMALL)).fusion.eval() for align in (True, False)
    )
    missing = bare.load_state_dict(full.state_dict(), strict=False)
    assert not missing.missing_keys and all(name.startswith("align.") for name in missing.unexpected_keys)
    low, deep = torch.randn(1, 16, 12, 10), torch.randn(1, 16, 6, 5)
    assert not torch.allclose(full(low, deep)[1], bare(low, deep)[1], atol=1e-3)
    full.align.flow.weight.zero_()
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(full(low, deep), bare(low, deep)))


def test_context_none_is_the_baseline():
    assert isinstance(build_network(NetConfig(backbone="tiny", context="none")), BaselineCAM)
    with pytest.raises(ValueError, match="choose one of fca, aspp.* or build a BaselineCAM"):
        WSFCN(NetConfig(backbone="tiny", context="none"))


def test_every_switch_of_the_configuration_builds_something():
    switches = NetConfig.model_fields
    assert set(get_args(switches["context"].annotation)) == {*CONTEXTS, "none"}
    assert set(get_args(switches["fusion"].annotation)) == set(FUSIONS)


def test_dropout_rates():
    net = WSFCN(NetConfig(backbone="tiny", **SMALL))
    assert [m.p for m in net.head if isinstance(m, torch.nn.Dropout)] == [
        0.5,
        0.1,
    ] and net.context.dropout.p == 0.5
    with torch.device("meta"):
        backbone = WSFCN(NetConfig(backbone="resnet38", context="aspp")).backbone
    assert [block.dropout.p for block in (*backbone.stage5, *backbone.stage6, *backbone.stage7)] == [
        0,
        0,
        0,
        0.3,
        0.5,
    ]


@pytest.mark.parametrize("size", [(41, 41), (20, 33), (7, 50), (1, 1)])
@pytest.mark.parametrize("kernel, dilation", [((3, 3), 12), ((7, 1), 36), ((1, 5), 24), ((3, 3), 1)])
def test_skipped_taps_change_nothing(size, kernel, dilation):
    torch.manual_seed(0)
    pad = [dilation * (k // 2) for k in kernel]
    fast = DilatedConv2d(3, 4, kernel, dilation, bias=True)
    plain = torch.nn.Conv2d(3, 4, kernel, padding=pad, dilation=dilation)
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 3, *size, requires_grad=True)
    (fast(x).square().sum()).backward()
    y = x.detach().requires_grad_()
    (plain(y).square().sum()).backward()
    assert torch.allclose(fast(x), plain(y), atol=1e-5)
    assert torch.allclose(x.grad, y.grad, atol=1e-4) and torch.allclose(
        fast.weight.grad, plain.weight.grad, atol=1e-3
    )


@pytest.mark.parametrize("name", ["fca", "aspp"])
def test_context_modules_compute_only_taps_that_see_the_map(name):
    torch.manual_seed(0)
    net = CONTEXTS[name](8, NetConfig(width=16, dilations=(1, 12, 24, 36))).eval()
    x = torch.randn(1, 8, 20, 20)
    with FlopCounterMode(display=False) as fast:
        few = net(x)
    with oracles.all_taps(), FlopCounterMode(display=False) as direct:
        every = net(x)
    assert torch.allclose(few, every, atol=1e-6)
    assert fast.get_total_flops() < 0.7 * direct.get_total_flops()
