"""Figures of notebooks and report, 900 pixels wide: arrays and tables in, `Figure` (never pyplot's) out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from wsfcn_lib.plots.style import BLUE, GREEN, GREY, ORANGE, styled

MANY = 21  # classes; of more, names are small and numbers left out


@styled
def curves(log: pd.DataFrame) -> Figure:
    """A training log over its epochs: losses (faint: each step, strong: mean), tag mAP, learning rates."""
    if log.empty:
        raise ValueError("the log has no rows yet; train for a few steps first")
    figure = Figure((9, 4.2), layout="constrained")
    axes = figure.subplot_mosaic([["loss", "map"], ["loss", "lr"]], width_ratios=(3, 2), sharex=True)
    for name, colour in (("classification", BLUE), ("mask", ORANGE)):
        rows = log.dropna(subset=f"{name}_loss")
        losses = rows[f"{name}_loss"]
        smooth = losses.rolling(max(1, len(rows) // 15), min_periods=1, center=True).mean()
        axes["loss"].plot(rows.step, losses, color=colour, alpha=0.22, lw=0.8)
        axes["loss"].plot(rows.step, smooth, color=colour, label=name)
    checks = log.dropna(subset="val_loss")
    dots = {"marker": "o", "markersize": 3.5}
    within, label = _within(checks, log)
    axes["loss"].plot(within.step, within.val_loss, color="black", lw=1, label=label, **dots)
    axes["loss"].set(title="Losses", ylim=(min(0, axes["loss"].get_ylim()[0]), None))
    axes["loss"].legend()
    axes["map"].plot(checks.step, checks.val_map, color=GREEN, **dots)
    axes["map"].set(title="Tags, validation mAP", ylim=(0, 1.03))
    rates = log.filter(regex="^lr").dropna(axis=1, how="all").dropna()
    for columns, rate in _equal_rates(rates):
        label = ", ".join(column.removeprefix("lr_").replace("_", " ") for column in columns)
        axes["lr"].plot(log.step[rates.index], rate, label=label)
    axes["lr"].set(title="Learning rate")
    if not rates.empty:  # else the training was stopped before its first row
        axes["lr"].set_ylim(0, 1.6 * rates.max(axis=None))  # room for the legend
        axes["lr"].legend(fontsize=8, loc="upper right", borderpad=0, labelspacing=0.2)
    starts = _epoch_starts(log)
    starts = starts[:: len(starts) // 9 + 1]
    for axis in (axes["loss"], axes["lr"]):
        axis.set_xticks(starts.to_numpy(), starts.index.astype(int))
        axis.set_xlabel("epoch")
    return figure


def _epoch_starts(log: pd.DataFrame) -> pd.Series:
    """The step before which each epoch of a log begins: each ends with a row."""
    return log.groupby("epoch").step.max().shift(1, fill_value=0)


def _within(checks: pd.DataFrame, log: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The validations to draw, and their label: an untrained network's loss may lie far beyond all others."""
    label = "validation, total"
    first, others = checks.val_loss[:1], pd.concat([checks.val_loss[1:], log.classification_loss])
    if not len(first) or not first.item() > 2 * others.max() > 0:
        return checks, label
    return checks[1:], f"{label} ({first.item():.1f} at the start, beyond the frame)"


def _equal_rates(rates: pd.DataFrame) -> list[tuple[list[str], pd.Series]]:
    """The columns of a table by their values: those that are equal share one line, else the last hides the others."""
    groups = []
    for column, rate in rates.items():
        for columns, shared in groups:
            if np.allclose(rate, shared):
                columns.append(column)
                break
        else:
            groups.append(([column], rate))
    return groups


