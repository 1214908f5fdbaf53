"""A stranger's folder: two layouts, splits that stay put, warnings of what is probably a slip, errors."""

import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from factories import mask, picture, table
from wsfcn_lib.data.classes import voc_colour
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.folder import find_folder, write_template
from wsfcn_lib.data.manifest import validate, write_manifest
from wsfcn_lib.runs.paths import ROOT


def sorted_pictures(root, **counts):
    for name, count in counts.items():
        for k in range(count):
            picture(root / name / f"{name}{k:03d}.jpg")
    return root


def tags_of(found):
    names = [info.name for info in found.classes]
    rows = [(sample.name, sample.tags) for samples in found.splits.values() for sample in samples]
    return {name: [n for n, t in zip(names, tags) if t] for name, tags in sorted(rows)}


def split_of(found):
    return {sample.name: split for split, samples in found.splits.items() for sample in samples}


def noted(found, text):
    return [note for note in found.notes if re.search(text, note)]


def state_of(root):
    return {path: path.stat().st_mtime_ns for path in sorted(root.rglob("*"))}


def test_a_table_gives_tags_masks_and_splits(tmp_path):
    root = table(
        tmp_path,
        "a.jpg,cat; dog ,,train",
        "trip\\b.PNG,dog,truth/b.png,val",
        "trip/c.webp,,,test",
        "d.tif,Zebra;cat;cat,,",
        ",,,",
        header="Image,Tags,MASK, split",
    )
    mask(root / "truth" / "b.png", [0, 2])
    before = state_of(root)
    found = find_folder(root)
    assert [(c.name, c.mask_id, c.colour) for c in found.classes] == [
        (name, k, voc_colour(k)) for k, name in enumerate(("cat", "dog", "Zebra"), 1)
    ]
    assert tags_of(found) == {"a": ["cat", "dog"], "b": ["dog"], "c": [], "d": ["cat", "Zebra"]}
    assert split_of(found) == {"a": "train", "b": "val", "c": "test", "d": "train"}
    assert (
        found.splits["val"][0].image == root / "trip" / "b.PNG"
        and found.splits["val"][0].mask == root / "truth" / "b.png"
    )
    assert found.missing == found.untagged == [] and "the splits are those of tags.csv" in found.notes
    assert not noted(found, "not in tags.csv"), "a listed mask is no picture that was forgotten"
    assert noted(found, "ids 1 cat, 2 dog, 3 Zebra")
    assert state_of(root) == before, "the user's folder was written to"
    assert validate(write_manifest(tmp_path.with_name("prepared"), found.classes, found.splits)) == []


def test_sub_folders_give_classes_and_nothing_below_them_is_lost(tmp_path):
    root = sorted_pictures(tmp_path, dog=2, Äpfel=2, bird=1)
    picture(root / "dog" / "2024" / "deep.JPEG")
    picture(root / "alone.jpg")
    picture(root / ".thumbs" / "hidden.jpg")
    (root / "bird" / "notes.txt").write_text("x")
    (root / "bird" / "a.AAE").write_text("x")
    (root / "bird" / "film.MOV").write_text("x")
    (root / "bird" / "other.mov").write_text("x")
    (root / "empty").mkdir()
    found = find_folder(root)
    assert [info.name for info in found.classes] == ["bird", "dog", "Äpfel"]
    assert tags_of(found) == {
        "bird000": ["bird"],
        "deep": ["dog"],
        "dog000": ["dog"],
        "dog001": ["dog"],
        "Äpfel000": ["Äpfel"],
        "Äpfel001": ["Äpfel"],
    }
    assert noted(found, "^1 pictures lie in no class's sub-folder")
    others = "2 .mov (bird/film.MOV), 1 system or hidden folder (.thumbs), 1 .aae (bird/a.AAE), 1 .txt"
    assert f"not pictures, passed over: {others} (bird/notes.txt)" in found.notes


