"""Figures of an ablation: what they say, their width, and that nothing is clipped."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from factories import texts, to_rgb
from wsfcn_lib.plots.ablation import ablation, growth

SIDES = ["low", "high", "images_low", "images_high"]


def variants(seeds):
    return pd.DataFrame(
        [
            {"variant": name, "seed": s, "mean_iou": x + s / 50}
            for x, name in ((0.4, "ASPP"), (0.6, "FCA"))
            for s in range(seeds)
        ]
    )


def effects(**sides):
    table = pd.DataFrame(
        {
            "change": ["FCA instead of ASPP", "FCA's gain with SF2 less its gain with GCI"],
            "points": [3.0, -1.0],
        }
    )
    return table.assign(**{side: np.nan for side in SIDES} | sides)


EPOCHS = pd.DataFrame(
    {
        "epoch": [1, 2, 4],
        "cam": [0.2, 0.3, 0.4],
        "prediction": [0.1, 0.3, 0.5],
        "pseudo_coverage": [1, 1, 0.9],
    }
)
KNOWN = dict(zip(SIDES, (1.0, 5.0, 2.0, 4.0)))
FIGURES = {
    "one seed": lambda: ablation(variants(1)),
    "seeds and recipes": lambda: ablation(variants(3).assign(mean_iou_crf=0.5)),
    "costs and effects": lambda: ablation(
        variants(3).assign(cost="0.39 M, 1.2 GFLOP, 120 ms a step, 81 MB"), effects(**KNOWN)
    ),
    "growth": lambda: growth(EPOCHS),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_figures_have_their_width_and_no_clipped_text(name):
    pixels = to_rgb(FIGURES[name]())
    assert pixels.shape[1] == pytest.approx(900, abs=2)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all(), "something touches the border"


def test_means_seeds_and_costs_are_shown():
    assert {"ASPP", "FCA", "0.400", "0.600"} <= set(texts(ablation(variants(1))))
    figure = ablation(variants(3).assign(cost=["a"] * 3 + ["b"] * 3))
    assert {"0.420", "0.620", "ASPP\na", "FCA\nb"} <= set(texts(figure)) and any(
        "3 seeds" in text for text in texts(figure)
    )
    with pytest.raises(ValueError, match=r"\['variant', 'score'\].*mean_iou"):
        ablation(pd.DataFrame({"variant": ["a"], "score": [1]}))


def lines(figure):
    return [c for c in figure.axes[1].collections if isinstance(c, matplotlib.collections.LineCollection)]


def test_only_known_intervals_are_drawn_and_named():
    both, images, none = (
        ablation(variants(1), effects(**given))
        for given in (KNOWN, dict(images_low=2.0, images_high=4.0), {})
    )
    assert [len(lines(figure)) for figure in (both, images, none)] == [2, 1, 0]
    assert {"95 % over seeds", "95 % over images"} <= set(texts(both)) and "95 % over seeds" not in texts(
        images
    )
    assert [segment[:, 0].tolist() for segment in lines(both)[0].get_segments()] == [[1, 5], [1, 5]]
    assert [segment[:, 0].tolist() for segment in lines(both)[1].get_segments()] == [[2, 4], [2, 4]]


def test_growth_has_a_line_for_each_kind():
    figure = growth(EPOCHS)
    assert {"CAM", "prediction"} <= set(texts(figure)) and figure.axes[0].get_xticks().tolist() == [1, 2, 4]
    assert figure.axes[0].lines[1].get_ydata().tolist() == pytest.approx([10, 30, 50])
    with pytest.raises(ValueError, match="snapshot_every"):
        growth(EPOCHS.iloc[:0])
