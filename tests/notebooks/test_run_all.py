"""The command line around the notebooks: usage, what is skipped, and how outputs are kept. No notebook is run here."""

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import time

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

import folders
import keep_outputs
import run_all
import stages
import training_code
from wsfcn_lib.data.glyphs import GlyphSettings
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.paths import ROOT, RUNS
from wsfcn_lib.runs.provenance import code_hash


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
        ("01_prepare_data: {image_size: 64}", "no notebook has a parameter '01_prepare_data'"),
    ],
)
def test_bad_params_files_are_usage_errors(capsys, params, text, message):
    assert message in usage_error(capsys, "--params", params(text))


def test_other_usage_errors(capsys, params, tmp_path):
    assert "No such file" in usage_error(capsys, "--params", tmp_path / "absent.yaml")
    assert "--only 09: choose from 01_prepare_data, 02_train" in usage_error(capsys, "--only", "02", "09")
    assert "into one folder" in usage_error(
        capsys, "--params", params(""), params("", "other"), "--run-name", "x"
    )
    assert "names the same run" in usage_error(
        capsys, "--params", params("run: data/runs/x"), params("run: data/runs/x", "other")
    )
    assert "takes no --params" in usage_error(capsys, "--commit", "--run-name", "x")


def test_runs_are_named_by_option_or_file(params, tmp_path):
    def named(*arguments):
        return [*run_all.parse([str(argument) for argument in arguments])[1]]

    assert named() == [RUNS / "demo"]
    assert named("--run-name", "mine") == [RUNS / "mine"]
    assert named("--run-name", tmp_path / "there") == [tmp_path / "there"]
    assert named("--params", params(""), params("", "b")) == [RUNS / "mine", RUNS / "b"]
    assert named("--params", params("run: data/runs/c")) == [RUNS / "c"]
    assert named("--params", params("run: data/runs/c"), "--run-name", "d") == [RUNS / "d"]


def test_the_ablation_is_left_out_where_nothing_could_be_compared(params, tmp_path, capsys, monkeypatch):
    arguments = ["--params", str(params(f"data: {tmp_path}")), "--run-name", str(tmp_path / "run")]
    (run, plan), *_ = run_all.parse(arguments)[1].items()
    assert not stages.pointless("04_ablations", plan), "notebook 01 may still come"
    (tmp_path / "classes.json").write_text('[{"name": "dog", "mask_id": 1, "colour": [9, 9, 9]}]')
    (tmp_path / "train.csv").write_text("image,tags\na.jpg,dog\n")
    (tmp_path / "val.csv").write_text("image,tags,mask\nb.jpg,dog,\n")
    monkeypatch.setattr(run_all, "execute", lambda *_: pytest.fail("there is nothing to compare by"))
    run_all.run_stages(run, plan, ("04",), None)
    assert "04_ablations: left out, no image of val has a mask to compare by" in capsys.readouterr().out
    assert not stages.pointless("05_evaluate", plan)
    (tmp_path / "val.csv").write_text("image,tags,mask\nb.jpg,dog,b.png\n")
    assert not stages.pointless("04_ablations", plan)


def test_each_notebook_gets_the_settings_it_declares(params):
    (run, plan), *_ = run_all.parse(["--params", str(params("epochs: 3\nimage_size: 64"))])[1].items()
    assert plan["02_train"]["epochs"] == 3 and "image_size" not in plan["02_train"]
    assert plan["01_prepare_data"]["image_size"] == 64 and "epochs" not in plan["01_prepare_data"]
    assert {values["run"] for values in plan.values()} == {str(run.relative_to(ROOT))}


@pytest.fixture
def made(tmp_path):
    """A run whose first two stages look finished, and its plan."""
    prepare(
        SourceSettings(raw=str(tmp_path / "raw"), glyphs=GlyphSettings(size=48, train=4, val=2, test=2)),
        tmp_path / "data",
    )
    run = tmp_path / "run"
    plan = stages.plan({"data": str(tmp_path / "data")}, run)
    for stage in ("01_prepare_data", "02_train"):
        with RunFolder.open(run, {}, stage) as folder:
            if stage == "02_train":
                (run / "checkpoints").mkdir()
                (run / "checkpoints" / "last.safetensors").write_bytes(b"weights")
            folder.record(stage, finished=True, evidence=stages.evidence(stage, plan))
    return run, plan


