"""tags.csv as spreadsheets, labelling tools and other programs write it: read as meant, or refused."""

import json
import os
import re
import unicodedata

import numpy as np
import pytest
from PIL import Image

from factories import mask, picture
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.folder import find_folder
from wsfcn_lib.data.preparation import SourceSettings, prepare


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
        ' "dog, cat"',
        "dog；cat",
        "dog，cat",
        "dog、cat",
        '"dog\ncat"',
        "['dog' 'cat']",
        "\"('dog', 'cat')\"",
        "\"{'dog', 'cat'}\"",
        "'dog';'cat'",
        "dog\u200b;\u00a0cat",
        "dog;Background;cat",
    ],
)
def test_several_tags_in_a_cell(tmp_path, both):
    listing = find_folder(own(tmp_path, "a.jpg,dog", "b.jpg,cat", f"c.jpg,{both}"), val_fraction=0)
    assert tags_of(listing) == TAGS
    separator = re.search(r"dog([,|；，、\n])", both)
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
    with pytest.raises(DataError, match="4 of 4 masks contradict their picture's tags"):
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
    assert "not masks in masks/, passed over: 1 .npy (notes.npy)" in notes


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
    lines = ["a.jpg,dog,train", "b.jpg,cat,train", "c.jpg,dog,val", "d.jpg,dog,test"]
    names = [line.split(",")[0] for line in lines]
    notes = find_folder(own(tmp_path, *lines, header="image,tags,split", names=names)).notes
    (told,) = [
        note for note in notes if note.startswith("val has no picture of cat, so nothing can be measured")
    ]
    assert told.endswith("raise val_fraction, or name some in the column split")
    assert (
        "test has no picture of cat, so nothing can be measured of that: name some in the column split"
        in notes
    )


@pytest.mark.parametrize(
    "tag, message",
    [
        ('["dog"', "looks like a piece of a list"),
        ("'dog;cat'", "looks like a piece of a list"),
        ("(dog", "looks like a piece of a list"),
        ("dog]", "looks like a piece of a list"),
        ("dog:0.9", "seems to end with a score"),
        ("dog;cat: .85", "seems to end with a score"),
        ("dog (0.98)", "seems to end with a score"),
    ],
)
def test_tags_that_are_the_remains_of_something_else_are_refused(tmp_path, tag, message):
    with pytest.raises(DataError, match=f"line 2: the tag .* {message}; write"):
        find_folder(own(tmp_path, f"a.jpg,{tag}", "b.jpg,cat"))


@pytest.mark.parametrize("name", ["dog (adult)", "boys'", "1:10", "T-shirt [red]", "c++"])
def test_signs_in_names_are_left_as_they_are(tmp_path, name):
    listing = find_folder(own(tmp_path, f"a.jpg,{name}", "b.jpg,cat"), val_fraction=0)
    assert tags_of(listing)["a"] == [name]


@pytest.mark.parametrize("word", ["nan", "None", "null", "<NA>"])
def test_what_programs_write_for_nothing_is_nothing(tmp_path, word):
    root = own(tmp_path, f"a.jpg,dog,{word}", "b.jpg,cat,", f"c.jpg,{word},", header="image,tags,mask")
    listing = find_folder(root, val_fraction=0)
    assert tags_of(listing) == {"a": ["dog"], "b": ["cat"]}
    assert listing.untagged == ["c"] and not listing.missing
    assert f"2 cells of tags.csv hold {word} and are read as empty" in listing.notes


def test_tags_joined_by_other_signs_are_noted(tmp_path):
    listing = find_folder(own(tmp_path, "a.jpg,dog", "b.jpg,cat", "c.jpg,dog/bird"), val_fraction=0)
    assert any(
        "'dog/bird' is read as one class, 'dog' is another; if it means both" in n for n in listing.notes
    )


def test_a_line_for_a_blank_is_a_slip_of_the_pen(tmp_path):
    listing = find_folder(own(tmp_path, "a.jpg,sea lion", "b.jpg,sea_lion", "c.jpg,Sea-Lion"), val_fraction=0)
    assert any(
        "differ only in case or blanks, or in _ and -; if they are one class" in n for n in listing.notes
    )