def test_equal_stems_get_names_of_their_own(tmp_path):
    for name in ("cat/001.jpg", "dog/001.jpg", "dog/001.png", "dog/002.jpg", "cat/IMG.jpg", "dog/img.jpg"):
        picture(tmp_path / name)
    found = find_folder(tmp_path)
    names = ["cat__001_jpg", "dog__001_jpg", "dog__001_png", "002", "cat__IMG_jpg", "dog__img_jpg"]
    assert set(tags_of(found)) == set(names)
    assert {s.name: s.image for part in found.splits.values() for s in part}[
        "dog__001_png"
    ] == tmp_path / "dog" / "001.png"
    picture(tmp_path / "dog" / "x" / "cat__001_jpg.jpg")
    with pytest.raises(
        DataError, match="cat/001.jpg and dog/x/.*jpg would both be called 'cat__001_jpg'; rename one of"
    ):
        find_folder(tmp_path)


def test_masks_are_found_by_path_and_by_name(tmp_path):
    root = sorted_pictures(tmp_path, cat=4, dog=4)
    picture(root / "cat" / "same.jpg")
    picture(root / "dog" / "same.jpg")
    mask(root / "masks" / "cat" / "cat001.png", [0, 1])
    mask(root / "masks" / "dog002.png", [0, 2])
    mask(root / "masks" / "dog__same_jpg.png", [2])
    mask(root / "masks" / "same.png", [1])  # which of the two it belongs to, nobody knows
    found = find_folder(root)
    masks = {
        s.name: s.mask.relative_to(root).as_posix() for part in found.splits.values() for s in part if s.mask
    }
    assert masks == {
        "cat001": "masks/cat/cat001.png",
        "dog002": "masks/dog002.png",
        "dog__same_jpg": "masks/dog__same_jpg.png",
    }
    assert {name for name, split in split_of(found).items() if split == "val"} == masks.keys()
    assert "the 3 pictures with masks measure, the 7 without train" in found.notes


def test_where_most_pictures_have_masks_val_is_drawn_from_them(tmp_path):
    root = sorted_pictures(tmp_path, cat=30, dog=30)
    for path in root.glob("*/*.jpg"):
        if path.stem != "dog000":
            mask(root / "masks" / f"{path.stem}.png", [1])
    found = find_folder(root, val_fraction=0.3)
    assert 8 <= len(found.splits["val"]) <= 28 and all(sample.mask for sample in found.splits["val"])
    assert sum(sample.mask is not None for sample in found.splits["train"]) == 59 - len(found.splits["val"])
    assert noted(found, r"val is drawn by name \(seed 0\) from the 59 pictures with masks$")


def test_masks_share_out_val_and_test_where_they_are_few(tmp_path):
    root = sorted_pictures(tmp_path, cat=60, dog=60)
    for path in root.glob("cat/*.jpg"):
        mask(root / "masks" / f"{path.stem}.png", [1])
    found = find_folder(root, val_fraction=0.1, test_fraction=0.1)
    assert len(found.splits["train"]) == 60 and 18 <= len(found.splits["val"]) <= 42
    assert len(found.splits["val"]) + len(found.splits["test"]) == 60


def test_the_draw_is_a_fraction_that_new_pictures_do_not_disturb(tmp_path):
    root = sorted_pictures(tmp_path, cat=100, dog=100)
    first = find_folder(root, val_fraction=0.2, test_fraction=0.1)
    sizes = {split: len(samples) for split, samples in first.splits.items()}
    assert 25 <= sizes["val"] <= 55 and 10 <= sizes["test"] <= 32
    assert noted(first, "without masks, only tags can be measured")
    sorted_pictures(root, cow=40)
    again = split_of(find_folder(root, val_fraction=0.2, test_fraction=0.1))
    assert split_of(first).items() <= again.items()
    other = split_of(find_folder(root, seed=1, val_fraction=0.2, test_fraction=0.1))
    assert other.keys() == again.keys() and other != again


