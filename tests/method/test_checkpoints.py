"""Snapshots and resume states: what is damaged is noticed, what is sound is kept."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from factories import equal, settings, weights
from wsfcn_lib import checkpoints
from wsfcn_lib.checkpoints import CheckpointError, Progress, find_snapshot, load_snapshot, random_states
from wsfcn_lib.network import build_network
from wsfcn_lib.train import build_optimiser


@pytest.fixture
def states(finished, tmp_path):
    """The checkpoints of the finished run, copied: states of steps 8 and 12."""
    return shutil.copytree(finished[0] / "checkpoints", tmp_path / "checkpoints")


def trained_with(**changes):
    config = settings("data", **changes)
    net = build_network(config.network(7))
    return net, build_optimiser(net, config)


def names(folder):
    return sorted(path.name[:14] for path in folder.glob("state-*.pt"))


def test_a_whole_state_is_restored(states, finished):
    net, optimiser = trained_with()
    progress = Progress.restore(states, net, optimiser)
    assert progress.step == 12 and progress.best > -10 and equal(net.state_dict(), weights(finished[0]))
    assert optimiser.state_dict()["state"][0]["step"] == 12


@pytest.mark.parametrize("damage", ["torn", "one bit", "empty"])
def test_a_damaged_state_gives_way_to_the_one_before(states, capsys, damage):
    net, optimiser = trained_with()
    before, newest = sorted(states.glob("state-*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"torn": content[:1000], "one bit": content, "empty": b""}[damage])
    if damage == "one bit":
        assert torch.load(newest, weights_only=True), "torch does not notice"
    assert Progress.restore(states, net, optimiser).step == 8
    reason = "its checksum is another than its name says"
    message = f"{newest.name} is damaged ({reason}); going back to the state before it"
    assert message in capsys.readouterr().out
    Progress(step=12).save(states, net, optimiser, [(random_states(), [0.0] * 4)])
    left = sorted(states.glob("state-*.pt"))
    assert left[0] == before and left[1] != newest and len(left) == 2, "the damaged one has made room"


def test_a_new_state_outlives_damaged_ones_of_later_steps(tmp_path, capsys):
    net = torch.nn.Linear(2, 2)
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    for step in (200, 300):
        Progress(step=step).save(tmp_path, net, optimiser, [(random_states(), [0.0] * 4)])
    for path in tmp_path.glob("state-*.pt"):
        path.write_bytes(b"torn")
    assert Progress.restore(tmp_path, net, optimiser).step == 0
    assert "starting from the beginning" in capsys.readouterr().out
    Progress(step=100).save(tmp_path, net, optimiser, [(random_states(), [0.0] * 4)])
    assert names(tmp_path) == ["state-00000100"]
    for step in (150, 170):
        Progress(step=step).save(tmp_path, net, optimiser, [(random_states(), [0.0] * 4)])
    assert names(tmp_path) == ["state-00000150", "state-00000170"], "two are kept"
    assert Progress.restore(tmp_path, net, optimiser).step == 170


def test_a_state_of_another_optimiser_is_refused_by_name(states):
    message = "state-.* is of another network, optimiser or version.*choose another run name"
    with pytest.raises(CheckpointError, match=message):
        Progress.restore(states, *trained_with(optimiser="sgd"))


def test_a_full_disk_leaves_the_states_before(states, monkeypatch):
    before = {path.name: path.read_bytes() for path in states.iterdir()}

    def full(state, path):
        path.write_bytes(b"part of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left.*make room"):
        Progress(step=99).save(states, *trained_with(), [])
    assert before == {path.name: path.read_bytes() for path in states.iterdir()}


def test_a_snapshot_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="02_train first"):
        find_snapshot(tmp_path)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 50)
    with pytest.raises(CheckpointError, match="not a snapshot"):
        load_snapshot(damaged)


@pytest.mark.parametrize(
    "content, told",
    [
        (lambda whole: whole[: len(whole) // 2], "or torn .*take last.safetensors or an older snapshot"),
        (lambda whole: b"", "or torn .*take last.safetensors"),
        (lambda whole: b"<html>404</html>", "is a web page, not the weights"),
        (
            lambda whole: b"version https://git-lfs.github.com/spec/v1\n",
            "is a pointer of Git LFS.*git lfs pull",
        ),
        (
            lambda whole: whole[:-500] + bytes([whole[-500] ^ 1]) + whole[-499:],
            "run.json has another checksum of it",
        ),
    ],
)
def test_a_snapshot_is_told_by_its_cause(finished, tmp_path, content, told):
    run = shutil.copytree(finished[0], tmp_path / "run")
    path = find_snapshot(run, "best")
    whole = path.read_bytes()
    path.write_bytes(content(whole))
    if "checksum" not in told:
        (run / "run.json").unlink()
    with pytest.raises(CheckpointError, match=told) as error:
        load_snapshot(path)
    assert path.name in str(error.value) and "\n" not in str(error.value)
    shutil.copy(finished[0] / "run.json", run)
    path.write_bytes(whole)
    assert load_snapshot(path)[0].config.backbone == "tiny"


def test_another_programs_safetensors_are_called_so(tmp_path):
    save_file({"encoder.weight": torch.zeros(3)}, tmp_path / "hf.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match="hf.safetensors is not .* but another program's: .*initial_weights"
    ):
        load_snapshot(tmp_path / "hf.safetensors")


@pytest.mark.parametrize(
    "fault, words",
    [(PermissionError(13, "Permission denied"), "the right to read"), (MemoryError(), "not enough memory")],
)
def test_a_sound_snapshot_is_not_blamed(finished, monkeypatch, fault, words):
    def refuse(*arguments):
        raise fault

    monkeypatch.setattr(checkpoints, "foreign_format", refuse)
    with pytest.raises(CheckpointError, match=f"cannot be read now: .*{words}") as error:
        load_snapshot(find_snapshot(finished[0]))
    assert "is not a snapshot" not in str(error.value)


def test_a_snapshot_of_before_a_setting_existed_is_read(finished, tmp_path):
    path = find_snapshot(finished[0])
    with safe_open(path, "pt") as file:
        metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    config = json.loads(metadata["config"])
    for name in ("fca_branches", "channel_attention", "align"):
        del config[name]
    save_file(state, tmp_path / "old.safetensors", metadata | {"config": json.dumps(config)})
    assert load_snapshot(tmp_path / "old.safetensors")[0].config == load_snapshot(path)[0].config
