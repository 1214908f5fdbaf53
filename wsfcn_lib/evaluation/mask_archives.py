"""Masks as archives: score those that others made, and pack one's own for the VOC test server."""

import gzip
import io
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np

from wsfcn_lib.data.classes import IGNORE, VOC_CLASSES, voc_colour
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import open_mask, read_mask
from wsfcn_lib.data.manifest import Manifest, Sample
from wsfcn_lib.data.scan import same_name
from wsfcn_lib.metrics import ConfusionMatrix, summary
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.progress import progress
from wsfcn_lib.runs.storage import atomic_write

LARGEST = 16 << 20  # bytes of a mask file; VOC's have about 5,000
# what archives raise that are torn, locked or none; a zip with a password is a RuntimeError
TORN = (tarfile.TarError, BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError, RuntimeError)
SERVER_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"  # comp6: trained on more than VOC's own data


@dataclass(frozen=True)
class ArchiveScore:
    """What `score_archive` counted."""

    matrix: ConfusionMatrix
    names: tuple[str, ...]  # of the classes, background first
    rows: list[dict]  # image, iou
    missing: list[str]  # images that have no mask there
    unused: list[str]  # files there that are no mask of one of the images, as counts by kind

    def metrics(self) -> dict:
        """As metrics.json has it: images, missing (count), unused, and `summary`."""
        counts = {"images": len(self.rows), "missing": len(self.missing), "unused": self.unused}
        return counts | summary(self.matrix, self.names)


def score_archive(
    source: Path | str, manifest: Manifest, samples: Sequence[Sample], inside: str = ""
) -> ArchiveScore:
    """Score mask files against the masks of `samples`; samples without a mask are passed over.

    Args:
        source: a folder, or a tar or zip archive (compressed or not), which is read in memory and never
            unpacked.
            Masks lie at any depth as <image name>.png: of the manifest's mask ids or colours, as large as
            the truth. Other files are counted.
        manifest: knows the classes.
        samples: the images that should be there.
        inside: take only masks whose folder ends so, where several hold the same images (the ancestor's
            program puts those with CRF into a folder `crf` beside the others); "." is the top folder.

    Raises DataError that names the file for another size, an unknown id (255 is one), a second mask of an
    image, and a file too large to be a mask; and where not a single image is found.
    """
    truths = {sample.name: sample.mask for sample in samples if sample.mask is not None}
    source = resolve_path(source)
    alike = Counter(same_name(name) for name in truths)
    name_of = {same_name(name): name for name in truths if alike[same_name(name)] == 1}
    name_of |= {name: name for name in truths}
    unused = Counter()

    def wanted(path: PurePosixPath) -> bool:
        if inside and not f"/{path.parent}".endswith(f"/{inside}"):
            unused["in other folders"] += 1
        elif path.name.startswith(".") or path.suffix.lower() != ".png":
            unused[path.suffix.lower() or path.name] += 1
        elif path.stem not in name_of and same_name(path.stem) not in name_of:
            unused["masks of other images"] += 1
        else:
            return True
        return False

    total = ConfusionMatrix(manifest.num_classes)
    paths, ious = {}, {}
    for path, content in progress(contents(source, wanted), "archive", len(truths)):
        name = name_of.get(path.stem) or name_of[same_name(path.stem)]
        if name in paths:
            raise DataError(
                f"{source}: {paths[name]} and {path} are masks of one image; "
                "say by `inside` in which folder the right ones lie"
            )
        paths[name] = path
        truth = read_mask(truths[name], manifest)
        labels = read_mask(f"{source}: {path}", manifest, content, truth.shape)
        if (labels == IGNORE).any():
            raise DataError(f"{source}: {path}: the id {IGNORE} is no answer; give each pixel a class")
        matrix = ConfusionMatrix(manifest.num_classes)
        matrix.update(labels, truth)
        total += matrix
        ious[name] = round(matrix.mean_iou(), 4)
    if not ious:
        raise DataError(
            f"{source}: not one mask of the {len(truths)} images whose truth is known is there; "
            f"they should be called <image name>.png, such as {next(iter(truths), 'none')}.png"
        )
    rows = [{"image": name, "iou": ious[name]} for name in truths if name in ious]
    counts = [f"{count} {kind}" for kind, count in unused.most_common()]
    return ArchiveScore(total, manifest.names, rows, [name for name in truths if name not in ious], counts)


