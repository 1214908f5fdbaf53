"""Every module, the losses and PAMR give the published programs' numbers (1e-5 of the largest value)."""

import pytest
import torch

from published import fill_module, fixture, module_names, relative_error
from wsfcn_lib import WSFCN, NetConfig
from wsfcn_lib.losses import classification_loss, image_scores, mask_loss, pseudo_labels
from wsfcn_lib.modules import ASPP, FCA, SF2, Align, GCIDecoder, stochastic_gate
from wsfcn_lib.pamr import pamr

WSFCN_NAMES = WSFCN(NetConfig(backbone="resnet50"))
ANCESTOR_NAMES = WSFCN(NetConfig(backbone="resnet50", context="aspp", fusion="gci"))


def filled_fca():
    return fill_module(FCA(32, 256, (1, 12, 24, 36)), module_names(WSFCN_NAMES, "context", "fca."), "fca.")


def filled_aspp():
    return fill_module(ASPP(32, 256, (1, 12, 24, 36)), module_names(ANCESTOR_NAMES, "context", "aspp."), "aspp.")


def filled_align():
    return fill_module(Align(256), module_names(WSFCN_NAMES, "fusion.align", "align1."), "align1.")


def filled_sf2():
    module = SF2(256)
    names = module_names(WSFCN_NAMES, "fusion", "sf2.")
    fill_module(module, names, "sf2.")  # align gets values too; `fuse` never uses it
    return module


def filled_gci():
    return fill_module(GCIDecoder(256), module_names(ANCESTOR_NAMES, "fusion", "shallow_mask."), "shallow_mask.")


def context_error(module, name, file):
    """Largest error over the square, wide and tall inputs, which together reach every tap."""
    data = fixture(file)
    errors = [relative_error(module(data[f"{name}.x"]), data[f"{name}.out"])]
    for shape in ("wide", "tall"):
        errors.append(relative_error(module(data[f"{name}.x_{shape}"])[:, ::8], data[f"{name}.out_{shape}_s8"]))
    return max(errors)


def align_error(module):
    data = fixture("modules")
    return relative_error(module(data["align.low"], data["align.high"]), data["align.out"])


def sf2_error(module):
    data = fixture("modules")
    low, deep = module.fuse(data["sf2.low"], data["sf2.high"])
    return max(relative_error(low, data["sf2.out_low"]), relative_error(deep, data["sf2.out_high"]))


def gci_error(module):
    data = fixture("modules_1stage")
    return relative_error(module.inject(data["gci.low"], data["gci.deep"]), data["gci.out"])


CASES = {
    "fca": (filled_fca, lambda m: context_error(m, "fca", "modules")),
    "aspp": (filled_aspp, lambda m: context_error(m, "aspp", "modules_1stage")),
    "align": (filled_align, align_error),
    "sf2": (filled_sf2, sf2_error),
    "gci": (filled_gci, gci_error),
}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_module(name):
    build, error = CASES[name]
    assert error(build()) < 1e-5


def test_gate_at_inference():
    data = fixture("modules")
    out = stochastic_gate(data["sf2.out_high"], data["sf2.out_low"], 0.3, training=False)
    assert relative_error(out, data["gate.eval"]) < 1e-5


@pytest.mark.parametrize("name, settings", [("out_paper", {}), ("out_small", {"dilations": (1, 2), "iterations": 3})])
def test_pamr(name, settings):
    data = fixture("modules")
    assert (pamr(data["pamr.image"], data["pamr.masks"], **settings) - data[f"pamr.{name}"]).abs().max() < 1e-5


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
