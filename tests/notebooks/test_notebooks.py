"""The notebooks at work: one pass over all of them with the smallest settings, and the committed outputs once more."""

import csv
import json
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import papermill
import pytest
import yaml
from PIL import Image

import run_all
from factories import SMOKE
from keep_outputs import HASH
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.notebook import NOTEBOOKS
from wsfcn_lib.runs.paths import ROOT, RUNS
from wsfcn_lib.runs.provenance import code_hash, files_of

slow = pytest.mark.slow


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_outputs_come_from_this_code(path):
    recorded = nbformat.read(path, as_version=4).metadata.get(HASH)
    assert recorded == code_hash(path), (
        "library or notebook changed since its outputs were made: make notebooks"
    )


@pytest.mark.notebooks
def test_one_pass_leaves_a_whole_run(smoke):
    run, _, done = smoke
    assert done.returncode == 0, done.stderr
    found = read_run(run)
    assert {name for name, stage in found["stages"].items() if stage["finished"]} == {*NOTEBOOKS}
    assert all(stage["seconds"] > 0 and stage["peak_memory_mb"] > 0 for stage in found["stages"].values())
    metrics = found["metrics"]
    assert {
        "mean_iou",
        "mean_iou_crf",
        "mean_iou_true_tags",
        "per_class_iou",
        "mean_ap",
        "images",
    } <= metrics.keys()
    assert metrics["images"] == yaml.safe_load(SMOKE.read_text())["test_images"]
    for name in ("log.csv", "per_image.csv", "ablation.csv", "panels/epoch-000.png", "report.html"):
        assert (run / name).stat().st_size > 100, name
    with open(run / "ablation" / "table.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    columns = ["dataset", "run", "variant", "context", "fusion", "seed", "recipe", "crf", "tags", "mean_iou"]
    assert list(cells[0])[:10] == columns and len(cells) == 5 * 4, (
        "four corners and the CAM baseline; recipes and tags"
    )
    assert f"mean_iou {metrics['mean_iou']:.4f}" in done.stdout
    assert f"report: {run / 'report.html'}" in done.stdout


@pytest.mark.notebooks
def test_every_number_can_be_traced(smoke):
    """To settings, seed, code, versions, device, data, time, memory, and the files behind it; the report shows them."""
    run, _, _ = smoke
    stages_of, page = read_run(run)["stages"], (run / "report.html").read_text("utf-8")
    for name, stage in stages_of.items():
        assert {
            "settings",
            "commit",
            "dirty",
            "code",
            "python",
            "versions",
            "platform",
            "processor",
            "device",
        } <= stage.keys(), name
        assert stage["seconds"] > 0 and stage["peak_memory_mb"] > 0 and stage["versions"]["torch"] in page
    assert (
        stages_of["02_train"]["settings"]["seed"] == 0
        and stages_of["02_train"]["data"] == stages_of["05_evaluate"]["data"]
    )
    files = stages_of["05_evaluate"]["files"]
    assert files == files_of(run) and {"last.safetensors", "masks/test"} <= files.keys()
    assert stages_of["02_train"]["files"].items() <= files.items()
    for told in (*files.values(), *stages_of["02_train"]["data"].values()):
        assert told in page


@pytest.mark.notebooks
def test_every_picture_is_in_the_report(smoke):
    run, _, _ = smoke
    captions, page = (
        json.loads((run / "figures" / "captions.json").read_text("utf-8")),
        (run / "report.html").read_text("utf-8"),
    )
    assert captions.keys() == {path.name for path in (run / "figures").glob("*.png")} and len(captions) >= 10
    assert len({caption["order"] for caption in captions.values()}) == len(captions)
    for caption in captions.values():
        assert f'alt="{caption["title"].split("&")[0]}' in page


@pytest.mark.notebooks
def test_executed_copies_are_kept_and_quiet(smoke):
    run, _, _ = smoke
    for name in NOTEBOOKS:
        book = nbformat.read(run / "notebooks" / f"{name}.ipynb", as_version=4)
        outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
        assert outputs and not [output.text for output in outputs if output.get("name") == "stderr"], name


@pytest.mark.notebooks
def test_a_second_pass_has_nothing_to_do(smoke, capsys):
    run, params, _ = smoke
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".run_all"}
    assert run_all.main(["--params", str(params)]) == 0
    assert capsys.readouterr().out.count("finished before, nothing changed") == len(NOTEBOOKS)
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.notebooks
def test_other_settings_of_a_finished_training_are_refused_with_the_two_ways_on(smoke, tmp_path, capsys):
    run, params, _ = smoke
    before = {path: path.read_bytes() for path in [run / "log.csv", *(run / "checkpoints").iterdir()]}
    (tmp_path / "other.yaml").write_text(params.read_text() + "\nlr: 0.5\n")
    assert run_all.main(["--params", str(tmp_path / "other.yaml"), "--only", "02"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[1].startswith("FAILED  02_train, cell In [")
    assert "run run has other settings in its checkpoints: lr 0.001 → 0.5" in told[2]
    assert "run_all.py --run-name other" in told[3]
    assert "run_all.py --fresh, which keeps the old run" in told[4]
    assert before == {path: path.read_bytes() for path in before}
    assert run_all.main(["--params", str(params), "--only", "02"]) == 0, "with its own settings it is whole"


@slow
@pytest.mark.notebooks
def test_other_data_of_a_finished_training_are_refused(smoke, tmp_path, capsys):
    run, params, _ = smoke
    given = yaml.safe_load(params.read_text())
    copy = shutil.copytree(run, tmp_path / "run")
    other = {"run": str(copy), "raw": str(tmp_path / "raw"), "train_images": 32}
    (tmp_path / "fewer.yaml").write_text(yaml.safe_dump(given | other))
    command = ["--only", "01", "02", "--params"]
    assert run_all.main([*command, str(tmp_path / "fewer.yaml")]) == 1
    told = capsys.readouterr().err
    assert "train.csv" in told and "--run-name" in told and "--fresh" in told
    assert (copy / "log.csv").read_bytes() == (run / "log.csv").read_bytes()
    assert run_all.main([*command, str(params)]) == 0, "and its own data come again"


@slow
@pytest.mark.notebooks
def test_papermill_alone_takes_the_same_file_and_reopens_the_run(smoke, tmp_path):
    run, params, _ = smoke
    before, weights = (run / "log.csv").read_bytes(), sorted((run / "checkpoints").iterdir())
    given = yaml.safe_load(params.read_text())
    copy = tmp_path / "out.ipynb"
    papermill.execute_notebook(NOTEBOOKS["02_train"], copy, given, cwd=tmp_path, progress_bar=False)
    assert (run / "log.csv").read_bytes() == before and sorted((run / "checkpoints").iterdir()) == weights
    assert "trained already" in copy.read_text()


@slow
@pytest.mark.notebooks
def test_a_cluster_trains_the_ablation_task_by_task(smoke, tmp_path):
    """A task works in the folders of its own configurations and ends well, while another process holds the run."""
    run, params, _ = smoke
    given = yaml.safe_load(params.read_text()) | {"only": "no-align-s0", "details": 1}
    notebook, copy = NOTEBOOKS["04_ablations"], tmp_path / "out.ipynb"
    with RunFolder.open(run, {}, "another"):
        before = (run / "run.json").read_bytes()
        papermill.execute_notebook(notebook, copy, given, progress_bar=False)
    assert (run / "run.json").read_bytes() == before
    assert read_run(run / "ablation" / "no-align-s0")["stages"]["04_ablations"]["finished"]
    with pytest.raises(papermill.PapermillExecutionError, match="'no-aline-s0' must name .* of these: aspp-"):
        papermill.execute_notebook(notebook, copy, given | {"only": "no-aline-s0"}, progress_bar=False)


@slow
@pytest.mark.notebooks
@pytest.mark.parametrize(
    "given, message",
    [
        ({"epohcs": 3}, "no notebook has a parameter 'epohcs': did you mean 'epochs'?"),
        (
            {"epochs": 0, "more": {"mask_weight": -1}},
            "epochs=0: should be greater than or equal to 1; mask_weight=-1: ",
        ),
        ({"data": "data/prepared/absent"}, "run notebooks/01_prepare_data"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, dict) else "",
)
def test_bad_settings_stop_a_notebook_before_it_works(tmp_path, given, message):
    with pytest.raises(papermill.PapermillExecutionError) as stopped:
        papermill.execute_notebook(
            NOTEBOOKS["02_train"],
            tmp_path / "out.ipynb",
            {"run": str(tmp_path / "run")} | given,
            progress_bar=False,
        )
    assert message in stopped.value.evalue
    assert not (tmp_path / "run").exists()


@slow
@pytest.mark.notebooks
def test_a_part_of_voc_without_its_first_classes_is_prepared(tmp_path):
    """Some pictures of sheep, the 17th class, and nothing else."""
    base, rng = tmp_path / "VOCdevkit" / "VOC2012", np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(base / f"JPEGImages/{name}.jpg")
        Image.fromarray(np.full((40, 60), 17, np.uint8)).save(base / f"SegmentationClass/{name}.png")
    for split, names in (("train", "a\nb\n"), ("val", "c\n")):
        (base / f"ImageSets/Segmentation/{split}.txt").write_text(names)
    given = {"run": "run", "data": "data", "raw": "raw", "root": "."}
    given = {name: str(tmp_path / place) for name, place in given.items()} | {
        "dataset": "voc",
        "train_list": "train",
    }
    papermill.execute_notebook(NOTEBOOKS["01_prepare_data"], tmp_path / "o.ipynb", given, progress_bar=False)
    assert (tmp_path / "data" / "train.csv").read_text().count("sheep") == 2
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} == {
        "training-images",
        "masks",
    }


@pytest.fixture
def demo():
    """The finished default run, made by this code."""
    stages = run_all.read_run(RUNS / "demo")["stages"] if (RUNS / "demo" / "run.json").exists() else {}
    made = [stages.get(name, {}) for name in NOTEBOOKS]
    if not all(stage.get("finished") and stage.get("code") == code_hash() for stage in made):
        pytest.skip("data/runs/demo was not made by this code: notebooks/run_all.py --fresh makes it")
    return RUNS / "demo"


@pytest.mark.notebooks
def test_committed_outputs_come_again(demo, tmp_path):
    kept = shutil.copytree(demo / "figures", tmp_path / "figures")
    options = [
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-sanitize-with",
        str(ROOT / "tests" / "nbval.cfg"),
        "-q",
        "-x",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", *map(str, NOTEBOOKS.values())],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert {path.name for path in kept.iterdir()} == {path.name for path in (demo / "figures").iterdir()}