def test_what_is_finished_and_unchanged_is_skipped(made):
    run, plan = made
    assert stages.news("01_prepare_data", plan) == stages.news("02_train", plan) == []
    assert stages.news("03_explore", plan) is None


def test_changes_are_seen_by_the_stages_they_concern(made, monkeypatch):
    run, plan = made
    assert stages.news("02_train", plan | {"02_train": plan["02_train"] | {"epochs": 99}}) == ["epochs"]
    (run / "checkpoints" / "last.safetensors").write_bytes(b"other")
    assert (
        stages.news("02_train", plan) == ["checkpoints/last.safetensors"]
        and stages.news("01_prepare_data", plan) == []
    )
    with open(plan["02_train"]["data"] + "/train.csv", "a") as file:
        file.write("\n")
    assert stages.news("01_prepare_data", plan) == ["train.csv"]
    monkeypatch.setattr(stages, "code_hash", lambda _=None: "new")
    assert stages.news("01_prepare_data", plan) == ["code", "train.csv"]


def complete(run, plan, monkeypatch, *only, **options):
    """The stages that run_all executes to bring a run to its end; each is taken to finish."""
    done = []

    def execute(stage, values, *_):
        done.append(stage)
        with RunFolder.open(run, values, stage, ignore=values) as folder:
            folder.record(stage, finished=True)

    monkeypatch.setattr(run_all, "execute", execute)
    usual = {"fresh": False, "commit": False, "keep": False, "only": [*only], "timeout": None}
    run_all.complete(run, plan, argparse.Namespace(**usual | options))
    return done


@pytest.mark.parametrize(
    "stage, changes, why",
    [
        ("02_train", {"epochs": 99}, "epochs"),
        ("02_train", {"more": {"size_offset": 0.1}}, "more.size_offset"),
        ("01_prepare_data", {"image_size": 40}, "image_size"),
    ],
)
def test_a_run_of_other_settings_begins_anew_and_the_earlier_one_is_kept(
    made, monkeypatch, capsys, stage, changes, why
):
    run, plan = made
    before = {
        path.name: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"
    }
    assert complete(run, plan | {stage: plan[stage] | changes}, monkeypatch, "01", "02") == [
        "01_prepare_data",
        "02_train",
    ]
    kept = run.with_name("run-before")
    assert {path.name: path.read_bytes() for path in kept.rglob("*") if path.name in before} == before
    assert f"was made with other {why}; it is kept as" in capsys.readouterr().out
    assert (
        not (run / "checkpoints" / "last.safetensors").exists()
        and read_run(run)["stages"]["02_train"]["finished"]
    )
    assert complete(run, plan | {stage: plan[stage] | changes}, monkeypatch, "01", "02") == [], (
        "and once is enough"
    )


def test_a_training_of_other_code_or_lists_begins_anew_or_is_kept_as_asked(made, monkeypatch, capsys):
    run, plan = made
    monkeypatch.setattr(stages, "training_code", lambda: "new")
    record = (run / "run.json").read_text()
    assert complete(run, plan, monkeypatch, "02", keep=True) == []
    assert "kept as asked" in capsys.readouterr().out and (run / "run.json").read_text() == record, (
        "it is told again next time"
    )
    assert complete(run, plan, monkeypatch, "02") == ["02_train"] and run.with_name("run-before").exists()
    with open(plan["02_train"]["data"] + "/train.csv", "a") as file:
        file.write("\n")
    assert (
        complete(run, plan, monkeypatch, "02", keep=True) == ["02_train"]
        and run.with_name("run-before2").exists()
    )
    assert "was made with other train.csv" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"workers": 0}, {"device": "cpu"}, {"more": {"snapshot_every": 3}}])
def test_what_changes_no_result_puts_nothing_aside(made, monkeypatch, changes):
    run, plan = made
    assert complete(run, plan | {"02_train": plan["02_train"] | changes}, monkeypatch, "02") == ["02_train"]
    assert not run.with_name("run-before").exists()


