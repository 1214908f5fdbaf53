import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed

from wsfcn_lib import postprocess as module
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
)

PUBLISHED = np.load(Path(__file__).parents[1] / "fixtures" / "inference.npz")
IMAGE, MASKS, TAGS = PUBLISHED["image"], PUBLISHED["merged"], PUBLISHED["tags"]
needs_crf = pytest.mark.skipif(
    not crf_available(), reason="pydensecrf2 is not installed (needs g++ and python3-dev)"
)


def all_classes(image, masks, tags, recipe):
    """The published formulation, step by step: every class enters the CRF, absent ones at probability 0."""
    import pydensecrf.densecrf
    import pydensecrf.utils

    probabilities = crf_masks(masks, tags, recipe)
    field = pydensecrf.densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(masks))
    field.setUnaryEnergy(np.ascontiguousarray(pydensecrf.utils.unary_from_softmax(probabilities)))
    field.addPairwiseGaussian(sxy=3, compat=3)
    field.addPairwiseBilateral(
        sxy={"wsfcn": 30, "1stage": 80}[recipe], srgb=13, rgbim=np.copy(image), compat=10
    )
    return np.argmax(field.inference(10), axis=0).reshape(image.shape[:2])


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
    assert (crf(IMAGE, MASKS, TAGS, recipe) == all_classes(IMAGE, MASKS, TAGS, recipe)).mean() >= 0.999
    for seed in range(4):
        image, masks, tags, _ = scene(seed, size=(90, 120))
        assert (crf(image, masks, tags, recipe) == all_classes(image, masks, tags, recipe)).mean() >= 0.999


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


def boxed(path, text):
    """Work for joblib's processes."""
    path.write_text(text)
    return text


@needs_crf
def test_its_processes_and_those_of_joblib_do_not_meet(tmp_path):
    """Before, between and after: what paints COCO's and SBD's masks goes through joblib, in the same process as a CRF."""
    image, masks, tags, _ = scene(0, size=(12, 15))
    jobs = [(str(k), image, masks, tags, "wsfcn") for k in range(5)]
    work = [delayed(boxed)(tmp_path / f"{k}.txt", str(k)) for k in range(4)]
    for _ in range(2):
        results = crf_many(jobs, 2)
        first = next(results)
        assert list(Parallel(2, return_as="generator")(work)) == ["0", "1", "2", "3"]
        assert [name for name, _ in (first, *results)] == ["0", "1", "2", "3", "4"]
        assert Parallel(2)(work) == ["0", "1", "2", "3"]


@needs_crf
def test_bad_number_of_processes():
    with pytest.raises(ValueError, match="processes is 0"):
        next(crf_many([], 0))


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    image, masks, tags, _ = scene(0)
    for call in (lambda: crf(image, masks, tags), lambda: next(crf_many([]))):
        with pytest.raises(ImportError, match=r"pydensecrf2.*g\+\+ python3-dev"):
            call()
    assert not crf_available()


def test_workers_need_no_torch():
    code = "import sys, wsfcn_lib.crf; print(sorted({'torch', 'pydensecrf', 'joblib', 'pydantic'} & set(sys.modules)))"
    root = Path(module.__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
