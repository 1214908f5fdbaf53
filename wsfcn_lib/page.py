"""The pieces of a report's page: its style, tables, pictures, and words for numbers; whatever comes from files is escaped."""

import base64
import json
import re
from html import escape
from pathlib import Path

from wsfcn_lib.pictures import light

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
    return f"{float(cell):.{3 if float(cell) < 10 else 0}f}" if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", cell) else cell
