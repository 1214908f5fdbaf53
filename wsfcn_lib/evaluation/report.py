"""The report of a run: what lies in its folder, gathered on one page that opens without a network.

report.html.jinja is the page; here its contents are read, and numbers get their words.
"""

import json
import re
from base64 import b64encode
from datetime import timedelta
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader

from wsfcn_lib.evaluation.gallery import FOLDER, LIST
from wsfcn_lib.evaluation.image_counts import WORDS, measure_words
from wsfcn_lib.plots.saving import light
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.run_diff import flat
from wsfcn_lib.runs.storage import atomic_write

FIRST = "best-worst"  # the figure that opens a report of pictures with a truth
SHARES = "iou|recall|incomplete"  # columns of an ablation that hold shares, 0..1


def write_report(run: Path | str) -> Path:
    """Write `report.html` into a run folder from what lies there, and return its path.

    Reads metrics.json, gallery/, ablation.csv, figures/*.png (captions.json: {file: {title, caption, order}}),
    panels/*.png, run.json and notebooks/*; each may be missing, and the page's end then says so.
    Raises FileNotFoundError when there is no such folder.
    """
    run = resolve_path(run)
    if not run.is_dir():
        raise FileNotFoundError(
            f"{run} is no run folder; notebooks/run_all.py --run-name {run.name} makes one"
        )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    for function in (data_uri, duration, percent, rounded, text, words):
        environment.filters[function.__name__] = function
    record, metrics = read_json(run / "run.json"), read_json(run / "metrics.json")
    figures = _figures(run / "figures")
    page = environment.get_template("report.html.jinja").render(
        name=run.resolve().name,
        metrics=metrics,
        facts=_facts(metrics),
        details=_details(metrics),
        gallery=_gallery(run / FOLDER),
        first=next((figure for figure in figures if figure[0].stem == FIRST), None),
        ablation=_ablation(run / "ablation.csv"),
        figures=[figure for figure in figures if figure[0].stem != FIRST],
        panels=_panels(run / "panels"),
        record=record,
        settings=_settings(record),
        notebooks=_notebooks(run / "notebooks"),
    )
    atomic_write(run / "report.html", page)
    return run / "report.html"


def read_json(path: Path) -> dict:
    """The object in a JSON file; empty when the file is missing or damaged, which the page then says."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _facts(metrics: dict) -> dict:
    """The single values among metrics that are not the headline."""
    return {
        key: value
        for key, value in metrics.items()
        if not key.startswith("mean_iou") and not isinstance(value, (dict, list)) and value is not None
    }


def _details(metrics: dict) -> dict:
    """What `EvaluationResults.metrics` has beside mIoU, for the page's section: rows, classes, companions, lines."""
    blocks = {
        head: metrics[key]
        for head, key in (("network", "details"), ("+ dense CRF", "details_crf"))
        if isinstance(metrics.get(key), dict)
    }
    content = {"heads": list(blocks), "rows": [], "classes": [], "class_heads": [], "lines": []}
    measures = [key for key in WORDS if any(key in block for block in blocks.values())]
    content["rows"] = [
        (measure_words(key), [block.get(key) for block in blocks.values()]) for key in measures
    ]
    of_class = [(head, block["per_class"]) for head, block in blocks.items() if block.get("per_class")]
    for head, table in of_class:
        for key in next(iter(table.values())):
            content["class_heads"].append(f"{WORDS[key]}, {head}")
    for name in of_class[0][1] if of_class else ():
        values = [value for _, table in of_class for value in table.get(name, {}).values()]
        content["classes"].append((name, values))
    content["companions"] = metrics.get("companions", [])
    if calibration := metrics.get("tag_calibration"):
        content["lines"].append(
            f"Tags: a probability is off by {percent(calibration['calibration_error'])} points on average (calibration error of "
            f"15 bins); its mean is {percent(calibration['mean_probability'])} %, and {percent(calibration['present'])} % of the "
            f"classes are there; Brier score {calibration['brier']:.3f}."
        )
    cuts = (metrics.get("training") or {}).get("cuts") or {}
    for kind, found in cuts.items():
        if found:
            content["lines"].append(
                f"{words(kind).replace('cam', 'CAM')} on training images: mIoU {percent(found['mean_iou'])} % at the cut "
                f"{found['cut']:.2f}, chosen on every second image and measured on the others; "
                f"{percent(found['mean_iou_fixed'])} % at the fixed {found['fixed_cut']:.2f}; at best "
                f"{percent(found['peak'])} % ({found['peak_cut']:.2f})."
            )
    return content


