"""COCO on annotations of a few pictures: numbering of classes, rule of the masks, archives that resume."""

import hashlib
import json
import os
import re
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import BRUSH, CATEGORIES, HEIGHT, PERSON, SIGN, WIDTH, annotate, box
from wsfcn_lib.data import coco
from wsfcn_lib.data.classes import voc_palette
from wsfcn_lib.data.coco import Archive, download_coco, find_coco
from wsfcn_lib.data.downloads import DownloadError
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.manifest import validate, write_manifest
from wsfcn_lib.runs.storage import RunError


@pytest.fixture
def root(tmp_path) -> Path:
    """Three training pictures, the last without a label, and two for validation, the last likewise."""
    root = tmp_path / "coco"
    annotate(
        root,
        "train",
        {9: [box(BRUSH, 2, 3, 8, 9)], 25: [box(SIGN, 0, 0, 4, 4), box(PERSON, 9, 9, 14, 14)], 30: []},
    )
    annotate(root, "val", {42: [box(PERSON, 1, 2, 5, 6)], 73: []})
    return root


def files_of(folder):
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_sparse_category_ids_become_consecutive_mask_ids(root, tmp_path, capsys):
    found = find_coco(root, tmp_path / "masks")
    assert [(c.name, c.mask_id, c.colour) for c in found.classes] == [
        ("person", 1, (128, 0, 0)),
        ("stop sign", 2, (0, 128, 0)),
        ("toothbrush", 3, (128, 128, 0)),
    ]
    tags = {split: {s.name[-2:]: s.tags for s in samples} for split, samples in found.splits.items()}
    assert tags == {
        "train": {"09": (False, False, True), "25": (True, True, False)},
        "val": {"42": (True, False, False), "73": (False,) * 3},
    }
    sample = found.splits["train"][0]
    assert sample.image == root / "train2014" / "COCO_train2014_000000000009.jpg"
    assert sample.mask.parents[1] == tmp_path / "masks" / "train"
    assert sample.mask.name == "COCO_train2014_000000000009.png"
    with Image.open(sample.mask) as mask:
        assert mask.mode == "P" and mask.getpalette() == voc_palette()
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        expected[3:9, 2:8] = 3
        assert np.array_equal(mask, expected)
    assert "index" not in capsys.readouterr().out, "pycocotools talks"


def test_unlabelled_pictures_leave_training_and_stay_in_val(root, tmp_path):
    found = find_coco(root, tmp_path / "masks")
    assert found.untagged == ["COCO_train2014_000000000030"] and found.missing == []
    assert not np.asarray(Image.open(found.splits["val"][1].mask)).any()
    assert len(list((tmp_path / "masks" / "train").rglob("*.png"))) == 2
    assert found.notes == [
        "train: 3 images listed, 2 with a label; published: 82,783 and 82,081",
        "val: 2 images listed, 1 with a label; published: 40,504 and 40,137",
    ]


def test_small_objects_lie_on_large_ones_and_the_first_of_equals_on_top(root, tmp_path):
    objects = [
        box(PERSON, 5, 5, 9, 9),
        box(SIGN, 0, 0, 20, 15),
        box(BRUSH, 7, 5, 11, 9),  # as large as the person, and listed later
    ]
    annotate(root, "val", {1: objects, 2: objects[::-1]})
    masks = [
        np.asarray(Image.open(s.mask)) for s in find_coco(root, tmp_path / "masks", ("val",)).splits["val"]
    ]
    for mask, on_top in zip(masks, (1, 3)):
        assert (
            mask[6, 6] == 1
            and mask[6, 10] == 3
            and mask[0, 0] == 2
            and mask[14, 19] == 2
            and mask[19, 29] == 0
        )
        assert (mask[5:9, 7:9] == on_top).all()


def test_area_as_annotated_decides_not_the_painted_pixels(root, tmp_path):
    annotate(root, "val", {1: [box(PERSON, 0, 0, 10, 10, area=50), box(SIGN, 0, 0, 5, 5, area=60)]})
    mask = np.asarray(Image.open(find_coco(root, tmp_path / "masks", ("val",)).splits["val"][0].mask))
    assert set(np.unique(mask)) == {0, 1}


def test_a_crowd_is_painted_and_tagged_with_its_class(root, tmp_path):
    annotate(root, "train", {1: [box(PERSON, 2, 4, 28, 18, crowd=True), box(SIGN, 10, 10, 13, 13)]})
    sample = find_coco(root, tmp_path / "masks", ("train",)).splits["train"][0]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:18, 2:28] = 1
    expected[10:13, 10:13] = 2
    assert np.array_equal(np.asarray(Image.open(sample.mask)), expected)
    assert sample.tags == (True, True, False)


def test_nothing_is_painted_twice_and_missing_masks_are_made(root, tmp_path):
    found = find_coco(root, tmp_path / "masks")
    before = files_of(tmp_path / "masks")
    assert len(before) == 4
    mask = found.splits["train"][0].mask
    content = mask.read_bytes()
    mask.unlink()
    again = find_coco(root, tmp_path / "masks")
    assert again.splits == found.splits and mask.read_bytes() == content
    after = files_of(tmp_path / "masks")
    assert {path for path in before if path.suffix == ".png" and before[path] != after[path]} == {mask}
    manifest = write_manifest(tmp_path / "prepared", found.classes, found.splits)
    assert validate(manifest) == [] and len(manifest.train_masks()) == 2


