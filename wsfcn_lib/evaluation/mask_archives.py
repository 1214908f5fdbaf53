"""Masks as archives: score those that others made, and pack one's own for the VOC test server."""

import gzip
import io
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from wsfcn_lib.data.classes import VOC_CLASSES, voc_colour
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import open_mask, read_mask
from wsfcn_lib.data.manifest import Manifest, Sample
from wsfcn_lib.metrics import ConfusionMatrix, summary
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.storage import atomic_write

LARGEST = 16 << 20  # bytes of a mask file; VOC's have about 5,000
SERVER_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"  # comp6: trained on more than VOC's own data


@dataclass(frozen=True)
class ArchiveScore:
    """What `score_archive` found: counts of all pixels, a row per image (image, iou), and the images that have no mask there."""

    matrix: ConfusionMatrix
    names: tuple[str, ...]  # of the classes, background first
    rows: list[dict]
    missing: list[str]

    def metrics(self) -> dict:
        """As metrics.json has it: images, missing (count), mean_iou, and per class IoU, precision and recall; in 0..1."""
        return {"images": len(self.rows), "missing": len(self.missing), **summary(self.matrix, self.names)}


def score_archive(
    source: Path | str, manifest: Manifest, samples: Sequence[Sample], inside: str = ""
) -> ArchiveScore:
    """Score mask files against the masks of `samples`; samples without a mask are passed over.

    Args:
        source: a folder, or a tar archive (compressed or not), which is read in memory and never unpacked. Masks lie at
            any depth as <image name>.png: palette or grey pictures of the manifest's mask ids, as large as the truth.
        manifest: knows the classes.
        samples: the images that should be there.
        inside: take only masks whose folder ends so, where several hold the same images (the ancestor's program puts
            those with CRF into a folder `crf` beside the others); "." is the top folder.

    Raises DataError that names the file for another size, an unknown id (255 is one), a second mask of an image, and a
    file too large to be a mask; and where not a single image is found.
    """
    truths, places, ious = {s.name: s.mask for s in samples if s.mask is not None}, {}, {}
    source, total = ROOT / source, ConfusionMatrix(manifest.num_classes)

    def wanted(place: PurePosixPath) -> bool:
        return (
            place.suffix == ".png"
            and place.stem in truths
            and f"/{place.parent}".endswith(f"/{inside}" if inside else "")
        )

    for place, data in tqdm(
        _contents(source, wanted), "archive", len(truths), file=sys.stdout, mininterval=5, ncols=80
    ):
        name = place.stem
        if name in ious:
            both = f"{places[name]} and {place}"
            raise DataError(
                f"{source}: {both} are masks of one image; say by `inside` in which folder the right ones lie"
            )
        truth, single = read_mask(truths[name], manifest), ConfusionMatrix(manifest.num_classes)
        single.update(_labels(f"{source}: {place}", data, manifest, truth.shape[::-1]), truth)
        total, ious[name], places[name] = total + single, round(single.mean_iou(), 4), place
    if not ious:
        where = f"{source}: not one mask of the {len(truths)} images whose truth is known is there"
        raise DataError(
            f"{where}; they should be called <image name>.png, such as {next(iter(truths), 'none')}.png"
        )
    rows = [{"image": name, "iou": ious[name]} for name in truths if name in ious]
    return ArchiveScore(total, manifest.names, rows, [name for name in truths if name not in ious])


def _contents(source: Path, wanted) -> Iterator[tuple[PurePosixPath, bytes]]:
    """(place inside the source, content) of each wanted file; one pass, one file in memory at a time."""
    if source.is_dir():
        for path in sorted(source.rglob("*.png")):
            place = PurePosixPath(path.relative_to(source).as_posix())
            if wanted(place) and path.is_file():
                _check_size(source, place, path.stat().st_size)
                yield place, path.read_bytes()
        return
    if not source.is_file():
        raise DataError(
            f"{source}: there is no such folder or archive; name a folder of masks or a .tar, .tar.gz"
        )
    try:
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                if member.isreg() and wanted(place):
                    _check_size(source, place, member.size)
                    yield place, archive.extractfile(member).read()
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{source}: not a readable tar archive, perhaps truncated ({error}); fetch it again"
        ) from error


