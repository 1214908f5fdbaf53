"""The kit's training step is that of the published programs, and a changed one is noticed.

Worst relative differences in float64 are 1e-9 or less; `trajectories.TOLERANCE` allows 1e-6 and 1e-5.
"""

import copy
import itertools

import pytest
import torch
from torch import nn

from trajectories import SINGLE, differences, faults, recording, replay
from wsfcn_lib import backbones, modules, network, supervision, train

WSFCN = ("trajectory_wsfcn_vgg16", "ae/noise")
ANCESTOR = ("trajectory_1stage_resnet50", "ae/noise")
BASELINE = ("trajectory_1stage_resnet50", "bsl/noise")
BASELINE_VGG = ("trajectory_wsfcn_vgg16", "bsl/noise")  # the backbone whose old layers have biases
slow = pytest.mark.slow
FAST = (WSFCN, ANCESTOR, BASELINE)
REST = (
    ("trajectory_wsfcn_vgg16", "ae/plain"),
    ("trajectory_wsfcn_vgg16", "ae/wide"),
    ("trajectory_wsfcn_vgg16", "ae/tall"),
    BASELINE_VGG,
    ("trajectory_wsfcn_resnet50", "ae/plain"),
    ("trajectory_wsfcn_resnet50", "ae/noise"),
    ("trajectory_wsfcn_resnet50", "bsl/noise"),
    ("trajectory_1stage_resnet50", "ae/plain"),
)
CASES = [*FAST, *(pytest.param(*case, marks=slow) for case in REST)]


@pytest.mark.parametrize("file, name", CASES)
def test_training_steps_are_the_published_ones(file, name):
    recorded = recording(file, name)
    found = replay(recorded)
    assert faults(found, recorded) == {}
    assert len(found["loss_cls"]) == recorded["steps"] > recorded["warm"] >= 1
    seen = {"losses", "gradient norms", "gradients", "weight changes", "momentum", "groups", "draws"}
    assert seen | {"same parameters", "norm statistics"} <= differences(found, recorded).keys()
    if recorded["model"] == "ae":
        assert min(found["loss_mask"][recorded["warm"] :]) > 0, "the mask loss takes part"


@pytest.mark.parametrize("file, name", [ANCESTOR, pytest.param(*WSFCN, marks=slow)])
def test_a_first_step_in_float32_is_the_published_one(file, name):
    recorded = recording(file, name)
    assert faults(replay(recorded, 1, torch.float32), recorded, SINGLE) == {}


def changed_network(monkeypatch, change):
    """Whatever network the replay builds is changed before it trains."""

    def build(config):
        net = network.build_network(config)
        change(net)
        return net

    monkeypatch.setattr(train, "build_network", build)


def changed_groups(monkeypatch, change):
    """Whatever optimiser the replay builds has its groups changed."""
    original = train.build_optimiser

    def build(net, config):
        optimiser = original(net, config)
        change(optimiser.param_groups)
        return optimiser

    monkeypatch.setattr(train, "build_optimiser", build)


def set_each(name, value):
    def change(groups):
        for group in groups:
            group[name] = value

    return lambda patch: changed_groups(patch, change)


def head_dropout(net):
    (last,) = (module for module in net.head if isinstance(module, nn.Dropout) and module.p == 0.1)
    last.p = 0.11


def attention_per_branch(net):
    """The branches of FCA begin alike, but each has an attention of its own."""
    shared = net.context.channel_attention
    own = itertools.cycle([shared, *(copy.deepcopy(shared).double() for _ in range(3))])
    shared.forward = lambda x: modules.ChannelAttention.forward(next(own), x)


def trained_first_layer(net):
    net.backbone.conv1_1.requires_grad_(True)


def stored_head_norms(net):
    for module in net.head:
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = backbones.StoredNorm


def norm_momentum(net):
    for module in net.head:
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.11


def detached_gate(patch):
    original = network.stochastic_gate
    patch.setattr(
        network, "stochastic_gate", lambda deep, shallow, *rest: original(deep, shallow.detach(), *rest)
    )


def detached_flow(patch):
    original = modules.grid_sample
    patch.setattr(modules, "grid_sample", lambda x, grid, **how: original(x, grid.detach(), **how))


def larger_classification(patch):
    original = supervision.classification_loss
    patch.setattr(supervision, "classification_loss", lambda *inputs: 1.001 * original(*inputs))


