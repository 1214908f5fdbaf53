"""A disk that is full or read-only: the error says what to do, what was written before is whole, and work goes on later."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import equal, log_of, settings, weights
from wsfcn_lib.ablation.grid import reuse_training
from wsfcn_lib.checkpoints import CheckpointError, load_snapshot, save_snapshot, snapshots
from wsfcn_lib.config import NetConfig
from wsfcn_lib.data.glyphs import GlyphSettings, make_glyphs
from wsfcn_lib.data.images import save_mask
from wsfcn_lib.data.manifest import ClassInfo, Manifest
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.evaluation.diagnostics import DiagnosticsRecorder
from wsfcn_lib.evaluation.image_counts import ImageCounts
from wsfcn_lib.evaluation.inputs import manifest_of
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.network import build_network
from wsfcn_lib.runs.folder import RunFolder
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.storage import atomic_write, make_folder

FULL = re.escape("make room on its disk (or in your quota), and start again")
WEIGHTS = "make room on its disk, or get the right to write there, and start again"
CLOSED = "get the right to write there, or choose a folder where you have it, and start again"
TINY = NetConfig(backbone="tiny", width=16, dilations=(1, 2, 3, 4), num_classes=2)
CLASSES = [ClassInfo(name="cat", mask_id=1, colour=(1, 2, 3)).model_dump()]


@contextmanager
def room(size):
    """No file can grow beyond `size` bytes: the system refuses as where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_file_is_whole_or_as_before(tmp_path):
    atomic_write(tmp_path / "a.txt", "old")
    with room(1000), pytest.raises(OSError, match=rf"{FULL}; what was written before is whole: '.*a\.txt'"):
        atomic_write(tmp_path / "a.txt", bytes(5000))
    assert content(tmp_path) == {tmp_path / "a.txt": b"old"}


@pytest.mark.parametrize("name", ["n" * 255, "λ" * 127, "a" * 39 + "🙂" * 54])
def test_the_longest_names_can_be_written(tmp_path, name):
    atomic_write(tmp_path / name, "x")
    assert os.listdir(tmp_path) == [name]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        NotADirectoryError, match="a file is where a folder must be.*move it away and start again;"
    ):
        RunFolder.open(tmp_path / "file" / "run", {}, "02_train")


