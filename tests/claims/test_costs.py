"""Hours and memory: of runs from their records, of runs not made from counted operations."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from wsfcn_lib import WSFCN, NetConfig
from wsfcn_lib.claims.costs import (
    ABLATION,
    TRAINING,
    Cost,
    cost_of,
    cpu_hours,
    gpu_hours,
    in_hours,
    operations,
)
from wsfcn_lib.claims.listing import Compute, Needs, read_claims
from wsfcn_lib.evaluation.profiling import VOC_STEPS

GPU = Compute(gpu="A100", forward_gflop_per_megapixel=1000)


def test_hours_add_up_and_memory_is_the_largest(results):
    first = results.run("a", 0, seconds=1800, mean_iou=1)
    second = results.run("b", 1, seconds=3600, mean_iou=1)
    record = json.loads((second / "run.json").read_text())
    record["stages"]["05_evaluate"]["peak_memory_mb"] = 2500.0
    for other in ("01_prepare_data", "03_explore", "04_ablations"):  # belong to no number of a training
        record["stages"][other] = {"seconds": 7200, "peak_memory_mb": 9000.0}
    (second / "run.json").write_text(json.dumps(record))
    assert cost_of([first, second]) == Cost("CPU, 2 cores", 3.0, 2500.0)
    assert cost_of([results.run("c", device="cuda", mean_iou=1)]).machine == "GPU (cuda)"
    assert cost_of([]) == Cost()


def test_an_ablation_took_its_own_notebook_and_that_of_its_training(results):
    folder = results.run("a", seconds=3600, mean_iou=1)
    results.stage(folder, "04_ablations", {"training": {"batch_size": 10}})
    record = json.loads((folder / "run.json").read_text())
    for name, hours in (("04_ablations", 4), ("05_evaluate", 16), ("03_explore", 32)):
        record["stages"].setdefault(name, {}).update(seconds=3600 * hours)
    (folder / "run.json").write_text(json.dumps(record))
    assert cost_of([folder], TRAINING).hours == 1 + 16
    assert cost_of([folder], ABLATION).hours == 1 + 4


def test_an_ablation_took_at_least_its_logs(results):
    folder = results.path / "ablation"
    (folder / "logs").mkdir(parents=True)
    stage = {"seconds": 100, "device": "cpu", "cpus": 2, "settings": {"training": {"batch_size": 10}}}
    (folder / "run.json").write_text(json.dumps({"stages": {"04_ablations": stage}}))
    assert cost_of([folder], ABLATION).hours == pytest.approx(100 / 3600)
    for name in "ab":  # 300 steps of 10 images at 2 a second, then 60 at 10
        (folder / "logs" / f"{name}.csv").write_text("step,images_per_second\n0,\n300,2\n360,10\n360,\n")
    assert cost_of([folder], ABLATION).hours == pytest.approx(2 * (1500 + 60) / 3600)
    assert cost_of([folder], TRAINING).hours == 0


def test_memory_of_the_bench_is_that_of_its_training(results):
    bench = results.path / "bench"
    bench.mkdir(parents=True)
    rows = [
        {"stage": "pamr", "megabytes": 9e9},
        {"stage": "training", "megabytes": 8000.0},
        {"stage": "training_fp32", "megabytes": 12000.0},
    ]
    (bench / "gpu.json").write_text(json.dumps(rows))
    (bench / "gpu_machine.json").write_text(json.dumps({"device": "cuda", "seconds": 360}))
    assert cost_of([bench / "gpu.json"]) == Cost("GPU (cuda)", 0.1, 12000.0)


def test_hours_follow_from_counted_operations(results):
    (results.path / "bench").mkdir(parents=True)
    (results.path / "bench" / "cpu.json").write_text(
        json.dumps([{"stage": "training", "gigaflop_per_image": 500.0, "gigaflops": 1}])
    )
    trained = Needs(images=10582, epochs=31, batch=16)
    assert operations(trained, GPU, results.path) == VOC_STEPS * 16 * 500
    both = trained.model_copy(update={"evaluated": 10, "canvas": 1000})
    assert operations(both, GPU, results.path) == VOC_STEPS * 16 * 500 + 10 * 8 * 1000
    assert gpu_hours(both, GPU, results.path) == pytest.approx(
        operations(both, GPU, results.path) / (0.2 * 156_000) / 3600
    )
    assert cpu_hours(both, GPU, results.path) == pytest.approx(operations(both, GPU, results.path) / 3600)


def test_without_the_bench_hours_are_not_known(results):
    needs = Needs(images=10582, epochs=31, batch=16)
    assert gpu_hours(needs, GPU, results.path) == cpu_hours(needs, GPU, results.path) == 0


def test_the_forward_pass_is_counted_right(monkeypatch):
    """On the meta device nothing is computed; only the operations are counted."""
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        WSFCN(NetConfig()).eval()(torch.empty(1, 3, 1024, 1024))
    stated = read_claims().compute.forward_gflop_per_megapixel
    assert counter.get_total_flops() / 1e9 / 1.024**2 == pytest.approx(stated, rel=1e-3)


@pytest.mark.parametrize(
    "hours, words", [(0.001, "0.1"), (0.349, "0.3"), (5.41, "5.4"), (9.96, "10"), (66.2, "66")]
)
def test_hours_in_words(hours, words):
    assert in_hours(hours) == words
