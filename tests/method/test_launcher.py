"""What a launcher or a shell leaves in the environment does not train: it has no effect, or run.json shows it."""

import os
import subprocess
import sys

import pytest
from accelerate import PartialState

from factories import equal, settings, weights
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.processes import as_launched
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


@pytest.mark.parametrize(
    "left",
    [
        {"LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
        {"PMI_SIZE": "2", "PMI_RANK": "0"},
        {"ACCELERATE_TORCH_DEVICE": "nowhere"},
    ],
)
def test_what_a_launcher_left_is_named_with_the_way_to_unset_it(data, tmp_path, left):
    done = train_alone(data, tmp_path, left)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("RunError: this process is told by ")
    assert f"if no launcher started it, unset {' '.join(left)};" in done.stderr
    assert all(f"{name}={value}" in done.stderr for name, value in left.items())


def test_a_process_that_will_wait_for_others_says_so(monkeypatch, capsys):
    left = {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29517",
    }
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(PartialState, "_shared_state", {})  # as in a process that has not begun
    with as_launched():
        pass
    told = capsys.readouterr().out
    assert told.startswith("NOTE: this process is told by ") and "WORLD_SIZE=2" in told
    assert all(name in told.partition("unset ")[2].partition(";")[0].split() for name in left)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with as_launched():
        pass
    assert capsys.readouterr().out == "", "a launcher starts the others too"


def train_alone(data, folder, variables):
    """The command in a process of its own, as from a shell with these variables."""
    (folder / "settings.json").write_text(settings(data).model_dump_json())
    command = [
        sys.executable,
        "-m",
        "wsfcn_lib.train",
        str(folder / "run"),
        "--settings",
        str(folder / "settings.json"),
    ]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=200,
    )
