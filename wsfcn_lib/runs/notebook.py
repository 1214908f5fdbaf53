"""What every notebook does at its edges: check its parameters, say what it runs on, keep its figures, record its stage."""

import ast
import difflib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from wsfcn_lib.runs.folder import RunFolder
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import files_of, peak_memory_mb, provenance

NOTEBOOKS = ROOT / "notebooks"


class ParameterError(ValueError):
    """A parameter that no notebook declares, or a value of another type; the message names the nearest valid one."""


def parameters_of(source: str) -> dict[str, tuple[object, object]]:
    """{name: (annotation, value)} of the `name: type = literal` lines in a parameters cell, in order; (None, ...) if bare."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            found[node.target.id] = eval(ast.unparse(node.annotation)), ast.literal_eval(node.value)
        elif isinstance(node, ast.Assign):
            found[node.targets[0].id] = None, ast.literal_eval(node.value)
    return found


def declared(notebook: Path | str) -> dict[str, tuple[object, object]]:
    """{name: (annotation, default)} of a notebook's cell tagged `parameters`."""
    cells = json.loads((ROOT / notebook).read_text("utf-8"))["cells"]
    tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
    return parameters_of(tagged[0]) if tagged else {}


def check_values(own: dict[str, tuple], given: dict[str, object], others: Sequence[str] = ()) -> None:
    """Raise ParameterError for a given name that neither `own` nor `others` has, and for a value of another type than `own`'s."""
    for name, value in given.items():
        if name not in own and name not in others:
            near = difflib.get_close_matches(name, [*own, *others], 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(own)}"
            raise ParameterError(f"no notebook has a parameter {name!r}: {hint}")
        if name in own and own[name][0]:
            try:
                TypeAdapter(own[name][0]).validate_python(value, strict=True)
            except ValidationError:
                kind = own[name][0].__name__ if isinstance(own[name][0], type) else own[name][0]
                raise ParameterError(
                    f"{name}={value!r} must be of type {kind}, such as {own[name][1]!r}"
                ) from None


def check_parameters(cells: Sequence[str]) -> None:
    """Check what papermill injected, which itself only warns of a misspelt name. Pass IPython's `In`.

    Its cell begins with "# Parameters" and follows the notebook's own. Names that only another notebook declares are let
    pass, so that one file can set up all of them; ParameterError for names that none has, and for values of another type.
    """
    places = [place for place, source in enumerate(cells) if source.startswith("# Parameters\n")]
    if places:
        others = [name for path in sorted(NOTEBOOKS.glob("*.ipynb")) for name in declared(path)]
        given = {name: value for name, (_, value) in parameters_of(cells[places[-1]]).items()}
        check_values(parameters_of(cells[places[-1] - 1]), given, others)


def header(seed: int | None = None, device: object = None) -> str:
    """One line for the top of a notebook: versions, device, commit, seed."""
    facts = provenance()
    versions = [
        f"{name} {facts['versions'][name]}"
        for name in ("torch", "torchvision", "numpy")
        if name in facts["versions"]
    ]
    commit = facts["commit"][:10] + ", changed" * bool(facts["dirty"]) if facts["commit"] else "unknown"
    parts = [f"Python {facts['python']}", *versions, facts["platform"], f"commit {commit}"]
    return " · ".join(
        parts
        + [f"{name} {value}" for name, value in (("device", device), ("seed", seed)) if value is not None]
    )


def finish(folder: RunFolder, stage: str, began: float, device: object = "cpu", **facts: object) -> str:
    """Record a stage as finished, with time since `began` (time.perf_counter), memory, code, files; close the run folder."""
    facts |= {
        "seconds": round(time.perf_counter() - began, 1),
        "peak_memory_mb": peak_memory_mb(),
        "finished": True,
    }
    folder.record(stage, **facts, files=files_of(folder.path), **provenance(str(device)))
    folder.close()
    return f"{stage} took {facts['seconds']} s and at most {facts['peak_memory_mb']:.0f} MB of memory"
