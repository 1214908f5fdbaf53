"""The network and its training as one drawing, with the size of each tensor as the network itself computes it."""

import io

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from wsfcn_lib.config import NetConfig
from wsfcn_lib.modules import ASPP, FCA
from wsfcn_lib.network import WSFCN

INK, SOFT, THIN = "#212529", "#5c6670", "\u2009"
GIVEN, OLD, NEW, TAUGHT, LOSS = (
    "#f1f3f5",
    "#d3e5f3",
    "#fde2d1",
    "#d5efe5",
    "#efdcee",
)  # fills; told apart by their places too
BACKBONES = {"resnet38": "ResNet38", "vgg16": "VGG16", "resnet50": "ResNet50", "resnet101": "ResNet101"}
BACKBONES |= {"mobilenet_v2": "MobileNetV2", "tiny": "tiny net"}


@torch.no_grad()
def sizes(config: NetConfig, crop: int) -> dict[str, tuple[int, ...]]:
    """Shapes without the batch of an image of `crop` pixels, and of what a WSFCN makes of it; no memory is taken for them.

    Keys: image, low, deep, context, shallow, fused, logits, masks, scores; with SF2 that aligns also flow.
    """
    with torch.device("meta"):
        net, image = WSFCN(config).eval(), torch.empty(1, 3, crop, crop)
    found, parts = (
        {"image": image},
        {"backbone": ("low", "deep"), "context": ("context",), "fusion": ("shallow", "fused")},
    )
    for name, keys in parts.items():

        def keep(module, inputs, output, keys=keys):
            found.update(zip(keys, (output,) if len(keys) == 1 else output))

        getattr(net, name).register_forward_hook(keep)
    if config.fusion == "sf2" and config.align:
        net.fusion.align.flow.register_forward_hook(lambda module, inputs, output: found.update(flow=output))
    found |= net(image)._asdict()
    return {name: tuple(tensor.shape[1:]) for name, tensor in found.items()}


class _Sheet:
    """A white page of 900 x 500 pixels in units of ten; boxes, arrows and words on it."""

    def __init__(self):
        self.figure = Figure((9, 5), facecolor="white")
        self.axis = self.figure.add_axes((0, 0, 1, 1), xlim=(0, 90), ylim=(0, 50))
        self.axis.set_axis_off()

    def box(self, x, y, width, height, colour, title, *lines):
        """A rounded box with a bold title and lines below it, from its lower left corner."""
        style = {"boxstyle": "round,pad=0,rounding_size=0.7", "fc": colour, "ec": SOFT, "lw": 0.8}
        self.axis.add_patch(FancyBboxPatch((x, y), width, height, **style))
        top = y + height / 2 + 0.8 * len(lines)
        self.words(x + width / 2, top, title, weight="bold", size=10)
        for row, line in enumerate(lines, start=1):
            self.words(x + width / 2, top - 1.7 * row, line, size=8.5)

    def arrow(self, *places, taught=False):
        """A line through places (x, y) with a head at its end; dashed where no gradient flows back."""
        for start, end in zip(places, places[1:]):
            head = "-|>" if end is places[-1] else "-"
            style = {
                "arrowstyle": head,
                "mutation_scale": 10,
                "shrinkA": 0,
                "shrinkB": 0,
                "color": INK,
                "lw": 1.2,
            }
            self.axis.add_patch(FancyArrowPatch(start, end, ls=(0, (3, 2)) if taught else "-", **style))

    def words(self, x, y, text, ha="center", size=9, **style):
        """Words around (x, y)."""
        self.axis.text(x, y, text, ha=ha, va="center", fontsize=size, color=style.pop("color", INK), **style)


def overview(config: NetConfig, crop: int, pamr_iterations: int = 10) -> Figure:
    """Draw WSFCN: above from the image to masks, below what it learns from; ValueError for the CAM baseline."""
    if config.context == "none":
        raise ValueError(
            "the drawing is of WSFCN; the CAM baseline (context 'none') is a backbone and one linear layer"
        )
    shapes, classes = sizes(config, crop), config.num_classes
    size = {name: f"{THIN}×{THIN}".join(map(str, shape)) for name, shape in shapes.items()}
    sheet = _Sheet()
    sheet.axis.add_patch(Rectangle((0.7, 2.7), 88.6, 20.3, fc="#fafbfc", ec="#ced4da", lw=0.8))
    _network(sheet, config, size, round(crop / shapes["deep"][-1]))
    _training(sheet, size, f"{THIN}×{THIN}".join(map(str, (classes, crop, crop))), pamr_iterations)
    sheet.words(
        1.4,
        48.6,
        f"{'1-stage-wseg' if config.is_ancestor else 'WS-FCN'}, crops of {crop} pixels",
        "left",
        11,
        weight="bold",
    )
    for x, colour, name in (
        (53.5, OLD, "backbone"),
        (62.9, NEW, "decoder"),
        (71.5, TAUGHT, "not learnt"),
        (81.2, LOSS, "loss"),
    ):
        sheet.axis.add_patch(Rectangle((x, 47.9), 1.4, 1.4, fc=colour, ec=SOFT, lw=0.6))
        sheet.words(x + 2, 48.6, name, "left", color=SOFT)
    told = f"sizes: channels × height × width; {classes} = background and {classes - 1} classes; dashed: no gradient flows back"
    sheet.words(1.4, 1.2, told, "left", 8, color=SOFT)
    return sheet.figure


