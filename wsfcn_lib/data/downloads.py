"""Downloads that go on where they stopped, are checked before they count, and say what to do where they fail."""

import fcntl
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from wsfcn_lib.runs.storage import atomic_write

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without a byte
PAUSE = 1.0  # seconds before the second try, doubled for each further one


class DownloadError(RuntimeError):
    """A file that cannot be fetched, stored or trusted; the message says what is kept and what to do."""


def fetch(
    url: str, path: Path | str, size: int | None = None, sha256: str | None = None, retries: int = 3
) -> Path:
    """Fetch `url` to `path`, which appears only when whole; a file that is there is checked, not fetched again.

    Args:
        url: http, https or file.
        path: of the file. `<path>.part` gathers the bytes and `<path>.part.etag` the server's mark of their version: a
            further try, or a later call, goes on from there, and starts over if the file or the URL changed meanwhile.
        size: bytes it must have.
        sha256: its checksum in hex, or the first digits of it, as torchvision's file names carry them.
        retries: further tries after a lost connection.

    Raises:
        DownloadError: no network, full disk, a damaged file, or another file at `path`.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise DownloadError(
            f"{url} is no http, https or file URL; get the file by other means and place it at {path}"
        )
    if path.exists():
        if fault := _fault(path, size, sha256):
            raise DownloadError(f"{path} is not the file of {url}: {fault}; move it away and call again")
        return path
    with _storing(part):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(part, "ab", buffering=0)
    with file:
        fcntl.flock(
            file, fcntl.LOCK_EX
        )  # a second process waits here, and then finds the work done or undone
        if path.exists() or not part.exists():
            return fetch(url, path, size, sha256, retries)
        _persist(url, file, path, retries)
        if fault := _fault(part, size, sha256):
            _forget(part)
            advice = f"call again; if it ends the same, get the file elsewhere and place it at {path}"
            raise DownloadError(f"{url} came damaged: {fault}. The part was removed: {advice}")
        os.replace(part, path)
    _forget(part)
    return path


@contextmanager
def _storing(part: Path) -> Iterator[None]:
    """Tell errors of the disk from those of the network."""
    try:
        yield
    except OSError as error:
        kept = part.stat().st_size / 1e6 if part.exists() else 0
        advice = f"make room or get the right to write there, and call again: it goes on after the {kept:.1f} MB kept"
        raise DownloadError(f"{part} cannot be written ({error.strerror}); {advice}") from error


def _fault(path: Path, size: int | None, sha256: str | None) -> str:
    """What is wrong with a file that should be whole, or nothing."""
    if size is not None and path.stat().st_size != size:
        return f"it has {path.stat().st_size} bytes instead of {size}"
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest() if sha256 else ""
    return "" if found.startswith((sha256 or "").lower()) else f"its sha256 is {found}, not {sha256}"


def _forget(part: Path) -> None:
    for path in (part, part.with_name(f"{part.name}.etag")):
        path.unlink(missing_ok=True)


def _persist(url: str, file: BinaryIO, path: Path, retries: int) -> None:
    """Fill the part, with further tries where the connection is lost."""
    for attempt in range(retries + 1):
        try:
            return _receive(url, file)
        except (OSError, HTTPException) as error:  # urllib's errors are OSErrors
            reason = str(error) or type(error).__name__
            refused = isinstance(error, HTTPError) and error.code < 500 and error.code not in (408, 416, 429)
        if refused or url.startswith("file"):
            break
        if attempt < retries:
            time.sleep(PAUSE * 2**attempt)
    kept = os.fstat(file.fileno()).st_size
    if not kept:
        _forget(Path(file.name))
    advice = f"call again later, which goes on after the {kept / 1e6:.1f} MB kept, or get the file by hand and place it at {path}"
    raise DownloadError(f"{url} cannot be fetched ({reason}): {advice}")


def _receive(url: str, file: BinaryIO) -> None:
    """One connection: add what the part lacks. ConnectionError where less comes than was promised."""
    part = Path(file.name)
    mark = part.with_name(f"{part.name}.etag")
    origin, _, version = (mark.read_text() if mark.exists() else "").partition("\n")
    have = (
        part.stat().st_size if origin == url and version else 0
    )  # without a mark, nobody knows whether the rest fits
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    try:
        response = urlopen(Request(url, headers={"User-Agent": "wsfcn-kit", **headers}), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and error.headers["Content-Range"] == f"bytes */{have}":
            return  # the part was whole already
        if error.code == 416:
            file.truncate(0)
        raise
    with response:
        start, total = _span(response.status, response.headers)
        if start != have or not have:  # from the beginning, or from somewhere unasked
            file.truncate(0)
            if start:
                raise ConnectionError(f"bytes from {have} on were asked for, others came")
            with _storing(part):
                atomic_write(mark, f"{url}\n{_version(response.headers)}")
        bar = tqdm(
            desc=part.stem,
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            file=sys.stdout,
            mininterval=5,
            ncols=80,
        )
        with bar:
            while chunk := response.read1(CHUNK):
                _append(file, chunk)
                bar.update(len(chunk))
    if total is not None and (got := part.stat().st_size) < total:
        raise ConnectionError(f"the connection ended after {got} of {total} bytes")


def _span(status: int | None, headers: HTTPMessage) -> tuple[int, int | None]:
    """Where the bytes of a response begin (-1: it does not say), and how many the whole file has, if that is known."""
    if status == 206:
        found = re.match(r"bytes (\d+)-\d+/(\d+)", headers["Content-Range"] or "")
        return (int(found[1]), int(found[2])) if found else (-1, None)
    return 0, int(headers["Content-Length"]) if headers["Content-Length"] else None


def _version(headers: HTTPMessage) -> str:
    """The mark by which the server recognises this version of the file, if it has one that holds for every byte."""
    etag = headers["ETag"] or ""
    return (etag if etag.startswith('"') else "") or headers["Last-Modified"] or ""


def _append(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    with _storing(Path(file.name)):
        while rest:
            rest = rest[file.write(rest) :]
