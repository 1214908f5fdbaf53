"""Bring the outputs of the executed default run back into the notebooks, fit to be committed. Used by run_all.py --commit."""

import base64
import io
import json
import sys
from pathlib import Path

import nbformat
from PIL import Image

from wsfcn_lib.plots.saving import light
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.notebook import NOTEBOOKS
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import code_hash
from wsfcn_lib.runs.storage import RunError, atomic_write

FIGURES = {  # in figures/, and what the notebooks call them in the run
    "overview.svg": "published.svg",
    "overview.png": "published.png",
    "cam.png": "cam-pamr.png",
    "explorer.png": "explorer.png",
    "growth.png": "growth.png",
    "result.png": "best-worst.png",
    "shipped.png": "shipped.png",
    "training.png": "curves.png",
    "ablation.png": "ablation.png",
}
FOLDER = ROOT / "figures"
LIMIT = 1_000_000  # bytes of a notebook
LARGE = 80_000  # and of one picture in it, before it is compressed once more
WIDGET = "application/vnd.jupyter.widget-view+json"
HASH = (
    "wsfcn_code"  # in the notebook's metadata: the code_hash() of library and notebook that made the outputs
)


def keep_outputs(run: Path) -> None:
    """Write a run's executed copies over the notebooks, and the pictures that READMEs show into figures/."""
    stages = read_run(run)["stages"]
    texts = {}
    for name, notebook in NOTEBOOKS.items():
        if stages[name]["code"] != code_hash():
            raise RunError(f"{name} of run {run.name} was made by other code than today's; add --fresh")
        texts[notebook] = cleaned(run / "notebooks" / notebook.name, notebook)
    for notebook, text in texts.items():
        atomic_write(notebook, text)
        print(f"{notebook.name}: {len(text.encode()) / 1000:.0f} kB")
    for name, source in FIGURES.items():
        atomic_write(FOLDER / name, (run / "figures" / source).read_bytes())


def cleaned(copy: Path, notebook: Path) -> str:
    """The text of a notebook with the outputs of its executed copy, without what papermill and the machine left in it."""
    book = nbformat.read(copy, as_version=4)
    original = nbformat.read(notebook, as_version=4)
    if [cell.source for cell in book.cells] != [cell.source for cell in original.cells]:
        raise RunError(f"{copy} was made by another version of {notebook.name}; add --fresh")
    for cell, own in zip(book.cells, original.cells):
        cell.id, cell.metadata = own.id, own.metadata
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            data.pop(WIDGET, None)  # without its kernel it would be an error message
            shrink_picture(data, output.get("metadata", {}))
            refuse_paths(f"{notebook.name}, cell In [{cell.execution_count}]", output)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    book.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}, HASH: code_hash(notebook)}
    text = nbformat.writes(book) + "\n"
    size = len(text.encode())
    if size > LIMIT:
        raise RunError(f"{notebook.name} would have {size / 1e6:.2f} MB, more than 1: show fewer pictures")
    return text


def shrink_picture(data: dict, metadata: dict) -> None:
    """Turn a large PNG of an output into a JPEG, a quarter of the size for photographs."""
    png = base64.b64decode(data.get("image/png", ""))
    kind, picture = light(png)
    if len(picture) > LARGE:
        kind, picture = "image/jpeg", as_jpeg(png)
    if kind != "image/png":
        del data["image/png"]
        data[kind] = base64.b64encode(picture).decode()
        if "image/png" in metadata:
            metadata[kind] = metadata.pop("image/png")


def as_jpeg(png: bytes, quality: int = 78) -> bytes:
    """A PNG's picture as a JPEG in which a large page of tiles still reads well."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def refuse_paths(where: str, output: dict) -> None:
    """Raise RunError for an output that tells where it was made."""
    texts = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
    words = json.dumps([texts, output.get("text", "")])
    for path in (str(ROOT), str(Path.home()), sys.prefix):
        if path + "/" in words:
            raise RunError(
                f"{where} shows a path of this machine, {path}; print paths from the repository on"
            )