def pixels(sample) -> np.ndarray:
    with Image.open(sample.mask) as mask:
        return np.asarray(mask)


def test_masks_of_other_annotations_never_mix(root, tmp_path):
    """A second data set, or a corrected file, has masks of its own; those of the first stay as they are."""
    (first, _) = find_coco(root, tmp_path / "masks", ("val",)).splits["val"]
    path = root / "annotations" / "instances_val2014.json"
    original = path.read_bytes()
    edit(root, "val", lambda a: a.update(category_id=SIGN, segmentation=[[9, 9, 14, 9, 14, 14, 9, 14]]))
    (second, _) = find_coco(root, tmp_path / "masks", ("val",)).splits["val"]
    assert second.mask != first.mask and second.mask.name == first.mask.name
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:6, 1:5] = 1
    assert np.array_equal(pixels(first), expected)
    assert pixels(second)[9:14, 9:14].tolist() == [[2] * 5] * 5 and (pixels(second) == 2).sum() == 25
    path.write_bytes(original)
    (third, _) = find_coco(root, tmp_path / "masks", ("val",)).splits["val"]
    assert third == first


def test_missing_pictures_are_reported_and_the_others_go_on(root, tmp_path):
    (root / "train2014" / "COCO_train2014_000000000009.jpg").unlink()
    (root / "train2014" / "COCO_train2014_000000000030.jpg").unlink()
    found = find_coco(root, tmp_path / "masks")
    names = [f"COCO_train2014_{number:012d}" for number in (9, 30)]
    assert (
        found.missing == [f"train: {name}: {root / 'train2014' / name}.jpg" for name in names]
        and found.untagged == []
    )
    assert [s.name[-2:] for s in found.splits["train"]] == ["25"]
    assert len(list((tmp_path / "masks" / "train").rglob("*.png"))) == 1


def test_pictures_may_lie_in_images(root, tmp_path):
    (root / "images").mkdir()
    (root / "val2014").rename(root / "images" / "val2014")
    found = find_coco(root, tmp_path / "masks", ("val",))
    assert found.splits["val"][0].image.parent == root / "images" / "val2014" and set(found.splits) == {"val"}
    (root / "images" / "val2014").rename(root / "elsewhere")
    with pytest.raises(
        DataError,
        match=r"val2014.json: lists 2 pictures, none of them is in .*coco/val2014 or .*images/val2014; put",
    ):
        find_coco(root, tmp_path / "masks", ("val",))


@pytest.mark.parametrize(
    "change, reason",
    [
        (
            lambda text: text[:-20],
            "no whole file of COCO instances.*JSONDecodeError.*if it is COCO's own and torn",
        ),
        (lambda text: "[]", "no whole file of COCO instances.*TypeError"),
        (
            lambda text: json.dumps({"images": [], "annotations": []}),
            "no whole file of COCO instances.*KeyError: 'categories'",
        ),  # captions look like this
        (
            lambda text: text.replace('"image_id": 42', '"image_id": 43'),
            "an entry does not fit.*1 of 1 annotations are of images that are not listed, the first of 43",
        ),
        (
            lambda text: text.replace('"category_id": 1', '"category_id": 12'),
            "an entry does not fit .*the category_id 12 is no category's",
        ),
        (lambda text: text.replace('"person"', '"per;son"'), "'per;son' cannot name a class"),
        (lambda text: text.replace('"file_name"', '"file"'), "an entry does not fit.*KeyError: 'file_name'"),
    ],
)
def test_truncated_and_foreign_annotations_are_named(root, tmp_path, change, reason):
    path = root / "annotations" / "instances_val2014.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=f"(?s){re.escape(str(path))}.*{reason}"):
        find_coco(root, tmp_path / "masks")


def test_other_errors_name_the_file_and_the_next_step(root, tmp_path):
    with pytest.raises(
        DataError,
        match=r"has none of the annotations that belong together \(annotations/instances_train2014.json and ",
    ):
        find_coco(tmp_path, tmp_path / "masks")
    annotate(root, "val", {42: []}, CATEGORIES[:2])
    with pytest.raises(
        DataError, match=r"instances_val2014.json: its categories differ from those of train; take both"
    ):
        find_coco(root, tmp_path / "masks")
    annotate(root, "train", {1: [], 2: []})
    with pytest.raises(DataError, match="lists 2 pictures and no annotation of any; annotate some"):
        find_coco(root, tmp_path / "masks", ("train",))


def edit(root, split, change):
    """Change each annotation of a split."""
    path = root / "annotations" / f"instances_{split}2014.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        change(annotation)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("outline", [[], None, "absent"])
def test_boxes_without_outlines_are_tags_enough(root, tmp_path, outline):
    """Detection exports."""

    def change(annotation):
        annotation.pop("segmentation")
        if outline != "absent":
            annotation["segmentation"] = outline

    expected = find_coco(root, tmp_path / "masks")
    edit(root, "train", change)
    found = find_coco(root, tmp_path / "others")
    assert [s.tags for s in found.splits["train"]] == [s.tags for s in expected.splits["train"]]
    assert all(sample.mask is None for sample in found.splits["train"]) and found.splits["val"][0].mask
    assert any("train: 2 images have objects without an outline" in note for note in found.notes)


