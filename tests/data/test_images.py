"""Pictures upright and in RGB, masks as class indices; all kinds of files are in test_bad_files."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from factories import mask, picture
from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_image, read_mask, save_mask

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
