"""The network and its training as one drawing, with the sizes of tensors as the network computes them.

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
    """Shapes, without the batch, of an image of `crop` pixels and of what a WSFCN makes of it.

    No memory is taken for them.

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
    """Draw WSFCN, from the image to masks, and what it learns from; ValueError for the CAM baseline."""
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

    rows, patches = drawing["rows"], {}
    for name, box in drawing["boxes"].items():
        first, last = box["rows"]
        corner = drawing["columns"][box["column"]], rows[last][1]
        lines = "\n".join(box["lines"]).format_map(words).splitlines()
        patches[name] = FancyBboxPatch(
            corner,
            drawing["width"],
            rows[first][0] - corner[1],
            boxstyle="round,pad=0,rounding_size=5",
            facecolor=drawing["kinds"][box["kind"]],
            edgecolor=GREY,
            lw=0.8,
        )
        axis.add_patch(patches[name])
        _write(axis, *_middle(patches[name]), lines)
    for arrow in drawing["arrows"]:
        start, end = patches[arrow["from"]], patches[arrow["to"]]
        (x_start, y_start), (x_end, y_end) = _middle(start), _middle(end)
        if "rows" in arrow:
            first, last = arrow["rows"]
            y_start = y_end = (rows[first][0] + rows[last][1]) / 2
        style = {"arrowstyle": "-|>", "facecolor": "black", "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
        style |= {"linestyle": arrow.get("style", "solid"), "patchA": start, "patchB": end}
        axis.annotate("", (x_end, y_end), (x_start, y_start), arrowprops=style)
    return figure


def _middle(box: FancyBboxPatch) -> tuple[float, float]:
    return box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2


def _write(axis, x: float, y: float, lines: list[str]) -> None:
    """Lines around (x, y), the first as a title; empty ones are left out, long names folded."""
    lines = [part for line in lines for part in textwrap.wrap(line, 17)]
    y += 6 * (len(lines) - 1)
    for number, line in enumerate(lines):
        font = {"fontsize": 8} if number else {"fontsize": 9.5, "weight": "bold"}
        axis.text(x, y - 12 * number, line, ha="center", va="center", **font)


def _words(config: NetConfig, crop: int) -> dict[str, object]:
    """What stands in the drawing for {name}; an unknown module is drawn by its name and size."""
    shapes = sizes(config, crop)
    words = {name: "×".join(map(str, shape)) for name, shape in shapes.items()}
    words |= {"config": config, "crop": crop, "stride": round(crop / shapes["deep"][-1])}
    words["system"] = "1-stage-wseg" if config.is_ancestor else "WS-FCN"
    words |= {"context_name": config.context.upper(), "fusion_name": config.fusion.upper()}
    words["flow"] = "aligned by flow" if config.fusion == "sf2" and config.align else ""
    kernels = {"fca": FCA.kernels[: config.fca_branches], "aspp": ASPP.kernels}.get(config.context, ())
    branches = {"kernels": kernels, "dilations": config.dilations[: len(kernels)]}
    for name, numbers in branches.items():
        words[name] = f"{name}\n{', '.join(map(str, numbers))}" if numbers else ""
    return words


def to_svg(figure: Figure) -> bytes:
    """A figure as SVG whose letters are outlines, the same bytes every time."""
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "wsfcn", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
