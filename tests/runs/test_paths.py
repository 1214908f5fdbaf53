"""One meaning for a path that a user names, wherever it is named and wherever the program is started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import picture, settings
from wsfcn_lib.checkpoints import find_snapshot
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import to_array
from wsfcn_lib.data.manifest import Manifest, validate
from wsfcn_lib.data.model_zoo import initial_weights
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.evaluation.inputs import images_path, load_trained
from wsfcn_lib.evaluation.mask_archives import score_archive
from wsfcn_lib.infer import segment
from wsfcn_lib.runs import paths
from wsfcn_lib.runs.folder import RunFolder, list_runs, read_run
from wsfcn_lib.runs.paths import ROOT, RUNS, resolve_path, shell_path, shell_run
from wsfcn_lib.train import train


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A repository, a home and a working folder of our own; returns the three."""
    folders = [tmp_path / name for name in ("repository", "home", "here")]
    for folder in folders:
        (folder / "only" / folder.name).mkdir(parents=True)
        (folder / "all").mkdir()
    monkeypatch.setattr(paths, "ROOT", folders[0])
    monkeypatch.setattr(paths, "RUNS", folders[0] / "data" / "runs")
    monkeypatch.setenv("HOME", str(folders[1]))
    monkeypatch.chdir(folders[2])
    return folders


def test_a_path_is_looked_for_in_the_repository_and_then_in_the_working_folder(places):
    repository, home, here = places
    assert resolve_path("all") == repository / "all"
    assert resolve_path("only/here") == here / "only/here"
    assert resolve_path("new/run") == repository / "new/run", "what is to be made goes into the repository"
    assert resolve_path("~/new") == home / "new" and resolve_path("~") == home
    assert resolve_path(Path("~/all")) == home / "all"
    assert resolve_path(str(here / "new")) == here / "new"
    assert resolve_path("") == repository


def test_on_a_command_line_the_working_folder_comes_first(places):
    repository, home, here = places
    assert shell_path("all") == here / "all"
    assert shell_path("only/repository") == repository / "only/repository"
    assert shell_path("new/run") == repository / "new/run"
    assert shell_path("./new") == here / "new" and shell_path("~/new") == home / "new"
    assert shell_run("mine") == repository / "data/runs/mine"
    assert shell_run("all/mine") == repository / "all/mine"
    assert shell_run("only/here") == here / "only/here"
    assert shell_run("../new") == here.parent / "new" and shell_run("~/x") == home / "x"


@pytest.mark.parametrize("resolve", [resolve_path, shell_path, shell_run])
def test_what_no_path_can_be_is_refused(resolve, monkeypatch):
    with pytest.raises(ValueError, match="~nobody-here/x: no user of this machine has that name"):
        resolve("~nobody-here/x")
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    with pytest.raises(ValueError, match="the locale's coding iso8859-1 would change them: set PYTHONUTF8=1"):
        resolve("größe")


def test_no_folder_is_called_like_the_home(tmp_path, monkeypatch, data):
    monkeypatch.setenv("HOME", str(tmp_path))
    RunFolder.open("~/runs/x", {}, "02_train").close()
    assert read_run("~/runs/x")["stages"].keys() == {"02_train"}
    assert [row["name"] for row in list_runs("~/runs")] == ["x"]
    (tmp_path / "prepared").symlink_to(data)
    assert Manifest.load("~/prepared").folder == tmp_path / "prepared"
    config = settings(data).model_copy(update={"data": "~/prepared", "epochs": 1, "warmup_epochs": 0})
    assert [*train(config, "~/runs/t")][-1]["val_loss"] > 0
    assert find_snapshot("~/runs/t").parent == tmp_path / "runs/t/checkpoints"
    assert load_trained("~/runs/t").manifest.num_classes > 2
    assert initial_weights("~/runs/t/log.csv") == tmp_path / "runs/t/log.csv"
    assert images_path("~/own") == tmp_path / "own"
    with pytest.raises(DataError, match=f"{tmp_path}/absent: there is no such folder or archive"):
        score_archive("~/absent", Manifest.load(data), [])
    assert not (ROOT / "~").exists() and not Path("~").exists()


def test_a_run_is_found_from_the_notebooks_folder(finished, tmp_path, monkeypatch):
    """README's segment(picture, 'data/runs/<name>') in JupyterLab, whose working folder is notebooks/."""
    link = RUNS / f"test-paths-{os.getpid()}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(finished[0])
    picture = np.zeros((40, 40, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "dog.png")
    try:
        monkeypatch.chdir(ROOT / "notebooks")
        answer = segment(picture, f"data/runs/{link.name}")
        monkeypatch.setenv("HOME", str(tmp_path))
        again = segment("~/dog.png", find_snapshot(f"data/runs/{link.name}"))
    finally:
        link.unlink()
    assert answer.labels.shape == (40, 40)
    np.testing.assert_array_equal(answer.labels, again.labels)
    monkeypatch.chdir(tmp_path)
    assert to_array("dog.png").shape == (40, 40, 3), "from the working folder"


def test_commands_take_paths_of_the_shell(tmp_path):
    for name, epochs in (("a", 3), ("b", 4)):
        RunFolder.open(tmp_path / "mine" / name, {"epochs": epochs}, "02_train").close()
    command = [sys.executable, "-m", "wsfcn_lib.runs", "mine/a", "./mine/b"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert "02_train epochs" in done.stdout, done.stderr
    command = [sys.executable, "-m", "wsfcn_lib.train", "run", "--settings", "own.json"]
    for text, message in (("[]", "own.json holds a list"), ('{"epochs": 0}', "epochs=0: should be greater")):
        (tmp_path / "own.json").write_text(text, "utf-8-sig")
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
        assert done.returncode == 1 and message in done.stderr
    assert json.loads((tmp_path / "mine/a/run.json").read_text("utf-8"))["stages"]


@pytest.mark.parametrize("table", [True, False])
def test_names_within_a_folder_are_told_of_the_locale_too(tmp_path, monkeypatch, table):
    """Not that pictures are missing, nor with classes of letters that nobody wrote."""
    for k in range(4):
        picture(tmp_path / "own" / ("Katze" if k % 2 else "Hündin") / f"{k}.png")
    if table:
        (tmp_path / "own" / "tags.csv").write_text("image,tags\nHündin/0.png,a\nKatze/1.png,b\n", "utf-8")
    prepare(SourceSettings(dataset="folder", root=str(tmp_path / "own")), tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
        with pytest.raises(
            ValueError, match="beyond ASCII, and the locale's coding iso8859-1 .*PYTHONUTF8=1"
        ):
            prepare(SourceSettings(dataset="folder", root=str(tmp_path / "own")), tmp_path / "other")
        with pytest.raises(
            ValueError, match="beyond ASCII, and the locale's coding iso8859-1 .*PYTHONUTF8=1"
        ):
            validate(Manifest.load(tmp_path / "data"))
