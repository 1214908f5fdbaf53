import hashlib
import json
from functools import cache

import numpy as np
import pytest
from PIL import Image

from wsfcn_lib.data.classes import voc_palette
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.glyphs import GLYPH_CLASSES, GlyphSettings, make_glyphs, scene, stencils
from wsfcn_lib.data.manifest import SPLITS
from wsfcn_lib.runs.settings import SettingsError

K = 1 + len(GLYPH_CLASSES)
UNUSUAL = {"size": 49, "seed": 3, "class_hue": 0.2, "repeat": 0.9, "tilt": 180, "contrast": 0.7}
UNUSUAL |= {"patches": 2, "relief": 0.2, "visible": 0.9}
SMALL = GlyphSettings(size=48, train=6, val=3, test=2)


@cache
def scenes(split: str, count: int, **changes) -> tuple[np.ndarray, np.ndarray]:
    settings = GlyphSettings(**changes)
    pairs = [scene(settings, split, index) for index in range(count)]
    return np.stack([image for image, _ in pairs]) / np.float32(255), np.stack(
        [labels for _, labels in pairs]
    )


@pytest.fixture(scope="module")
def fitted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Validation images, labels, and squared distances of pixels to each class's mean colour in training."""
    (train, known), (images, labels) = scenes("train", 80), scenes("val", 40)
    means = np.stack([train[known == c].mean(0) for c in range(K)])
    return images, labels, ((images[..., None, :] - means) ** 2).sum(-1)


def mean_iou(predicted: np.ndarray, labels: np.ndarray) -> float:
    table = np.bincount((labels.astype(int) * K + predicted).ravel(), minlength=K * K).reshape(K, K)
    return float(np.mean(np.diag(table) / (table.sum(0) + table.sum(1) - np.diag(table))))


def box_mean(maps: np.ndarray, radius: int) -> np.ndarray:
    for axis in (1, 2):
        pad = [(0, 0)] * maps.ndim
        pad[axis] = (radius + 1, radius)
        sums = np.pad(maps, pad, mode="edge").cumsum(axis)
        width, size = 2 * radius + 1, maps.shape[axis]
        maps = (np.take(sums, range(width, width + size), axis) - np.take(sums, range(size), axis)) / width
    return maps


def test_colour_alone_does_not_solve_it(fitted):
    _, labels, distance = fitted
    assert 1 / K / 4 < mean_iou(distance.argmin(-1), labels) < 0.35


def test_texture_energy_with_the_true_tags_does_not_solve_it(fitted):
    images, labels, distance = fitted
    tagged = np.stack([np.isin(np.arange(K), truth) for truth in labels])
    tagged[:, 0] = False
    nearest_tag = np.where(tagged[:, None, None], distance, np.inf).argmin(-1)
    assert (
        mean_iou(np.where(labels > 0, nearest_tag, 0), labels) > 0.6
    )  # the labelling is strong, given the true regions
    slopes = sum(np.gradient(images, axis=axis) ** 2 for axis in (1, 2)).sum(-1)
    scores = []
    for radius in (2, 5, 8):
        variance = (box_mean(images**2, radius) - box_mean(images, radius) ** 2).sum(-1)
        for energy in (box_mean(np.sqrt(slopes), radius), variance):
            cuts = np.quantile(energy, np.linspace(0.05, 0.95, 13))
            scores += [
                mean_iou(np.where(energy > cut, nearest_tag, 0), labels) for cut in cuts
            ]  # the best cut is picked
    assert 0.15 < max(scores) < 0.5


def test_colour_is_informative_in_part():
    def hits(class_hue: float) -> float:
        train, known = scenes("train", 50, size=48, class_hue=class_hue)
        images, labels = scenes("val", 20, size=48, class_hue=class_hue)
        means = np.stack([train[known == c].mean(0) for c in range(1, K)])
        chosen = 1 + ((images[labels > 0][:, None] - means) ** 2).sum(-1).argmin(-1)
        return float((chosen == labels[labels > 0]).mean())

    never, default, always = hits(0), hits(GlyphSettings().class_hue), hits(1)
    assert never < 0.3 < default < always


def test_a_scene_depends_on_seed_split_and_index_alone():
    image, labels = scene(SMALL, "val", 3)
    scene(SMALL, "val", 4)
    again, labels_again = scene(SMALL, "val", 3)
    assert np.array_equal(image, again) and np.array_equal(labels, labels_again)
    others = [scene(SMALL, "test", 3), scene(SMALL, "train", 3), scene(SMALL, "val", 4)]
    others.append(scene(SMALL.model_copy(update={"seed": 1}), "val", 3))
    assert not any(np.array_equal(image, other) for other, _ in others)
    assert image.shape == (48, 48, 3) and image.dtype == labels.dtype == np.uint8


