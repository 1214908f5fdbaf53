"""What must hold on a CUDA GPU; each test skips, saying so, where there is none."""

import pytest
import torch

import oracles
from factories import RESUMED_LOSSES, RESUMED_MAP, resume_differences, settings
from wsfcn_lib.config import NetConfig
from wsfcn_lib.network import build_network
from wsfcn_lib.pamr import pamr

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA GPU here")


def test_interrupted_equals_uninterrupted_within_a_tolerance(data, tmp_path):
    losses, mean_ap = resume_differences(settings(data, device="cuda"), tmp_path)
    assert losses <= RESUMED_LOSSES and mean_ap <= RESUMED_MAP


def test_network_and_pamr_compute_what_they_do_on_a_cpu(monkeypatch):
    monkeypatch.setattr(
        torch.backends.cudnn, "allow_tf32", False
    )  # a mantissa of 10 bits, layer after layer, is no fault
    torch.manual_seed(0)
    net = build_network(NetConfig(backbone="tiny", width=16, dilations=(1, 2, 4, 6), num_classes=4)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        there = net(images).masks
        here = net.to("cuda")(images.to("cuda")).masks.cpu()
    assert (there - here).abs().max() < 1e-3
    pictures, masks = torch.rand(2, 3, 40, 40), torch.rand(2, 4, 40, 40)
    assert (
        pamr(pictures.to("cuda"), masks.to("cuda")).cpu() - oracles.pamr(pictures, masks)
    ).abs().max() < 1e-5
