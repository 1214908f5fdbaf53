import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest

from factories import texts, to_rgb
from wsfcn_lib.plots.charts import chances, class_bars, confusion, curves, cuts
from wsfcn_lib.plots.saving import to_png
from wsfcn_lib.runs.paths import ROOT

PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[:4] = [(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)]
PALETTE[255] = (224, 224, 192)
NAMES = ["background", "cat", "dog", "knight"]
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
    "curves": (lambda: curves(training_log()), 900),
    "start of curves": (lambda: curves(training_log(1, 2).assign(val_loss=np.nan, val_map=np.nan)), 900),
    "confusion": (lambda: confusion(np.diag([9, 0, 3, 1]), NAMES), 450),
    "confusion of COCO": (lambda: confusion(np.eye(81), [f"class {k}" for k in range(81)]), 900),
    "bars": (lambda: class_bars([0.9, None, 0.4, 0.0], NAMES, PALETTE, [0.8, 0.1, None, 1.0], "CRF"), 900),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_figures_have_their_width_and_no_clipped_text(name):
    make, width = FIGURES[name]
    figure = make()
    pixels = to_rgb(figure)
    assert pixels.shape[1] == pytest.approx(width, abs=2)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all(), "something touches the border"
    assert to_rgb(figure, dpi=50).shape[1] == pytest.approx(width / 2, abs=2)


def test_curves_name_losses_groups_and_epochs():
    figure = curves(training_log(epochs=40, steps=2))
    shown = texts(figure)
    assert {"classification", "mask", "validation, total", "epoch", "35"} <= set(shown)
    assert "39" not in shown  # ticks are thinned out
    with pytest.raises(ValueError, match="no rows yet"):
        curves(training_log().iloc[:0])


def frame_of(figure, title):
    return next(axis for axis in figure.axes if axis.get_title("left") == title)


def test_the_loss_of_an_untrained_network_does_not_flatten_the_curves():
    log = training_log()
    losses = frame_of(curves(log), "Losses")
    assert losses.get_ylim()[1] < 1.3 and "beyond" not in " ".join(texts(curves(log)))
    log.loc[log.val_loss.first_valid_index(), "val_loss"] = 40.9
    figure = curves(log)
    assert frame_of(figure, "Losses").get_ylim()[1] < 1.3
    assert any("validation, total (40.9 at the start, beyond the frame)" in text for text in texts(figure))
    log.loc[log.val_loss.last_valid_index(), "val_loss"] = 30.0  # one that grew later is no beginner's
    assert frame_of(curves(log), "Losses").get_ylim()[1] > 30


def test_epochs_begin_where_the_one_before_them_ended():
    log = pd.DataFrame({"epoch": [0, 0, 1, 1, 2], "step": [25, 40, 50, 80, 80], "classification_loss": 1.0})
    log = log.assign(mask_loss=np.nan, val_loss=np.nan, val_map=np.nan, lr_old_weights=1e-3)
    axis = frame_of(curves(log), "Losses")
    assert dict(zip(axis.get_xticks(), (t.get_text() for t in axis.get_xticklabels()))) == {
        0: "0",
        40: "1",
        80: "2",
    }


def test_a_training_that_was_stopped_before_its_first_row_has_curves():
    row = {"epoch": 0, "step": 0, "val_loss": 0.7, "val_map": 0.3}
    empty = dict.fromkeys(["classification_loss", "mask_loss", *RATES])
    figure = curves(pd.DataFrame([row | empty]).astype(float))
    assert [line.get_ydata().tolist() for line in figure.axes[1].lines] == [[0.3]]


def test_equal_learning_rates_share_a_line_so_that_none_hides_another():
    log = training_log()
    log["lr_old_weights"] = log["lr_old_biases"] = np.linspace(1, 0, len(log))
    log["lr_new_weights"] = log["lr_new_biases"] = 2 * log["lr_old_weights"]
    axis = curves(log).axes[2]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["old weights, old biases", "new weights, new biases"] and len(axis.lines) == 2


def test_learning_rates_are_written_as_numbers():
    figure = curves(training_log())
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[2].get_yticklabels()]
    assert labels and all(float(label) >= 0 for label in labels)


def test_confusion_prints_row_percentages():
    figure = confusion([[9, 1, 0, 0], [5, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 7]], NAMES)
    numbers = [text for text in texts(figure) if text.isdigit()]
    assert sorted(numbers, key=int) == ["10", "50", "50", "90", "100"]
    assert "(dog: none)" in texts(figure) and "dog" in texts(figure)


def test_bars_are_ranked_coloured_and_say_absent():
    figure = class_bars([0.5, np.nan, 0.9, 0.1], NAMES, PALETTE)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["dog", "background", "knight", "cat"]
    assert axis.patches[0].get_facecolor()[:3] == pytest.approx(PALETTE[2] / 255)
    assert {"absent", "0.900", "mean 0.500"} <= set(texts(figure))
    assert "with CRF" in texts(class_bars([0.5, 0, 0, 0], NAMES, PALETTE, [0, 0, 0, 1], "with CRF"))


def test_bars_tell_the_number_beside_them_too():
    shown = texts(class_bars([0.9, None, 0.4, 0.0], NAMES, PALETTE, [0.8, 0.1, None, 1.0], "CRF"))
    assert {"0.900 | 0.800", "absent | 0.100", "0.400", "0.000 | 1.000"} <= set(shown)


def test_chances_are_ranked_filled_by_tag_and_marked_by_the_cut():
    figure = chances({"a": np.array([0.1, 0.9, 0.4])}, [(False, True, False)], NAMES, PALETTE, 0.2)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["cat", "knight", "dog"], "best on top"
    assert [bar.get_width() for bar in axis.patches] == [0.1, 0.4, 0.9]
    filled = [bar.get_facecolor()[:3] != (1, 1, 1) for bar in axis.patches]
    assert filled == [False, False, True] and axis.lines[0].get_xdata()[0] == 0.2
    many = chances(
        {"a": np.linspace(0, 1, 80)}, [[False] * 80], ["background", *map(str, range(80))], PALETTE, 0.1
    )
    assert len(many.axes[0].patches) == 12


def test_cuts_have_both_panels_and_the_chosen_cut():
    table = pd.DataFrame(
        {"foreground": [9, 5], "background": [60, 60], "right": [80, 90], "complete": [100, 70]}, [0.3, 0.9]
    )
    figure = cuts(table, 0.6)
    left, right = figure.axes
    assert [line.get_ydata().tolist() for line in left.lines[:2]] == [[9, 5], [60, 60]]
    assert [line.get_ydata().tolist() for line in right.lines[:2]] == [[80, 90], [100, 70]]
    assert left.lines[2].get_xdata()[0] == right.lines[2].get_xdata()[0] == 0.6
    assert {"foreground", "complete"} <= set(texts(figure))


def test_no_pyplot_and_no_style_left_behind():
    before = dict(matplotlib.rcParams)
    assert to_png(confusion(np.eye(4), NAMES)).startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
    code = """
import sys, numpy
from wsfcn_lib.plots.charts import confusion
from wsfcn_lib.plots.saving import to_png
to_png(confusion(numpy.eye(2), "ab"))
print([name for name in ("matplotlib.pyplot", "torch") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