def _check_size(source: Path, place: PurePosixPath, size: int) -> None:
    if size > LARGEST:
        raise DataError(
            f"{source}: {place} has {size:,} bytes, a mask at most {LARGEST:,}; this is none: remove it"
        )


def _labels(where: str, data: bytes, manifest: Manifest, size: tuple[int, int]) -> np.ndarray:
    """Class indices of one mask file; nothing is decoded before its size (width, height) is known to be right."""
    try:
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        if picture.size == size:
            picture.load()
    except Exception as error:  # a torn file raises any of many kinds
        raise DataError(f"{where}: not a readable PNG ({error}); replace it") from error
    if picture.size != size:
        raise DataError(
            f"{where}: the mask is {picture.size}, its truth {size} (width, height); masks must not be resized"
        )
    if picture.mode not in ("P", "L"):
        raise DataError(
            f"{where}: a mask is a palette or grey picture of ids, this one is {picture.mode}; see `inside`"
        )
    ids, known = np.asarray(picture), [0, *(info.mask_id for info in manifest.classes)]
    if unknown := sorted(set(np.unique(ids).tolist()) - set(known)):
        raise DataError(
            f"{where}: the ids {unknown} belong to no class, allowed are {known}; use data with these classes"
        )
    table = np.zeros(256, np.uint8)
    table[known] = range(len(known))
    return table[ids]


def write_server_archive(masks: Path | str, names: Iterable[str], path: Path | str) -> Path:
    """Pack <masks>/<name>.png as the VOC test server wants them: results/VOC2012/Segmentation/comp6_test_cls in a tar.gz.

    The same masks give the same bytes. Raises DataError that names the file for a mask that is missing or no palette PNG,
    has ids beyond 0..20 or other colours than VOC's; and where `path` holds another archive already.
    """
    names, masks, path, stream = sorted(set(names)), ROOT / masks, ROOT / path, io.BytesIO()
    absent = [name for name in names if not (masks / f"{name}.png").is_file()]
    if absent or not names:
        first = absent[0] if absent else "none was named"
        raise DataError(
            f"{masks}: {len(absent)} of {len(names)} masks are missing, first {first!r}; predict all images first"
        )
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in tqdm(names, "pack", file=sys.stdout, mininterval=5, ncols=80):
            _check_voc(masks / f"{name}.png")
            data = (masks / f"{name}.png").read_bytes()
            member = tarfile.TarInfo(f"{SERVER_FOLDER}/{name}.png")  # owner, times: all 0
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    packed = gzip.compress(stream.getvalue(), mtime=0)
    if path.exists() and path.read_bytes() != packed:
        raise DataError(f"{path} exists and holds other masks; choose another name, or delete it")
    if not path.exists():
        atomic_write(path, packed)
    return path


def _check_voc(path: Path) -> None:
    picture = open_mask(path)
    if (picture.format, picture.mode) != ("PNG", "P"):
        raise DataError(
            f"{path}: the server takes palette PNGs, this is {picture.format} of mode {picture.mode}; convert it"
        )
    ids, palette = np.unique(np.asarray(picture)).tolist(), picture.getpalette()
    if ids[-1] > len(VOC_CLASSES):
        raise DataError(
            f"{path}: id {ids[-1]} is beyond 0..{len(VOC_CLASSES)}; these are no masks of VOC's classes"
        )
    if wrong := [i for i in ids if tuple(palette[3 * i : 3 * i + 3]) != voc_colour(i)]:
        raise DataError(
            f"{path}: id {wrong[0]} does not have VOC's colour {voc_colour(wrong[0])}; write masks with `save_mask`"
        )
