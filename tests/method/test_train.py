"""Training: what it learns from, what it leaves behind, and that stopping and seeds change nothing."""

import csv
import json
import math
import shutil

import pytest
import torch

from factories import equal, log_of, settings, weights, without_times
from wsfcn_lib.checkpoints import Progress, find_snapshot, load_snapshot, snapshots
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.glyphs import GLYPH_CLASSES
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.model_zoo import WeightsError
from wsfcn_lib.data.training_set import epoch_batches
from wsfcn_lib.network import build_network
from wsfcn_lib.plots.training_panels import panel_writer
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.log import COLUMNS, RunLog
from wsfcn_lib.runs.storage import RunError
from wsfcn_lib.supervision import TrainingError, require_finite, training_losses
from wsfcn_lib.train import (
    DEFAULT_THREADS,
    STAGE,
    build_accelerator,
    build_optimiser,
    check_sizes,
    lr_factor,
    open_run,
    synchronise_norms,
    train,
    train_step,
)


def stage_of(run):
    return read_run(run)["stages"][STAGE]


def states_of(run):
    """Steps of a run's resume states."""
    return sorted(int(path.name.split("-")[1]) for path in (run / "checkpoints").glob("state-*.pt"))


def one_epoch_back(finished, run):
    """A copy of the finished run that has yet to do its last epoch."""
    shutil.copytree(finished[0], run)
    next((run / "checkpoints").glob("state-00000012-*.pt")).unlink()
    (run / "checkpoints" / "last.safetensors").unlink()
    return run


