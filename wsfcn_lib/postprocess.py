"""From masks to a label map: the two published background rules ("recipes") and the dense CRF. No torch.

WS-FCN's recipe is "wsfcn", its ancestor's "1stage". Everywhere masks (K, H, W) are class probabilities in [0,
1], class 0 is background; tags (K-1,) of 0/1 say which foreground classes the image holds, tags[c-1] being
class c. A class without a tag never appears in a result.
"""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future

import numpy as np

RECIPES = ("wsfcn", "1stage")
BACKGROUND_MASK = 0.25  # wsfcn: a pixel is foreground where some present class exceeds this
ITERATIONS = 10
BILATERAL_SXY = {"wsfcn": 30, "1stage": 80}  # pixels; the one setting in which the two programs differ
LEAST_PROBABILITY = 1e-5


def label_map(masks: np.ndarray, tags: np.ndarray, recipe: str = "wsfcn") -> np.ndarray:
    """Label of each pixel without CRF: argmax over background and present classes → (H, W) uint8.

    wsfcn: the background mask is the constant 0.25. 1stage: the network's background mask, cubed.
    """
    masks = _present_masks(masks, tags, recipe)
    masks[0] = BACKGROUND_MASK if recipe == "wsfcn" else masks[0] ** 3
    return masks.argmax(axis=0).astype(np.uint8)


def crf_masks(masks: np.ndarray, tags: np.ndarray, recipe: str = "wsfcn") -> np.ndarray:
    """Input of the dense CRF → (K, H, W) float32 in [0, 1], absent classes 0, not renormalised.

    wsfcn: background = (1 - max over the present foreground)^5. 1stage: the network's background mask, cubed.
    """
    masks = _present_masks(masks, tags, recipe)
    masks[0] = (1 - masks[1:].max(axis=0)) ** 5 if recipe == "wsfcn" else masks[0] ** 3
    return masks


def present_classes(tags: np.ndarray) -> np.ndarray:
    """Background and the tagged classes, as ascending uint8 class indices."""
    tags = np.asarray(tags)
    other = tags[~np.isin(tags, (0, 1))]
    if other.size:
        raise ValueError(f"tags hold {other[0]}; they must be 0 or 1: cut scores at a threshold first")
    return np.flatnonzero(np.concatenate([[1], tags])).astype(np.uint8)


def _present_masks(masks: np.ndarray, tags: np.ndarray, recipe: str) -> np.ndarray:
    """A checked float32 copy of the masks with absent classes set to 0."""
    masks, tags = np.asarray(masks), np.asarray(tags)
    if recipe not in RECIPES:
        raise ValueError(f"recipe is {recipe!r}; it must be one of {', '.join(map(repr, RECIPES))}")
    if masks.ndim != 3 or not 2 <= masks.shape[0] <= 255 or tags.shape != (masks.shape[0] - 1,):
        raise ValueError(
            f"masks have shape {masks.shape} and tags {tags.shape}; they must be (K, H, W), K in 2..255, "
            "and (K-1,): tags leave the background out"
        )
    if masks.dtype.kind != "f" or not np.isfinite(masks).all():
        raise ValueError(
            f"masks of {masks.dtype} hold no finite probabilities; check the network's output for this image"
        )
    classes = present_classes(tags)
    present = np.zeros(masks.shape, np.float32)
    present[classes] = masks[classes]
    return present