def train_with(run, data, size=None):
    """The training of `finished` in a process of its own, whose files cannot grow beyond `size`."""
    file = run.with_suffix(".json")
    file.write_text(settings(data).model_dump_json())
    limit = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({size}, r.RLIM_INFINITY)); " if size else ""
    code = f"{limit}import sys; from wsfcn_lib.train import main; sys.argv[1:] = [{str(run)!r}, '--settings', {str(file)!r}]; main()"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_a_training_that_meets_a_full_disk_goes_on_when_there_is_room(data, finished, tmp_path):
    """At its log, at its first snapshot, and at a resume state, which is the larger of both."""
    run = tmp_path / "run"
    sizes = {
        kind: next((finished[0] / "checkpoints").glob(kind)).stat().st_size for kind in ("last*", "state*")
    }
    assert 2000 < sizes["last*"] < sizes["state*"]
    for size, where in (
        (2000, ""),
        ((sizes["last*"] + sizes["state*"]) // 2, "state.part cannot be written"),
    ):
        done = train_with(run, data, size)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert where in done.stderr and "make room on its disk" in done.stderr
        assert json.loads((run / "run.json").read_text()) and not list(run.rglob("*.part"))
    done = train_with(run, data)
    assert done.returncode == 0, done.stderr
    assert log_of(run) == log_of(finished[0]) and equal(weights(run), weights(finished[0]))
    assert [path.name for path in snapshots(run / "checkpoints")] == [
        path.name for path in snapshots(finished[0] / "checkpoints")
    ]


def test_a_snapshot_is_whole_or_as_before(tmp_path):
    net = build_network(TINY)
    path = save_snapshot(net, tmp_path / "net.safetensors", CLASSES, epoch=1)
    with (
        room(20_000),
        pytest.raises(
            CheckpointError, match=rf"net\.safetensors\.part cannot be written \(.*{WEIGHTS}: it goes on"
        ),
    ):
        save_snapshot(net, path, CLASSES, epoch=2)
    assert load_snapshot(path)[2] == {"epoch": 1} and os.listdir(tmp_path) == [path.name]


@pytest.fixture
def full(monkeypatch):
    """Switches a disk that is full on."""

    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    return lambda: monkeypatch.setattr(os, "fsync", refuse)


def test_preparation_and_evaluation_meet_a_full_disk(tmp_path, full):
    root = tmp_path / "own"
    for k, tag in enumerate(("cat", "dog") * 3):
        (root / tag).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(k).integers(0, 256, (80, 80, 3), np.uint8)
        Image.fromarray(noise).save(root / tag / f"{k}.png")
    chosen = SourceSettings(dataset="folder", root=str(root), max_side=60)
    before = prepare(chosen, tmp_path / "data").manifest.checksums()
    full()
    with pytest.raises(OSError, match=FULL):
        prepare(
            SourceSettings(**chosen.model_dump() | {"root": str(root), "max_side": 70}), tmp_path / "data"
        )
    manifest = Manifest.load(tmp_path / "data")
    assert manifest.checksums() == before and all(
        Image.open(s.image).size == (60, 60) for s in manifest.samples("train")
    )


def test_an_evaluation_meets_a_full_disk(tmp_path, full):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    net = build_network(TINY).eval()
    evaluation = EvalSettings(images=str(tmp_path / "a.png"), scales=(1.0,), use_crf=False)
    evaluate(net, manifest_of(CLASSES), evaluation, tmp_path / "run")
    before = content(tmp_path / "run")
    assert len(before) == 4
    full()
    with pytest.raises(OSError, match=FULL):
        evaluate(net, manifest_of(CLASSES), evaluation, tmp_path / "run")
    assert content(tmp_path / "run") == before


@pytest.fixture
def public():
    """A folder that a process without rights can reach, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*/"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def without_rights(work):
    """The error that `work` ends with in a process that is not root's, to whom nothing would be read-only."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            work()
            told = "no error"
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with open(reader) as file:
        return file.read()


def test_a_read_only_run_is_told_and_stays_as_it_was(public):
    """In a new place, and in a run that is there."""
    (public / "closed").mkdir(mode=0o555)
    with RunFolder.open(public / "run", {"epochs": 3}, "02_train"):
        before = content(public)
    (public / "run").chmod(0o555)
    (public / "run/.lock").chmod(0o444)
    for place, file in (("closed/new", "closed/new"), ("run", "run/.lock")):
        told = without_rights(lambda place=place: RunFolder.open(public / place, {}, "03_explore"))
        assert told.startswith(f"PermissionError: [Errno 13] Permission denied: {CLOSED}") and told.endswith(
            f"{file}'"
        )
    told = without_rights(lambda: atomic_write(public / "run/run.json", "x"))
    assert told.startswith(f"PermissionError: [Errno 13] Permission denied: {CLOSED}") and told.endswith(
        "run.json'"
    )
    told = without_rights(lambda: save_snapshot(build_network(TINY), public / "run/net.safetensors", CLASSES))
    assert (
        told.startswith("CheckpointError: ")
        and "net.safetensors.part cannot be written (" in told
        and WEIGHTS in told
    )
    assert content(public) == before


@pytest.mark.parametrize("what", ["scenes", "counts", "a borrowed training"])
def test_whatever_is_written_meets_a_full_disk_with_advice(data, finished, tmp_path, what):
    place = tmp_path / "place"
    counter = DiagnosticsRecorder()
    sizes = np.random.default_rng(0).integers(0, 2**31, 2000)
    counter.counts = [ImageCounts(*np.zeros((3, 1, 3, 4), int), sizes, np.zeros((2000, 1), int), 2**31)]
    run = RunFolder.open(finished[0], settings(data).model_dump(), "02_train")
    run.record("02_train", finished=True)
    run.close()
    works = {
        "scenes": lambda: make_glyphs(place, GlyphSettings(size=96, train=2, val=1, test=1)),
        "counts": lambda: counter.save(place),
        "a borrowed training": lambda: reuse_training(finished[0], {place: settings(data)}),
    }
    with room(1500), pytest.raises(OSError, match=FULL) as caught:
        works[what]()
    assert caught.value.filename and str(tmp_path) in caught.value.filename
    works[what]()  # with room it goes on
    assert content(place)


def test_folders_that_cannot_be_made_are_told(public):
    (public / "closed").mkdir(mode=0o555)
    place = public / "closed" / "new"
    manifest, labels = manifest_of(CLASSES), np.zeros((4, 4), np.uint8)
    for work in (
        lambda: save_mask(place / "a.png", labels, manifest),
        lambda: make_glyphs(place, GlyphSettings(train=1, val=1, test=1)),
        lambda: atomic_write(place / "deep" / "a.txt", "x"),
        lambda: make_folder(place),
    ):
        told = without_rights(work)
        assert (
            told.startswith(f"PermissionError: [Errno 13] Permission denied: {CLOSED}") and str(place) in told
        ), told
    assert not list((public / "closed").iterdir())
