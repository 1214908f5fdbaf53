"""The rates of `make bench` at small sizes: they count what they say. Its ratios have their oracles' own parity tests."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import throughput

from wsfcn_lib import NetConfig

CPU = torch.device("cpu")
TINY = NetConfig(backbone="tiny", width=16, dilations=(1, 2, 4, 6), num_classes=3)


def test_rates_follow_from_what_was_counted(monkeypatch):
    monkeypatch.setattr(throughput, "peak_flops", lambda device, dtype: 1e12)
    row = throughput.training(CPU, TINY, batch=2, crop=48, repeats=1)
    assert row["images_per_second"] > 0 and row["batch"] == 2
    assert row["gigaflops"] == pytest.approx(row["gigaflop_per_image"] * row["images_per_second"], rel=1e-2)
    assert row["share_of_peak"] == pytest.approx(row["gigaflops"] / 1000, rel=1e-2)
    assert row["coco_hours"] / row["voc_hours"] == pytest.approx(82_081 / 10_582, rel=1e-2)
    assert row["voc_hours"] == pytest.approx(10_582 * 31 / row["images_per_second"] / 3600, rel=1e-2)
    rate = throughput.inference(CPU, TINY, (60, 48))
    assert rate["views"] == 8 and rate["images_per_second"] > 0


def test_a_peak_is_that_of_a_matrix_product_of_known_size(monkeypatch):
    monkeypatch.setattr(throughput, "timed", lambda function, repeats: (2.0, function()))
    assert throughput.peak_flops(CPU, torch.float32) == 4096**3
    assert throughput.bandwidth(CPU) == 2**26 * 4
    row = throughput.pamr_floor(CPU, (1, 3, 24, 24))
    assert row["floor_milliseconds"] == pytest.approx(
        1e3 * 4 * 24 * 24 * (6 + 48) * 10 / (2**26 * 4), rel=1e-3
    )
