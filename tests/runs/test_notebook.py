"""What every notebook does at its edges."""

import base64
import io
import json
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from wsfcn_lib.losses import classification_loss
from wsfcn_lib.modules import SF2
from wsfcn_lib.plots.saving import save_figure
from wsfcn_lib.runs import notebook
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.notebook import (
    ParameterError,
    check_parameters,
    code_of,
    declared,
    finish,
    header,
    parameters_of,
)

OWN = 'run: str = "data/runs/demo"  # where\nepochs: int = 15\nlr: float = 0.002\nscales: list[float] = [1.0]\nflip: bool = True\nmore: dict = {}'
BEFORE = ["", "import this", OWN]


@pytest.fixture
def one_other_notebook(tmp_path, monkeypatch):
    cell = {
        "cell_type": "code",
        "metadata": {"tags": ["parameters"]},
        "source": ["width: int = 32\n", "recipe: str = 'wsfcn'"],
    }
    plain = {"cell_type": "code", "metadata": {}, "source": ["hidden: int = 1"]}
    (tmp_path / "02_train.ipynb").write_text(json.dumps({"cells": [plain, cell]}))
    monkeypatch.setattr(notebook, "NOTEBOOKS", {"02_train": tmp_path / "02_train.ipynb"})
    return tmp_path / "02_train.ipynb"


def test_parameters_are_read_with_type_and_value():
    assert parameters_of(OWN)["scales"] == (list[float], [1.0])
    bare = parameters_of("# Parameters\nlr = -1e-3\nnames = ['a']")
    assert bare == {"lr": (object, -1e-3), "names": (object, ["a"])}


def test_declared_reads_the_tagged_cell_only(one_other_notebook):
    assert declared(one_other_notebook) == {"width": (int, 32), "recipe": (str, "wsfcn")}


@pytest.mark.parametrize(
    "given",
    [
        "epochs = 3\nlr = 1",
        "more = {'lr_multipliers': [1, 1, 10, 10], 'size_power': None, 'floor': 1}",
        "scales = [1, 0.5]",
        "width = 16",
        "width = 'of another notebook'",
        "",
    ],
)
def test_good_parameters_pass(one_other_notebook, given):
    assert check_parameters([*BEFORE, "# Parameters\n" + given, "more()"]) is None, "nothing is refused"


@pytest.mark.parametrize(
    "given, message",
    [
        ("epohcs = 3", "no notebook has a parameter 'epohcs': did you mean 'epochs'?"),
        ("recip = 'x'", "did you mean 'recipe'?"),
        ("zzz = 3", "choose from run, epochs, lr, scales, flip"),
        ("hidden = 3", "no notebook has a parameter 'hidden'"),
        ("epochs = 3.5", "epochs=3.5 must be of type int, such as 15"),
        ("epochs = True", "epochs=True must be of type int"),
        ("lr = '1e-3'", "lr='1e-3' must be of type float, such as 0.002"),
        ("scales = 1.0", "scales=1.0 must be of type list[float], such as [1.0]"),
        ("flip = 1", "flip=1 must be of type bool"),
        ("flip = 'on'", "flip='on' must be of type bool, such as True; write true or false"),
        (
            "lr = '1e-3'",
            "lr='1e-3' must be of type float, such as 0.002; write 0.001, as YAML may read 1e-3 as text",
        ),
        ("epochs = '1e2'", "such as 15; write 100, as YAML may read 1e2 as text"),
        (
            "run = None",
            "run=None must be of type str, such as 'data/runs/demo'; nothing stands after its colon",
        ),
        ("run = False", "run=False must be of type str, such as 'data/runs/demo'; YAML reads more than text"),
        ("foreground_cut = 0.5", "it belongs in `more`, as in more: {foreground_cut: 0.5}"),
        ("size = 3", "the side of the built-in scenes is image_size"),
        ("training = {'width': 3}", "write the lines in it without it"),
        ("more = {'epochs': 3}", "'epochs' is a parameter of its own: write it beside `more`, not in it"),
        ("more = {'width': 3}", "'width' is a parameter of its own"),
        ("more = {'floor': True}", "floor=True must be of type float, such as 0.2; write a finite number"),
        ("more = {'align': 'no'}", "align='no' must be of type bool, such as True; write true or false"),
    ],
)
def test_bad_parameters_stop_the_run(one_other_notebook, given, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        check_parameters([*BEFORE, "# Parameters\n" + given])


def test_without_papermill_there_is_nothing_to_check(one_other_notebook):
    assert check_parameters([*BEFORE, "epohcs = 3", "# Parametersish"]) is None


def test_only_the_last_injection_counts(one_other_notebook):
    assert check_parameters([*BEFORE, "# Parameters\nepohcs = 3", OWN, "# Parameters\nepochs = 3"]) is None


def test_the_header_is_one_line():
    line = header(7, "cuda:0")
    assert re.search(
        r"^Python 3\.\d+\.\d+ · torch .* · commit (\w{10}(, changed)?|unknown) · device cuda:0 · seed 7$",
        line,
    )
    assert "seed" not in header() and "device" not in header()


def test_figures_are_kept_with_their_captions(tmp_path):
    figure = Figure((2, 1))
    figure.subplots().plot([1, 2])
    shown = save_figure(tmp_path, "one", figure, "One", "A line.", 1)
    stream = io.BytesIO()
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(stream, "PNG")
    save_figure(tmp_path, "two", stream.getvalue(), "Zwei", "Größe ± 1.", 2)
    save_figure(tmp_path, "one", figure, "One", "Still a line.", 3)
    captions = json.loads((tmp_path / "figures" / "captions.json").read_text("utf-8"))
    assert captions == {
        "one.png": {"title": "One", "caption": "Still a line.", "order": 3},
        "two.png": {"title": "Zwei", "caption": "Größe ± 1.", "order": 2},
    }
    assert (tmp_path / "figures" / "one.png").read_bytes() == shown.png
    assert Image.open(tmp_path / "figures" / "two.png").size == (4, 3)
    data, about = shown._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == shown.png
    assert data["text/plain"] == about["image/png"]["alt"] == "One. A line."


def test_finish_records_and_closes(tmp_path):
    folder = RunFolder.open(tmp_path / "run", {"a": 1}, "03_explore")
    line = finish(folder, "03_explore", 0.0, "cuda", images=3)
    stage = read_run(tmp_path / "run")["stages"]["03_explore"]
    assert (
        stage["finished"]
        and stage["images"] == 3
        and stage["device"] == "cuda"
        and stage["settings"] == {"a": 1}
    )
    assert stage["seconds"] > 0 and stage["peak_memory_mb"] > 0 and line.startswith("03_explore took ")
    with pytest.raises(RuntimeError, match="closed"):
        folder.record("03_explore", finished=False)


def test_the_code_of_functions_is_shown_without_docstrings():
    shown = code_of(classification_loss, SF2.fuse)
    assert shown.startswith(
        "def classification_loss(scores: Tensor, tags: Tensor) -> Tensor:\n    return multilabel"
    )
    assert '"""' not in shown and "\n\ndef fuse(self, low: Tensor, deep: Tensor)" in shown
    assert shown._repr_markdown_() == f"```python\n{shown}\n```" and repr(shown) == shown
