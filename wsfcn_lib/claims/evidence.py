"""What lies in data/results: the folders of a name, and their figures by seed."""

import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path

from wsfcn_lib.runs.paths import ROOT

RESULTS = ROOT / "data" / "results"
OF_SEED = re.compile(r".*_s\d+")  # a training of another seed


def find(results: Path, names: Iterable[str]) -> list[Path]:
    """What lies below `results` under these names: a folder x with x_s1, x_s2, ..., or a file."""
    found = []
    for name in names:
        path = results / name
        seeds = [other for other in path.parent.glob(f"{path.name}_s*") if OF_SEED.fullmatch(other.name)]
        found += [path, *sorted(seeds)]
    return [path for path in found if path.exists()]


def distinct(folders: Iterable[Path]) -> list[Path]:
    """Folders without those whose numbers are all the same as an earlier one's: a copy is no second run."""
    kept, seen = [], []
    for folder in folders:
        metrics = read_json(folder / "metrics.json")
        if not metrics or metrics not in seen:
            kept.append(folder)
            seen.append(metrics)
    return kept


def read_json(path: Path) -> dict | list:
    """The content of a JSON file; {} where there is none."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def figure(folder: Path, key: str) -> float | None:
    """A number of a folder's metrics.json, with dots between the levels of `key`; None where it is not there."""
    value = read_json(folder / "metrics.json")
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def stages_of(folder: Path) -> dict:
    """The stages of a folder's run.json."""
    return read_json(folder / "run.json").get("stages", {})


def seed_of(folder: Path) -> int | None:
    """The seed of the training in a folder; None where it tells of none."""
    return stages_of(folder).get("02_train", {}).get("settings", {}).get("seed")


def unlike(given: dict, asked: dict) -> list[str]:
    """In what settings differ from those asked for, in words; of a dict within them the names that it has."""
    faults = []
    for name, value in asked.items():
        own = given.get(name)
        if isinstance(value, dict) and value and isinstance(own, dict):
            faults += unlike(own, value)
        elif own != value:
            faults.append(f"{name} {own} instead of {value}")
    return faults


def steps_of(log: Path) -> int:
    """How many steps a training had, by its log."""
    with log.open(newline="", encoding="utf-8") as file:
        return max((int(row["step"]) for row in csv.DictReader(file)), default=0)


def by_seed(folders: Iterable[Path], key: str) -> dict[int | None, list[float]]:
    """{seed: shares (0..1)} of the folders that have the number; one seed may have been trained several times."""
    values = {}
    for folder in folders:
        value = figure(folder, key)
        if value is not None:
            values.setdefault(seed_of(folder), []).append(value)
    return values
