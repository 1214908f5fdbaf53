"""What an evaluation is about: a network and its data; and the pictures, a split, a list of names, or any folder of pictures."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import nn

from wsfcn_lib.checkpoints import find_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.files import DataError, read_list
from wsfcn_lib.data.folder import PICTURES
from wsfcn_lib.data.images import read_image
from wsfcn_lib.data.manifest import SPLITS, ClassInfo, Manifest, Sample
from wsfcn_lib.data.model_zoo import initial_weights
from wsfcn_lib.infer import protocol_of
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.storage import RunError
from wsfcn_lib.weights import load_network


class Trained(NamedTuple):
    """A network to evaluate, and what belongs to it."""

    net: nn.Module  # in evaluation mode, on the CPU
    manifest: Manifest
    config: (
        TrainConfig  # of its training; for a file from elsewhere: its network, all else as published for VOC
    )
    path: Path  # its file
    facts: dict  # in this file, see `load_network`
    protocol: dict  # recipe, scales and canvas, where nobody asks for others


def load_trained(run: Path | str, snapshot: str = "best", data: str = "", device: str = "auto") -> Trained:
    """Open a network and the data set that goes with it; a run folder is about one network and one data set.

    Args:
        run: a run folder, from the repository; with a file from elsewhere it need not exist, and must hold no training.
        snapshot: best or last of the run's training; or a file, or a name of released weights (see `initial_weights`).
        data: folder with a manifest; empty: the run's, or none, which is enough for folders of pictures.
        device: goes into `config`.

    Raises RunError or DataError that says what does not fit.
    """
    ask = snapshot in ("best", "last")
    stages = read_run(run)["stages"] if ask or (ROOT / run / "run.json").exists() else {}
    training = stages.get("02_train", {}).get("settings")
    if ask and not training:
        raise RunError(
            f"{run} holds no training yet: run 02_train on it first, or name a file of weights as snapshot"
        )
    path = find_snapshot(ROOT / run, snapshot) if ask else initial_weights(snapshot)
    home = (ROOT / run).resolve()
    if training and not (
        path.resolve().is_relative_to(home) and _same(data or training["data"], training["data"])
    ):
        told = f"{run} was trained on {training['data']}, and its numbers are of its own network and data"
        raise RunError(f"{told}: name another run for {path.name} on {data or training['data']}")
    net, classes, facts = load_network(path)
    data = data or (training or stages.get("01_prepare_data", {}).get("settings", {})).get("data", "")
    manifest = Manifest.load(ROOT / data) if data else manifest_of(classes)
    if [entry["name"] for entry in classes] != list(manifest.names[1:]):
        raise DataError(
            f"{path.name} knows other classes than {data}: prepare the data of its training with 01_prepare_data"
        )
    settings = training or net.config.model_dump(exclude={"num_classes"}) | ({"data": data} if data else {})
    return Trained(
        net, manifest, TrainConfig(**settings | {"device": device}), path, facts, protocol_of(facts)
    )


def _same(folder: str, other: str) -> bool:
    return (ROOT / folder).resolve() == (ROOT / other).resolve()


def samples_of(images: str, manifest: Manifest, root: Path = ROOT) -> list[Sample]:
    """The pictures that `images` names, with their masks where the manifest knows them (opened by evaluation only).

    `images` is a split; or a path, from `root`: a list file with one image name a line, of any split, in its order; or a
    folder, whose pictures come sorted, without tags and masks (sub-folders are left alone), or one picture.
    Raises DataError for what is none of these, and for names that are unknown or stand for two pictures.
    """
    path = root / Path(images).expanduser()
    if images not in SPLITS and (path.is_dir() or path.suffix.lower() in PICTURES and path.is_file()):
        return _pictures(path, manifest)
    if images not in SPLITS and not path.is_file():
        raise DataError(
            f"images={images!r} is no split ({', '.join(SPLITS)}), and no list or folder lies at {path}; correct it"
        )
    if not manifest.splits:
        raise DataError(
            f"images={images!r} needs a data set, and none is known: name one as `data`, or a folder of pictures"
        )
    return _split(images, manifest) if images in SPLITS else _listed(path, manifest)


def readable(
    images: str, samples: list[Sample], bad: list[str], root: Path = ROOT, part: bool = False
) -> Iterator[Sample]:
    """The samples of `images`, one by one; of a folder only those that open, with a line in `bad` for each other one.

    Splits and lists are a data set, whose numbers are of all its pictures: there a bad one stops the evaluation that opens it.
    In a folder it is left out; DataError where none of them opens, unless they are only a part of it.
    """
    if images in SPLITS or not images_path(images, root).is_dir():
        yield from samples
        return
    for sample in samples:
        try:
            read_image(sample.image)
        except DataError as error:
            bad.append(str(error))
        else:
            yield sample
    if bad and len(bad) == len(samples) and not part:
        raise none_opens(images, bad, root)


def none_opens(images: str, bad: list[str], root: Path = ROOT) -> DataError:
    """What to say of a folder without a picture that can be opened."""
    return DataError(
        f"{images_path(images, root)}: none of its {len(bad)} pictures can be opened; first: {bad[0]}"
    )


def images_path(images: str, root: Path = ROOT) -> Path:
    """The list or folder that `images` names, as an absolute path."""
    return Path(os.path.abspath(root / Path(images).expanduser()))


def images_label(images: str, root: Path = ROOT) -> str:
    """What `images` is called in file names and metrics.json: the split, or a list's or folder's name without its path."""
    if images in SPLITS:
        return images
    path = images_path(images, root)
    stem = re.sub("_crf$", "-crf", path.stem)  # masks/<label>_crf are those with CRF
    return (
        f"{path.parent.name}_{stem}" if stem in (*SPLITS, "masks") else stem
    )  # a list called val is not the split


def file_suffix(images: str) -> str:
    """What ends the names of files about `images`: nothing for a split, so that only splits write metrics.json."""
    return "" if images in SPLITS else f"_{images_label(images)}"


def manifest_of(classes: list[dict], folder: Path | str = ROOT) -> Manifest:
    """A manifest without lists, from the classes that `load_snapshot` returns: enough for pictures that have no data set."""
    return Manifest(Path(folder), tuple(ClassInfo(**entry) for entry in classes))


def _split(split: str, manifest: Manifest) -> list[Sample]:
    samples = manifest.samples(split)
    if split == "train":
        masks = manifest.train_masks()
        samples = [replace(sample, mask=masks.get(sample.name)) for sample in samples]
    return samples


def _listed(path: Path, manifest: Manifest) -> list[Sample]:
    known, names = defaultdict(list), read_list(path)
    for sample in (sample for split in manifest.splits for sample in _split(split, manifest)):
        known[sample.name].append(sample)
    if unknown := [name for name in names if name not in known]:
        counts = f"{len(unknown)} of its {len(names)} names are unknown, first {unknown[0]!r}"
        raise DataError(f"{path}: {counts}; name images of {manifest.folder}, without their endings")
    if double := [name for name in names if len({sample.image for sample in known[name]}) > 1]:
        raise DataError(
            f"{path}: {double[0]!r} stands for two pictures of {manifest.folder}; rename one of them, prepare again"
        )
    return [next((sample for sample in known[name] if sample.mask), known[name][0]) for name in names]


def _pictures(path: Path, manifest: Manifest) -> list[Sample]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [
        file for file in files if file.suffix.lower() in PICTURES and file.name[0] != "." and file.is_file()
    ]
    if not files:
        raise DataError(
            f"{path}: there is no picture in this folder; known endings are {', '.join(PICTURES)}"
        )
    first = {}
    for file in files:
        if (other := first.setdefault(file.stem, file)) != file:
            raise DataError(
                f"{path}: {other.name} and {file.name} would share one mask file; rename one of them"
            )
    return [Sample(file.stem, file, (False,) * len(manifest.classes)) for file in files]
