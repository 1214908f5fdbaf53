"""Fixtures of all rooms: the built-in scenes made small, and one training on them."""

import pytest

from factories import settings
from wsfcn_lib.data.glyphs import GlyphSettings
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.plots.training_panels import panel_writer
from wsfcn_lib.train import train


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("glyphs")
    prepare(
        SourceSettings(raw=str(root / "raw"), glyphs=GlyphSettings(size=48, train=32, val=8, test=8)),
        root / "prepared",
    )
    return root / "prepared"


@pytest.fixture(scope="session")
def finished(data, tmp_path_factory):
    """A run folder and the rows of its training, which nobody may change."""
    run, config = tmp_path_factory.mktemp("runs") / "whole", settings(data)
    return run, list(train(config, run, panel_writer(config, run)))