@pytest.fixture
def interrupted(made):
    """A run whose training was begun by its settings, left a file, and did not end."""
    run, plan = made
    config, sums = stages.training(plan).model_dump(), Manifest.load(plan["02_train"]["data"]).checksums()
    record = read_run(run)
    del record["stages"]["02_train"]
    (run / "run.json").write_text(json.dumps(record))
    with RunFolder.open(run, config, "02_train") as folder:
        folder.record("02_train", data=sums)
    return run, plan


@pytest.mark.parametrize(
    "changes, why", [({"lr": 0.5}, "lr"), ({"more": {"size_offset": 0.1}}, "size_offset"), ({}, "train.csv")]
)
def test_an_interrupted_training_of_other_settings_or_lists_is_put_aside(
    interrupted, monkeypatch, capsys, changes, why
):
    run, plan = interrupted
    if not changes:
        with open(plan["02_train"]["data"] + "/train.csv", "a") as file:
            file.write("\n")
    other = plan | {"02_train": plan["02_train"] | changes}
    assert complete(run, other, monkeypatch, "02") == ["02_train"]
    assert f"was made with other {why}; it is kept as" in capsys.readouterr().out
    assert (run.with_name("run-before") / "checkpoints" / "last.safetensors").read_bytes() == b"weights"


def test_a_training_that_another_launcher_ended_is_put_aside_for_other_settings(interrupted, monkeypatch):
    run, plan = interrupted
    with RunFolder.open(run, stages.training(plan).model_dump(), "02_train") as folder:
        folder.record("02_train", finished=True)
    assert stages.binding("02_train", plan) == []
    assert complete(run, plan | {"02_train": plan["02_train"] | {"lr": 0.5}}, monkeypatch, "02") == [
        "02_train"
    ]
    assert run.with_name("run-before").exists()


@pytest.mark.parametrize("what", ["nothing", "code", "workers", "no file yet", "lost lists", "no training"])
def test_an_interrupted_training_goes_on(interrupted, monkeypatch, what):
    run, plan = interrupted
    changes = {
        "workers": {"workers": 0},
        "no file yet": {"lr": 0.5},
        "no training": {"more": {"epohcs": 3}},
    }.get(what, {})
    if what == "code":
        monkeypatch.setattr(stages, "training_code", lambda: "new")
    elif what == "no file yet":
        (run / "checkpoints" / "last.safetensors").unlink()
    elif what == "lost lists":
        (run.parent / "data" / "val.csv").unlink()
    assert stages.binding("02_train", plan | {"02_train": plan["02_train"] | changes}) == []


def test_lost_lists_put_nothing_aside(made, monkeypatch):
    """An unmounted disk, or a deleted data set that notebook 01 writes again."""
    run, plan = made
    for name in ("classes.json", "train.csv", "val.csv"):
        (run.parent / "data" / name).unlink()
    assert complete(run, plan, monkeypatch, "01", "02") == ["01_prepare_data", "02_train"]
    assert not run.with_name("run-before").exists()


def test_settings_that_change_no_data_are_taken_up_in_place(made, monkeypatch):
    run, plan = made
    other = plan | {"01_prepare_data": plan["01_prepare_data"] | {"download": True}}
    assert (
        complete(run, other, monkeypatch, "01", "02") == ["01_prepare_data"]
        and not run.with_name("run-before").exists()
    )
    assert complete(run, other, monkeypatch, "01", "02") == []


def record_of(run, stage, change):
    """Alter what run.json tells of a stage's evidence."""
    known = read_run(run)
    change(known["stages"][stage]["evidence"])
    (run / "run.json").write_text(json.dumps(known))


def test_a_training_from_before_its_code_was_recorded_is_kept(made, monkeypatch):
    run, plan = made
    record_of(run, "02_train", lambda evidence: evidence.update(code=evidence.pop("training code")[::-1]))
    assert complete(run, plan, monkeypatch, "01", "02") == []


def test_a_parameter_that_a_notebook_has_got_since_is_no_change(made, monkeypatch):
    run, plan = made
    record_of(run, "02_train", lambda evidence: evidence["settings"].pop("lr"))
    assert complete(run, plan, monkeypatch, "02") == []
    assert stages.binding("02_train", plan | {"02_train": plan["02_train"] | {"lr": 0.5}}) == ["lr"]


