"""bf16 against fp32: the committed runs differ in nothing else, and their spread is what README says."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import t as student

from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.run_diff import diff_settings
from wsfcn_lib.train import WITHOUT_EFFECT

FOLDER = ROOT / "data" / "results" / "precision"
MEASURES = ("mean_iou", "mean_iou_crf", "mean_iou_true_tags", "mean_ap")
SEEDS = (0, 1, 2)


def read(precision, seed, name):
    return json.loads((FOLDER / f"{precision}-s{seed}" / name).read_text())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_two_runs_of_a_seed_differ_in_precision_alone(seed):
    stages = [read(precision, seed, "run.json")["stages"] for precision in ("fp32", "bf16")]
    training = diff_settings(stages[0]["02_train"]["settings"], stages[1]["02_train"]["settings"])
    assert [key for key, *_ in training if key not in WITHOUT_EFFECT] == ["precision"]
    assert (
        stages[0]["02_train"]["settings"]["seed"] == seed
        and stages[0]["02_train"]["data"] == stages[1]["02_train"]["data"]
    )


def test_the_table_is_that_of_the_runs():
    with open(FOLDER / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(SEEDS)
    for row in rows:
        metrics = read(row["precision"], row["seed"], "metrics.json")
        assert {name: float(row[name]) for name in MEASURES} == {name: metrics[name] for name in MEASURES}


def test_readme_states_the_spread():
    text, cells = (ROOT / "data/results/LOG.md").read_text("utf-8").replace("−", "-"), {}
    values = {
        p: 100 * np.array([[read(p, s, "metrics.json")[m] for m in MEASURES] for s in SEEDS])
        for p in ("fp32", "bf16")
    }
    for precision, found in values.items():
        cells[precision] = [f"{mean:.1f} ± {sd:.1f}" for mean, sd in zip(found.mean(0), found.std(0, ddof=1))]
    change = values["bf16"] - values["fp32"]
    half = student.ppf(0.975, len(SEEDS) - 1) * change.std(0, ddof=1) / np.sqrt(len(SEEDS))
    told = [f"{mean:+.1f} ({mean - by:+.1f} to {mean + by:+.1f})" for mean, by in zip(change.mean(0), half)]
    for name, row in (*cells.items(), ("change, paired by seed (95 % interval)", told)):
        assert f"| {name} | {' | '.join(row)} |" in text
