"""A run folder as one HTML page: pictures inlined, no network, no scripts; what is missing is said in words."""

import csv
import re
from collections.abc import Iterable
from datetime import timedelta
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from wsfcn_lib.effects import spread
from wsfcn_lib.page import CSS, as_text, missing, percent, picture, read_json, rounded, spoken, table
from wsfcn_lib.runs import atomic_write, flat

SHARES = "iou|recall|incomplete"  # columns of an ablation that hold shares, 0..1


def write_report(run: Path | str) -> Path:
    """Write `report.html` into a run folder from what lies there, and return its path.

    Reads metrics.json, ablation.csv, figures/*.png with figures/captions.json {file: {title, caption, order}}, panels/*.png,
    run.json and notebooks/*.ipynb; each may be missing. Raises FileNotFoundError when there is no such folder.
    """
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(f"{run} is no run folder; notebooks/run_all.py --run-name {run.name} makes one")
    metrics, record = read_json(run / "metrics.json"), read_json(run / "run.json")
    sections = {
        "Result": _result(metrics) or missing("metrics.json", "05_evaluate measures the network"),
        "Classes": _classes(metrics) or missing("per_class_iou in metrics.json", "05_evaluate makes it, by masks"),
        "Ablation": _ablation(run / "ablation.csv", record) or missing("ablation.csv", "04_ablations makes it, by masks"),
        "Pictures": "".join(_figures(run / "figures")) or missing("figures/*.png", "each notebook saves its own"),
        "Growth of the maps": "".join(_growth(run / "panels")) or missing("panels/*.png", "02_train draws one per epoch"),
        "Stages": _stages(record.get("stages")) or missing("run.json", "each notebook writes its part"),
        "Settings and provenance": "".join(_settings(record)) or missing("run.json", "each notebook writes its part"),
        "Notebooks": _notebooks(run / "notebooks") or missing("notebooks/*.ipynb", "run_all.py keeps the executed copies"),
    }
    title = escape(f"Run {run.resolve().name}")
    links = "".join(f'<a href="#{name.split()[0]}">{name}</a>' for name in sections)
    parts = "".join(f'<section id="{name.split()[0]}"><h2>{name}</h2>{content}</section>\n' for name, content in sections.items())
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>{CSS}</style></head><body><h1>{title}</h1>
<p>Semantic segmentation learned from image tags alone: masks measured the network, they never trained it.</p>
<nav>{links}</nav>{parts}</body></html>\n"""
    atomic_write(run / "report.html", page)
    return run / "report.html"


def _result(metrics: dict) -> str:
    if "mean_iou" not in metrics:
        return ""
    kinds = {"predicted tags": "mean_iou{}", "true tags (upper bound)": "mean_iou{}_true_tags"}
    keys = {kind: [key.format(""), key.format("_crf")] for kind, key in kinds.items()}
    rows = [[kind, *(percent(metrics.get(key)) for key in row)] for kind, row in keys.items() if metrics.keys() & {*row}]
    told = sum(keys.values(), [])
    others = {key: value for key, value in metrics.items() if key not in told and not isinstance(value, dict | list)}
    words = " · ".join(f"{escape(spoken(key))} <b>{escape(as_text(value))}</b>" for key, value in others.items())
    heads = ["mIoU, %", "network", "+ dense CRF"]
    return table(heads, rows, "result") + f'<p class="soft">{words}</p>' + _other_recipe(metrics, heads)


def _other_recipe(metrics: dict, heads: list[str]) -> str:
    """What the recipe that was not chosen would have given, folded."""
    found = [v for v in metrics.get("variants", ()) if v["recipe"] != metrics.get("recipe", v["recipe"])]
    mean = {(v["recipe"], v["tags"], v["crf"]): v["mean_iou"] for v in found}
    keys = dict.fromkeys((v["recipe"], v["tags"]) for v in found)
    rows = [[f"recipe {r}, {tags} tags", mean.get((r, tags, False)), mean.get((r, tags, True))] for r, tags in keys]
    return f"<details><summary>the other recipe</summary>{table(heads, rows, '')}</details>" if rows else ""


def _classes(metrics: dict) -> str:
    names = metrics.get("per_class_iou", {}).keys()
    columns = {key: value for key, value in metrics.items() if isinstance(value, dict) and value.keys() == names}
    rows = [[name, *(column[name] for column in columns.values())] for name in names]
    return table(["%", *(spoken(key).removeprefix("per class ") for key in columns)], rows, "") if rows else ""


def _ablation(path: Path, record: dict) -> str:
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    heads, *rows = list(csv.reader(text.splitlines())) or [[]]
    if not rows:
        return ""
    words = f"<p>{escape(record.get('stages', {}).get('04_ablations', {}).get('conclusion', ''))}</p>"
    means, each = _over_seeds(heads, rows), table([*map(spoken, heads)], [[*map(rounded, row)] for row in rows], "")
    folded = means or len(rows) > 12
    return words + means + (f"<details><summary>all {len(rows)} rows</summary>{each}</details>" if folded else each)


def _over_seeds(heads: list[str], rows: list[list[str]]) -> str:
    """The means of an ablation's shares with their deviations; nothing where no variant was trained twice."""
    cells = pd.DataFrame([dict(zip(heads, row)) for row in rows])
    if not {"variant", "seed"} <= {*cells} or cells.groupby("variant").seed.nunique().max() < 2:
        return ""
    shares = cells[["variant"]].join(cells.filter(regex=SHARES).apply(pd.to_numeric, errors="coerce"))
    means = spread(shares, sorted(shares.columns[1:], key=lambda name: "1stage" in name)).replace("nan", "–")
    seeds = cells.groupby("variant").seed.nunique()
    lines = [[name, str(seeds[name]), *row] for name, row in zip(means.index, means.to_numpy())]
    words = '<p class="soft">In per cent: mean ± standard deviation over the seeds.</p>'
    return words + table(["variant", "seeds", *map(spoken, means)], lines, "means")


