"""The ablation grid: its configurations, their names, and some run: again, stopped, several at a time."""

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from wsfcn_lib.ablation import grid
from wsfcn_lib.ablation.grid import (
    DETAILS,
    QUICK,
    STAGE,
    WSFCN,
    configurations,
    is_measured,
    masks_of,
    reuse_training,
    run_configuration,
    run_configurations,
    variant_of,
)
from wsfcn_lib.ablation.statistics import CORNERS
from wsfcn_lib.checkpoints import load_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.glyphs import GlyphSettings
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.evaluation.diagnostics import DIAGNOSTICS_FILE
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.storage import RunError


def test_configurations_come_seed_by_seed():
    settings = configurations([3, 5])
    assert [each["seed"] for each in settings.values()] == [3] * 4 + [5] * 4
    assert [(each["context"], each["fusion"]) for each in settings.values()] == 2 * CORNERS
    assert list(settings)[:2] == ["aspp-gci-s3", "aspp-sf2-s3"] and len(set(CORNERS)) == 4
    assert settings["fca-sf2-s5"] == WSFCN | {"seed": 5}
    more = configurations([3, 5], baseline=True, details=1)
    assert len(more) == 2 * 5 + len(DETAILS) and "cam-s5" in more
    assert "no-align-s3" in more and "no-align-s5" not in more


def test_every_configuration_is_a_valid_training_and_differs():
    base = TrainConfig(backbone="tiny", width=16, gate_rate=0.3)
    changes = configurations([0], baseline=True, details=1)
    configs = {name: TrainConfig(**base.model_dump() | change) for name, change in changes.items()}
    assert len({str(config) for config in configs.values()}) == 5 + len(DETAILS)
    assert configs["cam-s0"].context == "none" and configs["no-size-penalty-s0"].size_power is None
    assert {config.gate_rate for config in configs.values()} == {0, 0.3, 0.5}
    assert {config.pamr_iterations for config in configs.values()} == {0, 5, 10}
    assert all("/" not in name and " " not in name for name in configs), "names of folders"


@pytest.mark.parametrize(
    "name, variant",
    [
        ("fca-sf2-s0", "FCA + SF2 (WS-FCN)"),
        ("aspp-gci-s12", "ASPP + GCI (1-stage)"),
        ("aspp-sf2-s1", "ASPP + SF2"),
        ("cam-s0", "CAM baseline"),
        ("no-align-s2", "no align"),
        ("gate-rate-0.5-s0", "gate rate 0.5"),
    ],
)
def test_variants_are_named_by_the_switches(name, variant):
    assert variant_of(name) == variant


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glyphs")
    glyphs = GlyphSettings(size=48, train=8, val=4, test=0)
    prepare(SourceSettings(raw=str(folder / "raw"), glyphs=glyphs), folder / "prepared")
    network = {"backbone": "tiny", "width": 16, "dilations": (1, 1, 1, 2), "context": "aspp", "fusion": "sf2"}
    schedule = {"epochs": 1, "warmup_epochs": 0, "batch_size": 4, "crop": 48, "optimiser": "adamw"}
    device = {"device": "cpu", "workers": 0}
    data = str(folder / "prepared")
    return TrainConfig(data=data, seed=7, pamr_dilations=(1, 2), **network, **schedule, **device)


@pytest.fixture(scope="module")
def measured(config, tmp_path_factory):
    """A folder with a configuration that is trained and measured, and its rows."""
    folder = tmp_path_factory.mktemp("ablation") / "aspp-sf2-s7"
    return folder, run_configuration(config, folder)


@pytest.fixture
def folder(measured, tmp_path, monkeypatch):
    """A copy of that folder; nothing may be trained in this process any more."""
    monkeypatch.setattr(grid, "train", lambda *_: pytest.fail("nothing is trained again"))
    return shutil.copytree(measured[0], tmp_path / measured[0].name)


def change_record(folder, change):
    record = read_run(folder)
    record.pop("metrics", None)
    change(record["stages"])
    (folder / "run.json").write_text(json.dumps(record))


def test_a_configuration_is_trained_and_measured(measured):
    folder, rows = measured
    columns = ["dataset", "run", "variant", "context", "fusion", "seed", "recipe", "crf", "tags", "mean_iou"]
    assert list(rows[0])[:10] == columns
    assert {(row["run"], row["fusion"], row["seed"]) for row in rows} == {("aspp-sf2-s7", "sf2", 7)}
    kinds = [(recipe, False, tags) for recipe in ("1stage", "wsfcn") for tags in ("predicted", "true")]
    assert [(row["recipe"], row["crf"], row["tags"]) for row in rows] == kinds
    assert all(0 <= row["mean_iou"] <= 1 and 0 <= row["border_iou"] <= 1 for row in rows)
    record = read_run(folder)
    assert rows[2]["mean_iou"] == pytest.approx(record["metrics"]["mean_iou"])
    assert rows[3]["mean_iou"] == pytest.approx(record["metrics"]["mean_iou_true_tags"])
    assert load_snapshot(folder / "checkpoints" / "last.safetensors")[2]["epoch"] == 1
    assert len(list((folder / "masks" / "val").glob("*.png"))) == 4
    assert record["stages"]["02_train"]["finished"] and record["stages"][STAGE]["finished"]


