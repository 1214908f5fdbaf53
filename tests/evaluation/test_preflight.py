"""The estimate before a training."""

from types import SimpleNamespace

import pytest
import torch

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.glyphs import GlyphSettings
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.evaluation import profiling as source
from wsfcn_lib.evaluation.profiling import preflight
from wsfcn_lib.network import build_network
from wsfcn_lib.runs import folder as runs
from wsfcn_lib.runs.storage import RunError
from wsfcn_lib.supervision import TrainingError
from wsfcn_lib.train import train

SMALL = {
    "backbone": "tiny",
    "width": 16,
    "dilations": (1, 2, 4, 6),
    "epochs": 3,
    "warmup_epochs": 1,
    "batch_size": 8,
    "crop": 48,
}
SMALL |= {"device": "cpu", "workers": 0, "optimiser": "adamw"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("glyphs")
    prepare(
        SourceSettings(raw=str(root / "raw"), glyphs=GlyphSettings(size=48, train=32, val=8, test=8)),
        root / "prepared",
    )
    return str(root / "prepared")


def test_it_changes_nothing(data, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    need = preflight(TrainConfig(data=data, **SMALL), tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())
    assert not (tmp_path / "run").exists()
    assert need.seconds > 0 and need.full_step > 0 and need.memory_mb > 50


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_the_disk_suffices_and_is_not_exaggerated(data, tmp_path, optimiser):
    config = TrainConfig(data=data, **SMALL | {"optimiser": optimiser})
    for _ in train(config, tmp_path / "run"):
        pass
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    used = sum(file.stat().st_size for file in files) / 1e6
    assert used < preflight(config, tmp_path / "run").disk_mb < 3 * used + 5  # 5 MB are set aside for logs


def fixed(monkeypatch, loading=1.0, steps=(2.0, 3.0)):
    config = TrainConfig(**SMALL).network(7)
    net = build_network(config)
    monkeypatch.setattr(source, "_measure", lambda *_: (loading, steps, net, SimpleNamespace(state={})))


def test_the_whole_is_reckoned_from_one_step_of_each_kind(data, tmp_path, monkeypatch):
    fixed(monkeypatch)
    need = preflight(TrainConfig(data=data, **SMALL), tmp_path)
    checks = 3  # before epochs 0 and 2, and after the last
    assert (need.warmup_step, need.full_step) == (3, 4)
    assert need.seconds == pytest.approx(4 * (1 * 3 + 2 * 4) + checks * 1 * (1 + 4 / 3))


def test_workers_load_while_the_network_works(data, tmp_path, monkeypatch):
    fixed(monkeypatch, loading=8.0)
    need = preflight(TrainConfig(data=data, **SMALL | {"workers": 2}), tmp_path)
    assert (need.warmup_step, need.full_step) == (4, 4)  # they are the slower ones here


def test_too_small_a_disk_is_told_before_the_start(data, tmp_path, monkeypatch):
    fixed(monkeypatch)
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda _: SimpleNamespace(free=3e6))
    with pytest.raises(RunError, match=r"run needs 0.0 GB of disk, 0.0 GB are free; delete old runs"):
        preflight(TrainConfig(data=data, **SMALL), tmp_path / "run")


def test_too_little_memory_is_told_before_the_start(data, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(source, "train_step", full)
    with pytest.raises(
        TrainingError, match="cpu has not enough memory for one training step: lower batch_size=8 or crop=48"
    ):
        preflight(TrainConfig(data=data, **SMALL), tmp_path)
