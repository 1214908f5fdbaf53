"""What the published schedules take: counts that a real step confirms, and hours that follow from them."""

import json
from types import SimpleNamespace

import pytest
import torch

import run_all
from factories import settings
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.evaluation import profiling, schedules
from wsfcn_lib.evaluation.profiling import cost, preflight
from wsfcn_lib.evaluation.schedules import GPUS, SCHEDULES, Step, count_step, counted, hours, measured
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.train import build_network, epoch_starts

TINY = TrainConfig(
    backbone="tiny", width=16, dilations=(1, 2, 4, 6), crop=64, batch_size=4, device="cpu", threads=1
)


def test_the_papers_step_takes_the_operations_that_were_measured():
    rows = json.loads((ROOT / "data/results/bench/cpu.json").read_text())
    (bench,) = [row for row in rows if row["stage"] == "training"]
    step = count_step(TrainConfig(batch_size=2))
    assert step.gigaflops == pytest.approx(bench["gigaflop_per_image"], rel=1e-3)
    assert step.gigaflops == pytest.approx(1648, rel=1e-3)
    assert count_step(TrainConfig(batch_size=1)).gigaflops == pytest.approx(step.gigaflops)


def test_activations_are_those_that_a_real_step_holds():
    """`cost` counts on real tensors, its weights included; they differ by small things such as PAMR's."""
    weights_gb = 4e-9 * sum(weight.numel() for weight in build_network(TINY.network(4)).parameters())
    for config in (TINY, TINY.model_copy(update={"batch_size": 8}), TINY.model_copy(update={"crop": 96})):
        real = cost(config, 4, 1)["activations_mb"] / 1000
        assert count_step(config, 4).activations_gb + weights_gb == pytest.approx(real, rel=0.05)


def test_memory_follows_the_settings():
    usual = count_step(TINY, 4)
    half = count_step(TINY.model_copy(update={"accumulate": 2}), 4)
    assert half.activations_gb == pytest.approx(usual.activations_gb / 2, rel=0.1)
    assert half.gigaflops == pytest.approx(usual.gigaflops, rel=0.01), "of an image"
    bf16 = count_step(TINY.model_copy(update={"precision": "bf16"}), 4)
    assert 0.5 * usual.activations_gb < bf16.activations_gb < 0.8 * usual.activations_gb, (
        "losses stay in fp32"
    )
    adamw = count_step(TINY.model_copy(update={"optimiser": "adamw"}), 4)
    trained = sum(p.numel() for p in build_network(TINY.network(4)).parameters() if p.requires_grad)
    assert adamw.memory_gb - usual.memory_gb == pytest.approx(4e-9 * trained, rel=1e-3)
    assert count_step(TINY, 81).activations_gb > 2 * usual.activations_gb, "masks of 81 classes at image size"


def test_hours_are_those_of_the_published_schedule():
    config = TrainConfig()
    for name, (images, _) in SCHEDULES.items():
        steps = epoch_starts(config, images)[-1]
        assert hours(16.0)[name] == pytest.approx(steps / 3600, rel=2e-3), "a step of 16 images each second"
    assert SCHEDULES == {"VOC": (10_582, 21), "COCO": (82_081, 81)}


def test_a_kind_of_gpu_takes_what_its_peak_allows(monkeypatch):
    memory = {21: 7.0, 81: 9.0}
    monkeypatch.setattr(schedules, "count_step", lambda config, classes: Step(1648.0, 5.0, memory[classes]))
    first, line, last = counted(TrainConfig(precision="bf16"), ["A100"])
    fast = 10_582 * 31 * 1648 / (0.5 * 312_000) / 3600
    assert line.startswith(f"A100: VOC {fast:.1f} to {2.5 * fast:.1f} h, COCO {7.757 * fast:.1f} to ")
    assert "1,648 GFLOP" in first and "7.0 GB of memory (COCO 9.0)" in first
    assert "20 to 50 % of the data sheet's dense peak" in last and "31 epochs" in last
    slow = counted(TrainConfig(precision="fp32"), ["A100"])[1]
    assert slow.startswith(f"A100: VOC {2 * fast:.1f} to "), "fp32 convolutions run in TF32, at half the rate"
    monkeypatch.setattr(schedules, "count_step", lambda config, classes: Step(1648.0, 5.0, 23.0))
    lines = counted(TrainConfig(), GPUS)
    assert ["may be too little" in line for line in lines[1:-1]] == [True, True, False, False]


