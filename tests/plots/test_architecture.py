"""The drawing of the architecture: true sizes, legible words, the same file every time."""

from itertools import combinations
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch

from wsfcn_lib.config import NetConfig
from wsfcn_lib.network import WSFCN
from wsfcn_lib.plots import architecture
from wsfcn_lib.plots.architecture import overview, sizes, to_svg

SMALL = {"num_classes": 8, "width": 32, "dilations": (1, 2, 4, 6)}


def test_the_published_sizes():
    assert sizes(NetConfig(), 321) == {
        "image": (3, 321, 321),
        "low": (256, 81, 81),
        "deep": (4096, 41, 41),
        "context": (256, 41, 41),
        "shallow": (256, 81, 81),
        "fused": (256, 81, 81),
        "logits": (21, 81, 81),
        "masks": (21, 81, 81),
        "scores": (20,),
    }


def test_sizes_are_those_of_a_real_image():
    config = NetConfig(backbone="tiny", **SMALL)
    out = WSFCN(config).eval()(torch.zeros(1, 3, 72, 72))
    shapes = sizes(config, 72)
    assert {name: shapes[name] for name in out._fields} == {
        name: tuple(part.shape[1:]) for name, part in out._asdict().items()
    }


def drawn(figure):
    """The words, boxes and arrows of a drawing, each as [(what, extent in pixels)]."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    axis = figure.axes[0]
    words = [(text.get_text(), text.get_window_extent(renderer)) for text in axis.texts if text.get_text()]
    boxes = [box.get_window_extent(renderer) for box in axis.patches if isinstance(box, FancyBboxPatch)]
    arrows = [text.arrow_patch.get_window_extent(renderer) for text in axis.texts if not text.get_text()]
    return words, boxes, arrows


def words_of(*arguments):
    return {text for text, _ in drawn(overview(*arguments))[0]}


@pytest.mark.parametrize(
    "backbone, crop",
    [("resnet38", 321), ("vgg16", 448), ("resnet101", 321), ("mobilenet_v2", 97), ("tiny", 96)],
)
@pytest.mark.parametrize("context, fusion", [("aspp", "gci"), ("fca", "sf2")])
def test_no_words_stand_on_others_or_on_lines(backbone, crop, context, fusion):
    figure = overview(NetConfig(backbone=backbone, context=context, fusion=fusion), crop)
    words, boxes, arrows = drawn(figure)
    for (one, place), (other, there) in combinations(words, 2):
        assert not place.shrunk(0.98, 0.8).overlaps(there.shrunk(0.98, 0.8)), f"{one!r} stands on {other!r}"
    for text, place in words:
        assert not any(place.overlaps(arrow) for arrow in arrows), f"an arrow runs through {text!r}"
        for box in boxes:
            inside = box.x0 < place.x0 and place.x1 < box.x1 and box.y0 < place.y0 and place.y1 < box.y1
            assert inside or not box.overlaps(place), f"{text!r} leaves its box"
        assert figure.bbox.x0 <= place.x0 and place.x1 <= figure.bbox.x1, f"{text!r} leaves the page"
    ancestor = "1-stage-wseg" if context == "aspp" else "WS-FCN"
    assert f"{ancestor}, crops of {crop} pixels" in dict(words)


def test_what_is_drawn_follows_the_network():
    words = words_of(NetConfig(backbone="tiny", **SMALL), 96, 5)
    assert {"3×96×96", "64×12×12", "1, 2, 4, 6", "PAMR × 5", "8×96×96", "FCA", "SF2"} <= words
    assert "aligned by flow" in words and "ASPP" not in words


def test_what_an_ablation_leaves_out_is_not_drawn():
    words = words_of(NetConfig(backbone="tiny", fca_branches=2, align=False, **SMALL), 96)
    assert {"1, 3", "1, 2"} <= words and "aligned by flow" not in words


def test_a_new_context_or_fusion_module_is_drawn_by_its_name(monkeypatch):
    """As somebody would add one: a name that the drawing has never heard of, and a module without kernels."""
    config = NetConfig(backbone="tiny", **SMALL).model_copy(update={"context": "new", "fusion": "other"})

    class Changed(WSFCN):
        def __init__(self, config):
            super().__init__(config.model_copy(update={"context": "aspp", "fusion": "gci"}))
            self.context = torch.nn.Conv2d(64, 32, 1)

    monkeypatch.setattr(architecture, "WSFCN", Changed)
    words = words_of(config, 96)
    assert {"NEW", "OTHER", "32×12×12"} <= words and "dilations" not in words


def test_the_baseline_has_no_such_drawing():
    with pytest.raises(ValueError, match="of WSFCN; the CAM baseline"):
        overview(NetConfig(context="none"), 321)


def test_svg_is_whole_and_the_same_each_time():
    first, second = (to_svg(overview(NetConfig(), 321)) for _ in range(2))
    assert first == second and len(first) < 200_000
    assert ElementTree.fromstring(first).tag.endswith("svg")
