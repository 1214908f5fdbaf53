"""Folders as cameras, disks and other programs leave them: what is no class and no picture is counted."""

import os

import numpy as np
import pytest
from PIL import Image

from factories import mask, picture
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.folder import find_folder, write_template


def many(root, *folders, count=3):
    for folder in folders:
        for k in range(count):
            picture(root / folder / f"{folder.replace('/', '-')}{k}.jpg")
    return root


def names_of(listing):
    return [info.name for info in listing.classes]


@pytest.mark.parametrize(
    "system",
    [
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "__MACOSX",
        ".cache",
        "@Recycle",
        "#snapshot",
        "Thumbnails",
        "FOUND.000",
    ],
)
@pytest.mark.parametrize("place", ["", "cat/"])
def test_folders_of_the_system_are_no_classes(tmp_path, system, place):
    root = many(tmp_path, "cat", "dog", f"{place}{system}")
    listing = find_folder(root, val_fraction=0)
    assert names_of(listing) == ["cat", "dog"] and len(listing.splits["train"]) == 6
    assert any(f"1 system or hidden folder ({place}{system})" in note for note in listing.notes)


@pytest.mark.parametrize(
    "part",
    [
        "images",
        "annotations",
        "ground_truth",
        "Mask",
        "labels",
        "masks_machine",
        "gtFine",
        "SegmentationClassAug",
    ],
)
def test_parts_of_data_sets_are_no_classes(tmp_path, part):
    listing = find_folder(many(tmp_path, "cat", "dog", part), val_fraction=0)
    assert names_of(listing) == ["cat", "dog"]
    assert any(f"left out: 3 in {part}/" in note for note in listing.notes)


def test_two_parts_are_no_two_classes(tmp_path):
    """Oxford-IIIT Pet."""
    with pytest.raises(
        DataError, match=r"no two sub-folders named after classes \(found \['annotations', 'im"
    ):
        find_folder(many(tmp_path, "images", "annotations/trimaps"))


@pytest.mark.parametrize(
    "folders", [("train2017", "val2017"), ("images_1", "images_2"), ("Test-1", "masks 2")]
)
def test_numbered_parts_are_no_classes(tmp_path, folders):
    with pytest.raises(DataError, match="no two sub-folders named after classes"):
        find_folder(many(tmp_path, *folders))


@pytest.mark.parametrize(
    "file, dataset",
    [
        ("annotations/instances_train2017.json", "coco"),
        ("train/_annotations.coco.json", "coco"),
        ("VOC2012/ImageSets/Segmentation/train.txt", "voc"),
    ],
)
def test_data_sets_of_another_kind_are_recognised(tmp_path, file, dataset):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("{}")
    with pytest.raises(DataError, match=f"then set dataset: {dataset}$"):
        find_folder(many(tmp_path, "train2017", "images"))


def test_splits_above_classes_are_read_as_splits(tmp_path):
    listing = find_folder(many(tmp_path, "train/cat", "train/dog", "valid/cat", "valid/dog", "Test/dog"))
    assert names_of(listing) == ["cat", "dog"]
    assert {split: len(samples) for split, samples in listing.splits.items()} == {
        "train": 6,
        "val": 6,
        "test": 3,
    }
    assert "the splits are those of the folders" in listing.notes


@pytest.mark.parametrize(
    "train, test", [("training_set", "test_set"), ("seg_train/seg_train", "seg_test/seg_test")]
)
def test_splits_as_kaggle_calls_them_are_no_classes(tmp_path, train, test):
    listing = find_folder(many(tmp_path, f"{train}/cat", f"{train}/dog", f"{test}/cat", f"{test}/dog"))
    assert names_of(listing) == ["cat", "dog"] and len(listing.splits["test"]) == 6


@pytest.mark.parametrize("top", ["dataset", "images"])
def test_a_folder_above_the_classes_is_told_which_to_name(tmp_path, top):
    with pytest.raises(DataError, match=f"or name .*{top} as root, if its sub-folders are the classes"):
        find_folder(many(tmp_path, f"{top}/cat", f"{top}/dog"))


