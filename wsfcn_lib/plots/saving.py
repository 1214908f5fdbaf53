"""Figures as PNG: in a notebook, in the run's folder with a caption for the report."""

import io
import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from wsfcn_lib.plots.style import styled
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.storage import atomic_write


@dataclass(frozen=True)
class Picture:
    """A PNG file's bytes with a text for those who cannot see it; a notebook shows it."""

    png: bytes
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {"image/png": b64encode(self.png).decode(), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt}}


def save_figure(
    run: Path | str, name: str, figure: Figure | bytes, title: str, caption: str, order: int
) -> Picture:
    """Keep a figure (or PNG bytes) as `<run>/figures/<name>.png` with its caption for the report.

    Returns it for display.
    """
    folder = resolve_path(run) / "figures"
    png = figure if isinstance(figure, bytes) else to_png(figure)
    atomic_write(folder / f"{name}.png", png)
    path = folder / "captions.json"
    captions = json.loads(path.read_text("utf-8")) if path.exists() else {}
    captions[f"{name}.png"] = {"title": title, "caption": caption, "order": order}
    atomic_write(path, json.dumps(captions, indent=1, ensure_ascii=False) + "\n")
    return Picture(png, f"{title}. {caption}")


def light(png: bytes, above: int = 75_000) -> tuple[str, bytes]:
    """(MIME type, bytes) of a PNG: a JPEG where it has more bytes than `above` and that halves them."""
    if len(png) > above:
        stream = io.BytesIO()
        Image.open(io.BytesIO(png)).convert("RGB").save(stream, "JPEG", quality=88, optimize=True)
        if 2 * len(stream.getvalue()) < len(png):
            return "image/jpeg", stream.getvalue()
    return "image/png", png


@styled
def to_png(figure: Figure, dpi: int = 100, **metadata: str) -> bytes:
    """The figure as PNG bytes, `dpi` pixels per inch; `metadata` stands in the file as text."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata=metadata)
    return stream.getvalue()
