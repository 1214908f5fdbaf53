"""The drawing of the architecture: true sizes, legible words, the same file every time."""

from itertools import combinations
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from wsfcn_lib.config import NetConfig
from wsfcn_lib.network import WSFCN
from wsfcn_lib.plots.architecture import overview, sizes, to_svg

SMALL = {"num_classes": 8, "width": 32, "dilations": (1, 2, 4, 6)}


def test_the_published_sizes():
    assert sizes(NetConfig(), 321) == {
        "image": (3, 321, 321),
        "low": (256, 81, 81),
        "deep": (4096, 41, 41),
        "context": (256, 41, 41),
        "flow": (2, 81, 81),
        "shallow": (256, 81, 81),
        "fused": (256, 81, 81),
        "logits": (21, 81, 81),
        "masks": (21, 81, 81),
        "scores": (20,),
    }


def test_sizes_are_those_of_a_real_image():
    config = NetConfig(backbone="tiny", **SMALL)
    out = WSFCN(config).eval()(torch.zeros(1, 3, 72, 72))
    found = sizes(config, 72)
    assert {name: found[name] for name in out._fields} == {
        name: tuple(part.shape[1:]) for name, part in out._asdict().items()
    }


def words_of(figure):
    """{words: where they stand, in pixels} of a drawing."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer)) for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    "backbone, crop",
    [("resnet38", 321), ("vgg16", 448), ("resnet101", 321), ("mobilenet_v2", 97), ("tiny", 96)],
)
@pytest.mark.parametrize("context, fusion", [("aspp", "gci"), ("fca", "sf2")])
def test_no_words_stand_on_others_or_leave_the_page(backbone, crop, context, fusion):
    config = NetConfig(backbone=backbone, context=context, fusion=fusion)
    figure = overview(config, crop)
    found = words_of(figure)
    for (one, box), (other, place) in combinations(found, 2):
        assert not box.shrunk(0.98, 0.8).overlaps(place.shrunk(0.98, 0.8)), f"{one!r} stands on {other!r}"
    page = figure.bbox
    assert all(
        page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        for _, box in found
    )
    assert any(text == "1-stage-wseg, crops of 448 pixels" for text, _ in found) == (
        crop == 448 and context == "aspp"
    )


def test_what_is_drawn_follows_the_network():
    texts = [
        text.replace("\u2009", "")
        for text, _ in words_of(overview(NetConfig(backbone="tiny", **SMALL), 96, 5))
    ]
    assert {"3×96×96", "64×12×12", "dilations 1, 2, 4, 6", "PAMR × 5", "8×96×96"} <= set(texts)
    assert "FCA" in texts and "SF2" in texts and "ASPP" not in texts


def test_what_an_ablation_leaves_out_is_not_drawn():
    config = NetConfig(backbone="tiny", fca_branches=2, align=False, **SMALL)
    texts = {text for text, _ in words_of(overview(config, 96))}
    assert {
        "kernels 1, 3",
        "dilations 1, 2",
        "enlarge deep",
        "multiply streams",
    } <= texts and "align by a flow" not in texts
    assert "flow" not in sizes(config, 96)


def test_the_baseline_has_no_such_drawing():
    with pytest.raises(ValueError, match="of WSFCN; the CAM baseline"):
        overview(NetConfig(context="none"), 321)


def test_svg_is_whole_and_the_same_each_time():
    first, second = (to_svg(overview(NetConfig(), 321)) for _ in range(2))
    assert first == second and len(first) < 200_000
    assert ElementTree.fromstring(first).tag.endswith("svg")
