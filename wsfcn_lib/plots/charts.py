"""Figures of notebooks and report: arrays and tables in, `Figure` objects (never pyplot's) out, about 900 pixels wide."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wsfcn_lib.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, styled


@styled
def curves(log: pd.DataFrame) -> Figure:
    """A training log over its epochs: losses (faint: each logged step, strong: running mean), tag mAP, learning rates."""
    if log.empty:
        raise ValueError("the log has no rows yet; train for a few steps first")
    figure = Figure((9, 4.2), layout="constrained")
    axes = figure.subplot_mosaic([["loss", "map"], ["loss", "lr"]], width_ratios=(3, 2), sharex=True)
    for column, colour, name in (
        ("classification_loss", BLUE, "classification"),
        ("mask_loss", ORANGE, "mask"),
    ):
        rows = log.dropna(subset=column)
        axes["loss"].plot(rows.step, rows[column], color=colour, alpha=0.22, lw=0.8)
        smooth = rows[column].rolling(max(1, len(rows) // 15), min_periods=1, center=True).mean()
        axes["loss"].plot(rows.step, smooth, color=colour, label=name)
    checks = log.dropna(subset="val_loss")
    axes["loss"].plot(
        checks.step, checks.val_loss, "o-", color="black", ms=3.5, lw=1, label="validation, total"
    )
    axes["loss"].set(title="Losses", ylim=(min(0, axes["loss"].get_ylim()[0]), None))
    axes["loss"].legend()
    axes["map"].plot(checks.step, checks.val_map, "o-", color=GREEN, ms=3.5)
    axes["map"].set(title="Tags, validation mAP", ylim=(0, 1.03))
    rates = log.filter(regex="^lr").dropna(axis=1, how="all").dropna()
    for column, colour, width in zip(rates, (BLUE, ORANGE, GREEN, PURPLE, GREY), (4, 3, 2, 1, 1)):
        label = column.removeprefix("lr_").replace("_", " ")  # thinner and thinner: equal rates stay visible
        axes["lr"].plot(log.step[rates.index], rates[column], color=colour, lw=width, label=label)
    low, high = np.quantile(rates, (0.1, 1))
    axes["lr"].set(
        title="Learning rate", yscale="log", ylim=(low / 1.6, high * (high / low + 4) ** 0.6)
    )  # legend on top
    axes["lr"].minorticks_off()
    axes["lr"].legend(fontsize=8, loc="upper right", borderpad=0, labelspacing=0.2, ncols=2)
    starts = log.groupby("epoch").step.min()[:: log.epoch.nunique() // 9 + 1]
    for axis in (axes["loss"], axes["lr"]):
        axis.set_xticks(starts.to_numpy(), starts.index.astype(int))
        axis.set_xlabel("epoch")
    return figure


@styled
def confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Confusion matrix (K, K) of pixel counts, rows = truth, as percent of each row; numbers up to 21 classes."""
    matrix, count = np.asarray(matrix, float), len(names)
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure = Figure(np.array((1, 0.93)) * min(9.0, max(4.5, 1.8 + 0.55 * count)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row, column in zip(*np.nonzero(share >= 0.5), strict=True) if count <= 21 else ():
        colour = "white" if share[row, column] > 55 else "#222222"
        axis.text(
            column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=8.5
        )
    told, size = (
        [n if r.any() else f"({n}: none)" for n, r in zip(names, matrix, strict=True)],
        9.5 if count <= 21 else 4.5,
    )
    axis.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axis.set_yticks(range(count), told, fontsize=size)
    axis.set(title="Confusion, % of the true pixels", xlabel="predicted", ylabel="true")
    axis.grid(False)
    axis.spines[:].set_visible(False)
    return figure


@styled
def class_bars(
    iou: np.ndarray,
    names: Sequence[str],
    palette: np.ndarray,
    reference: np.ndarray | None = None,
    reference_name: str = "",
) -> Figure:
    """IoU per class (K,) as bars in the classes' colours, best first; NaN reads "absent"; `reference` (K,) as ticks."""
    iou = np.asarray(iou, float)
    order = np.argsort(-np.nan_to_num(iou, nan=-1.0), kind="stable")
    figure = Figure((9, 0.9 + 0.27 * len(iou)), layout="constrained")
    axis = figure.subplots()
    axis.barh(
        range(len(iou)),
        np.nan_to_num(iou[order]),
        color=np.asarray(palette)[order] / 255,
        edgecolor=GREY,
        lw=0.4,
    )
    other = np.full(len(iou), np.nan) if reference is None else np.asarray(reference, float)
    axis.plot(other[order], range(len(iou)), "|", color="white", ms=16, mew=5)  # a rim, for dark bars
    axis.plot(other[order], range(len(iou)), "|", color="black", ms=13, mew=2, label=reference_name)
    for place, (value, mark) in enumerate(zip(iou[order], other[order], strict=True)):
        text = (
            "absent"
            if np.isnan(value)
            else f"{value:.3f}" + f", {reference_name} {mark:.3f}" * bool(mark == mark)
        )
        axis.text(np.nanmax([value, mark, 0]) + 0.012, place, text, va="center", color=GREY)
    axis.axvline(np.nanmean(iou), color=GREY, ls=(0, (3, 3)), lw=1, label=f"mean {np.nanmean(iou):.3f}")
    axis.set_yticks(range(len(iou)), [names[k] for k in order], color="black")
    axis.set(title="IoU per class", ylim=(len(iou) - 0.4, -0.6), xlim=(0, 1.25), xticks=np.linspace(0, 1, 6))
    axis.grid(axis="y", visible=False)
    axis.legend(loc="lower right")
    return figure