def test_keep_holds_beside_harmless_changes(made, monkeypatch, capsys):
    run, plan = made
    monkeypatch.setattr(stages, "training_code", lambda: "new")
    other = plan | {"02_train": plan["02_train"] | {"workers": 0}}
    assert (
        complete(run, other, monkeypatch, "02", keep=True) == [] and not run.with_name("run-before").exists()
    )
    assert "--keep leaves a training" in usage_error(capsys, "--keep", "--fresh")


def test_settings_that_make_no_training_leave_the_run(made, monkeypatch):
    run, plan = made
    other = plan | {"02_train": plan["02_train"] | {"more": {"epohcs": 3}}}
    with pytest.raises(folders.RunError, match="these settings make no training, so the run stays as it is"):
        complete(run, other, monkeypatch, "02")
    assert (run / "checkpoints" / "last.safetensors").exists()


def test_a_failed_preparation_binds_nobody_to_its_settings(tmp_path, monkeypatch):
    """As where other scenes were asked for and lie in the way: given again with the old settings, it goes on."""
    run, failed = tmp_path / "run", {"image_size": 40}
    with RunFolder.open(run, failed, "01_prepare_data"):
        pass

    def execute(stage, values, *_):
        with RunFolder.open(run, {"image_size": values["image_size"]}, stage) as folder:
            folder.record(stage, finished=True)

    plan = stages.plan({"image_size": 48}, run)
    options = argparse.Namespace(fresh=False, commit=False, keep=False, only=["01"], timeout=None)
    monkeypatch.setattr(run_all, "execute", execute)
    run_all.complete(run, plan, options)
    assert read_run(run)["stages"]["01_prepare_data"]["settings"] == {"image_size": 48}
    with RunFolder.open(run, {}, "02_train"):
        pass
    folders.forget_preparation(run, changed=False)
    assert [*read_run(run)["stages"]] == ["01_prepare_data", "02_train"], "what is finished or trained stays"


def test_a_lost_checkpoint_or_other_stages_put_nothing_aside(made, monkeypatch):
    run, plan = made
    (run / "checkpoints" / "last.safetensors").unlink()
    assert complete(run, plan, monkeypatch, "02") == ["02_train"]
    complete(run, plan, monkeypatch, "05")
    other = plan | {"05_evaluate": plan["05_evaluate"] | {"scales": [1.0]}}
    assert (
        complete(run, other, monkeypatch, "05") == ["05_evaluate"]
        and not run.with_name("run-before").exists()
    )


LOADED = "import sys, wsfcn_lib.train; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('wsfcn_lib.')))"


def test_training_code_is_what_a_training_loads_but_for_drawing():
    """As Python finds it: importing wsfcn_lib itself brings segment and what it needs, which train.py does not name."""
    found = {str(path) for path in training_code.training_files()}
    assert str(ROOT / "wsfcn_lib/data/files.py") in found, "which a sibling imports by `from .files`"
    drawn = {str(ROOT / "wsfcn_lib" / name) for name in ("panels.py", "plots.py")}
    loaded = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert found <= {*loaded} and len(found) > 20 and not found & drawn
    named = {
        str(ROOT / "wsfcn_lib" / name)
        for name in ("objective.py", "pamr.py", "losses.py", "data/transforms.py", "job.py")
    }
    assert named <= found and not any("explore" in path or "report" in path for path in found)


def test_training_code_changes_with_its_files_alone(tmp_path, monkeypatch):
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for path in files:
        path.write_text("1")
    monkeypatch.setattr(training_code, "ROOT", tmp_path)
    monkeypatch.setattr(training_code, "training_files", lambda: files[:1])
    first = training_code.training_code.__wrapped__()
    files[1].write_text("2")
    assert training_code.training_code.__wrapped__() == first
    files[0].write_text("2")
    assert training_code.training_code.__wrapped__() != first


@pytest.mark.parametrize("place", [".", "ablation/fca-sf2-s0"])
def test_a_run_at_work_is_not_put_aside(made, place):
    """Neither its own training nor a cell that another task trains."""
    run, _ = made
    hold = "import sys; from wsfcn_lib.runs import RunFolder; RunFolder.open(sys.argv[1], {}, 'x'); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(run / place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as other:
        assert other.stdout.readline() == "1\n"
        with pytest.raises(
            folders.RunError, match=f"in use by process {other.pid}, so run cannot be put aside"
        ):
            folders.put_aside(run, "other epochs")
        assert run.exists()
        other.communicate("\n")
    folders.put_aside(run, "other epochs")
    assert not run.exists()


