"""Text is UTF-8 whatever the locale says, and what is printed fits every console."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wsfcn_lib.runs.paths import ROOT

SOURCES = [
    *(ROOT / "wsfcn_lib").rglob("*.py"),
    *(ROOT / "notebooks").glob("*.*y*b*"),
    *(ROOT / ".ci").glob("*.py"),
]
SOURCES += [*(ROOT / "notebooks").glob("*.py")]


def code_of(path):
    if path.suffix != ".ipynb":
        return path.read_text("utf-8")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def without_encoding(source):
    """The lines of calls that read or write text in whatever coding the locale has."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        words = {word.arg: word.value for word in node.keywords}
        places = {"read_text": 1, "write_text": 2}.get(name.rpartition(".")[2])
        if isinstance(node.func, ast.Attribute) and places:
            missing = len(node.args) < places
        elif name in ("open", "io.open"):
            mode = node.args[1].value if len(node.args) > 1 else getattr(words.get("mode"), "value", "r")
            missing = "b" not in mode
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "open" and (words or not node.args):
            missing = "newline" in words
        else:
            missing = "text" in words or "universal_newlines" in words
        if missing and "encoding" not in words:
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_text_names_its_coding(path):
    assert without_encoding(code_of(path)) == []


@pytest.mark.parametrize(
    "source, wrong",
    [
        ("open(a)", True),
        ("open(a, 'w', newline='')", True),
        ("open(a, 'rb')", False),
        ("open(a, mode='ab')", False),
        ("open(a, encoding='utf-8')", False),
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(x)", True),
        ("path.write_text(x, 'utf-8')", False),
        ("path.open(newline='')", True),
        ("subprocess.run(a, text=True)", True),
        ("subprocess.run(a, text=True, encoding='utf-8')", False),
        ("read_text(path)", False),
    ],
)
def test_the_search_sees_every_form(source, wrong):
    assert bool(without_encoding(source)) is wrong


WORK = """
import json, sys
from pathlib import Path
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.evaluation.inputs import load_trained
from wsfcn_lib.evaluation.report import write_report
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.plots.saving import save_figure
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.log import read_rows, show_progress
from wsfcn_lib.train import train

home = Path(sys.argv[1])
report = prepare(SourceSettings(dataset="folder", root=str(home / "own"), val_fraction=0.25), home / "prepared")
run = home / "Läufe" / "größe"
for turn in range(2):
    RunFolder.open(run, {"classes": ["Hündin", "犬"]}, "01_prepare_data").close()
config = TrainConfig(data=str(home / "prepared"), backbone="tiny", width=16, dilations=(1, 2, 3, 4), epochs=1,
    warmup_epochs=0, batch_size=4, crop=48, device="cpu", workers=0, log_every=1)
rows = [*show_progress(train(config, run), 1)]
assert [float(row["step"]) for row in read_rows(run / "log.csv")] == [row["step"] for row in rows]
trained = load_trained(run)
evaluate(trained.net, trained.manifest, EvalSettings(use_crf=False, scales=(1.0,)), run)
save_figure(run, "eins", next((run / "masks" / "val").glob("*.png")).read_bytes(), "Hündin ± 犬", "Größe", 1)
write_report(run)
print(ascii([*trained.manifest.names, run.name, read_run(run)["stages"]["01_prepare_data"]["settings"]]))
"""


def environments(tmp_path):
    """(name, variables) of locales that are not UTF-8; the first needs localedef."""
    latin = {"LOCPATH": str(tmp_path / "locales"), "LC_ALL": "en_US", "LANG": "en_US", "PYTHONUTF8": "0"}
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    return {"latin-1": latin, "C": {"LC_ALL": "C"}, "ascii": plain}


@pytest.fixture(params=["latin-1", "C", "ascii"])
def environment(request, tmp_path):
    if request.param == "latin-1":
        if not shutil.which("localedef"):
            pytest.skip("localedef is not installed")
        (tmp_path / "locales").mkdir()
        command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / "locales" / "en_US")]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        if not (tmp_path / "locales" / "en_US").exists():
            pytest.skip(f"localedef makes no ISO-8859-1 locale here: {done.stderr[-200:]}")
    base = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    return base | environments(tmp_path)[request.param] | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def own_pictures(folder):
    """Twelve pictures of two classes whose names no Latin-1 has, listed in tags.csv."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    lines = ["image,tags"]
    for kind, tag in (("a", "Hündin"), ("b", "犬")):
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 256, (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{kind}{number}.png")
            lines.append(f"{kind}{number}.png,{tag}")
    (folder / "tags.csv").write_text("\n".join(lines), "utf-8")


def test_data_and_runs_are_the_same_in_every_locale(environment, tmp_path):
    own_pictures(tmp_path / "own")
    work = WORK if "PYTHONUTF8" not in environment else WORK.replace("größe", "size").replace("Läufe", "runs")
    (tmp_path / "work.py").write_text(work, "utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / "work.py", tmp_path], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    for name in (
        "run.json",
        "log.csv",
        "metrics.json",
        "per_image.csv",
        "report.html",
        "figures/captions.json",
    ):
        (path,) = [
            path
            for path in tmp_path.rglob(name)
            if "figures" in name or path.parent.parent.parent == tmp_path
        ]
        text = path.read_bytes().decode("utf-8")
        if name in ("run.json", "report.html"):
            assert "Hündin" in text and "犬" in text, name
    assert "犬" in (tmp_path / "prepared" / "train.csv").read_text("utf-8")


def test_a_command_in_another_locale_speaks_utf_8(environment, tmp_path):
    """A run, its class and its folder have names that the locale lacks; nothing breaks, and the names are right."""
    folder = tmp_path / "größe 犬"
    for name, value in (("a", "Hündin"), ("b", "犬")):
        code = "import sys, json; from wsfcn_lib.runs import RunFolder; RunFolder.open(sys.argv[1], {'x': sys.argv[2]}, 's').close()"
        subprocess.run(
            [sys.executable, "-X", "utf8", "-c", code, str(folder / name), value], env=environment, check=True
        )
    command = [sys.executable, "-m", "wsfcn_lib.runs", f"{folder}/a", f"{folder}/b"]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert "settings  s x   Hündin  犬" in done.stdout.decode("utf-8"), done.stderr
    (tmp_path / "größe.yaml").write_text("run: " + str(folder / "c") + "\nroot: Hündin\nepochs: 0\n", "utf-8")
    command = [sys.executable, "notebooks/run_all.py", "--params", str(tmp_path / "größe.yaml")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True)
    told = done.stderr.decode("utf-8")
    assert (
        done.returncode == 2
        and "größe.yaml: 02_train: epochs=0: should be greater than or equal to 1" in told
    )


def test_a_name_that_the_locale_lacks_is_refused_in_a_library_call(tmp_path):
    """In Jupyter no command can begin anew: the way out is said."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C"}
    environment |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "from wsfcn_lib.runs import RunFolder; RunFolder.open('/tmp/\\u72ac', {}, 's')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8"
    )
    assert "the locale's coding ascii would change them: set PYTHONUTF8=1" in done.stderr
    assert not Path("/tmp/\u72ac").exists()
