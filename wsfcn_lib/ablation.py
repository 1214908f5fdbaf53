"""The ablation grid {ASPP, FCA} x {GCI, SF2}: both published systems are corners of it, and all cells share one schedule."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from wsfcn_lib.checkpoints import find_snapshot, load_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.manifest import DataError, Manifest
from wsfcn_lib.evaluate import EvalSettings, Variant, evaluate
from wsfcn_lib.job import STAGE as TRAINING
from wsfcn_lib.job import build_accelerator
from wsfcn_lib.log import read_rows
from wsfcn_lib.runs import ROOT, RunError, RunFolder, plain, provenance, read_run
from wsfcn_lib.train import show_progress, train

STAGE = "04_ablations"
CORNERS = [("aspp", "gci"), ("aspp", "sf2"), ("fca", "gci"), ("fca", "sf2")]
PUBLISHED = {("aspp", "gci"): " (1-stage)", ("fca", "sf2"): " (WS-FCN)"}
KINDS = {"": ("wsfcn", "predicted"), "_1stage": ("1stage", "predicted"), "_true_tags": ("wsfcn", "true")}
# The last snapshot: choosing one by validation would look at the split that the cells are compared on.
QUICK = EvalSettings(images="val", snapshot="last", scales=(1.0,), use_crf=False)


def cells(seeds: Iterable[int]) -> list[dict]:
    """The cells of the grid as dict(context, fusion, seed); seed by seed, so that an interrupted grid holds whole seeds."""
    return [{"context": context, "fusion": fusion, "seed": seed} for seed in seeds for context, fusion in CORNERS]


def run_cell(config: TrainConfig, folder: Path | str, settings: EvalSettings = QUICK) -> dict:
    """Train one cell in a run folder of its own and measure it, unless both are done there already; returns its row.

    The row has variant, context, fusion, seed; mean_iou (WS-FCN's recipe), mean_iou_1stage and mean_iou_true_tags, all
    without CRF and in 0..1; parameters; images_per_second (median) and seconds of its training.
    Raises RunError where the folder holds other settings, was trained on other lists, or training was stopped; DataError,
    before any training, where no image to measure on has a mask.
    """
    folder, manifest, asked = ROOT / folder, Manifest.load(ROOT / config.data), plain(settings.model_dump())
    if not any(sample.mask for sample in manifest.samples(settings.images)):
        text = f"{config.data}: no image of {settings.images} has a mask, and the variants are compared by masks"
        raise DataError(f"{text}; add masks of some, or leave 04_ablations out")
    with RunFolder.open(folder, config.model_dump(), TRAINING, free=("device", "workers", "threads")) as run:
        stages = read_run(folder)["stages"]
        if not stages[TRAINING].get("finished"):
            for _ in show_progress(train(config, folder), config.epochs):
                pass
        elif stages[TRAINING]["data"] != manifest.checksums():
            raise RunError(f"{folder.name} was trained on other lists than {config.data} holds now; delete {folder}")
        elif stages.get(STAGE, {}).get("settings") == asked:
            return stages[STAGE]["row"]
        trained = read_run(folder)["stages"][TRAINING]
        if not trained.get("finished"):
            raise RunError(f"{folder.name} was stopped before its last epoch; run the notebook again, it continues")
        net = load_snapshot(find_snapshot(folder, settings.snapshot))[0].to(build_accelerator(config).device)
        found = evaluate(net, manifest, settings, folder).matrices
        corner = config.context, config.fusion
        row = {"variant": " + ".join(corner).upper() + PUBLISHED.get(corner, ""), "context": corner[0], "fusion": corner[1]}
        scores = {f"mean_iou{end}": found[Variant(recipe, False, tags)].mean_iou() for end, (recipe, tags) in KINDS.items()}
        speeds = [float(line["images_per_second"]) for line in read_rows(folder / "log.csv") if line["images_per_second"]]
        size = sum(parameter.numel() for parameter in net.parameters())
        row |= {"seed": config.seed, **scores, "parameters": size}
        row |= {"images_per_second": round(float(np.median(speeds)), 1), "seconds": trained["seconds"]}
        run.record(STAGE, settings=asked, row=row, finished=True, **provenance(trained["device"]))
        return row


def effects(table: pd.DataFrame, measure: str = "mean_iou") -> pd.DataFrame:
    """Effects of context and fusion, and their interaction, in points of mIoU: mean over seeds, and spread where several.

    `table` has context, fusion, seed and `measure` (0..1), one row a cell; ValueError when a cell is missing or double.
    A factor's effect is the mean over the other factor's levels. `low` and `high` bound the 95 % interval of the mean
    (Student's t over the seeds); they and `sd` are NaN for one seed.
    """
    keys = ["seed", "context", "fusion"]
    grid = 100 * table.pivot_table(measure, "seed", ["context", "fusion"]).reindex(table["seed"].unique(), columns=CORNERS)
    if table.duplicated(keys).any() or grid.isna().any(axis=None):
        raise ValueError(f"each of the corners {CORNERS} must occur once per seed; run the missing cells. Found:\n{table[keys]}")
    ancestor, with_sf2, with_fca, both = (grid[corner] for corner in CORNERS)
    by_seed = {
        "FCA instead of ASPP": (with_fca + both - ancestor - with_sf2) / 2,
        "SF2 instead of GCI": (with_sf2 + both - ancestor - with_fca) / 2,
        "FCA's gain with SF2 less its gain with GCI": (both - with_sf2) - (with_fca - ancestor),
    }
    by_seed, seeds = pd.DataFrame(by_seed), len(grid)
    found = pd.DataFrame({"points": by_seed.mean(), "sd": by_seed.std(), "seeds": seeds}).rename_axis("change").reset_index()
    half = found.sd / np.sqrt(seeds) * (student.ppf(0.975, seeds - 1) if seeds > 1 else np.nan)
    return found.assign(low=found.points - half, high=found.points + half, effect=["context", "fusion", "interaction"])


def conclusion(table: pd.DataFrame) -> str:
    """What the grid shows, in plain words made from its numbers; a single seed supports no claim, and the text says so."""
    sentences, seeds = [], table["seed"].nunique()
    for row in effects(table).itertuples():
        spread = f" (sd {row.sd:.1f}, 95 % interval {row.low:+.1f} to {row.high:+.1f}): "
        verdict = "a gain" if row.low > 0 else "a loss" if row.high < 0 else "not told apart from no effect"
        sentences.append(f"{row.change}: {row.points:+.1f} points{(spread + verdict) * (seeds > 1)}.")
    best = table.groupby("variant")["mean_iou"].mean()
    sentences.append(f"Highest: {best.idxmax()} with {100 * best.max():.1f} % mIoU.")
    return " ".join(
        [*sentences, f"{seeds} seeds, this data set, this schedule." if seeds > 1 else "One seed: no claim about the modules."]
    )