def crf(
    image: np.ndarray,
    masks: np.ndarray,
    tags: np.ndarray,
    recipe: str = "wsfcn",
    engine: str = "pydensecrf",
) -> np.ndarray:
    """Labels after the recipe's background rule and the dense CRF → (H, W) uint8.

    Only background and tagged classes enter the CRF: the others would stand at probability 1e-5 and change
    nothing but the time.

    Args:
        image: (H, W, 3) uint8.
        masks: (K, H, W) probabilities.
        tags: (K-1,) of 0/1.
        recipe: one of RECIPES.
        engine: what computes the mean field, one of ENGINES.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; it must be one of {', '.join(map(repr, ENGINES))}")
    present = present_classes(tags)
    return present[ENGINES[engine](image, crf_masks(masks, tags, recipe)[present], BILATERAL_SXY[recipe])]


def dense_crf(image: np.ndarray, probabilities: np.ndarray, sxy: float) -> np.ndarray:
    """Mean-field labels → (H, W) uint8 from an image (H, W, 3) uint8 and probabilities (K, H, W), of any sum.

    Unary -log p, p clipped to [1e-5, 1]; Gaussian sxy 3 compat 3; bilateral sxy as given, srgb 13, compat 10.
    Raises ImportError when pydensecrf2 is missing, ValueError for sizes that differ.
    """
    densecrf = _densecrf()
    classes, height, width = probabilities.shape
    if image.dtype != np.uint8 or image.shape != (height, width, 3):
        raise ValueError(
            f"image is {image.dtype} {image.shape}; masks of {height}×{width} need uint8 {(height, width, 3)}"
        )
    unary = -np.log(np.clip(probabilities, LEAST_PROBABILITY, 1)).reshape(classes, -1)
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    field.addPairwiseGaussian(sxy=3, compat=3)
    writable = np.array(image, order="C")  # the package refuses the read-only arrays that images come as
    field.addPairwiseBilateral(sxy=sxy, srgb=13, rgbim=writable, compat=10)
    return np.asarray(field.inference(ITERATIONS)).argmax(axis=0).reshape(height, width).astype(np.uint8)


ENGINES = {"pydensecrf": dense_crf}


def crf_available() -> bool:
    """Whether the optional package behind the dense CRF is installed and loads."""
    try:
        _densecrf()
    except ImportError:
        return False
    return True


def _densecrf():
    try:
        import pydensecrf.densecrf as densecrf
    except ImportError as error:
        raise ImportError(
            "the dense CRF needs the package pydensecrf2: install a C++ compiler and Python's headers "
            "(Debian: apt-get install g++ python3-dev), then `pip install pydensecrf2`; "
            "all else works without it"
        ) from error
    return densecrf


def crf_many(jobs: Iterable[tuple], processes: int = 2) -> Iterator[tuple[str, np.ndarray]]:
    """`crf` over jobs (name, image, masks, tags, recipe) → (name, labels) in the order of the jobs.

    Streams: jobs are drawn one by one in the caller's thread, at most 2·processes are under way, so memory
        stays flat.
    One process works in place, without a pool; so does the caller, which says so, once the system has ended a
        process of the pool. Raises RuntimeError that names the image a failure belongs to.
    """
    _densecrf()  # say at once, not in a worker, that the package is missing
    if processes == 1:
        for name, image, masks, tags, recipe in jobs:
            yield name, _named(name, crf, image, masks, tags, recipe)
        return
    # A pool of its own, as joblib's shared one serves others. Not joblib.Parallel: that draws jobs, so runs
    # the network, in threads of its pool, and runs ahead of whoever takes the results.
    from joblib.externals.loky import ProcessPoolExecutor

    try:
        pool = ProcessPoolExecutor(processes)
    except OSError:  # no room in /dev/shm, or no right to write there
        pool = None
    waiting = deque()
    try:
        for name, image, masks, tags, recipe in jobs:
            # absent classes are dropped here already: a worker then receives a fifth of the bytes
            present = _named(name, present_classes, tags)
            probabilities = _named(name, crf_masks, masks, tags, recipe)[present]
            job = image, probabilities, BILATERAL_SXY[recipe]
            waiting.append((name, present, job, _submit(pool, job)))
            if len(waiting) == 2 * processes:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        if pool:
            pool.shutdown(kill_workers=True)  # what is under way by now, nobody waits for


def _submit(pool, job: tuple) -> Future | None:
    """The job's future; None where there is no pool, it is broken, or its processes cannot start."""
    try:
        return pool and pool.submit(dense_crf, *job)
    except (BrokenExecutor, OSError):
        return None


def _result(name: str, present: np.ndarray, job: tuple, future: Future | None) -> tuple[str, np.ndarray]:
    """The labels of an image; computed in this process where the one that had it was ended."""
    try:
        if future is not None:
            return name, present[_named(name, future.result)]
    except BrokenExecutor:
        pass
    warnings.warn(
        "the system ended a process of the dense CRF, or let none start, perhaps for want of memory or of room in "
        "/dev/shm: the remaining images are computed in this process; fewer `processes` need less",
        RuntimeWarning,
        stacklevel=2,
    )
    return name, present[_named(name, dense_crf, *job)]


def _named(name: str, function, *arguments):
    """Call, and let an error say which image it belongs to."""
    try:
        return function(*arguments)
    except BrokenExecutor:
        raise
    except Exception as error:
        raise RuntimeError(f"dense CRF of image {name!r} failed: {error}") from error
