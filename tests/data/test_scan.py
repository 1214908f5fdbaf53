"""Folders as cameras, disks and other programs leave them: what is no class and no picture is counted."""

import os

import pytest

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


@pytest.mark.parametrize("system", ["@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", ".cache"])
@pytest.mark.parametrize("place", ["", "cat/"])
def test_folders_of_the_system_are_no_classes(tmp_path, system, place):
    root = many(tmp_path, "cat", "dog", f"{place}{system}")
    listing = find_folder(root, val_fraction=0)
    assert names_of(listing) == ["cat", "dog"] and len(listing.splits["train"]) == 6
    assert any(f"1 system or hidden folder ({place}{system})" in note for note in listing.notes)


@pytest.mark.parametrize("part", ["images", "annotations", "ground_truth", "Mask", "labels"])
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
