"""What an evaluation takes: a trained network with its data, and pictures (a split, a list or any folder)."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from mimetypes import guess_type
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from torch import nn

from wsfcn_lib.checkpoints import find_snapshot
from wsfcn_lib.config import SUPERVISION, TrainConfig
from wsfcn_lib.data.drawn import is_drawn
from wsfcn_lib.data.files import DataError, read_list
from wsfcn_lib.data.folder import MASK_PARTS
from wsfcn_lib.data.images import PICTURES, read_image
from wsfcn_lib.data.manifest import SPLITS, ClassInfo, Manifest, Sample
from wsfcn_lib.data.model_zoo import initial_weights
from wsfcn_lib.data.scan import Scan, scan, unique_names
from wsfcn_lib.protocol import protocol_of
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.paths import ROOT, resolve_path
from wsfcn_lib.runs.storage import RunError
from wsfcn_lib.weights import load_network


class Trained(NamedTuple):
    """A network to evaluate, and what belongs to it."""

    net: nn.Module  # in evaluation mode, on the CPU
    manifest: Manifest
    # of its training; of a file from elsewhere: its network and what the file says, all else as published for VOC
    config: TrainConfig
    path: Path  # its file
    facts: dict  # in this file, see `load_network`
    protocol: dict  # recipe, scales and canvas, where nobody asks for others


def load_trained(run: Path | str, snapshot: str = "best", data: str = "", device: str = "auto") -> Trained:
    """Open a network and the data set that goes with it; a run folder is about one network and one data set.

    Args:
        run: a run folder, from the repository; with a file from elsewhere it need not exist, and must hold no
            training.
        snapshot: best or last of the run's training; or a file, or a name of released weights that are on
            this machine (see `initial_weights`).
        data: folder with a manifest; empty: the run's, or none, which is enough for folders of pictures.
        device: goes into `config`.

    Raises RunError or DataError that says what does not fit.
    """
    of_training = snapshot in ("best", "last")
    stages = {}
    if of_training or (resolve_path(run) / "run.json").exists():
        stages = read_run(run)["stages"]
    training = stages.get("02_train", {}).get("settings")
    if of_training and not training:
        raise RunError(
            f"{run} holds no training yet: run 02_train on it first, or name a file of weights as snapshot"
        )
    path = find_snapshot(run, snapshot) if of_training else initial_weights(snapshot)
    if training:
        data = data or training["data"]
        inside = path.resolve().is_relative_to(resolve_path(run).resolve())
        if not inside or resolve_path(data).resolve() != resolve_path(training["data"]).resolve():
            raise RunError(
                f"{run} was trained on {training['data']}, and its numbers are of its own network and data: "
                f"name another run for {path.name} on {data}"
            )
    else:
        data = data or stages.get("01_prepare_data", {}).get("settings", {}).get("data", "")
    net, classes, facts = load_network(path)
    manifest = Manifest.load(data) if data else manifest_of(classes)
    if [entry["name"] for entry in classes] != list(manifest.names[1:]):
        raise DataError(
            f"{path.name} knows other classes than {data}: "
            "prepare the data of its training with 01_prepare_data"
        )
    settings = training
    if not training:
        settings = net.config.model_dump(exclude={"num_classes"})
        settings |= {name: facts[name] for name in (*SUPERVISION, "crop") if name in facts}
        if data:
            settings["data"] = data
    config = TrainConfig(**settings | {"device": device})
    return Trained(net, manifest, config, path, facts, protocol_of(facts))


def manifest_of(classes: list[dict], folder: Path | str = ROOT) -> Manifest:
    """A manifest without lists, of the classes that `load_snapshot` returns: for pictures of no data set."""
    return Manifest(Path(folder), tuple(ClassInfo(**entry) for entry in classes))


def samples_of(images: str, manifest: Manifest) -> list[Sample]:
    """The pictures that `images` names, with their masks where the manifest knows them (for evaluation only).

    `images` is a split; or a path, from the repository: a list file with one image name a line, of any split,
    in its order; or a folder, whose pictures come sorted, without tags and masks, those of its sub-folders
    too (what is no picture is told by `passed_over`), or one picture. Raises DataError for what is none of these, and for names that are unknown or
    stand for two pictures.
    """
    path = images_path(images)
    if images not in SPLITS:
        if path.is_dir():
            return _pictures(path, photographs(path).pictures, manifest)
        if not path.is_file():
            raise DataError(
                f"images={images!r} is no split ({', '.join(SPLITS)}), and no list or folder lies at {path}; "
                "correct it"
            )
        if path.suffix.lower() in PICTURES or (guess_type(path)[0] or "").startswith(("image/", "video/")):
            return _pictures(path.parent, [PurePosixPath(path.name)], manifest)
    if not manifest.splits:
        raise DataError(
            f"images={images!r} needs a data set, and none is known: "
            "name one as `data`, or a folder of pictures"
        )
    return manifest.masked_samples(images) if images in SPLITS else _listed(path, manifest)


def photographs(folder: Path) -> Scan:
    """What lies below a folder; pictures in folders named after masks, and drawings of the kit, are none.

    DataError where none is left.
    """
    files = scan(folder)
    pictures, files.pictures = files.pictures, []
    for path in pictures:
        if any(name.lower() in MASK_PARTS for name in path.parts[:-1]):
            files.others["in folders of masks"].append(path)
        elif is_drawn(folder / path):
            files.others["drawn by the kit"].append(path)
        else:
            files.pictures.append(path)
    if not files.pictures:
        found = "".join(f"; {note}" for note in files.notes())
        raise DataError(
            f"{folder}: there is no picture in this folder; known endings are {', '.join(PICTURES)}{found}; "
            "name the folder that holds yours, or convert them to JPEG"
        )
    return files


def images_path(images: str) -> Path:
    """The list or folder that `images` names, as an absolute path; DataError where it names nothing."""
    if not str(images).strip():
        raise DataError("images is empty; name a split, a list of names, or a folder of pictures")
    return Path(os.path.abspath(resolve_path(images)))


def images_label(images: str) -> str:
    """What `images` is called in files' names and metrics.json: the split, or the list's or folder's name."""
    if images in SPLITS:
        return images
    path = images_path(images)
    label = re.sub("_crf$", "-crf", path.stem)  # masks/<label>_crf are those with CRF
    if label in (*SPLITS, "masks"):  # a list called val is not the split
        label = f"{path.parent.name}_{label}"
    return label