def test_cells_below_no_heading_are_refused(tmp_path):
    for header in ("image,tags,,", "image,tags,,split"):
        with pytest.raises(
            DataError, match=r"line 3: more cells than columns; .*\('cat' stands below no heading\)"
        ):
            find_folder(own(tmp_path, "a.jpg,dog,,", "b.jpg,dog,cat,", header=header))


def test_empty_columns_and_numbers_of_rows_do_no_harm(tmp_path):
    root = own(tmp_path, "0,a.jpg,dog,,", "1,b.jpg,cat,,", "2,c.jpg,dog;cat,,", header=",image,tags,,")
    assert tags_of(find_folder(root, val_fraction=0)) == TAGS


@pytest.mark.parametrize("one, three", [("1.0", "3.0"), ("1.0", "3"), ('"1,0"', '"3,0"'), ("1", "3")])
@pytest.mark.parametrize("given", [True, False])
def test_whole_numbers_with_a_point_keep_their_ids(tmp_path, one, three, given):
    """Excel and pandas."""
    root = own(tmp_path, f"a.jpg,{one}", f"b.jpg,{three}", names=["a.jpg", "b.jpg"])
    if given:
        (root / "classes.json").write_text('[{"name": "1", "mask_id": 1}, {"name": "3", "mask_id": 3}]')
    listing = find_folder(root, val_fraction=0)
    assert [(info.name, info.mask_id) for info in listing.classes] == [("1", 1), ("3", 3)]
    assert tags_of(listing) == {"a": ["1"], "b": ["3"]}
    assert any("read as whole numbers, 1.0 as 1" in note for note in listing.notes) == (one != "1")


def test_one_number_in_two_spellings_is_refused(tmp_path):
    with pytest.raises(DataError, match="the classes '1' and '01' are one number; write it in one way"):
        find_folder(own(tmp_path, "a.jpg,1", "b.jpg,01", "c.jpg,2"))


def test_numbers_in_names_count_by_their_value(tmp_path):
    names = [f"p{k}.jpg" for k in range(1, 13)]
    root = own(tmp_path, *(f"{name},class{k}" for k, name in enumerate(names, 1)), names=names)
    classes = find_folder(root, val_fraction=0).classes
    assert [(info.name, info.mask_id) for info in classes] == [(f"class{k}", k) for k in range(1, 13)]


@pytest.mark.parametrize("name", ["Background", "_background_", "__background__", "BACKGROUND"])
def test_the_background_is_no_class(tmp_path, name):
    root = own(tmp_path, f"a.jpg,dog;{name}", "b.jpg,cat", f"c.jpg,{name}")
    mask(root / "masks" / "b.png", [0, 1])
    listing = find_folder(root, val_fraction=0)
    assert [(info.name, info.mask_id) for info in listing.classes] == [("cat", 1), ("dog", 2)]
    assert tags_of(listing) == {"a": ["dog"], "b": ["cat"]} and listing.untagged == ["c"]
    assert any(n.startswith("2 pictures are tagged as background, which is no class") for n in listing.notes)


def test_a_name_of_the_background_is_refused_as_a_class(tmp_path):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat")
    classes = [
        {"name": "_background_", "mask_id": 0},
        {"name": "cat", "mask_id": 4},
        {"name": "dog", "mask_id": 9},
    ]
    (root / "classes.json").write_text(json.dumps(classes))
    assert [info.mask_id for info in find_folder(root, val_fraction=0).classes] == [4, 9]
    classes[0]["mask_id"] = 1
    (root / "classes.json").write_text(json.dumps(classes))
    with pytest.raises(
        DataError, match=r'"_background_", "mask_id": 1}. A class has a name \(no .*background is taken'
    ):
        find_folder(root)


@pytest.mark.parametrize("name", ["Tags.csv", "tags.CSV"])
def test_the_table_is_found_in_any_case(tmp_path, name):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat", "c.jpg,dog;cat")
    (root / "tags.csv").rename(root / name)
    assert tags_of(find_folder(root, val_fraction=0)) == TAGS


