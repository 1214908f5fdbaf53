"""Which of the library's code a training depends on, and a checksum over it. Used by stages.py."""

import ast
import functools
import hashlib
from pathlib import Path

from wsfcn_lib.runs.paths import ROOT


def training_files(library: Path = ROOT / "wsfcn_lib") -> list[Path]:
    """The library's files that wsfcn_lib.train imports, and those they import; not what only draws."""
    found, waiting = set(), ["wsfcn_lib.train"]
    while waiting:
        name = waiting.pop()
        base = library.parent.joinpath(*name.split("."))
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if base == library or file in found or not file.is_file() or file.stem in ("panels", "plots"):
            continue
        found.add(file)
        package = (name if base.is_dir() else name.rpartition(".")[0]).split(".")
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                start = ".".join([*above, *([node.module] if node.module else [])])
                waiting += [start, *(f"{start}.{alias.name}" for alias in node.names)]
    return sorted(found)


@functools.cache
def training_code() -> str:
    """16 hex digits over the code a training depends on, without comments: a changed explorer makes no training again."""
    digest = hashlib.sha256()
    for path in training_files():
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
                node, clean=False
            ):
                node.body[0] = ast.Pass()
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{ast.unparse(tree)}".encode())
    return digest.hexdigest()[:16]
