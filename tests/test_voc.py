import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsfcn_lib.classes import VOC_CLASSES
from wsfcn_lib.data.glyphs import GLYPH_CLASSES, GlyphSettings, make_glyphs, scene
from wsfcn_lib.data.manifest import DataError, Manifest, read_mask, validate
from wsfcn_lib.data.voc import prepare_voc, voc_base, voc_classes

ROOT = os.environ.get("WSFCN_VOC_ROOT")
ALL = {"train": "train", "val": "val", "test": "test"}


@pytest.fixture
def base(tmp_path) -> Path:
    """A VOC2012 folder: a, b, c in train; b also in trainaug, where its mask shows more; d in val; e in test, unlabelled."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    for name in "abcde":
        Image.new("RGB", (6, 5), (90, 90, 90)).save(base / "JPEGImages" / f"{name}.jpg")
    for folder, name, ids in [
        ("SegmentationClass", "a", [0, 8]),
        ("SegmentationClass", "b", [0, 255, 12]),
        ("SegmentationClass", "c", [0, 255]),
        ("SegmentationClass", "d", [15, 8]),
        ("SegmentationClassAug", "b", [12, 15]),
    ]:
        Image.fromarray(np.resize(np.uint8(ids), (5, 6))).save(base / folder / f"{name}.png")
    for split, names in {"train": "a\nb\nc\n", "trainaug": "b\n", "val": "d\n", "test": "e\n"}.items():
        (base / "ImageSets/Segmentation" / f"{split}.txt").write_text(names)
    return base


def tags_of(manifest: Manifest, split: str) -> dict[str, list[str]]:
    return {s.name: [n for n, t in zip(manifest.names[1:], s.tags, strict=True) if t] for s in manifest.samples(split)}


def test_tags_are_the_classes_of_the_masks(base, tmp_path):
    report = prepare_voc(base, tmp_path / "out", lists=ALL)
    assert tags_of(report.manifest, "train") == {"a": ["cat"], "b": ["dog"]}
    assert tags_of(report.manifest, "val") == {"d": ["cat", "person"]}
    assert report.manifest.samples("test")[0].mask is None
    assert report.untagged == ["c"] and report.missing == []
    assert report.manifest.num_classes == 21 and validate(report.manifest) == []


def test_trainaug_takes_its_masks_from_the_augmented_folder(base, tmp_path):
    report = prepare_voc(base, tmp_path / "out", lists={"train": "trainaug", "val": "val"})
    assert tags_of(report.manifest, "train") == {"b": ["dog", "person"]}
    assert report.manifest.train_masks()["b"].parent.name == "SegmentationClassAug"
    plain = prepare_voc(base, tmp_path / "out", lists={"train": "trainaug"}, train_masks="SegmentationClass")
    assert tags_of(plain.manifest, "train") == {"b": ["dog"]}


def test_missing_files_are_counted_or_refused(base, tmp_path):
    (base / "JPEGImages/a.jpg").unlink()
    (base / "ImageSets/Segmentation/val.txt").write_text("d\nghost\n")
    report = prepare_voc(base, tmp_path / "out")
    assert [line.split(": ")[:2] for line in report.missing] == [["train", "a"], ["val", "ghost"]]
    assert "JPEGImages/a.jpg" in report.missing[0] and "SegmentationClass/ghost.png" in report.missing[1]
    assert set(tags_of(report.manifest, "train")) == {"b"}
    with pytest.raises(DataError, match=r"2 listed images lack files, .*complete the folder or the lists"):
        prepare_voc(base, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict" / "train.csv").exists()


def test_a_foreign_mask_id_names_the_file(base, tmp_path):
    with pytest.raises(DataError, match=r"[ab].png: the mask ids \[(8|12)\] belong to no class"):
        prepare_voc(base, tmp_path / "out", classes=voc_classes(GLYPH_CLASSES))


def test_wrong_places_are_named(base, tmp_path):
    assert voc_base(tmp_path) == voc_base(tmp_path / "VOCdevkit") == voc_base(base) == base
    with pytest.raises(DataError, match="no JPEGImages in .*nowhere.*VOCdevkit"):
        prepare_voc(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match=r"minival.txt is missing; the lists there are \['test', 'train', 'trainaug', 'val'\]"):
        prepare_voc(base, tmp_path / "out", lists={"val": "minival"})
    (base / "ImageSets/Segmentation/train.txt").write_text("c\n")
    with pytest.raises(DataError, match="none of the 1 images of list 'train' can be used"):
        prepare_voc(base, tmp_path / "out")


def test_glyph_scenes_go_through_the_same_door(tmp_path):
    settings = GlyphSettings(size=48, train=5, val=2, test=2)
    make_glyphs(tmp_path / "raw", settings)
    report = prepare_voc(tmp_path / "raw", tmp_path / "prepared", voc_classes(GLYPH_CLASSES), ALL)
    manifest = report.manifest
    assert manifest.names == ("background", *GLYPH_CLASSES)
    assert [len(manifest.samples(split)) for split in manifest.splits] == [5, 2, 2]
    labels = scene(settings, "test", 1)[1]
    sample = manifest.samples("test")[1]
    assert np.array_equal(read_mask(sample.mask, manifest), labels)
    assert sample.tags == tuple(c in labels for c in range(1, manifest.num_classes))
    assert validate(manifest) == []


@pytest.mark.real
@pytest.mark.skipif(not ROOT, reason="WSFCN_VOC_ROOT names no VOC folder")
def test_real_photographs(tmp_path):
    report = prepare_voc(ROOT, tmp_path / "voc")
    assert report.manifest.names[1:] == VOC_CLASSES
    assert report.missing == [] and report.untagged == []
    present = {name for split in ("train", "val") for tags in tags_of(report.manifest, split).values() for name in tags}
    assert {"cat", "dog", "person"} <= present
