"""Print the library's size against its limits; exit 1 above them.

Counted are lines of code: no blank lines, comments or docstrings, which make a file longer and easier to read. The core is
what a reader of the paper reads. Data sets and explorers are counted apart: each source and each view is read alone.
"""

import ast
import sys
from pathlib import Path

CORE = (
    "backbones",
    "dilated",
    "modules",
    "network",
    "losses",
    "objective",
    "optimiser",
    "pamr",
    "job",
    "train",
)
LIMITS = {"core": 900, "rest": 3000, "data": 1300, "explore": 1150}


def code_lines(path: Path) -> int:
    """Lines that hold code."""
    text = path.read_text()
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            if isinstance(body[0].value.value, str):
                docstrings.update(range(body[0].lineno, body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(
        1
        for number, line in lines
        if number not in docstrings and line.strip() and not line.lstrip().startswith("#")
    )


def part_of(path: Path) -> str:
    """The part of the library that a file belongs to: its folder, or core or rest."""
    if len(path.parts) > 2:
        return path.parts[1]  # a new folder wants a limit in LIMITS
    return "core" if path.stem in CORE else "rest"


def main() -> int:
    """Count and compare."""
    found, files = dict.fromkeys(LIMITS, 0), sorted(Path("wsfcn_lib").rglob("*.py"))
    for path in files:
        found[part_of(path)] = found.get(part_of(path), 0) + code_lines(path)
    told = ", ".join(f"{part} {count} of at most {LIMITS.get(part, 0)}" for part, count in found.items())
    raw = sum(len(path.read_text().splitlines()) for path in files)
    print(f"lines of code in wsfcn_lib: {told}; {sum(found.values())} in all ({raw} with blanks and prose)")
    return any(count > LIMITS.get(part, 0) for part, count in found.items())


if __name__ == "__main__":
    sys.exit(main())