@pytest.mark.parametrize("area", [None, "absent"])
def test_a_missing_area_is_that_of_the_outline(root, tmp_path, area):
    objects = [box(PERSON, 5, 5, 9, 9), box(SIGN, 0, 0, 20, 15)]
    annotate(root, "val", {1: objects})
    expected = np.asarray(Image.open(find_coco(root, tmp_path / "m", ("val",)).splits["val"][0].mask))

    def change(annotation):
        annotation.pop("area")
        if area is None:
            annotation["area"] = None

    edit(root, "val", change)
    found = find_coco(root, tmp_path / "others", ("val",))
    assert np.array_equal(np.asarray(Image.open(found.splits["val"][0].mask)), expected)


def test_ids_may_be_text(root, tmp_path):
    expected = find_coco(root, tmp_path / "masks")
    for split in ("train", "val"):
        edit(root, split, lambda a: a.update(image_id=str(a["image_id"]), category_id=str(a["category_id"])))
    found = find_coco(root, tmp_path / "others")
    assert [s.tags for s in found.splits["train"]] == [s.tags for s in expected.splits["train"]]


def test_one_broken_outline_is_a_line_and_the_rest_goes_on(root, tmp_path):
    edit(root, "train", lambda a: a["category_id"] == SIGN and a.update(segmentation=[[1, 2]]))
    edit(root, "val", lambda a: a.update(segmentation={"counts": "?", "size": [1]}))
    found = find_coco(root, tmp_path / "masks")
    train = {sample.name[-2:]: sample.mask for sample in found.splits["train"]}
    assert train["09"] and train["25"] is None
    assert [sample.name[-2:] for sample in found.splits["val"]] == ["73"]
    assert len(found.missing) == 2 and found.missing[0].endswith("it trains without this mask")
    assert "val: COCO_val2014_000000000042: an outline (mask id 1) is no polygon" in found.missing[1]


def test_headings_of_exports_are_no_classes(root, tmp_path):
    for split in ("train", "val"):
        path = root / "annotations" / f"instances_{split}2014.json"
        content = json.loads(path.read_text())
        for category in content["categories"]:
            category["supercategory"] = "things"
        content["categories"].append({"id": 0, "name": "things", "supercategory": "none"})
        path.write_text(json.dumps(content))
    found = find_coco(root, tmp_path / "masks")
    assert [info.name for info in found.classes] == ["person", "stop sign", "toothbrush"]
    assert "no classes, but headings of others: things" in found.notes


@pytest.mark.parametrize("name", ["_background_", "Background"])
def test_the_background_is_no_class(root, tmp_path, name):
    """labelme2coco and others list it, with the id 0 and no objects."""
    for split in ("train", "val"):
        path = root / "annotations" / f"instances_{split}2014.json"
        content = json.loads(path.read_text())
        content["categories"].insert(0, {"id": 0, "name": name, "supercategory": ""})
        path.write_text(json.dumps(content))
    found = find_coco(root, tmp_path / "masks")
    assert [(info.name, info.mask_id) for info in found.classes] == [
        ("person", 1),
        ("stop sign", 2),
        ("toothbrush", 3),
    ]
    assert f"no class, as no object is one: {name}" in found.notes


def test_coco_2017_and_exports_are_found_and_2014_comes_first(root, tmp_path):
    first = find_coco(root, tmp_path / "m2014")
    for split in ("train", "val"):
        (root / f"annotations/instances_{split}2014.json").rename(
            root / f"annotations/instances_{split}2017.json"
        )
        (root / f"{split}2014").rename(root / f"{split}2017")
    second = find_coco(root, tmp_path / "m2017")
    assert [s.tags for s in second.splits["train"]] == [s.tags for s in first.splits["train"]]
    assert all("which is not COCO 2014's" in note for note in second.notes)
    for split, folder in (("train", "train"), ("val", "valid")):
        (root / f"{split}2017").rename(root / folder)
        (root / f"annotations/instances_{split}2017.json").rename(root / folder / "_annotations.coco.json")
    third = find_coco(root, tmp_path / "exported")
    assert [s.tags for s in third.splits["val"]] == [s.tags for s in first.splits["val"]]


def test_years_are_never_mixed(root, tmp_path):
    """2017's training pictures contain most of 2014's validation."""
    (root / "annotations/instances_train2014.json").rename(root / "annotations/instances_train2017.json")
    (root / "train2014").rename(root / "train2017")
    with pytest.raises(
        DataError, match="none of the annotations that belong together .*instances_val2017.json"
    ):
        find_coco(root, tmp_path / "masks")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_annotations_is_refused(root, tmp_path, split):
    path = root / "annotations" / f"instances_{split}2014.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    with pytest.raises(DataError, match=f"{split}2014.json: lists . pictures and no annotation of any"):
        find_coco(root, tmp_path / "masks")


def heading(root, split, name="things"):
    path = root / "annotations" / f"instances_{split}2014.json"
    content = json.loads(path.read_text())
    for category in content["categories"]:
        category["supercategory"] = name
    content["categories"].append({"id": 0, "name": name, "supercategory": "none"})
    path.write_text(json.dumps(content))
    return path, content


