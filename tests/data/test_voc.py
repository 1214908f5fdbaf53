import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsfcn_lib.data.classes import VOC_CLASSES
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.glyphs import GLYPH_CLASSES, GlyphSettings, make_glyphs, scene
from wsfcn_lib.data.images import read_mask
from wsfcn_lib.data.manifest import Manifest, validate, write_manifest
from wsfcn_lib.data.voc import FULL, find_voc, voc_base, voc_classes, voc_names

ROOT = os.environ.get("WSFCN_VOC_ROOT")
ALL = {"train": "train", "val": "val", "test": "test"}


@pytest.fixture
def base(tmp_path) -> Path:
    """VOC2012: a, b, c in train; b in trainaug too, its mask shows more; d in val; e in test, no mask."""
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


def box(*objects: tuple[str, int]) -> str:
    """A VOC annotation: (name, difficult) of each object, each with a part, which is no object."""
    part = "<part><name>head</name></part>"
    things = "".join(f"<object><name>{n}</name><difficult>{d}</difficult>{part}</object>" for n, d in objects)
    return f"<annotation><filename>x.jpg</filename>{things}</annotation>"


@pytest.fixture
def boxes(base) -> Path:
    """Its folder of annotations: b's dog is difficult; c shows nothing but a difficult sheep."""
    folder = base / "Annotations"
    folder.mkdir()
    (folder / "a.xml").write_text(box(("cat", 0), ("person", 0), ("cat", 0)))
    (folder / "b.xml").write_text(box(("dog", 1), ("person", 0)))
    (folder / "c.xml").write_text(box(("sheep", 1)))
    (folder / "d.xml").write_text("<annotation><object><name>cow</name></object></annotation>")
    return folder


def shown(found, split: str) -> dict[str, list[str]]:
    names = [info.name for info in found.classes]
    return {s.name: [n for n, tag in zip(names, s.tags, strict=True) if tag] for s in found.splits[split]}


