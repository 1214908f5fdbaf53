"""tags.csv: which picture shows what, as people, spreadsheets and labelling tools write it."""

import ast
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from wsfcn_lib.data.classes import is_background
from wsfcn_lib.data.files import DataError, plain, read_table
from wsfcn_lib.data.images import PICTURES
from wsfcn_lib.data.manifest import SPLITS
from wsfcn_lib.data.scan import Spellings, looks_like_mask, same_name

TABLE = "tags.csv"
COLUMNS = ("image", "tags", "mask", "split")  # the first two are needed
LABEL_STUDIO = {"choice": "tags"}  # what its tables call the column
SEPARATORS = (";", ",", "|", "；", "，", "、", "\n")  # between tags
# what programs write for an empty cell
NOTHING = ("nan", "NaN", "NaT", "None", "null", "NULL", "<NA>", "#N/A")
MASK_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif")
# what Label Studio puts before a picture's name: its own folders, and some signs at a name that was uploaded
ITS_FOLDERS = re.compile(r"^/data/(upload/([0-9]+/)?|local-files/\?d=)")
ITS_SIGNS = re.compile("^[0-9a-f]{4,8}-")


@dataclass
class Entry:
    """A picture: its path below the root, its tags, where they are written, and what else is known of it."""

    path: PurePosixPath
    tags: tuple[str, ...]
    where: str
    mask: Path | None = None
    split: str = ""
    name: str = ""


def read_tags(
    root: Path, table: Path, pictures: list[PurePosixPath], known: tuple[str, ...] = ()
) -> tuple[list[Entry], list[str]]:
    """An entry for each picture in the table, and notes on what was read otherwise than it stands, or left out.

    `known`: names of classes, if they are given, which may hold signs that else separate tags.
    """
    columns, rows = read_table(table, COLUMNS[:2], LABEL_STUDIO)
    emptied = _empty_what_means_nothing(rows, known)
    _drop_decimal_commas(rows)
    separator = find_separator(rows, known)
    spellings, respelt, repeated, entries = Spellings(), [], [], {}
    for where, row in rows:
        written = PurePosixPath(row["image"].replace("\\", "/"))
        path = _find_picture(root, written, pictures, where, spellings)
        if path != written and root / path != Path(written):
            respelt.append(f"{written} is {path}")
        split = row.get("split", "").lower()
        if split and split not in SPLITS:
            raise DataError(
                f"{where}: split is {split!r}; write one of {', '.join(SPLITS)}, or nothing for train"
            )
        mask = _find_mask(root, row.get("mask", "").replace("\\", "/"), where, spellings)
        entry = Entry(path, split_cell(row["tags"], separator, where, known), where, mask, split)
        first = entries.setdefault(path, entry)
        if replace(entry, where=first.where) != first:
            raise DataError(f"{where}: {path} is listed before ({first.where}); make it one line")
        if first is not entry:
            repeated.append(str(path))
    entries = list(entries.values())
    notes = _whole_numbers(entries, known) + leave_out_background(entries)
    if emptied:
        notes.append(f"{len(emptied)} cells of tags.csv hold {emptied[0]} and are read as empty")
    if repeated:
        notes.append(f"{len(repeated)} lines of tags.csv repeat an earlier one, first {repeated[0]}")
    if respelt:
        notes.append(
            f"{len(respelt)} names of tags.csv are spelt otherwise than their files (case, Unicode form, ending "
            f"or folder), first: {respelt[0]}"
        )
    if separator != SEPARATORS[0]:
        notes.append(f"tags.csv: {separator!r} is read as what separates tags, as ';' would be")
    listed = {root / entry.path for entry in entries} | {entry.mask for entry in entries}
    unlisted = [path for path in pictures if root / path not in listed]
    if unlisted:
        notes.append(f"{len(unlisted)} pictures are not in tags.csv and are left out, first {unlisted[0]}")
    unused = [name or "without a heading" for name in columns[:1] if not name]
    unused += [name for name in columns if name and name not in COLUMNS]
    if unused:
        notes.append(f"tags.csv: the columns {unused} are not used; known are {', '.join(COLUMNS)}")
    return entries, notes


