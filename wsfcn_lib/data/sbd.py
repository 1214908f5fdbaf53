"""VOC 2012 and SBD from their archives; SBD's masks as palette PNG beside VOC's: the training list trainaug (method, section 6).

No torch and no pandas at import: pool workers start fast.
"""

import io
import os
import shutil
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
from PIL import Image

from wsfcn_lib.data.classes import VOC_CLASSES, voc_palette
from wsfcn_lib.data.files import DataError, read_text
from wsfcn_lib.data.images import IGNORE, encode
from wsfcn_lib.data.voc import AUGMENTED, voc_base, voc_names
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write, make_folder, require_space, writing

VOC_BYTES, SBD_BYTES = (2.0e9, 2.1e9), (1.5e9, 2.5e9)  # archive, unpacked; rounded up


@dataclass(frozen=True)
class Converted:
    """What `convert_sbd` made: `folder` holds SegmentationClassAug and trainaug.txt."""

    folder: Path
    names: list[str]  # of trainaug, also of those whose mask could not be made
    faults: list[str]  # a line for each of these
    notes: list[str]


def sbd_base(root: Path | str) -> Path:
    """The folder under `root` that holds SBD's cls, train.txt and val.txt: `root`, dataset or benchmark_RELEASE/dataset in it."""
    places = [Path(root) / inner for inner in ("", "dataset", "benchmark_RELEASE/dataset")]
    for place in places:
        if (place / "cls").is_dir() and all((place / name).is_file() for name in ("train.txt", "val.txt")):
            return place
    advice = "point to the folder that SBD's archive was unpacked to"
    raise DataError(f"no cls with train.txt and val.txt in {', '.join(map(str, places))}; {advice}")


def trainaug_names(voc: Path | str, sbd: Path | str) -> list[str]:
    """The set rule: (SBD train ∪ SBD val ∪ VOC train) − VOC val, sorted; 10,582 names of the whole data sets."""
    voc, sbd = voc_base(voc), sbd_base(sbd)
    listed = {name for split in ("train", "val") for name in read_text(sbd / f"{split}.txt").split()}
    return sorted((listed | set(voc_names(voc, "train"))) - set(voc_names(voc, "val")))


def trainaug_notes(voc: Path | str, names: list[str]) -> list[str]:
    """How VOC's own trainaug, if there is one, differs from the names that the rule gives."""
    with suppress(DataError):
        own, rule = set(voc_names(voc_base(voc), "trainaug")), set(names)
        if own != rule:
            return [
                f"VOC's trainaug lacks {len(rule - own)} names of the set rule and has {len(own - rule)} others"
            ]
    return []


def convert_sbd(sbd: Path | str, voc: Path | str, out: Path | str, processes: int = 2) -> Converted:
    """Masks of all of trainaug as PNG in VOC's colours below `out`/SegmentationClassAug, and its list `out`/trainaug.txt.

    Images of VOC train get VOC's own mask, the others SBD's .mat. What is there is kept; what cannot be read is a line in
    the report. `sbd` and `voc` are only read, `processes` work at once (1: in this one).
    """
    from joblib import Parallel, delayed

    sbd, voc, out = sbd_base(sbd), voc_base(voc), Path(out)
    names, own = trainaug_names(voc, sbd), set(voc_names(voc, "train"))
    make_folder(out / AUGMENTED)
    sources = [
        voc / "SegmentationClass" / f"{n}.png" if n in own else sbd / "cls" / f"{n}.mat" for n in names
    ]
    jobs = [
        (source, target)
        for source in sources
        if not (target := out / AUGMENTED / f"{source.stem}.png").is_file()
    ]
    done = Parallel(processes if jobs else 1, return_as="generator")(delayed(_convert)(*job) for job in jobs)
    faults = [line for line in progress(done, "masks of trainaug", len(jobs)) if line]
    atomic_write(out / "trainaug.txt", "".join(f"{name}\n" for name in names))
    return Converted(out, names, faults, trainaug_notes(voc, names))


def download_voc(raw: Path | str) -> Path:
    """VOC 2012's folder below `raw`; where it is not there, its archive (2 GB) is fetched to `raw`, checked and unpacked.

    Raises DataError where that fails, RunError for too small a disk. The test images lie behind a login: they are not in it.
    """
    with suppress(DataError):
        return voc_base(raw)
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    facts = DATASET_YEAR_DICT["2012"]
    _unpack(Path(raw), facts["base_dir"], facts["url"], facts["filename"], facts["md5"], VOC_BYTES)
    return voc_base(raw)


def download_sbd(raw: Path | str) -> Path:
    """SBD's folder below `raw`; where it is not there, its archive (1.4 GB) is fetched; errors as `download_voc`."""
    with suppress(DataError):
        return sbd_base(raw)
    from torchvision.datasets import SBDataset

    _unpack(Path(raw), "benchmark_RELEASE", SBDataset.url, SBDataset.filename, SBDataset.md5, SBD_BYTES)
    return sbd_base(raw)


def _unpack(raw: Path, inner: str, url: str, filename: str, md5: str, sizes: tuple[float, float]) -> None:
    """Make `raw`/`inner` from its archive. All of it grows in a hidden folder and is renamed when whole."""
    from torchvision.datasets.utils import (
        check_integrity,
        download_url,
    )  # its data set classes move or mix files

    target, archive, part = raw / inner, raw / filename, raw / f".{filename}.part"
    if target.exists():
        raise DataError(
            f"{target} is there, but not whole; complete it, or move it away to have it made from {filename}"
        )
    require_space(raw.resolve(), sizes[1] + sizes[0] * (not archive.is_file()))
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    try:
        if not archive.is_file():
            try:
                download_url(url, str(part), filename, md5)
            except (OSError, RuntimeError, HTTPException) as error:
                by_hand = f"get it by hand from {url}, put it at {archive} and run this again: it is then checked and unpacked"
                raise DataError(
                    f"{filename} cannot be fetched, or came damaged ({error}); {by_hand}"
                ) from error
            os.replace(part / filename, archive)
        elif not check_integrity(archive, md5):
            raise DataError(
                f"{archive} is damaged or another file: its md5 must be {md5}; remove it, or get it again from {url}"
            )
        with writing(target), tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # early 3.11 has none
            for member in progress(tar, f"unpack {filename}", unit=" files"):
                tar.extract(member, part)
        make_folder(target.parent)
        (part / inner).rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _convert(source: Path, target: Path) -> str | None:
    """Make one mask, or say in a line why it cannot be made."""
    try:
        data = source.read_bytes()
        data = _palette_png(data) if source.suffix == ".mat" else data
    except Exception as error:  # scipy raises many types for a broken .mat
        return f"{source.stem}: {source}: {type(error).__name__}: {error}; get it again, or go without it"
    atomic_write(target, data)


def _palette_png(mat: bytes) -> bytes:
    """GTcls.Segmentation of one of SBD's files as a picture; ValueError where it is no mask, others where it is no such file."""
    from scipy.io import loadmat

    ids = loadmat(io.BytesIO(mat), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    if ids.ndim != 2 or ids.dtype != np.uint8 or np.any((ids > len(VOC_CLASSES)) & (ids != IGNORE)):
        raise ValueError(
            f"GTcls.Segmentation is {ids.dtype} {ids.shape} up to {ids.max()}, not uint8 (H, W) of VOC's ids"
        )
    picture = Image.fromarray(ids)
    picture.putpalette(voc_palette())
    return encode(picture, "PNG")
