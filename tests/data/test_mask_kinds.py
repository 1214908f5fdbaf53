"""Masks as programs save them: the ids that a file stores are what is read, or the file is refused by name."""

import re
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from wsfcn_lib.data.classes import BORDER_COLOUR, IGNORE, voc_colour, voc_palette
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import TURNS, open_mask, orientation, read_image, read_mask, shown_size

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
    with pytest.raises(DataError, match=r"1 are no class's: \(255, 255, 255\)\. Background"):
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


def test_a_palette_in_another_order_beside_a_foreign_colour_is_refused(tmp_path):
    mask = Image.fromarray(np.array([STORED], np.uint8))
    mask.putpalette([0, 0, 0, *voc_colour(2), *voc_colour(1), 255, 255, 255])
    mask.save(tmp_path / "m.png")
    with pytest.raises(DataError, match="id 1 has the colour of id 2"):
        read_mask(tmp_path / "m.png", THREE)


def test_one_class_colour_among_foreign_ones_says_nothing(tmp_path):
    mask = Image.fromarray(np.array([STORED], np.uint8))
    mask.putpalette([0, 0, 0, *voc_colour(2), 9, 9, 200, 255, 255, 255])
    mask.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", THREE)[0].tolist() == STORED


def advised(error, path, *, nth=0):
    """Runs the code that a message advises: what stands before `.save(path.with_suffix(".png"))`."""
    codes = re.findall(
        r'(?:as |in )((?:im = )?(?:Image|ImageOps|open_mask)[.(].*?\.save\(path\.with_suffix\("\.png"\)\))',
        str(error),
    )
    exec(codes[nth], {"Image": Image, "ImageOps": ImageOps, "np": np, "open_mask": open_mask, "path": path})
    return path.with_suffix(".png")


@pytest.mark.parametrize("what_is_right, expected", [(0, [0, 2, 3, 2]), (1, [0, 1, 2, 1])])
def test_greys_that_number_ids_anew_are_refused_and_the_ways_named_lead_to_right_ids(
    tmp_path, what_is_right, expected
):
    path = tmp_path / "m.png"
    mask = Image.fromarray(np.array([[0, 1, 2, 1]], np.uint8))
    mask.putpalette([0, 0, 0, 2, 2, 2, 3, 3, 3])
    mask.save(path)
    with pytest.raises(DataError, match="id 1 is shown as the grey 2, which is an id too") as refused:
        read_mask(path, THREE)
    assert read_mask(advised(refused.value, path, nth=what_is_right), THREE)[0].tolist() == expected


@pytest.mark.parametrize("greys", [[0, 255, 0, 0], [0, 100, 200, 255]])
def test_greys_for_the_eye_say_nothing(tmp_path, greys):
    mask = Image.fromarray(np.array([STORED], np.uint8))
    mask.putpalette([grey for grey in greys for _ in range(3)])
    mask.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", THREE)[0].tolist() == STORED


def test_a_gif_in_another_order_is_saved_as_png_by_the_way_named(tmp_path):
    path = tmp_path / "m.gif"
    coloured([0, 2, 3, 3]).quantize(3, dither=0).save(path)
    with pytest.raises(DataError, match="another order") as refused:
        read_mask(path, THREE)
    assert read_mask(advised(refused.value, path), THREE)[0].tolist() == [0, 2, 3, 3]


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("direction", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_is_turned_as_it_says(tmp_path, mode, direction, compression):
    stored = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4
    mask = Image.fromarray(stored)
    if mode == "P":
        mask.putpalette(voc_palette())
    mask.save(tmp_path / "m.tif", tiffinfo={274: direction}, compression=compression)
    turn = TURNS.get(direction)
    expected = np.asarray(Image.fromarray(stored).transpose(Image.Transpose[turn])) if turn else stored
    assert read_mask(tmp_path / "m.tif", THREE, size=expected.shape).tolist() == expected.tolist()
    colours = np.asarray(voc_palette(), np.uint8).reshape(256, 3) if mode == "P" else np.arange(4)[:, None]
    assert (read_image(tmp_path / "m.tif") == colours[expected]).all()
    assert orientation(tmp_path / "m.tif") == (direction, (4, 3)), "the stored size"
    assert shown_size(tmp_path / "m.tif") == expected.shape


def test_a_jpeg_inside_a_tiff_is_refused(tmp_path):
    Image.new("L", (16, 16), 1).save(tmp_path / "m.tif", compression="jpeg")
    with pytest.raises(DataError, match="m.tif: a mask stored as jpeg is not exact"):
        read_mask(tmp_path / "m.tif", THREE)


@pytest.mark.parametrize("file", ["m.tif", "m.gif", "m.png"])
def test_several_pages_are_refused(tmp_path, file):
    pages = [Image.new("L", (4, 4), number) for number in (1, 2)]
    pages[0].save(tmp_path / file, save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=f"{file}: a mask of 2 pages or frames"):
        read_mask(tmp_path / file, THREE)
    assert read_image(tmp_path / file).shape == (4, 4, 3)


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path):
    small = Image.new("L", (2, 2), 3)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.new("L", (4, 4), 2).save(tmp_path / "m.tif", save_all=True, append_images=[small])
    assert (read_mask(tmp_path / "m.tif", THREE) == np.full((4, 4), 2)).all()