def test_a_deleted_image_or_manifest_is_noticed(made):
    run, plan = made
    next((run.parent / "raw").rglob("*.jpg")).unlink()
    assert stages.news("01_prepare_data", plan) == ["images"]
    (run.parent / "data" / "classes.json").unlink()
    assert stages.news("01_prepare_data", plan) == ["classes.json", "images"]


def test_fresh_concerns_the_other_stages_too(made, monkeypatch):
    run, plan = made
    assert not stages.begun_otherwise(run, plan)
    monkeypatch.setattr(stages, "code_hash", lambda _=None: "new")
    assert complete(run, plan, monkeypatch, "02") == [], "what trained is what it was"
    assert (
        complete(run, plan, monkeypatch, "02", fresh=True) == ["02_train"]
        and run.with_name("run-before").exists()
    )


def test_fresh_leaves_an_interrupted_run_of_the_same_code(tmp_path, monkeypatch):
    with RunFolder.open(tmp_path / "run", {}, "02_train"):
        pass
    plan = stages.plan({}, tmp_path / "run")
    assert not stages.begun_otherwise(tmp_path / "run", plan)
    monkeypatch.setattr(stages, "code_hash", lambda _=None: "new")
    assert stages.begun_otherwise(tmp_path / "run", plan)


PART = """
import os, signal, sys, time
from pathlib import Path
import run_all
from wsfcn_lib.runs import RunFolder

def execute(stage, values, copy, timeout):
    \"\"\"A notebook: it opens the run, leaves something half done, and is killed there if it is the one.\"\"\"
    run = Path(values["run"])
    with RunFolder.open(run, values, stage) as folder:
        with open(run / "executed.txt", "a") as file:
            print(stage, end=" ", file=file, flush=True)
        if stage == sys.argv[1]:
            if sys.argv[2] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            (run / "waiting").touch()
            while (run / "waiting").exists():
                time.sleep(0.01)
        folder.record(stage, finished=True)

run_all.execute = execute
sys.exit(run_all.main(sys.argv[3:]))
"""


@pytest.fixture
def command(tmp_path, params):
    """Starts run_all.py with notebooks that do nothing, of which one is killed or waits."""
    (tmp_path / "part.py").write_text(PART)
    arguments = ["--params", str(params(f"data: {tmp_path / 'data'}")), "--run-name", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'notebooks'}"}

    def start(stage="none", how="wait", *more):
        words = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [sys.executable, tmp_path / "part.py", stage, how, *arguments, *more], env=environment, **words
        )

    return start


