"""Figures of notebooks and report: arrays and tables in, `Figure` objects (never pyplot's) out, about 900 pixels wide."""

import functools
import io
import textwrap
import threading
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from wsfcn_lib.pictures import colour_labels, heat, overlay, shares

__all__ = ["class_bars", "colour_labels", "confusion", "curves", "heat", "overlay", "tile", "to_png"]

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#5c6670"  # told apart by all
SQUARES = {"handlelength": 1.1, "handleheight": 1.1}
STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#b8bec4",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9ecef",
    "legend.frameon": False,
    "text.parse_math": False,  # names of classes and files may hold a $
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    **dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), GREY),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size", "ytick.minor.size"), 0),
    **dict.fromkeys(("figure.constrained_layout.w_pad", "figure.constrained_layout.h_pad"), 0.09),
}
FONT, PORTRAIT = (f"{matplotlib.get_data_path()}/{name}" for name in ("fonts/ttf/DejaVuSans.ttf", "sample_data/grace_hopper.jpg"))
# pyplot's state breaks, and rc settings are the process's, when widget callbacks run beside a busy cell: no pyplot, and a lock
_STYLE_LOCK = threading.RLock()


def styled(draw):
    """Decorate a function that draws, so that it does so in STYLE."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs):
        with _STYLE_LOCK, matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


@styled
def to_png(figure: Figure, dpi: int = 100, **told: str) -> bytes:
    """The figure as PNG bytes, `dpi` pixels per inch; `told` stands in the file as text."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata=told)
    return stream.getvalue()


