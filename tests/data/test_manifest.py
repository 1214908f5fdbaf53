import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsfcn_lib.data import manifest as record
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import IGNORE, read_image, read_mask
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample, validate, write_manifest
from wsfcn_lib.runs.storage import atomic_write

CLASSES = (
    ClassInfo(name="cat", mask_id=8, colour=(64, 0, 0)),
    ClassInfo(name="dog", mask_id=12, colour=(64, 0, 128)),
)


def picture(path: Path, width: int = 12, height: int = 8) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def mask_of(path: Path, ids: object) -> Path:
    Image.fromarray(np.broadcast_to(np.uint8(ids), (8, 12)).copy()).save(path)
    return path


@pytest.fixture
def made(tmp_path) -> Manifest:
    """Two training images with masks, one validation image with a mask, one test image without."""
    samples = {}
    for split, tags in {
        "train": [(True, False), (True, True)],
        "val": [(False, True)],
        "test": [(False, False)],
    }.items():
        pairs = [(f"{split}{i}", tag) for i, tag in enumerate(tags)]
        samples[split] = [Sample(name, picture(tmp_path / f"{name}.png"), tag) for name, tag in pairs]
    masks = {name: mask_of(tmp_path / f"{name}_m.png", 12) for name in ("train0", "train1", "val0")}
    samples = {
        key: [Sample(s.name, s.image, s.tags, masks.get(s.name)) for s in found]
        for key, found in samples.items()
    }
    return write_manifest(tmp_path / "prepared", CLASSES, samples)


def lines(manifest: Manifest, name: str, *rows: str) -> None:
    (manifest.folder / name).write_text("\n".join(rows) + "\n")


def test_a_manifest_survives_writing_and_reading(made):
    again = Manifest.load(made.folder)
    assert again.classes == CLASSES and again.num_classes == 3 and again.names == ("background", "cat", "dog")
    assert [(s.name, s.tags) for s in again.samples("train")] == [
        ("train0", (True, False)),
        ("train1", (True, True)),
    ]
    assert again.samples("val")[0].mask.is_file() and again.samples("test")[0].mask is None
    assert again.splits == ("train", "val", "test")
    assert validate(again) == []


def test_training_samples_never_name_a_mask(made):
    assert all(sample.mask is None for sample in made.samples("train"))
    assert "mask" not in (made.folder / "train.csv").read_text()
    assert {name: path.is_file() for name, path in made.train_masks().items()} == {
        "train0": True,
        "train1": True,
    }
    lines(made, "train.csv", "image,tags,mask", "../train0.png,cat,../train0_m.png")
    assert made.samples("train")[0].mask is None


def test_folder_and_pictures_move_together(made, tmp_path):
    rows = list(csv.DictReader(open(made.folder / "val.csv")))
    assert rows == [{"image": "../val0.png", "tags": "dog", "mask": "../val0_m.png"}]
    tmp_path.rename(tmp_path.with_name("moved"))
    assert validate(Manifest.load(tmp_path.with_name("moved") / "prepared")) == []


def test_writing_again_removes_the_lists_of_before(made, tmp_path):
    slim = write_manifest(
        made.folder, CLASSES, {"train": [Sample("train0", tmp_path / "train0.png", (True, False))]}
    )
    assert slim.splits == ("train",) and slim.train_masks() == {}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["train.csv", "val.csv", "test.csv", "train_masks.csv", "classes.json"])
@pytest.mark.parametrize("again", ["other lists", "fewer lists"])
def test_a_list_changed_by_hand_is_neither_replaced_nor_removed(made, tmp_path, name, again):
    path, samples = made.folder / name, [Sample("train0", tmp_path / "train0.png", (False, True))]
    path.write_text(path.read_text() + " \n")
    before = contents(made.folder)
    new = {split: samples for split in (("train", "val", "test") if again == "other lists" else ("train",))}
    with pytest.raises(
        DataError, match=rf"{name} was written or changed by hand, .*: name another folder as `data`, or move"
    ):
        write_manifest(made.folder, CLASSES, new)
    assert contents(made.folder) == before
    path.rename(tmp_path / "mine")
    assert write_manifest(made.folder, CLASSES, new).splits == tuple(new)
    assert write_manifest(made.folder, CLASSES, {"train": samples, "val": samples}).splits == (
        "train",
        "val",
    ), "both ours"


def test_a_list_written_by_hand_stays_the_users(made):
    (made.folder / "prepared.json").unlink()  # nothing tells who wrote these
    before, samples = (
        contents(made.folder),
        {split: made.samples(split) for split in ("train", "val", "test")},
    )
    samples["train"] = [replace(sample, mask=made.train_masks()[sample.name]) for sample in samples["train"]]
    for _ in range(2):
        assert write_manifest(made.folder, CLASSES, samples) == made
        assert contents(made.folder) == before | {"prepared.json": "{}\n"}, (
            "equal lists may be written, and are not claimed"
        )
        with pytest.raises(DataError, match="test.csv was written or changed by hand"):
            write_manifest(made.folder, CLASSES, {"train": samples["train"], "val": samples["val"]})
    for name in before:
        (made.folder / name).unlink()
    write_manifest(made.folder, CLASSES, samples)
    assert write_manifest(made.folder, CLASSES, {"train": samples["train"][:1]}).splits == ("train",), (
        "now they are ours"
    )


