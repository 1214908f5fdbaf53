"""Masks beside the tags of their pictures: contradictions are named, and refused where scores would be wrong."""

import json

import numpy as np
import pytest
from PIL import Image

from wsfcn_lib.data.classes import voc_colour
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import TURNS, open_image, open_mask, read_image, read_mask
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
    assert "1 of 6 masks contradict their picture's tags, first p0.png: look" in notes
    assert "1 of 6 masks show classes that their picture's tags lack, first p3.png (dog)" in notes


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
    assert any(note.startswith("2 of 6 masks contradict their picture's tags") for note in notes)


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
        assert "EXIF turns the picture (orientation 6)" in turned[0]
    else:
        assert "1 pictures with masks are turned or mirrored by EXIF at the same size" in turned[0]


def many(root, classes, tags, ids, **options):
    """Pictures of which `tags` says the classes, and `ids` what their masks hold, in words of letters."""
    rng, lines = np.random.default_rng(0), ["image,tags"]
    for k, (tagged, numbers) in enumerate(zip(tags, ids, strict=True)):
        save(root / f"p{k}.png", rng.integers(0, 256, (SIZE[1], SIZE[0], 3)))
        lines.append(f"p{k}.png,{';'.join(classes[number - 1] for number in tagged)}")
        pixels = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        for column, number in enumerate(numbers):
            pixels[5:15, 5 * column : 5 * column + 5] = number
        save(root / "masks" / f"p{k}.png", pixels)
    (root / "tags.csv").write_text("\n".join(lines))
    return SourceSettings(dataset="folder", root=str(root))


ABCD = ("ape", "bat", "cow", "dog")
PAIRS = [(1, 2), (2, 3), (3, 4), (1, 4), (1, 3), (2, 4), (1,), (2,), (3,), (4,)]


def through(order, tags=PAIRS):
    return [tuple(order[number] for number in tagged) for tagged in tags]


@pytest.mark.parametrize("odd", [0, 1], ids=["all alike", "one irregular mask"])
@pytest.mark.parametrize(
    "order, said",
    [
        ({1: 2, 2: 3, 3: 4, 4: 1}, "another order of the classes: 1 is dog, 2 is ape, 3 is bat, 4 is cow"),
        ({1: 1, 2: 2, 3: 4, 4: 3}, "another order of the classes: 3 is dog, 4 is cow"),
        ({1: 2, 2: 3, 3: 4, 4: 5}, "All ids are one too large"),
        ({1: 0, 2: 1, 3: 2, 4: 3}, "All ids are one too small"),
        ({1: 8, 2: 9, 3: 10, 4: 11}, "All ids are 7 too large"),
    ],
)
def test_another_numbering_is_found_among_several_tags(tmp_path, order, said, odd):
    masks = through(order)
    if odd:
        masks[0] = (1, 2, 3)
    with pytest.raises(DataError, match=rf"{said} \(so {10 - odd} of 10 masks fit\)") as refused:
        prepare(many(tmp_path / "own", ABCD, PAIRS, masks), tmp_path / "out")
    assert "complete the tags" not in str(refused.value)


def test_two_classes_exchanged_below_a_third_are_found(tmp_path):
    """The largest id of each mask is right, and most masks fit as they are."""
    tags = [(1, 3), (2, 3)] * 2 + [(1, 2, 3), (3,)] * 4
    chosen = many(tmp_path / "own", ABCD, tags, through({1: 2, 2: 1, 3: 3}, tags))
    with pytest.raises(
        DataError, match=r"4 of 12 masks contradict .*: 1 is bat, 2 is ape \(so 12 of 12 masks fit\)"
    ):
        prepare(chosen, tmp_path / "out")


def test_masks_of_other_pictures_are_refused(tmp_path):
    """Most differ both ways, and no order explains them."""
    masks = [(3, 4), (1, 4), (1, 2), (2, 3), (2, 4), (1, 3), (2,), (3,), (4,), (2,)]
    with pytest.raises(DataError, match="10 of 10 masks contradict .* or belong to other pictures"):
        prepare(many(tmp_path / "own", ABCD, PAIRS, masks), tmp_path / "out")


def test_a_few_masks_of_other_pictures_are_a_note(tmp_path):
    masks = [(1, 3), (2, 4), *PAIRS[2:]]
    notes = prepare(many(tmp_path / "own", ABCD, PAIRS, masks), tmp_path / "out").notes
    assert "2 of 10 masks contradict their picture's tags, first p0.png, p1.png: look at them" in notes
    assert not any("complete the tags" in note for note in notes)


def test_incomplete_tags_are_no_other_numbering(tmp_path):
    masks = [tuple({*tagged, 1}) for tagged in PAIRS]
    notes = prepare(many(tmp_path / "own", ABCD, PAIRS, masks), tmp_path / "out").notes
    (line,) = [note for note in notes if "complete the tags" in note]
    assert line.startswith("6 of 10 masks show classes that their picture's tags lack") and "(ape)" in line


def test_a_class_that_no_mask_shows_is_no_shift(tmp_path):
    tags, masks = [(1, 2)] * 4 + [(1,)], [(1,)] * 5
    notes = prepare(many(tmp_path / "own", ABCD, tags, masks), tmp_path / "out").notes
    assert any(
        note.startswith("tagged in pictures with masks, but in no mask: bat; right for") for note in notes
    )


def test_one_mask_for_all_pictures_is_named(tmp_path):
    chosen = many(tmp_path / "own", ABCD, PAIRS, [(1, 2, 3, 4)] * 10)
    notes = prepare(chosen, tmp_path / "out").notes
    assert any("10 of 10 masks are equal byte for byte, first " in note for note in notes)


