"""What a training leaves on disk: snapshots (weights, for use) and resume states (everything, to go on)."""

import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer

from wsfcn_lib.config import NetConfig
from wsfcn_lib.data.manifest import ClassInfo
from wsfcn_lib.network import build_network
from wsfcn_lib.runs.storage import checksum


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another network."""


def save_snapshot(net: nn.Module, path: Path, classes: list[dict], **facts) -> Path:
    """Write the weights as safetensors, with what is needed to use them: NetConfig, classes and `facts`."""
    metadata = {
        "config": net.config.model_dump_json(),
        "classes": json.dumps(classes),
        "facts": json.dumps(facts),
    }
    part = path.with_name(path.name + ".part")
    weights = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    _write(part, lambda: (save_file(weights, part, metadata), _sort_header(part)))
    os.replace(part, path)
    return path


def _sort_header(path: Path) -> None:
    """Bring what stands before the tensors in order: safetensors writes it in any, and equal weights shall give equal files."""
    with open(path, "rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.dumps(
            json.loads(file.read(size)), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        file.seek(8)
        file.write(header.encode().ljust(size))


def _write(part: Path, save) -> str:
    """Write a file that is renamed when whole, and return its checksum.

    A full disk leaves no remains, and what was written before stays valid.
    """
    try:
        save()
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        return checksum(part)[:16]
    except (OSError, RuntimeError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        advice = "make room on its disk, or get the right to write there, and start again: it goes on"
        raise CheckpointError(f"{part} cannot be written ({error}); {advice}") from error


def load_snapshot(path: Path | str) -> tuple[nn.Module, list[dict], dict]:
    """Read a snapshot: the network in evaluation mode, its foreground classes, and the facts saved with it."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"no snapshot at {path}; 02_train writes them into data/runs/<name>/checkpoints"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
        config = NetConfig.model_validate_json(metadata["config"])
        classes = [ClassInfo(**entry).model_dump(mode="json") for entry in json.loads(metadata["classes"])]
        facts = dict(json.loads(metadata.get("facts", "{}")))
        if config.num_classes != 1 + len(classes):
            raise ValueError(f"{len(classes)} classes and a network of {config.num_classes}")
        net = build_network(config)
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} is not a snapshot of this kit ({reason}); use one that 02_train wrote"
        ) from error
    return net.eval(), classes, facts


def snapshots(folder: Path) -> list[Path]:
    """The snapshots that won the validation, oldest first: e<epoch>Xs<1 - loss>, as the published program names them."""
    return sorted(folder.glob("e[0-9]*Xs*.safetensors"))


def find_snapshot(run: Path, which: str = "best") -> Path:
    """Resolve `best` (highest 1 - validation loss), `last` or a file's path to a snapshot of a run."""
    folder = Path(run) / "checkpoints"
    if which == "best" and snapshots(folder):
        return max(snapshots(folder), key=lambda path: (float(path.stem.split("Xs")[1]), path.stem))
    path = folder / "last.safetensors" if which in ("best", "last") else Path(which)
    if not path.is_file():
        raise CheckpointError(
            f"no snapshot {which!r} in {folder}: train the run with 02_train first, or name a file"
        )
    return path


@dataclass
class Progress:
    """How far a training is: finished steps, best 1 - validation loss, and the sums that the next log row will average."""

    step: int = 0
    best: float = -math.inf
    sums: list[float] = field(
        default_factory=lambda: [0.0] * 4
    )  # two losses, seconds, seconds waited for data
    count: int = 0  # steps in the sums

    def add(self, classification: float, mask: float, seconds: float, waited: float) -> None:
        """Count one more finished step."""
        self.step, self.count = self.step + 1, self.count + 1
        self.sums = [a + b for a, b in zip(self.sums, (classification, mask, seconds, waited))]

    def take(self) -> tuple[float, ...]:
        """The sums and their count, which start anew."""
        sums, count = (*self.sums, self.count), 0
        self.sums, self.count = [0.0] * 4, count
        return sums

    def save(self, folder: Path, net: nn.Module, optimiser: Optimizer, random: list) -> None:
        """Write a resume state beside the previous ones and keep the last two; its checksum is a part of its name.

        `random` is RNG states, one per process.
        """
        state = {
            "net": net.state_dict(),
            "optimiser": optimiser.state_dict(),
            "random": random,
            "progress": asdict(self),
        }
        part = folder / "state.part"
        digest = _write(part, lambda: torch.save(state, part))
        path = folder / f"state-{self.step:08d}-{digest}.pt"
        os.replace(part, path)
        found = [*folder.glob("state-*.pt")]
        # others of this step, or of later ones, were damaged, or training would not be here
        void = [old for old in found if old != path and int(old.stem.split("-")[1]) >= self.step]
        for old in (*void, *sorted(set(found) - set(void))[:-2]):
            old.unlink()

    @classmethod
    def restore(cls, folder: Path, net: nn.Module, optimiser: Optimizer, process: int = 0) -> "Progress":
        """Go back to the newest whole resume state, or to the beginning where there is none; a damaged one is told."""
        states = sorted(folder.glob("state-*.pt"))
        for path in reversed(states):
            try:
                if (digest := path.stem.split("-")[2:]) and digest != [
                    checksum(path)[:16]
                ]:  # once, names held none
                    raise CheckpointError("its checksum is another than its name says")
                state = torch.load(path, map_location="cpu", weights_only=True)
            except (PermissionError, MemoryError):
                raise  # nothing is wrong with the file
            except (
                Exception
            ) as error:  # a torn file raises any of a dozen kinds; the state before it still serves
                back = (
                    "starting from the beginning"
                    if path == states[0]
                    else "going back to the state before it"
                )
                print(f"{path.name} is damaged ({str(error).splitlines()[0]}); {back}")
                continue
            try:
                net.load_state_dict(state["net"])
                optimiser.load_state_dict(state["optimiser"])
            except (RuntimeError, ValueError) as error:
                told = f"{path} is of another network or optimiser ({str(error).splitlines()[0]})"
                raise CheckpointError(f"{told}; choose another run name, or delete this run") from error
            set_random_states(state["random"][process % len(state["random"])])
            return cls(**state["progress"])
        return cls()


def random_states() -> list[torch.Tensor]:
    """This process's random number states, for dropout and the gate: CPU, and CUDA where there is one."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])


def set_random_states(states: list[torch.Tensor]) -> None:
    """Go back to the states that `random_states` returned."""
    torch.set_rng_state(states[0])
    if len(states) > 1 and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[1])
