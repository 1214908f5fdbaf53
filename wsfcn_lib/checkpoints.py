"""What a training leaves on disk: snapshots (weights, for use) and resume states (everything, to go on)."""

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile, is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer

from wsfcn_lib.config import NetConfig
from wsfcn_lib.data.manifest import ClassInfo
from wsfcn_lib.network import build_network
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.storage import checksum, machine_fault


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another network."""


def save_snapshot(net: nn.Module, path: Path, classes: list[dict], **facts) -> Path:
    """Write the weights as safetensors, with what is needed to use them: NetConfig, classes and `facts`."""
    metadata = {
        "config": net.config.model_dump_json(),
        "classes": json.dumps(classes),
        "facts": json.dumps(facts),
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}

    def save(part: Path) -> None:
        save_file(weights, part, metadata)
        _sort_header(part)

    part = path.with_name(path.name + ".part")
    _write(part, save)
    os.replace(part, path)
    return path


def _sort_header(path: Path) -> None:
    """Sort the file's header, which safetensors writes in any order: equal weights give equal files."""
    with open(path, "rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        file.seek(8)
        file.write(text.encode().ljust(size))


def _write(part: Path, save: Callable[[Path], None]) -> str:
    """Write a file that its caller renames when it is whole; return the first half of its checksum.

    A full disk leaves no remains, and what was written before stays valid.
    """
    try:
        save(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        return short_checksum(part)
    except (OSError, RuntimeError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        advice = "make room on its disk, or get the right to write there, and start again: it goes on"
        raise CheckpointError(f"{part} cannot be written ({error}); {advice}") from error


def short_checksum(path: Path) -> str:
    """The first 16 hex digits of a file's SHA-256."""
    return checksum(path)[:16]


def load_snapshot(path: Path | str) -> tuple[nn.Module, list[dict], dict]:
    """Read a snapshot: the network in evaluation mode, its foreground classes, and the facts saved with it.

    Raises CheckpointError where there is no file, or none that `save_snapshot` wrote.
    """
    path = resolve_path(path)
    if not path.is_file():
        raise CheckpointError(
            f"no snapshot at {path}; 02_train writes them into data/runs/<name>/checkpoints"
        )
    try:
        if foreign := foreign_format(path):
            raise CheckpointError(f"{path} is {foreign}")
        _compare_with_record(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
        if not {"config", "classes"} <= metadata.keys():
            raise CheckpointError(
                f"{path} is not a snapshot of this kit but another program's: it does not say which network and "
                "classes it holds; use one that 02_train wrote (backbone weights belong to initial_weights)"
            )
        config = NetConfig.model_validate_json(metadata["config"])
        classes = [ClassInfo(**entry).model_dump(mode="json") for entry in json.loads(metadata["classes"])]
        facts = dict(json.loads(metadata.get("facts", "{}")))
        if config.num_classes != 1 + len(classes):
            raise ValueError(f"{len(classes)} classes and a network of {config.num_classes}")
        net = build_network(config)
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except CheckpointError:
        raise
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a snapshot of this kit, or torn ({_first_line(error)}); take last.safetensors or an "
            "older snapshot of its run, or give the training again if it is not finished"
        ) from error
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, MemoryError) as error:
        if told := machine_fault(error):
            raise CheckpointError(f"{path} cannot be read now: {told}") from error
        raise CheckpointError(
            f"{path} is not a snapshot of this kit ({_first_line(error)}); use one that 02_train wrote"
        ) from error
    return net.eval(), classes, facts


def _compare_with_record(path: Path) -> None:
    """Raise CheckpointError where the run of a snapshot has recorded another checksum: no format notices one wrong bit."""
    known = None
    with suppress(OSError, ValueError, TypeError, KeyError):  # no run, or for `read_run` to tell
        stage = json.loads(path.parent.with_name("run.json").read_text("utf-8"))["stages"]["02_train"]
        known = stage["finished"] and stage["files"][path.name]
    if known and checksum(path) != known:
        raise CheckpointError(
            f"{path} is not what its training wrote: run.json has another checksum of it, so it is damaged or was "
            "replaced; bring it back, or name another snapshot of the run, such as last.safetensors (one that you put "
            "there belongs in another folder)"
        )


# the first bytes of files that are taken for weights of PyTorch: what they are, and the next step
_FOREIGN = {
    b"\x12\x01\0\0\0\0\0\0": "of MXNet (.params); name its converted .pth, see data/README.md",
    b"\x89HDF": "of Keras or HDF5; have its tensors converted and saved by torch.save",
    b"version https://git-lfs": "a pointer of Git LFS, not the weights; fetch them with `git lfs pull`",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"<": "a web page, not the weights: open its address in a browser and save the file that it offers",
}


def foreign_format(path: Path) -> str:
    """What a file of another kind is, by its first bytes, its parts or its ending, and what to do; empty for others."""
    with path.open("rb") as file:
        head = file.read(64).lstrip(b"\r\n\t ")
    for beginning, kind in _FOREIGN.items():
        if head.startswith(beginning):
            return kind
    parts = []
    if head.startswith(b"PK") and is_zipfile(path):
        with ZipFile(path) as archive:
            parts = archive.namelist()
    if parts and all(part.endswith(".npy") for part in parts):
        return "of NumPy (.npz); have its arrays saved by torch.save, as tensors by name"
    if any("/code/" in part and part.endswith(".py") for part in parts):
        return (
            "a program of TorchScript, not a state dict; if you trust its source: "
            "torch.save(torch.jit.load(path).state_dict(), new)"
        )
    if path.suffix.lower() in (".onnx", ".pb", ".tflite", ".ckpt", ".npz", ".mat") and not parts:
        return f"of another program ({path.suffix}); have its tensors saved by torch.save"
    return ""


def is_snapshot(path: Path) -> bool:
    """Whether a .safetensors file says, as snapshots do, which network and classes it holds."""
    return {"config", "classes"} <= _header(path).keys()


def facts_of(path: Path) -> dict:
    """The facts that were saved with a snapshot, without its weights; {} where the file is none."""
    try:
        return dict(json.loads(_header(path).get("facts", "{}")))
    except (ValueError, TypeError):
        return {}


def _header(path: Path) -> dict[str, str]:
    """What a .safetensors file says of itself; {} for another file."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def snapshots(folder: Path) -> list[Path]:
    """The snapshots that won the validation, oldest first.

    Their names are e<epoch>Xs<1 - loss>, as in the published program.
    """
    return sorted(folder.glob("e[0-9]*Xs*.safetensors"))


def find_snapshot(run: Path | str, which: str = "best") -> Path:
    """Resolve `best` (highest 1 - validation loss), `last` or a file's path to a snapshot of a run."""
    folder = resolve_path(run) / "checkpoints"
    if which == "best" and snapshots(folder):
        return max(snapshots(folder), key=lambda path: (float(path.stem.split("Xs")[1]), path.stem))
    path = folder / "last.safetensors" if which in ("best", "last") else resolve_path(which)
    if not path.is_file():
        raise CheckpointError(
            f"no snapshot {which!r} in {folder}: train the run with 02_train first, or name a file"
        )
    return path


@dataclass
class Progress:
    """How far a training is: finished steps, best 1 - validation loss, sums for the next row of the log."""

    step: int = 0
    best: float = -math.inf
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)  # two losses, seconds, seconds of waiting
    count: int = 0  # steps in the sums

    def add(self, classification: float, mask: float, seconds: float, waited: float) -> None:
        """Count one more finished step: its losses, its seconds, and those spent waiting for images."""
        self.step += 1
        self.count += 1
        values = (classification, mask, seconds, waited)
        self.sums = [total + value for total, value in zip(self.sums, values)]

    def start_sums(self) -> None:
        """Let the sums start anew, after a row of the log."""
        self.sums = [0.0] * 4
        self.count = 0

    def save(
        self,
        folder: Path,
        net: nn.Module,
        optimiser: Optimizer,
        processes: list[tuple],
        origin: dict | None = None,
    ) -> None:
        """Write a resume state, whose checksum is a part of its name, and keep it and the one before.

        `processes` holds what each process has of its own: its random states and its sums; `origin` the
        settings and lists that the training came from.
        """
        state = {
            "net": net.state_dict(),
            "optimiser": optimiser.state_dict(),
            "processes": processes,
            "progress": asdict(self),
            "origin": origin or {},
        }
        part = folder / "state.part"
        digest = _write(part, lambda part: torch.save(state, part))
        new = folder / f"state-{self.step:08d}-{digest}.pt"
        os.replace(part, new)
        # other states of this step, or of later ones, were damaged, or training would not be here
        others = [path for path in sorted(folder.glob("state-*.pt")) if path != new]
        earlier = [path for path in others if _step_of(path) < self.step]
        for path in others:
            if path not in earlier[-1:]:
                path.unlink()

    @classmethod
    def restore(cls, folder: Path, net: nn.Module, optimiser: Optimizer, process: int = 0) -> "Progress":
        """Go back to the newest whole resume state, or to the beginning where there is none.

        It prints which states are damaged. Raises CheckpointError for one of another network or optimiser.
        """
        states = sorted(folder.glob("state-*.pt"))
        for path in reversed(states):
            try:
                state = _read_state(path)
            except (CheckpointError, UnpicklingError) as error:
                if path == states[0]:
                    consequence = "starting from the beginning"
                else:
                    consequence = "going back to the state before it"
                print(f"{path.name} is damaged ({_first_line(error)}); {consequence}")
                continue
            try:
                net.load_state_dict(state["net"])
                optimiser.load_state_dict(state["optimiser"])
                random, sums = state["processes"][process % len(state["processes"])]
            except (KeyError, RuntimeError, ValueError) as error:
                raise CheckpointError(
                    f"{path} is of another network, optimiser or version of this kit ({_first_line(error)}); "
                    "choose another run name"
                ) from error
            set_random_states(random)
            return cls(**state["progress"] | {"sums": sums})
        return cls()


def origin_of(folder: Path) -> dict:
    """The `origin` of the newest resume state that opens; {} where none tells. No weights are read."""
    for path in sorted(folder.glob("state-*.pt"), reverse=True):
        with suppress(Exception):  # damaged: for `Progress.restore` to tell
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("origin", {})
    return {}


def _step_of(state: Path) -> int:
    return int(state.stem.split("-")[1])


def _read_state(path: Path) -> dict:
    """The content of a resume state, if its name holds its checksum: torch.load misses a single wrong bit."""
    if path.stem.split("-")[-1] != short_checksum(path):
        raise CheckpointError("its checksum is another than its name says")
    return torch.load(path, map_location="cpu", weights_only=True)


def random_states() -> list[torch.Tensor]:
    """This process's random number states, for dropout and the gate: CPU, and CUDA where there is one."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return states


def set_random_states(states: list[torch.Tensor]) -> None:
    """Go back to the states that `random_states` returned."""
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[1])
