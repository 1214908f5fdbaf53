"""The training objective and its picture panel: how masks become the network's own labels."""

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
from wsfcn_lib.data.glyphs import GlyphSettings
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.normalisation import denormalise
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.losses import mask_loss, pseudo_labels
from wsfcn_lib.pamr import pamr
from wsfcn_lib.plots.training_panels import write_panel
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
    """The published order: refine all classes, enlarge, then zero the absent ones. Ours zeroes first; the result is the same."""
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
    loss = lambda: mask_loss(data["loss.logits"], data["loss.pseudo_gt"], data["loss.labels"])  # noqa: E731
    with replaced(wsfcn_lib.losses, "interpolate", flipped(interpolate)):
        assert (loss() - data["loss.mask_loss"]).abs().max() > 1e-4
    with replaced(wsfcn_lib.pamr, "interpolate", flipped(interpolate)):
        assert (pamr(data["pamr.image"], data["pamr.masks"]) - data["pamr.out_paper"]).abs().max() > 1e-4
    assert (loss() - data["loss.mask_loss"]).abs().max() < 1e-5


def test_stages_and_panel(tmp_path):
    prepare(
        SourceSettings(raw=str(tmp_path / "raw"), glyphs=GlyphSettings(size=48, train=4, val=6, test=1)),
        tmp_path / "prepared",
    )
    manifest = Manifest.load(tmp_path / "prepared")
    net = WSFCN(NetConfig(backbone="tiny", width=16, dilations=(1, 2, 4, 6), num_classes=7)).train()
    tags = torch.tensor([[1.0, 0, 0, 0, 0, 0]])
    found = supervision_steps(net, torch.randn(1, 3, 48, 48), tags, CONFIG)
    assert net.training, "looking must not change the network's mode"
    assert found["image"].shape == (1, 48, 48, 3) and found["image"].dtype == np.uint8
    assert (
        found["masks"].shape == found["refined"].shape == (1, 7, 48, 48) and not found["masks"][:, 2:].any()
    )
    assert set(np.unique(found["pseudo"])) <= {0, 1, 255}
    write_panel(net, manifest, CONFIG, tmp_path / "panels" / "epoch-000.png")
    assert min(Image.open(tmp_path / "panels" / "epoch-000.png").size) > 300