@pytest.mark.parametrize("name", ["tags.tsv", "Tags.csv.txt", "tags.xlsx", "tags.txt"])
def test_a_table_of_another_ending_is_refused_by_name(tmp_path, name):
    root = own(tmp_path, "cat/a.jpg,dog", "dog/b.jpg,cat", names=["cat/a.jpg", "dog/b.jpg"])
    (root / "tags.csv").rename(root / name)
    with pytest.raises(
        DataError, match=rf"{name}: what it holds is read from tags.csv alone; save it as tags.csv"
    ):
        find_folder(root)


def test_classes_and_masks_are_found_in_any_case(tmp_path):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat")
    (root / "Classes.json").write_text('[{"name": "dog", "mask_id": 7}, {"name": "cat", "mask_id": 9}]')
    mask(root / "Masks" / "a.png", [0, 7])
    listing = find_folder(root)
    assert [info.mask_id for info in listing.classes] == [7, 9]
    assert [sample.mask for sample in listing.splits["val"]] == [root / "Masks/a.png"]
    assert not any("passed over" in note for note in listing.notes)


@pytest.mark.parametrize("kind", ["another size", "torn", "a foreign id"])
def test_tags_never_come_from_a_mask_that_is_refused(tmp_path, kind):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat", "c.jpg,")
    path = mask(root / "masks" / "c.png", [0, 2, 9] if kind == "a foreign id" else [0, 2])
    if kind == "another size":
        Image.new("L", (3, 3), 1).save(path)
    if kind == "torn":
        path.write_bytes(path.read_bytes()[:40])
    listing = find_folder(root, val_fraction=0)
    assert tags_of(listing) == {"a": ["dog"], "b": ["cat"]} and not listing.untagged
    assert len(listing.missing) == 1
    assert listing.missing[0].startswith(f"train: c: no tags, and none from its mask: {path}: ")


@pytest.mark.parametrize("direction", [1, 3, 6, 8])
def test_tags_come_from_masks_of_pictures_that_exif_turns(tmp_path, direction):
    root, exif = own(tmp_path, "a.jpg,dog", "b.jpg,cat", "c.jpg,"), Image.Exif()
    exif[0x0112] = direction
    Image.new("RGB", (6, 5)).save(root / "c.jpg", exif=exif)
    size = (5, 6) if direction > 4 else (6, 5)  # as it is shown
    (root / "masks").mkdir()
    Image.new("L", size, 2).save(root / "masks" / "c.png")
    listing = find_folder(root, val_fraction=0)
    assert tags_of(listing)["c"] == ["dog"] and not listing.missing


def test_why_no_training_picture_is_left_is_said(tmp_path):
    lines = ["a.jpg,,train", "b.jpg,,train", "c.jpg,dog,val"]
    root = own(tmp_path / "own", *lines, header="image,tags,split")
    for name in "ab":
        (mask(root / "masks" / f"{name}.png", [1])).write_bytes(b"torn")
    with pytest.raises(
        DataError, match=r"no image of train is left \(train: a: no tags, .*a.png: not a readable"
    ):
        prepare(SourceSettings(dataset="folder", root=str(root)), tmp_path / "out")


@pytest.mark.parametrize(
    "header, lines, message",
    [
        (
            "image,dog,cat",
            ["a.jpg,1,0", "b.jpg,0,1"],
            "a column for each class .such as dog.: write into one column tags",
        ),
        ("image,crack", ["a.jpg,TRUE", "b.jpg,FALSE"], "a column for each class"),
        ("a.jpg,dog", ["b.jpg,cat"], "line 1 seems to be a row already: write the line image,tags above it"),
        ("a.jpg;dog", ["b.jpg;cat"], "line 1 seems to be a row already"),
        (
            "Our pictures,",
            [",", "image,tags", "a.jpg,dog"],
            "they stand in line 3: remove the lines above it",
        ),
        ("Our pictures", ["Image;Tags", "a.jpg;dog"], "they stand in line 2: remove"),
        ("file,kind", ["a.jpg,dog"], "rename those that are meant"),
        ("image,animal,annotator", ["a.jpg,dog,1", "b.jpg,cat,1"], "rename those that are meant"),
    ],
)
def test_a_table_of_another_shape_is_told_which(tmp_path, header, lines, message):
    with pytest.raises(DataError, match=f"tags.csv: line 1 must name the columns image,tags .*; .*{message}"):
        find_folder(own(tmp_path, *lines, header=header))


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be", "utf-8"])
@pytest.mark.parametrize("first", ["", "sep=;\r\n", '"sep=;"\r\n'])
def test_what_excel_writes_first_is_read(tmp_path, coding, first):
    root = own(tmp_path)
    text = first + "image;tags\r\na.jpg;dog\r\nb.jpg;cat\r\nc.jpg;dog,cat\r\n"
    (root / "tags.csv").write_bytes(text.encode(coding))
    assert tags_of(find_folder(root, val_fraction=0)) == TAGS
    (root / "tags.csv").write_bytes(text.replace("b.jpg", "").encode(coding))
    with pytest.raises(DataError, match=f"line {4 if first else 3}: the cell of the image is empty"):
        find_folder(root)


