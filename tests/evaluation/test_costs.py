"""Costs of a variant: counts that can be reckoned by hand, and orderings."""

import pytest
import torch
from torch import nn

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.evaluation import profiling
from wsfcn_lib.evaluation.profiling import cost
from wsfcn_lib.network import NetOutput, build_network, with_background

CONFIG = TrainConfig(
    backbone="tiny",
    width=16,
    dilations=(1, 1, 2, 2),
    crop=48,
    batch_size=4,
    pamr_dilations=(1, 2),
    device="cpu",
    optimiser="adamw",
)


def test_operations_are_those_of_the_convolutions(monkeypatch):
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3, padding=1, bias=False)

        def parameter_groups(self, lr, weight_decay, multipliers):
            return [{"params": list(self.parameters()), "lr": lr}]

        def forward(self, images):
            logits = with_background(self.conv(images), 1.0)
            return NetOutput(logits, logits.softmax(1), logits.mean((2, 3))[:, 1:])

    monkeypatch.setattr(profiling, "trainable_network", lambda *_: One())
    measured = cost(CONFIG.model_copy(update={"optimiser": "sgd"}), 3)
    assert measured["parameters"] == 54 and measured["gflops"] == pytest.approx(2 * 54 * 48 * 48 / 1e9)
    assert measured["activations_mb"] > 4 * 3 * 48 * 48 * 4 / 1e6, "the batch itself is held"


def test_larger_variants_cost_more_and_nothing_random_moves():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    full, less = cost(CONFIG, 4, 1), cost(CONFIG.model_copy(update={"fca_branches": 2}), 4, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert full["parameters"] == sum(p.numel() for p in build_network(CONFIG.network(4)).parameters())
    assert all(full[key] > less[key] > 0 for key in ("parameters", "gflops", "activations_mb"))
    assert full["step_ms"] > 0
    double = cost(CONFIG.model_copy(update={"batch_size": 8}), 4, 1)
    weights_mb = 4 * full["parameters"] / 1e6
    assert double["gflops"] == full["gflops"]
    assert double["activations_mb"] > 2 * full["activations_mb"] - 2 * weights_mb
    assert cost(CONFIG.model_copy(update={"context": "none"}), 4, 1)["gflops"] < less["gflops"]


def test_parts_of_a_batch_are_measured_one_at_a_time():
    parts = CONFIG.model_copy(update={"batch_size": 8, "accumulate": 2})
    assert cost(parts, 4, 1)["activations_mb"] == cost(CONFIG, 4, 1)["activations_mb"]
