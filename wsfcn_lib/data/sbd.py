"""VOC 2012 and SBD from their archives, and SBD's masks as PNG: the list trainaug (method, section 6).

No torch and no pandas at import: pool workers start fast.
"""

import io
import shutil
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from wsfcn_lib.data.classes import IGNORE, VOC_CLASSES, voc_palette
from wsfcn_lib.data.files import DataError, read_text
from wsfcn_lib.data.images import encode_mask
from wsfcn_lib.data.voc import AUGMENTED, voc_base, voc_names
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write, make_folder, require_space, writing

VOC_BYTES = (2.0e9, 2.1e9)  # archive, unpacked; rounded up
SBD_BYTES = (1.5e9, 2.5e9)


@dataclass(frozen=True)
class Converted:
    """What `convert_sbd` made: `folder` holds SegmentationClassAug and trainaug.txt."""

    folder: Path
    names: list[str]  # of trainaug, also of those whose mask could not be made
    faults: list[str]  # a line for each of these
    notes: list[str]


def sbd_base(root: Path | str) -> Path:
    """SBD's folder, with cls, train.txt, val.txt: `root`, dataset or benchmark_RELEASE/dataset in it."""
    folders = [Path(root) / inner for inner in ("", "dataset", "benchmark_RELEASE/dataset")]
    for folder in folders:
        if all((folder / name).exists() for name in ("cls", "train.txt", "val.txt")):
            return folder
    raise DataError(
        f"no cls with train.txt and val.txt in {', '.join(map(str, folders))}; "
        f"point to the folder that SBD's archive was unpacked to"
    )


def trainaug_names(voc: Path | str, sbd: Path | str) -> list[str]:
    """The set rule: (SBD train ∪ SBD val ∪ VOC train) − VOC val, sorted; 10,582 names where all are there."""
    base = voc_base(voc)
    names = set(voc_names(base, "train"))
    for split in ("train", "val"):
        names.update(read_text(sbd_base(sbd) / f"{split}.txt").split())
    return sorted(names.difference(voc_names(base, "val")))


def trainaug_notes(voc: Path | str, names: list[str]) -> list[str]:
    """How VOC's own trainaug, if there is one, differs from the names that the rule gives."""
    with suppress(DataError):
        own = set(voc_names(voc_base(voc), "trainaug"))
        lacks = len(set(names) - own)
        others = len(own - set(names))
        if lacks or others:
            return [f"VOC's trainaug lacks {lacks} names of the set rule and has {others} others"]
    return []


def convert_sbd(sbd: Path | str, voc: Path | str, out: Path | str, processes: int = 2) -> Converted:
    """Make `out`/SegmentationClassAug, the masks of trainaug as PNG in VOC's colours, and `out`/trainaug.txt.

    Images of VOC train get VOC's own mask, the others SBD's .mat. What is there is kept; what cannot be read
    is a line in the report. `sbd` and `voc` are only read, `processes` work at once (1: in this one).
    """
    sbd, voc, out = sbd_base(sbd), voc_base(voc), Path(out)
    names = trainaug_names(voc, sbd)
    own = set(voc_names(voc, "train"))
    masks = make_folder(out / AUGMENTED)
    jobs = []
    for name in names:
        source = sbd / "cls" / f"{name}.mat"
        if name in own:
            source = voc / "SegmentationClass" / f"{name}.png"
        target = masks / f"{name}.png"
        if not target.is_file():
            jobs.append(delayed(_convert)(source, target))
    results = Parallel(processes, return_as="generator")(jobs)
    faults = [line for line in progress(results, "masks of trainaug", len(jobs)) if line]
    atomic_write(out / "trainaug.txt", "".join(f"{name}\n" for name in names))
    return Converted(out, names, faults, trainaug_notes(voc, names))


def _convert(source: Path, target: Path) -> str | None:
    """Make one mask, or say in a line why it cannot be made."""
    try:
        data = source.read_bytes()
        if source.suffix == ".mat":
            data = _palette_png(data)
    except Exception as error:  # scipy raises many types for a broken .mat
        return f"{source.stem}: {source}: {type(error).__name__}: {error}; get it again, or go without it"
    atomic_write(target, data)


def _palette_png(mat: bytes) -> bytes:
    """GTcls.Segmentation of one of SBD's files as a picture; ValueError where it is no mask."""
    from scipy.io import loadmat

    ids = loadmat(io.BytesIO(mat), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    if ids.ndim != 2 or ids.dtype != np.uint8 or np.any((ids > len(VOC_CLASSES)) & (ids != IGNORE)):
        raise ValueError(
            f"GTcls.Segmentation is {ids.dtype} {ids.shape} up to {ids.max()}, not uint8 (H, W) of VOC's ids"
        )
    return encode_mask(ids, voc_palette())


def download_voc(raw: Path | str) -> Path:
    """VOC 2012's folder below `raw`, without the test images, which lie behind a login.

    Where it is not there, its archive (2 GB) is fetched, checked and unpacked. Raises DataError where that
    fails, RunError for too small a disk.
    """
    with suppress(DataError):
        return voc_base(raw)
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    facts = DATASET_YEAR_DICT["2012"]
    _make_from_archive(Path(raw), facts["base_dir"], facts["url"], facts["filename"], facts["md5"], VOC_BYTES)
    return voc_base(raw)


def download_sbd(raw: Path | str) -> Path:
    """SBD's folder below `raw`, made from its archive (1.4 GB) where it is not there; as `download_voc`."""
    with suppress(DataError):
        return sbd_base(raw)
    from torchvision.datasets import SBDataset

    _make_from_archive(
        Path(raw), "benchmark_RELEASE", SBDataset.url, SBDataset.filename, SBDataset.md5, SBD_BYTES
    )
    return sbd_base(raw)


def _make_from_archive(
    raw: Path, inner: str, url: str, filename: str, md5: str, sizes: tuple[float, float]
) -> None:
    """Make `raw`/`inner` from its archive; all of it grows in a hidden folder and is renamed when whole."""
    from torchvision.datasets.utils import check_integrity, download_url  # its data sets move or mix files

    target = raw / inner
    archive = raw / filename
    part = raw / f".{filename}.part"
    if target.exists():
        raise DataError(
            f"{target} is there, but not whole; complete it, or move it away to have it made from {filename}"
        )
    require_space(raw.resolve(), sizes[1] if archive.is_file() else sum(sizes))
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part)
    try:
        if not archive.is_file():
            try:
                download_url(url, str(part), filename, md5)
            except (OSError, RuntimeError, HTTPException) as error:
                raise DataError(
                    f"{filename} cannot be fetched, or came damaged ({error}); get it by hand from {url}, "
                    f"put it at {archive} and run this again: it is then checked and unpacked"
                ) from error
            (part / filename).replace(archive)
        elif not check_integrity(archive, md5):
            raise DataError(
                f"{archive} is damaged or another file: its md5 must be {md5}; "
                f"remove it, or get it again from {url}"
            )
        with writing(target), tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 has none
            tar.extractall(part, progress(tar, f"unpack {filename}", unit=" files"))
        make_folder(target.parent)
        (part / inner).rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
