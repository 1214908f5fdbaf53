"""tags.csv as spreadsheets, labelling tools and other programs write it: read as meant, or refused."""

import json
import os
import unicodedata

import pytest

from factories import mask, picture
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.folder import find_folder


def own(root, *lines, header="image,tags", names=("a.jpg", "b.jpg", "c.jpg")):
    for name in names:
        if not (root / name).exists():
            picture(root / name)
    (root / "tags.csv").write_text("\n".join([header, *lines]), "utf-8")
    return root


def tags_of(listing):
    names = [info.name for info in listing.classes]
    samples = [sample for samples in listing.splits.values() for sample in samples]
    return {sample.name: [n for n, tag in zip(names, sample.tags) if tag] for sample in samples}


TAGS = {"a": ["dog"], "b": ["cat"], "c": ["cat", "dog"]}


@pytest.mark.parametrize(
    "both",
    [
        "dog;cat",
        '"dog, cat"',
        "dog|cat",
        '"{""choices"": [""dog"", ""cat""]}"',
        '"[""dog"", ""cat""]"',
        "\"['dog', 'cat']\"",
        '" dog ;cat;"',
    ],
)
def test_several_tags_in_a_cell(tmp_path, both):
    listing = find_folder(own(tmp_path, "a.jpg,dog", "b.jpg,cat", f"c.jpg,{both}"), val_fraction=0)
    assert tags_of(listing) == TAGS
    separator = both.strip('"')[3] if both.strip('"')[3] in ",|" else ""
    assert any("is read as what separates tags" in note for note in listing.notes) == bool(separator)


def test_two_separators_are_refused_unless_a_class_has_one(tmp_path):
    root = own(tmp_path, "a.jpg,dog;cat", 'b.jpg,"light, red"', "c.jpg,cat")
    with pytest.raises(DataError, match=r"the tags have ';' \(.*line 2\) and ',' \(.*line 3\) between them"):
        find_folder(root)
    classes = [
        {"name": n, "mask_id": k, "colour": [k, 0, 0]} for k, n in enumerate(("dog", "cat", "light, red"), 1)
    ]
    (root / "classes.json").write_text(json.dumps(classes))
    assert tags_of(find_folder(root, val_fraction=0))["b"] == ["light, red"]


@pytest.mark.parametrize("cell", ['"{""rating"": 3}"', '"[1, 2]"', '"[dog"";]"'])
def test_lists_of_something_else_are_refused(tmp_path, cell):
    with pytest.raises(DataError, match=r"line 2: .*put ';' between tags"):
        find_folder(own(tmp_path, f"a.jpg,{cell}", "b.jpg,cat"))


def test_several_tags_that_read_as_one_class_are_noted(tmp_path):
    listing = find_folder(own(tmp_path, "a.jpg,dog", "b.jpg,cat", "c.jpg,dog and cat"), val_fraction=0)
    assert any("'dog and cat' is read as one class, 'dog' and 'cat' are others" in n for n in listing.notes)


def test_absolute_paths_below_the_root_and_elsewhere(tmp_path):
    root, elsewhere = tmp_path / "own", tmp_path / "elsewhere" / "b.png"
    picture(elsewhere)
    own(root, f"{root / 'a.jpg'},dog", f"{elsewhere},cat", names=["a.jpg"])
    mask(root / "masks" / "a.png", [2])
    listing = find_folder(root, val_fraction=0)
    samples = {sample.name: sample for sample in listing.splits["train"]}
    assert samples["a"].image == root / "a.jpg" and samples["a"].mask == root / "masks/a.png"
    assert samples["b"].image == elsewhere and samples["b"].mask is None


@pytest.mark.parametrize(
    "written, file",
    [
        ("img_1.jpg", "IMG_1.JPG"),
        (unicodedata.normalize("NFC", "café.jpg"), unicodedata.normalize("NFD", "café.jpg")),
        (unicodedata.normalize("NFD", "café.jpg"), unicodedata.normalize("NFC", "café.jpg")),
        ("x.jpg", "x.png"),
        ("x", "x.jpeg"),
        ("photo.v2", "photo.v2.jpg"),
        ("x.jpg", "deep/x.jpg"),
    ],
)
def test_names_that_mean_one_file_are_read_so_and_it_is_said(tmp_path, written, file):
    root = own(tmp_path, f"{written},dog", "b.jpg,cat", names=[file, "b.jpg"])
    listing = find_folder(root, val_fraction=0)
    assert listing.missing == [] and root / file in [sample.image for sample in listing.splits["train"]]
    assert any("1 names of tags.csv are spelt otherwise than their files" in note for note in listing.notes)


def test_a_name_that_may_mean_two_files_is_refused(tmp_path):
    root = own(tmp_path, "x,dog", "b.jpg,cat", names=["x.png", "x.jpg", "b.jpg"])
    with pytest.raises(DataError, match=r"line 2: 'x' may be x.jpg, x.png; write which one"):
        find_folder(root)
    root = own(tmp_path / "deep", "y.jpg,dog", "b.jpg,cat", names=["1/y.jpg", "2/y.jpg", "b.jpg"])
    with pytest.raises(DataError, match=r"'y.jpg' may be 1/y.jpg, 2/y.jpg; write which one"):
        find_folder(root)