@styled
def confusion(matrix: np.ndarray, names: Sequence[str]) -> Figure:
    """Confusion matrix (K, K) of pixels, rows = truth, in percent of each row; numbers up to 21 classes."""
    pixels = np.sum(matrix, axis=1)
    share = 100 * np.asarray(matrix) / np.maximum(pixels, 1)[:, None]
    side = min(9.0, max(4.5, 1.8 + 0.55 * len(names)))
    figure = Figure((side, 0.93 * side), layout="constrained")
    axis = figure.subplots()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    if len(names) <= MANY:
        for row, column in np.argwhere(share >= 0.5):
            value = share[row, column]
            style = {"color": "white" if value > 55 else "black", "fontsize": 8.5}
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", **style)
    size = 9.5 if len(names) <= MANY else 4.5
    true_names = [name if count else f"({name}: none)" for name, count in zip(names, pixels, strict=True)]
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axis.set_yticks(range(len(names)), true_names, fontsize=size)
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
    """IoU per class (K,) as bars, best first; NaN reads "absent"; `reference` (K,) as ticks, and behind a stroke."""
    iou = np.asarray(iou, float)
    marks = np.full(len(iou), np.nan) if reference is None else np.array(reference, float)
    mean = np.nanmean(iou)
    order = np.argsort(-np.nan_to_num(iou, nan=-1.0), kind="stable")
    figure = Figure((9, 0.9 + 0.27 * len(iou)), layout="constrained")
    axis = figure.subplots()
    for row, k in enumerate(order):
        axis.barh(row, np.nan_to_num(iou[k]), color=palette[k] / 255, edgecolor=GREY, lw=0.4)
        text = "absent" if np.isnan(iou[k]) else f"{iou[k]:.3f}"
        if not np.isnan(marks[k]):
            text += f" | {marks[k]:.3f}"
        axis.text(np.nanmax([iou[k], marks[k], 0]) + 0.012, row, text, va="center", color=GREY)
    axis.plot(marks[order], range(len(iou)), "|", color="white", ms=16, mew=5)  # a rim, for dark bars
    axis.plot(marks[order], range(len(iou)), "|", color="black", ms=13, mew=2, label=reference_name)
    axis.axvline(mean, color=GREY, ls=(0, (3, 3)), lw=1, label=f"mean {mean:.3f}", zorder=0)
    axis.set_yticks(range(len(iou)), [names[k] for k in order], color="black")
    axis.set(title="IoU per class", ylim=(len(iou) - 0.4, -0.6), xlim=(0, 1.25), xticks=np.linspace(0, 1, 6))
    axis.grid(axis="y", visible=False)
    axis.legend(loc="lower right")
    return figure


@styled
def chances(
    probabilities: Mapping[str, np.ndarray],
    tags: Sequence[Sequence[bool]],
    names: Sequence[str],
    palette: np.ndarray,
    cut: float,
) -> Figure:
    """The probability of each class (K - 1,) of each image, filled where its tag is given; dashed: the cut.

    `names` (K) begins with background; the 12 most probable classes of an image are shown.
    """
    figure = Figure((9, 0.9 + 0.25 * min(len(names), 12)), layout="constrained")
    axes = figure.subplots(1, len(probabilities), squeeze=False)[0]
    for axis, (title, values), own in zip(axes, probabilities.items(), tags):
        order = np.argsort(-values, kind="stable")[:12][::-1]
        filled = [palette[c + 1] / 255 if own[c] else "white" for c in order]
        axis.barh(range(len(order)), values[order], color=filled, edgecolor=GREY, lw=0.8)
        axis.axvline(cut, color="black", lw=1, ls=(0, (3, 3)))
        axis.set(title=title, xlim=(0, 1), xticks=sorted({cut, 0.5, 1}), xlabel="probability")
        axis.set_yticks(range(len(order)), [names[c + 1] for c in order], color="black")
        axis.grid(axis="y", visible=False)
    return figure


@styled
def cuts(table: pd.DataFrame, chosen: float) -> Figure:
    """What a cut does, in percent by cut (the index): `foreground`, `background`; `right`, `complete`. Dashed: chosen."""
    figure = Figure((9, 3.2), layout="constrained")
    panels = {
        "Labelled, % of the pixels": ("foreground", "background"),
        "Right labels and complete images, %": ("right", "complete"),
    }
    for axis, (title, columns) in zip(figure.subplots(1, 2), panels.items()):
        for column, colour in zip(columns, (ORANGE, BLUE)):
            axis.plot(table.index, table[column], color=colour, label=column)
        axis.axvline(chosen, color="black", lw=1, ls=(0, (3, 3)))
        axis.set(title=title, xlabel="foreground cut, share of the map's maximum", ylim=(0, None))
        axis.legend(loc="lower left")
    return figure
