"""The command line around the notebooks: usage, what is skipped, how a failure is told. Most tests run no notebook."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import run_all
from wsfcn_lib.runs import folder, provenance
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.notebook import NOTEBOOKS
from wsfcn_lib.runs.paths import ROOT, RUNS

NAMES = [*NOTEBOOKS]


def usage_error(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        run_all.main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def params(tmp_path):
    def write(text, name="mine"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    "text, message",
    [
        ("epohcs: 3", "no notebook has a parameter 'epohcs': did you mean 'epochs'?"),
        ("epochs: many", "epochs='many' must be of type int, such as"),
        ("[1, 2]", "it holds a list; write lines such as `epochs: 20`"),
        ("epochs: [", "mine.yaml: "),
        (
            "01_prepare_data: {image_size: 64}",
            "no notebook has a parameter '01_prepare_data': write the lines in it without it",
        ),
        ("epochs: 3\nlr: 0.1\nepochs: 4", "line 3: 'epochs' stands here and in line 1; keep one of them"),
        ("more: {floor: 0.1,\n floor: 0.2}", "line 2: 'floor' stands here and in line 1"),
        ("ids:\n  train: a\n  train: b", "line 3: 'train' stands here and in line 2"),
        ("lr: 0.1\nroot:", "line 2: 'root' has no value; give one (text may be '', a setting null)"),
        ("more: {size_power: }", "line 1: 'size_power' has no value"),
        ("root: ~", "root=None must be of type str, such as ''; nothing stands after its colon"),
        ("flip: yes", "flip='yes' must be of type bool, such as True; write true or false"),
        ("seed: 010", "seed='010' must be of type int, such as 0; write 10"),
        ("seed: 12:30", "seed='12:30' must be of type int"),
        ("train_images: 10_582", "train_images='10_582' must be of type int, such as 1200; write 10582"),
        (
            "chosen: [12]",
            "chosen=[12] must be of type list[str], such as ['cat', 'dog']; YAML reads more than text as text only",
        ),
        ("lr: 1,5", "lr='1,5' must be of type float, such as 0.001"),
        (
            "more:\n\tfloor: 0.1",
            "line 2: found character '\\t' that cannot start any token; indent with blanks",
        ),
        ("epochs:3\nlr:4", "it holds a str; write lines such as `epochs: 20`, with a blank after the colon"),
        ("root: a: b", "line 1: mapping values are not allowed here; write one `name: value` a line"),
        ('root: "C:\\x"', "put it in single quotes: '...'"),
        ("root: @x", "line 1: found character '@' that cannot start any token; put the value in quotes"),
        ("epochs: 3\n---\nepochs: 4", "line 2: but found another document; leave out the line ---"),
        ("1: 2", "no notebook has a parameter 1: choose from run, "),
        ("? [a]\n: 2", "line 1: a name must be plain text"),
        ("seed: 1\nmore: {seed: 2}", "seed is given twice, as 1 and in `more` as 2; keep one of them"),
        ("more: {flor: 1}", "no notebook has a parameter 'flor': did you mean 'floor'?"),
        ("size: 64", "no notebook has a parameter 'size': the side of the built-in scenes is image_size"),
        ("glyphs: {size: 64}", "the built-in scenes have image_size, train_images, "),
        ("timeout: 60", "it is an option of run_all.py: --timeout"),
        ("more: {lr: 0.1}", "'lr' is a parameter of its own: write it beside `more`, not in it"),
        ("more: {image_size: 64}", "'image_size' is a parameter of its own"),
        (
            "more: {size_offset: 0, floor: 2}",
            "size_offset=0: should be greater than 0; floor=2: should be less than or equal to 1",
        ),
        ("epochs: 0", "epochs=0: should be greater than or equal to 1"),
        ("", "it holds no parameter; write some, or leave --params out for the default run"),
        ("# epochs: 3", "it holds no parameter"),
        (" epochs: 20\nlr: 0.1", "found '<block mapping start>'; begin all lines at the left margin"),
        (
            "root: *.jpg",
            "line 1: expected alphabetic or numeric character, but found '.'; put the value in quotes",
        ),
        ("root: *x", "line 1: found undefined alias 'x'; put the value in quotes"),
        (
            "root: !x y",
            "constructor for the tag '!x'; leave out what begins with !, or put the value in quotes",
        ),
        ("root: 'x", "found unexpected end of stream; close the quote"),
        ("epochs: 20\0", "at position 10 it has the sign U+0000, which no text has; remove it"),
        ("epochs: 20.0", "epochs=20.0 must be of type int, such as 14; write 20"),
        ("epochs: 0x10", "epochs='0x10' must be of type int, such as 14; write 16"),
        ("epochs: 20.5", "such as 14; write a whole number"),
        ("lr: inf", "lr='inf' must be of type float, such as 0.001; write a finite number"),
        ("lr: nan", "write a finite number"),
        ("lr: .nan", "lr=nan: should be "),
        ("classes: cat, dog", "must be of type list[str], such as ['cat', 'dog']; write [cat, dog]"),
        ("dilations: (1, 2, 3, 4)", "such as [1, 2, 4, 6]; write [1, 2, 3, 4]"),
        ("dilations: 1 2 3 4", "write [1, 2, 3, 4]"),
        ("dilations: [1, 2, 3, 4.0]", "write numbers without quotes, whole ones without .0"),
        ("scales: 1", "such as [1.0, 1.5]; write [1]"),
        ("use_crf: 1", "such as True; write true or false"),
        ("more: {floor: true}", "floor=True must be of type float, such as 0.2; write a finite number"),
        ("more: {floor: '0.1'}", "floor='0.1' must be of type float, such as 0.2; write 0.1"),
        (
            "more: {channel_attention: no}",
            "channel_attention='no' must be of type bool, such as True; write true",
        ),
        (
            "more: {size_power: None}",
            "size_power='None' must be of type float | None, such as 3.0; write null",
        ),
        ("more: {lr_multipliers: 1 1 10 10}", "must be of type list of numbers; write [1, 1, 10, 10]"),
        ("run: ~nobody-here/x", "~nobody-here/x: no user of this machine has that name"),
    ],
)
def test_bad_params_files_are_usage_errors(capsys, params, text, message):
    error = usage_error(capsys, "--params", params(text)).splitlines()[-1]
    assert message in error and "pydantic" not in error


@pytest.mark.parametrize(
    "text, expected",
    [
        ("lr: 1e-3", {"lr": 0.001}),
        ("lr: 1E-3", {"lr": 0.001}),
        ("lr: 1.0e-3", {"lr": 0.001}),
        ("lr: .5", {"lr": 0.5}),
        ("lr: 1", {"lr": 1}),
        ("train_images: 1e3", {"train_images": 1000}),
        ("train_images: 1E5", {"train_images": 100000}),
        ("more: {mask_weight: 1e-1, size_power: null}", {"more": {"mask_weight": 0.1, "size_power": None}}),
        ("flip: true\nuse_crf: False", {"flip": True, "use_crf": False}),
        ("classes: [no, on, y, null_, 'null']", {"classes": ["no", "on", "y", "null_", "null"]}),
        ("val_list: no", {"val_list": "no"}),
        ("chosen: [2007_000032, 00012, 12:30]", {"chosen": ["2007_000032", "00012", "12:30"]}),
        ("val_list: 2024-01-01", {"val_list": "2024-01-01"}),
        ("root: C:\\x", {"root": "C:\\x"}),
        ("root: ''", {"root": ""}),
        ("classes: [Hündin, 犬]", {"classes": ["Hündin", "犬"]}),
        ("{}", {}),
        (
            "images: val\nrecipe: 1stage\nscales: [1]\ncanvas: 0",
            {"images": "val", "recipe": "1stage", "scales": [1], "canvas": 0},
        ),
        (
            "snapshot: data/voc_animals.safetensors",
            {"snapshot": "data/voc_animals.safetensors"},
        ),
        (
            "data: a\nsnapshot: data/runs/mine/weights.safetensors",
            {"data": "a", "snapshot": "data/runs/mine/weights.safetensors"},
        ),
    ],
)
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_values_are_read_as_meant(params, text, expected, coding):
    path = params("{}")
    path.write_text(text, coding)
    (run,) = run_all.parse(["--params", str(path)])[1]
    assert run == (RUNS / "mine", expected)
    assert [type(value) for value in run[1].values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    "text, only, message",
    [
        (
            "dataset: Folder",
            "01",
            "01_prepare_data: dataset='Folder': should be 'glyphs', 'voc', 'coco' or 'folder'",
        ),
        ("val_fraction: 1", "01", "01_prepare_data: val_fraction=1: should be less than 1"),
        ("tags: box", "01", "01_prepare_data: tags='box': should be 'masks' or 'boxes'"),
        ("ids: {valid: a.txt}", "01", "should be 'train', 'val' or 'test'"),
        (
            "image_size: 9",
            "01",
            "size=9: should be greater than or equal to 48; the built-in scenes have image_size",
        ),
        ("count: 0", "03", "03_explore: count=0: should be greater than or equal to 1"),
        ("scales: [0]", "03", "03_explore: scales.0=0: should be greater than 0"),
        (
            "images: tst",
            "03",
            "03_explore: images='tst' is no split (train, val, test), and this notebook shows no",
        ),
        ("jobs: 0", "04", "04_ablations: jobs=0: should be greater than or equal to 1"),
        ("ablation_warmup: 9", "04", "04_ablations: warmup_epochs=9 is more than epochs=2"),
        (
            "ablation_images: dev",
            "04",
            "ablation_images='dev' is no split; choose one of train, val, test",
        ),
        (
            "export: Weights",
            "05",
            "05_evaluate: export='Weights': should be '', 'server', 'training' or 'weights'",
        ),
        ("recipe: WS-FCN", "05", "05_evaluate: recipe='WS-FCN': should be 'wsfcn' or '1stage'"),
        ("canvas: 9999", "05", "05_evaluate: canvas=9999: should be less than or equal to 4096"),
        ("score_cut: 1.5", "05", "05_evaluate: score_cut=1.5: should be less than or equal to 1"),
        ("processes: 0", "05", "05_evaluate: processes=0: should be greater than or equal to 1"),
        ("long_side: -2", "05", "05_evaluate: long_side=-2: should be greater than or equal to 0"),
        (
            "images: tst",
            "05",
            "05_evaluate: images='tst' is neither a split (train, val, test) nor a file or folder (looked at",
        ),
        ("images: ''", "05", "05_evaluate: images='' is neither a split (train, val, test) nor a file"),
        (
            "picture: nowhere.jpg",
            "05",
            "05_evaluate: picture='nowhere.jpg' is not a file or folder (looked at",
        ),
        (
            "snapshot: bset",
            "05",
            "05_evaluate: snapshot='bset' is neither a name (best, last, shipped, wsfcn, 1stage) nor",
        ),
        ("masks: SegmentationClassAug", "05", "the folder of VOC's training masks is train_masks"),
    ],
)
def test_what_a_notebook_would_refuse_after_training_is_refused_before(capsys, params, text, only, message):
    assert usage_error(capsys, "--params", params(text)), "where all notebooks run"
    assert message in usage_error(capsys, "--params", params(text), "--only", only)
    others = [number for number in ("01", "02", "03", "04", "05") if number != only]
    if not text.startswith(("images", "scales", "count", "snapshot")):  # of several notebooks
        assert run_all.parse(["--params", str(params(text)), "--only", *others])


def test_a_file_in_another_coding_is_refused(capsys, params):
    path = params("{}")
    path.write_bytes("root: größe".encode("latin-1"))
    error = usage_error(capsys, "--params", path)
    assert "it is not UTF-8 at position 8 (invalid start byte); save it as UTF-8" in error


def test_a_file_of_the_kit_is_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ((run, given),) = run_all.parse(["--params", "notebooks/params/smoke.yaml"])[1]
    assert run == RUNS / "smoke" and given["epochs"] == 2
    (tmp_path / "mine.yaml").write_text("run: ~/x\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_all.parse(["--params=~/mine.yaml"])[1] == [(tmp_path / "x", {})]
    assert run_all.parse(["--run-name=~/y"])[1] == [(tmp_path / "y", {})]
    assert run_all.parse(["--run-name", "data/runs/z"])[1] == [(RUNS / "z", {})]
    assert run_all.parse(["--run-name", "./z"])[1] == [(tmp_path / "z", {})]


def test_settings_of_a_training_are_not_asked_where_none_is_made(params):
    assert run_all.parse(["--params", str(params("epochs: 0")), "--only", "05"])[1][0][1] == {"epochs": 0}


def test_other_usage_errors(capsys, params, tmp_path):
    assert "No such file" in usage_error(capsys, "--params", tmp_path / "absent.yaml")
    assert "invalid choice: '09'" in usage_error(capsys, "--only", "02", "09")
    several = ["--params", params("{}"), params("{}", "other"), "--run-name", "x"]
    assert "--run-name x would put 2 runs into one folder" in usage_error(capsys, *several)
    assert "takes no --params, --run-name or --only" in usage_error(capsys, "--commit", "--only", "02")


def test_runs_are_named_by_option_or_file(params, tmp_path):
    def named(*arguments):
        return [run for run, _ in run_all.parse([str(argument) for argument in arguments])[1]]

    assert named() == [RUNS / "demo"]
    assert named("--run-name", "mine") == [RUNS / "mine"]
    assert named("--run-name", tmp_path / "there") == [tmp_path / "there"]
    assert named("--params", params("{}"), params("{}", "b")) == [RUNS / "mine", RUNS / "b"]
    assert named("--params", params("run: data/runs/c")) == [RUNS / "c"]
    assert named("--params", params("run: data/runs/c"), "--run-name", "d") == [RUNS / "d"]


def test_each_notebook_gets_the_settings_it_knows():
    given = {"epochs": 3, "image_size": 64, "seed": 5, "more": {"test_images": 9, "floor": 0.1}}
    training, preparation = (run_all.parameters_of(name, given) for name in ("02_train", "01_prepare_data"))
    assert (training["epochs"], training["seed"], training["floor"]) == (3, 5, 0.1)
    assert (preparation["image_size"], preparation["test_images"]) == (64, 9)
    assert not training.keys() & {"image_size", "test_images", "more"}
    assert not preparation.keys() & {"epochs", "seed", "floor", "more"}


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"lr": 0.5, "seed": 3}, {"lr": 0.5, "more": {"seed": 3}}),
        ({"lr": 0.5, "more": {"seed": 3}}, {"lr": 0.5, "more": {"seed": 3}}),
        ({"seed": 0, "dilations": [1, 2, 4, 6]}, {}),
        ({"sbd_root": "x", "more": {"tags": "boxes"}}, {}),
    ],
)
def test_papermill_is_given_what_differs_in_its_place(given, expected):
    assert run_all.injected("02_train", given) == expected


def test_a_setting_of_a_line_and_in_more_is_one_setting():
    """So nothing is done again where a file is written otherwise."""
    flat, nested = {"weight_decay": 0.1, "val_images": 9}, {"more": {"weight_decay": 0.1, "val_images": 9}}
    for name in NAMES:
        assert run_all.parameters_of(name, flat) == run_all.parameters_of(name, nested)


def test_a_setting_that_a_later_library_adds_makes_nothing_again():
    """Of settings that only TrainConfig names, those that are given are recorded; of the notebook's own, all."""
    recorded = run_all.recorded("02_train", {"more": {"floor": 0.1, "seed": 0}})
    assert recorded["floor"] == 0.1 and recorded["epochs"] == 14 and recorded["weight_decay"] == 0.01
    assert not recorded.keys() & {"seed", "background_cut", "lr_multipliers"}
    assert run_all.recorded("05_evaluate", {"canvas": 64}).items() >= {"canvas": 64, "flip": True}.items()


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Runs the command in a folder of its own, with notebooks that only leave files; returns the names of those executed."""
    home = tmp_path / "home"
    data, source, run = home / "data", home / "source", home / "run"
    for path in (source / "cat" / "a.jpg", source / "tags.csv", home / "names.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    books = home / "notebooks"
    books.mkdir()
    for path in NOTEBOOKS.values():
        book = nbformat.read(path, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs = []
        nbformat.write(book, books / path.name)
    executed = []

    def execute(name, run, given, timeout):
        executed.append(name)
        left = {"02_train": ["log.csv", "checkpoints/last.safetensors"], "04_ablations": ["ablation.csv"]}
        left["05_evaluate"] = ["metrics.json", "report.html"]
        for place in left.get(name, []):
            (run / place).parent.mkdir(exist_ok=True)
            if not (run / place).exists():
                (run / place).write_text("{}")
        if name == "01_prepare_data" and not data.exists():
            data.mkdir()
            (data / "classes.json").write_text("[]")
            (data / "train.csv").write_text("image,tags\na.jpg,cat\n")
            (data / "val.csv").write_text("image,tags,mask\nb.jpg,cat,b.png\n")
        record = json.loads((run / "run.json").read_text()) if (run / "run.json").exists() else {"stages": {}}
        record["stages"][name] = {"finished": True, "commit": "abc"}
        (run / "run.json").write_text(json.dumps(record))

    def command(*arguments, **given):
        given = {"data": str(data), "root": str(source), "ids": {"train": str(home / "names.txt")}} | given
        (home / "p.yaml").write_text(json.dumps(given))
        executed.clear()
        code = run_all.main(["--params", str(home / "p.yaml"), "--run-name", str(run), *arguments])
        assert code == 0
        return executed

    monkeypatch.setattr(run_all, "NOTEBOOKS", {name: books / f"{name}.ipynb" for name in NAMES})
    monkeypatch.setattr(run_all, "execute", execute)
    command.home = home
    return command


def test_what_is_finished_and_unchanged_is_skipped(work, capsys):
    assert work("--only", "01", "02") == NAMES[:2]
    assert work() == NAMES[2:], "it goes on where it was"
    capsys.readouterr()
    assert work() == []
    out = capsys.readouterr().out
    assert "--- 02_train: finished before, nothing changed (made by commit abc)" in out


def write(name, text="changed"):
    def change(home):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(text)

    return change


def remove(name):
    return lambda home: (home / name).unlink()


def edit_cell(home, old="began = ", new="started = began = "):
    path = home / "notebooks" / "03_explore.ipynb"
    path.write_text(path.read_text("utf-8").replace(f'"{old}', f'"{new}'), "utf-8")


@pytest.mark.parametrize(
    "change, again",
    [
        (write("source/tags.csv"), ["01_prepare_data"]),
        (write("source/cat/new.jpg"), ["01_prepare_data"]),
        (remove("source/cat/a.jpg"), ["01_prepare_data"]),
        (write("names.txt"), ["01_prepare_data"]),
        (write("data/images/a.jpg"), ["01_prepare_data"]),
        (write("data/train.csv"), NAMES),
        (write("run/checkpoints/best.safetensors"), ["02_train", "03_explore", "05_evaluate"]),
        (remove("run/metrics.json"), ["05_evaluate"]),
        (remove("run/report.html"), ["05_evaluate"]),
        (remove("run/notebooks/05_evaluate.json"), ["05_evaluate"]),
        (edit_cell, ["03_explore"]),
        (lambda home: edit_cell(home, new="# a comment\\nbegan = "), []),
        (write("notebooks/01_prepare_data-Copy1.ipynb", "{broken"), []),
        (write("source/cat/.hidden"), []),
    ],
)
def test_what_stands_on_a_change_is_done_again(work, change, again):
    work()
    change(work.home)
    assert work() == again
    assert work() == [], "and once is enough"


@pytest.mark.parametrize("content", ["", '{"param', "[]", "null"])
def test_a_torn_record_of_a_notebook_is_named_and_made_again(work, capsys, content):
    work()
    write("run/notebooks/03_explore.json", content)(work.home)
    assert work() == ["03_explore"]
    assert "notebooks/03_explore.json is damaged" in capsys.readouterr().out
    assert work() == []


def test_a_lost_run_json_is_made_anew(work):
    work()
    remove("run/run.json")(work.home)
    assert work() == NAMES and work() == []
    write("run/run.json", '{"stages": {"01_prepare_data": {"finished": true, "commit": null}}}')(work.home)
    assert work() == NAMES[1:], "what it does not tell of"


@pytest.mark.parametrize("content", ['{"mean', "[]"])
def test_torn_results_are_named(work, capsys, content):
    work("--only", "01")
    write("run/metrics.json", content)(work.home)
    given = ["--params", str(work.home / "p.yaml"), "--run-name", str(work.home / "run"), "--only", "01"]
    assert run_all.main(given) == 1
    err = capsys.readouterr().err
    assert "FAILED" in err and f"{work.home / 'run'} holds a damaged run.json or metrics.json (" in err


@pytest.mark.parametrize(
    "given, again",
    [
        ({"lr": 0.5}, ["02_train"]),
        ({"seed": 5}, ["02_train"]),
        ({"more": {"floor": 0.1, "val_images": 9}}, ["01_prepare_data", "02_train"]),
        ({"image_size": 64}, ["01_prepare_data"]),
        ({"count": 9}, ["03_explore", "04_ablations", "05_evaluate"]),
    ],
)
def test_a_changed_setting_concerns_the_notebooks_that_know_it(work, given, again):
    work()
    assert work(**given) == again


def test_changed_code_of_the_library_makes_nothing_again(work, monkeypatch):
    work()
    monkeypatch.setattr(provenance, "code_hash", lambda notebook=None: "new")
    assert work() == []


def test_fresh_renames_and_deletes_nothing(work, capsys):
    work()
    before = {path.name: path.read_bytes() for path in (work.home / "run").rglob("*.*") if path.is_file()}
    for name in ("run-before", "run-before2"):
        assert work("--fresh") == NAMES
        kept = {path.name: path.read_bytes() for path in (work.home / name).rglob("*.*") if path.is_file()}
        assert kept.keys() == before.keys()
        assert f"is kept as {work.home / name}" in capsys.readouterr().out


HOLD = """
import sys
from wsfcn_lib.runs import RunFolder
RunFolder.open(sys.argv[1], {}, 'x')
print(1, flush=True)
input()
"""


@pytest.mark.parametrize("place", [".", "ablation/fca-sf2-s0"])
def test_a_run_at_work_is_not_renamed(tmp_path, place):
    """Neither its own training nor one of its ablation that another task trains."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"stages": {}}')
    words = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run / place)], **words) as other:
        assert other.stdout.readline() == "1\n"
        with pytest.raises(folder.RunError, match=f"is in use by process {other.pid}: wait for it"):
            run_all.put_aside(run)
        assert run.exists()
        other.communicate("\n")
    run_all.put_aside(run)
    assert not run.exists() and (tmp_path / "run-before").exists()


