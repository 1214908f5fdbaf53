"""The pieces of a report's page: its style, tables, pictures, and words for numbers; whatever comes from files is escaped."""

import base64
import csv
import json
import re
from collections.abc import Iterable
from datetime import timedelta
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from wsfcn_lib.ablation.statistics import spread
from wsfcn_lib.plots.saving import light
from wsfcn_lib.runs.run_diff import flat
from wsfcn_lib.runs.storage import atomic_write

CSS = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5c6670; --line: #dfe3e8; --page: #fbfbfa; --bar: #0072b233; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #9aa4af; --line: #363d47; --page: #14181e; --bar: #56b4e94d; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem;
  margin: 0 auto; padding: 1.5rem 1.5rem 4rem; }
h1 { margin: 0.5rem 0; font-size: 2rem; } h2 { margin: 3rem 0 0.6rem; font-size: 1.3rem; } p { margin: 0.5rem 0; }
a { color: inherit; } nav a { margin-right: 1rem; } nav, .soft, figcaption { color: var(--soft); }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.7rem; border-bottom: 1px solid var(--line); text-align: right; } th { font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.result td + td { font-size: 1.7rem; font-weight: 650; } .means td { white-space: nowrap; }
.settings td { text-align: left; overflow-wrap: anywhere; }
.share { --end: calc(var(--part) * 0.66); min-width: 5.2rem; }
.share { background: linear-gradient(90deg, var(--bar) var(--end), transparent var(--end)) content-box; }
figure { margin: 2rem 0; } figcaption { margin-bottom: 0.5rem; } figcaption b { color: var(--ink); }
img { max-width: 100%; box-sizing: border-box; background: white; border: 1px solid var(--line); border-radius: 8px; }
summary { cursor: pointer; margin: 0.6rem 0; } .missing { border-left: 3px solid #d55e00; padding-left: 0.8rem; }
"""


def table(heads: list[str], rows: list[list], kind: str) -> str:
    """An HTML table: text cells as they are, numbers in [0, 1] as percent with a bar, None as a dash."""

    def cell(value: object) -> str:
        if isinstance(value, str):
            return f"<td>{escape(value)}</td>"
        part = "0" if value is None else f"{100 * value:.1f}%"
        return f'<td class="share" style="--part:{part}">{percent(value)}</td>'

    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}"><tr>{head}</tr>{lines}</table></div>'


def picture(file: Path, title: str, caption: str) -> str:
    """A PNG file with its caption, inlined; words where it is damaged."""
    data = file.read_bytes()
    words = f"<figcaption><b>{escape(title)}</b> {escape(caption)}</figcaption>"
    try:
        kind, data = light(data) if data.startswith(b"\x89PNG") else ("", data)
    except OSError:  # truncated
        kind = ""
    if not kind:
        return f'<figure>{words}</figure><p class="missing">{escape(file.name)} is damaged: it is no whole PNG file.</p>'
    image = f'<img alt="{escape(title)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'
    return f"<figure>{words}{image}</figure>"


def missing(what: str, who: str) -> str:
    """What is not there, and who makes it."""
    return f'<p class="missing">Not here yet: {escape(what)} is missing or unreadable ({escape(who)}).</p>'


def read_json(path: Path) -> dict:
    """The object in a JSON file; empty when the file is missing or damaged, which the page then says."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def spoken(key: str) -> str:
    """The words for a key, such as mIoU CRF for mean_iou_crf."""
    words = {"mean_iou": "mIoU", "mean_ap": "image-level mAP", "iou": "IoU", "crf": "CRF", "_": " "}
    return re.sub("|".join(words), lambda found: words[found[0]], key)


def percent(value: float | None) -> str:
    """A share 0..1 as per cent, a dash for None and nan."""
    return "–" if value is None or value != value else f"{100 * value:.1f}"


def as_text(value: object) -> str:
    """A value of a record as people read it."""
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    return "–" if value in (None, "") else f"{value:.4g}" if isinstance(value, float) else str(value)


def rounded(cell: str) -> str:
    """A cell of a CSV file: numbers to three places or, from 10 on, to whole ones; words as they are."""
    return (
        f"{float(cell):.{3 if float(cell) < 10 else 0}f}"
        if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", cell)
        else cell
    )


SHARES = "iou|recall|incomplete"  # columns of an ablation that hold shares, 0..1


def write_report(run: Path | str) -> Path:
    """Write `report.html` into a run folder from what lies there, and return its path.

    Reads metrics.json, ablation.csv, figures/*.png with figures/captions.json {file: {title, caption, order}}, panels/*.png,
    run.json and notebooks/*.ipynb; each may be missing. Raises FileNotFoundError when there is no such folder.
    """
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(
            f"{run} is no run folder; notebooks/run_all.py --run-name {run.name} makes one"
        )
    metrics, record = read_json(run / "metrics.json"), read_json(run / "run.json")
    sections = {
        "Result": _result(metrics) or missing("metrics.json", "05_evaluate measures the network"),
        "Classes": _classes(metrics)
        or missing("per_class_iou in metrics.json", "05_evaluate makes it, by masks"),
        "Ablation": _ablation(run / "ablation.csv", record)
        or missing("ablation.csv", "04_ablations makes it, by masks"),
        "Pictures": "".join(_figures(run / "figures"))
        or missing("figures/*.png", "each notebook saves its own"),
        "Growth of the maps": "".join(_growth(run / "panels"))
        or missing("panels/*.png", "02_train draws one per epoch"),
        "Stages": _stages(record.get("stages")) or missing("run.json", "each notebook writes its part"),
        "Settings and provenance": "".join(_settings(record))
        or missing("run.json", "each notebook writes its part"),
        "Notebooks": _notebooks(run / "notebooks")
        or missing("notebooks/*.ipynb", "run_all.py keeps the executed copies"),
    }
    title = escape(f"Run {run.resolve().name}")
    links = "".join(f'<a href="#{name.split()[0]}">{name}</a>' for name in sections)
    parts = "".join(
        f'<section id="{name.split()[0]}"><h2>{name}</h2>{content}</section>\n'
        for name, content in sections.items()
    )
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
    rows = [
        [kind, *(percent(metrics.get(key)) for key in row)]
        for kind, row in keys.items()
        if metrics.keys() & {*row}
    ]
    told = sum(keys.values(), [])
    others = {
        key: value for key, value in metrics.items() if key not in told and not isinstance(value, dict | list)
    }
    words = " · ".join(
        f"{escape(spoken(key))} <b>{escape(as_text(value))}</b>" for key, value in others.items()
    )
    heads = ["mIoU, %", "network", "+ dense CRF"]
    return table(heads, rows, "result") + f'<p class="soft">{words}</p>' + _other_recipe(metrics, heads)


def _other_recipe(metrics: dict, heads: list[str]) -> str:
    """What the recipe that was not chosen would have given, folded."""
    found = [v for v in metrics.get("variants", ()) if v["recipe"] != metrics.get("recipe", v["recipe"])]
    mean = {(v["recipe"], v["tags"], v["crf"]): v["mean_iou"] for v in found}
    keys = dict.fromkeys((v["recipe"], v["tags"]) for v in found)
    rows = [
        [f"recipe {r}, {tags} tags", mean.get((r, tags, False)), mean.get((r, tags, True))]
        for r, tags in keys
    ]
    return f"<details><summary>the other recipe</summary>{table(heads, rows, '')}</details>" if rows else ""


def _classes(metrics: dict) -> str:
    names = metrics.get("per_class_iou", {}).keys()
    columns = {
        key: value for key, value in metrics.items() if isinstance(value, dict) and value.keys() == names
    }
    rows = [[name, *(column[name] for column in columns.values())] for name in names]
    return (
        table(["%", *(spoken(key).removeprefix("per class ") for key in columns)], rows, "") if rows else ""
    )


def _ablation(path: Path, record: dict) -> str:
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    heads, *rows = list(csv.reader(text.splitlines())) or [[]]
    if not rows:
        return ""
    words = f"<p>{escape(record.get('stages', {}).get('04_ablations', {}).get('conclusion', ''))}</p>"
    means, each = (
        _over_seeds(heads, rows),
        table([*map(spoken, heads)], [[*map(rounded, row)] for row in rows], ""),
    )
    folded = means or len(rows) > 12
    return (
        words
        + means
        + (f"<details><summary>all {len(rows)} rows</summary>{each}</details>" if folded else each)
    )


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
        rows.append(
            [name, as_text(stage.get("started")), done, time, "–" if memory is None else f"{memory:,.0f} MB"]
        )
    return table(["stage", "started", "finished", "time (h:m:s)", "peak memory"], rows, "") if rows else ""


def _settings(record: dict) -> Iterable[str]:
    parts = record.get("stages", {}) | {key: {key: value} for key, value in record.items() if key != "stages"}
    for name, part in parts.items():
        rows = [[key.removeprefix("settings."), as_text(value)] for key, value in flat(part).items()]
        yield f"<details><summary>{escape(name)}</summary>{table([], rows, 'settings')}</details>"


def _notebooks(folder: Path) -> str:
    names = [file.name for file in sorted(folder.glob("*.ipynb"))]
    found = "".join(f'<li><a href="notebooks/{quote(name)}">{escape(name)}</a></li>' for name in names)
    return (
        f'<p class="soft">As executed, in the folder beside this page:</p><ul>{found}</ul>' if found else ""
    )
