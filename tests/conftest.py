"""Fixtures of all rooms: the built-in scenes made small, one training on them, and one pass over the notebooks."""

import subprocess

import pytest
import yaml

from factories import RUN_ALL, SMOKE, settings
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


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """(run folder, params file, finished process) of a pass over all notebooks, started from another directory."""
    home = tmp_path_factory.mktemp("smoke")
    places = {"run": str(home / "run"), "raw": str(home / "raw"), "data": str(home / "prepared")}
    (home / "smoke.yaml").write_text(yaml.safe_dump(yaml.safe_load(SMOKE.read_text()) | places))
    command = [*RUN_ALL, "--params", str(home / "smoke.yaml")]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    return home / "run", home / "smoke.yaml", done
