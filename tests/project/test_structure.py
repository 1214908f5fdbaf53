"""The order of the house: which room may import which, one home for each name, and what a bare import costs."""

import ast
import importlib
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "wsfcn_lib"
METHOD = "the method"
# a room imports only from itself and from rooms before it
ROOMS = ("runs", "data", METHOD, "plots", "evaluation", "ablation", "claims", "explore")


def room_of(module):
    """The room of a dotted module of the library: its folder, or the method for files on top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (LIBRARY / parts[-1]).is_dir() else METHOD


def imports(source):
    """(module, name) of every import in a source, also within functions; the name is empty for `import module`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "the library imports by absolute names"
            yield from ((node.module, alias.name) for alias in node.names)


def modules():
    """{dotted name: path} of all modules that are part of a room: without the packages' front doors and commands."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        if path.stem not in ("__init__", "__main__"):
            found[".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts)] = path
    return found


MODULES = modules()


def used_modules(source):
    """The modules of the library that a source imports, `from package import module` included."""
    found = set()
    for module, name in imports(source):
        if module.split(".")[0] == "wsfcn_lib":
            found.add(f"{module}.{name}" if f"{module}.{name}" in MODULES else module)
    return found


def out_of_order(module, source):
    """Those of the modules imported by a source that lie in a room which its own must not know."""
    own = ROOMS.index(room_of(module))
    return sorted(used for used in used_modules(source) - {"wsfcn_lib"} if ROOMS.index(room_of(used)) > own)


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_in_one_direction(module):
    assert not out_of_order(module, MODULES[module].read_text())


@pytest.mark.parametrize(
    "source, expected",
    [
        ("from wsfcn_lib.evaluation.report import write_report", ["wsfcn_lib.evaluation.report"]),
        ("import wsfcn_lib.explore.cams as c", ["wsfcn_lib.explore.cams"]),
        ("def f():\n    from wsfcn_lib.plots.tiles import tile", ["wsfcn_lib.plots.tiles"]),
        ("from wsfcn_lib.explore import cams", ["wsfcn_lib.explore.cams"]),
        ("from wsfcn_lib.runs.paths import ROOT\nfrom wsfcn_lib.losses import mask_loss\nimport torch", []),
    ],
)
def test_the_reader_of_imports_sees_every_form(source, expected):
    assert out_of_order("wsfcn_lib.network", source) == expected


def test_no_circle():
    graph = {module: used_modules(path.read_text()) & MODULES.keys() for module, path in MODULES.items()}
    try:
        order = [*TopologicalSorter(graph).static_order()]
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")
    assert len(order) == len(graph)


def defined_in(path):
    """Names that a module defines on its top level."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names


@pytest.mark.parametrize("module", MODULES)
def test_names_are_imported_from_their_home(module):
    strays = []
    for source, name in imports(MODULES[module].read_text()):
        if source in MODULES and name not in defined_in(MODULES[source]):
            strays.append(f"{name} from {source}")
    assert not strays


def rooms_that_import(package):
    found = set()
    for module, path in MODULES.items():
        if any(name.split(".")[0] == package for name, _ in imports(path.read_text())):
            found.add(room_of(module))
    return found


@pytest.mark.parametrize(
    "package, rooms", [("ipywidgets", {"explore"}), ("matplotlib", {"plots"}), ("papermill", set())]
)
def test_some_packages_have_one_room(package, rooms):
    assert rooms_that_import(package) == rooms


def loaded_by(statement):
    """Packages and modules that Python has loaded after a statement, in a process of its own."""
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=LIBRARY.parent, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


HEAVY = {"torchvision", "accelerate", "matplotlib", "pandas", "ipywidgets", "IPython", "scipy", "tensorboard"}


@pytest.mark.parametrize(
    "names, unwanted",
    [
        ("wsfcn_lib", HEAVY | {"torch", "PIL", "pydantic", "numpy"}),
        (
            "wsfcn_lib.config, wsfcn_lib.runs.folder, wsfcn_lib.postprocess, wsfcn_lib.metrics",
            HEAVY | {"torch"},
        ),
        ("wsfcn_lib.network, wsfcn_lib.losses, wsfcn_lib.pamr, wsfcn_lib.supervision", HEAVY | {"PIL"}),
        ("wsfcn_lib.train, wsfcn_lib.infer", {"matplotlib", "pandas", "ipywidgets"}),
        ("wsfcn_lib.evaluation.compare_command", HEAVY - {"scipy"} | {"torch", "torchmetrics"}),
    ],
)
def test_light_modules_stay_light(names, unwanted):
    assert not loaded_by(f"import {names}") & unwanted


PUBLIC = {
    "wsfcn_lib": "NetConfig TrainConfig WSFCN BaselineCAM NetOutput segment",
    "wsfcn_lib.network": "build_network",
    "wsfcn_lib.weights": "load_published published_names",
    "wsfcn_lib.pamr": "pamr",
    "wsfcn_lib.losses": "pseudo_labels mask_loss image_scores classification_loss",
    "wsfcn_lib.infer": "predict_masks label_map crf",
    "wsfcn_lib.metrics": "ConfusionMatrix",
    "wsfcn_lib.train": "train train_step build_optimiser",
    "wsfcn_lib.data": "prepare SourceSettings validate Manifest GlyphSettings DataError read_image read_mask",
    "wsfcn_lib.evaluation": "evaluate EvalSettings score_archive",
    "wsfcn_lib.runs": "RunFolder read_run ROOT",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_offered(module):
    imported = importlib.import_module(module)
    for name in PUBLIC[module].split():
        assert callable(getattr(imported, name)) or name == "ROOT"


def test_a_misspelt_name_is_answered_with_the_names_there_are():
    import wsfcn_lib

    with pytest.raises(AttributeError, match="wsfcn_lib has no 'WSFNC'; it offers BaselineCAM, NetConfig"):
        wsfcn_lib.WSFNC  # noqa: B018