def test_tags_are_the_classes_of_the_masks(base, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    found = find_voc(tmp_path, lists=ALL)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "nothing is written"
    assert shown(found, "train") == {"a": ["cat"], "b": ["dog"]} and shown(found, "val") == {
        "d": ["cat", "person"]
    }
    assert found.splits["test"][0].mask is None and found.untagged == ["c"] and found.missing == []
    manifest = write_manifest(tmp_path / "out", found.classes, found.splits)
    assert manifest.num_classes == 21 and validate(manifest) == []


def test_trainaug_takes_its_masks_from_the_augmented_folder(base):
    found = find_voc(base, lists={"train": "trainaug", "val": "val"})
    assert shown(found, "train") == {"b": ["dog", "person"]}
    assert found.splits["train"][0].mask.parent.name == "SegmentationClassAug"
    assert shown(find_voc(base, lists={"train": "trainaug"}, train_masks="SegmentationClass"), "train") == {
        "b": ["dog"]
    }


def test_missing_files_are_counted(base):
    (base / "JPEGImages/a.jpg").unlink()
    (base / "ImageSets/Segmentation/val.txt").write_text("d\nghost\n")
    found = find_voc(base)
    assert [line.split(": ")[:2] for line in found.missing] == [["train", "a"], ["val", "ghost"]]
    assert "JPEGImages/a.jpg" in found.missing[0] and "SegmentationClass/ghost.png" in found.missing[1]
    assert set(shown(found, "train")) == {"b"}


def test_a_foreign_mask_id_names_the_file(base):
    with pytest.raises(DataError, match=r"[ab].png: the mask ids \[(8|12)\] belong to no class"):
        find_voc(base, voc_classes(GLYPH_CLASSES))
    with pytest.raises(
        DataError, match=r"b.png: the mask ids \[12\] belong to no class"
    ):  # a's and c's are known: no matter
        find_voc(base, voc_classes(VOC_CLASSES[:8]))


def test_wrong_places_are_named(base, tmp_path):
    assert voc_base(tmp_path) == voc_base(tmp_path / "VOCdevkit") == voc_base(base) == base
    with pytest.raises(DataError, match="no JPEGImages in .*nowhere.*VOCdevkit"):
        find_voc(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"minival.txt is missing; the lists there are \['test', 'train', 'trainaug', 'val'\]"
    ):
        find_voc(base, lists={"val": "minival"})
    (base / "ImageSets/Segmentation/train.txt").write_text("c\n")
    with pytest.raises(DataError, match="none of the 1 images of list 'train' can be used"):
        find_voc(base)


def test_glyph_scenes_go_through_the_same_door(tmp_path):
    settings = GlyphSettings(size=48, train=5, val=2, test=2)
    make_glyphs(tmp_path / "raw", settings)
    found = find_voc(tmp_path / "raw", voc_classes(GLYPH_CLASSES), ALL)
    manifest = write_manifest(tmp_path / "prepared", found.classes, found.splits)
    assert manifest.names == ("background", *GLYPH_CLASSES)
    assert [len(manifest.samples(split)) for split in manifest.splits] == [5, 2, 2]
    labels = scene(settings, "test", 1)[1]
    sample = manifest.samples("test")[1]
    assert np.array_equal(read_mask(sample.mask, manifest), labels)
    assert sample.tags == tuple(c in labels for c in range(1, manifest.num_classes))
    assert validate(manifest) == []


def test_tags_from_boxes(base, boxes):
    found = find_voc(base, lists=ALL, tags="boxes")
    assert shown(found, "train") == {"a": ["cat", "person"], "b": ["person"]}
    assert shown(found, "val") == {"d": ["cow"]} and shown(found, "test") == {"e": []}
    assert found.untagged == ["c"] and found.missing == []
    found = find_voc(base, tags="boxes", difficult=True)
    assert shown(found, "train") == {"a": ["cat", "person"], "b": ["dog", "person"], "c": ["sheep"]}
    assert found.untagged == []


def test_boxes_need_no_training_masks_but_their_own_files(base, boxes):
    for name in "ad":
        (base / f"SegmentationClass/{name}.png").unlink()
    (boxes / "b.xml").unlink()
    (base / "ImageSets/Segmentation/val.txt").write_text("d\nc\n")
    found = find_voc(base, tags="boxes", difficult=True)
    assert shown(found, "train") == {"a": ["cat", "person"], "c": ["sheep"]}
    assert [sample.mask and sample.mask.name for sample in found.splits["train"]] == [None, "c.png"]
    assert found.missing == [f"train: b: {boxes / 'b.xml'}", f"val: d: {base / 'SegmentationClass/d.png'}"]


def test_bad_boxes(base, boxes):
    (boxes / "a.xml").write_text("<annotation><object>")
    found = find_voc(base, tags="boxes")
    assert list(shown(found, "train")) == ["b"]
    assert len(found.missing) == 1 and found.missing[0].startswith(
        f"train: a: {boxes / 'a.xml'}: not readable XML ("
    )
    (boxes / "a.xml").write_text(box(("cat", 0), ("unicorn", 1)))
    with pytest.raises(
        DataError, match=r"a.xml: the objects \['unicorn'\] belong to no class, known are aeroplane,"
    ):
        find_voc(base, tags="boxes")
    with pytest.raises(DataError, match="tags='points' must be 'masks' or 'boxes'"):
        find_voc(base, tags="points")


def test_an_entity_bomb_is_a_line_not_a_full_memory(base, boxes):
    levels = "".join(f'<!ENTITY x{k} "{f"&x{k - 1};" * 10}">' for k in range(1, 9))
    bomb = "<annotation><object><name>&x8;</name></object></annotation>"
    (boxes / "a.xml").write_text(f'<!DOCTYPE annotation [<!ENTITY x0 "ha">{levels}]>{bomb}')
    assert "a.xml: not readable XML" in find_voc(base, tags="boxes").missing[0]


def test_an_unreadable_mask_is_a_line_and_the_run_goes_on(base):
    mask = base / "SegmentationClass/a.png"
    mask.write_bytes(mask.read_bytes()[:40])
    Image.new("RGB", (6, 5), (1, 2, 3)).save(base / "SegmentationClass/c.png")
    found = find_voc(base)
    assert list(shown(found, "train")) == ["b"] and found.untagged == []
    assert found.missing[0].startswith(f"train: a: {mask}: not a readable picture, perhaps truncated")
    assert found.missing[1].startswith(
        f"train: c: {mask.with_name('c.png')}: a mask in colours, of which 1 are no class's"
    )
    mask.with_name("b.png").write_bytes(b"")
    with pytest.raises(
        DataError, match="none of the 3 images of list 'train' can be used, first: train: a: .*complete"
    ):
        find_voc(base)


def test_validation_on_trainaug_takes_its_masks_too(base):
    (base / "ImageSets/Segmentation/trainaug.txt").write_text("b\n")
    found = find_voc(base, lists={"train": "train", "val": "trainaug"}, train_masks="SegmentationClass")
    assert shown(found, "val") == {"b": ["dog", "person"]} and shown(found, "train")["b"] == ["dog"]


def test_augmented_masks_and_list_may_lie_elsewhere(base, tmp_path):
    elsewhere = tmp_path / "made"
    elsewhere.mkdir()
    (base / "SegmentationClassAug").rename(elsewhere / "SegmentationClassAug")
    (elsewhere / "trainaug.txt").write_text("b\na\nx\n")
    found = find_voc(base, lists={"train": "trainaug"}, augmented=elsewhere)
    assert shown(found, "train") == {"b": ["dog", "person"]}, "VOC's own list goes first"
    assert found.splits["train"][0].mask == elsewhere / "SegmentationClassAug/b.png"
    (base / "ImageSets/Segmentation/trainaug.txt").unlink()
    found = find_voc(base, lists={"train": "trainaug"}, augmented=elsewhere)
    assert shown(found, "train") == {"b": ["dog", "person"], "a": ["cat"]}, "VOC train has masks of its own"
    assert found.missing == [f"train: x: {base / 'JPEGImages/x.jpg'}, {base / 'SegmentationClassAug/x.png'}"]
    with pytest.raises(
        DataError, match=r"trainaug.txt is missing; .* or add the file; SBD's folder gives this one"
    ):
        find_voc(base, lists={"train": "trainaug"})
    (base / "ImageSets/Segmentation/val.txt").unlink()
    (elsewhere / "val.txt").write_text("d\n")
    with pytest.raises(DataError, match="val.txt is missing"):  # SBD has a val.txt too, and it is another set
        find_voc(base, augmented=elsewhere)


def test_photographs_may_lie_elsewhere(base, tmp_path):
    (tmp_path / "img").mkdir()
    for name in "ab":
        (base / f"JPEGImages/{name}.jpg").rename(tmp_path / f"img/{name}.jpg")
    Image.new("RGB", (6, 5), (9, 9, 9)).save(base / "JPEGImages/b.jpg")
    found = find_voc(base, more_images=tmp_path / "img")
    assert [sample.image.parent.name for sample in found.splits["train"]] == ["img", "JPEGImages"]
    assert find_voc(base).missing == [f"train: a: {base / 'JPEGImages/a.jpg'}"]


def test_short_lists_of_voc_are_noted(base, monkeypatch):
    assert find_voc(base, lists=ALL).notes[:3] == [
        "list train holds 3 of VOC 2012's 1464 images",
        "list val holds 1 of VOC 2012's 1449 images",
        "list test holds 1 of VOC 2012's 1456 images",
    ]
    assert FULL["trainaug"] == 10582
    monkeypatch.setitem(FULL, "train", 3)
    assert [note for note in find_voc(base).notes if "VOC 2012's" in note] == [
        "list val holds 1 of VOC 2012's 1449 images"
    ]
    Image.fromarray(np.full((5, 6), 1, np.uint8)).save(base / "SegmentationClass/d.png")
    other = voc_classes(("glyph",))
    assert find_voc(base, other, {"val": "val"}).notes == [], "another data set has lists of its own"


def test_lists_of_paths_are_read_as_names(base):
    pairs = [f"JPEGImages/{name}.jpg SegmentationClassAug/{name}.png" for name in "ba"]
    lines = f"c\n/{pairs[0]}\n\n{pairs[1]}\r\na b.c\n"
    (base / "ImageSets/Segmentation/trainaug.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert voc_names(base, "trainaug") == ["c", "b", "a", "a b.c"]


def test_long_lists_show_how_far_they_are(base, capsys):
    find_voc(base)
    assert capsys.readouterr().out == ""
    names = [f"ghost{number}" for number in range(600)]
    (base / "ImageSets/Segmentation/train.txt").write_text("\n".join(["a", *names]))
    assert len(find_voc(base).missing) == 600
    out = capsys.readouterr().out
    assert "list train" in out and "601/601" in out and "list val" not in out


@pytest.mark.real
@pytest.mark.skipif(not ROOT, reason="WSFCN_VOC_ROOT names no VOC folder")
def test_real_photographs():
    found = find_voc(ROOT)
    assert tuple(info.name for info in found.classes) == VOC_CLASSES and found.missing == found.untagged == []
    present = {name for split in ("train", "val") for tags in shown(found, split).values() for name in tags}
    assert {"cat", "dog", "person"} <= present
    found = find_voc(ROOT, lists={"train": "trainaug"})
    assert len(found.splits["train"]) + len(found.untagged) + len(found.missing) == len(
        voc_names(voc_base(ROOT), "trainaug")
    )
    assert (found.notes == []) == (len(voc_names(voc_base(ROOT), "trainaug")) == 10582)


def exported(root, ending=".png", labelmap="background:0,0,0::\nhelmet:128,0,0::\nvest:10,20,30::\n"):
    """A VOC folder as CVAT exports it: coloured masks, classes of its own in labelmap.txt."""
    for inner in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "Annotations"):
        (root / inner).mkdir(parents=True)
    for name, colour, thing in (("a", (128, 0, 0), "helmet"), ("b", (10, 20, 30), "vest")):
        Image.new("RGB", (6, 5), (9, 9, 9)).save(root / "JPEGImages" / f"{name}{ending}")
        Image.new("RGB", (6, 5), colour).save(root / "SegmentationClass" / f"{name}.png")
        text = f"<annotation><object><name>{thing}</name></object></annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(text)
    for split in ("train", "val"):
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("a\nb\n")
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + labelmap)
    return root