def test_what_is_no_run_is_neither_used_nor_renamed(tmp_path, monkeypatch, capsys, params):
    """The repository, what holds it, its own folders, the home folder, and folders that hold other things."""
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    (home / "photos" / "a.jpg").touch()
    (home / "bare").mkdir()
    monkeypatch.setenv("HOME", str(home / "bare"))
    monkeypatch.setattr(run_all, "run_notebooks", None)
    monkeypatch.setattr("pathlib.Path.rename", None)
    places = (
        "''",
        "' '",
        ".",
        "..",
        "/",
        "'~'",
        "data",
        "data/runs",
        "data/runs/../..",
        "notebooks",
        "~/../photos",
    )
    for place in places:
        for options in ([], ["--fresh"]):
            error = usage_error(capsys, "--params", params(f"run: {place}"), *options)
            assert (
                "is no run and cannot become one: " in error
                and "name a new folder, such as data/runs" in error
            )
    assert "is no run" in usage_error(capsys, "--run-name", "..", "--fresh")
    with pytest.raises(folder.RunError, match="photos is there for other things"):
        run_all.put_aside(home / "photos")
    with pytest.raises(folder.RunError, match="is no run and cannot become one"):
        folder.RunFolder.open(home / "photos", {}, "02_train")
    assert [path.name for path in (home / "photos").iterdir()] == ["a.jpg"]
    begun = home / "begun"
    (begun / "notebooks").mkdir(parents=True)
    (begun / ".run_all").touch()
    folder.require_run_folder(begun)  # it was stopped before its first notebook


