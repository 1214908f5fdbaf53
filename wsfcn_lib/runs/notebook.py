"""What every notebook does at its edges: check its parameters, say what it runs on, record its stage."""

import difflib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from wsfcn_lib.runs.folder import RunFolder
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import files_of, peak_memory_mb, provenance

STAGES = ("01_prepare_data", "02_train", "03_explore", "04_ablations", "05_evaluate")
NOTEBOOKS = {stage: ROOT / "notebooks" / f"{stage}.ipynb" for stage in STAGES}  # and no copy beside them


class ParameterError(ValueError):
    """A parameter that no notebook declares, or a value of another type; the message names the nearest valid one."""


def parameters_of(source: str) -> dict[str, tuple[object, object]]:
    """{name: (annotation, value)} of the lines `name: type = value` in a parameters cell, in order; of any type if bare."""
    space = {"__annotations__": {}}
    exec(source, space)
    kinds = space.pop("__annotations__")
    del space["__builtins__"]
    return {name: (kinds.get(name, object), value) for name, value in space.items()}


def declared(notebook: Path | str) -> dict[str, tuple[object, object]]:
    """{name: (annotation, default)} of a notebook's cell tagged `parameters`; {} where it has none."""
    for cell in json.loads((ROOT / notebook).read_text("utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            return parameters_of("".join(cell["source"]))
    return {}


def check_values(own: dict[str, tuple], given: dict[str, object], others: Iterable[str] = ()) -> None:
    """Raise ParameterError for a given name that neither `own` nor `others` has, and for a value of another type than `own`'s."""
    for name, value in given.items():
        if name in own:
            kind, default = own[name]
            try:
                TypeAdapter(kind).validate_python(value, strict=True)
            except ValidationError:
                told = kind.__name__ if isinstance(kind, type) else kind
                raise ParameterError(
                    f"{name}={value!r} must be of type {told}, such as {default!r}"
                ) from None
        elif name not in others:
            nearest = difflib.get_close_matches(name, [*own, *others], 1, 0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose from {', '.join(own)}"
            raise ParameterError(f"no notebook has a parameter {name!r}: {hint}")


def check_parameters(cells: Sequence[str]) -> None:
    """Check what papermill injected, which itself only warns of a misspelt name. Pass IPython's `In`.

    Its cell begins with "# Parameters" and follows the notebook's own. Names that only another notebook declares are let
    pass, so that one file can set up all of them; ParameterError for names that none has, and for values of another type.
    """
    places = [place for place, source in enumerate(cells) if source.startswith("# Parameters\n")]
    if places:
        own = parameters_of(cells[places[-1] - 1])
        given = {name: value for name, (_, value) in parameters_of(cells[places[-1]]).items()}
        others = [name for path in NOTEBOOKS.values() for name in declared(path)]
        check_values(own, given, others)


def header(seed: int | None = None, device: object = None) -> str:
    """One line for the top of a notebook: versions, device, commit, seed."""
    facts = provenance()
    commit = (facts["commit"] or "unknown")[:10]
    if facts["dirty"]:
        commit += ", changed"
    parts = [f"Python {facts['python']}"]
    parts += [f"{name} {facts['versions'][name]}" for name in ("torch", "torchvision", "numpy")]
    parts += [facts["platform"], f"commit {commit}"]
    if device is not None:
        parts.append(f"device {device}")
    if seed is not None:
        parts.append(f"seed {seed}")
    return " · ".join(parts)


def finish(folder: RunFolder, stage: str, began: float, device: object = "cpu", **facts: object) -> str:
    """Record a stage as finished, with time since `began` (time.perf_counter), memory, code, files; close the run folder."""
    seconds = round(time.perf_counter() - began, 1)
    memory = peak_memory_mb()
    facts |= provenance(str(device)) | {"seconds": seconds, "peak_memory_mb": memory, "finished": True}
    folder.record(stage, **facts, files=files_of(folder.path))
    folder.close()
    return f"{stage} took {seconds} s and at most {memory:.0f} MB of memory"
