"""All notebooks are built alike: a test of the rules, on the files as they lie in the repository."""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.runs import notebook
from wsfcn_lib.runs.notebook import check_values, declared
from wsfcn_lib.runs.paths import ROOT

NOTEBOOKS = [*notebook.NOTEBOOKS.values()]
NAMES = [*notebook.NOTEBOOKS]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def tags(cell):
    return cell.metadata.get("tags", [])


@each_notebook
def test_it_is_valid_and_its_cells_keep_their_names(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    ids = [cell.id for cell in book.cells]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_it_opens_with_title_sentence_and_table(path):
    first = nbformat.read(path, as_version=4).cells[0]
    title, blank, sentence, *rest = first.source.splitlines()
    assert (
        first.cell_type == "markdown" and title.startswith(f"# {path.stem[:2]} · ") and not blank and sentence
    )
    table = [line for line in rest if line.startswith("|")]
    assert table[0] == "| reads | writes | on a laptop | on a GPU |" and len(table) == 3
    assert all(part.strip() for part in table[2].strip("|").split("|"))


@each_notebook
def test_parameters_are_annotated_and_explained(path):
    own = [cell for cell in cells(path) if "parameters" in tags(cell)]
    assert len(own) == 1 and own[0] == cells(path)[0]
    written = own[0].source.splitlines()
    for node in ast.parse(own[0].source).body:
        assert isinstance(node, ast.AnnAssign)
        line = " ".join(written[node.lineno - 1 : node.end_lineno])
        assert "  # " in line, f"write `name: type = value  # what the paper has`: {line}"
    names = declared(path)
    assert names["run"] == (str, "data/runs/demo")
    check_values(
        names, {name: value for name, (_, value) in names.items()}
    )  # each default is of its own type
    assert list(papermill.inspect_notebook(path)) == list(names)


def test_a_name_has_one_type_in_all_notebooks():
    kinds = {}
    for path in NOTEBOOKS:
        for name, (kind, _) in declared(path).items():
            assert kinds.setdefault(name, kind) == kind, f"{name} in {path.stem}"


def test_training_takes_every_setting():
    own = declared(ROOT / "notebooks/02_train.ipynb").keys() - {"run", "more"}
    assert own < TrainConfig.model_fields.keys()


@each_notebook
def test_it_says_what_it_runs_on_and_checks_its_parameters(path):
    top = cells(path)[1:4]
    assert "check_parameters(In)" in top[0].source
    where = [cell for cell in top if "print(header(" in cell.source]
    assert where and all("nbval-ignore-output" in tags(cell) for cell in where)


@each_notebook
def test_it_guards_its_stage_before_it_works(path):
    order = nbformat.read(path, as_version=4).cells
    first_section = next(i for i, cell in enumerate(order) if cell.source.startswith("## 1 · "))
    guard = "".join(cell.source for cell in order[:first_section] if cell.cell_type == "code")
    assert re.search(r"RunFolder\.open\(|open_run\(", guard)


@each_notebook
def test_sections_are_numbered_and_each_has_words_and_a_cell(path):
    order = nbformat.read(path, as_version=4).cells
    heads = [(i, cell.source.splitlines()) for i, cell in enumerate(order) if cell.source.startswith("## ")]
    numbers = [int(text[0].split()[1]) for _, text in heads if text[0].split()[1].isdigit()]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 3
    for i, text in heads[: len(numbers)]:
        assert re.fullmatch(r"## \d+ · .+", text[0]) and not text[1] and text[2], (
            f"a heading, an empty line, words: {text[0]}"
        )
        assert order[i + 1].cell_type == "code", f"a cell must follow {text[0]}"
        assert sum(heading.startswith("#") for heading in text) == 1


@each_notebook
def test_cells_are_few_and_plain(path):
    code = cells(path)
    assert len(code) <= 24
    for cell in code:
        assert not re.search(r"^\s*[!%]", cell.source, re.MULTILINE), (
            f"no shell and no magic: {cell.source[:80]}"
        )
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source))), (
            "the library computes"
        )
        assert "pyplot" not in cell.source


@each_notebook
def test_two_to_four_cells_are_checked(path):
    assert 2 <= sum("nbval-check-output" in tags(cell) for cell in cells(path)) <= 4


@each_notebook
def test_it_ends_with_record_and_a_way_on(path):
    *_, record, call, end = nbformat.read(path, as_version=4).cells
    assert (
        record.source.startswith("## Record\n")
        and call.cell_type == "code"
        and "nbval-ignore-output" in tags(call)
    )
    assert re.search(r"\bfinish\(|\bfolder\.close\(", call.source)
    assert end.source.startswith("## What we saw\n")
    links = re.findall(r"\]\(([\w.]+\.ipynb)\)", end.source)
    assert all((path.parent / link).is_file() for link in links)
    assert links or path == NOTEBOOKS[-1]


def test_every_picture_goes_to_the_report_under_its_own_name():
    sources = "\n".join(cell.source for path in NOTEBOOKS for cell in cells(path))
    names = re.findall(r'save_figure\(run, "([\w-]+)"', sources)
    assert names and sources.count("save_figure(run") == len(names) == len(set(names))


@each_notebook
def test_its_outputs_are_whole(path):
    counts = [cell.execution_count for cell in cells(path)]
    assert counts == list(range(1, len(counts) + 1)), "execute all cells in order: make notebooks"
    outputs = [output for cell in cells(path) for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    checked = [cell.outputs for cell in cells(path) if "nbval-check-output" in tags(cell)]
    assert all(checked) and "image/" not in str(checked), "what is compared is text"
    assert any(kind.startswith("image/") for output in outputs for kind in output.get("data", {}))


@each_notebook
def test_it_is_fit_to_be_committed(path):
    text, book = path.read_text(), nbformat.read(path, as_version=4)
    assert len(text.encode()) < 1_000_000
    assert "papermill" not in book.metadata and not any("papermill" in cell.metadata for cell in book.cells)
    assert not [cell for cell in book.cells if "injected-parameters" in tags(cell)]
    words = re.sub(r'"image/\w+": "[^"]*"', "", text)
    for place in (str(ROOT), str(Path.home()) + "/", "/tmp/", "/home/", "site-packages"):
        assert place not in words, f"it tells where it was made: {place}"
