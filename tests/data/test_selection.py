"""Choosing from a source: lists of names, classes, copies that shrink; all else stays as it was."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from wsfcn_lib.data.classes import voc_palette
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import open_mask, read_image
from wsfcn_lib.data.listing import DatasetListing
from wsfcn_lib.data.manifest import ClassInfo, Sample
from wsfcn_lib.data.selection import copy_pictures, select_classes, select_images

CAT, DOG, COW = (
    ClassInfo(name=name, mask_id=k, colour=(k, k, k)) for name, k in (("cat", 8), ("dog", 12), ("cow", 10))
)
ALL = (CAT, DOG, COW)


def offered(folder, train=("a", "b", "c"), val=("d",), **more):
    """Train and val of the classes cat, dog, cow; images show cat, dog, cow in turn."""
    names = [*train, *val]
    samples = [
        Sample(n, folder / f"{n}.jpg", tuple(k % 3 == c for c in range(3))) for k, n in enumerate(names)
    ]
    return DatasetListing(
        (CAT, DOG, COW), {"train": samples[: len(train)], "val": samples[len(train) :]}, **more
    )


def names_of(listing, split):
    return [sample.name for sample in listing.splits[split]]


def write(path, *lines, encoding="utf-8"):
    path.write_text("\n".join(lines), encoding=encoding)
    return path


def test_a_list_chooses_in_the_order_of_the_source(tmp_path):
    source = offered(tmp_path)
    chosen = select_images(source, {"train": write(tmp_path / "list.txt", "c", "a")})
    assert names_of(chosen, "train") == ["a", "c"] and names_of(chosen, "val") == ["d"]
    assert chosen.missing == [] and names_of(source, "train") == ["a", "b", "c"], "the source is as it was"
    assert select_images(source, {}) == source


def test_what_a_list_asks_for_and_the_source_lacks_is_missing(tmp_path):
    lines = ["train: x: x.jpg", "train: y: y.jpg", "val: x: x.png"]
    source = offered(tmp_path, missing=lines, untagged=["u", "v"])
    chosen = select_images(source, {"train": write(tmp_path / "list.txt", "b", "y", "ghost", "u", "alien")})
    assert chosen.missing == [
        "train: y: y.jpg",
        "val: x: x.png",  # of a split without a list all that was missing stays
        "train: alien: in the list list.txt, not in the source",
        "train: ghost: in the list list.txt, not in the source",
    ]
    assert chosen.untagged == ["u"], "v was not asked for"
    assert source.missing == lines and source.untagged == ["u", "v"]


def test_an_untagged_image_of_training_is_missing_in_another_split(tmp_path):
    chosen = select_images(offered(tmp_path, untagged=["u"]), {"val": write(tmp_path / "list.txt", "d", "u")})
    assert chosen.missing == ["val: u: in the list list.txt, not in the source"] and chosen.untagged == ["u"]


def test_a_list_for_nothing_is_refused(tmp_path):
    path = write(tmp_path / "list.txt", "a", "b")
    with pytest.raises(
        DataError, match="ids names the split 'test', the source has train, val; name one of these"
    ):
        select_images(offered(tmp_path), {"test": path})
    with pytest.raises(
        DataError, match="list.txt: none of its 2 names is in the split 'val' of the source; correct the list"
    ):
        select_images(offered(tmp_path), {"val": path})


def test_long_lists_take_no_time(tmp_path):
    """Partly copied COCO: most of 30,000 names are missing; comparing name by name would take minutes."""
    names = [f"{k:06d}" for k in range(30_000)]
    source = offered(tmp_path, names[:9000], missing=[f"train: {name}: {name}.jpg" for name in names[9000:]])
    began = time.process_time()
    chosen = select_images(source, {"train": write(tmp_path / "list.txt", *names[::2])})
    assert len(chosen.splits["train"]) == 4500 and len(chosen.missing) == 10_500
    assert time.process_time() - began < 2


def test_classes_come_in_the_order_of_the_source(tmp_path):
    source = offered(tmp_path)
    chosen = select_classes(source, ["cow", "cat"])
    assert chosen.classes == (CAT, COW)
    assert [(s.name, s.tags) for s in chosen.splits["train"]] == [("a", (True, False)), ("c", (False, True))]
    assert [(s.name, s.tags) for s in chosen.splits["val"]] == [("d", (True, False))]
    assert chosen.notes == ["train: 1 images show other classes only and are left out"]
    assert source.notes == [] and len(source.splits["train"]) == 3
    assert select_classes(source, ["cat", "cow", "dog", "cat"]).classes == (CAT, DOG, COW)


def test_unlabelled_images_stay(tmp_path):
    source = offered(tmp_path)
    source.splits["val"].append(Sample("e", tmp_path / "e.jpg", (False,) * 3))
    assert names_of(select_classes(source, ["dog"]), "val") == ["e"], "d shows a cat only, e nothing at all"


def test_an_unknown_class_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"classes=\['Cat', 'horse'\] are not among the source's; choose from cat, dog, cow"
    ):
        select_classes(offered(tmp_path), ["Cat", "dog", "horse"])


def photograph(path, size=(40, 20), seed=0, exif=None):
    """Red on the left, blue on the right, a little noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 40, (size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2, 0] += 200
    pixels[:, size[0] // 2 :, 2] += 200
    options = {"exif": exif} if exif else {}
    Image.fromarray(pixels).save(path, quality=95, **options)
    return path


def mask(path, ids, size=(40, 20), kind="P"):
    """Upright stripes of ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = Image.fromarray(np.tile(np.uint8(ids)[np.arange(size[0]) * len(ids) // size[0]], (size[1], 1)))
    if kind == "P":
        labels.putpalette(voc_palette())
    labels.save(path)
    return path


@pytest.fixture
def source(tmp_path):
    """To train: large (40 x 20), small (12 x 9), and tall (10 x 30, a PNG without mask); val: like small."""
    own = tmp_path / "own"
    tags = (True, False, False)
    train = [
        Sample("large", photograph(own / "large.jpg"), tags, mask(own / "masks/large.png", [0, 8, 12, 255])),
        Sample(
            "small",
            photograph(own / "small.jpg", (12, 9)),
            tags,
            mask(own / "masks/small.png", [0, 8], (12, 9)),
        ),
        Sample("tall", photograph(own / "tall.png", (10, 30)), tags),
    ]
    val = Sample(
        "other",
        photograph(own / "other.jpg", (12, 9), 1),
        tags,
        mask(own / "masks/other.png", [12, 10], (12, 9)),
    )
    return DatasetListing((CAT, DOG, COW), {"train": train, "val": [val]}, ["val: gone: gone.jpg"])


def state(folder):
    """What lies below a folder: content, time and kind."""
    return {
        path: (path.is_file() and path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_copies_are_shrunk_and_small_pictures_kept_byte_for_byte(source, tmp_path):
    before, out = state(tmp_path / "own"), tmp_path / "out"
    copied = copy_pictures(source, out, 16, ALL)
    assert state(tmp_path / "own") == before
    assert files(out / "images") == ["large.jpg", "other.jpg", "small.jpg", "tall.jpg"]
    assert files(out / "masks") == ["large.png", "other.png", "small.png"]
    sizes = {sample.name: Image.open(sample.image).size for sample in copied.splits["train"]}
    assert sizes == {"large": (16, 8), "small": (12, 9), "tall": (5, 16)}
    large, small, tall = copied.splits["train"]
    assert (
        large.image.parent == out / "images" and large.mask == out / "masks/large.png" and tall.mask is None
    )
    assert (
        large.tags == (True, False, False)
        and copied.missing == source.missing
        and copied.classes == source.classes
    )
    assert small.image.read_bytes() == (tmp_path / "own/small.jpg").read_bytes()
    assert np.array_equal(Image.open(small.mask), Image.open(tmp_path / "own/masks/small.png"))
    pixels = read_image(large.image).astype(int)
    assert (
        (pixels[:, :6, 0] > 150).all() and (pixels[:, :6, 2] < 90).all() and (pixels[:, 10:, 2] > 150).all()
    )


def test_masks_keep_their_ids_when_they_shrink(source, tmp_path):
    shrunk = Image.open(copy_pictures(source, tmp_path / "out", 16, ALL).splits["train"][0].mask)
    assert np.array_equal(np.unique(shrunk), [0, 8, 12, 255]), "nearest neighbour mixes no ids"
    assert np.array_equal(np.asarray(shrunk)[3], np.repeat([0, 8, 12, 255], 4)), (
        "and the stripes stay where they were"
    )
    assert shrunk.mode == "P" and shrunk.getpalette()[24:27] == [8, 8, 8]


def test_foreign_ids_become_background(source, tmp_path):
    out = tmp_path / "out"
    copied = copy_pictures(replace(source, classes=(CAT, COW)), out, 0, ALL)
    assert [str(s.image.parent) for s in copied.splits["train"]] == [str(tmp_path / "own")] * 3, (
        "pictures stay where they are"
    )
    assert files(out) == ["masks/large.png", "masks/other.png"], "and so do masks without foreign ids"
    assert copied.splits["train"][1].mask == tmp_path / "own/masks/small.png"
    assert np.array_equal(np.unique(Image.open(out / "masks/large.png")), [0, 8, 255])
    assert np.array_equal(np.unique(Image.open(out / "masks/other.png")), [0, 10])
    assert Image.open(out / "masks/large.png").size == (40, 20)
    mask(tmp_path / "own/masks/large.png", [8, 12], kind="L")
    copy_pictures(replace(source, classes=(DOG, COW)), out, 16, ALL)
    grey = Image.open(out / "masks/large.png")
    assert np.array_equal(np.unique(grey), [0, 12]) and grey.getpalette()[36:39] == [12, 12, 12], (
        "grey masks too, in the classes' colours"
    )


def test_a_second_time_writes_nothing(source, tmp_path):
    out = tmp_path / "out"
    source = replace(source, classes=(CAT, COW))
    first = copy_pictures(source, out, 16, ALL)
    before = state(out)
    assert copy_pictures(source, out, 16, ALL) == first and state(out) == before


def test_what_changed_is_copied_anew(source, tmp_path):
    """Whatever the time of the file says: those from an archive are older than the copy."""
    out = tmp_path / "out"
    copy_pictures(source, out, 16, ALL)
    before = state(out)
    changed = {
        photograph(tmp_path / "own/large.jpg", seed=5): out / "images/large.jpg",  # of the same size
        photograph(tmp_path / "own/small.jpg", (12, 9), seed=6): out / "images/small.jpg",
        mask(tmp_path / "own/masks/small.png", [8, 10], (12, 9)): out / "masks/small.png",
    }
    for path in changed:
        os.utime(path, (1e9, 1e9))
    (out / "images/tall.jpg").write_bytes(b"torn")
    copy_pictures(source, out, 16, ALL)
    after = state(out)
    differ = {path for path, (content, _) in after.items() if content != before[path][0]}
    assert differ == {*changed.values()}, "and the torn copy is as it was"
    copy_pictures(source, out, 8, ALL)
    assert {max(Image.open(path).size) for path in (out / "images").iterdir()} == {8}


@pytest.mark.parametrize("max_side, classes", [(16, ALL), (0, (CAT, COW))])
def test_an_unreadable_file_is_a_missing_line(source, tmp_path, max_side, classes):
    own = tmp_path / "own"
    (own / "large.jpg").write_bytes((own / "large.jpg").read_bytes()[:300])
    (own / "masks/other.png").write_bytes(b"no picture")
    copied = copy_pictures(replace(source, classes=classes), tmp_path / "out", max_side, ALL)
    lines = copied.missing
    assert lines[0] == "val: gone: gone.jpg" and names_of(copied, "val") == []
    assert lines[-1].startswith(f"val: other: {own / 'masks/other.png'}: not a readable picture")
    if max_side:  # else no picture is opened: `validate` will
        assert len(lines) == 3 and names_of(copied, "train") == ["small", "tall"]
        assert lines[1].startswith(
            f"train: large: {own / 'large.jpg'}: not a readable picture, perhaps truncated"
        )


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene lies on the right
    own, tags = tmp_path / "own", (True, False, False)
    samples = [
        Sample(n, photograph(own / f"{n}.jpg", s, exif=exif), tags)
        for n, s in (("big", (40, 20)), ("little", (12, 8)))
    ]
    source, out = DatasetListing((CAT, DOG, COW), {"train": samples}), tmp_path / "out"
    big, little = copy_pictures(source, out, 16, ALL).splits["train"]
    assert read_image(samples[0].image).shape == (40, 20, 3)
    pixels = read_image(big.image).astype(int)
    assert (
        pixels.shape == (16, 8, 3) and (pixels[:6, :, 0] > 150).all() and (pixels[10:, :, 2] > 150).all()
    ), "red is above"
    assert little.image.read_bytes() == samples[1].image.read_bytes() and read_image(little.image).shape == (
        12,
        8,
        3,
    )
    before = state(out)
    copy_pictures(source, out, 16, ALL)
    assert state(out) == before


def test_other_names_need_copies(tmp_path):
    """Pictures of one stem: a manifest knows them by their stems, so copies get the names of samples."""
    tags, own = (True, False, False), tmp_path / "own"
    names = {"x__a_jpg": own / "x/a.jpg", "y__a_png": own / "y/a.png"}
    samples = [Sample(name, photograph(path, seed=k), tags) for k, (name, path) in enumerate(names.items())]
    plain = Sample("b", photograph(own / "b.jpg"), tags)
    copied = copy_pictures(
        DatasetListing((CAT, DOG, COW), {"train": [*samples, plain]}), tmp_path / "out", 0, ALL
    )
    images = [sample.image for sample in copied.splits["train"]]
    assert images == [
        tmp_path / "out/images/x__a_jpg.jpg",
        tmp_path / "out/images/y__a_png.png",
        own / "b.jpg",
    ]
    assert [path.read_bytes() for path in images[:2]] == [path.read_bytes() for path in names.values()]


def test_a_picture_in_two_splits_has_one_copy(source, tmp_path):
    """`validate` refuses such splits afterwards, and says why."""
    source.splits["test"] = [*source.splits["val"], source.splits["train"][0]]
    copied = copy_pictures(source, tmp_path / "out", 16, ALL)
    assert copied.splits["test"] == [*copied.splits["val"], copied.splits["train"][0]]


@pytest.mark.parametrize("place", ["images", "masks"])
def test_copies_never_replace_the_pictures_themselves(tmp_path, place):
    home, tags = tmp_path / "home", (True, False, False)
    image, truth = (
        (photograph(home / "images/a.jpg"), tmp_path / "a.png")
        if place == "images"
        else (tmp_path / "a.jpg", None)
    )
    sample = Sample(
        "a",
        image if place == "images" else photograph(image),
        tags,
        mask(truth or home / "masks/a.png", [8, 12]),
    )
    (tmp_path / "link").symlink_to(home)
    before = state(home)
    for folder in (home, tmp_path / "link"):
        with pytest.raises(
            DataError,
            match=rf"{place} is where copies go, and the source's own pictures lie there: name another",
        ):
            copy_pictures(DatasetListing((CAT, DOG, COW), {"train": [sample]}), folder, 16, ALL)
    kept = {path: value[0] for path, value in state(home).items() if value[0]}
    assert kept == {path: value[0] for path, value in before.items() if value[0]}


@pytest.mark.parametrize(
    "direction, turn", [(5, "TRANSPOSE"), (6, "ROTATE_270"), (7, "TRANSVERSE"), (8, "ROTATE_90")]
)
@pytest.mark.parametrize("max_side", [0, 16])
def test_a_mask_on_stored_pixels_is_told_before_it_is_copied(tmp_path, direction, turn, max_side):
    """The message names the user's own mask and the turn that mends it, however the pictures are copied."""
    own, exif = tmp_path / "own", Image.Exif()
    exif[0x0112] = direction
    drawn = mask(own / "masks/a.png", [8, 12])
    Image.new("RGB", (40, 20)).save(own / "a.jpg", exif=exif)
    listing = DatasetListing(
        ALL, {"train": [Sample("other name", own / "a.jpg", (True, False, True), drawn)]}
    )
    listing = select_classes(listing, ["cat"])
    (line,) = copy_pictures(listing, tmp_path / "out", max_side, ALL).missing
    assert f"{drawn}: the mask is (40, 20), its image (20, 40)" in line
    assert (
        f"(orientation {direction})" in line and f"Image.Transpose.{turn})" in line and "resize" not in line
    )
    open_mask(drawn).transpose(Image.Transpose[turn]).save(drawn)
    copied = copy_pictures(listing, tmp_path / "out", max_side, ALL)
    assert not copied.missing
    shown = Image.open(copied.splits["train"][0].mask)
    assert shown.size == ((8, 16) if max_side else (20, 40))
