"""SBD beside VOC: the set rule, the conversion of .mat to palette PNG, and the archives."""

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import IDS, make_mat, make_sbd, make_voc
from wsfcn_lib.data import sbd
from wsfcn_lib.data.classes import voc_palette
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.sbd import (
    convert_sbd,
    download_sbd,
    download_voc,
    sbd_base,
    trainaug_names,
    trainaug_notes,
)
from wsfcn_lib.data.voc import find_voc
from wsfcn_lib.runs.storage import RunError


@pytest.fixture
def voc(tmp_path) -> Path:
    return make_voc(tmp_path / "VOCdevkit/VOC2012")


@pytest.fixture
def boundaries(tmp_path) -> Path:
    return make_sbd(tmp_path / "benchmark_RELEASE/dataset")


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_set_rule(voc, boundaries, tmp_path):
    assert (
        trainaug_names(voc, boundaries) == trainaug_names(tmp_path, tmp_path) == ["a", "b", "s1", "s2", "s3"]
    )
    (boundaries / "train.txt").unlink()
    with pytest.raises(
        DataError,
        match="no cls with train.txt and val.txt in .*benchmark_RELEASE/dataset; point to the folder",
    ):
        trainaug_names(voc, boundaries)


@pytest.mark.parametrize("inner", ["", "dataset", "benchmark_RELEASE/dataset"])
def test_each_layout_of_sbd_is_found(tmp_path, inner):
    assert (
        sbd_base(tmp_path / make_sbd(tmp_path / "raw" / inner))
        == sbd_base(tmp_path / "raw")
        == tmp_path / "raw" / inner
    )


def test_the_rule_is_compared_with_the_list_of_the_user(voc, boundaries):
    names = trainaug_names(voc, boundaries)
    assert trainaug_notes(voc, names) == []
    own = voc / "ImageSets/Segmentation/trainaug.txt"
    own.write_text("\n".join(names))
    assert trainaug_notes(voc, names) == []
    own.write_text("a\nb\nd\n")
    assert trainaug_notes(voc, names) == ["VOC's trainaug lacks 3 names of the set rule and has 1 others"]


def test_masks_become_palette_pictures(voc, boundaries, tmp_path):
    before, out = files(voc) | files(boundaries), tmp_path / "made"
    made = convert_sbd(tmp_path, tmp_path, out, 1)
    assert made.faults == made.notes == [] and made.folder == out
    assert (out / "trainaug.txt").read_text().split() == made.names == ["a", "b", "s1", "s2", "s3"]
    for name in ("s1", "s2", "s3"):
        picture = Image.open(out / f"SegmentationClassAug/{name}.png")
        assert picture.mode == "P" and picture.getpalette()[: 3 * 21] == voc_palette()[: 3 * 21]
        assert np.array_equal(np.asarray(picture), np.resize(np.uint8(IDS[name]), (5, 6)))
    for name in ("a", "b"):  # b is in SBD too: VOC's own mask is finer
        assert (out / f"SegmentationClassAug/{name}.png").read_bytes() == (
            voc / f"SegmentationClass/{name}.png"
        ).read_bytes()
    assert len(list(out.rglob("*.*"))) == 6 and files(voc) | files(boundaries) == before


def test_what_is_made_enters_like_any_voc_folder(voc, boundaries, tmp_path):
    made = convert_sbd(boundaries, voc, tmp_path / "made", 1)
    found = find_voc(
        voc, lists={"train": "trainaug", "val": "val"}, augmented=made.folder, more_images=boundaries / "img"
    )
    names = [info.name for info in found.classes]
    tags = {s.name: [n for n, tag in zip(names, s.tags) if tag] for s in found.splits["train"]}
    assert tags == {"a": ["cat"], "b": ["dog"], "s1": ["dog"], "s2": ["person", "tvmonitor"], "s3": ["car"]}
    assert [s.image.parent.name for s in found.splits["train"]] == ["JPEGImages"] * 3 + ["img"] * 2
    assert found.missing == [] and found.notes[0] == "list trainaug holds 5 of VOC 2012's 10582 images"


