"""Pictures upright and in RGB, masks as class indices; all kinds of files are in test_bad_files."""

import errno
import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from factories import mask, picture
from wsfcn_lib.data import remarks
from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_image, read_mask, save_mask
from wsfcn_lib.data.manifest import validate
from wsfcn_lib.data.preparation import SourceSettings, leave_out, prepare
from wsfcn_lib.runs.storage import checksum

MASK_IDS = (0, 8, 12)
PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[:3] = [0, 0, 0], [64, 0, 0], [64, 0, 128]
ANIMALS = SimpleNamespace(mask_ids=MASK_IDS, palette=PALETTE)


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "p.jpg", exif=exif)
    Image.new("L", (20, 10)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "p.jpg").shape == (20, 10, 3)
    assert read_image(tmp_path / "grey.png").shape == (10, 20, 3)


def test_masks_are_mapped_to_class_indices_and_back(tmp_path):
    labels = read_mask(mask(tmp_path / "m.png", [8, 12, 255, 0]), ANIMALS)
    assert labels.dtype == np.uint8 and labels.ravel()[:4].tolist() == [1, 2, IGNORE, 0]
    labels = np.where(labels == IGNORE, 0, labels)
    save_mask(tmp_path / "saved.png", labels, ANIMALS)
    assert np.array_equal(read_mask(tmp_path / "saved.png", ANIMALS), labels)
    saved = Image.open(tmp_path / "saved.png")
    assert saved.mode == "P" and saved.getpalette()[3 * 12 : 3 * 12 + 3] == [64, 0, 128]


def test_bad_pictures_are_named_with_their_fault(tmp_path):
    with pytest.raises(DataError, match=r"absent.jpg: the file is missing; restore it"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(
        DataError, match=r"m.png: the mask ids \[9\] belong to no class, allowed are \[0, 8, 12, 255\]"
    ):
        read_mask(mask(tmp_path / "m.png", [9]), ANIMALS)
    with pytest.raises(DataError, match=r"p.png: a mask in colours, of which \d+ are no class's"):
        read_mask(picture(tmp_path / "p.png"), ANIMALS)


@pytest.mark.parametrize(
    "fault, words",
    [
        (PermissionError(errno.EACCES, "Permission denied"), "get the right to read it"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n 4096"),
        (OSError(errno.EIO, "Input/output error"), "see whether its disk or network drive works"),
        (OSError(errno.ESTALE, "Stale file handle"), "see whether its disk or network drive works"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_a_sound_picture_is_not_blamed_for_the_machine(tmp_path, monkeypatch, fault, words):
    path = picture(tmp_path / "a.jpg")

    def refuse(*arguments, **options):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", refuse)
        with pytest.raises(DataError, match=rf"a\.jpg: cannot be read now: .*{words}") as error:
            read_image(path)
    assert "truncated" not in str(error.value) and "remove" not in str(error.value)
    assert read_image(path).shape == (5, 6, 3)


def test_a_picture_that_cannot_be_read_now_is_not_left_out(tmp_path, monkeypatch):
    """Neither silently, nor by the way in which truncated ones are; equal pictures are looked for all the same."""
    for k in range(8):
        picture(tmp_path / "own" / ("dog" if k % 2 else "cat") / f"{k}.png", value=k * (k > 1))
    closed = tmp_path / "own" / "cat" / "2.png"
    read = Image.open

    def without_right(path, *arguments, **options):
        if os.path.realpath(getattr(path, "name", path)) == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path, *arguments, **options)

    monkeypatch.setattr(Image, "open", without_right)
    monkeypatch.setattr(remarks, "checksum", lambda path: without_right(path) and checksum(path))
    chosen = SourceSettings(dataset="folder", root=str(tmp_path / "own"))
    prepared = prepare(chosen, tmp_path / "data")
    assert any("1 pictures occur twice" in note for note in prepared.notes)
    faults = validate(prepared.manifest)
    with pytest.raises(
        DataError, match=r"1 faults are for you to mend, the first: .*2\.png: cannot be read now"
    ):
        leave_out(prepared.manifest, faults, chosen)
