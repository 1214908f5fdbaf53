"""Working copies of the notebooks: what a person changed is never replaced; and the page on which to try the kit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import open_lab
from wsfcn_lib.runs.paths import ROOT


def write(path, *cells, outputs=()):
    content = {"cells": [{"source": [cell], "outputs": list(outputs)} for cell in cells]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def cells(path):
    return [cell["source"][0] for cell in json.loads(path.read_text())["cells"]]


@pytest.fixture
def places(tmp_path):
    source, home = tmp_path / "notebooks", tmp_path / "data" / "lab"
    write(source / "01.ipynb", "a = 1")
    write(source / "02.ipynb", "b = 1")
    assert open_lab.copy_notebooks(source, home) == []
    return source, home


def test_copies_are_made_and_run_ones_are_replaced_when_the_notebook_changes(places):
    source, home = places
    assert cells(home / "01.ipynb") == ["a = 1"]
    write(home / "01.ipynb", "a = 1", outputs=["ran"])  # as JupyterLab saves it
    assert open_lab.copy_notebooks(source, home) == [] and "ran" in (home / "01.ipynb").read_text()
    write(source / "01.ipynb", "a = 2")
    assert open_lab.copy_notebooks(source, home) == []
    assert cells(home / "01.ipynb") == ["a = 2"] and cells(home / "02.ipynb") == ["b = 1"]


def test_news_are_not_asked_about_over_the_first_page(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/elsewhere")
    paths = open_lab.without_news(tmp_path / ".config").split(os.pathsep)
    assert paths == [str(tmp_path / ".config"), "/elsewhere"]
    code = "from jupyterlab_server.config import get_page_config; from jupyter_core.paths import jupyter_config_path;"
    code += "print(get_page_config([f'{p}/labconfig' for p in jupyter_config_path()])['disabledExtensions'])"
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", paths[0])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "apputils-extension:announcements" in done.stdout


def test_what_a_person_changed_stays_and_is_named_where_it_is_old(places):
    source, home = places
    write(home / "01.ipynb", "a = 'mine'")
    assert open_lab.copy_notebooks(source, home) == [], "the notebook itself is as it was"
    write(source / "01.ipynb", "a = 2")
    for _ in range(2):
        assert open_lab.copy_notebooks(source, home) == ["01.ipynb"]
        assert cells(home / "01.ipynb") == ["a = 'mine'"]
    (home / "01.ipynb").unlink()
    assert open_lab.copy_notebooks(source, home) == [] and cells(home / "01.ipynb") == ["a = 2"]


def test_copies_without_a_record_and_torn_ones_stay(places):
    source, home = places
    write(home / "01.ipynb", "a = 'mine'")
    (home / "02.ipynb").write_text("{torn")
    (home / open_lab.COPIED).unlink()
    assert open_lab.copy_notebooks(source, home) == ["01.ipynb", "02.ipynb"]
    assert (home / "02.ipynb").read_text() == "{torn"


@pytest.mark.parametrize("page, first", [([], "01_prepare_data"), (["try"], "try")])
def test_the_command_becomes_jupyterlab_at_the_page(page, first, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(open_lab, "HOME", ROOT / "data" / "lab")
    monkeypatch.setattr(open_lab, "copy_notebooks", lambda source, home: ["03_explore.ipynb"])
    monkeypatch.setattr(sys, "argv", ["open_lab.py", *page, "--no-browser"])
    monkeypatch.setattr(open_lab.os, "execv", lambda program, command: begun.append(command))
    open_lab.main()
    assert begun[0][1:4] == ["-m", "jupyter", "lab"] and begun[0][-1] == "--no-browser"
    assert f"--LabApp.default_url=/lab/tree/data/lab/{first}.ipynb" in begun[0]
    assert (ROOT / "notebooks" / f"{first}.ipynb").is_file()


def test_the_page_runs_and_shows_pictures(tmp_path):
    """From another folder, as the working copy lies in another."""
    notebook, copy = ROOT / "notebooks" / "try.ipynb", tmp_path / "try.ipynb"
    command = [sys.executable, "-m", "papermill", "--log-level", "ERROR", "--no-progress-bar", notebook, copy]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=300)
    shown = [cell.outputs for cell in nbformat.read(copy, 4).cells if cell.cell_type == "code"]
    kinds = [set().union(*(output.get("data", {}) for output in outputs)) for outputs in shown]
    assert "image/png" in kinds[1] and kinds[0] & {"image/png", "application/vnd.jupyter.widget-view+json"}
    text = json.dumps(shown)
    assert "dog" in text and "Traceback" not in text
    links = [
        line
        for cell in nbformat.read(notebook, 4).cells
        for line in cell.source.splitlines()
        if "ipynb)" in line
    ]
    assert len(links) == 5
    for line in links:
        assert (ROOT / "notebooks" / Path(line.partition("](")[2].partition(")")[0])).is_file()
