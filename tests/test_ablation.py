"""The ablation grid: cells, effects with known answers, the wording for one seed and several, and one cell for real."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wsfcn_lib import ablation
from wsfcn_lib.ablation import CORNERS, cells, conclusion, effects, run_cell
from wsfcn_lib.checkpoints import load_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.glyphs import GlyphSettings
from wsfcn_lib.data.prepare import SourceSettings, prepare
from wsfcn_lib.runs import RunError, read_run


def grid(context, fusion, together=0.0, seeds=1, noise=0.0):
    """A table of known effects in points: FCA brings `context`, SF2 `fusion`, and the pair `together` on top of both."""
    rng, rows = np.random.default_rng(0), []
    for cell in cells(range(seeds)):
        fca, sf2 = cell["context"] == "fca", cell["fusion"] == "sf2"
        points = 40 + 5 * cell["seed"] + context * fca + fusion * sf2 + together * (fca and sf2) + noise * rng.normal()
        rows.append(cell | {"variant": f"{cell['context']} + {cell['fusion']}", "mean_iou": points / 100})
    return pd.DataFrame(rows)


def points(table, **options):
    return effects(table, **options).set_index("effect").points.to_dict()


def test_cells_come_seed_by_seed():
    found = cells([3, 5])
    assert [cell["seed"] for cell in found] == [3] * 4 + [5] * 4
    assert [(cell["context"], cell["fusion"]) for cell in found] == 2 * CORNERS and len(set(CORNERS)) == 4


@pytest.mark.parametrize("effect", [3, 0, -3])
@pytest.mark.parametrize("seeds", [1, 4])
def test_known_effects_are_found(effect, seeds):
    assert points(grid(effect, 1, seeds=seeds)) == pytest.approx({"context": effect, "fusion": 1, "interaction": 0})
    assert points(grid(2, effect, seeds=seeds)) == pytest.approx({"context": 2, "fusion": effect, "interaction": 0})
    mixed = points(grid(0, 0, effect, seeds))  # only the pair: half of it falls to each module's mean
    assert mixed == pytest.approx({"context": effect / 2, "fusion": effect / 2, "interaction": effect})


def test_spread_is_that_of_the_seeds():
    table = grid(3, 0, seeds=2)
    table.loc[(table.seed == 1) & (table.context == "fca"), "mean_iou"] += 0.02  # the effect is 3 at seed 0 and 5 at seed 1
    found = effects(table).set_index("effect").loc["context"]
    assert (found.points, found.sd, found.seeds) == (pytest.approx(4), pytest.approx(np.sqrt(2)), 2)
    assert (found.high - found.low) / 2 == pytest.approx(12.706 * np.sqrt(2) / np.sqrt(2), rel=1e-3)  # t of one degree of freedom
    assert effects(grid(3, 0)).loc[:, ["sd", "low", "high"]].isna().all(axis=None)


def test_order_of_rows_and_other_columns_do_not_matter():
    table = grid(3, -3, 1, seeds=3, noise=0.5)
    shuffled = table.sample(frac=1, random_state=1).assign(mean_iou_1stage=table.mean_iou / 2)
    assert points(shuffled) == pytest.approx(points(table))
    assert points(shuffled, measure="mean_iou_1stage")["context"] == pytest.approx(points(table)["context"] / 2)


def test_a_missing_or_double_cell_is_an_error():
    table = grid(1, 1, seeds=2)
    for broken in (
        table.iloc[:-1],
        pd.concat([table, table.iloc[[0]]]),
        table.assign(mean_iou=np.nan),
        table[table.fusion == "sf2"],
    ):
        with pytest.raises(ValueError, match="must occur once per seed"):
            effects(broken)


@pytest.mark.parametrize("size, sign", [(3, "+3.0"), (0, "+0.0"), (-3, "-3.0")])
def test_one_seed_claims_nothing(size, sign):
    words = conclusion(grid(size, 0))
    assert f"FCA instead of ASPP: {sign} points." in words and words.endswith("One seed: no claim about the modules.")
    assert not any(claim in words for claim in ("a gain.", "a loss", "interval", "nan", "not told apart"))


@pytest.mark.parametrize("size, verdict", [(3, "a gain"), (0, "not told apart from no effect"), (-3, "a loss")])
def test_several_seeds_are_judged_by_their_spread(size, verdict):
    words = conclusion(grid(size, 0, seeds=6, noise=0.4))
    first, second = words.split("SF2 instead of GCI")
    assert first.startswith("FCA instead of ASPP") and first.rstrip(" .").endswith(f": {verdict}")
    assert "not told apart from no effect" in second and "6 seeds" in words and "One seed" not in words


def test_a_gain_within_the_spread_is_not_claimed():
    table = grid(3, 0, seeds=3)
    table["mean_iou"] += 0.06 * (table.seed - 1) * (table.context == "fca")  # gains of -3, 3 and 9 points
    assert points(table)["context"] == pytest.approx(3) and "a gain." not in conclusion(table)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glyphs")
    prepare(SourceSettings(raw=str(folder / "raw"), glyphs=GlyphSettings(size=48, train=8, val=4, test=0)), folder / "prepared")
    network = {"backbone": "tiny", "width": 16, "dilations": (1, 1, 1, 2), "context": "aspp", "fusion": "sf2"}
    schedule = {"epochs": 1, "warmup_epochs": 0, "batch_size": 4, "crop": 48, "optimiser": "adamw", "workers": 0}
    return TrainConfig(data=str(folder / "prepared"), device="cpu", seed=7, pamr_dilations=(1, 2), **network, **schedule)


def test_a_cell_is_trained_measured_and_then_reused(config, tmp_path, monkeypatch):
    row = run_cell(config, tmp_path / "cell")
    assert list(row)[:4] == ["variant", "context", "fusion", "seed"] and row["variant"] == "ASPP + SF2" and row["seed"] == 7
    assert all(0 <= row[key] <= 1 for key in ("mean_iou", "mean_iou_1stage", "mean_iou_true_tags"))
    net, _, facts = load_snapshot(tmp_path / "cell" / "checkpoints" / "last.safetensors")
    assert row["parameters"] == sum(p.numel() for p in net.parameters()) and facts["epoch"] == 1
    assert row["images_per_second"] > 0 and row["seconds"] > 0
    assert len(list((tmp_path / "cell" / "masks" / "val").glob("*.png"))) == 4
    stages = read_run(tmp_path / "cell")["stages"]
    assert stages["02_train"]["finished"] and stages["04_ablations"]["finished"]

    for name in ("train", "evaluate"):
        monkeypatch.setattr(ablation, name, lambda *_: pytest.fail("a finished cell must be reused"))
    assert run_cell(config, tmp_path / "cell") == row
    with pytest.raises(RunError, match="fusion: 'sf2' → 'gci'"):
        run_cell(config.model_copy(update={"fusion": "gci"}), tmp_path / "cell")


def test_a_stopped_or_outdated_cell_is_no_result(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(ablation, "train", lambda *_: iter(()))  # as if a `stop` file had ended it
        with pytest.raises(RunError, match="stopped before its last epoch"):
            run_cell(config, tmp_path / "cell")
    run_cell(config, tmp_path / "cell")
    monkeypatch.setattr(ablation.Manifest, "checksums", lambda _: {"train.csv": "other"})
    with pytest.raises(RunError, match="trained on other lists"):
        run_cell(config, tmp_path / "cell")


def test_without_masks_nothing_is_trained(config, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for name in ("classes.json", "train.csv"):
        (tmp_path / "data" / name).write_bytes((Path(config.data) / name).read_bytes())
    (tmp_path / "data" / "val.csv").write_text("image,tags,mask\na.jpg,heart,\n")
    monkeypatch.setattr(ablation, "train", lambda *_: pytest.fail("this costs time for nothing"))
    with pytest.raises(DataError, match="no image of val has a mask.*leave 04_ablations out"):
        run_cell(config.model_copy(update={"data": str(tmp_path / "data")}), tmp_path / "cell")
