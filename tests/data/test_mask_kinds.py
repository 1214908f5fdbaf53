"""Masks as programs save them: the ids that a file stores are what is read, or the file is refused by name."""

import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from wsfcn_lib.data.classes import BORDER_COLOUR, IGNORE, voc_colour, voc_palette
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_mask

IDS = (0, 1, 2, 3)
PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[:4] = [voc_colour(k) for k in IDS]
PALETTE[IGNORE] = BORDER_COLOUR
THREE = SimpleNamespace(mask_ids=IDS, palette=PALETTE)
STORED = [0, 1, 2, 3, 3, 2, 1, 0]


def png(path, bits, values, colour_type=0, palette=b""):
    """A PNG of one row, as the format's definition says, without Pillow."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    digits = "".join(format(value, f"0{bits}b") for value in values)
    row = b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    head = struct.pack(">IIBBBBB", len(values), 1, bits, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b"")]
    if palette:
        parts.insert(1, chunk(b"PLTE", palette))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_any_depth_is_read_as_stored(tmp_path, bits):
    values = [value % 2**bits for value in STORED]
    assert read_mask(png(tmp_path / "m.png", bits, values), THREE)[0].tolist() == values


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_palette_of_any_depth_is_read_as_stored(tmp_path, bits):
    path = png(tmp_path / "m.png", bits, STORED, 3, bytes(voc_palette()[:12]))
    assert read_mask(path, THREE)[0].tolist() == STORED


def test_sixteen_bits_beyond_255_are_no_ids(tmp_path):
    with pytest.raises(DataError, match="16 bits whose ids reach 300; ids lie in 0..255"):
        read_mask(png(tmp_path / "m.png", 16, [0, 300]), THREE)


def coloured(ids):
    return Image.fromarray(PALETTE[np.array([ids])])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_classes_colours_are_read_as_the_classes(tmp_path, mode):
    coloured([0, 1, 3, IGNORE]).convert(mode).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", THREE)[0].tolist() == [0, 1, 3, IGNORE]


def test_a_colour_of_no_class_is_refused(tmp_path):
    Image.new("RGB", (4, 4), (255, 255, 255)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"1 are no class's \(such as \(255, 255, 255\)\); give the classes"):
        read_mask(tmp_path / "m.png", THREE)


def test_colours_that_two_classes_share_are_refused(tmp_path):
    palette = PALETTE.copy()
    palette[2] = palette[1]
    coloured([1]).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="no class's"):
        read_mask(tmp_path / "m.png", SimpleNamespace(mask_ids=IDS, palette=palette))


def test_a_palette_in_another_order_is_refused_and_the_way_named_leads_to_right_ids(tmp_path):
    path = tmp_path / "m.png"
    coloured([0, 2, 3, 3]).quantize(3, dither=0).save(path)
    stored = np.asarray(Image.open(path))[0].tolist()
    assert stored != [0, 2, 3, 3], "or there is nothing to test"
    with pytest.raises(DataError, match="m.png: the palette has the classes' colours in another order"):
        read_mask(path, THREE)
    Image.open(path).convert("RGB").save(path)
    assert read_mask(path, THREE)[0].tolist() == [0, 2, 3, 3]


@pytest.mark.parametrize("colours", ["grey", "own"])
def test_palettes_of_other_colours_say_nothing(tmp_path, colours):
    """As many programs write them: a ramp of greys, or colours of their own."""
    mask = Image.fromarray(np.array([STORED], np.uint8))
    ramp = [value for k in range(256) for value in ((k, k, k) if colours == "grey" else (k, 255 - k, 7))]
    mask.putpalette(ramp)
    mask.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", THREE)[0].tolist() == STORED


@pytest.mark.parametrize(
    "file, mode, refusal",
    [
        ("m.jpg", "L", "stored as JPEG is not exact"),
        ("m.webp", "RGB", "stored as WEBP is not exact"),
        ("m.png", "LA", "stored as LA"),
        ("m.tif", "F", "stored as F"),
        ("m.tif", "I", "stored as I"),
        ("m.bmp", "1", "stored as 1"),
    ],
)
def test_what_a_decoder_may_change_is_refused(tmp_path, file, mode, refusal):
    Image.new(mode, (4, 4)).save(tmp_path / file)
    with pytest.raises(DataError, match=f"{file}: a mask .*{refusal}"):
        read_mask(tmp_path / file, THREE)


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_other_exact_formats_are_read(tmp_path, kind, mode):
    mask = Image.fromarray(np.array([STORED], np.uint8))
    if mode == "P":
        mask.putpalette(voc_palette()[:12])
    mask.save(tmp_path / "mask", kind)
    assert read_mask(tmp_path / "mask", THREE)[0].tolist() == STORED


def test_a_translucent_mask_in_colours_is_refused(tmp_path):
    Image.new("RGBA", (4, 4), (128, 0, 0, 90)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="stored as RGBA and read as RGBA"):
        read_mask(tmp_path / "m.png", THREE)