@pytest.mark.parametrize("seed", range(6))
def test_val_has_a_picture_of_every_class(tmp_path, seed):
    root = sorted_pictures(tmp_path, cat=20, dog=12, cow=3, hen=2, yak=1)
    found = find_folder(root, seed=seed, val_fraction=0.05)
    tags = tags_of(found)
    shown = {tag for sample in found.splits["val"] for tag in tags[sample.name]}
    assert shown == {"cat", "dog", "cow", "hen"}, "the only yak teaches"
    taught = {tag for sample in found.splits["train"] for tag in tags[sample.name]}
    assert taught == {"cat", "dog", "cow", "hen", "yak"}
    assert len(found.splits["val"]) <= 8


def test_one_picture_at_least_goes_to_val(tmp_path):
    root = sorted_pictures(tmp_path, cat=1, dog=1)
    for seed in range(5):
        found = find_folder(root, seed=seed, val_fraction=0.001)
        assert {split: len(samples) for split, samples in found.splits.items()} == {"train": 1, "val": 1}
    assert set(find_folder(root, val_fraction=0).splits) == {"train"}
    mask(root / "masks" / "cat000.png", [1])
    found = find_folder(root, val_fraction=0)
    assert (
        set(found.splits) == {"train"}
        and noted(found, "val is drawn by name")
        and len(found.splits["train"]) == 2
    )


def test_classes_json_decides_names_ids_and_order(tmp_path):
    root = table(tmp_path, "a.jpg,dog", "b.jpg,cat")
    listed = [
        {"name": name, "mask_id": k, "colour": [k, 2, 3]} for name, k in (("dog", 12), ("cat", 8), ("owl", 9))
    ]
    (root / "classes.json").write_text(json.dumps(listed))
    found = find_folder(root, val_fraction=0)
    assert [(c.name, c.mask_id, c.colour[0]) for c in found.classes] == [
        ("dog", 12, 12),
        ("cat", 8, 8),
        ("owl", 9, 9),
    ]
    assert tags_of(found) == {"a": ["dog"], "b": ["cat"]} and found.splits["train"][0].tags == (
        True,
        False,
        False,
    )
    (root / "classes.json").write_text(json.dumps(listed[:1]))
    with pytest.raises(
        DataError,
        match=r"tags.csv, line 3: no class is called 'cat'; correct it, or add it to .*classes.json",
    ):
        find_folder(root)
    (root / "classes.json").write_text(json.dumps([*listed, listed[2] | {"name": "cow"}]))
    with pytest.raises(DataError, match="classes.json: each mask_id must occur once"):
        find_folder(root)
    for broken in ("{", '["dog"]', '[{"name": "dog", "id": 3}]'):
        (root / "classes.json").write_text(broken)
        with pytest.raises(
            DataError, match="classes.json must be a list of {name, mask_id, colour}; correct this: "
        ):
            find_folder(root)


def test_slips_of_the_pen_are_named_with_counts(tmp_path):
    lines = [f"p{k}.jpg,dog" for k in range(21)] + [
        "q.jpg,Dog",
        "r.jpg,sea lion",
        "s.jpg,Sealion",
        "t.jpg,sealion;dog",
    ]
    found = find_folder(table(tmp_path, *lines), val_fraction=0)
    assert len(found.classes) == 5
    assert noted(
        found,
        r"^'Dog' \(1 training images\) and 'dog' \(22 training images\) differ only in case or blanks",
    )
    assert noted(found, r"^'sea lion' \(1 .*\) and 'Sealion' \(1 .*\) and 'sealion' \(1 ")
    assert noted(
        found, r"^fewer than 20 training images, .*: Dog \(1\), sea lion \(1\), Sealion \(1\), sealion \(1\)$"
    )
    assert not noted(find_folder(table(tmp_path / "good", *lines[:21]), val_fraction=0), "case|fewer")


