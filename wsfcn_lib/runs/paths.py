"""Where the repository lies, and what a path means that a user names."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "data" / "runs"


def resolve_path(path: Path | str) -> Path:
    """A file or folder that a user names: from ROOT, or absolute, or in the home folder (~)."""
    return ROOT / Path(path).expanduser()