@pytest.mark.parametrize("tags", ["masks", "boxes"])
@pytest.mark.parametrize("ending", [".png", ".jpg", ".JPG", ".jpeg"])
def test_exports_of_cvat_are_read_with_their_classes_and_colours(tmp_path, ending, tags):
    listing = find_voc(exported(tmp_path, ending), tags=tags)
    assert [(info.name, info.mask_id, info.colour) for info in listing.classes] == [
        ("helmet", 1, (128, 0, 0)),
        ("vest", 2, (10, 20, 30)),
    ]
    assert shown(listing, "train") == {"a": ["helmet"], "b": ["vest"]}
    labels = [read_mask(sample.mask, Manifest(tmp_path, listing.classes)) for sample in listing.splits["val"]]
    assert [np.unique(label).tolist() for label in labels] == [[1], [2]]
    assert "the classes are those of labelmap.txt: helmet, vest" in listing.notes


def test_a_labelmap_without_colours_has_vocs(tmp_path):
    root = exported(tmp_path, labelmap="background:::\nhelmet:::\nvest:::\n")
    listing = find_voc(root, tags="boxes")
    assert [info.colour for info in listing.classes] == [(128, 0, 0), (0, 128, 0)]


@pytest.mark.parametrize("name", ["_background_", "Background", "__background__"])
def test_the_background_of_a_labelmap_is_no_class_in_any_spelling(tmp_path, name):
    root = exported(tmp_path, labelmap=f"{name}:0,0,0::\nhelmet:128,0,0::\nvest:10,20,30::\n")
    assert [(info.name, info.mask_id) for info in find_voc(root).classes] == [("helmet", 1), ("vest", 2)]


