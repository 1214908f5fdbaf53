"""Downloads against a host that can do what hosts do: break off, refuse, ignore ranges, change the file."""

import hashlib
import resource
import sys
from dataclasses import replace

import pytest

from wsfcn_lib.data import downloads, model_zoo
from wsfcn_lib.data.downloads import DownloadError, download, fetch_weights, main
from wsfcn_lib.data.model_zoo import ARTEFACTS

DATA = bytes(range(256)) * 4000  # about 1 MB
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0)


@pytest.fixture
def url(host):
    (host.folder / "w.zip").write_bytes(DATA)
    return host.url("w.zip")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "raw" / "w.zip"


def fetch(url, path):
    return download(url, path, len(DATA), SHA)


def only(path):
    """Whether the whole file is all that is left."""
    return path.read_bytes() == DATA and [p.name for p in path.parent.iterdir()] == [path.name]


def ranges(host):
    return [asked for _, asked in host.asked]


def test_a_file_is_fetched_once_and_shown(host, url, path, capsys):
    assert fetch(url, path) == path and only(path)
    assert "w.zip" in capsys.readouterr().out
    assert fetch(url, path) == path and ranges(host) == ["bytes=0-"]


def test_a_broken_connection_goes_on_where_it_stopped(host, url, path):
    host.cuts = [300_000, 200_000]
    assert only(fetch(url, path))
    assert ranges(host) == ["bytes=0-", "bytes=300000-", "bytes=500000-"]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_later_call_goes_on(host, url, path, monkeypatch, knows_ranges):
    host.cuts, host.knows_ranges = [300_000], knows_ranges
    with monkeypatch.context() as patch, pytest.raises(DownloadError) as error:
        patch.setattr(downloads, "TRIES", 1)
        fetch(url, path)
    reason = f"{url} cannot be fetched (the connection ended after 300000 of 1024000 bytes): call again later"
    assert str(error.value).startswith(f"{reason}, which goes on after the 0.3 MB kept")
    assert str(error.value).endswith(f"place it at {path}")
    assert not path.exists() and path.with_name("w.zip.part").read_bytes() == DATA[:300_000]
    assert only(fetch(url, path)) and ranges(host) == ["bytes=0-", "bytes=300000-"]


def test_a_part_that_is_whole_is_only_renamed(host, url, path):
    """As after a crash between the last byte and the new name."""
    path.parent.mkdir()
    path.with_name("w.zip.part").write_bytes(DATA)
    assert only(fetch(url, path)) and host.asked == []


@pytest.mark.parametrize("served", [DATA[:-1] + b"?", DATA + b"?"])
def test_a_damaged_or_changed_file_is_removed_and_fetched_anew(host, url, path, served):
    (host.folder / "w.zip").write_bytes(served)
    with pytest.raises(DownloadError, match=rf"{url} came damaged or has changed: .*{SHA}.*was removed"):
        fetch(url, path)
    assert list(path.parent.iterdir()) == []
    (host.folder / "w.zip").write_bytes(DATA)
    assert only(fetch(url, path))


def test_a_file_of_the_user_is_checked_and_left(host, url, path):
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(
        DownloadError,
        match=r"w.zip is not the file of http.*, of 1024000 bytes with sha256 .*; move it away and call",
    ):
        fetch(url, path)
    assert path.read_text() == "mine" and host.asked == []


def test_busy_hosts_are_asked_again_and_in_the_end_the_way_by_hand_is_told(host, url, path):
    host.errors = [503, 429]
    assert only(fetch(url, path))
    with pytest.raises(
        DownloadError, match=r"\(HTTP Error 404: Not Found\).*get the file by hand and place it"
    ):
        fetch(host.url("absent.zip"), path.with_name("other.zip"))
    host.close()
    with pytest.raises(DownloadError, match=r"refused.*get the file by hand and place it at .*other.zip"):
        fetch(url, path.with_name("other.zip"))


@pytest.mark.parametrize("room", [500_000, len(DATA) - 10])
def test_a_full_disk_keeps_what_fits(host, url, path, room):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match=r"make room on its disk.*w.zip.part"):
            fetch(url, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(host.asked) == 1, "a full disk must not be tried again"
    assert only(fetch(url, path)) and ranges(host)[1:] == [f"bytes={room}-"]


@pytest.fixture
def root(tmp_path, monkeypatch, host):
    """An empty repository, for which the host stands for all others; its data/weights does not exist yet."""
    monkeypatch.delenv("WSFCN_WEIGHTS", raising=False)
    for module in (downloads, model_zoo):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for name, row in ARTEFACTS.items():
        if row.url:
            monkeypatch.setitem(ARTEFACTS, name, replace(row, url=host.url(row.file)))
    return tmp_path


def test_weights_that_are_nowhere_are_fetched_once_and_checked(root, host, monkeypatch):
    row = replace(ARTEFACTS["mobilenet_v2"], sha256=SHA[:8])
    monkeypatch.setitem(ARTEFACTS, "mobilenet_v2", row)
    (host.folder / row.file).write_bytes(DATA)
    path = fetch_weights("mobilenet_v2")
    assert path == root / "data/weights" / row.file and only(path)
    assert fetch_weights("mobilenet_v2") is None and len(host.asked) == 1


def test_other_names_and_files_to_be_had_by_hand_are_left_alone(root, host):
    for name in ("", "best", "tiny", "data/weights/mine.pth", root / "mine.pth", "wsfcn"):
        assert fetch_weights(name) is None
    assert host.asked == [] and not (root / "data").exists()


@pytest.mark.parametrize(
    "name, cut, reason",
    [
        ("resnet50", None, "invalid hash value"),
        ("resnet38", 9, "9 of 1024000 bytes came"),
        ("vgg16", 0, "404"),
    ],
)
def test_damaged_weights_are_refused_with_the_way_by_hand(root, host, name, cut, reason):
    row = ARTEFACTS[name]
    if name != "vgg16":
        (host.folder / row.file).write_bytes(DATA)
    host.cuts = [cut]
    with pytest.raises(DownloadError, match=rf"{row.file} cannot .*{reason}.*: place") as error:
        fetch_weights(name)
    assert row.url in str(error.value) and "data/weights or the folder that WSFCN_WEIGHTS" in str(error.value)
    assert list((root / "data/weights").iterdir()) == []


def test_the_command_fetches_by_hand(root, host, monkeypatch, capsys):
    (host.folder / ARTEFACTS["1stage_val"].file).write_bytes(DATA)
    monkeypatch.setattr(sys, "argv", ["downloads", "1stage_val"])
    main()
    path = root / "data/raw/masks" / ARTEFACTS["1stage_val"].file
    assert only(path) and str(path) in capsys.readouterr().out
    for name, said in {
        "resnet83": "the names are shipped, resnet38, vgg16",
        "wsfcn": "no file for 'wsfcn': place",
    }.items():
        monkeypatch.setattr(sys, "argv", ["downloads", name])
        with pytest.raises(SystemExit):
            main()
        assert said in capsys.readouterr().err