def test_interrupted_writing_is_begun_again(made, tmp_path, monkeypatch):
    new = {"train": [Sample("train0", tmp_path / "train0.png", (False, True))], "val": made.samples("val")}

    def full(path, data):
        if path.name == "val.csv":
            raise OSError(28, "No space left on device")
        atomic_write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(record, "atomic_write", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                write_manifest(made.folder, CLASSES, new)
    again = write_manifest(made.folder, CLASSES, new)
    assert again.samples("train")[0].tags == (False, True) and again.splits == ("train", "val")


def test_checksums_follow_the_lists(made):
    before = made.checksums()
    assert set(before) == {"classes.json", "train.csv", "val.csv", "test.csv", "train_masks.csv"}
    lines(made, "val.csv", "image,tags,mask", "../val0.png,cat,../val0_m.png")
    after = made.checksums()
    assert [name for name in before if before[name] != after[name]] == ["val.csv"]


def test_masks_are_mapped_to_class_indices(made, tmp_path):
    ids = np.zeros((8, 12), np.uint8)
    ids[0], ids[1], ids[2] = 8, 12, 255
    found = read_mask(mask_of(tmp_path / "m.png", ids), made)
    assert found.dtype == np.uint8
    assert [found[row, 0] for row in range(4)] == [1, 2, IGNORE, 0]
    assert made.palette.shape == (256, 3) and made.palette[[0, 2, 255]].tolist() == [
        [0, 0, 0],
        [64, 0, 128],
        [224, 224, 192],
    ]


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "p.jpg", exif=exif)
    Image.new("L", (20, 10)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "p.jpg").shape == (20, 10, 3)
    assert read_image(tmp_path / "grey.png").shape == (10, 20, 3)


def test_bad_pictures_are_named_with_their_fault(tmp_path, made):
    with pytest.raises(DataError, match=r"absent.jpg: the file is missing; restore it"):
        read_image(tmp_path / "absent.jpg")
    whole = picture(tmp_path / "whole.png", 64, 64).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut.png: not a readable picture, perhaps truncated"):
        read_image(tmp_path / "cut.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep.png: .* more than 8 bits"):
        read_image(tmp_path / "deep.png")
    with pytest.raises(
        DataError, match=r"odd.png: the mask ids \[9\] belong to no class, allowed are \[0, 8, 12, 255\]"
    ):
        read_mask(mask_of(tmp_path / "odd.png", 9), made)
    with pytest.raises(
        DataError, match=r"whole.png: a mask must be a palette or grey picture .* this one is RGB"
    ):
        read_mask(tmp_path / "whole.png", made)


def test_validate_reports_every_fault_and_goes_on(made, tmp_path):
    (tmp_path / "train0.png").unlink()
    picture(tmp_path / "train1.png", 10, 8)
    mask_of(tmp_path / "val0_m.png", 7)
    lines(made, "test.csv", "image,tags,mask", "../val0.png,dog,")
    faults = "\n".join(validate(made))
    assert faults.count("\n") == 3
    for fault in (
        "train0.png: the file is missing",
        "is (12, 8), its image",
        "ids [7]",
        "listed in both val.csv and test.csv",
    ):
        assert fault in faults


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("image", "a.png"), r"train.csv: the columns \['tags'\] are missing, found \['image'\]"),
        (
            ("image,tags", "a.png,cat", "b.png,horse"),
            r"train.csv, line 3: no class is called \['horse'\]; .*json \(cat, dog",
        ),
        (("image,tags", "a.png,"), r"train.csv, line 2: a.png has no tag, .* tag it or remove the line"),
        (("image,tags", "a.png"), r"line 2: a.png has no tag"),
        (("image,tags", ",cat"), r"line 2: the image cell is empty"),
        (
            ("image,tags", "x/a.png,cat", "y/a.jpg,dog"),
            r"line 3: a second image is called 'a' \(also line 2\)",
        ),
        ((), r"train.csv: the columns \['image', 'tags'\] are missing"),
    ],
)
def test_a_bad_list_names_file_line_rule_and_remedy(made, rows, message):
    lines(made, "train.csv", *rows)
    with pytest.raises(DataError, match=message):
        Manifest.load(made.folder)


def test_lists_from_a_spreadsheet_are_read(made):
    (made.folder / "train.csv").write_bytes(b"\xef\xbb\xbfimage,tags,note\r\nb c.png, cat ; dog ,x\r\n")
    sample = Manifest.load(made.folder).samples("train")[0]
    assert sample.tags == (True, True) and sample.image.name == "b c.png"


def test_missing_lists_say_what_makes_them(made, tmp_path):
    with pytest.raises(DataError, match=r"classes.json is missing: .*01_prepare_data"):
        Manifest.load(tmp_path / "nowhere")
    (made.folder / "val.csv").unlink()
    with pytest.raises(DataError, match=r"val.csv is missing: there is no list of 'val'"):
        Manifest.load(made.folder).samples("val")
    with pytest.raises(DataError, match="no split 'dev'; choose one of train, val, test"):
        made.samples("dev")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_id": 255}, "mask_id"),
        ({"name": "background"}, "is taken"),
        ({"name": "a;b"}, "no ';'"),
        ({"colour": [0, 0, 300]}, "colour"),
        ({"color": [0, 0, 0]}, "color"),
        ({"name": "dog"}, "each name must occur once"),
        ({"mask_id": 12}, "each mask_id must occur once"),
    ],
)
def test_bad_classes_are_refused(made, change, message):
    entries = [info.model_dump() for info in CLASSES]
    entries[0] |= change
    (made.folder / "classes.json").write_text(json.dumps(entries))
    with pytest.raises(DataError, match=f"classes.json(.|\n)*{message}"):
        Manifest.load(made.folder)


@pytest.mark.parametrize("text", ["[", "{}", "[1]", '[{"name": "cat"}]', '"cat"'])
def test_a_malformed_class_list_is_refused(made, text):
    (made.folder / "classes.json").write_text(text)
    with pytest.raises(DataError, match="classes.json"):
        Manifest.load(made.folder)
