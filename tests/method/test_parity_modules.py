"""Every module, the losses and PAMR give the published programs' numbers (1e-5 of the largest value)."""

import pytest
import torch

from published import CASES, fixture, relative_error
from wsfcn_lib.losses import classification_loss, image_scores, mask_loss, pseudo_labels
from wsfcn_lib.modules import stochastic_gate
from wsfcn_lib.pamr import pamr


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_module(name):
    build, error = CASES[name]
    assert error(build()) < 1e-5


def test_gate_at_inference():
    data = fixture("modules")
    out = stochastic_gate(data["sf2.out_high"], data["sf2.out_low"], 0.3, training=False)
    assert relative_error(out, data["gate.eval"]) < 1e-5


@pytest.mark.parametrize(
    "name, settings", [("out_paper", {}), ("out_small", {"dilations": (1, 2), "iterations": 3})]
)
def test_pamr(name, settings):
    data = fixture("modules")
    assert (
        pamr(data["pamr.image"], data["pamr.masks"], **settings) - data[f"pamr.{name}"]
    ).abs().max() < 1e-5


def test_pseudo_labels():
    data = fixture("modules")
    present = torch.cat((torch.ones(3, 1), data["loss.labels"]), 1)[:, :, None, None]
    assert torch.equal(pseudo_labels(data["loss.masks"] * present), data["loss.pseudo_gt"])


def test_mask_loss():
    data = fixture("modules")
    loss = mask_loss(data["loss.logits"], data["loss.pseudo_gt"], data["loss.labels"])
    assert (loss - data["loss.mask_loss"]).abs().max() < 1e-5


def test_scores():
    data = fixture("modules")
    scores = image_scores(data["score.logits"])
    assert (scores - data["score.total"]).abs().max() < 1e-5
    tags = data["loss.labels"]
    assert (classification_loss(scores, tags) - data["score.cls_loss"]).abs() < 1e-5
