"""SIGKILL: a training that is killed at any moment and given again ends as one that ran through, bit for bit.

`make test-kill KILLS=20` kills more often; the default is three times, once for each way of running.
"""

import io
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from factories import MARK, kill, log_of, until, without_times
from wsfcn_lib.checkpoints import find_snapshot, load_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.glyphs import GlyphSettings
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.notebook import known_settings
from wsfcn_lib.runs.paths import ROOT

pytestmark = pytest.mark.kill
KILLS = int(os.environ.get("KILLS", "3"))
WAYS = {
    "no worker": (0, 1),
    "two workers": (2, 1),
    "two processes": (0, 2),
}  # loader workers, training processes
SMALL = {
    "epochs": 6,
    "warmup_epochs": 2,
    "crop": 48,
    "log_every": 3,
    "device": "cpu",
}  # all else as notebook 02 has it
TRAIN = "from wsfcn_lib.train import main\nif __name__ == '__main__':\n    main()\n"
SLOW = '''import io, time, torch
save = torch.save

def slowly(state, path, **options):
    """As torch.save, but to a file it is under way long enough to be killed meanwhile."""
    if isinstance(path, io.BytesIO):  # as processes send each other things
        return save(state, path, **options)
    save(state, whole := io.BytesIO())
    with open(path, "wb") as file:
        for piece in range(0, len(data := whole.getvalue()), 1 + len(data) // 20):
            file.write(data[piece : piece + 1 + len(data) // 20])
            file.flush()
            time.sleep(0.03)

torch.save = slowly
'''


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small data set, settings with and without workers, and the program with and without its slow disk."""
    home = tmp_path_factory.mktemp("kill")
    prepare(
        SourceSettings(raw=str(home / "raw"), glyphs=GlyphSettings(size=48, train=64, val=16, test=8)),
        home / "data",
    )
    given = {
        name: what[1]
        for name, what in known_settings("notebooks/02_train.ipynb").items()
        if name in TrainConfig.model_fields
    }
    for workers in (0, 2):
        config = TrainConfig(**given | SMALL | {"data": str(home / "data"), "workers": workers})
        (home / f"workers-{workers}.json").write_text(config.model_dump_json())
    (home / "train.py").write_text(TRAIN)
    (home / "slow.py").write_text(SLOW + TRAIN)
    return home


def start(home, run, way, program="train.py"):
    """Begin or go on with a training, as `accelerate launch` would; its words go to <run>.txt."""
    workers, processes = WAYS[way]
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        if processes > 1
        else []
    )
    command = [
        sys.executable,
        *launcher,
        str(home / program),
        str(run),
        "--settings",
        str(home / f"workers-{workers}.json"),
    ]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": str(ROOT),
        MARK: str(run),
    }
    with open(f"{run}.txt", "ab") as words:
        return subprocess.Popen(command, env=environment, stdout=words, stderr=subprocess.STDOUT)


def finish(home, run, way):
    assert start(home, run, way).wait(240) == 0, Path(f"{run}.txt").read_text()[-3000:]
    return run


@pytest.fixture(scope="module")
def whole(home):
    """Runs that nobody disturbs, by number of processes, and the seconds that one of their epochs takes."""
    runs = {
        1: finish(home, home / "whole-1", "no worker"),
        2: finish(home, home / "whole-2", "two processes"),
    }
    return {
        count: (run, read_run(run)["stages"]["02_train"]["seconds"] / SMALL["epochs"])
        for count, run in runs.items()
    }


def content(run):
    """What a training left: tensors of each snapshot, the log but its times, metrics of its best snapshot."""
    tensors = {
        path.name: load_snapshot(path)[0].state_dict()
        for path in sorted((run / "checkpoints").glob("*.safetensors"))
    }
    net, manifest = load_snapshot(find_snapshot(run))[0], Manifest.load(run.parent / "data")
    metrics = evaluate(net, manifest, EvalSettings(images="val", scales=(1.0,), use_crf=False), run).metrics()
    return tensors, without_times(log_of(run)), metrics


def same(run, other):
    """Whether two trainings left the same, to the last bit of their files."""
    (a, log, metrics), (b, other_log, other_metrics) = content(run), content(other)
    assert read_run(run)["stages"]["02_train"]["files"] == read_run(other)["stages"]["02_train"]["files"]
    assert a.keys() == b.keys() and len(a) >= 2
    for name in a:
        assert all(torch.equal(a[name][key], b[name][key]) for key in a[name]), name
    assert log == other_log and metrics == other_metrics
    assert read_run(run)["stages"]["02_train"]["finished"]


def began(run):
    """When the log was opened: the network is built then, and the first step is next."""
    return (run / "log.csv").stat().st_mtime_ns if (run / "log.csv").exists() else 0


def interrupt(home, run, way, writing, epoch):
    """Go on with a run and kill it while it writes one of its first resume states, or in its first epochs."""
    part, before, writes = (
        run / "checkpoints" / "state.part",
        began(run),
        random.choice((1, 1, 2, 3)) if writing else 0,
    )
    part.unlink(missing_ok=True)
    process = start(home, run, way, "slow.py" if writing else "train.py")
    until(process, lambda: began(run) > before)
    for _ in range(writes):
        until(process, lambda: not part.exists())
        until(process, part.exists)
    time.sleep(random.uniform(0, 0.4 if writing else 3 * epoch))
    if not kill(process, run):
        print(f"{way}: ended before the kill")
        assert process.returncode == 0, Path(f"{run}.txt").read_text()[-3000:]
        return False
    states, rows = sorted(path.name.split("-")[1] for path in run.glob("checkpoints/state-*.pt")), log_of(run)
    step = rows[-1]["step"] if rows else 0
    if part.exists():
        states.append("state.part")
    print(f"{way}: killed after row {step}, states {', '.join(states) or 'none'}", flush=True)
    return True


@pytest.mark.parametrize("way", WAYS)
def test_killed_and_resumed_equals_uninterrupted(home, whole, way):
    """Every other kill is to hit the writing of a resume state; of three in all it is that of two workers."""
    kills, place = -(-KILLS // len(WAYS)), [*WAYS].index(way)
    reference, epoch = whole[WAYS[way][1]]
    done, hits, number = 0, 0, 0
    while done < kills:
        run = home / f"{place}-{number}"
        writing = (done + place) % 2 == 1
        if interrupt(home, run, way, writing, epoch):
            done, hits = done + 1, hits + (run / "checkpoints" / "state.part").exists()
        else:
            same(run, reference)
            number += 1
    same(finish(home, run, way), reference)
    print(f"{way}: {done} kills, {hits} of them while a state was written, {number + 1} trainings")
    assert hits or place != 1, "the kill that was to hit the writing missed it"


@pytest.mark.parametrize("damage", ["torn", "one bit", "empty"])
def test_a_damaged_state_is_noticed_and_told(home, whole, damage):
    """Also where torch.load would not notice: a bit of a weight."""
    run, process = home / f"damaged-{damage}", start(home, home / f"damaged-{damage}", "no worker")
    states = run / "checkpoints"
    until(process, lambda: len([*states.glob("state-*.pt")]) == 2)
    kill(process, run)
    newest = sorted(states.glob("state-*.pt"))[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    assert damage != "one bit" or torch.load(io.BytesIO(data), weights_only=True), "torch takes it for whole"
    newest.write_bytes({"torn": data[:-5000], "one bit": data, "empty": b""}[damage])
    same(finish(home, run, "no worker"), whole[1][0])
    words = Path(f"{run}.txt").read_text()
    reason = "its checksum is another than its name says"
    assert f"{newest.name} is damaged ({reason}); going back to the state before it" in words
    assert len([*states.glob("state-*.pt")]) == 2