def test_masks_painted_without_a_heading_are_not_those_with_it(root, tmp_path):
    for split in ("train", "val"):
        path, content = heading(root, split)
    first = find_coco(root, tmp_path / "masks").splits["val"][0]
    path = root / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    content["annotations"].append(content["annotations"][0] | {"category_id": 0})
    path.write_text(json.dumps(content))
    second = find_coco(root, tmp_path / "masks").splits["val"][0]
    assert pixels(first).max() == 1 and pixels(second).max() == 2, "things are class 1 now"


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda c: c["images"][1].update(id=c["images"][0]["id"]), "image id .* is listed twice"),
        (
            lambda c: c["images"][1].update(file_name=c["images"][0]["file_name"]),
            "COCO_train2014_000000000009.jpg is listed twice",
        ),
        (
            lambda c: c["images"][1].update(file_name=c["images"][0]["file_name"].lower()),
            "would both be called",
        ),
        (
            lambda c: c["categories"][1].update(id=c["categories"][0]["id"]),
            "categories cannot be used .*toothbrush and person have one id, 90",
        ),
        (
            lambda c: c["categories"][1].update(name=c["categories"][0]["name"]),
            "categories cannot be used.*once",
        ),
        (lambda c: c["categories"].append(7), "categories is no list of entries"),
        (lambda c: c["annotations"][0].update(area="wide"), "could not convert string to float"),
        (
            lambda c: c["categories"].extend({"id": 100 + k, "name": f"c{k}"} for k in range(260)),
            "its 263 categories cannot be used.*254 are possible",
        ),
    ],
)
def test_entries_that_contradict_each_other_are_refused(root, tmp_path, change, reason):
    for split in ("train", "val"):
        path = root / "annotations" / f"instances_{split}2014.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"(?s)instances_train2014.json.*{reason}"):
        find_coco(root, tmp_path / "masks")


def test_ids_that_were_floats_and_padded_are_the_same(root, tmp_path):
    expected = find_coco(root, tmp_path / "masks")
    edit(root, "train", lambda a: a.update(image_id=float(a["image_id"]), category_id=f"0{a['category_id']}"))
    assert [s.tags for s in find_coco(root, tmp_path / "others").splits["train"]] == [
        s.tags for s in expected.splits["train"]
    ]


def test_an_outline_of_another_size_is_a_line(root, tmp_path):
    runs = {"counts": [0, 4], "size": [2, 2]}
    edit(root, "val", lambda a: a.update(segmentation=runs))
    found = find_coco(root, tmp_path / "masks")
    assert any("42: an outline (mask id 1) is no polygon" in line for line in found.missing)


def test_pictures_in_sub_folders_are_found(root, tmp_path):
    path = root / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    for entry in content["images"]:
        (root / "val2014" / "deep").mkdir(exist_ok=True)
        (root / "val2014" / entry["file_name"]).rename(root / "val2014" / "deep" / entry["file_name"])
        entry["file_name"] = f"data/deep/{entry['file_name']}"
    path.write_text(json.dumps(content))
    samples = find_coco(root, tmp_path / "masks").splits["val"]
    assert len(samples) == 2 and samples[0].image.parent == root / "val2014" / "deep"


def test_names_of_pictures_as_other_systems_write_them(root, tmp_path):
    path = root / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = "val\\" + content["images"][0]["file_name"].upper()
    path.write_text(json.dumps(content))
    Image.new("RGB", (4, 4)).save(root / "val2014" / "more.jpg")
    found = find_coco(root, tmp_path / "masks")
    assert len(found.splits["val"]) == 2 and not found.missing
    assert "val: 1 pictures are not in instances_val2014.json, first more.jpg" in found.notes


def changed(root, split, change, year=2014):
    """Change the annotation file of a split as a whole."""
    path = root / "annotations" / f"instances_{split}{year}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def compressed(runs: list[int]) -> str:
    """Run lengths as COCO's tools write them, by their own encoder."""
    from pycocotools import mask

    return mask.frPyObjects({"counts": runs, "size": [HEIGHT, WIDTH]}, HEIGHT, WIDTH)["counts"].decode()


WHOLE = [43, 5, 20 * 30 - 48]  # five pixels of the third column


@pytest.mark.parametrize("runs", [WHOLE, [0, 600], [200, 1, 30, 2, 30, 100, 237], [600, 0], [0, 3, 597]])
def test_run_lengths_in_numbers_and_text_paint_the_same_pixels(root, tmp_path, runs):
    expected = np.repeat(np.arange(len(runs)) % 2, runs).reshape(WIDTH, HEIGHT).T
    for counts in (runs, compressed(runs)):
        outline = {"counts": counts, "size": [HEIGHT, WIDTH]}
        things = [box(PERSON, 4, 4, 8, 8), box(PERSON, 4, 4, 9, 9)]
        annotate(root, "val", {1: things, 2: [things[0] | {"segmentation": outline}]})
        found = find_coco(root, tmp_path / "masks", ("val",))
        assert not found.missing and np.array_equal(pixels(found.splits["val"][1]), expected)


@pytest.mark.parametrize(
    "counts, reason",
    [
        ([43, 5], "its runs cover 48 of 600 pixels"),
        ([43, 60000], "its runs cover 60,043 of 600 pixels"),
        ([700, -100], "its runs cover 800 of 600 pixels"),
        ([], "its runs cover 0 of 600 pixels"),
        ("", "its runs cover 0 of 600 pixels"),
        (compressed(WHOLE)[:-1], "torn|its runs cover"),
        (compressed(WHOLE)[:2], "torn|its runs cover"),
        ("\x01\x02", "torn"),
        ("o" * 50 + "0", "no numbers"),
        (None, "NoneType"),
    ],
)
def test_run_lengths_that_do_not_cover_the_picture_are_a_line(root, tmp_path, counts, reason):
    """pycocotools paints from undefined memory what they leave out."""
    runs = {"counts": counts, "size": [HEIGHT, WIDTH]}
    edit(root, "train", lambda a: a["category_id"] == BRUSH and a.update(segmentation=runs))
    found = find_coco(root, tmp_path / "masks")
    assert {sample.name[-2:]: bool(sample.mask) for sample in found.splits["train"]} == {
        "09": False,
        "25": True,
    }
    (line,) = found.missing
    assert re.search(rf"^train: COCO_train2014_000000000009: an outline .*({reason})", line), line


