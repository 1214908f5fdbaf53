"""What two runs, or two versions of their settings, differ in: nested dicts are compared key by dotted key."""

import json
import os

from wsfcn_lib.runs.paths import ROOT

# why two runs differ, causes before effects, and the keys of a stage (or of the run) that say so
KINDS = {
    "settings": ("settings",),
    "data": ("data", "initial_weights"),
    "code": ("commit", "dirty", "code"),
    "versions": ("versions", "python"),
    "machine": ("platform", "processor", "cpus", "device"),
    "environment": ("environment",),
    "files": ("files",),
    "results": ("metrics",),
}


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
        if isinstance(value, dict):
            rows |= flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = value
    return rows


def diff_settings(a: dict, b: dict) -> list[tuple[str, object, object]]:
    """Return (dotted key, value in a, value in b) wherever they differ; "(absent)" stands for a missing key."""
    a, b = flat(plain(a)), flat(plain(b))
    rows = []
    for key in a | b:
        before = a.get(key, "(absent)")
        after = b.get(key, "(absent)")
        if before != after:
            rows.append((key, before, after))
    return rows


def diff_runs(a: dict, b: dict) -> list[tuple[str, str, object, object]]:
    """Return (kind, key, value in a, value in b) of what differs, in the order of KINDS; times are left out."""
    rows = []
    for kind, names in KINDS.items():
        for key, before, after in diff_settings(a, b):
            parts = key.split(".")  # stages.02_train.settings.epochs, or metrics.mean_iou
            name = parts[2] if parts[0] == "stages" else parts[0]
            if name in names:
                rows.append((kind, key, before, after))
    return rows
