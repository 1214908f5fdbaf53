"""Where a number comes from: the state of the code, the versions, the machine. Imports no package to find out."""

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.storage import checksum

PACKAGES = {
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "accelerate",
    "pydantic",
    "pydensecrf2",
    "matplotlib",
    "papermill",
}


def code_hash(notebook: Path | str | None = None) -> str:
    """Return 16 hex digits over the library's files and, if given, a notebook's own code (not its outputs)."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "wsfcn_lib").rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes())
    if notebook:
        for cell in json.loads((ROOT / notebook).read_bytes())["cells"]:
            if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", ()):
                digest.update(b"\0" + "".join(cell["source"]).encode())
    return digest.hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    try:
        return subprocess.run(
            ["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or the sources came without their history


def code_state() -> dict:
    """Return the commit, whether tracked files differ from it, and `code_hash()`; None where git cannot tell."""
    dirty = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if dirty is None else bool(dirty),
        "code": code_hash(),
    }


def provenance(device: str = "cpu") -> dict:
    """Return what a number depends on beside its settings: `code_state()`, python, versions, platform, cpus, device."""
    found = sorted(
        (item.name.lower(), item.version) for item in distributions() if item.name.lower() in PACKAGES
    )
    machine = {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "device": device,
    }
    return code_state() | {"python": platform.python_version(), "versions": dict(found)} | machine


def peak_memory_mb() -> float:
    """Return the most memory this process ever held (not its children, not the GPU's), in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024), 1)  # bytes on macOS, KiB on Linux


def files_of(run: Path) -> dict[str, str]:
    """Return the SHA-256 of each snapshot in a run folder, and one for each folder of masks, over their names and contents."""
    found = {path.name: checksum(path) for path in sorted(run.glob("checkpoints/*.safetensors"))}
    for folder in sorted(run.glob("masks/*/")):
        lines = [f"{path.name} {checksum(path)}\n" for path in sorted(folder.glob("*.png"))]
        found[f"masks/{folder.name}"] = hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
    return found
