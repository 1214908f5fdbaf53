"""Pictures, masks and tables as people have them: what each is, its bytes, and whether it can be used."""

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
SCENE = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8))


class Case(NamedTuple):
    """A file: its name, its bytes, and the (width, height) it is used at, or a part of its refusal."""

    name: str
    data: bytes
    outcome: tuple[int, int] | str


def encoded(picture, kind="PNG", **options):
    picture.save(stream := io.BytesIO(), kind, **options)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claimed(width, height):
    """A PNG of some hundred bytes that says to be this large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100_000)))
        + chunk(b"IEND", b"")
    )


def turned(orientation, torn=False):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(SCENE, "JPEG", exif=exif)
    return data.replace(b"II*\0", b"II*\xff").replace(b"MM\0*", b"MM\xff*") if torn else data


def animated(kind):
    frames = [Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def sixteen(kind):
    return encoded(Image.fromarray(RNG.integers(0, 65536, (20, 30), np.uint16)), kind)


PALETTE = SCENE.convert("P", palette=Image.Palette.ADAPTIVE)
JPEG, PNG = encoded(SCENE, "JPEG"), encoded(SCENE)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\nshowpage\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"/>'
UNREADABLE, WHOLE = "not a readable picture", (30, 20)
PICTURES = {
    "one pixel": Case("p.png", encoded(SCENE.resize((1, 1))), (1, 1)),
    "one row": Case("p.png", encoded(SCENE.resize((40, 1))), (40, 1)),
    "one column": Case("p.jpg", encoded(SCENE.resize((1, 40)), "JPEG"), (1, 40)),
    "very wide": Case("p.jpg", encoded(SCENE.resize((1500, 16)), "JPEG"), (1500, 16)),
    "very high": Case("p.jpg", encoded(SCENE.resize((16, 1500)), "JPEG"), (16, 1500)),
    "grey": Case("p.jpg", encoded(SCENE.convert("L"), "JPEG"), WHOLE),
    "grey with alpha": Case("p.png", encoded(SCENE.convert("LA")), WHOLE),
    "RGBA": Case("p.png", encoded(SCENE.convert("RGBA")), WHOLE),
    "CMYK JPEG": Case("p.jpg", encoded(SCENE.convert("CMYK"), "JPEG"), WHOLE),
    "CMYK TIFF": Case("p.tif", encoded(SCENE.convert("CMYK"), "TIFF"), WHOLE),
    "YCbCr TIFF": Case("p.tif", encoded(SCENE.convert("YCbCr"), "TIFF"), WHOLE),
    "Lab TIFF": Case(
        "p.tif", encoded(Image.frombytes("LAB", (30, 20), SCENE.tobytes()), "TIFF"), None
    ),  # it depends on Pillow's
    "black and white": Case("p.png", encoded(SCENE.convert("1")), WHOLE),
    "palette": Case("p.png", encoded(PALETTE), WHOLE),
    "palette with a transparent colour": Case("p.png", encoded(PALETTE, transparency=3), WHOLE),
    "palette with alphas": Case("p.png", encoded(PALETTE, transparency=bytes(range(256))), WHOLE),
    "16 bits, PNG": Case("p.png", sixteen("PNG"), "more than 8 bits per channel"),
    "16 bits, TIFF": Case("p.tiff", sixteen("TIFF"), "more than 8 bits per channel"),
    "32 bits": Case(
        "p.tif", encoded(Image.fromarray(np.ones((20, 30), np.int32)), "TIFF"), "more than 8 bits per channel"
    ),
    "floats": Case(
        "p.tif",
        encoded(Image.fromarray(np.ones((20, 30), np.float32)), "TIFF"),
        "more than 8 bits per channel",
    ),
    "turned by EXIF": Case("p.jpg", turned(6), (20, 30)),
    "mirrored by EXIF": Case("p.jpg", turned(2), WHOLE),
    "unknown turn in EXIF": Case("p.jpg", turned(9), WHOLE),
    "torn EXIF": Case(
        "p.jpg", turned(6, torn=True), None
    ),  # Pillow's versions differ: used or refused by name
    "truncated JPEG": Case("p.jpg", JPEG[: len(JPEG) // 2], UNREADABLE),
    "truncated PNG": Case("p.png", PNG[: len(PNG) // 2], UNREADABLE),
    "truncated header": Case("p.jpg", JPEG[:10], UNREADABLE),
    "flipped bytes": Case("p.png", PNG[:60] + bytes(b ^ 255 for b in PNG[60:90]) + PNG[90:], UNREADABLE),
    "zero bytes": Case("p.jpg", b"", UNREADABLE),
    "zeros": Case("p.jpg", bytes(1000), UNREADABLE),
    "words": Case("p.jpg", b"<html>404 Not Found</html>", UNREADABLE),
    "PNG named .jpg": Case("p.jpg", PNG, WHOLE),
    "GIF named .png": Case("p.png", encoded(PALETTE, "GIF"), WHOLE),
    "progressive JPEG": Case("p.jpeg", encoded(SCENE, "JPEG", progressive=True), WHOLE),
    "BMP": Case("p.bmp", encoded(SCENE, "BMP"), WHOLE),
    "WebP": Case("p.webp", encoded(SCENE, "WEBP"), WHOLE),
    "animated WebP": Case("p.webp", animated("WEBP"), WHOLE),
    "animated PNG": Case("p.png", animated("PNG"), WHOLE),
    "animated GIF named .jpg": Case("p.jpg", animated("GIF"), WHOLE),
    "TIFF of three pages": Case("p.tif", animated("TIFF"), WHOLE),
    "EPS named .jpg, a program": Case("p.jpg", EPS, UNREADABLE),
    "SVG named .png": Case("p.png", SVG, UNREADABLE),
    "more pixels than allowed": Case(
        "p.png", claimed(12_000, 10_000), "pixels are more than the 80,000,000 allowed"
    ),
    "a bomb": Case("p.png", claimed(60_000, 60_000), UNREADABLE),
    "a name in Greek": Case("καλημέρα κόσμε.jpg", JPEG, WHOLE),
    "a name in Chinese": Case("图片.png", PNG, WHOLE),
    "a name with a smile": Case("🙂.png", PNG, WHOLE),
    "a name with blanks and a quote": Case('my "best" picture, 2.png', PNG, WHOLE),
    "a name with a line break": Case("two\nlines.png", PNG, WHOLE),
    "a name with markup": Case("<img src=x onerror=alert(1)>.png", PNG, WHOLE),
    "a name of dots": Case("a..b...png", PNG, WHOLE),
    "the longest name": Case("n" * 251 + ".png", PNG, WHOLE),
    "the longest name in Greek": Case("λ" * 125 + ".png", PNG, WHOLE),
    "a capital ending": Case("IMG_1.JPG", JPEG, WHOLE),
}


def mask(*rows, kind="PNG", mode="P"):
    """A mask 30 wide and 20 high, each of the ids in a stripe."""
    picture = Image.fromarray(np.repeat(np.resize(np.uint8(rows), 20)[:, None], 30, 1))
    if mode == "P":
        picture.putpalette(bytes(range(256)) * 3)
    return encoded(picture if mode in "PL" else picture.convert(mode), kind)


MASKS = {  # of a picture of 30 x 20; the ids are 1 cat and 2 dog
    "palette": (mask(0, 1, 255), None),
    "grey": (mask(0, 2, mode="L"), None),
    "no pixel of any class": (mask(0), None),
    "all ignored": (mask(255), None),
    "another class than the tag": (mask(2), None),
    "foreign ids": (mask(0, 1, 7), "the mask ids [7] belong to no class"),
    "colours": (mask(0, 1, mode="RGB"), "no class's: (1, 1, 1)"),
    "colours with alpha": (mask(0, 1, mode="RGBA"), "no class's: (1, 1, 1)"),
    "black and white": (mask(0, 1, mode="1"), None),
    "16 bits": (sixteen("PNG"), "a mask of 16 bits whose ids reach 65534"),
    "another size": (encoded(Image.new("L", (31, 20))), "make them equal"),
    "turned": (encoded(Image.new("L", (20, 30))), "make them equal"),
    "truncated": (mask(0, 1)[:70], UNREADABLE),
    "zero bytes": (b"", UNREADABLE),
    "JPEG named .png": (mask(0, 100, mode="L", kind="JPEG"), "stored as JPEG is not exact"),
    "a bomb": (claimed(60_000, 60_000), UNREADABLE),
}
GOOD = "image,tags\na.png,cat\nb.png,dog\nc.png,cat;dog\nd.png,dog\n"
TABLES = {  # of tags.csv, for pictures a to d: its bytes, and a part of the words that refuse it
    "plain": (GOOD.encode(), None),
    "with a mark": (GOOD.encode("utf-8-sig"), None),
    "Windows lines": (GOOD.replace("\n", "\r\n").encode(), None),
    "old Mac lines": (GOOD.replace("\n", "\r").encode(), None),
    "quotes": (GOOD.replace("a.png,cat", '"a.png","cat"').encode(), None),
    "blank lines": (GOOD.replace("\n", "\n\n").encode(), None),
    "blanks around": (GOOD.replace(",", " , ").encode(), None),
    "capitals in line 1": (GOOD.replace("image,tags", "Image,TAGS").encode(), None),
    "columns the other way": (b"tags,image\ncat,a.png\ndog,b.png\ncat;dog,c.png\n", None),
    "a column more": (b"image,tags,note\na.png,cat,x\nb.png,dog,\nc.png,cat,y\n", None),
    "no last line break": (GOOD.rstrip().encode(), None),
    "UTF-16, as Excel saves it": (GOOD.encode("utf-16"), None),
    "Latin-1": (GOOD.replace("cat", "Kätzchen").encode("latin-1"), "is not UTF-8"),
    "semicolons": (GOOD.replace(";", "/").replace(",", ";").replace("/", ",").encode(), None),
    "tabs": (GOOD.replace(",", "\t").encode(), None),
    "a column twice": (
        GOOD.replace("image,tags", "image,tags,tags").encode(),
        "names the columns ['tags'] more",
    ),
    "no line 1": (GOOD.split("\n", 1)[1].encode(), "must name the columns image,tags"),
    "line 1 alone": (b"image,tags\n", "1 to 254 are possible"),
    "nothing": (b"", "must name the columns image,tags"),
    "no tags": (b"image\na.png\n", "must name the columns image,tags"),
    "an open quote": (GOOD.replace("a.png,cat", 'a.png,"cat').encode(), "perhaps a quote is not closed"),
    "zeros": (GOOD.replace("cat", "c\0t").encode(), None),
    "a cell too large": (f"image,tags\na.png,{'x' * 200_000}\n".encode(), "tags.csv"),
    "commas between tags": (GOOD.replace("cat;dog", "cat,dog").encode(), "put ';' between tags"),
    "a picture twice": ((GOOD + "a.png,dog\n").encode(), "is listed before"),
    "a picture that is not there": ((GOOD + "z.png,dog\n").encode(), None),
    "a name that no disk can hold": ((GOOD + "z" * 5000 + ".png,dog\n").encode(), None),
    "pictures of elsewhere": ((GOOD + "../../../../etc/x.png,dog\n/etc/y.png,cat\n").encode(), None),
    "no kind of picture": ((GOOD + "z.heic,dog\n").encode(), "no picture of a kind known here"),
    "background as a tag": (GOOD.replace("cat", "cat;Background").encode(), None),
    "a class named like a path": (GOOD.replace("cat", "../../cat").encode(), None),
    "a class of markup": (GOOD.replace("cat", "<script>alert(1)</script>").encode(), None),
}
