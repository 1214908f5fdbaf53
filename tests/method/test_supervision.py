"""Supervision: how masks become the network's own labels, and how the steps between them are shown."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

import wsfcn_lib.losses
import wsfcn_lib.pamr
from factories import replaced
from published import fixture
from wsfcn_lib import WSFCN, NetConfig, TrainConfig
from wsfcn_lib.data.normalisation import denormalise
from wsfcn_lib.losses import mask_loss, pseudo_labels
from wsfcn_lib.pamr import pamr
from wsfcn_lib.plots.training_panels import first_rows, panel_writer
from wsfcn_lib.supervision import supervise, supervision_steps, training_losses

CONFIG = TrainConfig(
    backbone="tiny", width=16, dilations=(1, 2, 4, 6), crop=48, pamr_dilations=(1, 2, 4), pamr_iterations=3
)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    net = WSFCN(CONFIG.network(4)).eval()
    images, tags = torch.randn(2, 3, 48, 48), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    return net, images, tags, net(images)


def test_refining_and_zeroing_commute(batch):
    """The published order is to refine all classes, enlarge, then zero the absent ones; ours zeroes first."""
    _, images, tags, out = batch
    present = torch.cat((torch.ones(2, 1), tags), 1)[:, :, None, None]
    small = interpolate(denormalise(images), (12, 12), mode="bilinear", align_corners=True)
    refined = (
        interpolate(pamr(small, out.masks, (1, 2, 4), 3), (48, 48), mode="bilinear", align_corners=True)
        * present
    )
    ours = supervise(images, out.masks, tags, CONFIG)
    assert torch.equal(ours.pseudo, pseudo_labels(refined)) and ours.pseudo.any()
    assert not ours.pseudo.requires_grad


def test_cuts_and_weight_reach_the_losses(batch):
    _, images, tags, out = batch

    def both(**changes):
        return training_losses(out, images, tags, CONFIG.model_copy(update=changes), with_masks=True)

    eager = {"foreground_cut": 0.1, "background_cut": 0.9, "floor": 0.0}
    classification, mask = both(**eager)
    assert mask > 0 and both(**eager, mask_weight=3.0)[1].item() == pytest.approx(3 * mask.item(), rel=1e-5)
    assert both(**eager)[0] == classification and both(floor=0.99)[1] == 0, "nothing passes a floor of 0.99"
    assert training_losses(out, images, tags, CONFIG, with_masks=False)[1] == 0


def flipped(original):
    return lambda *args, align_corners, **kwargs: original(*args, align_corners=not align_corners, **kwargs)


def test_align_corners_of_losses_and_pamr_are_noticed():
    data = fixture("modules")

    def loss():
        return mask_loss(data["loss.logits"], data["loss.pseudo_gt"], data["loss.labels"])

    with replaced(wsfcn_lib.losses, "interpolate", flipped(interpolate)):
        assert (loss() - data["loss.mask_loss"]).abs().max() > 1e-4
    with replaced(wsfcn_lib.pamr, "interpolate", flipped(interpolate)):
        assert (pamr(data["pamr.image"], data["pamr.masks"]) - data["pamr.out_paper"]).abs().max() > 1e-4
    assert (loss() - data["loss.mask_loss"]).abs().max() < 1e-5


def test_steps_are_arrays_at_image_size():
    net = WSFCN(NetConfig(backbone="tiny", width=16, dilations=(1, 2, 4, 6), num_classes=7)).train()
    tags = torch.tensor([[1.0, 0, 0, 0, 0, 0]])
    steps = supervision_steps(net, torch.randn(1, 3, 48, 48), tags, CONFIG)
    assert net.training, "looking must not change the network's mode"
    assert steps["image"].shape == (1, 48, 48, 3) and steps["image"].dtype == np.uint8
    assert steps["masks"].shape == steps["refined"].shape == (1, 7, 48, 48)
    assert not steps["masks"][:, 2:].any() and not steps["refined"][:, 2:].any(), "absent classes"
    assert steps["pseudo"].dtype == np.uint8 and set(np.unique(steps["pseudo"])) <= {0, 1, 255}


def test_a_panel_is_drawn_for_each_epoch(data, tmp_path):
    config = CONFIG.model_copy(update={"data": str(data)})
    net = WSFCN(config.network(7)).train()
    panel_writer(config, tmp_path)(net, 12)
    with Image.open(tmp_path / "panels" / "epoch-012.png") as file:
        ends = [float(end) for end in file.text["rows"].split()]
        assert min(file.size) > 300 and len(ends) == 4 and ends == sorted(ends) and ends[-1] == 1
    rows = first_rows(tmp_path / "panels" / "epoch-012.png", 2)
    assert 0.4 < len(rows) / len(first_rows(tmp_path / "panels" / "epoch-012.png", 4)) < 0.6
    assert net.training