@pytest.mark.parametrize("way, expected", [(0, [[0, 3, 2, 1]]), (1, [[1, 2, 3, 0]])])
def test_a_png_that_exif_turns_is_refused_and_the_ways_named_lead_to_right_ids(tmp_path, way, expected):
    path, exif = tmp_path / "m.png", Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.array([[1, 2, 3, 0]], np.uint8)).save(path, exif=exif)
    with pytest.raises(DataError, match=r"the mask itself has an EXIF orientation \(3\)") as refused:
        read_mask(path, THREE)
    assert read_mask(advised(refused.value, path, nth=way), THREE).tolist() == expected


@pytest.mark.parametrize("file", ["m.png", "m.gif"])
@pytest.mark.parametrize("bits", [2, 8])
def test_a_mask_of_another_size_is_made_equal_by_the_way_named(tmp_path, file, bits):
    path = tmp_path / file
    if file == "m.png":
        png(path, bits, [0, 1, 2, 3])
    else:
        Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8)).save(path)
    with pytest.raises(DataError, match=r"Image.Resampling.NEAREST") as refused:
        read_mask(path, THREE, size=(2, 8))
    assert (
        read_mask(advised(refused.value, path), THREE, size=(2, 8)).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]] * 2
    )


@pytest.mark.parametrize(
    "file, mode, pixels",
    [
        ("m.png", "RGBA", [(9, 9, 9, 0), (*voc_colour(1), 255), (*voc_colour(3), 90), (*voc_colour(1), 1)]),
        ("m.tif", "RGBA", [(9, 9, 9, 0), (*voc_colour(1), 255), (*voc_colour(3), 90), (*voc_colour(1), 1)]),
        ("m.png", "LA", [(7, 0), (1, 255), (3, 90), (1, 1)]),
        ("m.bmp", "1", [0, 1, 0, 1]),
        ("m.tif", "1", [0, 1, 0, 1]),
        ("m.tif", "I", [0, 1, 3, 1]),
        ("m.tif", "F", [0, 1, 3, 1]),
    ],
)
def test_the_way_named_leads_to_right_ids(tmp_path, file, mode, pixels):
    path, mask = tmp_path / file, Image.new(mode, (4, 1))
    mask.putdata(pixels)
    mask.save(path)
    with pytest.raises(DataError, match=f"read as {mode}") as refused:
        read_mask(path, THREE)
    expected = [0, 1, 0, 1] if mode == "1" else [0, 1, 3, 1]
    assert read_mask(advised(refused.value, path), THREE)[0].tolist() == expected


def test_an_opaque_grey_mask_is_read(tmp_path):
    Image.fromarray(np.array([STORED], np.uint8)).convert("LA").save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", THREE)[0].tolist() == STORED


def test_a_bmp_of_32_bits_is_read(tmp_path):
    coloured([0, 1, 3, 2]).convert("RGBA").save(tmp_path / "m.bmp")
    assert read_mask(tmp_path / "m.bmp", THREE)[0].tolist() == [0, 1, 3, 2]


def test_every_unknown_colour_is_listed_the_commonest_first(tmp_path):
    mask = Image.new("RGB", (20, 1), (255, 255, 255))
    for k in range(14):
        mask.putpixel((k, 0), (k, 1, 1))
    mask.save(tmp_path / "m.png")
    with pytest.raises(DataError) as refused:
        read_mask(tmp_path / "m.png", THREE)
    assert "15 are no class's: (255, 255, 255), (0, 1, 1), (1, 1, 1)," in str(refused.value)
    assert "(10, 1, 1) and 3 more. Background must be (0, 0, 0)" in str(refused.value)


def test_white_numbered_before_black_is_refused(tmp_path):
    """As optimisers number a mask of an object: read as it is stored, object and background are exchanged."""
    png(tmp_path / "m.png", 1, [1, 1, 0, 0, 1, 1, 1, 1], 3, bytes([255] * 3 + [0] * 3))
    with pytest.raises(DataError, match="id 1 is shown as the grey 0, which is an id too"):
        read_mask(tmp_path / "m.png", THREE)
