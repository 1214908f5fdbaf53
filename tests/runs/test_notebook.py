"""What every notebook does at its edges."""

import base64
import io
import json
import re
from html import unescape

import mistune
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.losses import classification_loss
from wsfcn_lib.modules import SF2
from wsfcn_lib.plots.saving import save_figure
from wsfcn_lib.runs import notebook
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.more import KINDS, settings_of_more
from wsfcn_lib.runs.notebook import (
    ParameterError,
    answer,
    code_of,
    declared,
    finish,
    header,
    known_settings,
    parameters_of,
    settings_of,
)

OWN = 'run: str = "data/runs/demo"  # where\nepochs: int = 15\nlr: float = 0.002\nscales: list[float] = [1.0]\nflip: bool = True\nmore: dict = {}'
OTHER = "width: int = 32\nrecipe: str = 'wsfcn'"
BEFORE = ["", "import this", OWN]


@pytest.fixture(autouse=True)
def two_notebooks(tmp_path, monkeypatch):
    """02_train with OWN, and another notebook that has no `more`."""
    books = {"02_train": OWN, "03_explore": OTHER}
    plain = {"cell_type": "code", "metadata": {}, "source": ["hidden: int = 1"]}
    for name, source in books.items():
        cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source.splitlines(True)}
        (tmp_path / f"{name}.ipynb").write_text(json.dumps({"cells": [plain, cell]}))
    monkeypatch.setattr(notebook, "NOTEBOOKS", {name: tmp_path / f"{name}.ipynb" for name in books})
    return tmp_path


def settings(*cells, stage="02_train"):
    """What a notebook makes of the cells that were executed before its set-up, in a space that they filled."""
    space = {}
    for cell in cells:
        exec(cell, space)
    return settings_of(stage, space | {"In": [*cells, "settings_of()"]})


def given(text):
    return settings(*BEFORE[:1], OWN, "# Parameters\n" + text)


def test_parameters_are_read_with_type_and_value():
    assert parameters_of(OWN)["scales"] == (list[float], [1.0])
    bare = parameters_of("# Parameters\nlr = -1e-3\nnames = ['a']")
    assert bare == {"lr": (object, -1e-3), "names": (object, ["a"])}


def test_declared_reads_the_tagged_cell_only(two_notebooks):
    assert declared(two_notebooks / "03_explore.ipynb") == {"width": (int, 32), "recipe": (str, "wsfcn")}


def test_a_notebook_knows_its_parameters_and_what_more_may_hold(two_notebooks):
    assert [*known_settings(two_notebooks / "03_explore.ipynb")] == ["width", "recipe"], "it has no `more`"
    known = known_settings(two_notebooks / "02_train.ipynb")
    assert known["epochs"] == (int, 15), "a parameter keeps the notebook's default"
    assert known["weight_decay"][1] == 0.01 and known["floor"][1] == 0.2, "the notebook's, and TrainConfig's"
    assert "more" not in known and TrainConfig.model_fields.keys() < known.keys()


def test_more_names_no_setting_that_its_classes_do_not_take():
    for stage, kind in KINDS.items():
        own = settings_of_more(stage)
        assert own and kind.__annotations__.keys() <= own.keys()
    assert KINDS["02_train"].__annotations__.keys() <= TrainConfig.model_fields.keys()
    assert settings_of_more("03_explore") == {}


def test_without_papermill_the_parameters_are_as_they_stand():
    found = settings(OWN)
    assert found["epochs"] == 15 and found["seed"] == 0 and found["dilations"] == [1, 2, 4, 6]
    assert settings(OWN.replace("15", "16"))["epochs"] == 16
    assert settings(OWN.replace("more: dict = {}", "more: dict = {'seed': 3}"))["seed"] == 3
    assert settings(OWN + "\nseed: int = 4")["seed"] == 4, "a line of one's own counts too"
    assert settings(OWN, "epochs = 2")["epochs"] == 2, "set in a later cell"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("epochs = 3\nlr = 1", {"epochs": 3, "lr": 1}),
        (
            "more = {'lr_multipliers': [1, 1, 10, 10], 'floor': 1}",
            {"floor": 1, "lr_multipliers": [1, 1, 10, 10]},
        ),
        ("seed = 3\nmore = {'floor': 0.1}", {"seed": 3, "floor": 0.1}),
        ("seed = 3\nmore = {'seed': 3}", {"seed": 3}),
        ("more = {'size_power': None}", {"size_power": None}),
        ("scales = [1, 0.5]", {"scales": [1, 0.5]}),
        ("width = 16\nrecipe = '1stage'", {"width": 16}),
        ("", {"lr": 0.002}),
    ],
)
def test_settings_reach_their_place(text, expected):
    found = given(text)
    assert {name: found[name] for name in expected} == expected and "recipe" not in found