def ended(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("place", range(5))
def test_killed_in_a_notebook_it_goes_on_there(command, tmp_path, place):
    names = [*stages.STAGES]
    assert ended(command(names[place], "kill"))[0] == -9
    record = read_run(tmp_path / "run")["stages"]
    assert [name for name in names if record.get(name, {}).get("finished")] == names[:place]
    code, out, _ = ended(command())
    assert code == 0 and out.count("finished before, nothing changed") == place
    assert (tmp_path / "run/executed.txt").read_text().split() == [*names[: place + 1], *names[place:]]
    assert all(stage["finished"] for stage in read_run(tmp_path / "run")["stages"].values())


def test_a_second_command_on_the_same_run_stops_with_a_message(command, tmp_path):
    first = command("02_train")
    while not (tmp_path / "run/waiting").exists():
        assert first.poll() is None
        time.sleep(0.01)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    for more in ((), ("--fresh",), ("--only", "05")):
        code, _, err = ended(command("none", "wait", *more))
        assert (
            code == 1
            and "another run_all.py works on" in err
            and "choose another name with --run-name" in err
        )
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    (tmp_path / "run/waiting").unlink()
    assert ended(first)[0] == 0
    assert ended(command())[1].count("finished before, nothing changed") == 5


def test_only_stages_whose_inputs_changed_are_done_again(made):
    """Those of the training do not concern the preparation, nor the lists the report's notebook alone."""
    run, plan = made
    for changes, told in (
        ({"02_train": {"lr": 0.5}}, {"01_prepare_data": [], "02_train": ["lr"]}),
        ({"01_prepare_data": {"image_size": 48}}, {"01_prepare_data": ["image_size"], "02_train": []}),
    ):
        other = plan | {stage: plan[stage] | values for stage, values in changes.items()}
        assert {stage: stages.news(stage, other) for stage in told} == told


def executed(path, *outputs, source="1 + 1", **metadata):
    cell = new_code_cell(
        source, execution_count=1, outputs=[*outputs], metadata={"papermill": {"duration": 1}}
    )
    cell.id = "02-00"
    nbformat.write(new_notebook(cells=[cell], metadata={"papermill": {"duration": 1}} | metadata), path)
    return path


@pytest.fixture
def notebook(tmp_path):
    (tmp_path / "copies").mkdir()
    return executed(tmp_path / "02_train.ipynb"), tmp_path / "copies" / "02_train.ipynb"


def test_kept_outputs_carry_the_hash_and_nothing_of_the_machine(notebook):
    original, copy = notebook
    cell = new_code_cell("1 + 1", metadata={"tags": ["nbval-check-output"]})
    nbformat.write(new_notebook(cells=[cell]), original)
    executed(copy, new_output("stream", name="stdout", text="2"))
    keep_outputs.keep_outputs(copy.parent, [original])
    kept = nbformat.read(original, as_version=4)
    assert kept.cells[0].outputs[0].text == "2" and kept.cells[0].execution_count == 1
    assert kept.cells[0].metadata == {"tags": ["nbval-check-output"]} and kept.cells[0].id == cell.id
    assert kept.metadata.keys() == {"kernelspec", "language_info", keep_outputs.HASH}
    assert kept.metadata[keep_outputs.HASH] == code_hash(original)


def test_a_widget_is_not_kept_without_its_kernel(notebook):
    original, copy = notebook
    executed(
        copy,
        new_output("display_data", {keep_outputs.WIDGET: {"model_id": "1"}, "text/plain": "an explorer"}),
    )
    (output,) = nbformat.reads(keep_outputs.cleaned(copy, original), as_version=4).cells[0].outputs
    assert output.data == {"text/plain": "an explorer"}


def test_a_copy_of_another_version_is_refused(notebook):
    original, copy = notebook
    executed(copy, source="1 + 2")
    with pytest.raises(keep_outputs.OutputError, match="another version of 02_train.ipynb"):
        keep_outputs.cleaned(copy, original)


@pytest.mark.parametrize("kind", ["stream", "display_data"])
def test_paths_of_the_machine_are_refused(notebook, kind):
    original, copy = notebook
    words = f"saved to {ROOT}/data"
    executed(
        copy, new_output(kind, text=words) if kind == "stream" else new_output(kind, {"text/html": words})
    )
    with pytest.raises(
        keep_outputs.OutputError, match=r"02_train.ipynb, cell In \[1\] shows a path of this machine"
    ):
        keep_outputs.cleaned(copy, original)


def test_too_large_a_notebook_is_refused(notebook):
    original, copy = notebook
    executed(copy, new_output("stream", text="x" * 1_000_001))
    with pytest.raises(keep_outputs.OutputError, match="more than 1: show fewer pictures"):
        keep_outputs.cleaned(copy, original)


def test_large_pictures_become_jpegs_and_stay_alike():
    y, x = np.mgrid[:300, :300]
    noise = np.random.default_rng(0).integers(0, 9, (300, 300))
    picture = np.stack([x // 2 + noise, y // 2 + noise, (x + y) // 3 + noise], -1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    large = base64.b64encode(stream.getvalue()).decode()
    data, about = {"image/png": large, "text/plain": "a picture"}, {"image/png": {"alt": "slopes"}}
    keep_outputs.slim(data, about)
    again = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/jpeg"]))))
    assert len(data["image/jpeg"]) < 0.6 * len(large) and np.abs(again.astype(int) - picture).mean() < 4
    assert data.keys() == {"image/jpeg", "text/plain"} and about == {"image/jpeg": {"alt": "slopes"}}


def test_small_pictures_and_words_stay():
    for data in ({"image/png": "ZmV3"}, {"text/plain": "words"}):
        before = dict(data)
        keep_outputs.slim(data, {})
        assert data == before
