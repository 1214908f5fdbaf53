"""All notebooks are built alike: a test of the rules, on the files as they lie in the repository."""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.preparation import SourceSettings
from wsfcn_lib.evaluation.scoring import EvalSettings
from wsfcn_lib.runs import notebook
from wsfcn_lib.runs.more import KINDS, settings_of_more
from wsfcn_lib.runs.notebook import check_values, declared, known_settings
from wsfcn_lib.runs.paths import ROOT

NOTEBOOKS = [*notebook.NOTEBOOKS.values()]
NAMES = [*notebook.NOTEBOOKS]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def tags(cell):
    return cell.metadata.get("tags", [])


def is_hidden(cell):
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


def calls(source):
    """Names of all functions that a source calls."""
    nodes = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [node.id if isinstance(node, ast.Name) else getattr(node, "attr", "") for node in nodes]


def sections(path):
    """{heading: cells below it} of the numbered sections, each up to the next heading of its rank."""
    found, name = {}, None
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.source.startswith(("## ", "### Two exercises")):
            name = cell.source.splitlines()[0]
            found[name] = []
        if name:
            found[name].append(cell)
    return {name: below for name, below in found.items() if re.match(r"## \d+ · ", name)}


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
    assert len(names) <= 12, "what few people change goes into `more`"
    assert names["run"] == (str, "data/runs/demo")
    check_values({name: value for name, (_, value) in names.items()})  # each default is of its own type
    inner = known_settings(path).keys() - names
    check_values({"more": {name: known_settings(path)[name][1] for name in inner}})
    assert list(papermill.inspect_notebook(path)) == list(names)


def test_a_name_has_one_type_in_all_notebooks():
    kinds = {}
    for path in NOTEBOOKS:
        for name, (kind, _) in declared(path).items():
            assert kinds.setdefault(name, kind) == kind, f"{name} in {path.stem}"


def test_training_takes_every_setting():
    assert known_settings(ROOT / "notebooks/02_train.ipynb").keys() == {*TrainConfig.model_fields, "run"}


def test_evaluation_and_preparation_take_the_settings_of_their_classes():
    evaluation, preparation = (
        known_settings(notebook.NOTEBOOKS[name]).keys() for name in (NAMES[4], NAMES[0])
    )
    assert EvalSettings.model_fields.keys() <= evaluation
    named = SourceSettings.model_fields.keys() - {"lists", "masks", "glyphs", "processes", "test_fraction"}
    assert named <= preparation and {"train_masks", "image_size", "data_seed"} <= preparation


def test_what_is_looked_at_in_03_is_what_05_measures():
    looked, measured = (declared(notebook.NOTEBOOKS[name])["images"] for name in (NAMES[2], NAMES[4]))
    assert looked == measured


def test_the_page_on_notebooks_names_every_setting_with_its_default():
    """The tables of notebooks/README.md: | `name: default` | ...; of 02 those that are not the program's."""
    page = (ROOT / "notebooks/README.md").read_text("utf-8").partition("## All of them")[0]
    written = dict(re.findall(r"^\| `(\w+): ([^`]+)` \|", page, re.MULTILINE))
    for stage, kind in KINDS.items():
        for name in kind.__annotations__:
            default = settings_of_more(stage)[name][1]
            assert yaml.safe_load(written[name]) == default, f"{name} of {stage}"


@each_notebook
def test_one_collapsed_cell_sets_up(path):
    """It settles the settings, says what it runs on and opens the run, before the first section."""
    order = nbformat.read(path, as_version=4).cells
    first_section = next(i for i, cell in enumerate(order) if cell.source.startswith("## 1 · "))
    parameters, setup = [cell for cell in order[:first_section] if cell.cell_type == "code"]
    assert is_hidden(setup) and not is_hidden(parameters) and "nbval-ignore-output" in tags(setup)
    assert f'settings_of("{path.stem}", globals())' in setup.source and "print(header(" in setup.source
    assert re.search(r"RunFolder\.open\(|open_run\(", setup.source)
    for cell in order[first_section:]:
        if cell.cell_type == "code":
            imports = [
                node
                for node in ast.walk(ast.parse(cell.source))
                if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            assert not imports, f"imports belong to the set-up: {cell.source[:60]}"


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
    for cell in code[2:]:  # after parameters and set-up
        assert len(cell.source.splitlines()) <= 15, f"more than 15 lines: {cell.source[:80]}"
    for cell in code:
        assert not re.search(r"^\s*[!%]", cell.source, re.MULTILINE), (
            f"no shell and no magic: {cell.source[:80]}"
        )
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source))), (
            "the library computes"
        )


DRAWING = {
    "Figure",
    "subplots",
    "rc_context",
    "imshow",
    "barh",
    "bar",
    "plot",
    "tile",
    "overlay",
    "heat",
    "outlined",
}


@each_notebook
def test_no_cell_draws(path):
    """Pictures are made by functions of wsfcn_lib/plots, and what a cell only draws is collapsed."""
    for cell in cells(path):
        assert "matplotlib" not in cell.source and not DRAWING & {*calls(cell.source)}, cell.source[:80]
        if "save_figure" in calls(cell.source) and len(cell.source.splitlines()) <= 5:
            assert is_hidden(cell), f"it only draws: {cell.source[:80]}"


def is_computed(cell):
    """Whether the answer of a cell holds values: those of f-strings, or sentences that were put together before."""
    for node in ast.walk(ast.parse(cell.source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "answer":
            parts = [*node.args, *(part for argument in node.args for part in ast.walk(argument))]
            if any(isinstance(part, ast.FormattedValue | ast.Starred) for part in parts):
                return True
    return False


@pytest.mark.parametrize(
    "source, computed",
    [
        ("answer(f'{n} images.')", True),
        ("answer(*told)", True),
        ("answer('It works well.')", False),
        ("print(f'{n}')\nanswer('It works.')", False),
    ],
)
def test_a_hard_coded_answer_is_seen(source, computed):
    assert is_computed(nbformat.v4.new_code_cell(source)) == computed


@each_notebook
def test_each_section_asks_and_answers_with_computed_numbers(path):
    for heading, below in sections(path).items():
        assert heading.endswith("?"), heading
        said = [cell for cell in below if cell.cell_type == "code" and "answer" in calls(cell.source)]
        checked = [cell for cell in below if "nbval-check-output" in tags(cell)]
        assert said or checked, f"no answer: {heading}"
        assert any(map(is_computed, said)) or checked, f"its words are no answer without a number: {heading}"


@pytest.mark.parametrize("words", ["left out: ", "none given", "nothing asked for"])
@each_notebook
def test_nothing_says_that_it_was_not_asked_for(path, words):
    for cell in cells(path):
        assert words not in cell.source
        assert words not in str(cell.outputs)


@each_notebook
def test_two_to_four_cells_are_checked(path):
    assert 2 <= sum("nbval-check-output" in tags(cell) for cell in cells(path)) <= 4


@each_notebook
def test_it_ends_with_record_a_computed_summary_and_a_way_on(path):
    *_, record, call, seen, summary, way = nbformat.read(path, as_version=4).cells
    assert record.source.startswith("## Record\n") and "nbval-ignore-output" in tags(call)
    assert re.search(r"\bfinish\(|\bfolder\.close\(", call.source)
    assert seen.source.startswith("## What we saw\n")
    assert "answer" in calls(summary.source) and is_hidden(summary)
    links = re.findall(r"\]\(([\w.]+\.ipynb)\)", way.source)
    assert links and all((path.parent / link).is_file() for link in links)


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