def test_a_damaged_labelmap_is_named_by_its_line(tmp_path):
    root = exported(tmp_path, labelmap="helmet:128,0::\n")
    with pytest.raises(
        DataError, match=r"labelmap.txt, line 2: not name:red,green,blue: but 'helmet:128,0::'"
    ):
        find_voc(root)


def test_the_class_names_of_labelme_are_read(tmp_path):
    root = exported(tmp_path)
    (root / "labelmap.txt").unlink()
    (root / "class_names.txt").write_text("__ignore__\n_background_\nhelmet\nvest\n")
    (root / "SegmentationClass").rename(root / "SegmentationClassPNG")
    for name, number in (("a", 1), ("b", 2)):
        Image.fromarray(np.full((5, 6), number, np.uint8)).save(root / f"SegmentationClassPNG/{name}.png")
    listing = find_voc(root)
    assert [(info.name, info.mask_id) for info in listing.classes] == [("helmet", 1), ("vest", 2)]
    assert shown(listing, "val") == {"a": ["helmet"], "b": ["vest"]}
    assert "the classes are those of class_names.txt: helmet, vest" in listing.notes


def test_classes_that_are_only_assumed_are_told(base):
    (note,) = [note for note in find_voc(base).notes if "taken for VOC's" in note]
    assert note.startswith(
        f"no labelmap.txt or class_names.txt in {base}, so the classes are taken for VOC's: 8 cat,"
    )
    assert note.endswith("write their names into class_names.txt, one a line, in the order of the ids")
    for folder in ("JPEGImages", "SegmentationClass"):
        for path in list((base / folder).iterdir()):
            path.rename(path.with_name(f"2007_00000{ord(path.stem) - 96}{path.suffix}"))
    for split, numbers in (("train", "12"), ("val", "4")):
        text = "".join(f"2007_00000{number}\n" for number in numbers)
        (base / f"ImageSets/Segmentation/{split}.txt").write_text(text)
    assert not any("taken for VOC's" in note for note in find_voc(base).notes), "those are VOC's names"


