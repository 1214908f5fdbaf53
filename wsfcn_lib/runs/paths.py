"""Where the repository lies, and what a path means that a user names."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "data" / "runs"


def resolve_path(path: Path | str) -> Path:
    """A file or folder that a user names, as an absolute path.

    ~ is the home folder. What is relative lies in the repository; unless there is nothing there, and something
    is there from the working folder (a notebook's, a script's): then it is that. So what is yet to be made goes
    into the repository.

    ValueError where ~ is followed by the name of no user, and for letters beyond ASCII where the locale's coding
    for names of files is not UTF-8.
    """
    given = expanded(path)
    place = ROOT / given
    if not os.path.exists(place) and os.path.exists(given):
        return given.absolute()
    return place


def shell_path(path: Path | str) -> Path:
    """A file or folder that a command line names, as an absolute path.

    What is there from the working folder wins, and what begins with ./ or ../ always starts in it; all else is
    as in `resolve_path`, with its errors.
    """
    given = expanded(path)
    if os.path.exists(given) or str(path).startswith(("./", "../")):
        return given.absolute()
    return ROOT / given


def shell_run(name: str) -> Path:
    """The run folder that a command line names: by its name in data/runs or, with a / or ~, by a path."""
    if "/" in name or name.startswith("~"):
        return Path(os.path.abspath(shell_path(name)))
    return RUNS / expanded(name)


def expanded(path: Path | str) -> Path:
    """A path with the home folder for ~; ValueError as `resolve_path`."""
    require_utf8(path)
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{path}: no user of this machine has that name; write ~/ for your own home folder, or the whole path"
        ) from None


def require_utf8(path: Path | str) -> None:
    """ValueError for letters beyond ASCII where the locale's coding for names of files is not UTF-8."""
    coding = sys.getfilesystemencoding()
    if coding != "utf-8" and not str(path).isascii():
        raise ValueError(
            f"{ascii(str(path))} has letters beyond ASCII, and the locale's coding {coding} would change them: "
            "set PYTHONUTF8=1 in the environment, and start Python or Jupyter again"
        )


def use_utf8() -> None:
    """Begin a command anew in Python's UTF-8 mode where the locale has another coding.

    Else names of files, and what is printed, could hold no letter beyond that coding. For commands alone: the
    process becomes another program.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
