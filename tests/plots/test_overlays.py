import matplotlib
import numpy as np
import pytest

from wsfcn_lib.data.painting import colour_labels, overlay
from wsfcn_lib.plots.overlays import DARKEST, heat

IMAGE = np.full((6, 8, 3), 100, np.uint8)
PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[:4] = [(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)]
PALETTE[255] = (224, 224, 192)


def test_label_colours():
    label = np.array([[0, 1, 255], [3, 2, 1]])
    np.testing.assert_array_equal(colour_labels(label, PALETTE), PALETTE[label])
    with pytest.raises(ValueError, match=r"float64 \(2, 3\)"):
        colour_labels(label / 2, PALETTE)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        colour_labels(label, PALETTE[:4])
    with pytest.raises(ValueError, match=r"0\.\.255"):
        colour_labels(-label, PALETTE)


def test_overlay_leaves_background_and_blends_the_rest_within_outlines():
    label = np.zeros((6, 8), np.uint8)
    label[1:4, 2:5], label[5, 7] = 1, 255
    result = overlay(IMAGE, label, PALETTE, opacity=0.25)
    assert result.dtype == np.uint8
    assert result[2, 3].tolist() == [125, 75, 75], "a light fill"
    assert (result[1, 2:5] == PALETTE[1]).all() and (result[1:4, 4] == PALETTE[1]).all(), "the border in full"
    assert result[5, 7].tolist() == [224, 224, 192]
    outside = np.argwhere((result != 100).any(2) & (label == 0)).tolist()
    rim = [[0, 2], [0, 3], [0, 4], [1, 1], [2, 1], [3, 1], [1, 5], [2, 5], [3, 5], [4, 2], [4, 3], [4, 4]]
    assert sorted(outside) == sorted([*rim, [4, 7], [5, 6]]), "a rim, one pixel wide"
    assert (result[1, 1] == round(0.2 * 100 + 0.8 * 20)).all(), "and dark"
    np.testing.assert_array_equal(overlay(IMAGE, label, PALETTE, 0), IMAGE)
    np.testing.assert_array_equal(overlay(IMAGE, label, PALETTE, 1)[2, 3], PALETTE[1])
    with pytest.raises(ValueError, match="opacity is 2"):
        overlay(IMAGE, label, PALETTE, 2)
    with pytest.raises(ValueError, match=r"\(6, 8, 3\).*\(5, 8, 3\)"):
        overlay(IMAGE, label[:5], PALETTE)


def test_heat_follows_the_map_and_darkens_nothing():
    cam = np.linspace(0, 1, 48).reshape(6, 8)
    inferno = matplotlib.colormaps["inferno"](DARKEST + (1 - DARKEST) * cam)[..., :3] * 255
    expected = (1 - 0.5 * cam[..., None]) * 100 + 0.5 * cam[..., None] * inferno
    np.testing.assert_allclose(heat(IMAGE, cam, opacity=0.5), expected, atol=1)
    assert (heat(IMAGE, cam)[0, 0] == 100).all(), "where the map is 0 the photograph stays"
    np.testing.assert_allclose(heat(IMAGE, cam, 1)[-1, -1], inferno[-1, -1], atol=1)
    brightness = heat(np.zeros_like(IMAGE), cam).astype(int).sum(axis=-1).ravel()
    assert (np.diff(brightness) >= 0).all(), "without colour vision too, more is brighter"
    dark = heat(IMAGE, np.full((6, 8), 0.3)).astype(float).mean()
    assert dark > 0.85 * 100, "a weak map does not dim the photograph"
    np.testing.assert_array_equal(heat(IMAGE, cam, opacity=0), IMAGE)


@pytest.mark.parametrize("change", [lambda cam: cam * 3, lambda cam: cam - 1, lambda cam: cam * np.nan])
def test_maps_outside_0_and_1_are_refused(change):
    with pytest.raises(ValueError, match="divide by its maximum"):
        heat(IMAGE, change(np.linspace(0, 1, 48).reshape(6, 8)))