def _empty_what_means_nothing(rows: list[tuple[str, dict[str, str]]], known: tuple[str, ...]) -> list[str]:
    """Empty the cells that programs fill where they have no value; returns what they held."""
    emptied = []
    for _, row in rows:
        for column in set(COLUMNS) & row.keys():
            if row[column] in NOTHING and row[column] not in known:
                emptied.append(row[column])
                row[column] = ""
    return emptied


def _drop_decimal_commas(rows: list[tuple[str, dict[str, str]]]) -> None:
    """1,0 is the number 1 where all cells are like it: spreadsheets of some languages write it so."""
    tags = [row["tags"] for _, row in rows if row["tags"]]
    if all(re.fullmatch(r"\d+,0", text) for text in tags):
        for _, row in rows:
            row["tags"] = row["tags"].replace(",", ".")


def _whole_numbers(entries: list[Entry], known: tuple[str, ...]) -> list[str]:
    """Make 1.0 to 1 where all tags are such numbers, as spreadsheets and pandas write them; returns a note."""
    tags = {tag for entry in entries for tag in entry.tags}
    pointed = sorted(tag for tag in tags if "." in tag)
    if not pointed or set(pointed) & set(known) or not all(re.fullmatch(r"\d+(\.0+)?", tag) for tag in tags):
        return []
    for entry in entries:
        entry.tags = tuple(tag.split(".")[0] for tag in entry.tags)
    return [f"tags.csv: the tags are read as whole numbers, {pointed[0]} as {pointed[0].split('.')[0]}"]


def leave_out_background(entries: list[Entry]) -> list[str]:
    """Take the background out of the tags: it is what shows no class; returns a note."""
    count = 0
    for entry in entries:
        kept = tuple(tag for tag in entry.tags if not is_background(tag))
        count += kept != entry.tags
        entry.tags = kept
    if not count:
        return []
    return [
        f"{count} pictures are tagged as background, which is no class, and lose this tag; those with no other can "
        "teach if they get one of their own, such as 'nothing'"
    ]


def find_separator(rows: list[tuple[str, dict[str, str]]], known: tuple[str, ...] = ()) -> str:
    """What stands between tags in the whole table: one of SEPARATORS; DataError where two of them do."""
    first = {}
    for where, row in rows:
        for sign in SEPARATORS:
            if sign in row["tags"] and not _is_list(row["tags"]) and row["tags"] not in known:
                first.setdefault(sign, where)
    used = [sign for sign in first if not any(sign in name for name in known)]
    if len(used) > 1:
        places = " and ".join(f"{sign!r} ({first[sign]})" for sign in used)
        raise DataError(
            f"the tags have {places} between them; which one separates tags? Use ';' alone, or name the classes "
            "that hold such signs in classes.json"
        )
    return used[0] if used else SEPARATORS[0]


