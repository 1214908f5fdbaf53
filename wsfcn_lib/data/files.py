"""Text files of a data set: lists of names and tables; and the error that every fault of the data is."""

import codecs
import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

DELIMITERS = (",", ";", "\t")
FLAGS = {"0", "1", "0.0", "1.0", "TRUE", "FALSE", "True", "False", ""}  # cells of columns that are classes
# signs without width, which copying from pages brings along
UNSEEN = re.compile("[\u00ad\u200b\u2060\ufeff]")


class DataError(ValueError):
    """The data break a rule; the message names the file, the rule and what to do."""


def in_utf8(path: PurePath | str) -> str:
    """The path as a list can hold it; it differs where the path is in another coding, as in old archives."""
    return str(path).encode(errors="replace").decode()


def plain(name: str) -> str:
    """A name of a class in one Unicode form, without outer blanks and signs that nobody sees."""
    return unicodedata.normalize("NFC", UNSEEN.sub("", name)).strip()


def read_text(path: Path | str) -> str:
    """A text in UTF-8 or UTF-16, with or without its mark; DataError for another coding."""
    content = Path(path).read_bytes()
    coding = "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        coding = "utf-16"
    elif b"\0" in content[:2]:  # half of a letter of ASCII, with which tables and JSON begin
        coding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        text = content.decode(coding)
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


def read_table(
    path: Path | str, needed: Sequence[str], meaning: Mapping[str, str] | None = None
) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The columns of a CSV file in small letters, and for each row "file, line n" and its cells by column.

    Cells are separated by what line 1 has most of, comma, semicolon (spreadsheets of some languages) or tab, or
    by what it names as Excel does (sep=;). Blank rows are passed over. `meaning`: other names of columns.

    DataError if it is no whole CSV file, lacks a column of `needed`, names one twice, or has a cell below no
    heading; the first column may lack one, as programs write the numbers of rows there.
    """
    text = read_text(path)
    first, _, rest = text.partition("\n")
    named = re.fullmatch(r'"?sep=(.)"?[,;]*', first, re.I)
    heading = rest.split("\n", 1)[0] if named else first
    delimiter = named[1] if named else max(DELIMITERS, key=heading.count)
    body = io.StringIO("\n" + rest if named else text, newline="")
    reader = csv.reader(body, strict=True, delimiter=delimiter, skipinitialspace=True)
    lines = []
    try:
        for cells in reader:
            lines.append((f"{path}, line {reader.line_num}", [cell.strip() for cell in cells]))
    except csv.Error as error:  # an open quote would swallow the lines after it
        raise DataError(
            f"{path}: not a whole CSV file, perhaps a quote is not closed ({error}); save it as CSV again"
        ) from error
    if named:
        del lines[0]
    columns = [plain(name).lower() for name in lines[0][1]] if lines else []
    for other, name in (meaning or {}).items():
        if name not in columns:
            columns = [name if column == other else column for column in columns]
    if not set(needed) <= set(columns):
        raise DataError(
            f"{path}: line 1 must name the columns {','.join(needed)} with a comma between them, "
            f"found {columns}; {_instead(text, lines, needed)}"
        )
    twice = sorted(name for name, count in Counter(columns).items() if name and count > 1)
    if twice:
        raise DataError(f"{path}: line 1 names the columns {twice} more than once; keep one of each")
    rows = []
    for where, cells in lines[1:]:
        stray = [cell for cell in cells[len(columns) :] if cell]
        stray += [cell for name, cell in zip(columns[1:], cells[1:]) if cell and not name]
        if stray:
            other = "','" if delimiter == ";" else "';'"
            raise DataError(
                f"{where}: more cells than columns; put {other} between tags, not {delimiter!r}, "
                f"or the whole cell into quotes ({stray[0]!r} stands below no heading)"
            )
        if any(cells):
            rows.append((where, dict.fromkeys(columns, "") | dict(zip(columns, cells))))
    return columns, rows


def _instead(text: str, lines: list[tuple[str, list[str]]], needed: Sequence[str]) -> str:
    """What a table without the needed columns seems to be, and what to do."""
    for number, line in enumerate(text.split("\n")[1:10], 2):
        if set(needed) <= {cell.strip(' "') for cell in re.split("[,;\t]", line.lower())}:
            return f"they stand in line {number}: remove the lines above it"
    headings = lines[0][1] if lines else []
    if any(re.search(r"\.[a-z]{3,4}$", cell, re.I) for cell in headings):
        return f"line 1 seems to be a row already: write the line {','.join(needed)} above it"
    cells_of = {name: {row[k] for _, row in lines[1:] if k < len(row)} for k, name in enumerate(headings)}
    flags = [name for name, cells in cells_of.items() if len(cells) > 1 and cells <= FLAGS]
    if flags:
        return (
            f"it seems to have a column for each class (such as {flags[0]}): "
            f"write into one column {needed[-1]} the names of those that hold 1, with ';' between them"
        )
    return "rename those that are meant"


def table_text(columns: Sequence[str], rows: Iterable[dict]) -> str:
    """These columns of the rows as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
