"""What `images` may name: splits, lists and folders, in order, with what the manifest knows of them."""

from pathlib import Path

import pytest
from PIL import Image

from wsfcn_lib.data.manifest import ClassInfo, DataError, Sample, write_manifest
from wsfcn_lib.subjects import label_of, manifest_of, samples_of

CLASSES = tuple(ClassInfo(name=n, mask_id=i, colour=(i, 0, 9)) for n, i in (("cat", 8), ("dog", 12)))


@pytest.fixture
def manifest(tmp_path):
    """Train a (with mask) and b (without), val c (with mask); test a once more, from its train list, without its mask."""
    for name in "abc":
        Image.new("RGB", (6, 5)).save(tmp_path / f"{name}.jpg")
        Image.new("L", (6, 5)).save(tmp_path / f"{name}.png")
    a, b, c = (Sample(n, tmp_path / f"{n}.jpg", (n != "b", n == "b"), tmp_path / f"{n}.png") for n in "abc")
    splits = {"train": [a, Sample("b", b.image, b.tags)], "val": [c], "test": [Sample("a", a.image, a.tags)]}
    return write_manifest(tmp_path / "prepared", CLASSES, splits)


def found(samples):
    return [(s.name, s.image.name, s.tags, s.mask and s.mask.name) for s in samples]


def test_splits_come_with_their_masks(manifest):
    train = [("a", "a.jpg", (True, False), "a.png"), ("b", "b.jpg", (False, True), None)]
    assert found(samples_of("train", manifest)) == train
    assert found(samples_of("val", manifest)) == [("c", "c.jpg", (True, False), "c.png")]


def test_a_list_keeps_its_order_and_gets_what_any_split_knows(manifest, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "dev.txt").write_text("c\n\nb\r\n a \n")
    listed = [("c", "c.jpg", (True, False), "c.png"), ("b", "b.jpg", (False, True), None), ("a", "a.jpg", (True, False), "a.png")]
    assert found(samples_of("lists/dev.txt", manifest, tmp_path)) == listed
    assert found(samples_of(str(tmp_path / "lists" / "dev.txt"), manifest)) == listed


def test_the_home_folder_is_understood(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "dev.txt").write_text("c\n")
    assert found(samples_of("~/dev.txt", manifest)) == found(samples_of("val", manifest)) and label_of("~") == tmp_path.name


def test_wrong_names_in_a_list(manifest, tmp_path):
    (tmp_path / "dev.txt").write_text("a\nx\nc\ny\n")
    with pytest.raises(DataError, match=r"dev\.txt: 2 of its 4 names are unknown, first 'x'; name images of .*prepared"):
        samples_of("dev.txt", manifest, tmp_path)
    (tmp_path / "other").mkdir()
    Image.new("RGB", (6, 5)).save(tmp_path / "other" / "c.jpg")
    train = Sample("c", tmp_path / "other" / "c.jpg", (True, False))
    (tmp_path / "dev.txt").write_text("c\n")
    double = write_manifest(tmp_path / "double", CLASSES, {"train": [train], "val": manifest.samples("val")})
    with pytest.raises(DataError, match="'c' stands for two pictures of .*double; rename one of them"):
        samples_of("dev.txt", double, tmp_path)


def test_a_folder_is_its_pictures_in_order(manifest, tmp_path):
    holiday = tmp_path / "holiday.2020"
    (holiday / "more.jpg").mkdir(parents=True)
    for name in ("dog.JPG", "cat.tif", "b.c.webp", "._cat.jpg", "notes.txt", "more.jpg/x.jpg"):
        (holiday / name).write_bytes(b"not opened here")
    nothing = (False, False), None
    pictures = [("b.c", "b.c.webp", *nothing), ("cat", "cat.tif", *nothing), ("dog", "dog.JPG", *nothing)]
    assert found(samples_of("holiday.2020", manifest, tmp_path)) == pictures
    assert found(samples_of(f"{holiday}/", manifest)) == pictures
    assert found(samples_of("holiday.2020/dog.JPG", manifest, tmp_path)) == pictures[2:]
    (holiday / "dog.png").touch()
    with pytest.raises(DataError, match=r"dog\.JPG and dog\.png would share one mask file; rename one"):
        samples_of(str(holiday), manifest)


def test_nothing_to_look_at(manifest, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: there is no picture in this folder; known endings are \.jpg, "):
        samples_of("empty", manifest, tmp_path)
    with pytest.raises(
        DataError, match=r"images='vla' is no split \(train, val, test\), and no list or folder lies at .*vla; correct"
    ):
        samples_of("vla", manifest, tmp_path)
    with pytest.raises(DataError, match="no list of 'val'"):
        samples_of("val", manifest_of([info.model_dump() for info in CLASSES], tmp_path))


def test_labels_are_clean_and_never_those_of_another_split(tmp_path):
    images = ("val", "data/splits/dev.txt", "/home/me/holiday/", "lists/val.txt", "~/pictures/../cats")
    assert [label_of(name) for name in images] == ["val", "dev", "holiday", "lists_val", "cats"]
    assert label_of(".", tmp_path / "here") == "here"


def test_a_manifest_without_lists():
    bare = manifest_of([info.model_dump() for info in CLASSES])
    assert bare.names == ("background", "cat", "dog") and bare.classes == CLASSES and bare.splits == ()
    assert bare.folder.is_absolute() and isinstance(bare.folder, Path)