def split_cell(text: str, separator: str, where: str, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The tags in one cell: separated, or as a list (JSON, Python's, Label Studio's {"choices": [...]})."""
    if not _is_list(text):
        tags = [_tag(part, where, known) for part in text.split(separator)]
        return tuple(tag for tag in tags if tag)
    try:
        content = json.loads(text)
    except ValueError:
        try:  # NumPy writes no commas
            content = ast.literal_eval(re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", text))
        except (ValueError, SyntaxError) as error:
            raise DataError(
                f"{where}: {text!r} looks like a list of tags, but cannot be read; put ';' between tags"
            ) from error
    if isinstance(content, dict):
        content = content.get("choices")
    if isinstance(content, str):
        content = [content]
    if not isinstance(content, list | tuple | set) or not all(isinstance(tag, str) for tag in content):
        raise DataError(f"{where}: {text!r} is no list of tags, nor has it 'choices'; put ';' between tags")
    return tuple(plain(tag) for tag in content if plain(tag))


def _is_list(text: str) -> bool:
    return text[:1] + text[-1:] in ("[]", "{}") or (text[:1] + text[-1:] == "()" and text[1] in "'\"")


def _tag(text: str, where: str, known: tuple[str, ...]) -> str:
    """One tag without the quotes around it; DataError for the remains of a list, and for a score."""
    tag = plain(text)
    if tag in known:
        return tag
    if len(tag) > 1 and tag[0] == tag[-1] and tag[0] in "'\"":
        tag = tag[1:-1].strip()
    if tag[:1] in tuple("'\"([{") or any(tag.count(one) != tag.count(two) for one, two in ("()", "[]", "{}")):
        raise DataError(
            f"{where}: the tag {tag!r} looks like a piece of a list; write names alone, with ';' between them, "
            "or name such a class in classes.json"
        )
    if re.search(r"[:=(]\s*[01]?\.\d+\)?$", tag):
        raise DataError(
            f"{where}: the tag {tag!r} seems to end with a score; write the names alone, of those that are to count"
        )
    return tag


def _find_picture(
    root: Path, written: PurePosixPath, pictures: list[PurePosixPath], where: str, spellings: Spellings
) -> PurePosixPath:
    """The picture that a cell means, below the root where it lies there; as written if there is none."""
    written = _below(root, written)
    decoded = plain(unquote(str(written)))  # %20 is a blank in addresses
    inner = ITS_FOLDERS.sub("", decoded)
    shorter = ITS_SIGNS.sub("", inner) if inner != decoded else inner
    for name in dict.fromkeys((str(written), decoded, inner, shorter)):
        meant = spellings.find(root / name)
        if not meant and "/" not in name:
            # a name without its folder
            meant = [root / path for path in pictures if path.name == name]
        meant = [path for path in meant if path.suffix.lower() in PICTURES]
        # where the photograph is gone, its mask beside it must not take its place
        file = PurePosixPath(name).name
        meant = [
            path for path in meant if same_name(path.name) == same_name(file) or not looks_like_mask(path)
        ]
        if len(meant) > 1:
            files = ", ".join(str(path.relative_to(root)) for path in meant[:3])
            raise DataError(f"{where}: {name!r} may be {files}; write which one")
        if meant:
            path = PurePosixPath(meant[0])
            return path.relative_to(root) if path.is_relative_to(root) else path
    if not written.name:
        raise DataError(f"{where}: the cell of the image is empty; name its file, or remove the line")
    if not re.search("[a-z]", written.suffix.lower()):
        raise DataError(
            f"{where}: no picture is called {str(written)!r}; correct the name, or remove the line"
        )
    if written.suffix.lower() not in PICTURES:
        raise DataError(
            f"{where}: {str(written)!r} is no picture of a kind known here ({', '.join(PICTURES)}); convert it"
        )
    return written


def _below(root: Path, written: PurePosixPath) -> PurePosixPath:
    """A path relative to the root where it lies below it, however it is written: absolute, by links, by .."""
    if written.is_absolute() or ".." in written.parts:
        for resolve in (os.path.normpath, os.path.realpath):
            path = Path(resolve(root / written))
            if path.is_relative_to(resolve(root)):
                return PurePosixPath(path.relative_to(resolve(root)))
    return written


def _find_mask(root: Path, written: str, where: str, spellings: Spellings) -> Path | None:
    """The mask that a cell means; as written if there is none."""
    if not written:
        return None
    written = _below(root, PurePosixPath(written))
    meant = spellings.find(root / written, MASK_ENDINGS)
    if len(meant) > 1:
        raise DataError(
            f"{where}: the mask {str(written)!r} may be {meant[0]} or {meant[1]}; write which one"
        )
    return meant[0] if meant else root / written