def test_a_finished_configuration_is_reused(config, measured, folder, monkeypatch):
    monkeypatch.setattr(grid, "evaluate", lambda *_: pytest.fail("nothing is measured again"))
    assert str(run_configuration(config, folder)) == str(measured[1])  # text: nan is not equal to itself
    with pytest.raises(RunError, match="fusion 'sf2' → 'gci'"):
        run_configuration(config.model_copy(update={"fusion": "gci"}), folder)


def test_other_measurements_need_no_other_training(config, folder):
    large = QUICK.model_copy(update={"scales": (1.0, 1.5)})
    masks = masks_of(Manifest.load(Path(config.data)), QUICK.images)
    assert is_measured(folder, QUICK, masks) and not is_measured(folder, large, masks)
    run_configuration(config, folder, large)
    assert is_measured(folder, large.model_copy(update={"processes": 9}), masks)
    assert not is_measured(folder, QUICK, masks) and not is_measured(folder / "nothing", large, masks)
    (folder / DIAGNOSTICS_FILE).unlink()
    assert not is_measured(folder, large, masks)
    assert run_configuration(config, folder, large) and (folder / DIAGNOSTICS_FILE).exists()


def test_corrected_masks_are_measured_again(config, measured, folder, monkeypatch):
    calls, evaluate = [], grid.evaluate
    monkeypatch.setattr(grid, "masks_of", lambda *_: "other masks")
    monkeypatch.setattr(grid, "evaluate", lambda *given: calls.append(1) or evaluate(*given))
    for _ in range(2):
        assert str(run_configuration(config, folder)) == str(measured[1]) and calls == [1]


def test_a_training_of_before_a_setting_existed_is_taken(config, folder):
    change_record(folder, lambda stages: stages["02_train"]["settings"].pop("align") and stages.pop(STAGE))
    assert run_configuration(config.model_copy(update={"workers": 2, "snapshot_every": 1}), folder)
    with pytest.raises(RunError, match="align True → False"):
        run_configuration(config.model_copy(update={"align": False}), folder)


def test_the_training_of_the_run_itself_is_reused(config, measured, folder):
    other = config.model_copy(update={"align": False})
    same, begun, different = (folder.with_name(name) for name in ("same", "begun", "different"))
    begun.mkdir()
    reuse_training(folder, {same: config, begun: config, different: other})
    assert (same / "log.csv").exists() and not any(begun.iterdir()) and not different.exists()
    rows = run_configuration(config.model_copy(update={"workers": 1}), same)
    assert [row["mean_iou"] for row in rows] == [row["mean_iou"] for row in measured[1]]
    change_record(folder, lambda stages: stages["02_train"].update(finished=False))
    reuse_training(folder, {different: config})
    assert not different.exists(), "half a training is none"


@pytest.mark.slow
def test_several_at_a_time_give_the_same(config, measured, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grid, "train", lambda *_: pytest.fail("not in this process"))
    baseline = config.model_copy(update={"context": "none"})
    rows = run_configurations({tmp_path / "aspp-sf2-s7": config, tmp_path / "cam-s7": baseline}, jobs=2)
    pd.testing.assert_frame_equal(pd.DataFrame(rows[:4]), pd.DataFrame(measured[1]))
    assert {row["variant"] for row in rows[4:]} == {"CAM baseline"}
    assert "cam-s7 is trained and measured" in capsys.readouterr().out


@pytest.mark.parametrize("visible, expected", [("", "0011"), ("3,5", "3355")])
def test_processes_take_the_gpus_in_turn(visible, expected, config, tmp_path, monkeypatch):
    gpus = []

    def run(command, env, **options):
        gpus.append(env.get("CUDA_VISIBLE_DEVICES"))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(grid.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(grid.subprocess, "run", run)
    monkeypatch.setattr(grid, "run_configuration", lambda *_: [])
    run_configurations({tmp_path / f"cam-s{seed}": config for seed in range(4)}, jobs=2)
    assert "".join(sorted(gpus)) == expected


def test_a_process_that_fails_says_why(config, tmp_path, monkeypatch):
    reason = "Traceback\n  somewhere\nDataError: run notebooks/01_prepare_data\n"
    failed = subprocess.CompletedProcess([], 1, stderr=reason)
    monkeypatch.setattr(grid.subprocess, "run", lambda *given, **options: failed)
    with pytest.raises(RunError, match="(?s)^cam-s7 failed: .*DataError: run notebooks/01_prepare_data$"):
        run_configurations({tmp_path / "cam-s7": config}, jobs=2)


def test_a_stopped_training_is_no_result(config, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "train", lambda *_: iter(()))  # as if a `stop` file had ended it
    with pytest.raises(RunError, match="stopped before its last epoch"):
        run_configuration(config, tmp_path / "fca-sf2-s0")


def test_a_training_on_other_lists_is_no_result(config, folder, monkeypatch):
    monkeypatch.setattr(grid.Manifest, "checksums", lambda _: {"train.csv": "other"})
    with pytest.raises(RunError, match="trained on other lists .*choose another run name"):
        run_configuration(config, folder)


def test_without_masks_nothing_is_trained(config, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for name in ("classes.json", "train.csv"):
        shutil.copy(Path(config.data) / name, tmp_path / "data" / name)
    (tmp_path / "data" / "val.csv").write_text("image,tags,mask\na.jpg,heart,\n")
    monkeypatch.setattr(grid, "train", lambda *_: pytest.fail("this costs time for nothing"))
    with pytest.raises(DataError, match="no image of val has a mask.*leave 04_ablations out"):
        run_configuration(config.model_copy(update={"data": str(tmp_path / "data")}), tmp_path / "cam-s0")
