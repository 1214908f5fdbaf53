"""Reading an ablation: effects of the two modules with 95 % intervals, over seeds and over images, and what they allow to say."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy.stats import t as student

from wsfcn_lib.metrics import mean_iou

CORNERS = [("aspp", "gci"), ("aspp", "sf2"), ("fca", "gci"), ("fca", "sf2")]
DRAWS = 1000
WEIGHTS = {  # of the corners in each effect
    "FCA instead of ASPP": ("context", [-0.5, -0.5, 0.5, 0.5]),
    "SF2 instead of GCI": ("fusion", [-0.5, 0.5, -0.5, 0.5]),
    "FCA's gain with SF2 less its gain with GCI": ("interaction", [1, -1, -1, 1]),
}
PAIRS = {  # of corners that differ in one module, by the setting of the other
    "context": {"with GCI": (CORNERS[0], CORNERS[2]), "with SF2": (CORNERS[1], CORNERS[3])},
    "fusion": {"with ASPP": (CORNERS[0], CORNERS[1]), "with FCA": (CORNERS[2], CORNERS[3])},
}


def redrawn(images: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each image occurs, (draws, images), where as many are drawn anew with replacement."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), draws).astype(float)


def resampled(
    counts: Mapping[tuple, np.ndarray], draws: int = DRAWS, seed: int = 0
) -> dict[tuple, np.ndarray]:
    """{cell: mIoU (draws,)} where the images are drawn anew with replacement, from {cell: counts (N, 3, K)}.

    Paired: each draw takes the same images for all cells, so differences between cells do not suffer from images that are
    hard for all. ValueError where the cells were not measured on equally many images.
    """
    images = {len(each) for each in counts.values()}
    if len(images) != 1:
        raise ValueError(f"cells were measured on {sorted(images)} images; measure them all on the same")
    size = images.pop()
    times = redrawn(size, draws, seed)
    return {
        cell: mean_iou((times @ each.reshape(size, -1)).reshape(draws, *each.shape[1:]))
        for cell, each in counts.items()
    }


def intervals(by_seed: np.ndarray, by_draw: np.ndarray | None) -> dict[str, float]:
    """Mean, sd and both 95 % intervals of a quantity: Student's t over seeds (S,), and quantiles over draws of the images."""
    seeds, sd = len(by_seed), np.std(by_seed, ddof=1) if len(by_seed) > 1 else np.nan
    half = sd / np.sqrt(seeds) * (student.ppf(0.975, seeds - 1) if seeds > 1 else np.nan)
    low, high = (np.nan, np.nan) if by_draw is None else np.quantile(by_draw, (0.025, 0.975))
    points = np.mean(by_seed)
    out = {"points": points, "sd": sd, "seeds": seeds, "low": points - half, "high": points + half}
    return out | {"images_low": low, "images_high": high}