def test_the_table_of_label_studio_is_read(tmp_path):
    root = own(
        tmp_path,
        '1,/data/upload/1/a1b2c3d4-a.jpg,dog,1,3.5',
        '2,/data/local-files/?d=b.jpg,cat,1,3.5',
        '3,/data/upload/2/0123abcd-c.jpg,"{""choices"": [""dog"", ""cat""]}",1,3.5',
        header="id,image,choice,annotator,lead_time",
    )  # fmt: skip
    assert tags_of(find_folder(root, val_fraction=0)) == TAGS


@pytest.mark.parametrize("before", ["C:\\data\\", "https://host.org/x/", "/mnt/gone/", "deep/"])
def test_a_table_whose_pictures_are_all_elsewhere_is_refused(tmp_path, before):
    root = own(tmp_path, f"{before}a.jpg,dog", f"{before}b.jpg,cat")
    message = (
        rf"none of the 2 pictures of .*tags.csv is there, first .*a.jpg: write names as they lie below {root}"
    )
    with pytest.raises(DataError, match=message + ", such as a.jpg"):
        find_folder(root)


def test_names_of_addresses_are_read(tmp_path):
    root = own(
        tmp_path, "my%20first%20dog.jpg,dog", "100%25.jpg,cat", names=["my first dog.jpg", "100%25.jpg"]
    )
    assert tags_of(find_folder(root, val_fraction=0)) == {"my first dog": ["dog"], "100%25": ["cat"]}


def test_one_name_in_several_unicode_forms_is_one_class(tmp_path):
    lines = ["a.jpg,caf\u00e9", "b.jpg,cat\u200b", "c.jpg,cafe\u0301;\ufeffcat"]
    wanted = {"a": ["caf\u00e9"], "b": ["cat"], "c": ["caf\u00e9", "cat"]}
    root = own(tmp_path, *lines)
    assert tags_of(find_folder(root, val_fraction=0)) == wanted
    classes = [{"name": "cafe\u0301", "mask_id": 1}, {"name": "cat", "mask_id": 2}]
    (root / "classes.json").write_text(json.dumps(classes))
    assert tags_of(find_folder(root, val_fraction=0)) == wanted


@pytest.mark.parametrize("cell", ["", "Total", "0", "3.0"])
def test_lines_that_name_no_picture_are_told_so(tmp_path, cell):
    message = (
        "the cell of the image is empty; name its file"
        if not cell
        else f"no picture is called '{cell}'; correct"
    )
    with pytest.raises(DataError, match=f"line 3: {message}"):
        find_folder(own(tmp_path, "a.jpg,dog", f"{cell},2", "b.jpg,cat"))


def test_a_line_that_is_repeated_counts_once(tmp_path):
    listing = find_folder(
        own(tmp_path, "a.jpg,dog", "b.jpg,cat", "a.jpg,dog", "c.jpg,dog;cat"), val_fraction=0
    )
    assert tags_of(listing) == TAGS
    assert "1 lines of tags.csv repeat an earlier one, first a.jpg" in listing.notes
    with pytest.raises(DataError, match="line 4: a.jpg is listed before"):
        find_folder(own(tmp_path, "a.jpg,dog", "b.jpg,cat", "a.jpg,cat"))