def contents(source: Path, wanted: Callable) -> Iterator[tuple[PurePosixPath, bytes]]:
    """(path inside, content) of each wanted file of a folder or archive; one pass, one file in memory at a time.

    `wanted` is asked about each path inside. DataError for a file too large to be a mask, and for a source that
    is none or torn.
    """
    try:
        for path, size, read in _files(source):
            if not wanted(path):
                continue
            if size > LARGEST:
                raise DataError(
                    f"{source}: {path} has {size:,} bytes, a mask at most {LARGEST:,}; take it out"
                )
            yield path, read()
    except TORN as error:
        raise DataError(
            f"{source}: cannot be read to its end ({error}); it must be a folder or a whole tar archive, "
            "or a zip without a password"
        ) from error


def _files(source: Path) -> Iterator[tuple[PurePosixPath, int, Callable[[], bytes]]]:
    """(path inside, size in bytes, function that reads it) of each file of a folder, tar or zip."""
    if source.is_dir():
        for file in sorted(source.rglob("*")):
            if file.is_file():
                yield PurePosixPath(file.relative_to(source)), file.stat().st_size, file.read_bytes
    elif is_zipfile(source):
        with ZipFile(source) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    yield PurePosixPath(member.filename), member.file_size, partial(archive.read, member)
    elif source.is_file():
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                if member.isreg():
                    yield PurePosixPath(member.name), member.size, archive.extractfile(member).read
    else:
        raise DataError(
            f"{source}: there is no such folder or archive; name a folder of masks or a .tar, .tar.gz, .zip"
        )


def write_server_archive(masks: Path | str, names: Iterable[str], path: Path | str) -> Path:
    """Pack <masks>/<name>.png as the VOC test server wants them: SERVER_FOLDER in a tar.gz.

    The same masks give the same bytes. Raises DataError that names the file for a mask that is missing or no
    palette PNG, has ids beyond 0..20 or other colours than VOC's; and where `path` holds another archive
    already.
    """
    masks, path = resolve_path(masks), resolve_path(path)
    files = [masks / f"{name}.png" for name in sorted(set(names))]
    missing = [file.stem for file in files if not file.is_file()]
    if missing or not files:
        first = repr(missing[0]) if missing else "none was named"
        raise DataError(
            f"{masks}: {len(missing)} of {len(files)} masks are missing, first {first}; "
            "predict all images first"
        )
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file in progress(files, "pack"):
            _check_voc(file)
            member = tarfile.TarInfo(f"{SERVER_FOLDER}/{file.name}")  # owner, times: all 0
            member.size = file.stat().st_size
            archive.addfile(member, io.BytesIO(file.read_bytes()))
    packed = gzip.compress(stream.getvalue(), mtime=0)
    if not path.exists():
        atomic_write(path, packed)
    elif path.read_bytes() != packed:
        raise DataError(f"{path} exists and holds other masks; choose another name")
    return path


def _check_voc(path: Path) -> None:
    picture = open_mask(path)
    if (picture.format, picture.mode) != ("PNG", "P"):
        raise DataError(
            f"{path}: the server takes palette PNGs, this is {picture.format} of mode {picture.mode}; "
            "convert it"
        )
    palette = picture.getpalette()
    for mask_id in np.unique(picture).tolist():
        colour = tuple(palette[3 * mask_id : 3 * mask_id + 3])
        if mask_id > len(VOC_CLASSES) or colour != voc_colour(mask_id):
            raise DataError(
                f"{path}: id {mask_id} in colour {colour} is none of VOC's 0..{len(VOC_CLASSES)} "
                "in VOC's colours; evaluate a network that knows VOC's classes"
            )
