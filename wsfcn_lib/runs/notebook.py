"""What every notebook does at its edges: check its parameters, say what it runs on, record its stage."""

import ast
import difflib
import inspect
import json
import math
import re
import textwrap
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from wsfcn_lib.runs.folder import RunFolder
from wsfcn_lib.runs.more import settings_of_more
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import files_of, peak_memory_mb, provenance

OTHER_NAMES = {  # what belongs elsewhere, or is called otherwise, in a file of parameters
    "size": "the side of the built-in scenes is image_size",
    "train": "the number of built-in scenes is train_images, a list of VOC's images train_list",
    "val": "the number of built-in scenes is val_images, a list of VOC's images val_list",
    "test": "the number of built-in scenes is test_images, a list of VOC's images test_list",
    "glyphs": "the built-in scenes have image_size, train_images, val_images, test_images and data_seed",
    "lists": "VOC's lists are train_list, val_list and test_list",
    "run_name": "write run: data/runs/<name>, or give run_all.py --run-name",
    "params": "it is an option of run_all.py: --params",
    "timeout": "it is an option of run_all.py: --timeout",
    "fresh": "it is an option of run_all.py: --fresh",
    "commit": "it is an option of run_all.py: --commit",
}
EXAMPLES = {list[str]: ["cat", "dog"], list[float]: [1.0, 1.5]}  # of parameters whose default is empty
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


def known_settings(notebook: Path | str) -> dict[str, tuple[object, object]]:
    """{name: (annotation, default)} of all that a notebook takes: its parameters, then what its `more` may hold."""
    own = declared(notebook)
    if "more" not in own:
        return own
    del own["more"]
    return own | {
        name: what for name, what in settings_of_more(Path(notebook).stem).items() if name not in own
    }


def merged(given: Mapping[str, object]) -> dict[str, object]:
    """The settings in `more` and those beside it as one dict; ParameterError for one that has two values."""
    beside = {name: value for name, value in given.items() if name != "more"}
    more = given.get("more", {})
    for name in more:
        if name in beside and beside[name] != more[name]:
            raise ParameterError(
                f"{name} is given twice, as {beside[name]!r} and in `more` as {more[name]!r}; keep one of them"
            )
    return more | beside


def check_values(given: Mapping[str, object], own: Iterable[str] = ()) -> None:
    """Raise ParameterError for a name that no notebook knows, and for a value of another type than the setting's.

    So for what stands in `more`, for a name there that is a parameter of its own, and for two values of one
    setting. `own`: names to choose from where none is alike; those of all parameters else.
    """
    parameters, known, in_more = {}, {}, set()
    for path in NOTEBOOKS.values():
        here = declared(path)
        parameters |= here
        known |= known_settings(path)
        in_more |= known_settings(path).keys() - here
    known |= {"more": (dict, {})} | parameters
    more = given.get("more", {})
    _check_type("more", more, dict, {})
    for name, value in [*given.items(), *more.items()]:
        if name in known:
            _check_type(name, value, *known[name])
            continue
        hint = _place_of(name, value, known)
        if not hint:
            nearest = difflib.get_close_matches(str(name), known, 1, 0.5)
            choice = own or parameters
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose from {', '.join(choice)}"
        raise ParameterError(f"no notebook has a parameter {name!r}: {hint}")
    for name in more:
        if name not in in_more:
            raise ParameterError(f"{name!r} is a parameter of its own: write it beside `more`, not in it")
    merged(given)


def _check_type(name: str, value: object, kind: object, default: object) -> None:
    """Raise ParameterError for a value of another type, with a way to write it."""
    try:
        # as JSON, where a list may stand for a tuple
        TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        if any(fault["type"].endswith(("_type", "none_required")) for fault in error.errors()):
            told = kind.__name__ if isinstance(kind, type) and not get_args(kind) else _words(kind)
            example = EXAMPLES.get(kind, default) if default in ([], None) else default
            advice = _how_to_write(kind, value)
            such = "" if example is None else f", such as {example!r}"
            raise ParameterError(f"{name}={value!r} must be of type {told}{such}{advice}") from None


def _words(kind: object) -> str:
    """A type as people know it; of settings those lists are tuples whose numbers have bounds."""
    return "list of numbers" if "tuple" in str(kind) else str(kind)


