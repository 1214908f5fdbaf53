"""What must hold on a CUDA GPU; each test skips, saying so, where there is none."""

import pytest
import torch

import oracles
from factories import settings
from wsfcn_lib.config import NetConfig
from wsfcn_lib.network import build_network
from wsfcn_lib.pamr import pamr
from wsfcn_lib.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA GPU here")
# a GPU adds in another order each time: two trainings that ran through differ too
LOSSES, MAP = 0.05, 0.1  # relative, of each row's loss; absolute, of the validation's mAP


def test_interrupted_equals_uninterrupted_within_a_tolerance(data, tmp_path):
    chosen = settings(data, device="cuda")
    whole = list(train(chosen, tmp_path / "whole"))
    begun = []
    for row in train(chosen, tmp_path / "parts"):
        begun.append(row)
        if row["epoch"] == 1:  # the state after epoch 0 is there, some steps beyond it are lost
            break
    rest = list(train(chosen, tmp_path / "parts"))
    rows = [row for row in begun if row["epoch"] == 0] + rest
    assert [row["step"] for row in rows] == [row["step"] for row in whole]
    for one, other in zip(rows, whole, strict=True):
        for name in ("classification_loss", "mask_loss", "val_loss"):
            if name in other:
                assert one[name] == pytest.approx(other[name], rel=LOSSES, abs=1e-3), (name, other["step"])
        assert one.get("val_map", 0) == pytest.approx(other.get("val_map", 0), abs=MAP)


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
