"""A finished run, a server and a browser, shared by the tests of this folder; screenshots are kept in tests/artefacts."""

import shutil
import subprocess
import sys

import pytest
import yaml
from book import browser
from lab import Lab

from wsfcn_lib.runs.paths import ROOT, RUNS

SMOKE = ROOT / "notebooks" / "params" / "smoke.yaml"
RUN, ARTEFACTS = RUNS / "browser", ROOT / "tests" / "artefacts"


@pytest.fixture(scope="session")
def settings():
    """The smallest settings, of a run that is finished; what is left of an earlier one is used again."""
    given = yaml.safe_load(SMOKE.read_text()) | {"run": "data/runs/browser"}
    command = [
        sys.executable,
        str(ROOT / "notebooks" / "run_all.py"),
        "--params",
        str(SMOKE),
        "--run-name",
        "browser",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:  # of older code
        shutil.rmtree(RUN, ignore_errors=True)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return given


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.wait()
        yield lab
    finally:
        lab.close()


@pytest.fixture(scope="session")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def lab(server):
    """The server without any kernel, before and after."""
    server.stop_kernels()
    yield server
    server.stop_kernels()


@pytest.fixture
def page(window, request):
    """The browser's page; what it shows when a test ends is kept."""
    yield window
    ARTEFACTS.mkdir(exist_ok=True)
    window.screenshot(path=ARTEFACTS / f"{request.node.name}.png")
    window.goto("about:blank")


@pytest.fixture
def keep(page):
    """Keep a screenshot with the explorer in sight."""

    def screenshot(book, name):
        book.image.scroll_into_view_if_needed()
        page.screenshot(path=ARTEFACTS / f"{name}.png")

    ARTEFACTS.mkdir(exist_ok=True)
    return screenshot
