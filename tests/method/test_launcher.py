"""What a launcher or a shell leaves in the environment does not train: it has no effect, or run.json shows it."""

import os

import pytest

from factories import equal, settings, weights
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.train import build_accelerator, train

LEFT = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
    "ACCELERATE_GRADIENT_CLIPPING": "0.001",
    "ACCELERATE_DOWNCAST_BF16": "true",
    "FSDP_VERSION": "2",
}


@pytest.mark.parametrize(
    "name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"]
)
def test_other_ways_to_share_a_network_are_not_taken(name, data, monkeypatch):
    monkeypatch.setenv(name, "true")
    accelerator = build_accelerator(settings(data))
    assert accelerator.distributed_type.value == "NO" and os.environ[name] == "true"


def test_variables_of_a_launcher_change_no_weight(data, tmp_path, monkeypatch):
    list(train(settings(data, epochs=2), tmp_path / "plain"))
    for name, value in LEFT.items():
        monkeypatch.setenv(name, value)
    list(train(settings(data, epochs=2), tmp_path / "launched"))
    assert equal(weights(tmp_path / "plain"), weights(tmp_path / "launched"))
    recorded = read_run(tmp_path / "launched")["stages"]["02_train"]["environment"]
    assert LEFT.items() <= recorded.items()


def test_what_libraries_heed_is_recorded_without_folders(data, tmp_path, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("TORCH_HOME", "/somewhere/else")
    list(train(settings(data, epochs=1), tmp_path / "run"))
    recorded = read_run(tmp_path / "run")["stages"]["02_train"]["environment"]
    assert recorded["NVIDIA_TF32_OVERRIDE"] == "1" and "TORCH_HOME" not in recorded
