"""Reading an ablation: effects of the two modules with 95 % intervals, over seeds and over images."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy.stats import t as student

from wsfcn_lib.evaluation.image_counts import redrawn_blocks
from wsfcn_lib.metrics import mean_iou

CORNERS = [("aspp", "gci"), ("aspp", "sf2"), ("fca", "gci"), ("fca", "sf2")]
DRAWS = 1000
EFFECTS = [  # change, name, and weights of the corners
    ("FCA instead of ASPP", "context", [-0.5, -0.5, 0.5, 0.5]),
    ("SF2 instead of GCI", "fusion", [-0.5, 0.5, -0.5, 0.5]),
    ("FCA's gain with SF2 less its gain with GCI", "interaction", [1, -1, -1, 1]),
]


def redrawn(images: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """All rows of `redrawn_blocks` at once, (draws, images)."""
    return np.concatenate([*redrawn_blocks(images, draws, seed)])


def resampled(
    counts: Mapping[tuple, np.ndarray], draws: int = DRAWS, seed: int = 0
) -> dict[tuple, np.ndarray]:
    """{configuration: mIoU (draws,)} where the images are drawn anew with replacement.

    From {configuration: counts (N, 3, K) of pixels that are right, true, predicted}. Paired: each draw takes
    the same images for all, so differences between configurations do not suffer from images that are hard
    for all. ValueError where they were not measured on equally many images.
    """
    numbers = {len(each) for each in counts.values()}
    if len(numbers) != 1:
        raise ValueError(
            f"configurations were measured on {sorted(numbers)} images; measure them all on the same"
        )
    times = redrawn(numbers.pop(), draws, seed)
    return {name: mean_iou(np.tensordot(times, each, 1)) for name, each in counts.items()}


def intervals(by_seed: np.ndarray, by_draw: np.ndarray | None) -> dict[str, float]:
    """Mean, sd and 95 % intervals: Student's t over seeds (S,), quantiles over draws of the images (D,)."""
    seeds, mean = len(by_seed), np.mean(by_seed)
    sd = half = low = high = math.nan
    if seeds > 1:
        sd = np.std(by_seed, ddof=1)
        half = student.ppf(0.975, seeds - 1) * sd / math.sqrt(seeds)
    if by_draw is not None:
        low, high = np.quantile(by_draw, (0.025, 0.975))
    over_seeds = {"points": mean, "sd": sd, "seeds": seeds, "low": mean - half, "high": mean + half}
    return over_seeds | {"images_low": low, "images_high": high}


def effects(table: pd.DataFrame, measure: str = "mean_iou", draws: Mapping | None = None) -> pd.DataFrame:
    """Effects of context and fusion, and their interaction, in points of `measure`, with 95 % intervals.

    Args:
        table: context, fusion, seed and `measure` (0..1), a row for each configuration; ValueError when a
            corner is missing or double.
        measure: a column of it.
        draws: {(context, fusion, seed): measure (draws,)} from `resampled` or `Diagnostics.drawn`.

    Returns:
        A row for each effect: change, effect, points, sd, seeds; low, high: paired over the seeds (nan for
        one seed); images_low, images_high: for these trainings, over other images of the kind (nan without
        `draws`). A factor's effect is the mean over the other factor's levels.
    """
    keys = ["context", "fusion", "seed"]
    table = table[table.context != "none"]
    seeds = table.seed.unique()
    grid = table.pivot_table(measure, "seed", ["context", "fusion"]).reindex(seeds, columns=CORNERS)
    if table.duplicated(keys).any() or grid.isna().any(axis=None) or grid.empty:
        raise ValueError(
            f"each of the corners {CORNERS} must occur once per seed; run the missing ones. "
            f"The table has:\n{table[keys]}"
        )
    drawn = None
    if draws:
        drawn = np.array([np.mean([draws[*corner, seed] for seed in seeds], axis=0) for corner in CORNERS])
    rows = []
    for change, effect, weights in EFFECTS:
        points = 100 * grid.to_numpy() @ weights
        points_drawn = None if drawn is None else 100 * np.array(weights) @ drawn
        rows.append({"change": change, "effect": effect, **intervals(points, points_drawn)})
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame, reference: str, draws: Mapping | None = None) -> pd.DataFrame:
    """What one-line changes bring: mIoU of each `variant` and its difference to `reference`, in points.

    `table` has variant, seed and mean_iou (0..1), a row for each configuration; draws: {(variant, seed):
    mIoU}. Paired by seed; seeds that the reference lacks are left out.
    """
    grid = 100 * table.pivot_table("mean_iou", "seed", "variant")
    rows = []
    for variant in table.variant.unique():
        pairs = (grid[variant] - grid[reference]).dropna()
        drawn = None
        if draws:
            drawn = 100 * np.mean([draws[variant, s] - draws[reference, s] for s in pairs.index], axis=0)
        row = {"variant": variant, "mIoU": grid[variant].mean(), "mIoU_sd": grid[variant].std()}
        rows.append(row | intervals(pairs.to_numpy(), drawn))
    return pd.DataFrame(rows)


def spread(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Mean ± standard deviation over the seeds, in per cent, of columns of shares (0..1), a row a `variant`.

    The deviation is that of a sample (divisor S - 1); where only one training has a value, it stands alone.
    """

    def as_text(values: pd.Series) -> str:
        percent = 100 * values.dropna()
        if len(percent) < 2:
            return f"{percent.mean():.1f}"
        return f"{percent.mean():.1f} ± {percent.std():.1f}"

    return table.groupby("variant", sort=False)[list(columns)].agg(as_text)


def conclusion(effects: pd.DataFrame) -> str:
    """A sentence for each row of `effects`, with its intervals; it says that one seed supports no claim."""
    sentences = []
    for row in effects.itertuples():
        sentence = f"{row.change}: {row.points:+.1f} points"
        if not math.isnan(row.low):
            sentence += f", 95 % interval over seeds {row.low:+.1f} to {row.high:+.1f}"
        if not math.isnan(row.images_low):
            sentence += f", 95 % interval over images {row.images_low:+.1f} to {row.images_high:+.1f}"
        sentences.append(f"{sentence}.")
    seeds = effects.seeds.max()
    if seeds == 1:
        sentences.append("One seed: a second training may turn these signs, so no claim about the modules.")
    else:
        sentences.append(
            f"{seeds} seeds, this data set, this schedule; an interval that holds 0 shows no effect."
        )
    return " ".join(sentences)
