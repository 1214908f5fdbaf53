"""The files that others released: initial weights, trained weights, masks; and where they lie on this disk.

model_zoo.yaml is the table. No torch, and nothing is downloaded here: see downloads.py.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import yaml

from wsfcn_lib.runs.paths import ROOT, resolve_path
from wsfcn_lib.runs.storage import checksum


class WeightsError(ValueError):
    """A weights file that is missing, unreadable, or of another network."""


@dataclass(frozen=True)
class Artefact:
    """One released file, a row of model_zoo.yaml."""

    name: str  # of ImageNet weights: the backbone's
    file: str
    what: str
    mb: float  # as its source states it
    url: str = ""  # where it is fetched from; else a person gets it from
    page: str = ""
    also: tuple[str, ...] = ()  # names of other files that serve as well
    sha256: str | None = None  # the first digits of its checksum, where they are published
    package: str = ""  # on the package index, which brings the file; else empty

    @property
    def folder(self) -> str:
        """Where it belongs, relative to ROOT; weights may also lie in the folder that WSFCN_WEIGHTS names."""
        return "data/weights" if self.holds_weights else "data/raw/masks"

    @property
    def holds_network(self) -> bool:
        """Whether it is a whole network, not a backbone or masks."""
        return self.holds_weights and not self.what.startswith("ImageNet")

    @property
    def holds_weights(self) -> bool:
        """Whether it is a network's weights; else it is an archive of masks."""
        return self.file.endswith(".pth")

    @property
    def advice(self) -> str:
        """The file to place, and where."""
        files = " or ".join((self.file, *self.also))
        if self.package:
            return f"pip install {self.package} ({self.mb:g} MB)"
        source = self.url or f"by hand: {self.page}"
        folders = f"{self.folder} or the folder that WSFCN_WEIGHTS names"
        return f"place {files} ({self.mb:g} MB, {source}) in {folders}"

    def find(self) -> Path | None:
        """The file in the folder that WSFCN_WEIGHTS names, in its own or its package; None where it is in none."""
        folders = [ROOT / self.folder]
        if self.package and (spec := find_spec(self.package.replace("-", "_"))):
            folders.append(Path(spec.origin).parent / "models")
        if named := os.environ.get("WSFCN_WEIGHTS"):
            folder = resolve_path(named)
            if not folder.is_dir():
                raise WeightsError(
                    f"WSFCN_WEIGHTS names {named}, which is no folder; "
                    f"correct it, or unset it to use {self.folder}"
                )
            folders.insert(0, folder)
        for folder in folders:
            for file in (self.file, *self.also):
                if (folder / file).is_file():
                    return folder / file
        return None


PHOTOGRAPHS = ROOT / "data" / "pictures"  # to try a network on, free of rights
SHIPPED = ROOT / "data" / "voc_animals.safetensors"  # a small network for six animals


def _read_table() -> dict[str, Artefact]:
    rows = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    artefacts = {}
    for name, row in rows.items():
        row["also"] = tuple(row.get("also", ()))
        artefacts[name] = Artefact(name, **row)
    return artefacts


ARTEFACTS = _read_table()


def check_content(path: Path) -> None:
    """Raise WeightsError where a file has a released one's name and other content."""
    known = next((row for row in ARTEFACTS.values() if row.file == path.name and row.sha256), None)
    if known and not (found := checksum(path)).startswith(known.sha256):
        raise WeightsError(
            f"{path} is not the released {known.what}: its sha256 begins with {found[:8]}, not with "
            f"{known.sha256}; fetch it again, or rename it and name its path if it is meant"
        )


def initial_weights(name: str | Path) -> Path:
    """Where the weights of a name or a path lie; they are only looked for.

    Args:
        name: in ARTEFACTS, such as a backbone's, whose ImageNet weights lie in the folder that WSFCN_WEIGHTS
            names or in their own; or a path, see `resolve_path`.

    Raises:
        WeightsError: it is not there, with the ways to get it; or an unknown name.
    """
    if name == "shipped":
        return SHIPPED
    if name == "tiny":
        raise WeightsError(
            "tiny has no initial weights: it is trained from nothing; leave initial_weights empty"
        )
    row = ARTEFACTS.get(str(name))
    if row is None:
        path = resolve_path(name)
        if path.is_file():
            return path
        names = ", ".join(name for name, row in ARTEFACTS.items() if row.holds_weights)
        raise WeightsError(
            f"{str(name)!r} is neither a file nor a name of weights; the names are shipped, {names}, and for "
            "timm: backbones hub"
        )
    path = row.find()
    if path is None:
        command = f"python -m wsfcn_lib.data.downloads {row.name} fetches it, or " if row.url else ""
        raise WeightsError(f"no file for {row.name!r}: {command}{row.advice}")
    return path
