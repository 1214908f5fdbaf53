import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from factories import mask, picture
from wsfcn_lib.data import manifest as module
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample, validate, write_lists, write_manifest
from wsfcn_lib.runs.storage import atomic_write

CLASSES = (
    ClassInfo(name="cat", mask_id=8, colour=(64, 0, 0)),
    ClassInfo(name="dog", mask_id=12, colour=(64, 0, 128)),
)


@pytest.fixture
def made(tmp_path) -> Manifest:
    """Two training images with masks, one validation image with a mask, one test image without."""
    tags = {"train0": (True, False), "train1": (True, True), "val0": (False, True), "test0": (False, False)}
    samples = {"train": [], "val": [], "test": []}
    for name, shown in tags.items():
        truth = None if name == "test0" else mask(tmp_path / f"{name}_m.png", [12])
        sample = Sample(name, picture(tmp_path / f"{name}.png"), shown, truth)
        samples[name[:-1]].append(sample)
    return write_manifest(tmp_path / "prepared", CLASSES, samples)


def lines(manifest: Manifest, name: str, *rows: str) -> None:
    (manifest.folder / name).write_text("\n".join(rows) + "\n")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_manifest_survives_writing_and_reading(made):
    again = Manifest.load(made.folder)
    assert again.classes == CLASSES and again.num_classes == 3 and again.names == ("background", "cat", "dog")
    assert again.mask_ids == (0, 8, 12)
    assert again.palette[[0, 2, 255]].tolist() == [[0, 0, 0], [64, 0, 128], [224, 224, 192]]
    tags = [(sample.name, sample.tags) for sample in again.samples("train")]
    assert tags == [("train0", (True, False)), ("train1", (True, True))]
    assert again.samples("val")[0].mask.is_file() and again.samples("test")[0].mask is None
    assert again.splits == ("train", "val", "test")
    assert validate(again) == []


def test_training_samples_never_name_a_mask(made):
    assert all(sample.mask is None for sample in made.samples("train"))
    assert "mask" not in (made.folder / "train.csv").read_text()
    masks = made.train_masks()
    assert list(masks) == ["train0", "train1"] and all(path.is_file() for path in masks.values())
    assert [sample.mask for sample in made.masked_samples("train")] == list(masks.values())
    assert made.masked_samples("val") == made.samples("val")
    lines(made, "train.csv", "image,tags,mask", "../train0.png,cat,../train0_m.png")
    assert made.samples("train")[0].mask is None


def test_folder_and_pictures_move_together(made, tmp_path):
    rows = list(csv.DictReader(open(made.folder / "val.csv")))
    assert rows == [{"image": "../val0.png", "tags": "dog", "mask": "../val0_m.png"}]
    tmp_path.rename(tmp_path.with_name("moved"))
    assert validate(Manifest.load(tmp_path.with_name("moved") / "prepared")) == []


def test_equal_lists_are_not_written_again(made):
    before = {path: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    samples = {split: made.masked_samples(split) for split in made.splits}
    assert write_lists(made, samples) == []
    assert {path: path.stat().st_mtime_ns for path in made.folder.iterdir()} == before


@pytest.mark.parametrize("name", ["train.csv", "val.csv", "test.csv", "train_masks.csv", "classes.json"])
def test_a_list_that_is_replaced_is_kept_beside_it(made, tmp_path, name):
    """Whoever wrote it, and however often: nothing that was in a list is lost."""
    samples = {"train": [Sample("train0", tmp_path / "train0.png", (False, True))]}
    edits = []
    for blanks in (" ", "  "):
        path = made.folder / name
        edits.append(path.read_text() + blanks + "\n" if path.is_file() else "by hand" + blanks)
        path.write_text(edits[-1])
        notes = write_lists(made, samples)
        (note,) = [note for note in notes if note.startswith(f"{name} was another list before")]
        assert (made.folder / note.rsplit(" ", 1)[1]).read_text() == edits[-1]
    kept = [text for file, text in contents(made.folder).items() if file.startswith(f"{name}.before-")]
    assert set(edits) <= set(kept)
    assert Manifest.load(made.folder).splits == ("train",) and made.train_masks() == {}


def test_interrupted_writing_is_noticed_and_begun_again(made, monkeypatch):
    samples = {"train": [replace(made.samples("train")[0], tags=(False, True))], "val": made.samples("val")}
    before = contents(made.folder)

    def full(path, data):
        if path.name == "train.csv":
            raise OSError(28, "No space left on device")
        atomic_write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(module, "atomic_write", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                write_manifest(made.folder, CLASSES, samples)
            with pytest.raises(DataError, match="classes.json is missing"):
                Manifest.load(made.folder)
    again = write_manifest(made.folder, CLASSES, samples)
    assert again.samples("train")[0].tags == (False, True) and again.splits == ("train", "val")
    assert set(before.values()) <= set(contents(made.folder).values())


def test_checksums_follow_the_lists(made):
    before = made.checksums()
    assert set(before) == {"classes.json", "train.csv", "val.csv", "test.csv", "train_masks.csv"}
    lines(made, "val.csv", "image,tags,mask", "../val0.png,cat,../val0_m.png")
    after = made.checksums()
    assert [name for name in before if before[name] != after[name]] == ["val.csv"]


def test_validate_reports_every_fault_and_goes_on(made, tmp_path):
    (tmp_path / "train0.png").unlink()
    Image.new("RGB", (10, 8)).save(tmp_path / "train1.png")
    mask(tmp_path / "val0_m.png", [7])
    lines(made, "test.csv", "image,tags,mask", "../val0.png,dog,")
    faults = "\n".join(validate(made))
    assert faults.count("\n") == 3
    for fault in (
        "train0.png: the file is missing",
        "train1_m.png: the mask is (6, 5), its image (10, 8)",
        "val0_m.png: the mask ids [7]",
        "listed in both val.csv and test.csv: ",
    ):
        assert fault in faults


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("image", "a.png"), r"train.csv: line 1 must name the columns image,tags .*, found \['image'\]"),
        (
            ("image,tags", "a.png,cat", "b.png,horse"),
            r"train.csv, line 3: no class is called \['horse'\]; .*json \(cat, dog",
        ),
        (("image,tags", "a.png,"), r"train.csv, line 2: a.png has no tag, .* tag it or remove the line"),
        (("image,tags", "a.png"), r"line 2: a.png has no tag"),
        (("image,tags", "a.png,cat,dog"), r"line 2: more cells than columns"),
        (("image,tags", ",cat"), r"line 2: the image cell is empty"),
        (
            ("image,tags", "x/a.png,cat", "y/a.jpg,dog"),
            r"line 3: a second image is called 'a' \(also .*train.csv, line 2\)",
        ),
    ],
)
def test_a_bad_list_names_file_line_rule_and_remedy(made, rows, message):
    lines(made, "train.csv", *rows)
    with pytest.raises(DataError, match=message):
        Manifest.load(made.folder)


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
