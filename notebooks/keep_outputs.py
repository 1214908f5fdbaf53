"""Bring the outputs of executed notebooks back into the notebooks, fit to be committed. Used by run_all.py --commit."""

import base64
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat

from wsfcn_lib.plots.saving import light
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import code_hash
from wsfcn_lib.runs.storage import atomic_write

FIGURES = {
    "overview": "published",
    "cam": "cam-pamr",
    "explorer": "explorer",
    "growth": "growth",
    "result": "best-worst",
    "shipped": "shipped",
    "training": "curves",
    "ablation": "ablation",
}
LIMIT = 1_000_000  # bytes of a notebook
WIDGET = "application/vnd.jupyter.widget-view+json"
HASH = "wsfcn_code"  # in the notebook's metadata: code_hash() of library and notebook, defaults included, that made the outputs


class OutputError(RuntimeError):
    """An executed notebook cannot be committed; the message says why."""


def keep_outputs(executed: Path, notebooks: Iterable[Path]) -> None:
    """Write each executed copy over its notebook, without what papermill and the machine left in it."""
    texts = {notebook: cleaned(executed / notebook.name, notebook) for notebook in notebooks}
    for notebook, text in texts.items():
        atomic_write(notebook, text)
        print(f"{notebook.name}: {len(text.encode()) / 1000:.0f} kB")


def keep_figures(run: Path) -> None:
    """Copy the pictures that the README shows from a run to figures/."""
    files = {f"{name}.png": f"{made}.png" for name, made in FIGURES.items()} | {
        "overview.svg": "published.svg"
    }
    for name, made in files.items():
        atomic_write(ROOT / "figures" / name, (run / "figures" / made).read_bytes())


def cleaned(copy: Path, notebook: Path) -> str:
    """The text of a notebook with the outputs of its executed copy."""
    book, source = nbformat.read(copy, as_version=4), nbformat.read(notebook, as_version=4)
    if [cell.source for cell in book.cells] != [cell.source for cell in source.cells]:
        raise OutputError(
            f"{copy} was made by another version of {notebook.name}; delete it and run this again"
        )
    for cell, original in zip(book.cells, source.cells):
        cell.id, cell.metadata = original.id, original.metadata
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(WIDGET, None)  # without its kernel it would be an error message
            slim(output.get("data", {}), output.get("metadata", {}))
            refuse_paths(f"{notebook.name}, cell In [{cell.execution_count}]", output)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    book.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, HASH: code_hash(notebook)}
    text = nbformat.writes(book) + "\n"
    if len(text.encode()) > LIMIT:
        raise OutputError(
            f"{notebook.name} would have {len(text.encode()) / 1e6:.2f} MB, more than {LIMIT / 1e6:g}: show fewer pictures"
        )
    return text


def slim(*bundles: dict) -> None:
    """Turn a large PNG of an output into a JPEG, a quarter of the size for photographs; `bundles`: its data and metadata."""
    png = bundles[0].get("image/png", "")
    kind, data = light(base64.b64decode(png))
    if kind != "image/png":
        bundles[0]["image/png"] = base64.b64encode(data).decode()
        for bundle in bundles:
            if "image/png" in bundle:
                bundle[kind] = bundle.pop("image/png")


def refuse_paths(where: str, output: dict) -> None:
    """Raise OutputError for an output that tells where it was made."""
    text = json.dumps(
        {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
        | {"": output.get("text", "")}
    )
    for path in {str(ROOT), str(Path.home()), sys.prefix}:
        if path + "/" in text:
            raise OutputError(
                f"{where} shows a path of this machine, {path}; print paths relative to the repository"
            )
