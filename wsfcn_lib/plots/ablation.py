"""Figures of an ablation: variants and effects with their intervals, and the quality over a training."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wsfcn_lib.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, styled

COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
ABOVE = {
    "loc": "lower right",
    "bbox_to_anchor": (1, 1),
    "borderpad": 0.2,
    "columnspacing": 1.2,
}  # beside the title


@styled
def ablation(table: pd.DataFrame, effects: pd.DataFrame | None = None) -> Figure:
    """Dots of mIoU per variant, and below them the effects of the modules with their 95 % intervals.

    table: `variant`, one or more `mean_iou...`, perhaps `cost` (words for below the name); several rows (seeds) give mean and sd.
    effects: as `effects.effects` returns them, in points.
    """
    measures = [column for column in table if str(column).startswith("mean_iou")]
    if "variant" not in table or not measures:
        raise ValueError(
            f"the table has columns {list(table)}; it needs `variant` and at least one `mean_iou...`"
        )
    groups = table.groupby("variant", sort=False)
    mean, spread, most = groups[measures].mean(), groups[measures].std().fillna(0), groups.size().max()
    costs = groups["cost"].first() if "cost" in table else pd.Series("", mean.index)
    tall = [
        1.1 + (0.2 + 0.3 * len(measures)) * len(mean),
        0.9 + 0.42 * len(effects) if effects is not None else 0,
    ]
    figure = Figure((9, sum(tall)), layout="constrained")
    axis, *below = figure.subplots(
        1 + (effects is not None), height_ratios=tall[: 1 + (effects is not None)], squeeze=False
    )[:, 0]
    for place, (measure, colour) in enumerate(zip(measures, COLOURS, strict=False)):
        rows = np.arange(len(mean)) + 0.8 / (len(measures) + 1) * (place - (len(measures) - 1) / 2)
        label = measure.replace("mean_iou", "mIoU").replace("_crf", " + CRF").replace("_", " ")
        axis.errorbar(
            mean[measure], rows, xerr=spread[measure], fmt="o", ms=7, lw=1.5, color=colour, label=label
        )
        for row, value in zip(rows, mean[measure], strict=True):
            axis.annotate(
                f"{value:.3f}",
                (value, row),
                (0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=colour,
            )
        if most > 1:
            seeds = mean.index.get_indexer(table.variant)
            axis.plot(table[measure], rows[seeds], "o", ms=3.5, color="white", mec=colour, zorder=3)
    axis.set_yticks(
        range(len(mean)), [f"{name}\n{costs[name]}".strip() for name in mean.index], color="black"
    )
    title, told = (
        (f"Variants, {most} seeds", "mIoU, mean ± standard deviation")
        if most > 1
        else ("Variants, one run each", "mIoU")
    )
    axis.set(title=title, xlabel=told, ylim=(len(mean) - 0.5, -0.5))
    if len(measures) > 1:
        axis.legend(**ABOVE, ncols=len(measures))
    for axis in below:
        _intervals(axis, effects)
    return figure


def _intervals(axis, effects: pd.DataFrame) -> None:
    """Effects as dots, with a line for each kind of interval that is known."""
    for shift, (side, colour) in zip((-0.12, 0.12), (("", BLUE), ("images_", ORANGE)), strict=True):
        if effects[f"{side}low"].notna().any():
            label = f"95 % over {'images' if side else 'seeds'}"
            axis.hlines(
                np.arange(len(effects)) + shift,
                effects[f"{side}low"],
                effects[f"{side}high"],
                colour,
                lw=3,
                label=label,
            )
    axis.plot(effects.points, range(len(effects)), "o", color="black", ms=6)
    axis.axvline(0, color=GREY, lw=1)
    axis.set_yticks(
        range(len(effects)), [textwrap.fill(change, 26) for change in effects.change], color="black"
    )
    axis.set(title="Effects, with intervals", xlabel="points of mIoU", ylim=(len(effects) - 0.4, -0.6))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(**ABOVE, ncols=2)


@styled
def growth(table: pd.DataFrame) -> Figure:
    """Quality over a training: a line over `epoch` for each other column but `pseudo_coverage`, 0..1."""
    if table.empty:
        raise ValueError("the table has no epochs; keep snapshots with the setting snapshot_every")
    figure = Figure((9, 3.4), layout="constrained")
    axis, kinds = figure.subplots(), table.columns.drop(["epoch", "pseudo_coverage"], errors="ignore")
    for kind, colour in zip(kinds, COLOURS, strict=False):
        axis.plot(
            table.epoch,
            100 * table[kind],
            "o-",
            color=colour,
            ms=5,
            label=kind.replace("_", " ").replace("cam", "CAM"),
        )
    axis.set(
        title="Quality over training, on training images",
        xlabel="finished epochs",
        ylabel="mIoU, %",
        xticks=table.epoch,
    )
    axis.set_ylim(0, None)
    figure.legend(loc="outside right upper")
    return figure
