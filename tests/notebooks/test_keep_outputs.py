"""How the outputs of the executed notebooks come back into the notebooks, fit to be committed."""

import base64
import io

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

import keep_outputs
from wsfcn_lib.runs.folder import RunFolder
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import code_hash
from wsfcn_lib.runs.storage import RunError


def executed(path, *outputs, source="1 + 1"):
    metadata = {"papermill": {"duration": 1}}
    cell = new_code_cell(source, execution_count=1, outputs=[*outputs], metadata=metadata)
    nbformat.write(new_notebook(cells=[cell], metadata=metadata), path)
    return path


@pytest.fixture
def notebook(tmp_path):
    """A notebook without outputs, and where its executed copy lies."""
    (tmp_path / "run" / "notebooks").mkdir(parents=True)
    cell = new_code_cell("1 + 1", metadata={"tags": ["nbval-check-output"]})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "02_train.ipynb")
    return tmp_path / "02_train.ipynb", tmp_path / "run" / "notebooks" / "02_train.ipynb"


def test_kept_outputs_carry_the_hash_and_nothing_of_the_machine(notebook, tmp_path, monkeypatch):
    original, copy = notebook
    cell = nbformat.read(original, as_version=4).cells[0]
    executed(copy, new_output("stream", name="stdout", text="2"))
    (tmp_path / "figures").mkdir()
    (tmp_path / "run" / "figures").mkdir()
    (tmp_path / "run" / "figures" / "curves.png").write_bytes(b"a picture")
    monkeypatch.setattr(keep_outputs, "NOTEBOOKS", {"02_train": original})
    monkeypatch.setattr(keep_outputs, "FIGURES", {"training.png": "curves.png"})
    monkeypatch.setattr(keep_outputs, "FOLDER", tmp_path / "figures")
    with RunFolder.open(tmp_path / "run", {}, "02_train") as run:
        keep_outputs.keep_outputs(tmp_path / "run")
        run.record("02_train", code="of another day")
    kept = nbformat.read(original, as_version=4)
    assert kept.cells[0].outputs[0].text == "2" and kept.cells[0].execution_count == 1
    assert kept.cells[0].metadata == {"tags": ["nbval-check-output"]} and kept.cells[0].id == cell.id
    assert kept.metadata.keys() == {"kernelspec", "language_info", keep_outputs.HASH}
    assert kept.metadata[keep_outputs.HASH] == code_hash(original)
    assert (tmp_path / "figures" / "training.png").read_bytes() == b"a picture"
    with pytest.raises(
        RunError, match="02_train of run run was made by other code than today's; add --fresh"
    ):
        keep_outputs.keep_outputs(tmp_path / "run")


def test_a_widget_is_not_kept_without_its_kernel(notebook):
    original, copy = notebook
    executed(
        copy, new_output("display_data", {keep_outputs.WIDGET: {"model_id": "1"}, "text/plain": "a view"})
    )
    (output,) = nbformat.reads(keep_outputs.cleaned(copy, original), as_version=4).cells[0].outputs
    assert output.data == {"text/plain": "a view"}


def test_a_copy_of_another_version_is_refused(notebook):
    original, copy = notebook
    executed(copy, source="1 + 2")
    with pytest.raises(RunError, match="another version of 02_train.ipynb"):
        keep_outputs.cleaned(copy, original)


@pytest.mark.parametrize("kind", ["stream", "display_data"])
def test_paths_of_the_machine_are_refused(notebook, kind):
    original, copy = notebook
    words = f"saved to {ROOT}/data"
    output = new_output(kind, text=words) if kind == "stream" else new_output(kind, {"text/html": words})
    executed(copy, output)
    with pytest.raises(RunError, match=r"02_train.ipynb, cell In \[1\] shows a path of this machine"):
        keep_outputs.cleaned(copy, original)


def test_too_large_a_notebook_is_refused(notebook):
    original, copy = notebook
    executed(copy, new_output("stream", text="x" * 1_000_001))
    with pytest.raises(RunError, match="more than 1: show fewer pictures"):
        keep_outputs.cleaned(copy, original)


def test_large_pictures_become_jpegs_and_stay_alike():
    y, x = np.mgrid[:300, :300]
    noise = np.random.default_rng(0).integers(0, 9, (300, 300))
    picture = np.stack([x // 2 + noise, y // 2 + noise, (x + y) // 3 + noise], -1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    large = base64.b64encode(stream.getvalue()).decode()
    data, about = {"image/png": large, "text/plain": "a picture"}, {"image/png": {"alt": "slopes"}}
    keep_outputs.shrink_picture(data, about)
    again = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/jpeg"]))))
    assert len(data["image/jpeg"]) < 0.6 * len(large) and np.abs(again.astype(int) - picture).mean() < 4
    assert data.keys() == {"image/jpeg", "text/plain"} and about == {"image/jpeg": {"alt": "slopes"}}


def test_small_pictures_and_words_stay():
    for data in ({"image/png": "ZmV3"}, {"text/plain": "words"}):
        before = dict(data)
        keep_outputs.shrink_picture(data, {})
        assert data == before