def test_two_spellings_of_one_picture_are_a_picture_twice(tmp_path):
    root = own(tmp_path, "A.jpg,dog", "a.jpg,cat", names=["a.jpg"])
    if os.path.exists(root / "A.JPG"):
        pytest.skip("this disk takes a.jpg and A.JPG as one")
    with pytest.raises(DataError, match="line 3: a.jpg is listed before"):
        find_folder(root)


def test_a_file_in_another_folder_is_never_taken_for_a_missing_one(tmp_path):
    root = own(tmp_path, "1/x.jpg,dog", "b.jpg,cat", names=["2/x.jpg", "b.jpg"])
    assert find_folder(root, val_fraction=0).missing == [f"train: x: {root / '1/x.jpg'}"]


def test_numbers_as_classes_are_the_ids(tmp_path):
    classes = find_folder(own(tmp_path, "a.jpg,10", "b.jpg,2", "c.jpg,1"), val_fraction=0).classes
    assert [(info.name, info.mask_id) for info in classes] == [("1", 1), ("2", 2), ("10", 10)]


def test_numbers_that_are_no_ids_are_refused_where_masks_would_be_read_with_them(tmp_path):
    root = own(tmp_path, "a.jpg,0", "b.jpg,1", "c.jpg,1")
    assert [info.mask_id for info in find_folder(root, val_fraction=0).classes] == [1, 2]
    mask(root / "masks" / "a.png", [1])
    with pytest.raises(DataError, match=r"numbers, 0 to 1, and mask ids lie in 1..254 .* classes.json"):
        find_folder(root)


def test_a_mask_gives_the_tags_that_a_row_lacks(tmp_path):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat", "c.jpg,")
    mask(root / "masks" / "c.png", [0, 2])
    listing = find_folder(root, val_fraction=0)
    assert tags_of(listing)["c"] == ["dog"] and not listing.untagged
    assert "1 pictures without tags have those that their masks show" in listing.notes


def test_tags_read_from_masks_do_not_vouch_for_the_others(tmp_path):
    """All ids in another order: the rows without tags would agree with themselves."""
    names = [f"p{k}.jpg" for k in range(12)]
    lines = [f"{name},{('dog', 'cat')[k % 2] if k < 4 else ''}" for k, name in enumerate(names)]
    root = own(tmp_path, *lines, names=names)
    for k in range(12):
        mask(root / "masks" / f"p{k}.png", [1 + k % 2])
    with pytest.raises(DataError, match="4 of 4 masks show no class of their picture's tags"):
        find_folder(root)


def test_a_mask_never_takes_the_place_of_its_photograph(tmp_path):
    root = own(tmp_path, "x.jpg,dog", "b.jpg,cat", names=["b.jpg"])
    mask(root / "x.png", [1])
    assert find_folder(root, val_fraction=0).missing == [f"train: x: {root / 'x.jpg'}"]


@pytest.mark.parametrize("file", ["B.png", "b.tif", "b.png"])
def test_masks_are_found_in_other_spellings_too(tmp_path, file):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat")
    mask(root / "masks" / file, [1])
    listing = find_folder(root)
    assert [sample.mask for sample in listing.splits["val"]] == [root / "masks" / file]


def test_masks_that_belong_to_no_picture_are_named(tmp_path):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat")
    mask(root / "masks" / "bb.png", [1])
    (root / "masks" / "notes.npy").write_bytes(b"x")
    notes = find_folder(root, val_fraction=0).notes
    assert any(
        note.startswith("1 files in masks/ belong to no picture, first bb.png; call") for note in notes
    )
    assert "no masks in masks/, passed over: 1 .npy (notes.npy)" in notes


@pytest.mark.parametrize("column", ["a.PNG", "a"])
def test_the_column_of_masks_may_be_spelt_otherwise(tmp_path, column):
    root = own(tmp_path, f"a.jpg,dog,truth/{column}", "b.jpg,cat,", header="image,tags,mask")
    mask(root / "truth" / "a.png", [2])
    assert [sample.mask for sample in find_folder(root).splits["val"]] == [root / "truth/a.png"]


def test_what_tags_cannot_teach_is_said(tmp_path):
    names = [f"p{k:02d}.jpg" for k in range(30)]
    lines = [f"{name},{'crack' if k % 2 else ''}" for k, name in enumerate(names)]
    notes = "\n".join(find_folder(own(tmp_path, *lines, names=names)).notes)
    assert "training pictures shows crack, 15 pictures without a tag are left out" in notes


def test_a_class_that_validation_lacks_is_named(tmp_path):
    lines = ["a.jpg,dog,train", "b.jpg,cat,train", "c.jpg,dog,val"]
    notes = find_folder(own(tmp_path, *lines, header="image,tags,split")).notes
    assert any(note.startswith("val has no picture of cat, so nothing can be measured") for note in notes)