@styled
def tile(
    rows: Sequence[Sequence[np.ndarray | None]], titles: Sequence[str] = (), row_labels: Sequence[str] = (), legend: Mapping = {}
) -> Figure:
    """A panel of RGB pictures (None leaves a gap), with column titles, row labels and a legend {class name: (r, g, b)}."""
    columns = max(map(len, rows), default=0)
    if not columns or not all(any(picture is not None for picture in row) for row in rows):
        raise ValueError("a panel needs at least one picture in every row")
    tall, wide = shares(rows, columns)
    cell = min(2.6, (9 - 0.3 * bool(row_labels)) / sum(wide))
    legend_rows = -(-len(legend) // max(1, int(cell * sum(wide) / 1.2)))  # an entry takes 1.2 inches
    height = sum(tall) * cell + 0.2 * max((t.count("\n") + 1.25 for t in titles), default=0) + 0.24 * legend_rows + 0.1
    figure = Figure((cell * sum(wide) + 0.3 * bool(row_labels), height), layout="compressed")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=tall, width_ratios=wide)
    for r, row in enumerate(rows):
        for c, axis in enumerate(axes[r]):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if c < len(row) and row[c] is not None:
                axis.imshow(row[c])
    size = min((100 * cell * share / max(map(len, [*t.split("\n"), "x"])) for t, share in zip(titles, wide)), default=10.5)
    for axis, title in zip(axes[0], titles, strict=False):  # points: a bold letter is 0.7 wide
        axis.set_title(title, loc="center", fontsize=min(10.5, max(6, size)))
    fits = [11 * cell * aspect for aspect in tall]  # letters, of which an inch takes 11
    folded = [textwrap.wrap(label, max(9, int(fit)), break_long_words=False) or [""] for label, fit in zip(row_labels, fits)]
    size = min((10 * fit / max(map(len, lines)) for lines, fit in zip(folded, fits)), default=9.5)
    for axis, lines in zip(axes[:, 0], folded, strict=False):
        axis.set_ylabel("\n".join(lines), fontsize=min(9.5, max(6, size)))
    if legend:
        patches = [Patch(facecolor=np.array(rgb) / 255, edgecolor=GREY, lw=0.4, label=name) for name, rgb in legend.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=-(-len(patches) // legend_rows), **SQUARES)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    return figure


@styled
def curves(log: pd.DataFrame) -> Figure:
    """A training log over its epochs: losses (faint: each logged step, strong: running mean), tag mAP, learning rates."""
    if log.empty:
        raise ValueError("the log has no rows yet; train for a few steps first")
    figure = Figure((9, 4.2), layout="constrained")
    axes = figure.subplot_mosaic([["loss", "map"], ["loss", "lr"]], width_ratios=(3, 2), sharex=True)
    for column, colour, name in (("classification_loss", BLUE, "classification"), ("mask_loss", ORANGE, "mask")):
        rows = log.dropna(subset=column)
        axes["loss"].plot(rows.step, rows[column], color=colour, alpha=0.22, lw=0.8)
        smooth = rows[column].rolling(max(1, len(rows) // 15), min_periods=1, center=True).mean()
        axes["loss"].plot(rows.step, smooth, color=colour, label=name)
    checks = log.dropna(subset="val_loss")
    axes["loss"].plot(checks.step, checks.val_loss, "o-", color="black", ms=3.5, lw=1, label="validation, total")
    axes["loss"].set(title="Losses", ylim=(min(0, axes["loss"].get_ylim()[0]), None))
    axes["loss"].legend()
    axes["map"].plot(checks.step, checks.val_map, "o-", color=GREEN, ms=3.5)
    axes["map"].set(title="Tags, validation mAP", ylim=(0, 1.03))
    rates = log.filter(regex="^lr").dropna(axis=1, how="all").dropna()
    for column, colour, width in zip(rates, (BLUE, ORANGE, GREEN, PURPLE, GREY), (4, 3, 2, 1, 1)):
        label = column.removeprefix("lr_").replace("_", " ")  # thinner and thinner: equal rates stay visible
        axes["lr"].plot(log.step[rates.index], rates[column], color=colour, lw=width, label=label)
    low, high = np.quantile(rates, (0.1, 1))
    axes["lr"].set(title="Learning rate", yscale="log", ylim=(low / 1.6, high * (high / low + 4) ** 0.6))  # legend on top
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
        axis.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=8.5)
    told, size = [n if r.any() else f"({n}: none)" for n, r in zip(names, matrix, strict=True)], 9.5 if count <= 21 else 4.5
    axis.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axis.set_yticks(range(count), told, fontsize=size)
    axis.set(title="Confusion, % of the true pixels", xlabel="predicted", ylabel="true")
    axis.grid(False)
    axis.spines[:].set_visible(False)
    return figure


@styled
def class_bars(
    iou: np.ndarray, names: Sequence[str], palette: np.ndarray, reference: np.ndarray | None = None, reference_name: str = ""
) -> Figure:
    """IoU per class (K,) as bars in the classes' colours, best first; NaN reads "absent"; `reference` (K,) as ticks."""
    iou = np.asarray(iou, float)
    order = np.argsort(-np.nan_to_num(iou, nan=-1.0), kind="stable")
    figure = Figure((9, 0.9 + 0.27 * len(iou)), layout="constrained")
    axis = figure.subplots()
    axis.barh(range(len(iou)), np.nan_to_num(iou[order]), color=np.asarray(palette)[order] / 255, edgecolor=GREY, lw=0.4)
    other = np.full(len(iou), np.nan) if reference is None else np.asarray(reference, float)
    axis.plot(other[order], range(len(iou)), "|", color="white", ms=16, mew=5)  # a rim, for dark bars
    axis.plot(other[order], range(len(iou)), "|", color="black", ms=13, mew=2, label=reference_name)
    for place, (value, mark) in enumerate(zip(iou[order], other[order], strict=True)):
        text = "absent" if np.isnan(value) else f"{value:.3f}" + f", {reference_name} {mark:.3f}" * bool(mark == mark)
        axis.text(np.nanmax([value, mark, 0]) + 0.012, place, text, va="center", color=GREY)
    axis.axvline(np.nanmean(iou), color=GREY, ls=(0, (3, 3)), lw=1, label=f"mean {np.nanmean(iou):.3f}")
    axis.set_yticks(range(len(iou)), [names[k] for k in order], color="black")
    axis.set(title="IoU per class", ylim=(len(iou) - 0.4, -0.6), xlim=(0, 1.25), xticks=np.linspace(0, 1, 6))
    axis.grid(axis="y", visible=False)
    axis.legend(loc="lower right")
    return figure