@pytest.mark.parametrize(
    "settings, digest",
    [
        ({}, "6298110be7c5a072cf483b8baafe7f2c1e45cdabd8119e4575893fb031e7f89c"),
        (UNUSUAL, "d827b869a42ae203fc048432884684a47783a40d5e9ea529ea14dd38a53c06a4"),
    ],
    ids=["default", "unusual"],
)
def test_the_scenes_are_those_of_the_committed_results(settings, digest):
    """To the last bit, with the pinned NumPy and Pillow."""
    drawn = hashlib.sha256()
    for split in SPLITS:
        for index in range(6):
            image, labels = scene(GlyphSettings(**settings), split, index)
            drawn.update(image.tobytes() + labels.tobytes())
    assert drawn.hexdigest() == digest


def test_scenes_hold_one_to_three_large_objects_of_all_classes():
    _, labels = scenes("train", 80)
    present = np.stack([np.isin(np.arange(1, K), truth) for truth in labels])
    per_image = present.sum(1)
    assert per_image.min() == 1 and per_image.max() == 3
    assert present.mean(0).min() > 0.15
    smallest = min((truth == c).mean() for truth in labels for c in np.unique(truth))
    assert smallest > 0.01
    assert 0.6 < (labels == 0).mean() < 0.9


def test_objects_touch_and_hide_each_other_but_stay_visible():
    _, labels = scenes("val", 40)
    foreground = [truth for truth in labels if len(np.unique(truth)) > 2]
    touching = 0
    for truth in foreground:
        left, right = truth[:, :-1], truth[:, 1:]
        touching += bool(((left != right) & (left > 0) & (right > 0)).any())
    assert 0.2 < touching / len(foreground)


def test_stencils_are_solid_and_differ():
    solid = [np.asarray(silhouette) > 127 for silhouette, _ in stencils()]
    assert len(solid) == len(GLYPH_CLASSES) and 6 <= len(solid) <= 8
    for i, one in enumerate(solid):
        assert one.mean() > 0.2, GLYPH_CLASSES[i]
        assert (one & ~(np.asarray(stencils()[i][1]) > 127)).mean() < 0.2
        for other in solid[:i]:
            assert (one & other).sum() / (one | other).sum() < 0.8


def test_the_set_has_the_voc_layout_and_its_masks_are_the_scenes(tmp_path):
    assert make_glyphs(tmp_path, SMALL) == 11
    base = tmp_path / "VOCdevkit" / "VOC2012"
    lists = {split: (base / f"ImageSets/Segmentation/{split}.txt").read_text().split() for split in SPLITS}
    assert [len(names) for names in lists.values()] == [6, 3, 2]
    assert len({name for names in lists.values() for name in names}) == 11
    mask = Image.open(base / "SegmentationClass/val_00002.png")
    image, labels = scene(SMALL, "val", 2)
    assert mask.mode == "P" and np.array_equal(np.asarray(mask), labels)
    assert mask.getpalette()[: 3 * K] == voc_palette()[: 3 * K]
    decoded = np.asarray(Image.open(base / "JPEGImages/val_00002.jpg")).astype(int)
    assert np.abs(decoded - image).mean() < 8


def test_a_complete_set_is_kept_and_a_broken_one_completed(tmp_path):
    make_glyphs(tmp_path, SMALL)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in files if path.suffix == ".jpg"}
    assert make_glyphs(tmp_path, SMALL) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}
    for name in ("JPEGImages/train_00004.jpg", "SegmentationClass/val_00000.png"):
        (tmp_path / "VOCdevkit/VOC2012" / name).unlink()
    assert make_glyphs(tmp_path, SMALL) == 2
    assert files == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_set_of_other_settings_is_left_alone(tmp_path):
    make_glyphs(tmp_path, SMALL)
    with pytest.raises(DataError, match=r"seed 0 there, 5 asked.*another folder"):
        make_glyphs(tmp_path, SMALL.model_copy(update={"seed": 5}))
    assert json.loads((tmp_path / "glyphs.json").read_text())["seed"] == 0


def test_unknown_and_impossible_settings_are_refused():
    for wrong in ({"sise": 96}, {"size": 8}, {"class_hue": 1.2}, {"visible": 0.1}, {"train": -1}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            GlyphSettings(**wrong)


def test_a_missing_font_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="DejaVuSans.ttf.*install matplotlib"):
        stencils.__wrapped__()