def file_suffix(images: str) -> str:
    """What ends the names of files about `images`: nothing for a split, whose numbers metrics.json holds."""
    return "" if images in SPLITS else f"_{images_label(images)}"


def read_images(
    images: str, samples: list[Sample], left_out: list[str] | None = None, part: bool = False
) -> Iterator[tuple[Sample, np.ndarray]]:
    """The samples of `images`, one by one, each with its picture (H, W, 3) uint8.

    Splits and lists are a data set, whose numbers are of all its pictures: there one that cannot be opened is
    a DataError. Of a folder it is passed over, and its line goes into `left_out`, where such a list is given;
    DataError where none opens, unless the samples are only a part of the folder's.
    """
    tolerant = left_out is not None and images not in SPLITS and images_path(images).is_dir()
    for sample in samples:
        try:
            image = read_image(sample.image)
        except DataError as error:
            if not tolerant:
                raise
            left_out.append(str(error))
        else:
            yield sample, image
    if tolerant and not part and len(left_out) == len(samples):
        raise none_opens(images, left_out)


def none_opens(images: str, left_out: list[str]) -> DataError:
    """What to say of a folder without a picture that can be opened."""
    return DataError(
        f"{images_path(images)}: none of its {len(left_out)} pictures can be opened; first: {left_out[0]}"
    )


def _listed(path: Path, manifest: Manifest) -> list[Sample]:
    known = defaultdict(list)
    for split in manifest.splits:
        for sample in manifest.masked_samples(split):
            known[sample.name].append(sample)
    names = read_list(path)
    if unknown := [name for name in names if name not in known]:
        raise DataError(
            f"{path}: {len(unknown)} of its {len(names)} names are unknown, first {unknown[0]!r}; "
            f"name images of {manifest.folder}, without their endings"
        )
    samples = []
    for name in names:
        if len({sample.image for sample in known[name]}) > 1:
            raise DataError(
                f"{path}: {name!r} stands for two pictures of {manifest.folder}; "
                "rename one of them, prepare again"
            )
        masked = [sample for sample in known[name] if sample.mask]
        samples.append((masked or known[name])[0])
    return samples


def _pictures(folder: Path, paths: Sequence[PurePosixPath], manifest: Manifest) -> list[Sample]:
    """Samples of pictures below a folder, without tags and masks, with names that differ."""
    untagged = (False,) * len(manifest.classes)
    return [Sample(name, folder / path, untagged) for path, name in zip(paths, unique_names(paths))]


def passed_over(images: str) -> list[str]:
    """A line for each kind of file in the folder `images` that is no picture; none for splits and lists."""
    path = images_path(images)
    return [] if images in SPLITS or not path.is_dir() else photographs(path).notes()
