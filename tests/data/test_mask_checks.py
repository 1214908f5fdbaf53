"""Masks beside the tags of their pictures: contradictions are named, and refused where scores would be wrong."""

import json

import numpy as np
import pytest
from PIL import Image

from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.manifest import validate
from wsfcn_lib.data.preparation import SourceSettings, prepare

SIZE = (40, 30)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path, **options)


def own(root, masks, exif=None):
    """Pictures tagged cat (id 1), dog (id 2) or both; `masks` maps a picture's name to the ids in its mask."""
    rng, lines = np.random.default_rng(0), ["image,tags"]
    tags = ["cat", "dog", "cat;dog"]
    for k in range(6):
        save(root / f"p{k}.png", rng.integers(0, 256, (SIZE[1], SIZE[0], 3)))
        lines.append(f"p{k}.png,{tags[k % 3]}")
        if k in masks:
            pixels = np.zeros((SIZE[1], SIZE[0]), np.uint8)
            for column, number in enumerate(masks[k]):
                pixels[5:15, 5 * column : 5 * column + 5] = number
            save(root / "masks" / f"p{k}.png", pixels)
    (root / "tags.csv").write_text("\n".join(lines))
    return SourceSettings(dataset="folder", root=str(root))


RIGHT = {0: [1], 1: [2], 2: [1, 2], 3: [1], 4: [2], 5: [2, 1]}


def test_masks_that_fit_say_nothing(tmp_path):
    notes = prepare(own(tmp_path / "own", RIGHT), tmp_path / "out").notes
    assert not any(
        "mask" in note for note in notes if not note.startswith(("masks are read", "the ", "val "))
    )


@pytest.mark.parametrize(
    "masks, cause",
    [
        (
            {k: [255] for k in range(6)},
            r"p0.png has the ids \[255\], .* tagged cat \(id 1\).* 0 and 255 only",
        ),
        ({0: [0], 1: [1], 2: [0, 1], 3: [0], 4: [1], 5: [1]}, "All ids are one too small"),
        ({0: [2], 1: [1], 3: [2], 4: [1]}, "another order of the classes"),
        ({0: [0], 1: [0], 3: [0], 4: [0]}, "They are background only"),
    ],
)
def test_masks_that_cannot_be_right_are_refused(tmp_path, masks, cause):
    with pytest.raises(DataError, match=cause):
        prepare(own(tmp_path / "own", masks), tmp_path / "out")


def test_ids_above_the_classes_are_named(tmp_path):
    """All ids one too large: some belong to no class, so the masks are refused one by one."""
    chosen = own(tmp_path / "own", {k: [number + 1 for number in ids] for k, ids in RIGHT.items()})
    with pytest.raises(DataError, match="masks show no class|one too large"):
        prepare(chosen, tmp_path / "out")


def test_single_contradictions_are_notes(tmp_path):
    notes = "\n".join(prepare(own(tmp_path / "own", RIGHT | {0: [2], 3: [1, 2]}), tmp_path / "out").notes)
    assert "1 of 6 masks show no class of their picture's tags, first p0.png" in notes
    assert "2 of 6 masks show classes that their picture's tags lack, first p0.png (dog)" in notes


def test_single_masks_of_0_and_255_are_named(tmp_path):
    notes = prepare(own(tmp_path / "own", RIGHT | {4: [255]}), tmp_path / "out").notes
    assert any(note.startswith("1 masks hold 0 and 255 only, first p4.png") for note in notes)


def test_a_class_that_no_mask_shows_is_named(tmp_path):
    chosen = own(tmp_path / "own", {0: [1], 2: [1], 3: [1], 5: [1]})
    notes = prepare(chosen, tmp_path / "out").notes
    assert any(
        note.startswith("tagged in pictures with masks, but in no mask: dog; right for") for note in notes
    )


def test_masks_of_0_and_255_are_no_empty_masks(tmp_path):
    chosen = own(tmp_path / "own", {0: [1], 1: [255], 2: [1], 3: [1], 4: [255], 5: [1]})
    notes = prepare(chosen, tmp_path / "out").notes
    assert any(note.startswith("2 of 6 masks show no class of their picture's tags") for note in notes)


@pytest.mark.parametrize("nothing", ["no crack", "background of stone", "a clean wall"])
def test_empty_masks_are_right_where_a_tag_says_that_nothing_is_there(tmp_path, nothing):
    """Most pictures show no crack: their tag, which the kit advises, is in no mask."""
    save(tmp_path / "own" / "masks" / "p0.png", np.eye(*SIZE[::-1]))
    lines = ["image,tags", "p0.png,crack"]
    save(tmp_path / "own" / "p0.png", np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3)))
    for k in range(1, 9):
        save(tmp_path / "own" / f"p{k}.png", np.random.default_rng(k).integers(0, 256, (*SIZE[::-1], 3)))
        save(tmp_path / "own" / "masks" / f"p{k}.png", np.zeros(SIZE[::-1]))
        lines.append(f"p{k}.png,{nothing}")
    (tmp_path / "own" / "tags.csv").write_text("\n".join(lines))
    classes = [{"name": "crack", "mask_id": 1}, {"name": nothing, "mask_id": 2}]
    (tmp_path / "own" / "classes.json").write_text(json.dumps(classes))
    notes = prepare(SourceSettings(dataset="folder", root=str(tmp_path / "own")), tmp_path / "out").notes
    assert not any("show no class" in note for note in notes)
    assert any(f"in no mask: {nothing}" in note for note in notes)


@pytest.mark.parametrize("direction, size", [(3, SIZE), (2, SIZE), (6, (30, 30)), (6, SIZE)])
def test_pictures_turned_by_exif_are_named(tmp_path, direction, size):
    chosen = own(tmp_path / "own", RIGHT)
    exif = Image.Exif()
    exif[0x0112] = direction
    Image.new("RGB", size).save(tmp_path / "own/p0.png", exif=exif)
    if size != SIZE:
        Image.new("L", size, 1).save(tmp_path / "own/masks/p0.png")
    report = prepare(chosen, tmp_path / "out")
    lines = report.notes + validate(report.manifest)
    turned = [line for line in lines if "EXIF" in line]
    assert len(turned) == 1 and "p0.png" in turned[0]
    if (direction, size) == (6, SIZE):
        assert "make them equal: EXIF turns the picture (orientation 6)" in turned[0]
    else:
        assert "1 pictures with masks are turned or mirrored by EXIF at the same size" in turned[0]