@pytest.mark.parametrize("polygon", [[[1, 1, 9, 1]], [[1, 1, 9, 1, "x", 4]], [[1, 1, 9, 1, 1e12, 4]]])
def test_polygons_that_are_none_are_a_line(root, tmp_path, polygon):
    edit(root, "train", lambda a: a["category_id"] == BRUSH and a.update(segmentation=polygon))
    (line,) = find_coco(root, tmp_path / "masks").missing
    assert "09: an outline (mask id 3) is no polygon" in line


def test_a_polygon_without_inner_brackets_is_one(root, tmp_path):
    expected = find_coco(root, tmp_path / "masks").splits["val"][0]
    edit(root, "val", lambda a: a.update(segmentation=a["segmentation"][0]))
    assert np.array_equal(pixels(find_coco(root, tmp_path / "masks").splits["val"][0]), pixels(expected))


@pytest.mark.parametrize("area", [0, -1, float("nan"), float("inf")])
def test_an_area_that_is_none_is_measured(root, tmp_path, area):
    annotate(root, "val", {1: [box(SIGN, 0, 0, 20, 15), box(PERSON, 5, 5, 9, 9)]})
    edit(root, "val", lambda a: a.update(area=area))
    mask = pixels(find_coco(root, tmp_path / "masks", ("val",)).splits["val"][0])
    assert (mask == 1).sum() == 16 and (mask == 2).sum() == 20 * 15 - 16


FRACTIONS = [[0.1, 0.1, 0.6, 0.1, 0.6, 0.7]]
OUTSIDE = [[100, 100, 200, 100, 200, 200]]


@pytest.mark.parametrize("outline", [FRACTIONS, OUTSIDE, [[-9, 1, -2, 1, -2, 9]]])
def test_outlines_that_paint_nothing_are_told_and_refused_where_most_do(root, tmp_path, outline):
    edit(root, "train", lambda a: a["category_id"] == BRUSH and a.update(segmentation=outline))
    assert (
        "train: 1 of 3 outlines lie outside their pictures or in fractions of them and paint nothing, first in "
        "COCO_train2014_000000000009.jpg: look at them"
    ) in find_coco(root, tmp_path / "masks").notes
    edit(root, "train", lambda a: a.update(segmentation=outline))
    with pytest.raises(
        DataError, match=r"train2014.json: .*3 of 3 outlines lie outside .* must be in pixels"
    ):
        find_coco(root, tmp_path / "masks")


def test_outlines_that_are_their_boxes_are_told(root, tmp_path):
    """Exports for detection, whose masks would measure boxes."""
    assert not any("rectangles" in note for note in find_coco(root, tmp_path / "masks").notes)
    edit(root, "val", lambda a: a.update(bbox=[1, 2, 4, 4]))
    edit(root, "train", lambda a: a.update(bbox=[1, 2, 4, 4]))
    (note,) = [note for note in find_coco(root, tmp_path / "masks").notes if "rectangles" in note]
    assert note.startswith("val: 1 of 1 outlines are the rectangles of their boxes, first in COCO_val2014_")


def test_pictures_turned_by_exif_at_the_same_size_are_told(root, tmp_path):
    turned = Image.Exif()
    turned[0x112] = 3
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "val2014" / "COCO_val2014_000000000042.jpg", exif=turned)
    notes = find_coco(root, tmp_path / "masks").notes
    assert any(note.startswith("1 pictures with masks are turned or mirrored by EXIF") for note in notes)


@pytest.mark.parametrize(
    "ids", [("1_11", "11_1"), (1234567890123456781, 1234567890123456782), ("1e999", "x"), ("1.5", "15")]
)
def test_ids_that_differ_are_two(root, tmp_path, ids):
    new = dict(zip((9, 25), ids))
    changed(
        root,
        "train",
        lambda c: (
            [image.update(id=new.get(image["id"], image["id"])) for image in c["images"]],
            [a.update(image_id=new[a["image_id"]]) for a in c["annotations"]],
        ),
    )
    found = find_coco(root, tmp_path / "masks")
    assert {s.name[-2:]: s.tags for s in found.splits["train"]} == {
        "09": (False, False, True),
        "25": (True, True, False),
    }


@pytest.mark.parametrize("outline", [[[]], [[], []], {}])
def test_empty_outlines_are_boxes(root, tmp_path, outline):
    edit(root, "val", lambda a: a.update(segmentation=outline))
    found = find_coco(root, tmp_path / "masks")
    assert found.missing == [] and [sample.mask is None for sample in found.splits["val"]] == [True, False]


