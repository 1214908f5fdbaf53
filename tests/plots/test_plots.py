import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from factories import texts, to_rgb
from wsfcn_lib.plots import charts as plots
from wsfcn_lib.plots import overlays as pictures
from wsfcn_lib.plots.overlays import colour_labels, heat, overlay

PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[:4] = [(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)]
PALETTE[255] = (224, 224, 192)
NAMES = ["background", "cat", "dog", "knight"]
IMAGE = np.full((6, 8, 3), 100, np.uint8)
RATES = {"lr_old_weights": 1e-3, "lr_old_biases": 2e-3, "lr_new_weights": 2e-2, "lr_new_biases": 4e-2}


def training_log(epochs=4, steps=6):
    rows = []
    for step in range(epochs * steps):
        epoch = step // steps
        mask = np.nan if epoch < 2 else 1 / (step + 1)
        rows.append(
            {"epoch": epoch, "step": step, "classification_loss": 1 / (step + 1), "mask_loss": mask, **RATES}
        )
        if step % steps == 0:
            rows.append({"epoch": epoch, "step": step, "val_loss": 1.0, "val_map": 0.1 * epoch})
    return pd.DataFrame(rows)


FIGURES = {
    "tile": (lambda: plots.tile([[IMAGE, None], [IMAGE]], ["image", "CAM"], ["one", "two"], {"cat": (200, 0, 0)}), 550),
    "curves": (lambda: plots.curves(training_log()), 900),
    "start of curves": (lambda: plots.curves(training_log(1, 2).assign(val_loss=np.nan, val_map=np.nan)), 900),
    "confusion": (lambda: plots.confusion(np.diag([9, 0, 3, 1]), NAMES), 450),
    "confusion of COCO": (lambda: plots.confusion(np.eye(81), [f"class {k}" for k in range(81)]), 900),
    "bars": (lambda: plots.class_bars([0.9, None, 0.4, 0.0], NAMES, PALETTE, [0.8, 0.1, None, 1.0], "with CRF"), 900),
}  # fmt: skip


def test_label_colours():
    label = np.array([[0, 1, 255], [3, 2, 1]])
    np.testing.assert_array_equal(colour_labels(label, PALETTE), PALETTE[label])
    with pytest.raises(ValueError, match=r"float64 \(2, 3\)"):
        colour_labels(label / 2, PALETTE)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        colour_labels(label, PALETTE[:4])


def test_overlay_leaves_background_and_blends_the_rest():
    label = np.zeros((6, 8), np.uint8)
    label[2, 3], label[0, 0] = 1, 255
    result = overlay(IMAGE, label, PALETTE, opacity=0.25)
    assert result.dtype == np.uint8
    assert result[2, 3].tolist() == [125, 75, 75]
    assert result[0, 0].tolist() == [131, 131, 123]
    assert (result[label == 0] == 100).all()
    np.testing.assert_array_equal(overlay(IMAGE, label, PALETTE, 0), IMAGE)
    np.testing.assert_array_equal(overlay(IMAGE, label, PALETTE, 1)[2, 3], PALETTE[1])
    with pytest.raises(ValueError, match="opacity is 2"):
        overlay(IMAGE, label, PALETTE, 2)
    with pytest.raises(ValueError, match=r"\(6, 8, 3\).*\(5, 8, 3\)"):
        overlay(IMAGE, label[:5], PALETTE)


def test_heat_is_inferno():
    cam = np.linspace(0, 1, 48).reshape(6, 8)
    np.testing.assert_allclose(
        heat(IMAGE, cam, opacity=1), matplotlib.colormaps["inferno"](cam)[..., :3] * 255, atol=12
    )
    brightness = heat(IMAGE, cam).astype(int).sum(axis=-1).ravel()
    assert (np.diff(brightness) >= 0).all() and brightness[-1] > 2 * brightness[0]
    np.testing.assert_array_equal(heat(IMAGE, cam, opacity=0), IMAGE)
    assert pictures.INFERNO.shape == (12, 3)
    for bad in (cam * 3, cam - 1, cam * np.nan):
        with pytest.raises(ValueError, match="divide by its maximum"):
            heat(IMAGE, bad)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_figures_have_their_width_and_no_clipped_text(name):
    make, width = FIGURES[name]
    figure = make()
    pixels = to_rgb(figure)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    assert pixels.shape[1] == pytest.approx(width, abs=2)
    assert plots.to_png(figure).startswith(b"\x89PNG")
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all(), "something touches the border"
    assert to_rgb(figure, dpi=50).shape[1] == pytest.approx(width / 2, abs=2)


def test_panel_shows_the_pictures_and_names():
    red = np.zeros_like(IMAGE) + np.uint8([250, 10, 20])
    figure = plots.tile([[IMAGE, red]], ["image", "CAM"], ["scene 1"], {"cat": (1, 200, 3)})
    pixels = to_rgb(figure).reshape(-1, 3)
    for colour in ((250, 10, 20), (100, 100, 100), (1, 200, 3)):
        assert (pixels == colour).all(axis=1).sum() > 50
    assert {"image", "CAM", "scene 1", "cat"} <= set(texts(figure))
    long = texts(plots.tile([[IMAGE]], row_labels=["aeroplane, telephone, umbrella"]))[0]
    assert long.split() == ["aeroplane,", "telephone,", "umbrella"] and max(map(len, long.splitlines())) <= 21
    for empty in ([], [[]], [[IMAGE], [None]]):
        with pytest.raises(ValueError, match="at least one picture"):
            plots.tile(empty)


def test_curves_name_losses_groups_and_epochs():
    figure = plots.curves(training_log(epochs=40, steps=2))
    shown = texts(figure)
    assert {"classification", "mask", "validation, total", "old weights", "new biases", "epoch", "35"} <= set(
        shown
    )
    assert "39" not in shown  # ticks are thinned out
    with pytest.raises(ValueError, match="no rows yet"):
        plots.curves(training_log().iloc[:0])


def test_confusion_prints_row_percentages():
    figure = plots.confusion([[9, 1, 0, 0], [5, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 7]], NAMES)
    numbers = [text for text in texts(figure) if text.isdigit()]
    assert sorted(numbers, key=int) == ["10", "50", "50", "90", "100"]
    assert "(dog: none)" in texts(figure) and "dog" in texts(figure)


def test_bars_are_ranked_coloured_and_say_absent():
    figure = plots.class_bars([0.5, np.nan, 0.9, 0.1], NAMES, PALETTE)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["dog", "background", "knight", "cat"]
    assert axis.patches[0].get_facecolor()[:3] == pytest.approx(PALETTE[2] / 255)
    assert {"absent", "0.900", "mean 0.500"} <= set(texts(figure))
    assert "with CRF" in texts(plots.class_bars([0.5, 0, 0, 0], NAMES, PALETTE, [0, 0, 0, 1], "with CRF"))


def test_no_pyplot_and_no_style_left_behind():
    before = dict(matplotlib.rcParams)
    plots.to_png(plots.confusion(np.eye(4), NAMES))
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys, numpy; from wsfcn_lib import plots; plots.to_png(plots.confusion(numpy.eye(2), 'ab'));"
    )
    code += "print([name for name in ('matplotlib.pyplot', 'torch') if name in sys.modules])"
    root = Path(plots.__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