def spread(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Mean ± standard deviation over the seeds, in per cent, of columns of shares (0..1), a row a `variant`.

    The deviation is that of a sample (divisor S - 1); where only one training has a value, it stands alone.
    """

    def told(values: pd.Series) -> str:
        known = 100 * values.dropna()
        return f"{known.mean():.1f}" + f" ± {known.std():.1f}" * (len(known) > 1)

    return table.groupby("variant", sort=False)[list(columns)].agg(told)


def effects(table: pd.DataFrame, measure: str = "mean_iou", draws: Mapping | None = None) -> pd.DataFrame:
    """Effects of context and fusion, and their interaction, in points of `measure`, with their 95 % intervals.

    Args:
        table: context, fusion, seed and `measure` (0..1), one row a cell; ValueError when a corner is missing or double.
        measure: a column of it.
        draws: {(context, fusion, seed): measure (draws,)} from `resampled` or `Diagnostics.drawn`.

    Returns:
        A row for each effect: change, points, sd, seeds; low, high: paired over the seeds (nan for one seed); images_low,
        images_high: for these trainings, over other images of the kind (nan without `draws`). A factor's effect is the mean
        over the other factor's levels.
    """
    keys = ["seed", "context", "fusion"]
    table = table[table.context.isin([context for context, _ in CORNERS])]
    grid = 100 * table.pivot_table(measure, "seed", ["context", "fusion"]).reindex(
        table["seed"].unique(), columns=CORNERS
    )
    if table.duplicated(keys).any() or grid.isna().any(axis=None) or grid.empty:
        raise ValueError(
            f"each of the corners {CORNERS} must occur once per seed; run the missing cells. Found:\n{table[keys]}"
        )
    drawn = draws and 100 * np.array(
        [np.mean([draws[*corner, seed] for seed in grid.index], 0) for corner in CORNERS]
    )
    rows = []
    for change, (effect, weights) in WEIGHTS.items():
        spread = intervals(grid.to_numpy() @ weights, weights @ drawn if draws else None)
        rows.append({"change": change, "effect": effect, **spread})
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame, reference: str, draws: Mapping | None = None) -> pd.DataFrame:
    """What one-line changes cost or bring: mIoU of each `variant`, and its difference to `reference`, paired by seed, in points.

    `table` has variant, seed and mean_iou (0..1), one row a cell; draws: {(variant, seed): mIoU (draws,)}. Seeds that the
    reference lacks are left out.
    """
    grid = 100 * table.pivot_table("mean_iou", "seed", "variant")
    rows = []
    for variant in table.variant.unique():
        pairs = grid[variant] - grid[reference]
        seeds = pairs.dropna().index
        drawn = draws and 100 * np.mean([draws[variant, seed] - draws[reference, seed] for seed in seeds], 0)
        mean = {"mIoU": grid[variant].mean(), "mIoU_sd": grid[variant].std()}
        rows.append({"variant": variant, **mean, **intervals(pairs[seeds].to_numpy(), drawn)})
    return pd.DataFrame(rows)


def verdict(row: pd.Series) -> str:
    """A gain or loss where all intervals that are known exclude 0; else the two are not told apart."""
    lows, highs = (np.array([row[f"{kind}{side}"] for kind in ("", "images_")]) for side in ("low", "high"))
    known = ~np.isnan(lows)
    return (
        "a gain"
        if (lows[known] > 0).all()
        else "a loss"
        if (highs[known] < 0).all()
        else "not told apart from no effect"
    )


def conclusion(table: pd.DataFrame, draws: Mapping | None = None, other: pd.DataFrame | None = None) -> str:
    """What the grid shows, in plain words made from its numbers; a single seed supports no claim, and the text says so.

    `table` and `draws` as for `effects`; `other`: the effects under the other recipe. A gain that this recipe alone shows, or
    that is none in one of the two settings of the other module, is told as such.
    """
    sentences, seeds = [], table["seed"].nunique()
    mean = 100 * table.groupby(["context", "fusion"])["mean_iou"].mean()
    for number, row in effects(table, draws=draws).iterrows():
        parts = [f"over seeds {row.low:+.1f} to {row.high:+.1f}"] * (seeds > 1)
        parts += [f"over images {row.images_low:+.1f} to {row.images_high:+.1f}"] * bool(draws)
        told = f" (95 % interval {', '.join(parts)})" if parts else ""
        alone = [mean[new] - mean[old] for old, new in PAIRS.get(row.effect, {}).values()]
        told += "".join(
            f", {setting} {points:+.1f}" for setting, points in zip(PAIRS.get(row.effect, {}), alone)
        )
        said = verdict(row)
        if row.effect == "interaction":
            said = {"a gain": "they help each other", "a loss": "they stand in for each other"}.get(
                said, said
            )
        elif said.startswith("a "):
            said += ", but not in both settings" * bool(min(alone) < 0 < max(alone))
            said += ", under this recipe only" * (
                other is not None and verdict(other.loc[number]) != verdict(row)
            )
        sentences.append(f"{row.change}: {row.points:+.1f} points{told}{': ' + said if seeds > 1 else ''}.")
    best = table.groupby("variant")["mean_iou"].agg(["mean", "std"]).sort_values("mean").iloc[-1]
    spread = f" (sd {100 * best['std']:.1f})" * (seeds > 1)
    sentences.append(f"Highest: {best.name} with {100 * best['mean']:.1f} % mIoU{spread}.")
    alone = (
        "bootstrap over images only; no claim about the modules" if draws else "no claim about the modules"
    )
    return " ".join(
        [*sentences, f"{seeds} seeds, this data set, this schedule." if seeds > 1 else f"One seed: {alone}."]
    )