def test_a_root_that_is_a_link_and_ways_round_it_are_one_folder(tmp_path):
    root, link = tmp_path / "disk", tmp_path / "link"
    link.symlink_to(root)
    own(root, f"{link / 'a.jpg'},dog,", f"{root / 'b.jpg'},cat,", "../disk/c.jpg,dog;cat,../disk/truth/c.png",
        header="image,tags,mask")  # fmt: skip
    mask(root / "truth" / "c.png", [2])
    for name in (root, link):
        listing = find_folder(name, val_fraction=0)
        assert tags_of(listing) == TAGS and not listing.missing
        assert not any("not in tags.csv" in note for note in listing.notes)
        assert [s.mask for s in listing.splits["train"] if s.mask] == [name / "truth/c.png"]


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"dog": 1}', r'it is no list, such as \[{"name": "dog", "mask_id": 1}\]'),
        ('["dog", "cat"]', '"dog". A class has a name'),
        ('[{"id": 1, "name": "dog"}]', r'{"id": 1, "name": "dog"}. A class has a name \(no .*, a mask_id'),
        ('[{"name": "dog", "mask_id": 0}]', "a mask_id from 1 to 254"),
        ('[{"name": "dog", "mask_id": 1, "colour": "#ff0000"}]', "perhaps a colour, its red, green and blue"),
        ("dog", "Expecting value: line 1"),
    ],
)
def test_classes_of_another_shape_are_told_the_right_one(tmp_path, content, message):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat")
    (root / "classes.json").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        find_folder(root)
    assert "ClassInfo" not in str(error.value) and "mapping" not in str(error.value)


def test_classes_without_colours_have_those_of_voc(tmp_path):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat")
    (root / "classes.json").write_text('[{"name": "dog", "mask_id": 2}, {"name": "cat", "mask_id": 1}]')
    assert [info.colour for info in find_folder(root, val_fraction=0).classes] == [(0, 128, 0), (128, 0, 0)]


@pytest.mark.parametrize(
    "file", ["a_mask.png", "a-seg.png", "mask_a.png", "a.jpg.png", "a_gt.tif", "A_Label.png"]
)
def test_masks_whose_names_say_so_are_used(tmp_path, file):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat")
    mask(root / "masks" / file, [0, 2])
    listing = find_folder(root)
    assert [sample.mask for sample in listing.splits["val"]] == [root / "masks" / file]
    note = f"1 masks are called otherwise than their pictures, first {file} of a.jpg; they are used"
    assert note in listing.notes


def test_two_masks_whose_names_say_so_have_two_meanings(tmp_path):
    root = own(tmp_path, "a.jpg,dog", "b.jpg,cat")
    mask(root / "masks" / "a_mask.png", [0, 2])
    mask(root / "masks" / "a_seg.png", [0, 1])
    with pytest.raises(DataError, match="a_mask.png and .*a_seg.png may both be the mask of a.jpg; keep one"):
        find_folder(root)
    mask(root / "masks" / "a.png", [0, 2])
    assert find_folder(root).splits["val"][0].mask == root / "masks/a.png"


def test_a_mask_in_colours_never_takes_the_place_of_its_photograph(tmp_path):
    root = own(tmp_path, "x.jpg,dog", "b.jpg,cat", names=["b.jpg"])
    Image.fromarray(np.repeat(np.uint8([[[128, 0, 0]], [[0, 0, 0]]]), 9, 1)).save(root / "x.png")
    assert find_folder(root, val_fraction=0).missing == [f"train: x: {root / 'x.jpg'}"]


def test_a_mask_that_fits_two_pictures_is_refused(tmp_path):
    root = own(tmp_path, "x.jpg,dog", "x.png,cat", names=["x.jpg", "x.png"])
    mask(root / "masks" / "x.png", [1])
    with pytest.raises(
        DataError, match="masks/x.png may be the mask of x.jpg or of x.png; say of which in the column"
    ):
        find_folder(root)
    root = own(tmp_path / "deep", "cat/x.jpg,cat", "dog/x.jpg,dog", names=["cat/x.jpg", "dog/x.jpg"])
    mask(root / "masks" / "x.jpg.png", [1])
    mask(root / "masks" / "cat" / "x.jpg.png", [1])
    listing = find_folder(root, val_fraction=0)
    assert [sample.mask for sample in listing.splits["train"]] == [root / "masks/cat/x.jpg.png", None]
    assert any(
        note.startswith("1 files in masks/ belong to no picture, first x.jpg.png") for note in listing.notes
    )