@pytest.mark.parametrize(
    "text, message",
    [
        ("epohcs = 3", "no notebook has a parameter 'epohcs': did you mean 'epochs'?"),
        ("recip = 'x'", "did you mean 'recipe'?"),
        ("zzz = 3", "choose from run, epochs, lr, scales, flip"),
        ("hidden = 3", "no notebook has a parameter 'hidden'"),
        ("epochs = 3.5", "epochs=3.5 must be of type int, such as 15"),
        ("epochs = True", "epochs=True must be of type int"),
        ("lr = '1e-3'", "lr='1e-3' must be of type float, such as 0.002; write 0.001, as YAML may read 1e-3"),
        ("scales = 1.0", "scales=1.0 must be of type list[float], such as [1.0]"),
        ("flip = 1", "flip=1 must be of type bool"),
        ("flip = 'on'", "flip='on' must be of type bool, such as True; write true or false"),
        ("epochs = '1e2'", "such as 15; write 100, as YAML may read 1e2 as text"),
        (
            "run = None",
            "run=None must be of type str, such as 'data/runs/demo'; nothing stands after its colon",
        ),
        ("run = False", "run=False must be of type str, such as 'data/runs/demo'; YAML reads more than text"),
        ("size = 3", "the side of the built-in scenes is image_size"),
        ("training = {'width': 3}", "write the lines in it without it"),
        ("more = {'epochs': 3}", "'epochs' is a parameter of its own: write it beside `more`, not in it"),
        ("more = {'recipe': 'wsfcn'}", "'recipe' is a parameter of its own"),
        ("more = {'floor': True}", "floor=True must be of type float, such as 0.2; write a finite number"),
        ("more = {'align': 'no'}", "align='no' must be of type bool, such as True; write true or false"),
        ("more = {'flor': 0.1}", "no notebook has a parameter 'flor': did you mean 'floor'?"),
        ("more = 3", "more=3 must be of type dict"),
        ("seed = 3.5", "seed=3.5 must be of type int, such as 0; write a whole number"),
        ("seed = 3\nmore = {'seed': 4}", "seed is given twice, as 3 and in `more` as 4; keep one of them"),
    ],
)
def test_bad_parameters_stop_the_run(text, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        given(text)


def test_only_the_last_injection_counts():
    assert settings(OWN, "# Parameters\nseed = 3", OWN, "# Parameters\nepochs = 3")["epochs"] == 3
    assert settings(OWN, "# Parameters\nseed = 3", OWN, "# Parametersish")["seed"] == 0
    assert settings(OWN, "# Parameters\nseed = 3", "seed = 9")["seed"] == 3, "a name of other cells is none"


def test_an_answer_is_shown_as_plain_text_a_sentence_a_line():
    shown = answer("It knows my_cat and a*b.", "", "It costs $3.")
    assert repr(shown) == "It knows my_cat and a*b.\nIt costs $3."
    assert answer("", "") is None, "a notebook shows nothing"
    assert shown._repr_markdown_() == "It knows my\\_cat and a\\*b.  \nIt costs \\$3."


@pytest.mark.parametrize(
    "name", ["1. dog", "2) cat", "- cow", "+ cow", "= cow", "dog &amp; cat", "# dog", "> dog"]
)
def test_a_class_of_any_name_is_shown_as_it_is_spelt(name):
    html = mistune.html(answer(f"{name}: 5 %", f"{name}: 7 %")._repr_markdown_())
    shown = re.sub("<[^>]*>", "", html)
    assert unescape(shown).split() == f"{name}: 5 % {name}: 7 %".split()
    assert html.count("<p>") == 1 and not re.search("<(ol|ul|li|h1|blockquote)", html)


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
    assert answer("", "") is None, "a notebook shows nothing"
    assert shown._repr_markdown_() == f"```python\n{shown}\n```" and repr(shown) == shown
