"""Print the library's size against its limits; exit 1 above them.

Counted are lines of code: no blank lines, comments or docstrings, which make a file longer and easier to read.
"""

import ast
import sys
from pathlib import Path

CORE, CORE_LIMIT, LIMIT = ("backbones", "modules", "network", "losses", "pamr", "train"), 900, 4400


def code_lines(path: Path) -> int:
    """Lines that hold code."""
    text = path.read_text()
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            if isinstance(body[0].value.value, str):
                docstrings.update(range(body[0].lineno, body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(1 for number, line in lines if number not in docstrings and line.strip() and not line.lstrip().startswith("#"))


def main() -> int:
    """Count and compare."""
    files = sorted(Path("wsfcn_lib").rglob("*.py"))
    core = sum(code_lines(Path(f"wsfcn_lib/{name}.py")) for name in CORE)
    total, raw = sum(map(code_lines, files)), sum(len(path.read_text().splitlines()) for path in files)
    print(
        f"lines of code: core {core} of at most {CORE_LIMIT}, wsfcn_lib {total} of at most {LIMIT} ({raw} with blanks and prose)"
    )
    return core > CORE_LIMIT or total > LIMIT


if __name__ == "__main__":
    sys.exit(main())