def test_a_gpu_at_hand_is_told_by_its_own_step():
    line = measured(TrainConfig(), 0.5, 12_345, "Some GPU")
    assert line == "31 epochs with these settings on Some GPU: VOC 2.8 h, COCO 22.1 h; 12.3 GB of memory"
    assert "VOC 3 days, COCO 26 days" in measured(TrainConfig(), 14.0, 1, "a slow one")


def test_preflight_tells_them_where_a_training_takes_days(data, tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "measure", lambda *_: (0.1, 1.0, 1.0, 0))
    config = settings(data, backbone="vgg16", crop=64, width=256)
    assert preflight(config, tmp_path).schedules == []
    monkeypatch.setattr(profiling, "measure", lambda *_: (0.1, 9e4, 9e4, 0))
    told = preflight(config, tmp_path).schedules
    assert told == counted(config) and len(told) == 2 + len(GPUS)


def test_a_gpu_is_measured_and_what_takes_days_on_a_processor_counted(data, tmp_path, monkeypatch):
    """One line on the GPU that is there, by its own step; no other kinds, however long the training takes."""
    monkeypatch.setattr(profiling, "measure", lambda *_: (0.1, 9e4, 9e4, 0))
    gpu = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(profiling, "build_accelerator", lambda config: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 12_345e6)
    config = settings(data, backbone="vgg16", crop=64, width=256)
    told = preflight(config, tmp_path)
    assert told.schedules == [measured(config, 9e4 + 0.1, 12_345, "Some GPU")] and told.memory_mb == 12_345
    assert "on Some GPU" in told.schedules[0] and "assumed" not in told.schedules[0]
    gpu.device = torch.device("cpu")
    told = preflight(config, tmp_path).schedules
    assert told[-1].startswith("assumed: ") and not [line for line in told if "on Some GPU" in line]
    for backbone in ("timm:some_network", "vgg16"):
        known = config.model_copy(update={"backbone": backbone})
        assert bool(preflight(known, tmp_path).schedules) == (backbone == "vgg16"), "timm's are not counted"


def test_what_is_printed_is_of_the_precision_that_the_parameter_files_train_in(monkeypatch, capsys):
    monkeypatch.setattr(schedules, "count_step", lambda config, classes: Step(1648.0, 5.0, 7.0))
    monkeypatch.setattr("sys.argv", ["schedules", "--gpu", "A100"])
    schedules.main()
    first, line, _ = capsys.readouterr().out.splitlines()
    assert line.startswith("A100: VOC 1.9 to 4.8 h, COCO 15 to 37 h")
    for name in ("voc_resnet38", "voc_resnet38_1stage", "coco_resnet38"):
        given = run_all.parameters_of(
            "02_train", run_all.read_parameters(ROOT / f"notebooks/params/{name}.yaml")
        )
        assert given.get("precision", TrainConfig().precision) == "fp32" and "fp32:" in first


def test_the_command_tells_one_kind(monkeypatch, capsys):
    monkeypatch.setattr(schedules, "count_step", lambda config, classes: Step(1648.0, 5.0, 7.0))
    monkeypatch.setattr("sys.argv", ["schedules", "--gpu", "H100", "--batch", "8", "--precision", "bf16"])
    schedules.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1].startswith("H100: VOC") and "8 images at once, bf16" in lines[0]


def test_the_guide_says_what_is_counted():
    told = "\n".join(counted(TrainConfig(), GPUS))
    guide = " ".join((ROOT / "notebooks" / "README.md").read_text("utf-8").split())
    for figure in ("12.5 GB", "1.9 to 4.8", "3.6 to 9.0", "8.3 to 21", "15 to 37", "1,648 GFLOP"):
        assert figure in told and figure in guide, figure
    assert "COCO 13.4" in told and "COCO 13.4 GB" in guide