def _gallery(folder: Path) -> dict:
    """The list of a gallery, see `gallery.write_gallery`, with the file of each picture; empty without one."""
    content = read_json(folder / LIST)
    pictures = []
    for entry in content.get("pictures", ()):
        file = folder / Path(str(entry["file"])).name
        if file.is_file():
            pictures.append(entry | {"file": file})
    return content | {"pictures": pictures} if pictures else {}


def _notebooks(folder: Path) -> list[tuple[str, str]]:
    """(name, file) of the executed notebooks: as a page where there is one."""
    found = []
    for file in sorted(folder.glob("*.ipynb")):
        page = file.with_suffix(".html")
        found.append((file.stem, page.name if page.is_file() else file.name))
    return found


def _ablation(path: Path) -> dict | None:
    """The table of an ablation; where a variant was trained twice, means and deviations over seeds."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):  # an empty or damaged table is a ValueError of pandas
        return None
    content = {"columns": list(table), "rows": table.to_numpy(object).tolist(), "means": []}
    if {"variant", "seed"} <= set(table):
        groups = table.groupby("variant", sort=False)
        seeds = groups.seed.nunique()
        if seeds.max() > 1:
            shares = list(table.filter(regex=SHARES).select_dtypes("number"))
            means, deviations = groups[shares].mean(), groups[shares].std()
            content["shares"] = shares
            content["means"] = [
                (variant, number, means.loc[variant].tolist(), deviations.loc[variant].tolist())
                for variant, number in seeds.items()
            ]
    return content


def _figures(folder: Path) -> list[tuple[Path, dict]]:
    """The pictures with title and caption, in the order that their notebooks gave them; others last."""
    captions = read_json(folder / "captions.json")
    figures = [(file, captions.get(file.name, {})) for file in sorted(folder.glob("*.png"))]
    return sorted(figures, key=lambda figure: figure[1].get("order", float("inf")))


def _panels(folder: Path) -> list[tuple[int, Path]]:
    """The first panel, one half way, and the last, each with its epoch."""
    panels = []
    for file in folder.glob("*.png"):
        epoch = re.sub(r"\D", "", file.stem)
        if epoch:
            panels.append((int(epoch), file))
    panels.sort()
    chosen = {0, len(panels) // 2, len(panels) - 1} if panels else ()
    return [panels[index] for index in sorted(chosen)]


def _settings(record: dict) -> dict[str, dict]:
    """{part of run.json: {key: value}}, the stages first."""
    parts = dict(record.get("stages", {}))
    for key, value in record.items():
        if key != "stages":
            parts[key] = {key: value}
    return {name: flat(part) for name, part in parts.items()}


def data_uri(file: Path) -> str:
    """A picture as text for `src`; empty where the file is no whole PNG or JPEG."""
    content = file.read_bytes()
    if content.startswith(b"\xff\xd8"):
        return f"data:image/jpeg;base64,{b64encode(content).decode()}"
    if not content.startswith(b"\x89PNG"):
        return ""
    try:
        kind, content = light(content)
    except OSError:  # truncated
        return ""
    return f"data:{kind};base64,{b64encode(content).decode()}"


def duration(seconds: float | None) -> str:
    """Seconds as hours:minutes:seconds, a dash for None."""
    return "–" if seconds is None else str(timedelta(seconds=round(seconds)))


def percent(value: float | None) -> str:
    """A share 0..1 as per cent, a dash for None and nan."""
    return "–" if value is None or value != value else f"{100 * value:.1f}"


def rounded(value: object) -> str:
    """A cell of an ablation: numbers to three places or, from 10 on, to whole ones; a dash for nan."""
    if not isinstance(value, float):
        return str(value)
    return "–" if value != value else f"{value:.{3 if value < 10 else 0}f}"


def text(value: object) -> str:
    """A value of a record as people read it."""
    if isinstance(value, list):
        return ", ".join(map(text, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value in (None, "") else str(value)


def words(key: str) -> str:
    """The words for a key, such as mIoU CRF for mean_iou_crf."""
    replaced = {"mean_iou": "mIoU", "mean_ap": "image-level mAP", "iou": "IoU", "crf": "CRF", "_": " "}
    for part, word in replaced.items():
        key = key.replace(part, word)
    return key
