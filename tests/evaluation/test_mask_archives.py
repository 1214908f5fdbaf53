"""Mask archives: scores of others' masks against a loop over pixels, and the archive for VOC's server."""

import io
import lzma
import os
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from factories import ID_OF, NAMES, SIZE, folder_of, mean, slow_iou
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_mask, save_mask
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.evaluation import mask_archives
from wsfcn_lib.evaluation.mask_archives import contents, score_archive, write_server_archive


def png(labels, mode="P", ids=ID_OF):
    picture = Image.fromarray(np.vectorize(ids.get)(labels).astype(np.uint8))
    if mode == "P":
        picture.putpalette([5] * 768)
    stream = io.BytesIO()
    (picture if mode in "LP" else picture.convert(mode)).save(stream, "PNG")
    return stream.getvalue()


def pack(path, files, kind="w"):
    """A tar of {member name: bytes}."""
    with tarfile.open(path, kind) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def case(tmp_path):
    """The manifest, its test images (p4 first), and predictions for them, mostly right."""
    manifest, rng = folder_of(tmp_path), np.random.default_rng(7)
    predictions = {}
    for sample in manifest.samples("test"):
        truth = read_mask(sample.mask, manifest)
        wrong = (rng.random(truth.shape) < 0.3) | (truth == 255)
        predictions[sample.name] = np.where(wrong, rng.integers(0, 4, truth.shape), truth)
    return manifest, manifest.samples("test"), predictions


def check(score, case, names):
    manifest, samples, predictions = case
    pairs = [(predictions[s.name], read_mask(s.mask, manifest)) for s in samples if s.name in names]
    expected, metrics = slow_iou(pairs), score.metrics()
    assert 0.2 < mean(expected) < 0.9 and metrics["mean_iou"] == pytest.approx(mean(expected))
    assert metrics["per_class_iou"] == pytest.approx(dict(zip(NAMES, expected.values())))
    assert metrics["recall"] == dict(zip(NAMES, score.matrix.recall())) and "precision" in metrics
    assert [row["image"] for row in score.rows] == [s.name for s in samples if s.name in names], (
        "in the order of the samples"
    )
    for row, pair in zip(score.rows, pairs):
        assert row["iou"] == pytest.approx(mean(slow_iou([pair])), abs=1e-4)
    assert score.missing == [s.name for s in samples if s.name not in names]
    assert (metrics["images"], metrics["missing"]) == (len(names), len(samples) - len(names))


@pytest.mark.parametrize("kind", ["folder", "w", "w:gz", "w:xz", "zip"])
@pytest.mark.parametrize("mode", ["P", "L"])
def test_scores_are_those_of_a_loop_over_pixels(case, tmp_path, kind, mode):
    files = {f"some/where/{name}.png": png(labels, mode) for name, labels in case[2].items() if name != "p2"}
    files |= {
        "readme.txt": b"x",
        "some/where/._p2.png": b"macOS leaves such files",
        "some/other.png": b"no image of ours",
    }
    source = tmp_path / "masks"
    if kind == "folder":
        for name, data in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
    elif kind == "zip":
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        pack(source, files, kind)
    check(score_archive(source, case[0], case[1]), case, {"p0", "p1", "p3", "p4"})


def test_one_of_several_folders(case, tmp_path):
    other = {name: (labels + 1) % 4 for name, labels in case[2].items()}
    files = {f"val/{name}.png": png(labels) for name, labels in other.items()}
    files |= {f"val/crf/{name}.png": png(labels) for name, labels in case[2].items()}
    files |= {f"val/vis/{name}.png": png(labels, "RGB") for name, labels in case[2].items()}
    source = pack(tmp_path / "masks.tar", files)
    check(score_archive(source, *case[:2], inside="crf"), case, set(case[2]))
    pairs = [(other[sample.name], read_mask(sample.mask, case[0])) for sample in case[1]]
    assert score_archive(source, *case[:2], inside="val").metrics()["mean_iou"] == pytest.approx(
        mean(slow_iou(pairs))
    )
    with pytest.raises(
        DataError, match=r"val/p4\.png and val/crf/p4\.png are masks of one image; say by `inside`"
    ):
        score_archive(source, *case[:2])
    with pytest.raises(DataError, match=r"vis/p4\.png: a mask in colours, of which 3 are no class.s"):
        score_archive(source, *case[:2], inside="vis")
    with pytest.raises(
        DataError, match="not one mask of the 5 images whose truth is known is there; .* such as p4.png"
    ):
        score_archive(source, *case[:2], inside=".")
    double = pack(tmp_path / "double.tar", {"p1.png": files["val/p1.png"]})
    pack(double, {"p1.png": files["val/p2.png"]}, "a")
    with pytest.raises(DataError, match=r"p1\.png and p1\.png are masks of one image"):
        score_archive(double, *case[:2])


