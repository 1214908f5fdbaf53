"""Where a number comes from: the state of the code, the versions, the machine. Imports no package to find out."""

import ast
import functools
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.storage import checksum

PACKAGES = "accelerate matplotlib numpy papermill pillow pydantic pydensecrf2 timm torch torchvision".split()
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_hash(notebook: Path | str | None = None) -> str:
    """Return 16 hex digits over the library's code and, if given, a notebook's own.

    Syntax trees are compared: formatting, comments, docstrings, the words of errors and a notebook's outputs do
    not count.
    """
    parts = []
    for path in sorted((ROOT / "wsfcn_lib").rglob("*.py")):
        parts.append(path.relative_to(ROOT).as_posix())
        parts.append(_syntax(path.read_text("utf-8")))
    if notebook:
        parts.append(notebook_hash(notebook))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def notebook_hash(notebook: Path | str) -> str:
    """Return 16 hex digits over the syntax of a notebook's code cells, without what papermill injected."""
    parts = []
    for cell in json.loads((ROOT / notebook).read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", ()):
            parts.append(_syntax("".join(cell["source"])))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@functools.cache  # a run asks often, and trees are slow to write out
def _syntax(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []  # words of errors
    text = ast.dump(tree).replace(", type_params=[]", "")  # which only Python 3.12 writes
    return hashlib.sha256(text.encode()).hexdigest()


LIBRARIES = (
    "ACCELERATE_", "ATEN_", "CUBLAS_", "CUDA_LAUNCH", "CUDNN_", "DNNL_", "FSDP_", "MKL_", "NCCL_ALGO", "NVIDIA_TF32",
    "OMP_", "ONEDNN_", "PYTORCH_", "TORCH_",
)  # fmt: skip


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", ROOT, *arguments]
    try:
        return (
            subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace").strip()
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or the sources came without their history


def code_state() -> dict:
    """Return the commit, whether tracked files differ from it, and `code_hash()`; None where git cannot tell."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "code": code_hash(),
    }


def provenance(device: str = "cpu") -> dict:
    """Return what a number depends on beside its settings: `code_state()`, python, versions, platform, processor, cpus, device."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # pydensecrf2 may be missing
            versions[name] = version(name)
    return (
        code_state()
        | {
            "python": platform.python_version(),
            "versions": versions,
            "platform": f"{platform.system()} {platform.machine()}",
            "processor": processor(),
            "cpus": os.cpu_count(),
            "device": device,
        }
        | environment()
    )


@functools.cache
def processor() -> str:
    """Return the processor's name, as far as the system tells it: sums are rounded in another order on another one."""
    told = {}
    with suppress(OSError):  # of Linux alone
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            told.setdefault(name.strip(), value.strip())
    numbers = [
        f"{name.removeprefix('cpu ')} {told[name]}"
        for name in ("cpu family", "model", "stepping")
        if name in told
    ]
    return ", ".join([told.get("model name") or platform.processor() or platform.machine(), *numbers])


def environment() -> dict:
    """Return {"environment": ...}, the variables that are set and by which libraries may compute otherwise; {} without any."""
    values = {name: value for name, value in sorted(os.environ.items()) if name.startswith(LIBRARIES)}
    values = {
        name: value for name, value in values.items() if os.sep not in value
    }  # no folders of this machine
    return {"environment": values} if values else {}


def peak_memory_mb() -> float:
    """Return the most memory this process ever held (not its children, not the GPU's), in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024), 1)  # bytes on macOS, KiB on Linux


def files_of(run: Path) -> dict[str, str]:
    """Return the SHA-256 of each snapshot in a run folder, and one for each folder of masks, over their names and contents."""
    checksums = {path.name: checksum(path) for path in sorted(run.glob("checkpoints/*.safetensors"))}
    for folder in sorted(run.glob("masks/*/")):
        lines = [f"{path.name} {checksum(path)}\n" for path in sorted(folder.glob("*.png"))]
        checksums[f"masks/{folder.name}"] = hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
    return checksums