def _figures(folder: Path) -> Iterable[str]:
    captions = read_json(folder / "captions.json")
    told = {file: captions.get(file.name, {}) for file in folder.glob("*.png")}
    for file, entry in sorted(told.items(), key=lambda item: (item[1].get("order", len(told)), item[0].name)):
        yield picture(file, entry.get("title", spoken(file.stem)), entry.get("caption", ""))


def _growth(folder: Path) -> Iterable[str]:
    epochs = {file: [int(part) for part in re.findall(r"\d+", file.stem)] for file in folder.glob("*.png")}
    files = sorted(epochs, key=lambda file: (epochs[file], file.name))
    for file in (files[index] for index in sorted({0, len(files) // 2, len(files) - 1} if files else ())):
        yield picture(file, f"Epoch {epochs[file][0]}" if epochs[file] else file.stem, "")


def _stages(stages: dict | None) -> str:
    rows = []
    for name, stage in (stages or {}).items():
        memory, seconds = stage.get("peak_memory_mb"), stage.get("seconds")
        time = "–" if seconds is None else str(timedelta(seconds=round(seconds)))
        done = "yes" if stage.get("finished") else "no"
        rows.append([name, as_text(stage.get("started")), done, time, "–" if memory is None else f"{memory:,.0f} MB"])
    return table(["stage", "started", "finished", "time (h:m:s)", "peak memory"], rows, "") if rows else ""


def _settings(record: dict) -> Iterable[str]:
    parts = record.get("stages", {}) | {key: {key: value} for key, value in record.items() if key != "stages"}
    for name, part in parts.items():
        rows = [[key.removeprefix("settings."), as_text(value)] for key, value in flat(part).items()]
        yield f"<details><summary>{escape(name)}</summary>{table([], rows, 'settings')}</details>"


def _notebooks(folder: Path) -> str:
    names = [file.name for file in sorted(folder.glob("*.ipynb"))]
    found = "".join(f'<li><a href="notebooks/{quote(name)}">{escape(name)}</a></li>' for name in names)
    return f'<p class="soft">As executed, in the folder beside this page:</p><ul>{found}</ul>' if found else ""