@pytest.mark.parametrize("size", [{}, {"height": None, "width": None}, {"height": 0, "width": 0}])
def test_boxes_need_no_height_and_width_but_outlines_do(root, tmp_path, size):
    def resize(content):
        for image in content["images"]:
            del image["height"], image["width"]
            image.update(size)

    changed(root, "val", resize)
    changed(root, "train", resize)
    edit(root, "val", lambda a: a.update(segmentation=[]))
    found = find_coco(root, tmp_path / "masks")
    assert [(s.tags[0], s.mask) for s in found.splits["val"]] == [(True, None), (False, None)]
    assert [line for line in found.missing if "it has no height and width" in line] == found.missing
    assert len(found.missing) == 2 and all(sample.mask is None for sample in found.splits["train"])


def test_annotations_of_images_that_are_not_listed_do_not_count(root, tmp_path):
    expected = find_coco(root, tmp_path / "masks")
    changed(root, "train", lambda c: c["annotations"].append(c["annotations"][0] | {"image_id": 99}))
    found = find_coco(root, tmp_path / "others")
    assert [s.tags for s in found.splits["train"]] == [s.tags for s in expected.splits["train"]]
    assert "train: 1 annotations are of images that are not listed, first 99, and do not count" in found.notes


@pytest.mark.parametrize("name", ["background", "_background_"])
def test_a_background_without_objects_is_no_class(root, tmp_path, name):
    for split in ("train", "val"):
        changed(root, split, lambda c: c["categories"].append({"id": 0, "name": name}))
        changed(root, split, lambda c: c["categories"][0].update(name=" toothbrush "))
    found = find_coco(root, tmp_path / "masks")
    assert [info.name for info in found.classes] == ["person", "stop sign", "toothbrush"]
    assert f"no class, as no object is one: {name}" in found.notes


def renamed(root, split, change):
    """Give the pictures of a split other names in the annotation file."""
    changed(
        root, split, lambda c: [image.update(file_name=change(image["file_name"])) for image in c["images"]]
    )


def test_pictures_one_folder_deeper_or_linked_are_found(root, tmp_path):
    (tmp_path / "disk").mkdir()
    for path in (root / "val2014").glob("*.jpg"):
        path.rename(tmp_path / "disk" / path.name)
    (root / "val2014" / "batch").symlink_to(tmp_path / "disk")
    found = find_coco(root, tmp_path / "masks")
    assert [s.image for s in found.splits["val"]] == [
        root / "val2014/batch" / f"COCO_val2014_{number:012d}.jpg" for number in (42, 73)
    ]
    renamed(root, "val", lambda name: f"batch/{name}")
    assert find_coco(root, tmp_path / "masks").splits["val"][0].image == found.splits["val"][0].image


@pytest.mark.parametrize(
    "written", ["COCO%20val2014_{}.jpg", "coco val2014_{}.PNG", "/data/COCO%20val2014_{}.jpeg"]
)
def test_pictures_named_by_an_address_or_with_another_ending_are_found(root, tmp_path, written):
    for path in (root / "val2014").glob("*.jpg"):
        path.rename(path.with_name(path.name.replace("COCO_", "COCO ")))
    renamed(root, "val", lambda name: written.format(name[-16:-4]))
    found = find_coco(root, tmp_path / "masks")
    assert [s.image.name for s in found.splits["val"]] == [
        f"COCO val2014_{number:012d}.jpg" for number in (42, 73)
    ]


def test_frames_of_several_films_keep_their_own_masks(root, tmp_path):
    """v9/frame.jpg and v25/frame.jpg in train, v42/frame.jpg and v73/frame.jpg in val."""
    for split in ("train", "val"):
        for path in list((root / f"{split}2014").glob("*.jpg")):
            (path.parent / f"v{path.stem[-2:]}").mkdir()
            path.rename(path.parent / f"v{path.stem[-2:]}" / "frame.jpg")
        renamed(root, split, lambda name: f"v{name[-6:-4]}/frame.jpg")
    found = find_coco(root, tmp_path / "masks")
    assert {s.name: (s.image, pixels(s).max()) for samples in found.splits.values() for s in samples} == {
        "train__v09__frame_jpg": (root / "train2014/v09/frame.jpg", 3),
        "train__v25__frame_jpg": (root / "train2014/v25/frame.jpg", 2),
        "val__v42__frame_jpg": (root / "val2014/v42/frame.jpg", 1),
        "val__v73__frame_jpg": (root / "val2014/v73/frame.jpg", 0),
    }


def test_a_name_that_two_pictures_may_mean_is_nobodys():
    match = coco.match_names
    assert match(["a.jpg"], ["x/a.jpg", "y/a.jpg"]) == {}
    assert match(["x/a.jpg", "y/a.jpg"], ["a.jpg"]) == {}
    assert match(["x/a.jpg", "y/a.jpg"], ["y/a.jpg"]) == {"y/a.jpg": "y/a.jpg"}
    assert match(["v1/a.jpg"], ["v0/a.jpg"]) == {}
    assert match(["a.png", "a.jpg"], ["a.jpg"]) == {"a.jpg": "a.jpg"}
    assert match(["A.JPG", "b.jpeg"], ["a.jpg", "b.png"]) == {"A.JPG": "a.jpg", "b.jpeg": "b.png"}


def moved(root, names):
    """Rename files and folders of a data set."""
    for old, new in names.items():
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)


def parts(found) -> dict[str, list[str]]:
    return {split: [sample.name[-2:] for sample in samples] for split, samples in found.splits.items()}