def test_links_in_a_circle_are_entered_once(tmp_path):
    source = tmp_path / "source"
    (source / "cat").mkdir(parents=True)
    (source / "cat" / "a.jpg").write_text("x")
    for number in range(3):
        (source / "cat" / f"up{number}").symlink_to(source)
    before = run_all.fingerprint([source])
    (source / "cat" / "b.jpg").write_text("x")
    assert run_all.fingerprint([source]) != before


def test_the_ablation_is_left_out_where_nothing_could_be_compared(work, capsys):
    work("--only", "01")
    (work.home / "data" / "val.csv").write_text("image,tags,mask\nb.jpg,cat,\n")
    assert work("--only", "04") == []
    assert "04_ablations: left out, no image of its split has a mask to compare by" in capsys.readouterr().out
    assert work("--only", "04", ablation_images="test") == ["04_ablations"], (
        "no such list: the notebook tells"
    )


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Makes notebook 03 a small one, of the given cell under a heading, and runs it; returns the exit code."""

    def run(source, *arguments):
        cells = [
            new_code_cell(
                "data: str = ''\nrun: str = ''\nimages: str = 'val'", metadata={"tags": ["parameters"]}
            ),
            new_markdown_cell("## 1 · The first\n\nWords."),
            new_code_cell("1 + 1"),
            new_markdown_cell("## 2 · The second\n\nWords."),
            new_code_cell(source),
            new_markdown_cell("## 3 · The third"),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(
            new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "03_explore.ipynb"
        )
        monkeypatch.setattr(run_all, "NOTEBOOKS", NOTEBOOKS | {"03_explore": tmp_path / "03_explore.ipynb"})
        return run_all.main(["--run-name", str(tmp_path / "run"), "--only", "03", *arguments])

    return run


@pytest.mark.parametrize(
    "source, arguments, message",
    [
        ("raise ValueError('\\n'.join(f'line {n}' for n in range(99)))", [], "line 97\n  line 98\n"),
        ("import time\ntime.sleep(60)", ["--timeout", "2"], "it took more than 2 s\n"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
            [],
            "Kernel died: the system ended its process, perhaps for want of memory; lower",
        ),
    ],
)
def test_a_failure_names_notebook_cell_section_and_the_end_of_the_reason(
    tiny, tmp_path, capsys, source, arguments, message
):
    assert tiny(source, *arguments) == 1
    err = capsys.readouterr().err
    assert "FAILED  03_explore, cell In [4], section 2 · The second\n  " in err
    assert message in err and "line 1\n" not in err
    assert f"executed copy: {tmp_path / 'run' / 'notebooks' / '03_explore.ipynb'}" in err


def test_a_disk_that_fills_while_a_notebook_runs_is_told_with_its_file(tiny, tmp_path, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papermill.execute_notebook", full)
    assert tiny("1") == 1
    err = capsys.readouterr().err
    assert "make room on its disk" in err and "03_explore.ipynb" in err


OPEN = """
from wsfcn_lib.runs import RunFolder
folder = RunFolder.open(run, {}, '03_explore')
"""


def test_a_notebook_that_ends_early_is_not_finished(tiny, capsys):
    assert tiny(f"{OPEN}raise SystemExit(0)") == 1
    assert "03_explore was stopped before its end; give the same command again" in capsys.readouterr().err
    whole = f"{OPEN}folder.record('03_explore', finished=True)"
    assert tiny(whole) == 0 and "nothing changed" not in capsys.readouterr().out
    assert tiny(whole) == 0 and "03_explore: finished before, nothing changed" in capsys.readouterr().out


def test_one_run_that_fails_does_not_keep_the_next_from_running(params, tmp_path, monkeypatch, capsys):
    def run(run, *_):
        if run.name == "a":
            raise run_all.NotebookError("02_train, cell In [3]")

    monkeypatch.setattr(run_all, "run_notebooks", run)
    files = [params(f"run: {tmp_path / name}", name) for name in "ab"]
    assert run_all.main(["--params", *map(str, files)]) == 1
    assert f"run {tmp_path / 'b'}" in capsys.readouterr().out

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_all, "run_notebooks", interrupted)
    assert run_all.main(["--params", *map(str, files)]) == 130
    assert "give the same command again" in capsys.readouterr().err


PART = """
import os, signal, sys, time
import run_all
from wsfcn_lib.runs import RunFolder

