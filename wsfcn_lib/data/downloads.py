"""Downloads: released files by name, and large archives that go on where they stopped.

`python -m wsfcn_lib.data.downloads resnet38` fetches one by hand.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from wsfcn_lib.data.model_zoo import ARTEFACTS, WeightsError, initial_weights
from wsfcn_lib.runs.paths import ROOT, use_utf8
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import checksum, make_folder, writing

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without a byte
TRIES = 4
PAUSE = 1.0  # seconds before the second try, doubled for each further one


class DownloadError(RuntimeError):
    """A file that cannot be fetched or trusted; the message says what is kept and what to do."""


def fetch_weights(name: str | Path) -> Path | None:
    """Fetch the file of a released name, such as a backbone, into its folder if it is nowhere; its path.

    Left alone (None): every other name, a file that is there, and a file to be had by hand only. Two
    processes at once both fetch, and the file appears when the first has it whole. DownloadError tells the
    way by hand.
    """
    row = ARTEFACTS.get(str(name))
    if row is None or not row.url or row.find():
        return None
    from torch.hub import download_url_to_file

    folder = make_folder(ROOT / row.folder)
    print(f"fetching {row.file} ({row.mb:g} MB) into {row.folder}")
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as scratch:
            part = Path(scratch) / row.file
            with urlopen(Request(row.url, method="HEAD"), timeout=TIMEOUT) as response:
                size = response.headers["Content-Length"]
            download_url_to_file(row.url, str(part), hash_prefix=row.sha256)
            if size and part.stat().st_size != int(size):  # torch.hub takes a lost connection for the end
                raise ConnectionError(f"{part.stat().st_size} of {size} bytes came")
            return part.replace(folder / row.file)
    except (OSError, RuntimeError, HTTPException) as error:
        raise DownloadError(f"{row.file} cannot be fetched ({error}): {row.advice}") from error


def download(url: str, path: Path, size: int, sha256: str) -> Path:
    """Fetch a large file to `path`, where it appears when it is whole; a file that is there is only checked.

    Args:
        url: http, https or file.
        path: of the file. `<path>.part` gathers the bytes; a further try or a later call goes on from there.
        size: bytes it must have.
        sha256: its checksum in hex.

    Raises:
        DownloadError: no network, a damaged file, or another file at `path`.
        OSError: the disk is full or cannot be written.
    """
    make_folder(path.parent)
    part = path.with_name(f"{path.name}.part")
    if path.exists():
        if not _is_whole(path, size, sha256):
            raise DownloadError(
                f"{path} is not the file of {url}, of {size} bytes with sha256 {sha256}; "
                f"move it away and call again"
            )
        return path
    _persist(url, part, size, path)
    if not _is_whole(part, size, sha256):
        part.unlink()
        raise DownloadError(
            f"{url} came damaged or has changed: it should have {size} bytes and the sha256 {sha256}. "
            f"The part was removed: call again; if it ends the same, get the file elsewhere "
            f"and place it at {path}"
        )
    return part.replace(path)


def _is_whole(path: Path, size: int, sha256: str) -> bool:
    return path.stat().st_size == size and checksum(path) == sha256


def _persist(url: str, part: Path, size: int, path: Path) -> None:
    """Add what the part lacks, with further tries where the connection is lost."""
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE * 2 ** (number - 1))
        try:
            with writing(part), open(part, "ab") as file:
                have = file.tell()
                with progress(None, path.name, size, unit="B", unit_scale=True, initial=have) as bar:
                    for chunk in _chunks(url, have, size):
                        file.write(chunk)
                        bar.update(len(chunk))
            return
        except DownloadError as error:
            reason = error
    kept = part.stat().st_size / 1e6
    raise DownloadError(
        f"{url} cannot be fetched ({reason}): call again later, which goes on after the {kept:.1f} MB kept, "
        f"or get the file by hand and place it at {path}"
    )


def _chunks(url: str, start: int, size: int) -> Iterator[bytes]:
    """A file of `size` bytes from `start` on; DownloadError where the connection fails or ends early."""
    if start >= size:
        return
    request = Request(url, headers={"User-Agent": "wsfcn-kit", "Range": f"bytes={start}-"})
    try:
        with urlopen(request, timeout=TIMEOUT) as response:
            position = start if response.status == 206 else 0  # a server without ranges sends all of it
            while chunk := response.read(CHUNK):
                yield chunk[max(0, start - position) :]
                position += len(chunk)
    except (OSError, HTTPException) as error:  # urllib's errors are OSErrors
        raise DownloadError(str(error) or type(error).__name__) from error
    if position < size:
        raise DownloadError(f"the connection ended after {position} of {size} bytes")


def main() -> None:
    """The command line: see the top of this file."""
    parser = argparse.ArgumentParser(description="Fetch files that others released.")
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"one of {', '.join(ARTEFACTS)}")
    try:
        for name in parser.parse_args().names:
            fetch_weights(name)
            print(initial_weights(name))
    except (DownloadError, WeightsError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    use_utf8()
    main()
