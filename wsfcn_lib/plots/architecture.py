"""The network and its training as one drawing, with the size of each tensor as the network itself computes it.

architecture.yaml lists the boxes, words and arrows of the drawing.
"""

import io
import textwrap
from pathlib import Path

import matplotlib
import torch
import yaml
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from wsfcn_lib.config import NetConfig
from wsfcn_lib.modules import ASPP, FCA
from wsfcn_lib.network import WSFCN
from wsfcn_lib.plots.style import GREY, SQUARES, styled


@torch.no_grad()
def sizes(config: NetConfig, crop: int) -> dict[str, tuple[int, ...]]:
    """Shapes without the batch of an image of `crop` pixels, and of what a WSFCN makes of it; no memory is taken for them.

    Keys: image, low, deep, context, shallow, fused, logits, masks, scores.
    """
    with torch.device("meta"):
        net = WSFCN(config).eval()
        image = torch.empty(1, 3, crop, crop)
    low, deep = net.backbone(image)
    context = net.context(net.deep_adapter(deep))
    shallow, fused = net.fusion(net.low_adapter(low), context)
    tensors = {
        "image": image,
        "low": low,
        "deep": deep,
        "context": context,
        "shallow": shallow,
        "fused": fused,
    }
    tensors |= net(image)._asdict()
    return {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()}


@styled
def overview(config: NetConfig, crop: int, pamr_iterations: int = 10) -> Figure:
    """Draw WSFCN: above from the image to masks, below what it learns from; ValueError for the CAM baseline."""
    if config.context == "none":
        raise ValueError(
            "the drawing is of WSFCN; the CAM baseline (context 'none') is a backbone and one linear layer"
        )
    drawing = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    words = _words(config, crop) | {"iterations": pamr_iterations}
    figure = Figure((9, 5))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 648), ylim=(0, 360))
    axis.set_axis_off()
    axis.axhspan(20, 160, 0.006, 0.994, facecolor="#fafbfc", edgecolor="#ced4da", lw=0.8)
    for text in drawing["texts"]:
        axis.text(**text | {"s": text["s"].format_map(words)}, va="center")
    kinds = [Patch(facecolor=fill, edgecolor=GREY, label=kind) for kind, fill in drawing["kinds"].items()]
    axis.legend(handles=kinds, loc="upper right", ncols=len(kinds), labelcolor=GREY, borderpad=0, **SQUARES)

    rows, columns = drawing["rows"], drawing["columns"]
    for box in drawing["boxes"].values():
        box["left"] = columns["left"] + columns["pitch"] * box["column"]
        box["right"] = box["left"] + columns["width"]
        first, last = box["rows"]
        lines = [line.format_map(words) for line in box["lines"]]
        _draw_box(axis, box, rows[first][0], rows[last][1], lines, drawing["kinds"][box["kind"]])
    for arrow in drawing["arrows"]:
        start, end = drawing["boxes"][arrow["from"]], drawing["boxes"][arrow["to"]]
        first, last = arrow["rows"]
        middle = (rows[first][0] + rows[last][1]) / 2
        if start["column"] == end["column"]:
            x = (start["left"] + start["right"]) / 2
            ends = (x, rows[first][1]), (x, rows[last][0])
        elif start["column"] < end["column"]:
            ends = (start["right"], middle), (end["left"], middle)
        else:
            ends = (start["left"], middle), (end["right"], middle)
        style = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "linestyle": arrow.get("style", "solid")}
        axis.annotate("", ends[1], ends[0], arrowprops=style | {"facecolor": "black", "lw": 1.2})
    return figure


def _words(config: NetConfig, crop: int) -> dict[str, str | int]:
    """What stands in the drawing for {name}; a module without branches of kernels is drawn by its name and size."""
    shapes = sizes(config, crop)
    words = {name: "×".join(map(str, shape)) for name, shape in shapes.items()}
    words |= {"system": "1-stage-wseg" if config.is_ancestor else "WS-FCN", "crop": crop}
    words |= {"classes": config.num_classes, "others": config.num_classes - 1}
    words |= {"backbone": config.backbone, "stride": round(crop / shapes["deep"][-1])}
    words |= {"context_name": config.context.upper(), "fusion_name": config.fusion.upper()}
    kernels = {"fca": FCA.kernels[: config.fca_branches], "aspp": ASPP.kernels}.get(config.context, ())
    branches = {"kernels": kernels, "dilations": config.dilations[: len(kernels)]}
    for name, numbers in branches.items():
        words[name] = f"{name}\n{', '.join(map(str, numbers))}" if numbers else ""
    words["flow"] = "aligned by flow" if config.fusion == "sf2" and config.align else ""
    words["pseudo_label"] = f"{config.num_classes}×{crop}×{crop}"
    return words


def _draw_box(axis, box: dict, top: float, bottom: float, lines: list[str], fill: str) -> None:
    """A rounded box with a bold title and the other lines below it; long names are folded."""
    lines = [part for line in "\n".join(lines).splitlines() for part in textwrap.wrap(line, 17)]
    style = {"boxstyle": "round,pad=0,rounding_size=5", "facecolor": fill, "edgecolor": GREY, "lw": 0.8}
    axis.add_patch(FancyBboxPatch((box["left"], bottom), box["right"] - box["left"], top - bottom, **style))
    middle = (box["left"] + box["right"]) / 2
    for number, line in enumerate(lines):
        y = (top + bottom) / 2 + 6 * (len(lines) - 1) - 12 * number
        font = {"fontsize": 8} if number else {"fontsize": 9.5, "weight": "bold"}
        axis.text(middle, y, line, ha="center", va="center", **font)


def to_svg(figure: Figure) -> bytes:
    """A figure as SVG whose letters are outlines, the same bytes every time."""
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "wsfcn", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
