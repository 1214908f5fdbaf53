"""Figures of an ablation: variants, effects with their intervals, and the mIoU over a training."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wsfcn_lib.plots.style import BESIDE_TITLE, BLUE, COLOURS, GREY, ORANGE, styled


@styled
def ablation(table: pd.DataFrame, effects: pd.DataFrame | None = None) -> Figure:
    """Dots of mIoU per variant, and below them the effects of the modules with their 95 % intervals.

    table: `variant`, one or more `mean_iou...`, perhaps `cost` (words for below the name); several rows
    (seeds) of a variant give mean and sd.
    effects: as `ablation.statistics.effects` returns them, in points.
    """
    measures = table.filter(regex="^mean_iou").columns
    if "variant" not in table or measures.empty:
        raise ValueError(
            f"the table has columns {list(table)}; it needs `variant` and at least one `mean_iou...`"
        )
    heights = [1.1 + (0.2 + 0.3 * len(measures)) * table.variant.nunique()]
    if effects is not None:
        heights.append(0.9 + 0.42 * len(effects))
    figure = Figure((9, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    _variants(axes[0], table, measures)
    if effects is not None:
        _intervals(axes[1], effects)
    return figure


def _variants(axis: Axes, table: pd.DataFrame, measures: pd.Index) -> None:
    """A row for each variant: the mean of each measure, and each seed."""
    groups = table.groupby("variant", sort=False)
    mean, seeds = groups[measures].mean(), groups.size().max()
    step = 0.8 / (len(measures) + 1)  # between the measures of a variant
    for number, (measure, colour) in enumerate(zip(measures, COLOURS)):
        rows = np.arange(len(mean)) + step * (number - (len(measures) - 1) / 2)
        label = measure.replace("mean_iou", "mIoU").replace("_crf", " + CRF").replace("_", " ")
        axis.plot(mean[measure], rows, "o", ms=7, color=colour, label=label)
        for row, value in zip(rows, mean[measure]):
            style = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "color": colour}
            axis.annotate(f"{value:.3f}", (value, row), (0, 6), **style)
        if seeds > 1:
            places = rows[mean.index.get_indexer(table.variant)]
            axis.plot(table[measure], places, "o", ms=3.5, color="white", mec=colour)
    names = list(mean.index)
    if "cost" in table:
        names = [f"{name}\n{cost}" for name, cost in groups["cost"].first().items()]
    axis.set_yticks(range(len(mean)), names, color="black")
    axis.set(title="Variants, one run each", xlabel="mIoU", ylim=(len(mean) - 0.5, -0.5))
    if seeds > 1:
        axis.set(title=f"Variants, {seeds} seeds", xlabel="mIoU, mean and each seed")
    if len(measures) > 1:
        axis.legend(**BESIDE_TITLE, ncols=len(measures))


def _intervals(axis: Axes, effects: pd.DataFrame) -> None:
    """Effects as dots, with a line for each kind of interval that is known."""
    rows = np.arange(len(effects))
    kinds = [("", "seeds", -0.12, BLUE), ("images_", "images", 0.12, ORANGE)]
    for prefix, kind, shift, colour in kinds:
        low, high = effects[f"{prefix}low"], effects[f"{prefix}high"]
        if low.notna().any():
            axis.hlines(rows + shift, low, high, colour, lw=3, label=f"95 % over {kind}")
            axis.legend(**BESIDE_TITLE, ncols=2)
    axis.plot(effects.points, rows, "o", color="black", ms=6)
    axis.axvline(0, color=GREY, lw=1)
    axis.set_yticks(rows, [textwrap.fill(change, 26) for change in effects.change], color="black")
    title = (
        "Effects, with intervals"
        if axis.get_legend()
        else "Differences of one seed, which are no effects yet"
    )
    axis.set(title=title, xlabel="points of mIoU", ylim=(len(effects) - 0.4, -0.6))


@styled
def growth(table: pd.DataFrame) -> Figure:
    """MIoU over a training: a line over `epoch` for each other column but `pseudo_coverage`, 0..1."""
    if table.empty:
        raise ValueError("the table has no epochs; keep snapshots with the setting snapshot_every")
    figure = Figure((9, 3.4), layout="constrained")
    axis = figure.subplots()
    for kind in table.columns.drop(["epoch", "pseudo_coverage"], errors="ignore"):
        label = kind.replace("_", " ").replace("cam", "CAM")
        axis.plot(table.epoch, 100 * table[kind], "o-", ms=5, label=label)
    axis.set(title="Quality over training, on training images", xlabel="finished epochs", ylabel="mIoU, %")
    axis.set(xticks=table.epoch, ylim=(0, None))
    figure.legend(loc="outside right upper")
    return figure