@pytest.mark.parametrize(
    "annotations, pictures",
    [
        ("annotations/instances_{}.json", "images/{}"),
        ("annotations/instances_{}.json", "{}"),
        ("Annotations/instances_{}.json", "Images/{}"),
        ("{}/_annotations.coco.json", "{}"),
    ],
)
@pytest.mark.parametrize("names", [("Train", "Validation"), ("train", "valid"), ("TRAIN", "VAL")])
def test_splits_may_be_called_as_other_tools_do(root, tmp_path, annotations, pictures, names):
    expected = parts(find_coco(root, tmp_path / "m2014"))
    for split, name in zip(("train", "val"), names):
        moved(root, {f"{split}2014": pictures.format(name)})
        moved(root, {f"annotations/instances_{split}2014.json": annotations.format(name)})
    if not any((root / "annotations").iterdir()):
        (root / "annotations").rmdir()
    found = find_coco(root, tmp_path / "masks")
    assert parts(found) == expected == {"train": ["09", "25"], "val": ["42", "73"]}
    assert found.missing == [] and not any("pictures are not in" in note for note in found.notes)


def test_both_splits_may_share_a_folder_of_pictures(root, tmp_path):
    for split in ("train", "val"):
        moved(root, {f"annotations/instances_{split}2014.json": f"annotations/instances_{split}.json"})
        for path in list((root / f"{split}2014").iterdir()):
            moved(root, {f"{split}2014/{path.name}": f"images/{path.name}"})
    Image.new("RGB", (4, 4)).save(root / "images" / "more.jpg")
    found = find_coco(root, tmp_path / "masks")
    assert parts(found) == {"train": ["09", "25"], "val": ["42", "73"]}
    note = "train, val: 1 pictures are not in instances_train.json or instances_val.json, first more.jpg"
    assert note in found.notes


def test_the_year_whose_pictures_are_there_counts(root, tmp_path):
    for split in ("train", "val"):
        path = root / "annotations" / f"instances_{split}2014.json"
        path.with_name(f"instances_{split}2017.json").write_bytes(path.read_bytes())
        moved(root, {f"{split}2014": f"{split}2017"})
    found = find_coco(root, tmp_path / "masks")
    assert found.splits["train"][0].image.parent == root / "train2017"
    assert (
        "val: 2 images listed, 1 with a label, by instances_val2017.json, which is not COCO 2014's"
        in found.notes
    )
    for split in ("train", "val"):
        (root / f"{split}2014").symlink_to(root / f"{split}2017")
    assert find_coco(root, tmp_path / "masks").splits["train"][0].image.parent == root / "train2014"


