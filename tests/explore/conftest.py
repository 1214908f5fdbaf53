"""One small evaluated run for all explorers, and variants of it that lack something."""

import shutil

import pytest

from explored import make_better, make_run


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory):
    """A run and its manifest."""
    return make_run(tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="session")
def better(evaluated):
    """A run beside it that paints the truth, but misses a class in d."""
    return make_better(*evaluated)


@pytest.fixture(scope="session")
def without_masks(tmp_path_factory):
    """A run whose images have no ground truth, and its manifest."""
    return make_run(tmp_path_factory.mktemp("unmasked"), masked=False)


@pytest.fixture
def unevaluated(evaluated, tmp_path):
    """A copy of the run without what the evaluation wrote, which a test may change."""
    run = tmp_path / "unevaluated"
    shutil.copytree(evaluated[0], run, ignore=shutil.ignore_patterns("masks", "metrics*", "per_image*"))
    return run
