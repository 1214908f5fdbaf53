"""Writing files so that whatever happens, what was there before stays whole; and errors of the disk that say what to do."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsfcn_lib.runs.paths import resolve_path


class RunError(RuntimeError):
    """A run cannot be made or used as asked; the message says which rule is broken and what to do."""


def require_space(path: Path | str, bytes_needed: float) -> None:
    """Raise RunError unless the disk that holds (or will hold) `path`, has that much room."""
    place = resolve_path(path).resolve()
    free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
    if free < bytes_needed:
        need = f"{path} needs {bytes_needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free"
        raise RunError(
            f"{need}; delete old runs (python -m wsfcn_lib.runs lists them) or make data/ a link to a larger disk"
        )


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Let an error of the disk say which file it met and what to do; it stays an OSError of its kind."""
    try:
        yield
    except TimeoutError:  # of a notebook's cell
        raise
    except OSError as error:
        advice = "see what holds its disk, and start again"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "make room on its disk (or in your quota), and start again"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "get the right to write there, or choose a folder where you have it, and start again"
        elif error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            advice = "a file is where a folder must be, or a folder where a file must be; move it away and start again"
        elif error.errno == errno.ENOENT:
            advice = "it is gone; see whether its folder and disk are still there, and start again"
        told = f"{error.strerror or error}: {advice}; what was written before is whole"
        raise OSError(error.errno, told, str(path)) from error


def machine_fault(error: BaseException) -> str:
    """Why a sound file cannot be read and what helps, where the machine is the cause; empty where the file may be."""
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return "not enough memory, the file may be sound; end other programs, or use fewer workers"
    if number in (errno.EACCES, errno.EPERM):
        return (
            f"{error.strerror}, the file may be sound; get the right to read it (chmod u+r, or ask its owner)"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return (
            f"{error.strerror}, the file is not to blame; allow more (ulimit -n 4096), or use fewer workers"
        )
    if number in (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT):
        return f"{error.strerror}, the file may be sound; see whether its disk or network drive works, and try again"
    return ""


def make_folder(path: Path | str) -> Path:
    """The folder, made with those above it where it is not there; an error of the disk says what to do."""
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def atomic_write(path: Path | str, data: str | bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    Its folder is made where it is not there.
    """
    path = Path(path)
    make_folder(path.parent)
    short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]  # a name may be as long as names can be
    beside = path.with_name(f".{path.name[:40]}.{short}.{os.getpid()}")
    with writing(path):
        try:
            with open(beside, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)


def checksum(path: Path | str) -> str:
    """The SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
