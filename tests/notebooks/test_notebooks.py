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

import stages
from factories import RUN_ALL, SMOKE
from keep_outputs import HASH
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.paths import ROOT, RUNS
from wsfcn_lib.runs.provenance import code_hash, files_of

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_come_from_this_code(path):
    recorded = nbformat.read(path, as_version=4).metadata.get(HASH)
    assert recorded == code_hash(path), (
        "library or notebook changed since its outputs were made: make notebooks"
    )


def command(*arguments, cwd=ROOT):
    return subprocess.run([*RUN_ALL, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """(run folder, params file, finished process) of a pass over all notebooks, started from another directory."""
    home = tmp_path_factory.mktemp("smoke")
    places = {"run": str(home / "run"), "raw": str(home / "raw"), "data": str(home / "prepared")}
    (home / "smoke.yaml").write_text(yaml.safe_dump(yaml.safe_load(SMOKE.read_text()) | places))
    return home / "run", home / "smoke.yaml", command("--params", home / "smoke.yaml", cwd=home)


@pytest.mark.notebooks
def test_one_pass_leaves_a_whole_run(smoke):
    run, _, done = smoke
    assert done.returncode == 0, done.stderr
    found = read_run(run)
    assert {name for name, stage in found["stages"].items() if stage["finished"]} == {
        path.stem for path in NOTEBOOKS
    }
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
    assert f"{metrics['mean_iou']:.4f}" in done.stdout and str(run / "report.html") in done.stdout


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
    for path in NOTEBOOKS:
        book = nbformat.read(run / "notebooks" / path.name, as_version=4)
        outputs = [
            (cell.execution_count, output) for cell in book.cells for output in cell.get("outputs", ())
        ]
        assert not [(count, output.text) for count, output in outputs if output.get("name") == "stderr"], (
            path.stem
        )


@pytest.mark.notebooks
def test_a_second_pass_has_nothing_to_do(smoke):
    run, params, _ = smoke
    done = command("--params", params)
    assert done.returncode == 0 and done.stdout.count("finished before, nothing changed") == len(NOTEBOOKS)


@pytest.mark.notebooks
def test_papermill_alone_takes_the_same_file_and_reopens_the_run(smoke, tmp_path):
    run, params, _ = smoke
    before, weights = (run / "log.csv").read_bytes(), sorted((run / "checkpoints").iterdir())
    papermill.execute_notebook(
        ROOT / "notebooks/02_train.ipynb",
        tmp_path / "out.ipynb",
        yaml.safe_load(params.read_text()),
        cwd=tmp_path,
        progress_bar=False,
    )
    assert (run / "log.csv").read_bytes() == before and sorted((run / "checkpoints").iterdir()) == weights
    assert "trained already" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.notebooks
def test_a_cluster_trains_cells_task_by_task(smoke, tmp_path):
    """A task works in its own cells' folders and ends well, while another process holds the run."""
    run, params, _ = smoke
    given = yaml.safe_load(params.read_text()) | {"only": "no-align-s0", "details": 1}
    options = {"cwd": tmp_path, "progress_bar": False}
    with RunFolder.open(run, {}, "another"):
        before = (run / "run.json").read_bytes()
        papermill.execute_notebook(
            ROOT / "notebooks/04_ablations.ipynb", tmp_path / "out.ipynb", given, **options
        )
    assert (run / "run.json").read_bytes() == before
    assert read_run(run / "ablation" / "no-align-s0")["stages"]["04_ablations"]["finished"]
    with pytest.raises(
        papermill.PapermillExecutionError, match="'no-aline-s0' must name cells of these: aspp-gci-s0"
    ):
        papermill.execute_notebook(
            ROOT / "notebooks/04_ablations.ipynb",
            tmp_path / "out.ipynb",
            given | {"only": "no-aline-s0"},
            **options,
        )


@pytest.mark.notebooks
@pytest.mark.parametrize(
    "given, message",
    [
        ({"epohcs": 3}, "no notebook has a parameter 'epohcs': did you mean 'epochs'?"),
        ({"epochs": 0, "more": {"flor": 0.1}}, "epochs\n  Input should be greater than or equal to 1"),
        ({"data": "data/prepared/absent"}, "run notebooks/01_prepare_data"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, dict) else "",
)
def test_bad_settings_stop_a_notebook_before_it_works(tmp_path, given, message):
    with pytest.raises(papermill.PapermillExecutionError) as stopped:
        papermill.execute_notebook(
            ROOT / "notebooks/02_train.ipynb",
            tmp_path / "out.ipynb",
            {"run": str(tmp_path / "run")} | given,
            progress_bar=False,
        )
    assert message in stopped.value.evalue
    assert not (tmp_path / "run").exists()


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
    papermill.execute_notebook(
        ROOT / "notebooks/01_prepare_data.ipynb", tmp_path / "o.ipynb", given, progress_bar=False
    )
    assert (tmp_path / "data" / "train.csv").read_text().count("sheep") == 2
    assert {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")} == {
        "training-images",
        "masks",
    }


@pytest.mark.notebooks
def test_a_failure_names_notebook_cell_error_and_copy(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"stages": {}}')
    done = command("--run-name", tmp_path / "run", "--only", "03", "05")
    assert done.returncode == 1
    assert "FAILED  03_explore, cell In [" in done.stderr and "run 02_train on it first" in done.stderr
    assert str(tmp_path / "run" / "notebooks" / "03_explore.ipynb") in done.stderr
    assert "--- 05_evaluate" not in done.stdout, "what stands on a failed stage is not started"


@pytest.mark.notebooks
def test_too_long_a_notebook_is_ended(tmp_path, smoke):
    _, params, _ = smoke
    slow = tmp_path / "slow.yaml"
    slow.write_text(
        yaml.safe_dump(yaml.safe_load(params.read_text()) | {"epochs": 999, "run": str(tmp_path / "run")})
    )
    done = command("--params", slow, "--only", "02", "--timeout", 4)
    assert (
        done.returncode == 1 and "FAILED  02_train" in done.stderr and "it took more than 4 s" in done.stderr
    )


@pytest.fixture(scope="module")
def demo():
    """The finished default run; made (in some minutes) where there is none of this code."""
    plan = stages.plan({}, RUNS / "demo")
    if any(stages.news(stage, plan) is None or "code" in stages.news(stage, plan) for stage in stages.STAGES):
        done = command("--run-name", "demo", "--fresh")
        assert done.returncode == 0, done.stderr
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
        [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider", *map(str, NOTEBOOKS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert {path.name for path in kept.iterdir()} == {path.name for path in (demo / "figures").iterdir()}