def test_slips_in_names_of_sub_folders_are_told_too(tmp_path):
    if picture(tmp_path / "case" / "a.jpg").with_name("A.JPG").exists():
        pytest.skip("this disk takes Dog and dog as one")
    root = sorted_pictures(tmp_path / "own", dog=21, Dog=1)
    with pytest.raises(
        DataError,
        match="Dog/Dog000.jpg and dog/dog000.jpg would both be called .*; rename one of them, or join",
    ):
        find_folder(root)
    (root / "Dog" / "Dog000.jpg").rename(root / "Dog" / "other.JPG")
    found = find_folder(root, val_fraction=0)
    assert noted(
        found, r"^'Dog' \(1 training images\) and 'dog' \(21 training images\) differ only in case or blanks"
    )
    assert noted(found, r"^fewer than 20 training images, little to learn from: Dog \(1\)$")


def test_what_is_missing_untagged_and_unlisted_is_told(tmp_path):
    root = table(
        tmp_path,
        "a.jpg,cat,",
        "b.jpg,,",
        "c.jpg,cat,no.png",
        "gone.jpg,cat,",
        header="image,tags,mask,rating",
    )
    (root / "gone.jpg").unlink()
    picture(root / "sub" / "new.jpg")
    found = find_folder(root, val_fraction=0)
    assert found.missing == [
        f"train: c: {root / 'no.png'}; it trains without this mask",
        f"train: gone: {root / 'gone.jpg'}",
    ]
    assert (
        found.untagged == ["b"]
        and tags_of(found) == {"a": ["cat"], "c": ["cat"]}
        and found.splits["train"][1].mask is None
    )
    assert "1 pictures are not in tags.csv and are left out, first sub/new.jpg" in found.notes
    assert "tags.csv: the columns ['rating'] are not used; known are image, tags, mask, split" in found.notes


def test_a_mask_that_is_missing_matters_where_it_would_measure(tmp_path):
    root = table(
        tmp_path,
        "a.jpg,cat,no.png,",
        "b.jpg,cat,no.png,val",
        "c.jpg,cat,,val",
        header="image,tags,mask,split",
    )
    found = find_folder(root)
    assert split_of(found) == {"a": "train", "c": "val"}
    assert [line.split(": ")[:2] for line in found.missing] == [
        ["train", "a"],
        ["val", "b"],
    ] and "trains" not in found.missing[1]


def test_an_empty_column_of_splits_says_nothing(tmp_path):
    found = find_folder(table(tmp_path, "a.jpg,cat,", "b.jpg,dog,", "c.jpg,cat, ", header="image,tags,split"))
    assert len(found.splits["val"]) == 1 and noted(found, "val is drawn by name")


def test_a_drawn_split_is_told_of_missing_pictures_too(tmp_path):
    root = sorted_pictures(tmp_path, cat=40, dog=40)
    write_template(root)
    lines = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.glob("*/*.jpg"))]
    table(root, *lines)
    name = find_folder(root).splits["val"][0]
    name.image.unlink()
    assert find_folder(root).missing == [f"val: {name.name}: {name.image}"]


def test_pictures_without_tags_are_not_drawn_to_val(tmp_path):
    root = table(tmp_path, *(f"p{k}.jpg," for k in range(40)), *(f"q{k}.jpg,cat" for k in range(20)))
    found = find_folder(root, val_fraction=0.5)
    assert len(found.untagged) == 40 and set(split_of(found)) == {f"q{k}" for k in range(20)}


def test_copies_of_a_picture_are_noted(tmp_path):
    root = sorted_pictures(tmp_path, cat=2, dog=2)
    (root / "dog" / "copy.jpg").write_bytes((root / "cat" / "cat001.jpg").read_bytes())
    assert noted(
        find_folder(root),
        r"^1 pictures occur twice, .*; keep one: .*(copy|cat001).jpg = .*(copy|cat001).jpg$",
    )
    (root / "dog" / "copy.jpg").unlink()
    assert not noted(find_folder(root), "occur twice")


