"""Background rules and the dense CRF: published label maps, limits, streams of images, and no torch."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import psutil
import pytest
from joblib import Parallel, delayed
from joblib.externals import loky

import oracles
from factories import needs_crf
from wsfcn_lib import postprocess
from wsfcn_lib.config import Recipe
from wsfcn_lib.postprocess import (
    BILATERAL_SXY,
    ITERATIONS,
    RECIPES,
    crf,
    crf_available,
    crf_many,
    crf_masks,
    dense_crf,
    label_map,
    present_classes,
)

PUBLISHED = np.load(Path(__file__).parents[1] / "fixtures" / "inference.npz")
IMAGE, MASKS, TAGS = PUBLISHED["image"], PUBLISHED["merged"], PUBLISHED["tags"]


def one_pixel(*values):
    return np.array(values, np.float32).reshape(-1, 1, 1)


@pytest.mark.parametrize(("recipe", "key"), [("wsfcn", "label_map"), ("1stage", "label_map_pow3")])
def test_label_maps_are_the_published_ones(recipe, key):
    labels = label_map(MASKS, TAGS, recipe)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, PUBLISHED[key])


def test_the_two_rules_differ_as_described():
    masks = one_pixel(0.6, 0.24, 0.16)
    assert label_map(masks, [1, 1], "wsfcn") == 0  # 0.24 < 0.25
    assert label_map(masks, [1, 1], "1stage") == 1  # 0.6³ = 0.216 < 0.24
    assert (
        label_map(one_pixel(0.9, 0.26, 0.1), [1, 1], "wsfcn") == 1
    )  # the network's own background plays no part
    np.testing.assert_allclose(crf_masks(masks, [1, 1], "wsfcn").ravel(), [0.76**5, 0.24, 0.16], rtol=1e-5)
    np.testing.assert_allclose(crf_masks(masks, [1, 1], "1stage").ravel(), [0.216, 0.24, 0.16], rtol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_absent_classes_never_win_and_take_no_part_in_the_background(recipe):
    masks = one_pixel(0.1, 0.2, 0.7)
    assert label_map(masks, [1, 0], recipe) != 2
    assert crf_masks(masks, [1, 0], recipe)[2] == 0
    np.testing.assert_allclose(crf_masks(masks, [1, 0], "wsfcn")[0], 0.8**5, rtol=1e-5)
    assert (label_map(masks, [0, 0], recipe) == 0).all()


def test_input_stays_as_it_was_and_half_precision_works():
    masks = MASKS.copy()
    label_map(masks, TAGS), crf_masks(masks, TAGS)
    np.testing.assert_array_equal(masks, MASKS)
    half = crf_masks(masks.astype(np.float16), TAGS)
    np.testing.assert_allclose(half, crf_masks(masks, TAGS), atol=2e-3)


def test_present_classes():
    assert present_classes([0, 1, 0, 1]).tolist() == [0, 2, 4]
    assert present_classes(np.array([False, False])).tolist() == [0]


def test_config_and_recipes_name_the_same():
    assert get_args(Recipe) == RECIPES


@pytest.mark.parametrize(
    ("masks", "tags", "recipe", "message"),
    [
        (np.ones((3, 2, 2)), [1, 1], "wsfnc", "'wsfnc'.*'wsfcn', '1stage'"),
        (np.ones((3, 2, 2)), [1, 1, 1], "wsfcn", r"\(3, 2, 2\) and tags \(3,\).*leave the background out"),
        (np.ones((2, 2)), [1], "wsfcn", r"\(K, H, W\)"),
        (np.full((3, 2, 2), np.nan), [1, 1], "wsfcn", "no finite probabilities"),
        (np.ones((3, 2, 2), np.uint8), [1, 1], "wsfcn", "masks of uint8"),
        (np.ones((3, 2, 2)), [0.3, 1], "wsfcn", "tags hold 0.3.*threshold"),
    ],
)
def test_bad_input_is_named(masks, tags, recipe, message):
    for function in (label_map, crf_masks):
        with pytest.raises(ValueError, match=message):
            function(masks, tags, recipe)


def every_class(image, masks, tags, recipe):
    """The published formulation: every class enters the CRF, absent ones at probability 0."""
    return oracles.crf(crf_masks(masks, tags, recipe), image, {"wsfcn": 30, "1stage": 80}[recipe])


def scene(seed, classes=6, size=(40, 52)):
    """A two-colour picture and noisy masks of the class in its middle."""
    generator = np.random.default_rng(seed)
    inside = np.hypot(*np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]) < 0.6
    image = np.where(inside[..., None], (200, 60, 40), (40, 90, 180)) + generator.normal(0, 12, (*size, 3))
    masks = generator.dirichlet(np.ones(classes), size).transpose(2, 0, 1) * 0.4
    masks[3] += 0.6 * inside
    masks[0] += 0.6 * ~inside
    tags = np.zeros(classes - 1, bool)
    tags[[2, 4]] = True
    return image.clip(0, 255).astype(np.uint8), masks.astype(np.float32), tags, inside


@needs_crf
def test_published_label_map():
    labels = crf(IMAGE, MASKS, TAGS, "wsfcn")
    assert labels.dtype == np.uint8
    assert (labels == PUBLISHED["crf_label_map"]).mean() >= 0.999
    assert (crf(IMAGE, MASKS, TAGS, "1stage") != PUBLISHED["crf_label_map"]).any()
    assert (BILATERAL_SXY, ITERATIONS) == (
        {"wsfcn": 30, "1stage": 80},
        10,
    )  # neighbouring values hide in the 0.1 %


@needs_crf
@pytest.mark.parametrize("recipe", RECIPES)
def test_leaving_absent_classes_out_changes_nothing(recipe):
    assert (crf(IMAGE, MASKS, TAGS, recipe) == every_class(IMAGE, MASKS, TAGS, recipe)).mean() >= 0.999
    for seed in range(4):
        image, masks, tags, _ = scene(seed, size=(90, 120))
        assert (crf(image, masks, tags, recipe) == every_class(image, masks, tags, recipe)).mean() >= 0.999


@needs_crf
@pytest.mark.parametrize("recipe", RECIPES)
def test_result_follows_the_edges_of_the_picture(recipe):
    image, masks, tags, inside = scene(0)
    refined, raw = crf(image, masks, tags, recipe) == 3, label_map(masks, tags, recipe) == 3
    assert (refined == inside).mean() > max(0.97, (raw == inside).mean())


@needs_crf
def test_limits():
    image, masks, tags, _ = scene(0)
    assert (crf(image, masks, np.zeros(5, bool)) == 0).all()
    assert set(np.unique(crf(image, masks, tags))) <= {0, 3, 5}
    certain = np.zeros_like(masks)
    certain[3] = 1
    assert (crf(image, certain, tags) == 3).all()
    blank = np.full_like(image, 128)
    assert (dense_crf(blank, np.stack([np.full((40, 52), 0.4), np.full((40, 52), 0.6)]), 30) == 1).all()
    crf(image[::-1].transpose(1, 0, 2), masks[:, ::-1].transpose(0, 2, 1), tags)  # any memory layout


@needs_crf
@pytest.mark.parametrize("processes", [1, 2])
def test_many_keeps_order_and_streams(processes):
    drawn = []

    def jobs():
        for seed in range(9):
            drawn.append(seed)
            image, masks, tags, _ = scene(seed, size=(12 + seed, 15))
            yield f"image {seed}", image, masks, tags, RECIPES[seed % 2]

    results = crf_many(jobs(), processes)
    name, _ = next(results)
    assert name == "image 0" and len(drawn) <= 2 * processes
    for seed, (name, labels) in enumerate(results, start=1):
        image, masks, tags, _ = scene(seed, size=(12 + seed, 15))
        assert name == f"image {seed}"
        np.testing.assert_array_equal(labels, crf(image, masks, tags, RECIPES[seed % 2]))
    assert seed == 8


@needs_crf
@pytest.mark.parametrize("processes", [1, 2])
def test_many_names_the_image_that_fails(processes):
    image, masks, tags, _ = scene(0, size=(12, 15))
    jobs = [("good", image, masks, tags, "wsfcn"), ("2007_000033", image[:-1], masks, tags, "wsfcn")]
    results = crf_many(jobs, processes)
    assert next(results)[0] == "good"
    with pytest.raises(RuntimeError, match=r"'2007_000033'.*\(11, 15, 3\).*12×15"):
        next(results)
    with pytest.raises(RuntimeError, match="'no tags'.*leave the background out"):
        list(crf_many([("no tags", image, masks, tags[1:], "wsfcn")], processes))


@needs_crf
@pytest.mark.filterwarnings("always:the system ended a process of the dense CRF")
def test_a_killed_process_costs_no_image():
    """As the system does it for want of memory."""
    image, masks, tags, _ = scene(0, size=(90, 90))

    def helpers():
        return {
            child for child in psutil.Process().children(True) if "popen_loky" in " ".join(child.cmdline())
        }

    others = helpers()  # of joblib's own pool, which earlier tests began

    def jobs():
        for k in range(10):
            if k == 5:
                (helpers() - others).pop().kill()
            yield str(k), image, masks, tags, "wsfcn"

    with pytest.warns(RuntimeWarning, match="the remaining images are computed in this process"):
        results = list(crf_many(jobs(), 2))
    assert [name for name, _ in results] == [str(k) for k in range(10)]
    expected = crf(image, masks, tags)
    assert all(np.array_equal(labels, expected) for _, labels in results)


@needs_crf
@pytest.mark.parametrize("place", ["__init__", "submit"])
def test_a_pool_that_cannot_start_costs_no_image(monkeypatch, place):
    """As where /dev/shm is full or read-only, or no more files may be opened."""
    image, masks, tags, _ = scene(0, size=(30, 30))

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loky.ProcessPoolExecutor, place, refuse)
    with pytest.warns(RuntimeWarning, match="let none start.*/dev/shm.*computed in this process"):
        results = list(crf_many([(str(k), image, masks, tags, "wsfcn") for k in range(5)], 2))
    expected = crf(image, masks, tags)
    assert [name for name, labels in results if np.array_equal(labels, expected)] == [*"01234"]


@needs_crf
def test_its_processes_and_those_of_joblib_do_not_meet():
    """Before, between and after: COCO's and SBD's masks are painted through joblib, beside a CRF."""
    image, masks, tags, _ = scene(0, size=(12, 15))
    jobs = [(str(k), image, masks, tags, "wsfcn") for k in range(5)]
    work = [delayed(str)(k) for k in range(4)]
    for _ in range(2):
        results = crf_many(jobs, 2)
        first = next(results)
        assert list(Parallel(2, return_as="generator")(work)) == ["0", "1", "2", "3"]
        assert [name for name, _ in (first, *results)] == ["0", "1", "2", "3", "4"]
        assert Parallel(2)(work) == ["0", "1", "2", "3"]


@needs_crf
def test_bad_number_of_processes():
    with pytest.raises(ValueError, match="greater than 0"):
        next(crf_many([], 0))


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    image, masks, tags, _ = scene(0)
    for call in (lambda: crf(image, masks, tags), lambda: next(crf_many([]))):
        with pytest.raises(ImportError, match=r"pydensecrf2.*g\+\+ python3-dev"):
            call()
    assert not crf_available()


def test_an_unknown_engine_is_named_with_the_known_ones():
    image, masks, tags, _ = scene(0)
    with pytest.raises(ValueError, match="engine is 'gpu'; it must be one of 'pydensecrf'"):
        crf(image, masks, tags, engine="gpu")


@needs_crf
def test_processes_of_the_pool_start_without_torch():
    """Neither a process of the pool that has computed a CRF nor the one that started it has loaded torch."""
    code = """
import sys
import numpy as np
from joblib.externals.loky import ProcessPoolExecutor
from wsfcn_lib.postprocess import crf_many, dense_crf

image, masks = np.zeros((6, 8, 3), np.uint8), np.full((2, 6, 8), 0.5)
pool = ProcessPoolExecutor(1)
pool.submit(dense_crf, image, masks, 30).result()
worker = pool.submit(eval, "set(__import__('sys').modules)").result()
print(len([*crf_many([("a", image, masks, [1], "wsfcn")] * 3, 2)]), "wsfcn_lib.postprocess" in worker)
print({"torch", "matplotlib", "pydantic", "pandas"} & (worker | set(sys.modules)))
"""
    root = Path(postprocess.__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.split("\n")[:2] == ["3 True", "set()"]
