"""What a training came from is kept beside run.json too, and is part of it: settings, lists, weights, environment."""

import json

import pytest
import torch

from factories import equal, settings, weights
from wsfcn_lib.config import NetConfig
from wsfcn_lib.data.glyphs import GlyphSettings
from wsfcn_lib.data.model_zoo import ARTEFACTS, WeightsError
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.network import build_network
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.run_diff import diff_runs
from wsfcn_lib.runs.storage import RunError, checksum
from wsfcn_lib.train import train
from wsfcn_lib.weights import published_names

STAGE = "02_train"


def stopped(data, run, **changes):
    """A training that was stopped within its second epoch, and its process ended."""
    for row in train(settings(data, **changes), run):
        if row["step"] == 6:
            (run / "stop").touch()
    RunFolder(run).close()
    return run


def edited(run, **values):
    record = json.loads((run / "run.json").read_text())
    record["stages"][STAGE]["settings"] |= values
    (run / "run.json").write_text(json.dumps(record))


def test_a_lost_or_edited_record_lets_no_training_go_on_with_other_settings(data, finished, tmp_path):
    run = stopped(data, tmp_path / "run")
    edited(run, lr=0.5)
    with pytest.raises(RunError, match=r"other settings in its checkpoints: lr 0\.001 → 0\.5\n.*--run-name"):
        next(train(settings(data, lr=0.5), run))
    (run / "run.json").unlink()
    with pytest.raises(RunError, match=r"in its checkpoints: seed 0 → 9, lr 0\.001 → 0\.5\n"):
        next(train(settings(data, lr=0.5, seed=9), run))
    assert not (run / "run.json").exists(), "what is refused is not recorded"
    list(train(settings(data, workers=1), run))
    assert equal(weights(run), weights(finished[0])), "with its own it goes on"


def test_a_lost_record_lets_no_training_go_on_with_other_lists(data, tmp_path):
    run = stopped(data, tmp_path / "run")
    other = SourceSettings(
        raw=str(tmp_path / "raw"), glyphs=GlyphSettings(size=48, train=32, val=8, test=8, seed=5)
    )
    before = json.loads((run / "run.json").read_text())["stages"][STAGE]
    (run / "run.json").unlink()
    state = torch.load(sorted(run.glob("checkpoints/state-*"))[-1], weights_only=True)
    assert state["origin"] == {"settings": before["settings"], "data": before["data"]}
    moved = (data.parent / "prepared").rename(data.parent / "kept")
    try:
        prepare(other, data)
        with pytest.raises(RunError, match=r"train\.csv.* changed since it began"):
            next(train(settings(data), run))
    finally:
        data.rename(tmp_path / "other")
        moved.rename(data)


def test_checkpoints_that_nothing_tells_of_are_left_alone(data, finished, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.safetensors").write_bytes(b"of before")
    with pytest.raises(RunError, match="no record of the settings they came from\nKeep it"):
        next(train(settings(data), run))
    assert [path.name for path in run.rglob("*.*")] == ["last.safetensors"]


def imagenet(path, seed):
    """A file of MobileNetV2's names and shapes, drawn anew."""
    torch.manual_seed(seed)
    net = build_network(NetConfig(backbone="mobilenet_v2", width=16, dilations=(1, 2, 3, 4)))
    state = net.state_dict()
    names = {ours: theirs for ours, theirs in published_names(net).items() if ours.startswith("backbone.")}
    torch.save({theirs: state[ours] for ours, theirs in names.items()}, path)
    return path


def test_the_file_behind_a_name_of_weights_is_recorded_and_compared(data, tmp_path, monkeypatch):
    config = settings(data, backbone="mobilenet_v2", initial_weights="mobilenet_v2", crop=64)
    runs = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = imagenet(folder / ARTEFACTS["mobilenet_v2"].also[0], seed)
        monkeypatch.setenv("WSFCN_WEIGHTS", str(folder))
        next(train(config, folder / "run"))
        RunFolder(folder / "run").close()
        runs.append(read_run(folder / "run"))
        assert runs[-1]["stages"][STAGE]["initial_weights"] == {"file": path.name, "sha256": checksum(path)}
    rows = [row[:2] for row in diff_runs(*runs)]
    assert ("data", f"stages.{STAGE}.initial_weights.sha256") in rows
    path.rename(path.with_name(ARTEFACTS["mobilenet_v2"].file))
    with pytest.raises(
        WeightsError, match="its sha256 begins with .*, not with b0353104; fetch it again, or"
    ):
        next(train(config, tmp_path / "third"))


def test_the_environment_of_a_run_and_of_its_continuation_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    with RunFolder.open(tmp_path / "a", {}, STAGE):
        pass
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    with RunFolder.open(tmp_path / "b", {}, STAGE):
        pass
    key = f"stages.{STAGE}.environment.ATEN_CPU_CAPABILITY"
    rows = diff_runs(read_run(tmp_path / "a"), read_run(tmp_path / "b"))
    assert ("environment", key, "avx2", "default") in rows
    with RunFolder.open(tmp_path / "a", {}, STAGE):
        resumed = read_run(tmp_path / "a")["stages"][STAGE]["resumed"]
    assert resumed[0]["environment"]["ATEN_CPU_CAPABILITY"] == "default" and "versions" not in resumed[0]
