"""The one door: each kind of source becomes a manifest, and what a user owns is only read."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import PERSON, SIGN, annotate, box, make_sbd, make_voc, picture, table
from factories import mask as drawn
from wsfcn_lib.data import preparation as door
from wsfcn_lib.data.classes import VOC_CLASSES
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.glyphs import GLYPH_CLASSES, GlyphSettings
from wsfcn_lib.data.images import read_mask
from wsfcn_lib.data.manifest import Manifest, validate
from wsfcn_lib.data.preparation import SourceSettings, leave_out, prepare
from wsfcn_lib.runs.settings import SettingsError


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No VOC folder of this machine, and no download that a test did not ask for."""
    monkeypatch.delenv("WSFCN_VOC_ROOT", raising=False)
    for name in ("download_voc", "download_sbd", "download_coco"):
        monkeypatch.setattr(door, name, lambda raw, name=name: pytest.fail(f"{name} was called"))


@pytest.fixture
def voc(tmp_path) -> Path:
    """VOC and SBD side by side in tmp_path/own; see test_sbd."""
    make_sbd(tmp_path / "own/benchmark_RELEASE/dataset")
    return make_voc(tmp_path / "own/VOCdevkit/VOC2012")


@pytest.fixture
def plain(tmp_path):
    """VOC's own train and val, without SBD."""
    make_voc(tmp_path / "own/VOCdevkit/VOC2012")
    return voc_settings(tmp_path, lists={"train": "train", "val": "val"})


def voc_settings(tmp_path, **given):
    return SourceSettings(
        dataset="voc", **{"root": str(tmp_path / "own"), "raw": str(tmp_path / "raw"), "processes": 1} | given
    )


def changed(settings, **given):
    return SourceSettings(**{name: getattr(settings, name) for name in SourceSettings.model_fields} | given)


def tags_of(manifest, split):
    return {
        s.name: [n for n, t in zip(manifest.names[1:], s.tags, strict=True) if t]
        for s in manifest.samples(split)
    }


