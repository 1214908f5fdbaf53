"""Text files of a data set: lists of names and tables; and the error that every fault of the data is."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

DELIMITERS = (",", ";", "\t")


class DataError(ValueError):
    """The data break a rule; the message names the file, the rule and what to do."""


def in_utf8(path: PurePath | str) -> str:
    """The path as a list can hold it; it differs where the path is in another coding, as in old archives."""
    return str(path).encode(errors="replace").decode()


def read_text(path: Path | str) -> str:
    """A text in UTF-8, with or without its mark, or in UTF-16 with it; DataError for another coding."""
    content = Path(path).read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 at position {error.start}; save it so (spreadsheets call it CSV UTF-8)"
        ) from error


def read_list(path: Path | str) -> list[str]:
    """Image names, one a line; blank lines and lines that begin with # are passed over.

    DataError if the list is missing, holds no name, or one twice.
    """
    if not Path(path).is_file():
        raise DataError(
            f"{path}: there is no such list; write image names into it, one a line, without their endings"
        )
    lines = [
        line.strip() for line in read_text(path).split("\n")
    ]  # names may hold what splitlines() splits at
    names = [line for line in lines if line and not line.startswith("#")]
    if not names or len(set(names)) < len(names):
        raise DataError(
            f"{path}: it has {len(names)} names, {len(set(names))} of them different; "
            "write some, and each one once"
        )
    return names


def read_table(path: Path | str, needed: Sequence[str]) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The columns of a CSV file in small letters, and for each row "file, line n" and its cells by column.

    Cells are separated by what line 1 has most of: comma, semicolon (spreadsheets of some languages) or tab.
    Blank rows are passed over.

    DataError if it is no whole CSV file, lacks a column of `needed`, names one twice, or has a row longer than
    line 1.
    """
    text = read_text(path)
    heading = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=heading.count)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    lines = []
    try:
        for cells in reader:
            lines.append((f"{path}, line {reader.line_num}", [cell.strip() for cell in cells]))
    except csv.Error as error:  # an open quote would swallow the lines after it
        raise DataError(
            f"{path}: not a whole CSV file, perhaps a quote is not closed ({error}); save it as CSV again"
        ) from error
    columns = [name.lower() for name in lines[0][1]] if lines else []
    if not set(needed) <= set(columns):
        raise DataError(
            f"{path}: line 1 must name the columns {','.join(needed)} with a comma between them, "
            f"found {columns}; rename those that are meant"
        )
    twice = sorted(name for name, count in Counter(columns).items() if name and count > 1)
    if twice:
        raise DataError(f"{path}: line 1 names the columns {twice} more than once; keep one of each")
    rows = []
    for where, cells in lines[1:]:
        if any(cells[len(columns) :]):
            other = "','" if delimiter == ";" else "';'"
            raise DataError(
                f"{where}: more cells than columns; put {other} between tags, not {delimiter!r}, "
                "or the whole cell into quotes"
            )
        if any(cells):
            rows.append((where, dict.fromkeys(columns, "") | dict(zip(columns, cells))))
    return columns, rows


def table_text(columns: Sequence[str], rows: Iterable[dict]) -> str:
    """These columns of the rows as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
