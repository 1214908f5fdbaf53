"""All pictures of an evaluation with their masks over them, small, for the report."""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wsfcn_lib.data.images import read_image, read_mask
from wsfcn_lib.data.manifest import Sample
from wsfcn_lib.data.painting import blend, colour_labels, edges, outlined
from wsfcn_lib.evaluation.results import EvaluationResults, PostProcessing
from wsfcn_lib.infer import at_size, shrink
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.storage import atomic_write, make_folder

FOLDER, LIST = "gallery", "pictures.json"
SIDE = 320  # pixels, the longest of a picture
MOST = 300  # pictures
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def write_gallery(run: Path | str, samples: Sequence[Sample], results: EvaluationResults) -> int:
    """Write <run>/gallery: a JPEG of each picture with its mask, and their list with captions; returns their number.

    The masks are those that `evaluate` wrote, after the CRF where it ran. The true outlines are black where a
    picture has a mask, and these come first, worst first; else the order is that of the list. Of more than
    MOST pictures so many are taken, evenly spread.
    """
    run, settings = resolve_path(run), results.settings
    suffix = PostProcessing(settings.recipe, settings.use_crf, "predicted").suffix
    masks = run / "masks" / f"{results.label}{suffix}"
    rows = [row for row in results.rows if (masks / f"{row['image']}.png").is_file()]
    rows.sort(key=lambda row: row.get("iou" + suffix, 2))  # stable: without a truth they keep their order
    if len(rows) > MOST:
        rows = [rows[place] for place in np.linspace(0, len(rows) - 1, MOST).round().astype(int)]
    by_name = {sample.name: sample for sample in samples}
    folder = run / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    entries = []
    for number, row in enumerate(rows):
        sample = by_name[row["image"]]
        picture = painted(sample, masks / f"{sample.name}.png", results.manifest)
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=82)
        atomic_write(folder / f"{number:04d}.jpg", stream.getvalue())
        entries.append({"file": f"{number:04d}.jpg", "name": sample.name, "caption": caption(row, suffix)})
    content = {
        "title": results.label,
        "crf": settings.use_crf,
        "of": len(results.rows),
        "pictures": entries,
    }
    atomic_write(folder / LIST, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return len(entries)


def painted(sample: Sample, mask: Path, manifest) -> np.ndarray:
    """A picture (h, w, 3) uint8 of at most SIDE pixels under its mask; the outlines of the truth are black."""
    image = read_image(sample.image)
    label = read_mask(mask, manifest, size=image.shape[:2])
    small = shrink(image, SIDE)
    size = small.shape[:2]
    label = at_size(label, size)
    # without the dark rim of `overlay`: black is the truth's
    picture = blend(small, colour_labels(label, manifest.shades), np.where(label > 0, 0.5, 0))
    picture[edges(label) & (label > 0)] = WHITE
    if sample.mask:
        truth = at_size(read_mask(sample.mask, manifest, size=image.shape[:2]), size)
        picture = outlined(picture, truth, BLACK)
    return picture


def caption(row: dict, suffix: str) -> str:
    """What stands below a picture: the classes found in it and, where there is a truth, its IoU."""
    parts = [row["predicted"].replace(";", ", ") or "no class found"]
    if not row["painted"]:
        parts = ["nothing painted" + (f" ({parts[0]})" if row["predicted"] else "")]
    if "iou" + suffix in row:
        parts.append(f"IoU {row['iou' + suffix]:.2f}")
    return " · ".join(parts)
