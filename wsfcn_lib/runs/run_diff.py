"""What two runs, or two versions of their settings, differ in: nested dicts are compared key by dotted key."""

import json
import os
import re

from wsfcn_lib.runs.paths import ROOT

# why two runs differ: what is told, and the keys of a stage (or of the run) that it is read from
KINDS = {"settings": "settings", "data": "data", "code": "commit|dirty|code", "versions": "versions|python"}
KINDS |= {"machine": "platform|cpus|device", "files": "files", "results": "metrics"}


def plain(value: object) -> object:
    """Return `value` as JSON holds it: tuples become lists, numpy numbers numbers, paths below ROOT relative to it."""
    text = json.dumps(
        value, default=lambda item: item.item() if hasattr(item, "item") else str(item), ensure_ascii=False
    )
    return json.loads(text.replace(f'"{ROOT}{os.sep}', '"'))


def flat(tree: dict, prefix: str = "") -> dict[str, object]:
    """Return nested dicts as one dict with dotted keys."""
    rows = {}
    for key, value in tree.items():
        rows |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return rows


def diff_settings(a: dict, b: dict) -> list[tuple[str, object, object]]:
    """Return (dotted key, value in a, value in b) wherever they differ; "(absent)" stands for a missing key."""
    a, b = flat(plain(a)), flat(plain(b))
    a, b = (dict.fromkeys([*a, *b], "(absent)") | side for side in (a, b))
    return [(key, a[key], b[key]) for key in a if a[key] != b[key]]


def diff_runs(a: dict, b: dict) -> list[tuple[str, str, object, object]]:
    """Return (kind, key, value in a, value in b) of what differs, causes before effects as in KINDS; times are left out."""
    rows = [(kind, *row) for kind, keys in KINDS.items() for row in diff_settings(a, b)]
    return [row for row in rows if re.match(rf"(stages\.\w+\.)?({KINDS[row[0]]})(\.|$)", row[1])]