def test_without_a_folder_of_validation_some_is_drawn_from_train(tmp_path):
    """MVTec's layout."""
    root = many(tmp_path, "train/good", "test/good", "test/broken", count=20)
    mask(root / "ground_truth" / "broken" / "x_mask.png", [1])
    listing = find_folder(root, val_fraction=0.2)
    assert names_of(listing) == ["broken", "good"] and len(listing.splits["test"]) == 40
    assert len(listing.splits["val"]) + len(listing.splits["train"]) == 20 and listing.splits["val"]
    assert any("1 in ground_truth/" in note for note in listing.notes)


def test_splits_beside_classes_have_two_meanings(tmp_path):
    with pytest.raises(DataError, match=r"\['train'\] lie beside \['cat', 'dog'\]: are they classes, or"):
        find_folder(many(tmp_path, "cat", "dog", "train"))


@pytest.mark.parametrize("ending", ["_mask", "-seg", " label", "_gt", "_mask_1", "_segmentation"])
def test_masks_beside_their_pictures_are_no_pictures(tmp_path, ending):
    """BUSI's layout."""
    root = many(tmp_path, "cat", "dog")
    for path in list(root.rglob("*.jpg")):
        mask(path.with_name(f"{path.stem}{ending}.png"), [0, 255])
    listing = find_folder(root, val_fraction=0)
    assert len(listing.splits["train"]) == 6
    assert any(
        f"6 files such as cat/cat0{ending}.png are masks beside their pictures" in n for n in listing.notes
    )


def test_a_grey_png_beside_its_photograph_is_its_mask(tmp_path):
    root = many(tmp_path, "cat", "dog")
    for path in list(root.rglob("*.jpg")):
        mask(path.with_suffix(".png"), [0, 1])
    assert len(find_folder(root, val_fraction=0).splits["train"]) == 6


def test_a_photograph_of_a_label_is_a_picture(tmp_path):
    root = many(tmp_path, "cat", "dog")
    picture(root / "cat" / "cat0_label.jpg")
    assert len(find_folder(root, val_fraction=0).splits["train"]) == 7


def test_a_name_that_ends_like_a_mask_is_a_picture_where_it_stands_alone(tmp_path):
    root = many(tmp_path, "cat", "dog")
    picture(root / "cat" / "carnival_mask.jpg")
    assert len(find_folder(root, val_fraction=0).splits["train"]) == 7


def test_links_are_followed_and_circles_end(tmp_path):
    root = many(tmp_path / "own", "cat", "dog")
    many(tmp_path / "disk", "horse")
    os.symlink(tmp_path / "disk" / "horse", root / "horse")
    os.symlink(root, root / "cat" / "back")
    listing = find_folder(root, val_fraction=0)
    assert names_of(listing) == ["cat", "dog", "horse"] and len(listing.splits["train"]) == 9
    assert any("1 link to a folder that was entered before" in note for note in listing.notes)


def test_what_a_link_leads_to_nowhere_is_passed_over(tmp_path):
    root = many(tmp_path, "cat", "dog")
    os.symlink(tmp_path / "gone", root / "cat" / "gone.jpg")
    assert any("1 broken link" in note for note in find_folder(root, val_fraction=0).notes)


def test_the_template_lists_no_masks_and_no_system_files(tmp_path):
    root = many(tmp_path, "cat", "@eaDir")
    mask(root / "cat" / "cat0_mask.png", [1])
    lines = write_template(root).read_text("utf-8-sig").splitlines()
    assert lines == ["image,tags", "cat/cat0.jpg,", "cat/cat1.jpg,", "cat/cat2.jpg,"]


