"""The files others released, and the way to them: initial weights, trained weights, masks. No torch."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from wsfcn_lib.data.downloads import DownloadError, fetch
from wsfcn_lib.runs.paths import ROOT

_TORCH = "https://download.pytorch.org/models/"  # all of IMAGENET1K_V1
_ONE_STAGE = "https://download.visinf.tu-darmstadt.de/data/2020-cvpr-araslanov-1-stage-wseg/"
_BY_HAND = (
    "by hand: https://drive.google.com/file/d/"  # the links of WS-FCN's repository, ChunyanWang1/ws-fcn
)


class WeightsError(ValueError):
    """A weights file that is missing, unreadable, or of another network."""


@dataclass(frozen=True)
class Artefact:
    """One released file."""

    key: str  # of ImageNet weights: the backbone's name
    file: str
    what: str
    mb: float  # as its source states it
    source: str  # URL, or "by hand: " and a page
    also: tuple[str, ...] = ()  # names of other files that serve as well

    @property
    def folder(self) -> str:
        """Where it belongs, relative to ROOT; weights may also lie in the folder that WSFCN_WEIGHTS names."""
        return "data/weights" if self.file.endswith(".pth") else "data/raw/masks"

    @property
    def sha256(self) -> str | None:
        """The first digits of its checksum, which torchvision's file names carry; others are not published."""
        found = re.search(r"-([0-9a-f]{8})\.pth$", self.file)
        return found and found[1]

    @property
    def advice(self) -> str:
        """Which file to place where."""
        files = " or ".join((self.file, *self.also))
        return f"place {files} ({self.mb:g} MB, {self.source}) in {self.folder} or the folder that WSFCN_WEIGHTS names"

    def find(self) -> Path | None:
        """Where the file lies: in the folder that WSFCN_WEIGHTS names, else in its own."""
        named = os.environ.get("WSFCN_WEIGHTS")
        if named and not Path(named).is_dir():
            raise WeightsError(
                f"WSFCN_WEIGHTS names {named}, which is no folder; correct it, or unset it to use {self.folder}"
            )
        places = [Path(place) for place in (named, ROOT / self.folder) if place]
        return next(
            (
                place / file
                for place in places
                for file in (self.file, *self.also)
                if (place / file).is_file()
            ),
            None,
        )


def _from(host: str, key: str, path: str, what: str, mb: float, *also: str) -> Artefact:
    return Artefact(key, path.split("/")[-1], what, mb, host + path, also)


def _by_hand(key: str, file: str, what: str, mb: float, drive: str) -> Artefact:
    return Artefact(key, file, what, mb, f"{_BY_HAND}{drive}/view")


_ROWS = (
    _from(
        _ONE_STAGE, "resnet38", "models/ilsvrc-cls_rna-a1_cls1000_ep-0001.pth", "ImageNet WideResNet38", 402
    ),
    _from(
        _ONE_STAGE, "vgg16", "models/vgg16_20M.pth", "ImageNet VGG16 with fc6, fc7", 79, "vgg16-397923af.pth"
    ),
    _from(_TORCH, "vgg16_torchvision", "vgg16-397923af.pth", "ImageNet VGG16, convolutions only", 527.8),
    # the other names of ResNets are torchvision's older files, which 1-stage-wseg used
    _from(_TORCH, "resnet50", "resnet50-0676ba61.pth", "ImageNet ResNet50", 97.8, "resnet50-19c8e357.pth"),
    _from(
        _TORCH, "resnet101", "resnet101-63fe2227.pth", "ImageNet ResNet101", 170.5, "resnet101-5d3b4d8f.pth"
    ),
    _from(
        _TORCH,
        "mobilenet_v2",
        "mobilenet_v2-b0353104.pth",
        "ImageNet MobileNetV2",
        13.6,
        "mobilenet_v2_imagenet_fp16.pth",
    ),
    _by_hand(
        "wsfcn",
        "model_enc_e018Xs0.905.pth",
        "WS-FCN, trained on VOC",
        565,
        "1bNRef-QsR7QtOUYycHpplBSfg5UrIFG6",
    ),
    _from(_ONE_STAGE, "1stage", "models/model_enc_e020Xs0.928.pth", "1-stage-wseg, trained on VOC", 527),
    _by_hand(
        "wsfcn_val", "val_results.tar", "WS-FCN's masks of VOC val", 6.94, "1Vy9thpf3vMkSv5iQeugJVMPe0vbDStAx"
    ),
    _by_hand(
        "wsfcn_test",
        "test_results.tar",
        "WS-FCN's masks of VOC test",
        6.71,
        "1TXNORaImcKqlX_Gbylg68UgaxxE7Oh-J",
    ),
    _from(_ONE_STAGE, "1stage_val", "results/val_results.tgz", "1-stage-wseg's masks of VOC val", 427),
    _from(_ONE_STAGE, "1stage_test", "results/test_results.tgz", "1-stage-wseg's masks of VOC test", 368),
    _from(
        _ONE_STAGE,
        "1stage_val_clean",
        "results/val_results_clean.tgz",
        "1-stage-wseg's masks of VOC val, true tags",
        423,
    ),
    _from(
        _ONE_STAGE,
        "1stage_train_clean",
        "results/train_results_clean.tgz",
        "1-stage-wseg's masks of trainaug, true tags",
        2900,
    ),
)
ARTEFACTS = {row.key: row for row in _ROWS}


def table() -> list[dict]:
    """Every released file as a row for people: name, what, file, MB, source, folder, there ("yes" or "no")."""
    return [
        {
            "name": row.key,
            "what": row.what,
            "file": row.file,
            "MB": row.mb,
            "source": row.source,
            "folder": row.folder,
        }
        | {"there": "yes" if row.find() else "no"}
        for row in _ROWS
    ]


def initial_weights(name: str | Path, download: bool = True) -> Path:
    """The file of a backbone's ImageNet weights, of another released artefact, or at a path.

    Args:
        name: a key of ARTEFACTS, such as a backbone, or a path from the repository or from the working folder. The file of
            a key is looked for in the folder that WSFCN_WEIGHTS names, then in its own.
        download: fetch the file of a key into its folder if it is nowhere.

    Raises:
        WeightsError: it is not there and cannot be fetched, with the place to put it; or an unknown name.
    """
    if name == "tiny":
        raise WeightsError(
            "tiny has no initial weights: it is trained from nothing; leave initial_weights empty"
        )
    if (row := ARTEFACTS.get(str(name))) is None:
        if found := next((path for path in (ROOT / name, Path(name).absolute()) if path.is_file()), None):
            return found
        raise WeightsError(
            f"{str(name)!r} is no file and no name of released weights; the names are {', '.join(ARTEFACTS)}"
        )
    if found := row.find():
        return found
    if not download or not row.source.startswith("http"):
        raise WeightsError(f"no file for {name!r}: {row.advice}")
    try:
        return fetch(row.source, ROOT / row.folder / row.file, sha256=row.sha256)
    except DownloadError as error:
        raise WeightsError(f"{error}. Where no network helps: {row.advice}") from error