def test_the_template_lists_all_pictures_and_overwrites_nothing(tmp_path):
    root = tmp_path / "holiday"
    for name in ("b, first.JPG", "sub/ä.png", "sub/masks/x.jpg"):
        picture(root / name)
    mask(root / "masks" / "m.png", [1])
    assert write_template(root) == root / "tags.csv"
    assert (
        root / "tags.csv"
    ).read_bytes().decode() == '\ufeffimage,tags\n"b, first.JPG",\nsub/masks/x.jpg,\nsub/ä.png,\n'
    with pytest.raises(
        DataError, match="3 pictures have 0 different tags, 1 to 254 are possible; fill the column tags"
    ):
        find_folder(root)
    text = (root / "tags.csv").read_text("utf-8-sig").replace(",\n", ",sea;sun\n")
    (root / "tags.csv").write_text(text, "utf-8-sig")
    assert tags_of(find_folder(root)) == dict.fromkeys(["b, first", "x", "ä"], ["sea", "sun"])
    with pytest.raises(DataError, match="tags.csv is there and is never overwritten; move it away"):
        write_template(root)
    (tmp_path / "bare").mkdir()
    with pytest.raises(
        DataError, match=r"bare holds no pictures \(.jpg, .*\); name the folder that holds yours"
    ):
        write_template(tmp_path / "bare")


def test_the_template_goes_where_notebook_01_looks(tmp_path, monkeypatch):
    """Any notation that `root` may have, in a notebook, whose folder is another one."""
    picture(tmp_path / "own" / "a.JPG")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("~/own", os.path.relpath(tmp_path / "own", ROOT)):
        (tmp_path / "own" / "tags.csv").unlink(missing_ok=True)
        assert write_template(name) == ROOT / os.path.expanduser(name) / "tags.csv"
        assert (tmp_path / "own" / "tags.csv").read_text("utf-8-sig") == "image,tags\na.JPG,\n"


@pytest.mark.parametrize("names", [["a.jpg"], ["pics/a.jpg"], ["train/cat/a.jpg", "Val/cat/b.jpg"], []])
def test_a_folder_that_says_nothing_is_told_how_to(tmp_path, names):
    for name in names:
        picture(tmp_path / name)
    text = rf"{len(names)} pictures, no tags.csv, and no two sub-folders .*sort the pictures so, or call "
    with pytest.raises(DataError, match=text + r"write_template\('.*'\) and fill the column tags"):
        find_folder(tmp_path)


@pytest.mark.parametrize(
    "lines, header, message",
    [
        (
            ["a.jpg:cat"],
            "image:tags",
            r"tags.csv: line 1 must name the columns image,tags with a comma .* found \['image:tags'\]",
        ),
        (
            ["a.jpg,cat", "a.jpg,dog"],
            "image,tags",
            r"line 3: a.jpg is listed before \(.*tags.csv, line 2\); make it one line",
        ),
        (["a.jpg,cat,dog"], "image,tags", r"line 2: more cells than columns; put ';' between tags"),
        (
            ["a.heic,cat"],
            "image,tags",
            r"line 2: 'a.heic' is no picture of a kind known here \(.jpg, .*\); convert it",
        ),
        (
            [",cat"],
            "image,tags",
            r"line 2: the cell of the image is empty; name its file, or remove the line",
        ),
        (
            ["a.jpg,cat,dev"],
            "image,tags,split",
            r"line 2: split is 'dev'; write one of train, val, test, or nothing for train",
        ),
        (
            ["a.jpg,background"],
            "image,tags",
            r"1 pictures have 0 different tags, .*\(background is none\)",
        ),
        (
            [f"{k}.jpg,c{k}" for k in range(255)],
            "image,tags",
            r"255 pictures have 255 different tags, 1 to 254 are possible",
        ),
    ],
)
def test_a_bad_table_is_told_what_and_where(tmp_path, lines, header, message):
    (tmp_path / "tags.csv").write_text("\n".join([header, *lines]))
    with pytest.raises(DataError, match=message):
        find_folder(tmp_path)


