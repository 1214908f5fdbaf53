"""The estimate before a training."""

from types import SimpleNamespace

import pytest
import torch

from factories import settings
from wsfcn_lib.evaluation import profiling
from wsfcn_lib.evaluation.profiling import preflight
from wsfcn_lib.runs import storage
from wsfcn_lib.runs.storage import RunError
from wsfcn_lib.supervision import TrainingError


def test_it_changes_nothing(data, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    estimate = preflight(settings(data), tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())
    assert not (tmp_path / "run").exists()
    assert estimate.seconds > 0 and estimate.full_step > 0 and estimate.memory_mb > 50


def test_the_disk_suffices_and_is_not_exaggerated(data, finished):
    used = sum(file.stat().st_size for file in finished[0].rglob("*") if file.is_file()) / 1e6
    disk = preflight(settings(data), finished[0]).disk_mb
    assert used < disk < 3 * used + 5  # 5 MB are set aside for logs
    assert preflight(settings(data, optimiser="sgd"), finished[0]).disk_mb < disk, "one moment instead of two"


@pytest.fixture
def measured(monkeypatch):
    """A machine that loads a batch in 1 s, trains a step in 2 or 3 s, and needs 5 MB of disk."""
    monkeypatch.setattr(profiling, "measure", lambda *_: (1.0, 2.0, 3.0, 5_000_000))


def test_the_whole_is_reckoned_from_one_step_of_each_kind(data, tmp_path, measured):
    estimate = preflight(settings(data), tmp_path)
    validations = 3  # before epochs 0 and 2, and after the last
    assert (estimate.warmup_step, estimate.full_step, estimate.disk_mb) == (3, 4, 5)
    assert estimate.seconds == pytest.approx(4 * (1 * 3 + 2 * 4) + validations * 1 * (1 + 4 / 3))


def test_workers_load_while_the_network_works(data, tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "measure", lambda *_: (5.0, 2.0, 3.0, 0))
    estimate = preflight(settings(data, workers=2), tmp_path)
    assert (estimate.warmup_step, estimate.full_step) == (2.5, 3), "the slower one of both"


def test_too_small_a_disk_is_told_before_the_start(data, tmp_path, monkeypatch, measured):
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: SimpleNamespace(free=3e6))
    with pytest.raises(RunError, match=r"run needs 0.0 GB of disk, 0.0 GB are free; delete old runs"):
        preflight(settings(data), tmp_path / "run")


def test_too_little_memory_is_told_before_the_start(data, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(profiling, "train_step", full)
    rule = "cpu has not enough memory for one training step: lower batch_size=8 or crop=48"
    with pytest.raises(TrainingError, match=rule):
        preflight(settings(data), tmp_path)


@pytest.mark.parametrize("slowdown, said", [(40.0, True), (0.6, False)])
def test_bf16_is_advised_against_where_the_processor_is_slow_at_it(
    data, tmp_path, monkeypatch, slowdown, said
):
    monkeypatch.setattr(profiling, "bf16_slowdown", lambda: slowdown)
    need = profiling.preflight(settings(data, precision="bf16"), tmp_path / "run")
    line = "this processor computes bf16 40 times as slowly as fp32: set precision to fp32"
    assert (line in need.notes) == said
    assert profiling.preflight(settings(data), tmp_path / "run").notes == [n for n in need.notes if n != line]


def test_the_length_is_said_beside_known_ones(data, tmp_path):
    need = profiling.preflight(settings(data, steps=600), tmp_path / "run")
    assert need.length.startswith("600 steps; the network that ships had ")