def test_sets_of_boxes_need_no_masks_and_have_their_lists_in_main(base, boxes):
    for kind in ("SegmentationClass", "SegmentationClassAug"):
        (base / kind).rename(base / f"no {kind}")
    (base / "ImageSets/Segmentation").rename(base / "ImageSets/Main")
    found = find_voc(base, tags="boxes")
    assert shown(found, "train") == {"a": ["cat", "person"], "b": ["person"]}
    assert shown(found, "val") == {"d": ["cow"]} and found.splits["val"][0].mask is None
    assert (
        f"val: there are no masks in {base / 'SegmentationClass'}, so tags alone are measured" in found.notes
    )
    with pytest.raises(DataError, match="none of the 3 images of list 'train' can be used"):
        find_voc(base)


def test_segmentations_own_lists_go_before_those_of_main(base):
    (base / "ImageSets/Main").mkdir()
    (base / "ImageSets/Main/train.txt").write_text("e\n")
    (base / "ImageSets/Main/other.txt").write_text("e\n")
    assert set(shown(find_voc(base), "train")) == {"a", "b"}
    with pytest.raises(DataError, match="Segmentation/other.txt is missing"):
        find_voc(base, lists={"train": "other"})


def test_endings_in_any_case(base, boxes):
    (base / "JPEGImages/a.jpg").rename(base / "JPEGImages/a.Jpg")
    (base / "SegmentationClass/a.png").rename(base / "SegmentationClass/a.Png")
    (boxes / "a.xml").rename(boxes / "a.XML")
    for tags in ("masks", "boxes"):
        found = find_voc(base, tags=tags)
        assert set(shown(found, "train")) == {"a", "b"} and found.missing == []
        assert found.splits["train"][0].mask.name == "a.Png"