def test_other_errors_name_the_folder_and_the_next_step(tmp_path):
    with pytest.raises(DataError, match="absent is no folder; name the one that holds your pictures"):
        find_folder(tmp_path / "absent")
    (tmp_path / "tags.csv").write_bytes("image,tags\na.jpg,Kühe\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"tags.csv is not UTF-8.*position \d+.*save it so .*CSV UTF-8"):
        find_folder(tmp_path)
    (tmp_path / "tags.csv").write_text('image,tags\na.jpg,"dog\nb.jpg,cat\n')
    with pytest.raises(DataError, match="perhaps a quote is not closed"):
        find_folder(tmp_path)
    picture(tmp_path / "b" / "do;g" / "x.jpg")
    picture(tmp_path / "b" / "cat" / "y.jpg")
    with pytest.raises(
        DataError,
        match="(?s)a class cannot be used, correct it: .*'do;g' cannot name a class: no ';'",
    ):
        find_folder(tmp_path / "b")


def test_masks_of_any_ending_are_used_and_no_note_says_otherwise(tmp_path):
    """Also a PNG that is called .jpg; a preview beside a mask is none."""
    root = table(
        tmp_path, *(f"{name}.png,cat,val" for name in "abcd"), "t.png,dog,train", header="image,tags,split"
    )
    mask(root / "masks/a.gif", [0, 1])
    mask(root / "masks/b.tif", [0, 1])
    mask(root / "masks/c.png", [0, 1]).rename(root / "masks/c.jpg")
    mask(root / "masks/d.png", [0, 1])
    picture(root / "masks/d.jpg")
    mask(root / "masks/lost.gif", [0, 1])
    found = find_folder(root)
    assert {s.name: s.mask.name for s in found.splits["val"]} == {
        "a": "a.gif", "b": "b.tif", "c": "c.jpg", "d": "d.png"
    }  # fmt: skip
    assert not noted(found, "passed over")
    assert noted(found, "2 files in masks/ belong to no picture, first d.jpg")
    assert validate(write_manifest(tmp_path / "out", found.classes, found.splits)) == []


def test_photographs_as_masks_are_refused_by_name(tmp_path):
    root = table(tmp_path, "a.png,cat,val", "b.png,dog,train", header="image,tags,split")
    picture(root / "masks/a.jpg")
    found = find_folder(root)
    (fault,) = validate(write_manifest(tmp_path / "out", found.classes, found.splits))
    assert "masks/a.jpg: a mask stored as JPEG is not exact" in fault


@pytest.mark.parametrize("cell", ["a.png", "./a.png", "x.png"])
def test_a_mask_that_is_named_without_its_folder_is_found(tmp_path, cell):
    root = table(tmp_path, f"a.png,cat,{cell},val", "b.png,dog,,train", header="image,tags,mask,split")
    drawn = mask(root / "masks" / Path(cell).name, [0, 1])
    assert [sample.mask for sample in find_folder(root).splits["val"]] == [drawn]


def test_a_picture_is_not_its_own_mask(tmp_path):
    root = table(tmp_path, "a.png,cat,a.png,val", "b.png,dog,,train", header="image,tags,mask,split")
    with pytest.raises(DataError, match="line 2: the mask of a.png is the picture itself; write where"):
        find_folder(root)


def test_pictures_of_several_pages_are_named(tmp_path):
    root = table(tmp_path, "a.tif,cat", "b.webp,dog", "c.png,cat")
    for name in ("a.tif", "b.webp"):
        pages = [Image.new("RGB", (6, 5), (shade, 0, 90)) for shade in (1, 200)]
        pages[0].save(root / name, save_all=True, append_images=pages[1:])
    assert noted(
        find_folder(root), "^2 pictures hold several pages or frames, first a.tif: the first of each is"
    )
