"""How long `compare` takes for as many masks as VOC's val has: `python tests/benchmarks/compare_masks.py [images]`.

Masks of 500 x 375 with objects of VOC's classes in strips of 255, two answers with other errors each, in folders
and in a compressed tar; written for the measurement, and removed. Run by hand: no test waits for a clock.
"""

import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import grey_dilation, shift

from wsfcn_lib.data.classes import voc_palette
from wsfcn_lib.data.images import encode_mask
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.storage import atomic_write

IMAGES, SIZE = 1449, (375, 500)


def masks(rng):
    """A truth (H, W) of up to four ellipses in strips of 255, and two answers that move them."""
    rows, columns = np.indices(SIZE)
    labels = np.zeros(SIZE, np.uint8)
    for _ in range(rng.integers(1, 5)):
        y, x, b, a = rng.integers(40, 330), rng.integers(40, 460), *rng.integers(12, 120, 2)
        labels[((rows - y) / b) ** 2 + ((columns - x) / a) ** 2 < 1] = rng.integers(1, 21)
    edges = np.zeros(SIZE, bool)
    edges[1:] |= labels[1:] != labels[:-1]
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    truth = np.where(grey_dilation(edges, (5, 5)), np.uint8(255), labels)
    answers = [shift(labels, rng.integers(-12, 13, 2), order=0) for _ in range(2)]
    answers[1][rng.random(SIZE) < 0.002] = rng.integers(1, 21)
    return truth, *answers


def cpu_seconds():
    """Seconds of a core that the processes started here have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main():
    images, rng = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        for number in range(images):
            for kind, labels in zip(("truth", "A", "B"), masks(rng)):
                atomic_write(Path(place, kind, f"2008_{number:06d}.png"), encode_mask(labels, voc_palette()))
        with tarfile.open(Path(place, "B.tar.gz"), "w:gz") as archive:
            archive.add(Path(place, "B"), "B")
        for second in ("B", "B.tar.gz"):
            command = [
                sys.executable,
                "-m",
                "wsfcn_lib.evaluation",
                "compare",
                f"{place}/A",
                f"{place}/{second}",
            ]
            began, busy = time.perf_counter(), cpu_seconds()
            done = subprocess.run(
                [*command, "--truth", f"{place}/truth", "--classes", "voc"],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            seconds = time.perf_counter() - began
            if done.returncode:
                sys.exit(done.stderr)
            busy = cpu_seconds() - busy
            print(
                f"A and {second}, {images} images: {seconds:.1f} s, {busy:.1f} s of a core. {done.stdout.splitlines()[-1]}"
            )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
