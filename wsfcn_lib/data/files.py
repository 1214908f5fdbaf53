"""Text files of a data set, and the error that every fault of the data is."""

from pathlib import Path


class DataError(ValueError):
    """The data break a rule; the message names the file, the rule and what to do."""


def read_text(path: Path | str) -> str:
    """A text in UTF-8, with or without its mark; DataError if it is in another coding."""
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 at position {error.start}; save it so (spreadsheets call it CSV UTF-8)"
        ) from error


def read_list(path: Path | str) -> list[str]:
    """Image names, one a line; blank lines and lines that begin with # are passed over; DataError if missing or with doubles."""
    if not Path(path).is_file():
        raise DataError(
            f"{path}: there is no such list; write image names into it, one a line, without their endings"
        )
    lines = [line.strip() for line in read_text(path).splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"{path}: it has {len(names)} names, {len(set(names))} of them different; write some, and each one once"
        )
    return names