def execute(name, run, given, timeout):
    with RunFolder.open(run, {}, name) as folder:
        if name == sys.argv[1]:
            (run / "waiting").touch()
            while (run / "waiting").exists():
                time.sleep(0.01)
        folder.record(name, finished=True)

run_all.execute = execute
sys.exit(run_all.main(sys.argv[2:]))
"""


@pytest.fixture
def start(tmp_path):
    """Starts run_all.py in a process, with notebooks that do nothing, of which one waits."""
    (tmp_path / "part.py").write_text(PART)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'notebooks'}"}
    words = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}

    def begin(name):
        command = [sys.executable, tmp_path / "part.py", name, "--run-name", tmp_path / "run"]
        process = subprocess.Popen(command, **words)
        while name in NAMES and not (tmp_path / "run" / "waiting").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        return process

    return begin


def ended(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_second_command_stops_with_a_message_and_a_killed_one_goes_on(start, tmp_path):
    first = start("03_explore")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    code, _, err = ended(start("none"))
    assert code == 1 and f"run run is in use by process {first.pid}: wait for it" in err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    first.send_signal(signal.SIGKILL)
    assert ended(first)[0] == -9
    (tmp_path / "run" / "waiting").unlink()
    code, out, _ = ended(start("none"))
    assert code == 0 and out.count("finished before, nothing changed") == 2
    assert all(stage["finished"] for stage in read_run(tmp_path / "run")["stages"].values())


@pytest.mark.parametrize(
    "line", ["steps: 600", "initial_weights: shipped", "initial_weights: own.safetensors"]
)
def test_modules_are_not_compared_from_a_start_or_a_length_that_they_cannot_have(tmp_path, capsys, line):
    """Its configurations would silently take 600 steps each, or fail at the first whose modules differ."""
    (tmp_path / "own.yaml").write_text(f"run: {tmp_path / 'run'}\n{line}\n")
    with pytest.raises(SystemExit) as stopped:
        run_all.main(["--params", str(tmp_path / "own.yaml"), "--only", "04"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "04_ablations: " in said and "leave this notebook out: --only 01 02 03 05" in said
    run_all.parse(["--params", str(tmp_path / "own.yaml"), "--only", "01", "02"])
