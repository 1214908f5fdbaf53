"""The ablation grid: its cells, their names, and cells for real: alone, again, stopped, and several at a time."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from wsfcn_lib.ablation import grid as ablation
from wsfcn_lib.ablation.grid import (
    BOTH,
    DETAILS,
    QUICK,
    STAGE,
    configurations,
    is_measured,
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


def test_cells_come_seed_by_seed():
    found = configurations([3, 5])
    assert [cell["seed"] for cell in found.values()] == [3] * 4 + [5] * 4
    assert [(cell["context"], cell["fusion"]) for cell in found.values()] == 2 * CORNERS and len(
        set(CORNERS)
    ) == 4
    assert list(found)[:2] == ["aspp-gci-s3", "aspp-sf2-s3"] and found["fca-sf2-s5"] == BOTH | {"seed": 5}
    more = configurations([3, 5], baseline=True, details=1)
    assert (
        len(more) == 2 * 5 + len(DETAILS)
        and "no-align-s3" in more
        and "no-align-s5" not in more
        and "cam-s5" in more
    )


def test_every_cell_is_a_valid_training_and_differs():
    found, base = (
        configurations([0], baseline=True, details=1),
        TrainConfig(backbone="tiny", width=16, gate_rate=0.3),
    )
    configs = {name: TrainConfig(**base.model_dump() | change) for name, change in found.items()}
    assert len({str(config) for config in configs.values()}) == len(found) == 5 + len(DETAILS)
    assert configs["cam-s0"].context == "none" and configs["no-size-penalty-s0"].size_power is None
    assert {config.gate_rate for config in configs.values()} == {0, 0.3, 0.5}
    assert {config.pamr_iterations for config in configs.values()} == {0, 5, 10}
    assert all("/" not in name and " " not in name for name in found), "names of folders"


def test_variants_are_named_by_the_switches():
    assert [
        variant_of(name)
        for name in ("fca-sf2-s0", "aspp-gci-s12", "aspp-sf2-s1", "cam-s0", "no-align-s2", "gate-rate-0.5-s0")
    ] == [
        "FCA + SF2 (WS-FCN)",
        "ASPP + GCI (1-stage)",
        "ASPP + SF2",
        "CAM baseline",
        "no align",
        "gate rate 0.5",
    ]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glyphs")
    prepare(
        SourceSettings(raw=str(folder / "raw"), glyphs=GlyphSettings(size=48, train=8, val=4, test=0)),
        folder / "prepared",
    )
    network = {"backbone": "tiny", "width": 16, "dilations": (1, 1, 1, 2), "context": "aspp", "fusion": "sf2"}
    schedule = {
        "epochs": 1,
        "warmup_epochs": 0,
        "batch_size": 4,
        "crop": 48,
        "optimiser": "adamw",
        "workers": 0,
    }
    return TrainConfig(
        data=str(folder / "prepared"), device="cpu", seed=7, pamr_dilations=(1, 2), **network, **schedule
    )


def test_a_cell_is_trained_measured_and_then_reused(config, tmp_path, monkeypatch):
    rows = run_configuration(config, tmp_path / "cell")
    columns = ["dataset", "run", "variant", "context", "fusion", "seed", "recipe", "crf", "tags", "mean_iou"]
    assert list(rows[0])[:10] == columns and {(row["run"], row["fusion"], row["seed"]) for row in rows} == {
        ("cell", "sf2", 7)
    }
    kinds = [(recipe, False, tags) for recipe in ("1stage", "wsfcn") for tags in ("predicted", "true")]
    assert [(row["recipe"], row["crf"], row["tags"]) for row in rows] == kinds
    assert all(0 <= row["mean_iou"] <= 1 and 0 <= row["border_iou"] <= 1 for row in rows)
    metrics = read_run(tmp_path / "cell")["metrics"]
    assert rows[2]["mean_iou"] == pytest.approx(metrics["mean_iou"])
    assert rows[3]["mean_iou"] == pytest.approx(metrics["mean_iou_true_tags"])
    assert load_snapshot(tmp_path / "cell" / "checkpoints" / "last.safetensors")[2]["epoch"] == 1
    assert len(list((tmp_path / "cell" / "masks" / "val").glob("*.png"))) == 4
    stages = read_run(tmp_path / "cell")["stages"]
    assert stages["02_train"]["finished"] and stages["04_ablations"]["finished"]

    for name in ("train", "evaluate"):
        monkeypatch.setattr(ablation, name, lambda *_: pytest.fail("a finished cell must be reused"))
    assert str(run_configuration(config, tmp_path / "cell")) == str(rows)  # text: nan is not equal to itself
    with pytest.raises(RunError, match="fusion: 'sf2' → 'gci'"):
        run_configuration(config.model_copy(update={"fusion": "gci"}), tmp_path / "cell")


def test_other_measurements_need_no_other_training(config, tmp_path, monkeypatch):
    run_configuration(config, tmp_path / "cell")
    monkeypatch.setattr(ablation, "train", lambda *_: pytest.fail("it is trained already"))
    large = QUICK.model_copy(update={"scales": (1.0, 1.5)})
    masks = ablation.masks_of(Manifest.load(Path(config.data)), QUICK.images)
    assert is_measured(tmp_path / "cell", QUICK, masks) and not is_measured(tmp_path / "cell", large, masks)
    run_configuration(config, tmp_path / "cell", large)
    assert is_measured(tmp_path / "cell", large.model_copy(update={"processes": 9}), masks)
    assert not is_measured(tmp_path / "cell", QUICK, masks)
    (tmp_path / "cell" / DIAGNOSTICS_FILE).unlink()
    assert not is_measured(tmp_path / "cell", large, masks) and not is_measured(
        tmp_path / "nothing", large, masks
    )
    assert run_configuration(config, tmp_path / "cell", large) and (tmp_path / "cell" / DIAGNOSTICS_FILE).exists()


def test_a_training_of_before_a_setting_existed_is_taken(config, tmp_path, monkeypatch):
    run_configuration(config, tmp_path / "cell")
    record = json.loads((tmp_path / "cell" / "run.json").read_text())
    del record["stages"]["02_train"]["settings"]["align"], record["stages"][STAGE]
    (tmp_path / "cell" / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr(ablation, "train", lambda *_: pytest.fail("it is trained already"))
    assert run_configuration(config.model_copy(update={"workers": 2, "snapshot_every": 1}), tmp_path / "cell")
    with pytest.raises(RunError, match="align: True → False"):
        run_configuration(config.model_copy(update={"align": False}), tmp_path / "cell")


def test_the_training_of_the_run_itself_serves_as_a_cell(config, tmp_path, monkeypatch):
    run, other = tmp_path / "run", config.model_copy(update={"align": False})
    rows, places = run_configuration(config, run), {tmp_path / name: config for name in ("a", "b")}
    (tmp_path / "b").mkdir()
    reuse_training(run, places | {tmp_path / "c": other})
    assert (
        (tmp_path / "a" / "log.csv").exists()
        and not any((tmp_path / "b").iterdir())
        and not (tmp_path / "c").exists()
    )
    monkeypatch.setattr(ablation, "train", lambda *_: pytest.fail("it is trained already"))
    assert [
        row["mean_iou"] for row in run_configuration(config.model_copy(update={"workers": 1}), tmp_path / "a")
    ] == [row["mean_iou"] for row in rows]
    record = json.loads((run / "run.json").read_text())
    record["stages"]["02_train"]["finished"] = False
    (run / "run.json").write_text(json.dumps(record))
    reuse_training(run, {tmp_path / "d": config})
    assert not (tmp_path / "d").exists(), "half a training is none"


@pytest.mark.slow
def test_several_at_a_time_give_the_same(config, tmp_path, monkeypatch, capsys):
    names = ("aspp-sf2-s7", "cam-s7")
    both = dict(zip(names, (config, config.model_copy(update={"context": "none"}))))
    one = run_configurations({tmp_path / "one" / name: each for name, each in both.items()})
    monkeypatch.setattr(ablation, "train", lambda *_: pytest.fail("not in this process"))
    two = run_configurations({tmp_path / "two" / name: each for name, each in both.items()}, jobs=2)
    pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(two))
    assert {row["variant"] for row in two} == {
        "ASPP + SF2",
        "CAM baseline",
    } and "cam-s7 is trained" in capsys.readouterr().out


def test_processes_take_the_gpus_in_turn(config, tmp_path, monkeypatch):
    places, done = [], subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(ablation.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        ablation.subprocess,
        "run",
        lambda *_, env, **__: places.append(env.get("CUDA_VISIBLE_DEVICES")) or done,
    )
    monkeypatch.setattr(ablation, "run_cell", lambda *_: [])
    folders = {tmp_path / f"cam-s{seed}": config for seed in range(4)}
    for visible, expected in (("", "0011"), ("3,5", "3355")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        run_configurations(folders, jobs=2)
        assert "".join(sorted(places[-4:])) == expected


def test_a_process_that_fails_is_told(config, tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess(
        [], 1, stderr="Traceback\n  somewhere\nDataError: run notebooks/01_prepare_data\n"
    )
    monkeypatch.setattr(ablation.subprocess, "run", lambda *given, **options: failed)
    with pytest.raises(RunError, match="(?s)^cam-s7 failed: .*DataError: run notebooks/01_prepare_data$"):
        run_configurations({tmp_path / "cam-s7": config}, jobs=2)


def test_a_stopped_or_outdated_cell_is_no_result(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(ablation, "train", lambda *_: iter(()))  # as if a `stop` file had ended it
        with pytest.raises(RunError, match="stopped before its last epoch"):
            run_configuration(config, tmp_path / "cell")
    run_configuration(config, tmp_path / "cell")
    monkeypatch.setattr(ablation.Manifest, "checksums", lambda _: {"train.csv": "other"})
    with pytest.raises(RunError, match="trained on other lists"):
        run_configuration(config, tmp_path / "cell")


def test_without_masks_nothing_is_trained(config, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for name in ("classes.json", "train.csv"):
        (tmp_path / "data" / name).write_bytes((Path(config.data) / name).read_bytes())
    (tmp_path / "data" / "val.csv").write_text("image,tags,mask\na.jpg,heart,\n")
    monkeypatch.setattr(ablation, "train", lambda *_: pytest.fail("this costs time for nothing"))
    with pytest.raises(DataError, match="no image of val has a mask.*leave 04_ablations out"):
        run_configuration(config.model_copy(update={"data": str(tmp_path / "data")}), tmp_path / "cell")


def test_corrected_masks_are_measured_again(config, tmp_path, monkeypatch):
    folder, calls = tmp_path / "cam-s0", []
    first = run_configuration(config.model_copy(update={"context": "none"}), folder)
    monkeypatch.setattr(ablation, "masks_of", lambda *_: "other masks")
    monkeypatch.setattr(ablation, "train", lambda *_: pytest.fail("nothing is trained again"))
    evaluate = ablation.evaluate
    monkeypatch.setattr(ablation, "evaluate", lambda *given: calls.append(1) or evaluate(*given))
    again = run_configuration(config.model_copy(update={"context": "none"}), folder)
    assert calls == [1] and again == first
    assert run_configuration(config.model_copy(update={"context": "none"}), folder) == first and calls == [1]