def test_rows_and_files(finished):
    run, rows = finished
    validated = [row["epoch"] for row in rows if "val_loss" in row]
    assert validated == [0, 2, 3], "before every even epoch, and at the end"
    steps = [row["step"] for row in rows if "val_loss" not in row]
    assert steps == [2, 4, 6, 8, 10, 12]
    warmup = [row["mask_loss"] for row in rows if "mask_loss" in row and row["epoch"] < 1]
    assert warmup == [0, 0], "no mask loss in the warm-up"
    assert all(math.isfinite(value) for row in rows for value in row.values())
    with open(run / "log.csv", newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert len(log_of(run)) == len(rows)
    panels = sorted(path.name for path in (run / "panels").iterdir())
    assert panels == ["epoch-000.png", "epoch-001.png", "epoch-002.png"]
    assert states_of(run) == [8, 12] and list((run / "tensorboard").iterdir())
    stage = stage_of(run)
    assert stage["finished"] and stage["settings"]["epochs"] == 3
    assert stage["seconds"] > 0 and stage["peak_memory_mb"] > 0
    assert set(stage["data"]) >= {"classes.json", "train.csv"}
    assert stage["files"].keys() == {path.name for path in (run / "checkpoints").glob("*.safetensors")}


def test_snapshots_follow_the_validation(finished):
    run, rows = finished
    best, expected = -math.inf, []
    for row in rows:
        if "val_loss" in row and row["epoch"] >= 1 and 1 - row["val_loss"] >= best:
            best = 1 - row["val_loss"]
            expected.append(f"e{row['epoch']:03d}Xs{best:.3f}.safetensors")
    assert [path.name for path in snapshots(run / "checkpoints")] == expected
    assert find_snapshot(run).name == expected[-1]
    net, classes, facts = load_snapshot(find_snapshot(run))
    assert net.config.num_classes == 7 and facts["crop"] == 48
    assert [info["name"] for info in classes] == list(GLYPH_CLASSES)


def test_snapshots_beyond_the_last_few_go(data, tmp_path):
    config = settings(data, epochs=2, snapshots_kept=1, validate_every=1, warmup_epochs=0, lr=1e-4)
    list(train(config, tmp_path / "run"))
    assert len(snapshots(tmp_path / "run" / "checkpoints")) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_goes_bad_is_named_in_a_line(data, tmp_path, workers):
    copied = shutil.copytree(data.parent, tmp_path / "copy") / data.name
    bad = Manifest.load(copied).samples("train")[3].image
    content = bad.read_bytes()
    bad.write_bytes(content[:50])
    config = settings(copied, workers=workers, epochs=1)
    with pytest.raises(DataError) as caught:
        list(train(config, tmp_path / "run"))
    message = str(caught.value)
    assert message.startswith(f"{bad}: not a readable picture") and "\n" not in message
    assert message.endswith("then run the same command again; it goes on")
    bad.write_bytes(content)
    assert list(train(config, tmp_path / "run"))[-1]["epoch"] == 1


def test_neither_masks_nor_workers_matter(data, finished, tmp_path):
    """With every mask file gone and two loaders, training gives the same log, weights and files."""
    masks, hidden = next((data.parent / "raw").rglob("SegmentationClass")), tmp_path / "hidden"
    masks.rename(hidden)
    try:
        rows = list(train(settings(data, workers=2), tmp_path / "run"))
    finally:
        hidden.rename(masks)
    assert without_times(rows) == without_times(finished[1])
    assert equal(weights(finished[0]), weights(tmp_path / "run"))
    assert stage_of(tmp_path / "run")["files"] == stage_of(finished[0])["files"], "checksums, thus bytes"


def test_another_seed_is_another_training(data, finished, tmp_path):
    first = next(train(settings(data, seed=1), tmp_path / "run"))
    assert first["val_loss"] != finished[1][0]["val_loss"]


@pytest.mark.parametrize("after", [1, 4, 7])
def test_stopped_and_resumed_equals_uninterrupted(data, finished, tmp_path, after):
    """The `stop` file ends training after the current step; going on gives the same bits in log and files."""
    whole, run = finished[0], tmp_path / "run"
    for count, _ in enumerate(train(settings(data), run), start=1):
        if count == after:
            (run / "stop").touch()
    stopped = stage_of(run)
    assert (run / "checkpoints" / "last.safetensors").exists() and not stopped.get("finished")
    assert stopped["stopped_at"] > 0 and not (run / "stop").exists(), "obeyed: the next start is not stopped"
    list(train(settings(data), run))
    ended = stage_of(run)
    assert ended["seconds"] > stopped["seconds"] > 0, "the time of both parts"
    assert ended["finished"] and ended["stopped_at"] is None
    assert log_of(run) == log_of(whole)
    assert ended["files"] == stage_of(whole)["files"] and len(ended["files"]) >= 2


def test_a_stop_before_the_first_step_is_obeyed(data, tmp_path):
    """As when the button is pressed between a notebook's opening of the run and the training's start."""
    run, config = tmp_path / "run", settings(data)
    with open_run(config, run, Manifest.load(data), "cpu"):
        (run / "stop").touch()
        assert [row["step"] for row in train(config, run)] == [0] and states_of(run) == [1]
        assert stage_of(run)["stopped_at"] == 1 and not (run / "stop").exists()
        again = train(config, run)  # in the same process, which has the lock
        next(again)
        assert stage_of(run)["stopped_at"] is None
        again.close()


def test_a_stop_that_an_earlier_process_left_stops_nothing(data, tmp_path):
    (tmp_path / "stop").touch()
    rows = train(settings(data), tmp_path)
    next(rows)
    assert not (tmp_path / "stop").exists()
    rows.close()


def test_killed_between_the_files_of_an_epoch_loses_none_of_them(data, finished, tmp_path, monkeypatch):
    """The state is written last, so an epoch without its other files is done again, and comes out the same.

    Snapshots of every epoch are additional files and change nothing else.
    """
    whole, run, events = finished[0], tmp_path / "run", []
    config = settings(data, snapshot_every=1)
    save, sync = Progress.save, RunLog.sync

    def after_epoch(net, epoch):
        events.append(f"epoch {epoch}")

    def killed_at(step):
        def save_or_die(self, *given):
            if self.step == step:
                raise KeyboardInterrupt
            save(self, *given)
            events.append("state")

        return save_or_die

    monkeypatch.setattr(RunLog, "sync", lambda self: sync(self) or events.append("log"))
    for step in (4, 12):  # the first epoch, the last one
        monkeypatch.setattr(Progress, "save", killed_at(step))
        with pytest.raises(KeyboardInterrupt):
            list(train(config, run, after_epoch))
        RunFolder(run).close()
    monkeypatch.setattr(Progress, "save", killed_at(None))
    list(train(config, run, after_epoch))
    first, second, last = (["epoch 0", "log"], ["epoch 1", "log"], ["epoch 2", "log"])
    assert events == [*first, *first, "state", *second, "state", *last, *last, "state"]

    own = [f"epoch-{count:03d}.safetensors" for count in (1, 2, 3)]
    files = stage_of(run)["files"]
    assert {name: digest for name, digest in files.items() if name not in own} == stage_of(whole)["files"]
    epochs = [load_snapshot(run / "checkpoints" / name) for name in own]
    assert [facts["epoch"] for _, _, facts in epochs] == [1, 2, 3]
    assert equal(epochs[2][0].state_dict(), weights(whole))
    assert log_of(run) == log_of(whole)


# settings that older runs do not know
NEW = ("fca_branches", "channel_attention", "align", "snapshot_every", "accumulate", "batch_norm")


def test_a_run_of_before_a_setting_existed_goes_on(data, finished, tmp_path):
    run = one_epoch_back(finished, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    for name in NEW:
        del record["stages"][STAGE]["settings"][name]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="align True → False"):
        list(train(settings(data, align=False), run))
    list(train(settings(data), run))
    assert equal(weights(run), weights(finished[0]))


def test_a_run_of_other_settings_is_left_alone(data, finished):
    before = log_of(finished[0])
    with pytest.raises(RunError, match="lr 0.001 → 0.5"):
        list(train(settings(data, lr=0.5), finished[0]))
    assert log_of(finished[0]) == before


def test_a_run_of_other_lists_is_left_alone(data, finished, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "whole")
    before = (data / "train.csv").read_bytes()
    (data / "train.csv").write_bytes(before.rstrip().rpartition(b"\n")[0] + b"\n")
    message = r"run whole has other lists in .*: train.csv changed since it began\nKeep it, .*--run-name"
    try:
        with pytest.raises(RunError, match=message):
            next(train(settings(data), run))
    finally:
        (data / "train.csv").write_bytes(before)


def test_a_start_that_failed_binds_nobody(data, tmp_path):
    """Wrong weights, then right settings, in the same folder: nothing was trained, so nothing is lost."""
    with pytest.raises(WeightsError, match="nowhere.pth"):
        list(train(settings(data, initial_weights="nowhere.pth"), tmp_path / "run"))
    rows = train(settings(data), tmp_path / "run")
    assert next(rows)["step"] == 0
    rows.close()


def test_baseline_cam_trains(data, tmp_path):
    rows = list(train(settings(data, context="none", epochs=1, warmup_epochs=0), tmp_path / "cam"))
    assert [row["mask_loss"] for row in rows if "mask_loss" in row] == [0, 0]
    assert find_snapshot(tmp_path / "cam").exists()


def test_bf16_trains_near_fp32(data, finished, tmp_path):
    rows = list(train(settings(data, precision="bf16", epochs=2), tmp_path / "bf16"))
    losses = [row["classification_loss"] for row in rows if "mask_loss" in row]
    exact = [row["classification_loss"] for row in finished[1] if "mask_loss" in row]
    assert losses == pytest.approx(exact[:4], abs=0.1) and losses != exact[:4]


def test_an_untagged_validation_image_is_survived(data, tmp_path):
    """It may also stand in the panel."""
    prepared = shutil.copytree(data.parent, tmp_path / "copy") / data.name
    lines = (prepared / "val.csv").read_text().splitlines()
    image, _, mask = lines[1].split(",")
    lines[1] = f"{image},,{mask}"
    (prepared / "val.csv").write_text("\n".join(lines) + "\n")
    run, config = tmp_path / "run", settings(prepared, epochs=1, warmup_epochs=0)
    rows = list(train(config, run, panel_writer(config, run)))
    assert math.isfinite(rows[-1]["val_loss"]) and (run / "panels" / "epoch-000.png").exists()


def test_unreachable_taps_are_warned_of(data, tmp_path, capsys):
    rows = train(settings(data, dilations=(1, 2, 4, 36)), tmp_path / "run")
    next(rows)
    rows.close()
    told = capsys.readouterr().out
    assert "of kernel 7, dilation 36, all taps but the middle see only padding; lower the dilation" in told
    rows = train(
        settings(data, dilations=(1, 2, 3, 4)), tmp_path / "other"
    )  # at 6 places, 4 is seen, 8 is not
    next(rows)
    rows.close()
    assert "padding" not in capsys.readouterr().out, (
        "as in the paper, of whose taps at 36, 72 and 108 one is seen"
    )


def test_what_does_not_fit_is_refused():
    config = settings("some/data")
    with pytest.raises(TrainingError, match="some/data has 32 training and 0 validation images"):
        check_sizes(config, 32, 0, 1)
    with pytest.raises(TrainingError, match="batch_size=8 is more than the 7 training images"):
        check_sizes(config, 7, 8, 1)
    rule = "batch_size=8 does not split evenly over 2 processes with accumulate=3 parts each"
    with pytest.raises(TrainingError, match=rule):
        check_sizes(config.model_copy(update={"accumulate": 3}), 32, 8, 2)
    check_sizes(config, 32, 8, 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(TrainingError, match="device='cuda'"):
        build_accelerator(settings("data", device="cuda"))


def test_norms_are_synchronised_on_gpus_alone():
    net = build_network(settings("data", backbone="resnet50").network(7))
    kinds = [type(module) for module in net.modules()]
    with pytest.raises(TrainingError, match="batch_norm='synchronised' needs GPUs.*use batch_norm='process'"):
        synchronise_norms(net, torch.device("cpu"))
    assert kinds == [type(module) for module in net.modules()]
    synchronise_norms(net, torch.device("cuda"))  # only exchanges modules
    changed = [(a, type(b)) for a, b in zip(kinds, net.modules(), strict=True) if a is not type(b)]
    assert len(changed) > 5 and set(changed) == {(torch.nn.BatchNorm2d, torch.nn.SyncBatchNorm)}
    stored = [
        kind for kind in kinds if issubclass(kind, torch.nn.BatchNorm2d) and kind is not torch.nn.BatchNorm2d
    ]
    assert len(stored) > 40, "the backbone's norms keep their statistics"


class Spoilt:
    """The losses, of which call number `at` is no number, or has a gradient that is none."""

    def __init__(self, at, gradient=False):
        self.at, self.gradient, self.calls = at, gradient, 0

    def __call__(self, out, images, tags, config, with_masks, *truth):
        self.calls += 1
        classification, mask = training_losses(out, images, tags, config, with_masks, *truth)
        if self.calls == self.at and self.gradient:
            classification = classification + (0 * out.logits.sum()).sqrt()
        elif self.calls == self.at:
            classification = classification * math.nan
        return classification, mask


def test_a_loss_that_is_no_number_stops_with_step_images_and_snapshot(data, finished, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("wsfcn_lib.train.training_losses", Spoilt(at=7))  # the first was a validation
        with pytest.raises(TrainingError) as error:
            list(train(settings(data), run))
    samples, indices = Manifest.load(data).samples("train"), epoch_batches(32, 8, 0, epoch=1)[1]
    names = ", ".join(samples[index].image.name for index in indices)
    message = str(error.value)
    assert message.startswith(f"the loss of step 6 is nan, on {names}; the last good snapshot is {run}")
    assert "last.safetensors. Look at these pictures, lower lr, or set precision='fp32'" in message
    assert states_of(run) == [4]
    list(train(settings(data), run))  # what was saved is as good as if nothing had happened
    assert log_of(run) == log_of(finished[0]) and equal(weights(run), weights(finished[0]))


def test_weights_that_are_no_numbers_are_never_saved(data, tmp_path, monkeypatch):
    """The last loss of an epoch was finite, its gradient was not."""
    monkeypatch.setattr("wsfcn_lib.train.training_losses", Spoilt(at=9, gradient=True))
    rule = r"a weight after step 8 is nan; the last good snapshot is .*last\.safetensors"
    with pytest.raises(TrainingError, match=rule):
        list(train(settings(data), tmp_path / "run"))
    assert states_of(tmp_path / "run") == [4]
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())


def test_a_validation_loss_that_is_no_number_stops_too(data, tmp_path, monkeypatch):
    monkeypatch.setattr("wsfcn_lib.train.training_losses", Spoilt(at=1))
    names = ", ".join(sample.image.name for sample in Manifest.load(data).samples("val"))
    rule = f"the validation loss before epoch 0 is nan, on {names}; there is no snapshot yet"
    with pytest.raises(TrainingError, match=rule):
        list(train(settings(data), tmp_path / "run"))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_must_be_finite(tmp_path, number):
    require_finite([0.0, -1e30], "x", (), tmp_path)
    with pytest.raises(TrainingError, match=f"x is {number}; there is no snapshot yet"):
        require_finite([0.0, number], "x", (), tmp_path)


def test_learning_rate_is_a_function_of_the_step():
    assert lr_factor(0, 100, "constant") == lr_factor(99, 100, "constant") == 1
    values = [lr_factor(step, 100, "cosine") for step in range(101)]
    assert (values[0], values[50], values[100]) == pytest.approx((1, 0.5, 0))
    assert values == sorted(values, reverse=True)


def test_optimisers_take_the_groups():
    net = build_network(settings("data").network(7))
    adamw = build_optimiser(net, settings("data", lr_multipliers=(1, 2, 3, 4)))
    rates = [group["lr"] for group in adamw.param_groups[:4]]
    assert rates == pytest.approx([0.001, 0.002, 0.003, 0.004])
    sgd = build_optimiser(net, settings("data", optimiser="sgd"))
    assert isinstance(sgd, torch.optim.SGD)
    assert {group["momentum"] for group in sgd.param_groups} == {0.9}
    assert [group["weight_decay"] for group in sgd.param_groups] == [5e-4, 0, 5e-4, 0]


@pytest.mark.parametrize(
    "fusion, optimiser, count", [("sf2", "adamw", 5), ("sf2", "sgd", 4), ("gci", "adamw", 4)]
)
def test_adamw_holds_the_flow_and_sgd_leaves_it_as_published(fusion, optimiser, count):
    config = settings("data", fusion=fusion, optimiser=optimiser, lr_multipliers=(1, 2, 10, 20))
    net = build_network(config.network(4))
    groups = build_optimiser(net, config).param_groups
    held = sum(len(group["params"]) for group in groups)
    assert len(groups) == count and held == sum(weight.requires_grad for weight in net.parameters())
    if count == 5:
        assert groups[4]["params"] == [net.fusion.align.flow.weight]
        assert groups[4]["base_lr"] == pytest.approx(0.01 * groups[2]["base_lr"])
        assert groups[4]["weight_decay"] == groups[2]["weight_decay"]


def test_threads_are_set_for_each_run_anew():
    before = torch.get_num_threads()
    runs = [({}, 1), ({"backbone": "resnet50"}, DEFAULT_THREADS), ({"threads": 3}, 3), ({}, 1)]
    try:
        for changes, expected in runs:
            build_accelerator(settings("data", **changes))
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_parts_of_a_batch_give_the_update_of_the_whole():
    """In evaluation mode, where no norm takes statistics from a part and nothing draws."""
    images, tags = torch.randn(8, 3, 48, 48), torch.zeros(8, len(GLYPH_CLASSES))
    tags[:, 0] = 1

    def update(accumulate):
        config = settings("data", accumulate=accumulate, optimiser="sgd", lr=0.01)
        torch.manual_seed(0)
        net, sizes = build_network(config.network(len(GLYPH_CLASSES) + 1)).eval(), []
        net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        optimiser = build_optimiser(net, config)
        losses = train_step(net, optimiser, images, tags, config, 1.0, True, torch.Tensor.backward)
        return losses, net.state_dict(), sizes

    (whole, whole_weights, one), (parts, parts_weights, four) = update(1), update(4)
    assert (one, four) == ([8], [2] * 4)
    assert whole == pytest.approx(parts, abs=1e-5) and whole[1] > 0
    for name, weight in whole_weights.items():
        assert torch.allclose(weight, parts_weights[name], atol=1e-5), name
