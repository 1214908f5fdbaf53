"""Lists that the kit wrote, told by their checksums from those that a user wrote or edited: these are never replaced."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ..runs import atomic_write
from .files import DataError

RECORD = "prepared.json"  # list -> checksums of what the kit wrote


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those of the named files that are in the folder."""
    paths = [folder / name for name in names if (folder / name).is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def write_lists(folder: Path, lists: dict[str, str], names: Iterable[str]) -> None:
    """Write the text of each list, and remove those of `names` that are not among them.

    DataError, and nothing is changed, where that would change a list that is not as it was written here. A list of the user's
    that is equal to what would be written remains the user's.
    """
    record, there = folder / RECORD, checksums(folder, names)
    new = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in lists.items()}
    try:
        ours = dict(json.loads(record.read_text("utf-8"))) if record.is_file() else {}
    except (ValueError, TypeError) as error:
        raise DataError(f"{record} is damaged ({error}); delete it: all lists beside it then count as yours") from error
    theirs = [name for name, checksum in there.items() if checksum not in ours.get(name, ())]
    for name in theirs:
        if there[name] != new.get(name):
            rule = "was written or changed by hand, or before records were kept, and is not replaced"
            raise DataError(f"{folder / name} {rule}: name another folder as `data`, or move this file away")
    # old and new: when the writing is interrupted half way, it can be begun again
    names = sorted({*there, *new}.difference(theirs))
    both = {name: sorted({part[name] for part in (there, new) if name in part}) for name in names}
    atomic_write(record, json.dumps(both, indent=1) + "\n")
    for name in there.keys() - lists:
        (folder / name).unlink()
    for name, text in lists.items():
        atomic_write(folder / name, text)