def noise(path, seed, shape=(24, 24, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)


def coloured(path):
    pixels = np.zeros((24, 24, 3), np.uint8)
    pixels[:12] = (128, 0, 0)
    Image.fromarray(pixels).save(path)


def test_masks_in_colours_beside_their_photographs_are_no_pictures(tmp_path):
    for k, name in enumerate(("cat/a", "cat/b", "dog/c")):
        noise(tmp_path / f"{name}.jpg", k)
        coloured(tmp_path / f"{name}.png")
    listing = find_folder(tmp_path, val_fraction=0)
    assert [sample.image.suffix for sample in listing.splits["train"]] == [".jpg"] * 3
    assert any(
        note.startswith("3 files such as cat/a.png are masks beside their pictures") for note in listing.notes
    )


@pytest.mark.parametrize(
    "name", ["{}Mask", "{}_L", "{}.jpg", "{}.jpg___fuse", "{}_mask_cat", "matte{}", "{}"]
)
def test_what_looks_like_a_mask_beside_a_photograph_of_its_name_is_no_picture(tmp_path, name):
    for k, stem in enumerate(("cat/a0", "cat/a01", "dog/c")):
        photograph = tmp_path / f"{stem}.jpg"
        noise(photograph, k)
        coloured(photograph.with_name(f"{name.format(photograph.stem)}.png"))
    noise(tmp_path / "dog" / "c2.png", 9)
    coloured(tmp_path / "dog" / "drawing.png")
    listing = find_folder(tmp_path, val_fraction=0)
    pictures = {sample.image.name for sample in listing.splits["train"]}
    assert pictures == {"a0.jpg", "a01.jpg", "c.jpg", "c2.png", "drawing.png"}
    assert any(note.startswith("3 files such as cat/") for note in listing.notes)


def test_a_link_to_a_class_beside_it_gives_no_name(tmp_path):
    """Whatever order a disk lists them in."""
    root = many(tmp_path, "dog", "zebra")
    (root / "animal").symlink_to(root / "zebra")
    listing = find_folder(root, val_fraction=0)
    assert names_of(listing) == ["dog", "zebra"]
    assert any("1 link to a folder that was entered before (animal)" in note for note in listing.notes)


def test_grey_photographs_beside_others_are_pictures_and_it_is_said(tmp_path):
    for k, name in enumerate(("cat/a", "dog/c")):
        noise(tmp_path / f"{name}.jpg", k)
        noise(tmp_path / f"{name}.png", k + 5, (24, 24))
    listing = find_folder(tmp_path, val_fraction=0)
    assert len(listing.splits["train"]) == 4
    assert any(
        note.startswith("4 files such as cat/a.jpg and cat/a.png differ in their ending")
        for note in listing.notes
    )


@pytest.mark.parametrize(
    "name", ["mask_{}.png", "{}_overlay.jpg", "overlay-{}.png", "gt_{}.png", "{}_labelIds.png"]
)
def test_masks_and_overlays_by_any_name_are_no_pictures(tmp_path, name):
    root = many(tmp_path, "cat", "dog")
    for path in list(root.rglob("*.jpg")):
        noise(path.with_name(name.format(path.stem)), 1)
    listing = find_folder(root, val_fraction=0)
    assert len(listing.splits["train"]) == 6
    assert any(
        "6 files such as cat/" in n and "list those that are photographs in tags.csv" in n
        for n in listing.notes
    )


def test_masks_in_a_folder_of_their_own_below_a_class_are_no_pictures(tmp_path):
    root = many(tmp_path, "cat", "dog")
    mask(root / "cat" / "masks" / "cat0.png", [1])
    mask(root / "dog" / "7" / "mask.png", [0, 1])
    picture(root / "dog" / "7" / "image.jpg")
    listing = find_folder(root, val_fraction=0)
    assert len(listing.splits["train"]) == 7
    assert any("left out: 1 in cat/masks/" in note for note in listing.notes)
    assert any("1 files such as dog/7/mask.png are masks" in note for note in listing.notes)


def test_a_folder_of_the_background_is_no_class(tmp_path):
    listing = find_folder(many(tmp_path, "crack", "_background_"), val_fraction=0)
    assert [(info.name, info.mask_id) for info in listing.classes] == [("crack", 1)]
    assert len(listing.splits["train"]) == 3 and len(listing.untagged) == 3
    assert any("3 pictures are tagged as background, which is no class" in note for note in listing.notes)
    assert any("shows crack, 3 pictures without a tag are left out" in note for note in listing.notes)


def test_folders_in_two_unicode_forms_are_one_class(tmp_path):
    picture(tmp_path / "caf\u00e9" / "a.jpg")
    picture(tmp_path / "cafe\u0301" / "b.jpg")
    picture(tmp_path / "dog" / "c.jpg")
    assert names_of(find_folder(tmp_path, val_fraction=0)) == ["caf\u00e9", "dog"]