@pytest.mark.parametrize(
    "lines, names",
    [
        ("a.jpg\nb.PNG\n", ["a", "b"]),
        ("a 1\nb -1\nc  0\n", ["a", "b", "c"]),
        ("my photo\nmy photo.jpg\nmy.photo\n", ["my photo", "my photo", "my.photo"]),
        ("sub dir/a\nsub dir/a b.png\n", ["sub dir/a", "sub dir/a b"]),
        ("JPEGImages/sub dir/a.jpg SegmentationClass/sub dir/a.png\n", ["sub dir/a"]),
        ("/JPEGImages/a b.jpg /SegmentationClass/a b.png\n", ["a b"]),
        ("JPEGImages/a SegmentationClassAug/a\n", ["a"]),
        (
            "/disk/VOC2012/JPEGImages/a.jpg\nC:\\\\voc\\\\b.jpg\nimages/c.jpg labels/c.png\n",
            ["a", "b", "c"],
        ),
        ("../../evil\n/etc/evil\n", ["evil", "evil"]),
    ],
)
def test_lines_of_lists_as_people_write_them(base, lines, names):
    (base / "JPEGImages/sub dir").mkdir()
    (base / "ImageSets/Segmentation/odd.txt").write_text(lines.replace("\\\\", "\\"))
    assert voc_names(base, "odd") == names


def test_a_name_that_ends_with_a_number_is_a_name_where_its_picture_is_there(base):
    Image.new("RGB", (6, 5)).save(base / "JPEGImages/photo 1.jpg")
    (base / "ImageSets/Segmentation/odd.txt").write_text("photo 1\nphoto 0\n")
    assert voc_names(base, "odd") == ["photo 1", "photo 0"]


def test_pictures_in_folders_that_share_a_name_are_two(base, tmp_path):
    for number, folder in ((8, "x"), (12, "y")):
        for kind in ("JPEGImages", "SegmentationClass"):
            (base / kind / folder).mkdir()
        Image.new("RGB", (6, 5)).save(base / f"JPEGImages/{folder}/1.jpg")
        Image.fromarray(np.full((5, 6), number, np.uint8)).save(base / f"SegmentationClass/{folder}/1.png")
    (base / "ImageSets/Segmentation/train.txt").write_text("x/1\ny/1\na\n")
    assert shown(find_voc(base), "train") == {"x__1": ["cat"], "y__1": ["dog"], "a": ["cat"]}


def test_names_that_lists_hold_twice_are_told_with_the_list(base, tmp_path):
    lists = base / "ImageSets/Segmentation"
    (lists / "val.txt").write_text("d\nd\na\n")
    found = find_voc(base)
    assert list(shown(found, "val")) == ["d", "a"]
    assert f"{lists / 'val.txt'}: 1 names occur twice, first d, and count once" in found.notes
    note = f"1 images are in train and val, first a: take them out of {lists / 'train.txt'} or {lists / 'val.txt'}"
    assert note in found.notes
    assert len(write_manifest(tmp_path / "out", found.classes, found.splits).samples("val")) == 2


def test_messages_name_the_file_that_is_read(base, boxes):
    """classes.json is another source's; what a message advises is followed here, and works."""
    for name in "ab":
        Image.new("RGB", (6, 5), (1, 2, 3)).save(base / f"SegmentationClass/{name}.png")
    with pytest.raises(DataError, match="give the classes their colours in labelmap.txt") as caught:
        find_voc(base)
    assert "classes.json" not in str(caught.value)
    (base / "labelmap.txt").write_text("thing:1,2,3::\n")
    (base / "ImageSets/Segmentation/val.txt").write_text("a\n")
    assert shown(find_voc(base), "train") == {"a": ["thing"], "b": ["thing"]}
    (base / "labelmap.txt").write_text("thing\nthing\n")
    with pytest.raises(DataError, match="labelmap.txt: each name must occur once"):
        find_voc(base)
    (boxes / "a.xml").write_text(box(("unicorn", 0)))
    (base / "labelmap.txt").write_text("thing\n")
    with pytest.raises(DataError, match="write the classes into labelmap.txt beside JPEGImages, one a line"):
        find_voc(base, tags="boxes")