def test_a_second_conversion_makes_only_what_is_missing(voc, boundaries, tmp_path):
    out = convert_sbd(boundaries, voc, tmp_path / "made", 1).folder / "SegmentationClassAug"
    before = files(out)
    for path in (out / "s2.png", out / "a.png"):
        path.unlink()
    convert_sbd(boundaries, voc, tmp_path / "made", 1)
    again = files(out)
    changed = {path.name for path in before if again[path][0] != before[path][0]}
    assert changed == {"s2.png", "a.png"} and [data for _, data in again.values()] == [
        data for _, data in before.values()
    ]


def test_bad_masks_are_lines(voc, boundaries, tmp_path):
    whole = (boundaries / "cls/s1.mat").read_bytes()
    (boundaries / "cls/s1.mat").write_bytes(whole[: len(whole) // 2])
    make_mat(boundaries / "cls/s2.mat", np.full((5, 6), 21, np.uint8))
    (boundaries / "cls/s3.mat").unlink()
    (voc / "SegmentationClass/a.png").unlink()
    made = convert_sbd(boundaries, voc, tmp_path / "made", 2)
    assert [line.split(": ")[0] for line in made.faults] == ["a", "s1", "s2", "s3"]
    assert all(str(boundaries / f"cls/{line.split(': ')[0]}.mat") in line for line in made.faults[1:])
    assert (
        "GTcls.Segmentation is uint8 (5, 6) up to 21, not uint8 (H, W) of VOC's ids; get it again"
        in made.faults[2]
    )
    assert "FileNotFoundError" in made.faults[0] and "FileNotFoundError" in made.faults[3]
    assert [path.name for path in (tmp_path / "made/SegmentationClassAug").iterdir()] == ["b.png"]
    assert made.names == ["a", "b", "s1", "s2", "s3"], (
        "the list stays the rule's: what lacks is counted, not hidden"
    )


def test_a_full_disk_is_no_fault_of_the_mask(voc, boundaries, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sbd, "atomic_write", full)
    with pytest.raises(OSError, match="No space left"):
        convert_sbd(boundaries, voc, tmp_path / "made", 1)


def test_pool_workers_start_light():
    code = "import sys, wsfcn_lib.data.sbd; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "torchvision", "pandas", "scipy", "matplotlib"} & set(loaded)


@pytest.fixture
def archives(host, tmp_path, monkeypatch):
    """Small archives of the official layouts in the place of the official ones."""
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    monkeypatch.setattr(sbd, "VOC_BYTES", (1e3, 1e3))
    monkeypatch.setattr(sbd, "SBD_BYTES", (1e3, 1e3))
    make_voc(tmp_path / "origin/VOCdevkit/VOC2012")
    make_sbd(tmp_path / "origin/benchmark_RELEASE/dataset")
    checksums = {}
    for name, mode, top in (("VOC.tar", "w", "VOCdevkit"), ("benchmark.tgz", "w:gz", "benchmark_RELEASE")):
        with tarfile.open(host.folder / name, mode) as tar:
            tar.add(tmp_path / "origin" / top, top)
        checksums[name] = hashlib.md5((host.folder / name).read_bytes()).hexdigest()
    facts = {
        "url": host.url("VOC.tar"),
        "filename": "VOC.tar",
        "md5": checksums["VOC.tar"],
        "base_dir": "VOCdevkit/VOC2012",
    }
    monkeypatch.setitem(DATASET_YEAR_DICT, "2012", facts)
    for key, value in {"url": host.url("benchmark.tgz"), "md5": checksums["benchmark.tgz"]}.items():
        monkeypatch.setattr(SBDataset, key, value)
    return host


DOWNLOADS = pytest.mark.parametrize(
    "download, name, inner",
    [
        (download_voc, "VOC.tar", "VOCdevkit/VOC2012"),
        (download_sbd, "benchmark.tgz", "benchmark_RELEASE/dataset"),
    ],
)


@DOWNLOADS
def test_an_archive_is_fetched_once(archives, tmp_path, download, name, inner, capsys):
    raw = tmp_path / "raw"
    (raw / f".{name}.part").mkdir(parents=True)
    (raw / f".{name}.part" / name).write_bytes(b"left by a process that was killed")
    assert download(raw) == raw / inner
    there = {path.relative_to(raw / inner): data for path, (_, data) in files(raw / inner).items()}
    origin = tmp_path / "origin" / inner
    assert there == {path.relative_to(origin): data for path, (_, data) in files(origin).items()}, (
        "all of it, nothing moved"
    )
    assert {path.name for path in raw.iterdir()} == {name, inner.split("/")[0]}
    assert f"unpack {name}" in capsys.readouterr().out
    asked, before = len(archives.asked), files(raw)
    assert download(str(raw)) == raw / inner and len(archives.asked) == asked and files(raw) == before


@DOWNLOADS
def test_an_archive_placed_by_hand_needs_no_network(archives, tmp_path, download, name, inner):
    raw = tmp_path / "raw"
    raw.mkdir()
    (archives.folder / name).rename(raw / name)
    assert download(raw) == raw / inner and archives.asked == []


@DOWNLOADS
def test_damaged_archives_are_refused(archives, tmp_path, download, name, inner):
    raw = tmp_path / "raw"
    whole = (archives.folder / name).read_bytes()
    (archives.folder / name).write_bytes(whole[:-1] + b"?")
    with pytest.raises(
        DataError, match=rf"{name} cannot be fetched, or came damaged .*from http.*put it at .*raw/{name}"
    ):
        download(raw)
    assert list(raw.iterdir()) == []
    (raw / name).write_bytes(b"the user's")
    asked = len(archives.asked)
    with pytest.raises(
        DataError, match=rf"raw/{name} is damaged or another file: its md5 must be \w+; remove it, or get"
    ):
        download(raw)
    assert (raw / name).read_bytes() == b"the user's" and len(archives.asked) == asked
    assert [path.name for path in raw.iterdir()] == [name]
    (raw / name).unlink()
    (archives.folder / name).write_bytes(whole)
    assert download(raw) == raw / inner


@DOWNLOADS
def test_without_network_the_way_by_hand_is_told(archives, tmp_path, download, name, inner):
    archives.close()
    with pytest.raises(
        DataError,
        match=rf"{name} cannot be fetched.*refused.*get it by hand from http://.*/{name}, put it at",
    ):
        download(tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


@DOWNLOADS
def test_a_folder_that_is_not_whole_is_left_alone(archives, tmp_path, download, name, inner):
    keep = tmp_path / "raw" / inner / "mine.txt"
    keep.parent.mkdir(parents=True)
    keep.write_text("keep")
    with pytest.raises(DataError, match="is there, but not whole; complete it, or move it away"):
        download(tmp_path / "raw")
    assert keep.read_text() == "keep" and archives.asked == []


@DOWNLOADS
def test_the_disk_is_looked_at_first(archives, tmp_path, monkeypatch, download, name, inner):
    for key in ("VOC_BYTES", "SBD_BYTES"):
        monkeypatch.setattr(sbd, key, (1e18, 1e3))
    with pytest.raises(RunError, match=r"raw needs 1000000000.0 GB of disk"):
        download(tmp_path / "raw")
    assert not (tmp_path / "raw").exists() and archives.asked == []
    (tmp_path / "raw").mkdir()
    (archives.folder / name).rename(tmp_path / "raw" / name)
    assert download(tmp_path / "raw") == tmp_path / "raw" / inner, (
        "an archive that is there needs no room again"
    )


def test_an_archive_cannot_write_outside_its_folder(archives, tmp_path):
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    with tarfile.open(archives.folder / "VOC.tar", "w") as tar:
        info = tarfile.TarInfo("../../escaped.txt")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"no"))
    DATASET_YEAR_DICT["2012"]["md5"] = hashlib.md5((archives.folder / "VOC.tar").read_bytes()).hexdigest()
    with pytest.raises(tarfile.FilterError):
        download_voc(tmp_path / "raw")
    assert not list(tmp_path.rglob("escaped.txt"))