def _network(sheet, config, size, stride):
    kernels = {"fca": FCA.kernels[: config.fca_branches], "aspp": ASPP.kernels}[config.context]
    rows = {"kernels ": kernels, "dilations ": config.dilations[: len(kernels)]}
    context = (*(word + ", ".join(map(str, numbers)) for word, numbers in rows.items()), "and image pool")
    fusion = (
        ("align by a flow", size["flow"], "multiply streams")
        if "flow" in size
        else ("enlarge deep", "multiply streams")
    )
    fusion = ("concatenate", "inject cues") if config.fusion == "gci" else fusion
    sheet.box(1.4, 32.5, 10, 8, GIVEN, "image", size["image"])
    sheet.box(13.6, 27, 10.8, 18.5, OLD, BACKBONES[config.backbone], f"strides 4 and {stride}")
    sheet.box(35, 27, 15.6, 9, NEW, config.context.upper(), *context)
    sheet.box(60.6, 27, 11.4, 18.5, NEW, config.fusion.upper(), *fusion)
    sheet.box(82, 36.5, 7, 9, NEW, "gate", "mixes")
    sheet.box(82, 27, 7, 6.5, NEW, "head", "3 convs")
    for x, end, y in (
        (11.4, 13.6, 36.5),
        (24.4, 60.6, 41.5),
        (24.4, 35, 31),
        (50.6, 60.6, 31),
        (72, 82, 43.3),
        (72, 82, 38.7),
    ):
        sheet.arrow((x, y), (end, y))
    sheet.arrow((85.5, 36.5), (85.5, 33.5))
    for x, y, name, key in (
        (42.5, 41.5, "low", "low"),
        (29.6, 31, "deep", "deep"),
        (76.7, 43.3, "shallow", "shallow"),
    ):
        sheet.words(x, y + 1.2, name, weight="bold")
        sheet.words(x, y - 1.3, size[key])
    sheet.words(76.7, 39.8, "deep", weight="bold")
    sheet.words(76.7, 37.4, size["fused"])
    sheet.words(55.5, 32.3, size["context"])


def _training(sheet, size, large, iterations):
    sheet.words(1.6, 21.5, "what it learns from", "left", weight="bold", color=SOFT)
    sheet.box(77, 4.5, 11, 15, NEW, "masks", "softmax", size["masks"])
    sheet.arrow((85.5, 27), (85.5, 19.5))
    sheet.words(84.9, 25, f"logits {size['logits']}, background always 1", "right")
    sheet.box(58, 13.8, 12.5, 6, NEW, "image scores", size["scores"])
    sheet.box(58, 4.5, 12.5, 6, TAUGHT, f"PAMR × {iterations}", "by image colours")
    sheet.box(35, 4.5, 13, 6, TAUGHT, "pseudo label", "of tagged classes")
    sheet.box(12.5, 13.8, 12, 6, LOSS, "tag loss", "classification")
    sheet.box(12.5, 4.5, 12, 6, LOSS, "mask loss", "after warm-up")
    sheet.box(1.8, 13.8, 7, 6, GIVEN, "tags", size["scores"])
    sheet.arrow((77, 16.8), (70.5, 16.8))
    sheet.arrow((58, 16.8), (24.5, 16.8))
    sheet.arrow((8.8, 16.8), (12.5, 16.8))
    for x, end in ((77, 70.5), (58, 48), (35, 24.5)):
        sheet.arrow((x, 7.5), (end, 7.5), taught=True)
    sheet.arrow((77, 12.1), (18.5, 12.1), (18.5, 10.5))
    sheet.words(52.8, 13.1, "logits")
    sheet.words(53, 8.7, size["masks"], size=8.5)
    sheet.words(29.75, 8.7, large, size=8.5)


def to_svg(figure: Figure) -> bytes:
    """A figure as SVG whose letters are outlines, the same bytes every time."""
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "wsfcn", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