def training_context_norms(patch):
    """FCA's norms, which keep their statistics (VGG16 has none), train."""
    patch.setattr(backbones.StoredNorm, "train", nn.BatchNorm2d.train)


def kept_gradients(patch):
    patch.setattr(torch.optim.SGD, "zero_grad", lambda *_, **__: None)


def network_change(change):
    return lambda patch: changed_network(patch, change)


# steps: to the end, where weights and momenta are compared; up to the first with mask loss
FULL, FIRST = None, 3
# name: (recording, steps, settings that are changed, what is planted, quantities that show it, perhaps among others)
MUTATIONS = {
    "mask loss x 1.001": (WSFCN, FIRST, {"mask_weight": 1.001}, None, {"losses", "gradients"}),
    "an attention per branch": (WSFCN, FIRST, {}, network_change(attention_per_branch), {"gradients"}),
    "decay on biases": (BASELINE_VGG, FULL, {}, set_each("weight_decay", 5e-4), {"groups", "weight changes"}),
    "decay a tenth smaller": (ANCESTOR, FULL, {"weight_decay": 4.5e-4}, None, {"groups", "weight changes"}),
    "momentum 0.89": (ANCESTOR, FULL, {}, set_each("momentum", 0.89), {"groups", "momentum"}),
    "Nesterov's momentum": (ANCESTOR, FULL, {}, set_each("nesterov", True), {"groups", "weight changes"}),
    "WS-FCN's rates for 1-stage-wseg": (ANCESTOR, FIRST, {"program": "wsfcn"}, None, {"groups", "losses"}),
    "WS-FCN's rates for the baseline": (BASELINE, FIRST, {"program": "wsfcn"}, None, {"groups", "losses"}),
    "classification loss x 1.001": (WSFCN, FIRST, {}, larger_classification, {"losses", "gradient norms"}),
    "last dropout 0.11": (WSFCN, FIRST, {}, network_change(head_dropout), {"losses"}),
    "gate's shallow stream detached": (WSFCN, FIRST, {}, detached_gate, {"gradients", "same parameters"}),
    "gate's rate 0.31": (WSFCN, FIRST, {"gate_rate": 0.31}, None, {"losses"}),
    "flow detached": (WSFCN, FIRST, {}, detached_flow, {"gradients", "same parameters"}),
    "foreground cut 0.61": (WSFCN, FIRST, {"foreground_cut": 0.61}, None, {"losses"}),
    "background cut 0.71": (WSFCN, FIRST, {"background_cut": 0.71}, None, {"losses"}),
    "PAMR once less": (WSFCN, FIRST, {"pamr_iterations": 9}, None, {"losses"}),
    "FCA's norms train": (WSFCN, FIRST, {}, training_context_norms, {"losses"}),
    "the first layer trains": (WSFCN, FIRST, {}, network_change(trained_first_layer), {"same parameters"}),
    "size penalty squared": (WSFCN, FIRST, {"size_power": 2.0}, None, {"losses"}),
    "size penalty's lambda 0.011": (WSFCN, FIRST, {"size_offset": 0.011}, None, {"losses"}),
    "gradients never emptied": (WSFCN, FIRST, {}, kept_gradients, {"gradient norms"}),
    "norms of half a batch": (WSFCN, FIRST, {"accumulate": 2}, None, {"losses"}),
    "stored norms in the head": (WSFCN, FIRST, {}, network_change(stored_head_norms), {"losses"}),
    "norms forget by 0.11": (ANCESTOR, FULL, {}, network_change(norm_momentum), {"norm statistics"}),
}
QUICK = ("mask loss x 1.001", "an attention per branch", "decay on biases")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[slow] * (name not in QUICK)) for name in MUTATIONS]
)
def test_a_changed_training_is_noticed(name, monkeypatch):
    """What these recordings do not reach has tests in test_losses.py: the floor, and images of loss 0."""
    case, steps, changes, plant, shown = MUTATIONS[name]
    if plant:
        plant(monkeypatch)
    recorded = recording(*case)
    assert shown <= faults(replay(recorded, steps, **changes), recorded).keys()


@slow
def test_a_late_mask_loss_is_noticed():
    recorded = recording(*WSFCN)
    found = replay(recorded | {"warm": recorded["warm"] + 1}, FIRST)
    assert "losses" in faults(found, recorded)
