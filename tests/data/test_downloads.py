"""Downloads against a server that can do what servers do: cut off, refuse, ignore ranges, change the file."""

import hashlib
import re
import resource
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from wsfcn_lib.data import downloads
from wsfcn_lib.data.downloads import DownloadError, fetch

DATA = bytes(range(256)) * 4000  # about 1 MB
SHA = hashlib.sha256(DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        s = self.server
        s.asked.append(self.headers["Range"])
        if s.errors:
            return self.answer(s.errors.pop(0), b"no")
        headers = {"ETag": s.etag} if s.etag else {}
        start = re.match(r"bytes=(\d+)-", self.headers["Range"] or "")
        if not start or s.ignores_range or self.headers["If-Range"] not in (None, s.etag):
            return self.answer(200, s.data, headers)
        start, size = int(start[1]), len(s.data)
        if start >= size:
            return self.answer(416, b"", headers | {"Content-Range": f"bytes */{size}"})
        said = start + s.shift
        self.answer(
            206,
            s.data[start:],
            headers | {"Content-Range": f"bytes {said}-{size - 1}/{size}"} if s.says_range else headers,
        )

    def answer(self, code, body, headers=None):
        s = self.server
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if s.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        cut = s.cuts.pop(0) if s.cuts and code < 300 else None
        self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """Serves DATA; `cuts` are bytes after which the next answers break off, `asked` the ranges of all requests."""
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    vars(server).update(data=DATA, etag='"one"', cuts=[], errors=[], asked=[], shift=0)
    vars(server).update(
        ignores_range=False,
        says_length=True,
        says_range=True,
        url=f"http://127.0.0.1:{server.server_port}/w.pth",
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights" / "w.pth"


def only(path):
    """Whether the whole file is all that is left."""
    return path.read_bytes() == DATA and [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_file_is_fetched_once_and_shown(server, path, capsys):
    assert fetch(server.url, path, len(DATA), SHA) == path and only(path)
    assert "w.pth" in capsys.readouterr().out
    assert fetch(server.url, str(path), len(DATA), SHA[:8]) == path
    assert server.asked == [None], "a whole file must not be asked for again"


def test_a_broken_connection_goes_on_where_it_stopped(server, path):
    server.cuts, server.errors = [300_000, 200_000], []
    assert only(fetch(server.url, path, sha256=SHA))
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on(server, path):
    server.cuts = [300_000]
    with pytest.raises(DownloadError) as error:
        fetch(server.url, path, retries=0)
    for said in (
        server.url,
        f"place it at {path}",
        "300000 of 1024000 bytes",
        "call again later, which goes on after the 0.3 MB",
    ):
        assert said in str(error.value)
    assert not path.exists() and path.with_name("w.pth.part").read_bytes() == DATA[:300_000]
    assert only(fetch(server.url, path, sha256=SHA))
    assert server.asked == [None, "bytes=300000-"]


@pytest.mark.parametrize(
    "change", ["range ignored", "another version", "another url", "no mark", "weak mark", "mark lost"]
)
def test_where_the_rest_may_not_fit_it_starts_over(server, path, change):
    if change in ("no mark", "weak mark"):
        server.etag = "" if change == "no mark" else 'W/"one"'
    server.data, server.cuts = b"old" + DATA, [300_000]
    with pytest.raises(DownloadError, match="cannot be fetched"):
        fetch(server.url, path, retries=0)
    server.data, server.ignores_range = DATA, change == "range ignored"
    server.etag = '"two"' if change == "another version" else server.etag
    if change == "mark lost":
        path.with_name("w.pth.part.etag").unlink()
    assert only(fetch(server.url + "?mirror" * (change == "another url"), path))
    assert server.asked[1] == ("bytes=300000-" if change in ("range ignored", "another version") else None)


def test_a_part_that_is_whole_is_only_renamed(server, path):
    """As after a crash between the last byte and the new name."""
    server.says_length = False  # so that a cut answer looks whole, and the checksum finds it
    server.cuts = [300_000]
    with pytest.raises(DownloadError, match="came damaged"):
        fetch(server.url, path, sha256=SHA)
    server.says_length = True
    server.cuts = [300_000]
    with pytest.raises(DownloadError):
        fetch(server.url, path, retries=0)
    path.with_name("w.pth.part").write_bytes(DATA)
    assert only(fetch(server.url, path, sha256=SHA))
    assert server.asked[-1] == f"bytes={len(DATA)}-"
    path.unlink()
    path.with_name("w.pth.part").write_bytes(DATA + b"more than the file has")
    path.with_name("w.pth.part.etag").write_text(f'{server.url}\n"one"')
    assert only(fetch(server.url, path, sha256=SHA))


@pytest.mark.parametrize("fault", ["shifted", "unsaid"])
def test_another_range_than_asked_is_not_appended(server, path, fault):
    server.cuts, server.shift, server.says_range = [300_000], 7 * (fault == "shifted"), fault != "unsaid"
    assert only(fetch(server.url, path, sha256=SHA))
    assert server.asked == [None, "bytes=300000-", None]


def test_a_damaged_file_is_removed(server, path):
    with pytest.raises(
        DownloadError,
        match=rf"{server.url} came damaged: its sha256 is {SHA}, not 0676ba61.*part was removed: call",
    ):
        fetch(server.url, path, sha256="0676ba61")
    assert list(path.parent.iterdir()) == []
    with pytest.raises(
        DownloadError, match="came damaged: it has 1024000 bytes instead of 7. .*place it at .*w.pth$"
    ):
        fetch(server.url, path, size=7)
    assert list(path.parent.iterdir()) == []


def test_a_file_of_the_user_is_checked_and_left(server, path):
    path.parent.mkdir()
    path.write_text("mine")
    for expected in ({"size": len(DATA)}, {"sha256": SHA}):
        with pytest.raises(
            DownloadError, match=r"w.pth is not the file of http.*; move it away and call again"
        ):
            fetch(server.url, path, **expected)
    assert path.read_text() == "mine" and server.asked == []


def test_busy_servers_are_asked_again_and_refusals_are_not(server, path):
    server.errors = [503, 429]
    assert only(fetch(server.url, path))
    server.errors, server.asked = [404], []
    with pytest.raises(
        DownloadError,
        match=r"cannot be fetched \(HTTP Error 404: Not Found\).*get the file by hand and place it at",
    ):
        fetch(server.url, path.with_name("other.pth"))
    assert server.asked == [None] and only(path)


def test_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    with pytest.raises(
        DownloadError, match=r"http://127.0.0.1:9/w.pth cannot be fetched .*place it at .*w.pth"
    ):
        fetch("http://127.0.0.1:9/w.pth", tmp_path / "w.pth", retries=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("room", [500_000, len(DATA) - 10])
def test_a_full_disk_keeps_what_fits(server, path, room):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(
            DownloadError, match=r"w.pth.part cannot be written \(.*make room .* goes on after the .* MB kept"
        ):
            fetch(server.url, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert server.asked == [None], "a full disk must not be tried again"
    assert only(fetch(server.url, path, sha256=SHA))
    assert server.asked[1:] == [f"bytes={room}-"]


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DownloadError, match=r"w.pth.part cannot be written \((Not a directory|File exists)\)"
    ):
        fetch(server.url, tmp_path / "file" / "w.pth")


def test_two_callers_fetch_once(server, path):
    threads = [threading.Thread(target=fetch, args=(server.url, path, None, SHA)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert only(path) and server.asked == [None]


def test_local_files_and_foreign_schemes(tmp_path):
    source, path = tmp_path / "source.pth", tmp_path / "w.pth"
    source.write_bytes(DATA)
    assert fetch(source.as_uri(), path, sha256=SHA).read_bytes() == DATA
    with pytest.raises(DownloadError, match="nowhere.pth cannot be fetched"):
        fetch((tmp_path / "nowhere.pth").as_uri(), tmp_path / "x.pth")
    for url in ("ftp://host/w.pth", "w.pth"):
        with pytest.raises(DownloadError, match=f"{url} is no http, https or file URL.*place it at"):
            fetch(url, tmp_path / "x.pth")
