"""Dense CRF (Krähenbühl and Koltun) with the settings of WS-FCN and 1-stage-wseg. No torch: pool workers start fast."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from wsfcn_lib.recipes import crf_masks, present_classes

ITERATIONS = 10
BILATERAL_SXY = {"wsfcn": 30, "1stage": 80}  # pixels; the one setting in which the two programs differ
LEAST_PROBABILITY = 1e-5


def crf_available() -> bool:
    """Whether the optional package behind the dense CRF is installed and loads."""
    try:
        _densecrf()
    except ImportError:
        return False
    return True


def dense_crf(image: np.ndarray, probabilities: np.ndarray, sxy: float, iterations: int = ITERATIONS) -> np.ndarray:
    """Mean-field labels → (H, W) uint8 from an image (H, W, 3) uint8 and probabilities (K, H, W), not necessarily adding to 1.

    Unary -log p, p clipped to [1e-5, 1]; Gaussian sxy 3 compat 3; bilateral sxy as given, srgb 13, compat 10.
    Raises ImportError when pydensecrf2 is missing, ValueError for sizes that differ.
    """
    densecrf = _densecrf()
    classes, height, width = probabilities.shape
    if image.dtype != np.uint8 or image.shape != (height, width, 3):
        raise ValueError(f"image is {image.dtype} {image.shape}; masks of {height}×{width} need uint8 ({height}, {width}, 3)")
    unary = -np.log(np.clip(probabilities, LEAST_PROBABILITY, 1)).reshape(classes, -1)
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    field.addPairwiseGaussian(sxy=3, compat=3)
    writable = np.array(image, order="C")  # the package refuses the read-only arrays that pictures come as
    field.addPairwiseBilateral(sxy=sxy, srgb=13, rgbim=writable, compat=10)
    return np.asarray(field.inference(iterations)).argmax(axis=0).reshape(height, width).astype(np.uint8)


def crf(image: np.ndarray, masks: np.ndarray, tags: np.ndarray, recipe: str = "wsfcn") -> np.ndarray:
    """Labels after the recipe's background rule and the dense CRF → (H, W) uint8.

    image (H, W, 3) uint8, masks (K, H, W) probabilities, tags (K-1,) of 0/1. Only background and tagged classes enter
    the CRF: the others would stand at probability 1e-5 and change nothing but the time.
    """
    present = present_classes(tags)
    return present[dense_crf(image, crf_masks(masks, tags, recipe)[present], BILATERAL_SXY[recipe])]


def crf_many(jobs: Iterable[tuple], processes: int = 2) -> Iterator[tuple[str, np.ndarray]]:
    """`crf` over jobs (name, image, masks, tags, recipe) → (name, labels) in the order of the jobs.

    Streams: jobs are drawn one by one in the caller's thread, at most 2·processes are under way, so memory stays flat.
    One process works in place, without a pool. Raises RuntimeError that names the image a failure belongs to.
    """
    _densecrf()  # say at once, not in a worker, that the package is missing
    if processes < 1:
        raise ValueError(f"processes is {processes}; it must be at least 1")
    if processes == 1:
        for name, *job in jobs:
            yield name, _named(name, crf, *job)
        return
    # a pool of its own: joblib's, which its other users share, is started for them alone. Not joblib.Parallel: that draws jobs,
    # so runs the network, in threads of its pool, and runs ahead of whoever takes the results
    from joblib.externals.loky import ProcessPoolExecutor

    pool, waiting = ProcessPoolExecutor(processes), deque()
    try:
        for name, image, masks, tags, recipe in jobs:
            # absent classes are dropped here already: a worker then receives a fifth of the bytes
            present = _named(name, present_classes, tags)
            probabilities = _named(name, crf_masks, masks, tags, recipe)[present]
            waiting.append((name, present, pool.submit(dense_crf, image, probabilities, BILATERAL_SXY[recipe])))
            if len(waiting) >= 2 * processes:
                yield _labels(*waiting.popleft())
        while waiting:
            yield _labels(*waiting.popleft())
    finally:
        pool.shutdown(kill_workers=True)  # what is under way by now, nobody waits for


def _labels(name: str, present: np.ndarray, future) -> tuple[str, np.ndarray]:
    return name, present[_named(name, future.result)]


def _named(name: str, function, *arguments):
    """Call, and let an error say which image it belongs to."""
    try:
        return function(*arguments)
    except Exception as error:
        raise RuntimeError(f"dense CRF of image {name!r} failed: {error}") from error


def _densecrf():
    try:
        import pydensecrf.densecrf as densecrf
    except ImportError as error:
        raise ImportError(
            "the dense CRF needs the package pydensecrf2: install a C++ compiler and Python's headers "
            "(Debian: apt-get install g++ python3-dev), then `pip install pydensecrf2`; all else works without it"
        ) from error
    return densecrf
