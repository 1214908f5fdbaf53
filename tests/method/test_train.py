"""Training: what it learns from, what it leaves behind, and that stopping and seeds change nothing."""

import csv
import json
import math
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from factories import equal, log_of, settings, weights, without_times
from wsfcn_lib.checkpoints import (
    CheckpointError,
    Progress,
    find_snapshot,
    load_snapshot,
    random_states,
    snapshots,
)
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.glyphs import GLYPH_CLASSES, GlyphSettings
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.model_zoo import WeightsError
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.data.training_set import epoch_batches
from wsfcn_lib.network import build_network
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.log import COLUMNS, RunLog
from wsfcn_lib.runs.storage import RunError
from wsfcn_lib.supervision import TrainingError, training_losses
from wsfcn_lib.train import (
    THREADS,
    build_accelerator,
    build_optimiser,
    lr_factor,
    open_run,
    show_progress,
    train,
    train_step,
)


def test_rows_and_files(finished):
    run, rows = finished
    assert [row["epoch"] for row in rows if "val_loss" in row] == [0, 2, 3], (
        "before every even epoch, and at the end"
    )
    steps = [row["step"] for row in rows if "val_loss" not in row]
    assert steps == [2, 4, 6, 8, 10, 12]
    assert all(row["mask_loss"] == 0 for row in rows if "mask_loss" in row and row["epoch"] < 1), (
        "no mask loss in the warm-up"
    )
    assert all(math.isfinite(value) for row in rows for value in row.values())
    with open(run / "log.csv", newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert len(log_of(run)) == len(rows)
    assert sorted(p.name for p in (run / "panels").iterdir()) == [
        "epoch-000.png",
        "epoch-001.png",
        "epoch-002.png",
    ]
    assert len(list((run / "checkpoints").glob("state-*.pt"))) == 2
    assert list((run / "tensorboard").iterdir())
    stage = read_run(run)["stages"]["02_train"]
    assert (
        stage["finished"]
        and stage["settings"]["epochs"] == 3
        and stage["seconds"] > 0
        and stage["peak_memory_mb"] > 0
    )
    assert set(stage["data"]) >= {"classes.json", "train.csv"}
    assert stage["files"].keys() == {path.name for path in (run / "checkpoints").glob("*.safetensors")}


def test_snapshots_follow_the_validation(finished):
    run, rows = finished
    merits = [(row["epoch"], 1 - row["val_loss"]) for row in rows if "val_loss" in row and row["epoch"] >= 1]
    best, expected = -math.inf, []
    for epoch, merit in merits:
        if merit >= best:
            best = merit
            expected.append(f"e{epoch:03d}Xs{merit:.3f}.safetensors")
    assert [path.name for path in snapshots(run / "checkpoints")] == expected
    assert find_snapshot(run).name == expected[-1]
    net, classes, facts = load_snapshot(find_snapshot(run))
    assert (
        net.config.num_classes == 7
        and [c["name"] for c in classes] == list(GLYPH_CLASSES)
        and facts["crop"] == 48
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_goes_bad_is_told_in_a_line(data, tmp_path, workers):
    whole = tmp_path / "data"
    prepare(
        SourceSettings(raw=str(tmp_path / "raw"), glyphs=GlyphSettings(size=48, train=32, val=8, test=8)),
        whole,
    )
    bad = Manifest.load(whole).samples("train")[3].image
    content = bad.read_bytes()
    bad.write_bytes(content[:50])
    with pytest.raises(DataError) as caught:
        list(train(settings(whole, workers=workers), tmp_path / "run"))
    told = str(caught.value)
    assert told.startswith(f"{bad}: not a readable picture") and "\n" not in told
    assert told.endswith("then give the same command again, it goes on")
    bad.write_bytes(content)
    assert list(train(settings(whole, workers=workers), tmp_path / "run"))[-1]["epoch"] == 3


def test_no_resume_state_is_newer_than_the_log_on_disk(data, tmp_path, monkeypatch):
    order = []
    sync, save = RunLog.sync, Progress.save
    monkeypatch.setattr(RunLog, "sync", lambda self: order.append("log") or sync(self))
    monkeypatch.setattr(Progress, "save", lambda self, *rest: order.append("state") or save(self, *rest))
    list(train(settings(data, epochs=2), tmp_path / "run"))
    assert order == ["log", "state"] * 2


def test_snapshots_of_epochs_change_nothing_else(data, finished, tmp_path):
    list(train(settings(data, snapshot_every=2), tmp_path / "run"))
    folder = tmp_path / "run" / "checkpoints"
    assert [path.name for path in folder.glob("epoch-*")] == ["epoch-002.safetensors"], "of three epochs"
    assert load_snapshot(folder / "epoch-002.safetensors")[2]["epoch"] == 2
    assert [p.name for p in snapshots(folder)] == [p.name for p in snapshots(finished[0] / "checkpoints")]
    first, second = weights(finished[0]), weights(tmp_path / "run")
    assert all(torch.equal(first[k], second[k]) for k in first)


# settings that older runs do not know
NEW = ("fca_branches", "channel_attention", "align", "snapshot_every", "accumulate", "batch_norm")


def test_a_run_of_before_a_setting_existed_goes_on(data, finished, tmp_path):
    run, rows = tmp_path / "run", train(settings(data), tmp_path / "run")
    for count, _ in enumerate(rows, start=1):
        if count == 4:
            (run / "stop").touch()
    record = json.loads((run / "run.json").read_text())
    for name in NEW:
        del record["stages"]["02_train"]["settings"][name]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="align: True → False"):
        list(train(settings(data, align=False), run))
    list(train(settings(data), run))
    first, second = weights(finished[0]), weights(run)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_a_snapshot_of_before_a_setting_existed_is_read(finished, tmp_path):
    with safe_open(find_snapshot(finished[0]), "pt") as file:
        metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    config = {name: value for name, value in json.loads(metadata["config"]).items() if name not in NEW}
    save_file(state, tmp_path / "old.safetensors", metadata | {"config": json.dumps(config)})
    assert (
        load_snapshot(tmp_path / "old.safetensors")[0].config
        == load_snapshot(find_snapshot(finished[0]))[0].config
    )


def test_training_opens_no_mask(data, finished, tmp_path, monkeypatch):
    """With every mask file gone, training gives the same log."""
    hidden = tmp_path / "hidden"
    masks = next((data.parent / "raw").rglob("SegmentationClass"))
    masks.rename(hidden)
    try:
        rows = list(train(settings(data), tmp_path / "run"))
    finally:
        hidden.rename(masks)
    assert without_times(rows) == without_times(finished[1])


def test_same_seed_same_weights_and_workers_change_nothing(data, finished, tmp_path):
    list(train(settings(data, workers=2), tmp_path / "again"))
    first, again = weights(finished[0]), weights(tmp_path / "again")
    assert all(torch.equal(first[k], again[k]) for k in first)
    files = [read_run(run)["stages"]["02_train"]["files"] for run in (finished[0], tmp_path / "again")]
    assert files[0] == files[1], "the files are equal too, which their checksums tell"
    list(train(settings(data, seed=1), tmp_path / "other"))
    assert any(not torch.equal(first[k], v) for k, v in weights(tmp_path / "other").items())


@pytest.mark.parametrize("after", [1, 4, 7])
def test_stopped_and_resumed_equals_uninterrupted(data, finished, tmp_path, after):
    """The `stop` file ends training after the current step; going on gives bit-identical weights, log and snapshots."""
    run = tmp_path / "run"
    rows = train(settings(data), run)
    for count, _ in enumerate(rows, start=1):
        if count == after:
            (run / "stop").touch()
    stopped = read_run(run)["stages"]["02_train"]
    assert (run / "checkpoints" / "last.safetensors").exists() and not stopped.get("finished")
    assert stopped["stopped_at"] > 0 and not (run / "stop").exists(), "obeyed: the next start is not stopped"
    list(train(settings(data), run))
    ended = read_run(run)["stages"]["02_train"]
    assert ended["seconds"] > stopped["seconds"] > 0, "the time of both parts"
    assert ended["finished"] and ended["stopped_at"] is None
    whole = finished[0]
    assert log_of(run) == log_of(whole)
    first, second = weights(whole), weights(run)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert [p.name for p in snapshots(run / "checkpoints")] == [
        p.name for p in snapshots(whole / "checkpoints")
    ]


def test_a_stop_before_the_first_step_is_obeyed(data, tmp_path):
    """As when the button is pressed between a notebook's opening of the run and the training's start."""
    run, config = tmp_path / "run", settings(data)
    with open_run(config, run, Manifest.load(data), "cpu"):
        (run / "stop").touch()
        rows = list(train(config, run))
        assert [row["step"] for row in rows] == [0] and len(
            list((run / "checkpoints").glob("state-00000001-*.pt"))
        ) == 1
        assert read_run(run)["stages"]["02_train"]["stopped_at"] == 1 and not (run / "stop").exists()
        next(again := train(config, run))  # in the same process, which has the lock
        assert read_run(run)["stages"]["02_train"]["stopped_at"] is None
        again.close()


def test_a_stop_that_an_earlier_process_left_stops_nothing(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stop").touch()
    list(train(settings(data, epochs=1), tmp_path / "run"))
    assert read_run(tmp_path / "run")["stages"]["02_train"]["finished"]


def test_a_torn_state_falls_back_to_the_one_before(data, finished, tmp_path, capsys):
    run = tmp_path / "run"
    for row in train(settings(data), run):
        if row["step"] == 8 and "val_loss" not in row:
            (run / "stop").touch()
    newest = sorted((run / "checkpoints").glob("state-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    list(train(settings(data), run))
    assert "damaged" in capsys.readouterr().out
    first, second = weights(finished[0]), weights(run)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_killed_between_the_files_of_an_epoch_loses_none_of_them(data, finished, tmp_path, monkeypatch):
    """The state is written last, so an epoch whose other files are missing is done again, and comes out the same."""
    whole, run, save = tmp_path / "whole", tmp_path / "run", Progress.save
    list(train(settings(data, snapshot_every=1), whole))

    def killed(self, folder, *state):
        if self.step == killed.at:
            raise KeyboardInterrupt
        save(self, folder, *state)

    for killed.at in (4, 12):  # the first epoch, the last one
        monkeypatch.setattr(Progress, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            list(train(settings(data, snapshot_every=1), run))
        RunFolder(run).close()
    monkeypatch.setattr(Progress, "save", save)
    list(train(settings(data, snapshot_every=1), run))
    names, found = (
        sorted(p.relative_to(home) for p in home.glob("*/*") if p.suffix in (".safetensors", ".png"))
        for home in (whole, run)
    )
    assert len(names) >= 7 and names == found
    assert all((run / name).read_bytes() == (whole / name).read_bytes() for name in names)
    assert log_of(run) == log_of(whole)


def test_a_new_state_outlives_damaged_ones_of_later_steps(tmp_path, capsys):
    net = torch.nn.Linear(2, 2)
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    for step in (200, 300):
        Progress(step=step).save(tmp_path, net, optimiser, [random_states()])
    for path in tmp_path.glob("state-*.pt"):
        path.write_bytes(b"torn")
    assert Progress.restore(tmp_path, net, optimiser).step == 0
    assert "starting from the beginning" in capsys.readouterr().out
    Progress(step=100).save(tmp_path, net, optimiser, [random_states()])
    assert [path.name[:14] for path in tmp_path.glob("state-*.pt")] == ["state-00000100"]
    assert Progress.restore(tmp_path, net, optimiser).step == 100


def test_a_run_of_other_settings_is_left_alone(data, finished):
    before = log_of(finished[0])
    with pytest.raises(RunError, match="lr: 0.001 → 0.5"):
        list(train(settings(data, lr=0.5), finished[0]))
    assert log_of(finished[0]) == before


def test_a_run_of_other_lists_is_left_alone(data, finished):
    run, _ = finished
    before = (data / "train.csv").read_bytes()
    (data / "train.csv").write_bytes(before.rstrip().rsplit(b"\n", 1)[0] + b"\n")
    with pytest.raises(
        TrainingError, match=r"train.csv in .* changed since run whole began; choose another run name"
    ):
        next(train(settings(data), run))
    (data / "train.csv").write_bytes(before)


def test_baseline_cam_trains(data, tmp_path):
    rows = list(train(settings(data, context="none"), tmp_path / "cam"))
    assert all(row["mask_loss"] == 0 for row in rows if "mask_loss" in row)
    assert find_snapshot(tmp_path / "cam").exists()


def test_bf16_trains_near_fp32(data, finished, tmp_path):
    rows = list(train(settings(data, precision="bf16"), tmp_path / "bf16"))
    pairs = [
        (a["classification_loss"], b["classification_loss"])
        for a, b in zip(rows, finished[1])
        if "mask_loss" in a
    ]
    assert all(abs(a - b) < 0.1 for a, b in pairs) and pairs


def test_errors_name_value_and_way_out(data, tmp_path):
    with pytest.raises(TrainingError, match="batch_size=64 is more than the 32 training images"):
        list(train(settings(data, batch_size=64), tmp_path / "run"))
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="device='cuda'"):
            build_accelerator(settings(data, device="cuda"))
    with pytest.raises(CheckpointError, match="02_train first"):
        find_snapshot(tmp_path)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 50)
    with pytest.raises(CheckpointError, match="not a snapshot"):
        load_snapshot(damaged)


class Spoilt:
    """The losses, of which call number `at` is spoilt: not a number, infinite, or finite with a gradient that is no number."""

    def __init__(self, how, at):
        self.how, self.at, self.calls = how, at, 0

    def __call__(self, out, images, tags, config, with_masks):
        self.calls += 1
        classification, mask = training_losses(out, images, tags, config, with_masks)
        if self.calls != self.at:
            return classification, mask
        return classification * {"nan": math.nan, "inf": math.inf}.get(self.how, 1) + (
            0 * out.logits.sum()
        ).sqrt(), mask


def pictures_of(data, epoch, batch):
    samples, indices = Manifest.load(data).samples("train"), epoch_batches(32, 8, 0, epoch)[batch]
    return ", ".join(samples[index].image.name for index in indices)


@pytest.mark.parametrize("how", ["nan", "inf"])
def test_a_loss_that_is_no_number_stops_with_step_pictures_and_snapshot(
    data, finished, tmp_path, monkeypatch, how
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("wsfcn_lib.train.losses", Spoilt(how, 6))
        with pytest.raises(TrainingError) as error:
            list(train(settings(data), run))
    told = str(error.value)
    assert told.startswith(
        f"loss is {how} at step 6, on {pictures_of(data, 1, 1)}; the last good snapshot is {run}"
    )
    assert "last.safetensors. Look at these pictures, lower lr, or set precision='fp32'" in told
    assert [path.name.split("-")[1] for path in (run / "checkpoints").glob("state-*.pt")] == ["00000004"]
    list(train(settings(data), run))  # what was saved is as good as if nothing had happened
    assert log_of(run) == log_of(finished[0]) and equal(weights(run), weights(finished[0]))


def test_weights_that_are_no_numbers_are_never_saved(data, tmp_path, monkeypatch):
    """The last loss of an epoch was finite, its gradient was not."""
    monkeypatch.setattr("wsfcn_lib.train.losses", Spoilt("gradient", 8))
    with pytest.raises(
        TrainingError, match=r"a weight is nan at step 8; the last good snapshot is .*last\.safetensors"
    ):
        list(train(settings(data), tmp_path / "run"))
    assert [path.name.split("-")[1] for path in (tmp_path / "run/checkpoints").glob("state-*.pt")] == [
        "00000004"
    ]
    assert all(v.isfinite().all() for v in weights(tmp_path / "run").values())


def test_a_validation_loss_that_is_no_number_stops_too(data, tmp_path, monkeypatch):
    monkeypatch.setattr("wsfcn_lib.job.losses", Spoilt("nan", 1))
    names = ", ".join(sample.image.name for sample in Manifest.load(data).samples("val"))
    with pytest.raises(
        TrainingError, match=f"validation loss is nan at step 1, on {names}; there is no snapshot yet"
    ):
        list(train(settings(data), tmp_path / "run"))


def test_a_state_with_one_wrong_bit_is_noticed(data, finished, tmp_path, capsys):
    shutil.copytree(finished[0] / "checkpoints", tmp_path / "checkpoints")
    net = build_network(settings(data).network(7))
    optimiser = build_optimiser(net, settings(data))
    before, newest = sorted((tmp_path / "checkpoints").glob("state-*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert torch.load(newest, weights_only=True), "torch does not notice"
    assert Progress.restore(tmp_path / "checkpoints", net, optimiser).step == 8
    told = f"{newest.name} is damaged (its checksum is another than its name says); going back to the state before it"
    assert told in capsys.readouterr().out
    Progress(step=12).save(tmp_path / "checkpoints", net, optimiser, [])
    left = sorted((tmp_path / "checkpoints").glob("state-*.pt"))
    assert left[0] == before and left[1] != newest and len(left) == 2, "the damaged one has made room"
    before.rename(before.with_name("state-00000008.pt"))
    left[1].unlink()
    assert Progress.restore(tmp_path / "checkpoints", net, optimiser).step == 8, (
        "states of before, without a checksum"
    )


def test_a_torn_row_of_the_log_is_dropped(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    path = tmp_path / "run" / "log.csv"
    before = path.read_bytes()
    path.write_bytes(before + b"2,1")  # of step 14, or of step 1?
    RunLog(tmp_path / "run", 13).close()
    assert path.read_bytes() == before


def test_learning_rate_is_a_function_of_the_step():
    assert lr_factor(0, 100, "constant") == lr_factor(99, 100, "constant") == 1
    values = [lr_factor(step, 100, "cosine") for step in range(101)]
    assert (
        values[0] == 1
        and values[50] == pytest.approx(0.5)
        and values[100] == pytest.approx(0)
        and values == sorted(values)[::-1]
    )


def test_optimisers_take_the_groups(data):
    net = build_network(settings(data).network(7))
    adamw = build_optimiser(net, settings(data, lr_multipliers=(1, 2, 3, 4)))
    assert [g["lr"] for g in adamw.param_groups[:4]] == pytest.approx([0.001, 0.002, 0.003, 0.004])
    sgd = build_optimiser(net, settings(data, optimiser="sgd"))
    assert isinstance(sgd, torch.optim.SGD) and {g["momentum"] for g in sgd.param_groups} == {0.9}
    assert [g["weight_decay"] for g in sgd.param_groups] == [5e-4, 0, 5e-4, 0]


@pytest.mark.parametrize("begin", [0, 5])
def test_the_time_to_go_is_right(capsys, monkeypatch, begin):
    """Twelve steps an epoch, four epochs, two seconds a step; logged every five steps and at the end of each epoch."""
    clock, training_losses = [0.0], {"classification_loss": 1.0, "mask_loss": 0.0, "images_per_second": 8}
    monkeypatch.setattr("wsfcn_lib.train.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def rows():
        for step in range(begin + 1, 49):
            clock[0] += 2
            if step % 5 == 0 or step % 12 == 0:
                yield {"epoch": (step - 1) // 12, "step": step} | training_losses

    list(show_progress(rows(), 4, pause=0))
    told = [line.split(" about ") for line in capsys.readouterr().out.splitlines()]
    left = {int(re.search(r"step (\d+)", line)[1]): int(rest[0].split()[0]) for line, *rest in told if rest}
    assert left == {step: 2 * (48 - step) for step in (15, 20, 24, 25, 30, 35, 36, 40, 45, 48)}


def test_threads_are_set_for_each_run_anew():
    own = torch.get_num_threads()
    try:
        for changes, expected in (({}, 1), ({"backbone": "resnet50"}, THREADS), ({"threads": 3}, 3), ({}, 1)):
            build_accelerator(settings("data", **changes))
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(own)


def test_a_state_of_another_optimiser_is_refused_by_name(data, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    config = settings(data, optimiser="sgd")
    net = build_network(config.network(7))
    with pytest.raises(
        CheckpointError, match="state-.* is of another network or optimiser.*choose another run name"
    ):
        Progress.restore(tmp_path / "run" / "checkpoints", net, build_optimiser(net, config))


def test_adamw_holds_the_flow_and_sgd_leaves_it_as_published():
    config = settings("data")
    for fusion, optimiser, count in (("sf2", "adamw", 5), ("sf2", "sgd", 4), ("gci", "adamw", 4)):
        own = config.model_copy(
            update={"fusion": fusion, "optimiser": optimiser, "lr_multipliers": (1, 2, 10, 20)}
        )
        net = build_network(own.network(4))
        groups = build_optimiser(net, own).param_groups
        assert len(groups) == count and sum(len(g["params"]) for g in groups) == sum(
            p.requires_grad for p in net.parameters()
        )
        if count == 5:
            assert groups[4]["params"] == [net.fusion.align.flow.weight]
            assert groups[4]["base_lr"] == pytest.approx(0.01 * groups[2]["base_lr"])
            assert groups[4]["weight_decay"] == groups[2]["weight_decay"]


def test_progress_lines(finished, capsys):
    assert list(show_progress(iter(finished[1]), 3)) == finished[1]
    printed = capsys.readouterr().out.splitlines()
    assert (
        sum("validation" in line for line in printed) == 3
        and sum("images/s" in line for line in printed) == 3
    )
    assert ["to go" in line for line in printed if "images/s" in line] == [False, True, True]
    list(show_progress(iter(finished[1]), 3, pause=0))
    assert capsys.readouterr().out.count("images/s") == sum("lr_old_weights" in row for row in finished[1])


def test_a_start_that_failed_binds_nobody(data, tmp_path):
    """Wrong weights, then right settings, in the same folder: nothing was trained, so nothing is lost."""
    with pytest.raises(WeightsError, match="nowhere.pth"):
        list(train(settings(data, initial_weights="nowhere.pth"), tmp_path / "run"))
    rows = train(settings(data), tmp_path / "run")
    assert next(rows)["step"] == 0
    rows.close()


def test_snapshots_beyond_the_last_few_go(data, tmp_path):
    list(train(settings(data, snapshots_kept=1, validate_every=1, lr=1e-4), tmp_path / "run"))
    assert len(snapshots(tmp_path / "run" / "checkpoints")) == 1


def test_an_untagged_validation_image_is_survived(data, tmp_path):
    """An untagged validation image may stand in the panel."""
    prepared = tmp_path / "prepared"
    shutil.copytree(data, prepared)
    for name in ("train", "val"):
        lines = (data / f"{name}.csv").read_text().replace("../", f"{data.parent}/").splitlines()
        if name == "val":
            lines[1] = ",".join([lines[1].split(",")[0], "", lines[1].split(",")[2]])
        (prepared / f"{name}.csv").write_text("\n".join(lines) + "\n")
    assert list(train(settings(prepared, epochs=1, warmup_epochs=0), tmp_path / "run"))


def test_a_full_disk_leaves_the_states_before(data, finished, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(finished[0] / "checkpoints", run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    net = build_network(settings(data).network(7))

    def full(state, path):
        path.write_bytes(b"part of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left.*make room"):
        Progress(step=99).save(run, net, build_optimiser(net, settings(data)), [])
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}


def test_unreachable_taps_are_warned_of(data, tmp_path, capsys):
    rows = train(settings(data, dilations=(1, 2, 4, 36)), tmp_path / "run")
    next(rows)
    rows.close()
    assert "(7, 36, [36, 72, 108])] see only padding; lower the dilations" in capsys.readouterr().out


def test_parts_of_a_batch_give_the_update_of_the_whole(data):
    """In evaluation mode, where no norm takes statistics from a part and nothing draws, parts change nothing but memory."""
    images, tags = torch.randn(8, 3, 48, 48), torch.zeros(8, len(GLYPH_CLASSES))
    tags[:, 0] = 1

    def update(accumulate):
        config = settings(data, accumulate=accumulate, optimiser="sgd", lr=0.01)
        torch.manual_seed(0)
        net, seen = build_network(config.network(len(GLYPH_CLASSES) + 1)).eval(), []
        net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        found = train_step(
            net, build_optimiser(net, config), images, tags, config, 1.0, True, torch.Tensor.backward
        )
        return found, net.state_dict(), seen

    (whole, weights_whole, one), (parts, weights_parts, four) = update(1), update(4)
    assert (one, four) == ([8], [2] * 4)
    assert whole == pytest.approx(parts, abs=1e-5) and whole[1] > 0
    assert all(torch.allclose(weights_whole[name], weights_parts[name], atol=1e-5) for name in weights_whole)


def test_a_batch_that_does_not_split_is_refused(data, tmp_path):
    with pytest.raises(
        TrainingError,
        match="batch_size=8 does not split evenly over 1 processes with accumulate=3 parts each",
    ):
        next(train(settings(data, accumulate=3), tmp_path / "run"))