def _how_to_write(kind: object, value: object) -> str:
    """What to add where YAML reads a value otherwise than it was meant; "" where that is not the cause."""
    kinds = (kind, *get_args(kind))
    if value is None:
        return "; nothing stands after its colon, or what means nothing in YAML (~, null): give a value, or leave it out"
    if type(None) in kinds and str(value).lower() in ("none", "nothing", "off", "no", ""):
        return "; write null"
    if any(get_origin(one) in (list, tuple) for one in kinds):
        return _how_to_write_list(kind, value)
    if str in kinds:
        return "; YAML reads more than text as text only in quotes: '...'"
    if bool in kinds:
        return "; write true or false"
    if int in kinds or float in kinds:
        return _how_to_write_number(value)
    return ""


def _how_to_write_list(kind: object, value: object) -> str:
    of_text = kind == list[str]
    if isinstance(value, list):
        return (
            "; YAML reads more than text as text only in quotes: '...'"
            if of_text
            else "; write numbers without quotes, whole ones without .0"
        )
    text = str(value).strip("()[]{} ")
    parts = re.split(r"[,;]" if of_text else r"[\s,;]+", text)
    return f"; write [{', '.join(part.strip() for part in parts)}]"


def _how_to_write_number(value: object) -> str:
    try:
        number = int(value, 0) if str(value).lower().startswith(("0x", "0o", "0b")) else float(value)
    except (ValueError, TypeError):
        return ""
    if isinstance(value, bool) or not math.isfinite(number):
        return "; write a finite number"
    whole = f"{number:.0f}" if number == int(number) else ""
    if isinstance(value, str):
        return f"; write {whole or repr(number)}, as YAML may read {value} as text"
    return f"; write {whole or 'a whole number'}"


def _place_of(name: object, value: object, known: Collection[str]) -> str:
    """Where a setting belongs that is no parameter itself; "" where the name is unknown."""
    if isinstance(value, dict) and value and set(value) <= set(known):
        return "write the lines in it without it, each from the left margin on"
    return OTHER_NAMES.get(name, "")


def settings_of(stage: str, space: Mapping[str, object]) -> dict[str, object]:
    """All settings of a notebook by name, those of `more` beside its parameters; `space` is its globals().

    A parameter has the value that it has there. papermill's cell, which begins with "# Parameters" and follows
    the parameters, may name settings of `more` too, as may an own line in the parameters cell. What only other
    notebooks know is let pass, so that one file can set up all of them; ParameterError as `check_values` says,
    since papermill itself only warns.
    """
    own, written = declared(NOTEBOOKS[stage]), {}
    for source in space["In"]:
        if source.startswith("# Parameters\n"):
            written |= _values_in(source)
        elif _is_parameters_cell(source):
            written = _values_in(source)
    written |= {name: space[name] for name in own}
    check_values(written, own)
    given = merged(written)
    return {name: given.get(name, default) for name, (_, default) in known_settings(NOTEBOOKS[stage]).items()}


def _values_in(source: str) -> dict[str, object]:
    return {name: value for name, (_, value) in parameters_of(source).items()}


def _is_parameters_cell(source: str) -> bool:
    """Whether a cell declares `run`, a parameter of every notebook, however it is spaced."""
    try:
        lines = ast.parse(source).body
    except SyntaxError:  # of IPython's own lines
        return False
    return any(isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "run" for line in lines)


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


class Answer(str):
    """Sentences, a line each, which a notebook shows as text."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        plain = re.sub(r"([\\`*_$<>\[\]|~#&])", r"\\\1", self)  # names of classes and files are no markup
        plain = re.sub(r"^(\d+)([.)])", r"\1\\\2", plain, flags=re.MULTILINE)  # nor is a number a list
        plain = re.sub(r"^([-+=])", r"\\\1", plain, flags=re.MULTILINE)
        return plain.replace("\n", "  \n")


def answer(*sentences: str) -> Answer | None:
    """What a section found, in sentences with computed numbers; empty ones are left out, of nothing else it is None."""
    return Answer("\n".join(filter(None, sentences))) if any(sentences) else None


class Lines(str):
    """Lines of code, which a notebook shows in colours."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return f"```python\n{self}\n```"


def code_of(*functions: Callable) -> Lines:
    """The lines of functions as they stand in the library, without docstrings, for a notebook to show."""
    parts = []
    for function in functions:
        text = textwrap.dedent(inspect.getsource(function))
        node = ast.parse(text).body[0]
        lines = text.splitlines()
        if ast.get_docstring(node) is not None:
            del lines[node.body[0].lineno - 1 : node.body[0].end_lineno]
        parts.append("\n".join(lines))
    return Lines("\n\n".join(parts))