def test_equal_masks_of_background_say_nothing(tmp_path):
    chosen = many(tmp_path / "own", ABCD, PAIRS[:3], [(), (2, 3), (3, 4)])
    for k in (3, 4, 5, 6):
        save(tmp_path / "own" / f"p{k}.png", np.full((SIZE[1], SIZE[0], 3), k))
        save(tmp_path / "own/masks" / f"p{k}.png", np.zeros((SIZE[1], SIZE[0])))
    lines = (tmp_path / "own/tags.csv").read_text() + "".join(f"\np{k}.png," for k in (3, 4, 5, 6))
    (tmp_path / "own/tags.csv").write_text(lines)
    assert not any("equal byte for byte" in note for note in prepare(chosen, tmp_path / "out").notes)


@pytest.mark.parametrize("inverted", [True, False])
def test_object_and_background_exchanged_is_named(tmp_path, inverted):
    chosen = own(tmp_path / "own", {})
    for k, number in RIGHT.items():
        pixels = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        pixels[5:15, k : 10 + k] = number[0]
        save(tmp_path / f"own/masks/p{k}.png", np.where(pixels, 0, number[0]) if inverted else pixels)
    notes = prepare(chosen, tmp_path / "out").notes
    line = "in 6 of 6 masks one class fills all four corners around background, first p"
    assert any(note.startswith(line) for note in notes) == inverted


@pytest.mark.parametrize("direction", range(2, 9))
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_the_note_on_turned_pictures_ends_when_its_advice_is_followed(tmp_path, direction, ending):
    chosen, exif = own(tmp_path / "own", RIGHT), Image.Exif()
    exif[0x0112] = direction
    picture, drawn = tmp_path / f"own/p0.{ending}", tmp_path / "own/masks/p0.png"
    (tmp_path / "own/p0.png").unlink()
    table = tmp_path / "own/tags.csv"
    table.write_text(table.read_text().replace("p0.png", picture.name))
    stored = np.zeros((30, 30, 3), np.uint8)
    stored[:10, :20] = 250
    save(picture, stored, exif=exif)
    save(drawn, stored[..., 0] // 250)
    (note,) = [line for line in prepare(chosen, tmp_path / "out").notes if "EXIF" in line]
    assert f"open_mask(path).transpose(Image.Transpose.{TURNS[direction]})" in note and "for p0.png" in note
    assert "open_image(path).save(path, quality=95) does, and this line ends" in note
    open_mask(drawn).transpose(Image.Transpose[TURNS[direction]]).save(drawn)
    open_image(picture).save(picture, quality=95)
    assert not any("EXIF" in line for line in prepare(chosen, tmp_path / "again").notes)
    assert ((read_image(picture)[..., 0] > 125) == np.asarray(Image.open(drawn))).all()


def palette_masks(root, colours):
    for path in (root / "masks").iterdir():
        mask = Image.open(path)
        mask.putpalette([0, 0, 0, *(value for colour in colours for value in colour)])
        mask.save(path)


def test_default_colours_in_another_order_are_no_fault_where_ids_fit_the_tags(tmp_path):
    chosen = own(tmp_path / "own", RIGHT)
    palette_masks(tmp_path / "own", [voc_colour(2), voc_colour(1)])
    report = prepare(chosen, tmp_path / "out")
    assert validate(report.manifest) == []
    assert "the classes have the colours of the masks' palette, whose ids fit the tags" in report.notes
    assert [info.colour for info in report.manifest.classes] == [voc_colour(2), voc_colour(1)]
    sample = next(s for split in report.manifest.splits for s in report.manifest.masked_samples(split))
    assert read_mask(sample.mask, report.manifest).max() == 1 + (sample.tags[1])


@pytest.mark.parametrize(
    "masks", [{k: [3 - n for n in ids] for k, ids in RIGHT.items()}, {2: [1, 2], 5: [2, 1]}]
)
def test_colours_in_another_order_stay_refused_where_tags_fit_the_colours_or_cannot_tell(tmp_path, masks):
    chosen = own(tmp_path / "own", masks)
    palette_masks(tmp_path / "own", [voc_colour(2), voc_colour(1)])
    faults = validate(prepare(chosen, tmp_path / "out").manifest)
    assert len(faults) == len(masks) and all(
        "the classes' colours in another order" in line for line in faults
    )


def test_background_that_is_numbered_as_a_class_is_found(tmp_path):
    """As in ADE20K: 1 is background, the classes follow, 0 does not occur."""
    chosen = many(tmp_path / "own", ABCD, PAIRS, PAIRS)
    for path in (tmp_path / "own/masks").iterdir():
        save(path, np.asarray(Image.open(path)) + 1)
    said = r"all have \[1\]. All ids are one too large \(so 10 of 10 masks fit\)"
    with pytest.raises(DataError, match=f"No mask has 0, which is background, and {said}"):
        prepare(chosen, tmp_path / "out")


def test_a_class_that_fills_what_no_other_does_is_no_fault(tmp_path):
    """Whole scenes are labelled, and the tags leave out the sky (1): a note, as tags may be incomplete."""
    tags = [(2,), (3,), (4,), (2, 3), (3, 4), (1, 2)]
    chosen = many(tmp_path / "own", ABCD, tags, tags)
    for path in (tmp_path / "own/masks").iterdir():
        pixels = np.asarray(Image.open(path))
        save(path, np.where(pixels == 0, 1, pixels))
    notes = prepare(chosen, tmp_path / "out").notes
    assert any(note.startswith("5 of 6 masks show classes that their picture's tags lack") for note in notes)