@pytest.mark.parametrize(
    "file, folder",
    [
        ("annotations/instances_default.json", "images/default"),
        ("result.json", "images"),
        ("labels.json", "data"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_an_export_in_one_file_is_split_by_name(tmp_path, file, folder):
    root = tmp_path / "export"
    path = annotate(root, "val", {number: [box(PERSON, 1, 2, 5, 6)] for number in range(1, 41)})
    moved(root, {"val2014": folder, str(path.relative_to(root)): file})
    first = find_coco(root, tmp_path / "masks", val_fraction=0.25)
    drawn = parts(first)
    assert sorted(drawn["train"] + drawn["val"]) == [f"{number:02d}" for number in range(1, 41)]
    assert 5 <= len(drawn["val"]) <= 15 and first.missing == []
    assert f"val is drawn by name from the 40 pictures of {Path(file).name}" in first.notes
    content = json.loads((root / file).read_text())
    content["images"].reverse()
    (root / file).write_text(json.dumps(content))
    assert set(parts(find_coco(root, tmp_path / "masks", val_fraction=0.25))["val"]) == set(drawn["val"])
    assert len(find_coco(root, tmp_path / "masks", val_fraction=1e-9).splits["val"]) == 1
    with pytest.raises(DataError, match="none of the annotations that belong together"):
        find_coco(root, tmp_path / "masks", val_fraction=0)
    content["images"] = content["images"][:1]
    (root / file).write_text(json.dumps(content | {"annotations": []}))
    with pytest.raises(DataError, match="1 pictures are too few to draw val from; annotate more"):
        find_coco(root, tmp_path / "masks")


def test_one_file_for_both_splits_is_told(root, tmp_path):
    annotations = root / "annotations"
    (annotations / "instances_val2014.json").write_bytes(
        (annotations / "instances_train2014.json").read_bytes()
    )
    for path in (root / "train2014").iterdir():
        (root / "val2014" / path.name).write_bytes(path.read_bytes())
    notes = find_coco(root, tmp_path / "masks").notes
    assert any(note.startswith("train and val have one and the same annotation file") for note in notes)
    assert any(note.startswith("2 pictures occur twice") for note in notes)


def zipped(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def offer(path, pattern, files, room=1e6):
    data = path.read_bytes()
    return Archive(path.as_uri(), len(data), hashlib.sha256(data).hexdigest(), pattern, files, room)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Stand-ins of the archives; other files in them are not wanted."""
    notes = {f"annotations/instances_{split}2014.json": f"{split} {{}}" for split in ("train", "val")}
    notes |= {"annotations/captions_val2014.json": "unwanted"}
    pictures = {"train2014/": "", "train2014/a.jpg": "A" * 500, "train2014/b.jpg": "B" * 700}
    archives = (
        offer(zipped(tmp_path / "site" / "notes.zip", notes), "annotations/instances_*2014.json", 2),
        offer(zipped(tmp_path / "site" / "train2014.zip", pictures), "train2014/*.jpg", 2),
    )
    monkeypatch.setattr(coco, "ARCHIVES", archives)
    return tmp_path / "site"


def test_archives_are_fetched_unpacked_and_removed_once(site, tmp_path, monkeypatch, capsys):
    raw = download_coco(tmp_path / "raw")
    wanted = [
        "annotations/instances_train2014.json",
        "annotations/instances_val2014.json",
        "train2014/a.jpg",
        "train2014/b.jpg",
    ]
    before = files_of(raw)
    assert [path.relative_to(raw).as_posix() for path in before] == [".download.lock", *wanted]
    assert (raw / "train2014" / "a.jpg").read_text() == "A" * 500
    assert "train2014.zip: unpacked in" in capsys.readouterr().out
    monkeypatch.setattr(coco, "download", lambda *_: pytest.fail("fetched again"))
    assert download_coco(tmp_path / "raw") == raw and files_of(raw) == before


def test_an_interrupted_unpacking_goes_on_with_what_is_there(site, tmp_path, monkeypatch):
    (tmp_path / "raw" / "train2014").mkdir(parents=True)
    kept = tmp_path / "raw" / "train2014" / "b.jpg"
    kept.write_text("B" * 700)
    stamp = os.stat(kept).st_ino
    real, fetched = coco.download, []
    monkeypatch.setattr(
        coco, "download", lambda url, *rest: fetched.append(Path(url).name) or real(url, *rest)
    )
    download_coco(tmp_path / "raw")
    assert fetched == ["notes.zip", "train2014.zip"] and os.stat(kept).st_ino == stamp
    (tmp_path / "raw" / "train2014").rename(tmp_path / "images")
    (tmp_path / "raw" / "images").mkdir()
    (tmp_path / "images").rename(tmp_path / "raw" / "images" / "train2014")
    fetched.clear()
    download_coco(tmp_path / "raw")
    assert fetched == []


def test_a_foreign_or_damaged_archive_is_refused(site, tmp_path, monkeypatch):
    (tmp_path / "raw" / "train2014").mkdir(parents=True)
    own = tmp_path / "raw" / "train2014" / "a.jpg"
    own.write_text("mine")
    with pytest.raises(
        DataError, match=r"a.jpg is not the file in train2014.zip, which has 500 bytes; move it away"
    ):
        download_coco(tmp_path / "raw")
    assert own.read_text() == "mine"

    evil = offer(zipped(site / "evil.zip", {"../train2014/a.jpg": "x"}), "train2014/*.jpg", 1)
    monkeypatch.setattr(coco, "ARCHIVES", (evil,))
    download_coco(tmp_path / "deep")
    assert (tmp_path / "deep/train2014/a.jpg").read_text() == "x" and not (tmp_path / "train2014").exists()

    short = offer(zipped(site / "short.zip", {"train2014/a.jpg": "x"}), "train2014/*.jpg", 2)
    monkeypatch.setattr(coco, "ARCHIVES", (short,))
    with pytest.raises(DataError, match=r"short.zip holds fewer than 2 files train2014/\*.jpg; delete it"):
        download_coco(tmp_path / "few")
    assert (tmp_path / "few" / "short.zip").exists()

    (site / "torn.zip").write_bytes((site / "train2014.zip").read_bytes()[:-30])
    monkeypatch.setattr(coco, "ARCHIVES", (offer(site / "torn.zip", "train2014/*.jpg", 2),))
    with pytest.raises(DataError, match=r"torn.zip is no whole zip file .*; delete it and call again"):
        download_coco(tmp_path / "torn")
    monkeypatch.setattr(coco, "ARCHIVES", (evil._replace(sha256="0" * 64),))
    with pytest.raises(DownloadError, match="sha256"):
        download_coco(tmp_path / "changed")


def test_room_is_asked_for_before_anything_is_fetched(site, tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "ARCHIVES", tuple(archive._replace(room=1e15) for archive in coco.ARCHIVES))
    monkeypatch.setattr(coco, "download", lambda *_: pytest.fail("fetched without room"))
    with pytest.raises(RunError, match="needs 2000000.0 GB of disk"):
        download_coco(tmp_path / "raw")
    monkeypatch.setattr(
        coco, "ARCHIVES", tuple(a._replace(room=0, size=10**15 + k) for k, a in enumerate(coco.ARCHIVES))
    )
    with pytest.raises(RunError, match="needs 1000000.0 GB of disk"):  # one archive at a time
        download_coco(tmp_path / "raw")


def test_two_processes_fetch_once(site, tmp_path, monkeypatch):
    real, fetched = coco.download, []
    monkeypatch.setattr(coco, "download", lambda url, *rest: fetched.append(url) or real(url, *rest))
    threads = [threading.Thread(target=download_coco, args=(tmp_path / "raw",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 2 and len(list((tmp_path / "raw" / "train2014").iterdir())) == 2


def test_the_official_archives_add_up():
    from wsfcn_lib.data.coco import ARCHIVES

    assert [Path(archive.url).name for archive in ARCHIVES] == [
        "annotations_trainval2014.zip",
        "train2014.zip",
        "val2014.zip",
    ]
    assert all(
        archive.room > archive.size and re.fullmatch("[0-9a-f]{64}", archive.sha256) for archive in ARCHIVES
    )
    assert [archive.files for archive in ARCHIVES] == [2, 82783, 40504]
