"""The house's order: who may import whom, how long things may be, and what a bare import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "wsfcn_lib"

# A module imports lower levels and, within its own level, only what stands before it here. Packages count as one module.
LEVELS = tuple(
    level.split()
    for level in (
        "classes config storage provenance differences runs downloads artefacts log pictures recipes crf",
        "depthwise dilated backbones modules pamr losses network metrics plots ablation_plots overview data",
        "weights checkpoints released objective panels syncnorm optimiser job train preflight",
        "tiles views infer subjects tally evaluate archives export quality counts effects costs ablation",
        "notebook page report explore",
    )
)
ORDER = {name: (level, place) for level, names in enumerate(LEVELS) for place, name in enumerate(names)}
FILES = sorted(LIBRARY.rglob("*.py"))


def module_of(path):
    """The module, or the package below wsfcn_lib, that a file belongs to; "" for wsfcn_lib/__init__.py."""
    inside = path.relative_to(LIBRARY)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem.replace("__init__", "")


def imports(source, package):
    """Every dotted name a file imports, anywhere in it; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(path):
    package = ["wsfcn_lib", *path.relative_to(LIBRARY).parts[:-1]]
    return set(imports(path.read_text(), package))


def forbidden(own, names):
    """Those of the imported library modules that do not stand below `own`."""
    used = {name.split(".")[1] for name in names if name.startswith("wsfcn_lib.")} - {own}
    return sorted(name for name in used if ORDER.get(name, (9, 9)) >= ORDER[own])


def test_every_module_has_a_level():
    assert {module_of(path) for path in FILES} - {""} <= ORDER.keys(), "give new modules a place in LEVELS"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_point_downwards(path):
    own = module_of(path)
    if own:  # the package itself offers names of all levels, but loads none
        assert not forbidden(own, imports_of(path)), f"{own} imports what stands beside or above it"


@pytest.mark.parametrize(
    "source, found",
    [
        ("from wsfcn_lib.train import train", ["train"]),
        ("import wsfcn_lib.report as r", ["report"]),
        ("from wsfcn_lib import explore", ["explore"]),
        ("def f():\n    from .infer import segment", ["infer"]),
        ("from wsfcn_lib.config import NetConfig\nfrom .losses import mask_loss\nimport torch", []),
        ("from wsfcn_lib.utils import helper", ["utils"]),
    ],
)
def test_the_import_reader_sees_every_form(source, found):
    assert forbidden("network", imports(source, ["wsfcn_lib"])) == found


HOMES = [("ipywidgets", {"explore"}), ("matplotlib", {"plots", "overview"}), ("papermill", set())]


@pytest.mark.parametrize("package, home", HOMES)
def test_some_packages_have_one_home(package, home):
    users = {
        module_of(path) for path in FILES if any(name.split(".")[0] == package for name in imports_of(path))
    }
    assert users <= home


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=LIBRARY.parent, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("name", ["", ".classes", ".config", ".runs", ".crf", ".metrics"])
def test_light_modules_stay_light(name):
    heavy = {
        "torch",
        "torchvision",
        "accelerate",
        "matplotlib",
        "pandas",
        "ipywidgets",
        "IPython",
        "scipy",
        "tensorboard",
    }
    assert not loaded_by(f"import wsfcn_lib{name}") & heavy


def test_the_package_offers_its_names():
    import wsfcn_lib

    assert {"NetConfig", "WSFCN", "BaselineCAM", "NetOutput", "segment"} <= set(dir(wsfcn_lib))
    assert wsfcn_lib.NetConfig.__module__ == "wsfcn_lib.config"
    with pytest.raises(AttributeError, match="wsfcn_lib has no 'WSFNC'; it offers NetConfig"):
        wsfcn_lib.WSFNC  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_files_and_functions_are_short(path):
    source = path.read_text()
    assert source.count("\n") <= 200, "a file is one idea, read in one sitting"
    functions = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    long = {node.name: n for node in functions if (n := node.end_lineno - node.lineno + 1) > 40}
    assert not long, f"functions of more than 40 lines: {long}"