def test_the_top_folder_can_be_named(case, tmp_path):
    files = {f"./{name}.png": png(labels) for name, labels in case[2].items()} | {
        "./crf/p1.png": b"not looked at"
    }
    check(score_archive(pack(tmp_path / "masks.tar", files), *case[:2], inside="."), case, set(case[2]))


@pytest.mark.parametrize(
    "data, says",
    [
        (
            png(np.zeros((20, 24), int)),
            r": the mask is \(24, 20\), its image \(26, 20\) \(width, height\); make them equal",
        ),
        (
            png(np.full(SIZE, 9), ids={9: 4}),
            r": the mask ids \[4\] belong to no class, allowed are \[0, 3, 7, 200, 255\]",
        ),
        (png(np.full(SIZE, 255)), ": the id 255 is no answer; give each pixel a class"),
        (png(np.zeros(SIZE, int))[:60], ": not a readable picture"),
        (b"GIF89a", ": not a readable picture"),
        (
            png(np.zeros(SIZE, int)) + bytes(5000),
            r" has \d,\d{3} bytes, a mask at most 4,000; take it out",
        ),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_bad_mask_is_named(case, tmp_path, monkeypatch, data, says, packed):
    monkeypatch.setattr(mask_archives, "LARGEST", 4000)
    source = tmp_path / "masks"
    if packed:
        pack(source, {"a/p3.png": data})
    else:
        (source / "a").mkdir(parents=True)
        (source / "a" / "p3.png").write_bytes(data)
    with pytest.raises(DataError, match=r"masks: a/p3\.png" + says):
        score_archive(source, *case[:2])


def test_a_picture_of_another_size_is_never_decoded(case, tmp_path, monkeypatch):
    source = pack(tmp_path / "bomb.tar", {"p1.png": png(np.zeros((300, 300), int))})
    load = Image.Image.load
    monkeypatch.setattr(
        Image.Image, "load", lambda self: pytest.fail("decoded") if self.size == (300, 300) else load(self)
    )
    with pytest.raises(DataError, match=r"the mask is \(300, 300\)"):
        score_archive(source, *case[:2])


def test_archives_that_cannot_be_read(case, tmp_path):
    rng = np.random.default_rng(0)
    files = {f"{name}.png": png(rng.integers(0, 4, SIZE)) for name in case[2]}
    data = pack(tmp_path / "whole.tar.gz", files, "w:gz").read_bytes()
    for name, content in {
        "torn.tar.gz": data[: len(data) // 2],
        "no.tar": b"PK" * 600,
        "empty.tar": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            DataError,
            match=f"{name}: cannot be read to its end .*; it must be a folder or a whole tar archive",
        ):
            score_archive(tmp_path / name, *case[:2])
    with pytest.raises(
        DataError, match="nowhere: there is no such folder or archive; name a folder of masks or a .tar"
    ):
        score_archive(tmp_path / "nowhere", *case[:2])
    with pytest.raises(DataError, match="not one mask of the 0 images whose truth is known"):
        score_archive(tmp_path / "whole.tar.gz", case[0], [])


def locked(data):
    """A zip that says of its only member that a password locks it, as bytes."""
    data = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    return bytes(data)


def damaged(data, place):
    """With a byte there that begins neither what was written nor anything that a compressor writes."""
    return data[:place] + b"\xff" + data[place + 1 :]


@pytest.mark.parametrize(
    "method, fault, cause",
    [
        (zipfile.ZIP_STORED, damaged, zipfile.BadZipFile),
        (zipfile.ZIP_DEFLATED, damaged, zlib.error),
        (zipfile.ZIP_LZMA, lambda data, place: damaged(data, place + 4), lzma.LZMAError),
        (zipfile.ZIP_DEFLATED, lambda data, place: locked(data), RuntimeError),
        (zipfile.ZIP_DEFLATED, lambda data, place: data[: place + 99], tarfile.TarError),  # no zip any more
    ],
)
def test_torn_and_locked_zips_are_told_with_the_cause_and_the_next_step(tmp_path, method, fault, cause):
    path = tmp_path / "masks.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("p1.png", np.random.default_rng(0).bytes(3000))
    path.write_bytes(fault(path.read_bytes(), 30 + len("p1.png")))
    with pytest.raises(DataError) as told:
        list(contents(path, lambda inside: True))
    assert isinstance(told.value.__cause__, cause)
    assert str(told.value) == message_of_torn(path, told.value.__cause__)


def message_of_torn(path, cause):
    return (
        f"{path}: cannot be read to its end ({cause}); it must be a folder or a whole tar archive, "
        "or a zip without a password"
    )


@pytest.mark.parametrize(
    "cause",
    [
        tarfile.ReadError("t"),
        zipfile.BadZipFile("b"),
        lzma.LZMAError("l"),
        zlib.error("z"),
        EOFError("e"),
        OSError("o"),
        RuntimeError("r"),
    ],
)
def test_whatever_an_archive_raises_is_told_as_torn(tmp_path, monkeypatch, cause):
    """Which of them a damage raises depends on the release of Python."""

    def read():
        raise cause

    monkeypatch.setattr(mask_archives, "_files", lambda source: [("p1.png", 9, read)])
    with pytest.raises(DataError) as told:
        list(contents(tmp_path, lambda inside: True))
    assert told.value.__cause__ is cause and str(told.value) == message_of_torn(tmp_path, cause)


def test_nothing_is_unpacked_and_no_link_followed(case, tmp_path):
    source = tmp_path / "in" / "evil.tar"
    source.parent.mkdir()
    with tarfile.open(
        pack(source, {"../../p4.png": png(case[2]["p4"]), "/p3.png": png(case[2]["p3"])}), "a"
    ) as archive:
        for name, kind in (("p1.png", tarfile.SYMTYPE), ("p0.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(case[1][0].mask)
            archive.addfile(member)
    before = sorted(tmp_path.parent.rglob("*"))
    check(score_archive(source, *case[:2]), case, {"p3", "p4"})
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.fixture
def voc(tmp_path):
    """Three masks of VOC's classes as this kit writes them."""
    manifest, rng = Manifest(tmp_path, voc_classes()), np.random.default_rng(3)
    for name in ("2008_000002", "2008_000001", "2008_000010"):
        save_mask(tmp_path / "masks" / f"{name}.png", rng.integers(0, 21, (9, 11)), manifest)
    return tmp_path / "masks", ["2008_000010", "2008_000001"]


def test_the_server_archive_has_the_server_s_layout(voc, tmp_path):
    folder, names = voc
    path = write_server_archive(folder, names, tmp_path / "out" / "comp6.tar.gz")
    with tarfile.open(path, "r:gz") as archive:
        members = archive.getmembers()
        assert [m.name for m in members] == [
            f"results/VOC2012/Segmentation/comp6_test_cls/{n}.png" for n in sorted(names)
        ]
        for member, name in zip(members, sorted(names)):
            assert archive.extractfile(member).read() == (folder / f"{name}.png").read_bytes()
            assert (member.uid, member.gid, member.mtime, member.uname) == (0, 0, 0, "")
    first = path.read_bytes()
    assert first[4:8] == bytes(4), "gzip's own time stamp"
    for name in names:
        os.utime(folder / f"{name}.png", (10**9, 10**9))
    again = write_server_archive(folder, iter(names[::-1] + names), tmp_path / "again.tar.gz")
    assert again.read_bytes() == first, "order, doubles, times and the archive's name leave no trace"


def test_another_archive_is_not_overwritten(voc, tmp_path):
    folder, names = voc
    path = write_server_archive(folder, names, tmp_path / "comp6.tar.gz")
    stamp = path.stat().st_mtime_ns
    assert write_server_archive(folder, names, path) == path and path.stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="comp6.tar.gz exists and holds other masks; choose another name"):
        write_server_archive(folder, names[:1], path)
    assert path.stat().st_mtime_ns == stamp and not list(tmp_path.glob(".comp6*"))


@pytest.mark.parametrize(
    "mode, ids, kind, says",
    [
        ("L", [0, 5], "PNG", "takes palette PNGs, this is PNG of mode L; convert it"),
        ("P", [0, 5], "GIF", "takes palette PNGs, this is GIF of mode P"),
        ("P", [0, 21], "PNG", r"id 21 in colour \(0, 0, 0\) is none of VOC's 0\.\.20"),
        ("P", [0, 255], "PNG", "id 255 in colour"),
        (
            "P",
            [0, 20],
            "PNG",
            r"id 20 in colour \(0, 0, 0\) is none of VOC's 0\.\.20 in VOC's colours; evaluate",
        ),
    ],
)
def test_the_server_would_refuse(voc, tmp_path, mode, ids, kind, says):
    folder, names = voc
    picture = Image.fromarray(np.uint8([ids]))
    if mode == "P":
        picture.putpalette([0] * 768)
    picture.save(folder / "2008_000001.png", kind)
    with pytest.raises(DataError, match=r"2008_000001\.png: .*" + says):
        write_server_archive(folder, names, tmp_path / "comp6.tar.gz")
    assert not (tmp_path / "comp6.tar.gz").exists()


def test_missing_masks_are_counted(voc, tmp_path):
    folder, names = voc
    with pytest.raises(
        DataError, match="masks: 2 of 4 masks are missing, first '2008_000003'; predict all images first"
    ):
        write_server_archive(folder, [*names, "2008_000007", "2008_000003"], tmp_path / "comp6.tar.gz")
    with pytest.raises(DataError, match="0 of 0 masks are missing, first none was named"):
        write_server_archive(folder, [], tmp_path / "comp6.tar.gz")
