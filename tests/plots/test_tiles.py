import numpy as np
import pytest

from factories import texts, to_rgb
from wsfcn_lib.plots.tiles import tile

IMAGE = np.full((6, 8, 3), 100, np.uint8)
TALL = np.full((16, 8, 3), 50, np.uint8)


def test_panel_shows_the_pictures_and_names():
    red = np.zeros_like(IMAGE) + np.uint8([250, 10, 20])
    figure = tile([[IMAGE, red]], ["image", "CAM"], ["scene 1"], {"cat": (1, 200, 3)})
    pixels = to_rgb(figure).reshape(-1, 3)
    for colour in ((250, 10, 20), (100, 100, 100), (1, 200, 3)):
        assert (pixels == colour).all(axis=1).sum() > 50
    assert {"image", "CAM", "scene 1", "cat"} <= set(texts(figure))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "rows, titles, labels, legend",
    [
        ([[IMAGE, None], [IMAGE]], ["image", "CAM"], ["one", "two"], {"cat": (200, 0, 0)}),
        ([[IMAGE] * 7], ["a long title of a picture"] * 7, [], {}),
        ([[IMAGE, TALL, None]], ["two\nlines", "b"], [], {f"class {k}": (k, k, k) for k in range(30)}),
        ([[IMAGE, IMAGE], [TALL, TALL]], [], ["a long label of a low row", "tall"], {}),
    ],
)
def test_nothing_is_clipped_or_wider_than_a_page(rows, titles, labels, legend):
    pixels = to_rgb(tile(rows, titles, labels, legend))
    assert pixels.shape[1] <= 902
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all(), "something touches the border"


@pytest.mark.parametrize("rows", [[[IMAGE, TALL]], [[IMAGE, IMAGE], [TALL, TALL]]])
def test_pictures_of_unlike_shapes_fill_their_cells(rows):
    pixels = to_rgb(tile(rows))
    assert (pixels.min(axis=-1) < 255).mean() > 0.85


def test_long_labels_are_folded_between_words():
    (label,) = texts(tile([[IMAGE]], row_labels=["aeroplane, telephone, umbrella"]))
    assert label.split() == ["aeroplane,", "telephone,", "umbrella"]
    assert max(map(len, label.splitlines())) <= 21


@pytest.mark.parametrize("rows", [[], [[]], [[IMAGE], [None]]])
def test_a_row_needs_a_picture(rows):
    with pytest.raises(ValueError, match="at least one picture"):
        tile(rows)