def state(folder):
    return {
        path: (path.is_file() and path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def pictures(folder):
    return {path: what for path, what in state(folder).items() if path.suffix in (".jpg", ".png")}


def test_settings_are_checked_and_keep_no_path_of_the_machine():
    recorded = SourceSettings(dataset="voc", root="/mine", sbd_root="/mine", processes=9).model_dump()
    assert not recorded.keys() & {"root", "sbd_root", "processes"} and recorded["max_side"] == 0
    for wrong in (
        {"max_side": -1},
        {"tags": "points"},
        {"val_fraction": 1},
        {"ids": {"dev": "x.txt"}},
        {"datset": "voc"},
    ):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            SourceSettings(**wrong)


def test_scenes(tmp_path):
    glyphs = GlyphSettings(size=48, train=4, val=2, test=0)
    settings = SourceSettings(raw=str(tmp_path / "raw"), glyphs=glyphs)
    report = prepare(settings, tmp_path / "out")
    manifest = report.manifest
    assert (
        manifest.names[1:] == GLYPH_CLASSES
        and manifest.splits == ("train", "val")
        and len(manifest.samples("train")) == 4
    )
    assert report.missing == report.untagged == [] and report.notes == [
        "6 scenes drawn now, the others were there"
    ]
    before = pictures(tmp_path / "raw")
    assert (
        prepare(settings, tmp_path / "out").notes[0].startswith("0 scenes drawn now")
        and pictures(tmp_path / "raw") == before
    )
    assert validate(manifest) == [] and len(manifest.train_masks()) == 4


def test_voc_and_sbd(voc, tmp_path):
    """The published list from the archives as they come: set rule, masks converted, photographs of both."""
    before = state(tmp_path / "own")
    report = prepare(voc_settings(tmp_path, root=str(voc)), tmp_path / "out")
    manifest = report.manifest
    assert manifest.names[1:] == VOC_CLASSES and validate(manifest) == []
    assert tags_of(manifest, "train") == {
        "a": ["cat"],
        "b": ["dog"],
        "s1": ["dog"],
        "s2": ["person", "tvmonitor"],
        "s3": ["car"],
    }
    assert tags_of(manifest, "val") == {"d": ["cat", "person"]} and report.missing == report.untagged == []
    assert "list trainaug holds 5 of VOC 2012's 10582 images" in report.notes
    masks = {path.resolve().parent for path in manifest.train_masks().values()}
    assert masks == {tmp_path / "raw/augmented/SegmentationClassAug"}
    made = pictures(tmp_path / "raw")
    assert prepare(voc_settings(tmp_path, root=str(voc)), tmp_path / "out").manifest == manifest
    assert len(made) == 5 and pictures(tmp_path / "raw") == made, "nothing is converted twice"
    assert state(tmp_path / "own") == before, "and what the user owns is only read"


@pytest.mark.parametrize("place", ["own", "own/VOCdevkit", "own/VOCdevkit/VOC2012"])
def test_sbd_is_found_beside_voc(voc, tmp_path, place):
    report = prepare(voc_settings(tmp_path, root=str(tmp_path / place)), tmp_path / "out")
    assert len(report.manifest.samples("train")) == 5


def test_sbd_may_lie_elsewhere_or_nowhere(voc, tmp_path):
    elsewhere = tmp_path / "far/away/sbd"
    elsewhere.parent.mkdir(parents=True)
    (tmp_path / "own/benchmark_RELEASE/dataset").rename(elsewhere)
    with pytest.raises(
        DataError, match="trainaug.txt is missing; .* or add the file; SBD's folder gives this one"
    ):
        prepare(voc_settings(tmp_path), tmp_path / "out")
    report = prepare(voc_settings(tmp_path, sbd_root=str(elsewhere)), tmp_path / "out")
    assert len(report.manifest.samples("train")) == 5
    with pytest.raises(DataError, match="no cls with train.txt and val.txt in .*absent"):
        prepare(voc_settings(tmp_path, sbd_root=str(tmp_path / "absent")), tmp_path / "out")


def test_a_bad_mask_of_sbd_is_told_and_counted(voc, tmp_path):
    (tmp_path / "own/benchmark_RELEASE/dataset/cls/s2.mat").write_bytes(b"no mat")
    report = prepare(voc_settings(tmp_path), tmp_path / "out")
    assert "s2" not in tags_of(report.manifest, "train")
    assert [line.split(": ")[:2] for line in report.missing] == [["train", "s2"]]
    assert any(note.startswith("s2: ") and "get it again, or go without it" in note for note in report.notes)


def test_masks_and_list_of_the_user_go_before_sbd(voc, tmp_path):
    (voc / "SegmentationClassAug").mkdir()
    shutil.copy(voc / "SegmentationClass/a.png", voc / "SegmentationClassAug/s1.png")
    (voc / "ImageSets/Segmentation/trainaug.txt").write_text("s1\n")
    before = state(tmp_path / "own")
    report = prepare(voc_settings(tmp_path), tmp_path / "out")
    assert tags_of(report.manifest, "train") == {"s1": ["cat"]}
    assert "VOC's trainaug lacks 4 names of the set rule and has 0 others" in report.notes
    assert not (tmp_path / "raw").exists() and state(tmp_path / "own") == before


def test_augmented_masks_without_their_list(voc, tmp_path, monkeypatch):
    """A common download: SegmentationClassAug with all masks, val's too, without trainaug.txt and SBD."""
    shutil.rmtree(tmp_path / "own/benchmark_RELEASE")
    (voc / "SegmentationClassAug").mkdir()
    for name in ("b", "d", "s1"):
        shutil.copy(voc / "SegmentationClass/b.png", voc / f"SegmentationClassAug/{name}.png")
    for settings in (
        voc_settings(tmp_path),
        voc_settings(tmp_path, root="", raw=str(tmp_path / "own"), download=True),
    ):
        monkeypatch.setattr(door, "download_voc", lambda raw: raw)
        report = prepare(settings, tmp_path / "out")
        assert (
            tags_of(report.manifest, "train") == {"a": ["cat"], "b": ["dog"], "s1": ["dog"]}
            and report.missing == []
        )
        assert (
            "no trainaug.txt: its names are those of SegmentationClassAug, "
            "without VOC's val, with VOC's train" in report.notes
        )
        assert "list trainaug holds 3 of VOC 2012's 10582 images" in report.notes
    folders = {name: path.resolve().parent.name for name, path in report.manifest.train_masks().items()}
    assert folders == {"a": "SegmentationClass", "b": "SegmentationClassAug", "s1": "SegmentationClassAug"}
    make_sbd(tmp_path / "own/benchmark_RELEASE/dataset")
    report = prepare(voc_settings(tmp_path), tmp_path / "out")
    assert list(tags_of(report.manifest, "train")) == ["a", "b", "s1"] and not (tmp_path / "raw").exists()
    assert "VOC's trainaug lacks 2 names of the set rule and has 0 others" in report.notes


def test_where_voc_is_looked_for(plain, tmp_path, monkeypatch):
    other = make_voc(tmp_path / "other")
    Image.new("RGB", (6, 5)).save(other / "JPEGImages/e.jpg")
    shutil.copy(other / "SegmentationClass/a.png", other / "SegmentationClass/e.png")
    (other / "ImageSets/Segmentation/train.txt").write_text("e\n")
    monkeypatch.setenv("WSFCN_VOC_ROOT", str(tmp_path / "other"))
    names = [
        list(tags_of(prepare(changed(plain, root=root), tmp_path / "out").manifest, "train"))
        for root in (plain.root, "")
    ]
    assert names == [["b", "a"], ["e"]], "`root` goes first"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WSFCN_VOC_ROOT", "~/own")
    assert len(prepare(changed(plain, root=""), tmp_path / "out").manifest.samples("train")) == 2
    monkeypatch.delenv("WSFCN_VOC_ROOT")
    with pytest.raises(DataError, match=f"no JPEGImages in {tmp_path}/raw"):
        prepare(changed(plain, root=""), tmp_path / "out")
    assert len(prepare(changed(plain, root="", raw="~/own"), tmp_path / "out").manifest.samples("train")) == 2


def test_downloads_are_asked_for(voc, tmp_path, monkeypatch):
    calls = []

    def fetched(what, place):
        def fetch(raw):
            calls.append((what, raw))
            return place

        monkeypatch.setattr(door, f"download_{what}", fetch)

    fetched("voc", tmp_path / "own")
    fetched("sbd", tmp_path / "far")
    settings = voc_settings(tmp_path, root="", raw=str(tmp_path / "a/b/raw"), download=True)
    prepare(settings, tmp_path / "out")
    assert calls == [("voc", tmp_path / "a/b/raw")], "SBD lies there: it is not fetched"
    (tmp_path / "own/benchmark_RELEASE/dataset").rename(tmp_path / "far")
    prepare(settings, tmp_path / "out")
    assert [what for what, _ in calls] == ["voc", "voc", "sbd"]
    prepare(changed(settings, root=str(voc)), tmp_path / "out")
    assert [what for what, _ in calls] == ["voc", "voc", "sbd", "sbd"], "what is named is not fetched"
    prepare(changed(settings, lists={"train": "train", "val": "val"}), tmp_path / "out")
    assert [what for what, _ in calls][4:] == ["voc"], "only trainaug needs SBD"


def test_voc_tests_and_boxes(plain, tmp_path):
    base = tmp_path / "own/VOCdevkit/VOC2012"
    Image.new("RGB", (6, 5)).save(base / "JPEGImages/t.jpg")
    (base / "ImageSets/Segmentation/test.txt").write_text("t\n")
    manifest = prepare(changed(plain, lists=plain.lists | {"test": "test"}), tmp_path / "out").manifest
    assert manifest.splits == ("train", "val", "test") and manifest.samples("test")[0].mask is None
    assert prepare(plain, tmp_path / "out").manifest.splits == ("train", "val"), "older lists go"
    (base / "Annotations").mkdir()
    for name in "abd":
        cow = "<object><name>cow</name><difficult>1</difficult></object>"
        text = f"<annotation>{cow}<object><name>dog</name></object></annotation>"
        (base / f"Annotations/{name}.xml").write_text(text)
    boxes = changed(plain, tags="boxes")
    assert tags_of(prepare(boxes, tmp_path / "out").manifest, "train") == {"b": ["dog"], "a": ["dog"]}
    assert tags_of(prepare(changed(boxes, difficult=True), tmp_path / "out").manifest, "val") == {
        "d": ["cow", "dog"]
    }
    folder = changed(plain, lists={"train": "val", "val": "train"}, masks="Other")
    shutil.copytree(base / "SegmentationClass", base / "Other")
    masks = prepare(folder, tmp_path / "out").manifest.train_masks()
    assert masks["d"].parent.name == "Other"


def test_what_is_missing_is_counted_or_refused(plain, tmp_path):
    base = tmp_path / "own/VOCdevkit/VOC2012"
    (base / "JPEGImages/a.jpg").unlink()
    report = prepare(plain, tmp_path / "out")
    assert [line.split(": ")[:2] for line in report.missing] == [["train", "a"]]
    with pytest.raises(
        DataError,
        match=r"1 listed images lack a file or cannot be read, first \['train: a: .*complete them, take",
    ):
        prepare(changed(plain, strict=True), tmp_path / "strict")
    assert not list((tmp_path / "strict").glob("*.csv"))
    shutil.copy(base / "JPEGImages/b.jpg", base / "JPEGImages/a.jpg")
    prepare(changed(plain, strict=True), tmp_path / "strict")


def test_strict_refuses_what_cannot_be_copied_too(plain, tmp_path):
    path = tmp_path / "own/VOCdevkit/VOC2012/JPEGImages/a.jpg"
    path.write_bytes(path.read_bytes()[:200])
    report = prepare(changed(plain, max_side=4), tmp_path / "out")
    assert (
        report.missing[0].startswith(f"train: a: {path}: not a readable picture") and len(report.missing) == 1
    )
    with pytest.raises(DataError, match="1 listed images lack a file or cannot be read"):
        prepare(changed(plain, max_side=4, strict=True), tmp_path / "strict")


def test_nothing_left_is_refused(plain, tmp_path):
    with pytest.raises(
        DataError, match=r"voc: no image of train is left \(train: 2 images show other .*\): choose other"
    ):
        prepare(changed(plain, classes=("person",)), tmp_path / "out")
    for name in "ab":
        (tmp_path / f"own/VOCdevkit/VOC2012/JPEGImages/{name}.jpg").write_bytes(b"torn")
    with pytest.raises(
        DataError, match=r"voc: no image of train is left \(train: b: .*not a readable picture.*choose other"
    ):
        prepare(changed(plain, max_side=4), tmp_path / "out")
    assert not (tmp_path / "out/train.csv").exists()


def test_classes_lists_and_size_together(voc, tmp_path):
    """As VOC-animals: a part of both lists, two of twenty classes, shrunk copies, masks of these alone."""
    lists = {split: tmp_path / f"{split}.txt" for split in ("train", "val", "test")}
    for path, names in zip(lists.values(), ("s1\na\nghost\n", "b\n", "d\n")):
        path.write_text(names)
    settings = voc_settings(
        tmp_path,
        lists={"train": "trainaug", "val": "trainaug", "test": "val"},
        ids={split: str(path) for split, path in lists.items()},
        classes=("dog", "cat"),
        max_side=3,
    )
    before = state(tmp_path / "own")
    report = prepare(settings, tmp_path / "out")
    manifest = report.manifest
    assert [(c.name, c.mask_id) for c in manifest.classes] == [("cat", 8), ("dog", 12)] and validate(
        manifest
    ) == []
    assert tags_of(manifest, "train") == {"a": ["cat"], "s1": ["dog"]}
    assert tags_of(manifest, "val") == {"b": ["dog"]} and tags_of(manifest, "test") == {"d": ["cat"]}
    assert report.missing == ["train: ghost: in the list train.txt, not in the source"]
    sample = manifest.samples("test")[0]
    assert Image.open(sample.image).size == Image.open(sample.mask).size == (3, 2)
    assert sample.image.parent == tmp_path / "out/images"
    assert set(np.unique(read_mask(sample.mask, manifest))) <= {0, 1}, "the person in it is background"
    assert state(tmp_path / "own") == before
    made = pictures(tmp_path / "out")
    assert prepare(settings, tmp_path / "out").manifest.checksums() == manifest.checksums()
    assert len(made) == 8 and pictures(tmp_path / "out") == made


def test_classes_alone_leave_pictures_where_they_are(plain, tmp_path):
    manifest = prepare(changed(plain, classes=("cat", "dog")), tmp_path / "out").manifest
    assert manifest.samples("train")[0].image.resolve() == tmp_path / "own/VOCdevkit/VOC2012/JPEGImages/b.jpg"
    assert [path.name for path in (tmp_path / "out/masks").iterdir()] == ["d.png"], (
        "the only one that shows something else"
    )
    assert validate(manifest) == []


def test_coco(tmp_path, monkeypatch):
    root = tmp_path / "own"
    annotate(root, "train", {9: [box(PERSON, 2, 3, 8, 9)], 25: [box(SIGN, 0, 0, 4, 4)], 30: []})
    annotate(root, "val", {42: [box(PERSON, 1, 2, 5, 6)]})
    before = state(root)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = SourceSettings(dataset="coco", root="~/own", raw="~/raw")
    report = prepare(settings, tmp_path / "out")
    assert tags_of(report.manifest, "train") == {
        "COCO_train2014_000000000009": ["person"],
        "COCO_train2014_000000000025": ["stop sign"],
    }
    assert (
        len(report.untagged) == 1
        and len(report.manifest.samples("val")) == 1
        and validate(report.manifest) == []
    )
    assert state(root) == before and [path.name for path in (tmp_path / "raw/masks/val").rglob("*.png")] == [
        "COCO_val2014_000000000042.png"
    ]
    root.rename(tmp_path / "raw/coco")
    assert prepare(changed(settings, root="", raw="~/raw/coco"), tmp_path / "out").manifest == report.manifest
    monkeypatch.setattr(door, "download_coco", lambda raw: tmp_path / "raw/coco")
    assert prepare(changed(settings, root="", download=True), tmp_path / "out").manifest == report.manifest


def test_pictures_of_two_splits_that_are_called_alike_are_copied_apart(tmp_path):
    root = tmp_path / "own"
    for split, folder, category in (("train", "train", PERSON), ("val", "valid", SIGN)):
        path = annotate(root, split, {1: [box(category, 2, 3, 8, 9)]})
        (root / folder).mkdir()
        Image.new("RGB", (30, 20), (40, 90, 90 + category)).save(root / folder / "1.png")
        text = path.read_text().replace(f"COCO_{split}2014_{1:012d}.jpg", "1.png")
        (root / folder / "_annotations.coco.json").write_text(text)
    shutil.rmtree(root / "annotations")
    settings = SourceSettings(dataset="coco", root=str(root), raw=str(tmp_path / "raw"), max_side=15)
    manifest = prepare(settings, tmp_path / "out").manifest
    assert validate(manifest) == []
    for split, category, shown in (("train", PERSON, 1), ("val", SIGN, 2)):
        (sample,) = manifest.masked_samples(split)
        assert sample.image.resolve() == tmp_path / "out" / split / "images/1.jpg"
        assert read_mask(sample.mask, manifest).max() == shown
        with Image.open(sample.image) as picture:
            assert abs(picture.getpixel((0, 0))[2] - 90 - category) <= 2


def test_masks_of_voc_that_differ_from_its_boxes_can_be_moved_away_as_it_says(plain, tmp_path):
    base = tmp_path / "own/VOCdevkit/VOC2012"
    names = [path.stem for path in (base / "SegmentationClass").iterdir()]
    (base / "Annotations").mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(np.full((5, 6), 3, np.uint8)).save(base / f"SegmentationClass/{name}.png")
        text = "<annotation><object><name>sheep</name></object></annotation>"
        (base / f"Annotations/{name}.xml").write_text(text)
    settings = changed(plain, tags="boxes")
    with pytest.raises(
        DataError, match="masks contradict their picture's tags.*have in labelmap.txt, or move"
    ):
        prepare(settings, tmp_path / "out")
    for folder in base.glob("SegmentationClass*"):
        folder.rename(tmp_path / folder.name)
    manifest = prepare(settings, tmp_path / "out").manifest
    assert list(tags_of(manifest, "val").values()) == [["sheep"]]
    assert manifest.masked_samples("val")[0].mask is None and validate(manifest) == []


@pytest.fixture
def holiday(tmp_path):
    """Settings for a folder of pictures, two of which are called a; b and c have masks."""
    lines = ["one/a.jpg,cat", "two/a.png,dog", "three/e.jpg,dog", "f.jpg,cat", "b.jpg,cat;dog", "c.jpg,cat"]
    root = table(tmp_path / "own", *lines)
    drawn(root / "masks/b.png", [0, 1, 2])
    drawn(root / "masks/c.png", [1])
    return SourceSettings(dataset="folder", root=str(root))


def test_a_folder(holiday, tmp_path):
    before = state(tmp_path / "own")
    report = prepare(holiday, tmp_path / "out")
    manifest = report.manifest
    assert manifest.names == ("background", "cat", "dog") and validate(manifest) == []
    assert tags_of(manifest, "train") == {
        "one__a_jpg": ["cat"],
        "two__a_png": ["dog"],
        "e": ["dog"],
        "f": ["cat"],
    }
    assert tags_of(manifest, "val") == {"b": ["cat", "dog"], "c": ["cat"]}
    assert "the 2 pictures with masks measure, the 4 without train" in report.notes
    for name, own in (("one__a_jpg.jpg", "one/a.jpg"), ("two__a_png.png", "two/a.png")):
        assert (tmp_path / "out/images" / name).read_bytes() == (tmp_path / "own" / own).read_bytes()
    assert len(list((tmp_path / "out/images").iterdir())) == 2, "the others are used where they are"
    assert state(tmp_path / "own") == before
    fractions = changed(holiday, val_fraction=0.3, test_fraction=0.3, max_side=4)
    assert prepare(fractions, tmp_path / "more").manifest.splits == ("train", "val", "test")


def test_a_folder_must_be_named(tmp_path):
    with pytest.raises(DataError, match="dataset='folder' needs `root`, the folder with your pictures"):
        prepare(SourceSettings(dataset="folder"), tmp_path / "out")


def test_nothing_is_written_among_the_pictures(holiday, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "own")
    before, small = state(tmp_path / "own"), changed(holiday, max_side=4)
    for place in ("own", "link", "own/one", "own/new/one", "link/new", "own/masks"):
        with pytest.raises(
            DataError, match=r"lies among the pictures of .*own, where nothing is written: name another"
        ):
            prepare(small, tmp_path / place)
    assert state(tmp_path / "own") == before
    inside = changed(holiday, root=str(tmp_path / "home/images"), max_side=4)
    shutil.copytree(tmp_path / "own", tmp_path / "home/images")
    with pytest.raises(
        DataError, match="home/images is where copies go, and the source's own pictures lie there"
    ):
        prepare(inside, tmp_path / "home")


def test_the_manifest_of_voc_may_lie_below_its_root(plain, tmp_path):
    assert prepare(plain, tmp_path / "own/prepared").manifest.splits == ("train", "val"), (
        "its lists say what a picture is"
    )


def test_without_val_it_says_what_to_write(holiday, plain, tmp_path):
    with pytest.raises(
        DataError,
        match=r"no image of val is left \(the source has none\): .*name a list for it, or raise val_f",
    ):
        prepare(changed(plain, lists={"train": "train"}), tmp_path / "out")
    root = table(tmp_path / "mine", "a.jpg,cat,", "b.jpg,dog,test", header="image,tags,split")
    mine = changed(holiday, root=str(root))
    with pytest.raises(
        DataError,
        match="no image of val is left .*where tags.csv has a column split, write val at some pictures",
    ):
        prepare(mine, tmp_path / "out")
    table(root, "a.jpg,cat,", "b.jpg,dog,val", header="image,tags,split")
    (root / "b.jpg").unlink()
    with pytest.raises(
        DataError,
        match=r"folder: no image of val is left \(val: b: .*b.jpg\): choose other classes or images",
    ):
        prepare(mine, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_data_set_is_not_replaced(holiday, plain, tmp_path):
    first = prepare(holiday, tmp_path / "out").manifest
    before = state(tmp_path / "out")
    with pytest.raises(
        DataError, match=r"out holds another data set \(cat, dog\): name another folder as `data`, or move"
    ):
        prepare(changed(plain, root=str(tmp_path / "own/VOCdevkit")), tmp_path / "out")
    assert state(tmp_path / "out") == before
    (tmp_path / "out/train.csv").unlink()
    assert prepare(holiday, tmp_path / "out").manifest.checksums() == first.checksums(), (
        "what was removed is written again"
    )
    (tmp_path / "out/classes.json").write_text('[{"name": "cat"}]')
    with pytest.raises(DataError, match=r"(?s)classes.json must be a list of .*; correct this: .*mask_id"):
        prepare(holiday, tmp_path / "out")


def test_bad_files_are_left_out(holiday, tmp_path):
    manifest = prepare(holiday, tmp_path / "out").manifest
    torn = tmp_path / "own/f.jpg"
    torn.write_bytes(torn.read_bytes()[:150])
    drawn(tmp_path / "own/masks/b.png", [9])
    faults = validate(manifest)
    assert len(faults) == 2
    left = leave_out(manifest, faults, holiday)
    assert list(tags_of(left, "train")) == ["one__a_jpg", "two__a_png", "e"] and list(
        tags_of(left, "val")
    ) == ["c"]
    assert left.samples("val")[0].mask.name == "c.png" and validate(Manifest.load(tmp_path / "out")) == []
    assert leave_out(left, [], holiday).checksums() == left.checksums()


def test_lists_edited_by_hand_are_kept_and_told(holiday, tmp_path):
    """Prepared, cleaned of a bad picture, edited: running again writes anew, with the edits beside it."""
    report = prepare(holiday, tmp_path / "out")
    whole, torn = report.manifest.checksums(), tmp_path / "own/f.jpg"
    assert not any("was another list" in note for note in report.notes)
    content = torn.read_bytes()
    torn.write_bytes(content[:150])
    leave_out(report.manifest, validate(report.manifest), holiday)
    torn.write_bytes(content)
    val = tmp_path / "out/val.csv"
    edited = val.read_text().replace("c.jpg,cat,", "c.jpg,cat;dog,")
    val.write_text(edited)
    for _ in range(2):
        again = prepare(holiday, tmp_path / "out")
        assert again.manifest.checksums() == whole
    assert not any("was another list" in note for note in again.notes), "the second time nothing differs"
    kept = [path.read_text() for path in (tmp_path / "out").glob("val.csv.before-*")]
    assert kept == [edited]


def test_training_masks_stay_with_those_that_are_left(plain, tmp_path):
    manifest = prepare(plain, tmp_path / "out").manifest
    base = tmp_path / "own/VOCdevkit/VOC2012"
    Image.new("L", (7, 7)).save(base / "SegmentationClass/a.png")
    left = leave_out(manifest, validate(manifest), plain)
    assert list(tags_of(left, "train")) == ["b"] and list(left.train_masks()) == ["b"]


@pytest.fixture
def half_masked(tmp_path):
    """A folder with a, b and f for training: the mask of a is torn, that of b of another size, f has none."""
    lines = ["a.jpg,cat,train", "b.jpg,dog,train", "f.jpg,cat,train", "c.jpg,cat,val", "d.jpg,dog,val"]
    root = table(tmp_path / "own", *lines, header="image,tags,split")
    for name in "abcd":
        drawn(root / f"masks/{name}.png", [1])
    Image.new("L", (7, 7)).save(root / "masks/b.png")
    (root / "masks/a.png").write_bytes((root / "masks/a.png").read_bytes()[:40])
    return SourceSettings(dataset="folder", root=str(root))


def test_a_bad_training_mask_costs_the_mask_only(half_masked, tmp_path):
    manifest = prepare(half_masked, tmp_path / "out").manifest
    drawn(tmp_path / "own/masks/d.png", [9])
    faults = validate(manifest)
    assert len(faults) == 3
    left = leave_out(manifest, faults, half_masked)
    assert tags_of(left, "train") == {"a": ["cat"], "b": ["dog"], "f": ["cat"]} and left.train_masks() == {}
    assert list(tags_of(left, "val")) == ["c"] and validate(left) == []
    (tmp_path / "own/b.jpg").write_bytes(b"torn")
    faults = [line for line in validate(manifest) if "/b." in line]
    assert list(tags_of(leave_out(manifest, validate(manifest), half_masked), "train")) == ["a", "f"], (
        "its picture is bad too"
    )


def test_a_bad_training_mask_does_not_stop_the_copy_of_its_picture(half_masked, tmp_path):
    report = prepare(changed(half_masked, max_side=4), tmp_path / "out")
    assert tags_of(report.manifest, "train") == {"a": ["cat"], "b": ["dog"], "f": ["cat"]}
    assert report.manifest.train_masks() == {}
    masks = tmp_path / "own/masks"
    assert len(report.missing) == 2 and report.missing[0].startswith(
        f"train: a: {masks / 'a.png'}: not a readable"
    )
    assert report.missing[1].startswith(f"train: b: {masks / 'b.png'}: the mask is (7, 7), its image ")
    assert all(line.endswith("; it trains without this mask") for line in report.missing)
    with pytest.raises(DataError, match="2 listed images lack a file or cannot be read"):
        prepare(changed(half_masked, max_side=4, strict=True), tmp_path / "strict")


def test_tags_of_boxes_survive_their_mask(plain, tmp_path):
    base = tmp_path / "own/VOCdevkit/VOC2012"
    (base / "Annotations").mkdir()
    for name in "abd":
        (base / f"Annotations/{name}.xml").write_text(
            "<annotation><object><name>dog</name></object></annotation>"
        )
    Image.new("L", (7, 7)).save(base / "SegmentationClass/a.png")
    boxes = changed(plain, tags="boxes")
    manifest = prepare(boxes, tmp_path / "out").manifest
    left = leave_out(manifest, validate(manifest), boxes)
    assert tags_of(left, "train") == {"b": ["dog"], "a": ["dog"]} and list(left.train_masks()) == ["b"]


def test_leave_out_refuses_what_it_cannot_mend(plain, tmp_path):
    manifest = prepare(changed(plain, lists={"train": "train", "val": "train"}), tmp_path / "out").manifest
    faults = validate(manifest)
    assert len(faults) == 2 and "listed in both" in faults[0]
    before = state(tmp_path / "out")
    with pytest.raises(
        DataError, match="2 faults are for you to mend, the first: .*listed in both train.csv and val.csv"
    ):
        leave_out(manifest, faults, plain)
    assert state(tmp_path / "out") == before
    for name in "ab":
        picture(tmp_path / f"own/VOCdevkit/VOC2012/JPEGImages/{name}.jpg").write_bytes(b"torn")
    with pytest.raises(DataError, match="faults are for you to mend"):
        leave_out(manifest, validate(manifest), plain)
    manifest = prepare(plain, tmp_path / "out").manifest
    before, faults = state(tmp_path / "out"), validate(manifest)
    with pytest.raises(
        DataError, match=r"no image of \['train'\] is readable; first: .*not a readable picture"
    ):
        leave_out(manifest, faults, plain)
    assert state(tmp_path / "out") == before
