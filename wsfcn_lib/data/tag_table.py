"""tags.csv: which picture shows what, as people, spreadsheets and labelling tools write it."""

import ast
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsfcn_lib.data.files import DataError, read_table
from wsfcn_lib.data.images import PICTURES
from wsfcn_lib.data.manifest import SPLITS
from wsfcn_lib.data.scan import Spellings, channels, same_name

TABLE = "tags.csv"
COLUMNS = ("image", "tags", "mask", "split")  # the first two are needed
SEPARATORS = (";", ",", "|")  # between tags
MASK_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif")


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
    root: Path, pictures: list[PurePosixPath], known: tuple[str, ...] = ()
) -> tuple[list[Entry], list[str]]:
    """An entry for each line of tags.csv, and notes on what was read otherwise than it stands, or left out.

    `known`: names of classes, if they are given, which may hold signs that else separate tags.
    """
    columns, rows = read_table(root / TABLE, COLUMNS[:2])
    separator = find_separator(rows, known)
    spellings, respelt, entries = Spellings(), [], {}
    for where, row in rows:
        written = PurePosixPath(row["image"].replace("\\", "/"))
        path = _find_picture(root, written, pictures, where, spellings)
        if path != written and root / path != Path(written):
            respelt.append(f"{written} is {path}")
        if path in entries:
            raise DataError(f"{where}: {path} is listed before ({entries[path].where}); make it one line")
        split = row.get("split", "").lower()
        if split and split not in SPLITS:
            raise DataError(
                f"{where}: split is {split!r}; write one of {', '.join(SPLITS)}, or nothing for train"
            )
        mask = _find_mask(root, row.get("mask", "").replace("\\", "/"), where, spellings)
        entries[path] = Entry(path, split_cell(row["tags"], separator, where), where, mask, split)
    notes = []
    if respelt:
        notes.append(
            f"{len(respelt)} names of tags.csv are spelt otherwise than their files (case, Unicode form, ending "
            f"or folder), first: {respelt[0]}"
        )
    if separator != SEPARATORS[0]:
        notes.append(f"tags.csv: {separator!r} is read as what separates tags, as ';' would be")
    listed = {root / path for path in entries} | {entry.mask for entry in entries.values()}
    unlisted = [path for path in pictures if root / path not in listed]
    if unlisted:
        notes.append(f"{len(unlisted)} pictures are not in tags.csv and are left out, first {unlisted[0]}")
    unused = [name for name in columns if name and name not in COLUMNS]
    if unused:
        notes.append(f"tags.csv: the columns {unused} are not used; known are {', '.join(COLUMNS)}")
    return list(entries.values()), notes


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


def split_cell(text: str, separator: str, where: str) -> tuple[str, ...]:
    """The tags in one cell: separated, or as a list (JSON, Python's, Label Studio's {"choices": [...]})."""
    if not _is_list(text):
        return tuple(tag.strip() for tag in text.split(separator) if tag.strip())
    try:
        content = json.loads(text)
    except ValueError:
        try:
            content = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise DataError(
                f"{where}: {text!r} looks like a list of tags, but cannot be read; put ';' between tags"
            ) from error
    if isinstance(content, dict):
        content = content.get("choices")
    if not isinstance(content, list | tuple) or not all(isinstance(tag, str) for tag in content):
        raise DataError(f"{where}: {text!r} is no list of tags, nor has it 'choices'; put ';' between tags")
    return tuple(tag.strip() for tag in content if tag.strip())


def _is_list(text: str) -> bool:
    return text[:1] + text[-1:] in ("[]", "{}")


def _find_picture(
    root: Path, written: PurePosixPath, pictures: list[PurePosixPath], where: str, spellings: Spellings
) -> PurePosixPath:
    """The picture that a cell means, below the root where it lies there; as written if there is none."""
    if written.is_absolute() and Path(written).is_relative_to(root):
        written = PurePosixPath(Path(written).relative_to(root))
    meant = spellings.find(root / written)
    if not meant and len(written.parts) == 1:
        # a name without its folder
        meant = [root / path for path in pictures if path.name == written.name]
    meant = [path for path in meant if path.suffix.lower() in PICTURES]
    # where the photograph is gone, its mask beside it must not take its place
    meant = [path for path in meant if same_name(path.name) == same_name(written.name) or channels(path) != 1]
    if len(meant) > 1:
        files = ", ".join(str(path.relative_to(root)) for path in meant[:3])
        raise DataError(f"{where}: {str(written)!r} may be {files}; write which one")
    if meant:
        path = PurePosixPath(meant[0])
        return path.relative_to(root) if path.is_relative_to(root) else path
    if written.suffix.lower() not in PICTURES:
        raise DataError(
            f"{where}: {str(written)!r} is no picture of a kind known here ({', '.join(PICTURES)}); convert it"
        )
    return written


def _find_mask(root: Path, written: str, where: str, spellings: Spellings) -> Path | None:
    """The mask that a cell means; as written if there is none."""
    if not written:
        return None
    meant = spellings.find(root / written, MASK_ENDINGS)
    if len(meant) > 1:
        raise DataError(f"{where}: the mask {written!r} may be {meant[0]} or {meant[1]}; write which one")
    return meant[0] if meant else root / written
