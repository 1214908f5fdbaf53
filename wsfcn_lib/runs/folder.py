"""A run is a folder: `run.json` says how its results came about, a lock keeps a second process out.

`python -m wsfcn_lib.runs` lists the runs; with two names it shows in what they differ.
"""

import errno
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from wsfcn_lib.runs.paths import ROOT, RUNS, resolve_path
from wsfcn_lib.runs.provenance import provenance
from wsfcn_lib.runs.run_diff import diff_settings, flat, plain
from wsfcn_lib.runs.storage import RunError, atomic_write, make_folder, writing

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # what a disk answers that knows none
_locks: dict[Path, FileLock] = {}  # of the run folders that this process has open


def read_run(path: Path | str) -> dict:
    """Return a run's `run.json`, with its `metrics.json` (if any) under the key `metrics`; takes no lock."""
    record = resolve_path(path) / "run.json"
    metrics = record.with_name("metrics.json")
    try:
        run = json.loads(record.read_text("utf-8"))
        stages = run.get("stages") if isinstance(run, dict) else None
        if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
            raise ValueError("it holds no stages")
        if metrics.exists():
            run["metrics"] = json.loads(metrics.read_text("utf-8"))
            if not isinstance(run["metrics"], dict):
                raise ValueError("metrics.json holds no numbers by name; delete it and run 05_evaluate again")
        return run
    except FileNotFoundError:
        raise RunError(
            f"{path} is not a run: it has no run.json; notebooks/run_all.py --run-name makes one"
        ) from None
    except ValueError as error:
        raise RunError(
            f"{path} holds a damaged run.json or metrics.json ({error}); "
            "bring that file back, or make the run again under another name"
        ) from None


def require_run_folder(path: Path | str) -> None:
    """RunError unless a folder is a run or may become one: never one that holds other things, or the home folder."""
    place = resolve_path(path).resolve()
    others = [other for other in os.listdir(place) if other[0] != "."] if place.is_dir() else []
    first = {"notebooks", "figures", "checkpoints", "stop"}  # these may come before run.json
    lost = {"notebooks", "checkpoints"} <= set(others) or any((place / "checkpoints").glob("state-*.pt"))
    is_run = lost or (place / "run.json").exists() or set(others) <= first
    homes = [Path(home).resolve() for home in (ROOT, RUNS, os.path.expanduser("~"))]
    if not place.name.strip() or not is_run or any(home.is_relative_to(place) for home in homes):
        raise RunError(
            f"run={str(path)!r} is no run and cannot become one: {place} is there for other things; "
            "name a new folder, such as data/runs/mine"
        )


def list_runs(folder: Path | str = RUNS) -> list[dict]:
    """Return one row per run folder, oldest first: name, started, commit, finished (stages), mean_iou (or None)."""
    rows = []
    for path in resolve_path(folder).glob("*/run.json"):
        try:
            run = read_run(path.parent)
        except RunError:
            run = {"stages": {"damaged": {"finished": True}}}
        stages = run["stages"]
        first = min(stages.values(), key=lambda stage: stage.get("started", "9"), default={})
        rows.append(
            {
                "name": path.parent.name,
                "started": first.get("started", ""),
                "commit": first.get("commit"),
                "finished": [name for name, stage in stages.items() if stage.get("finished")],
                "mean_iou": run.get("metrics", {}).get("mean_iou"),
            }
        )
    return sorted(rows, key=lambda row: row["started"])


def stop_requested(run: "RunFolder | Path | str") -> bool:
    """Tell whether somebody touched the file `stop` in the run's folder."""
    return (resolve_path(getattr(run, "path", run)) / "stop").exists()


def take_lock(path: Path) -> FileLock:
    """Lock a file in a run's folder for this process, until it is released or the process ends, however it ends.

    RunError where another process holds it, and where the disk knows no locks.
    """
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    with writing(path):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            owner = f"process {path.read_text('ascii', 'replace')}".strip()
            if not owner.removeprefix("process ").isdigit():  # on another machine, or just begun
                owner = "another process"
            raise RunError(
                f"run {path.parent.name} is in use by {owner}: wait for it, touch the run's file "
                "`stop`, shut down the notebook kernel, or choose another run name"
            ) from None
        except (OSError, NotImplementedError) as error:
            if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
                raise
            raise RunError(
                f"the disk of {path.parent} knows no locks, which keep two processes out of one run: make data/runs "
                "a link to a folder on a disk that does, or name one there: run_all.py --run-name /scratch/demo"
            ) from error
        path.write_text(str(os.getpid()), "utf-8")
    return lock


WAYS_ON = (
    "Keep it, and choose another run name: run_all.py --run-name other\n"
    "Or begin anew under this name: run_all.py --fresh, which keeps the old run as <name>-before"
)


def other_run(name: str, difference: str) -> RunError:
    """The error for a run that was begun with something else: what differs, and the two ways on."""
    return RunError(f"run {name} has other {difference}\n{WAYS_ON}")


@dataclass(frozen=True)
class RunFolder:
    """An open, locked run folder. Close it (or leave its `with` block) before another process is to work on it."""

    path: Path

    @classmethod
    def open(
        cls,
        path: Path | str,
        settings: dict,
        stage: str,
        device="cpu",
        ignore: Collection = (),
        defaults: Mapping = {},
    ) -> Self:
        """Create the folder, or reopen it, for one stage such as "02_train".

        A stage keeps its settings for good: others raise RunError with each difference, save for the keys in `ignore`, which
        change no result (workers, device). A setting that did not exist yet when the stage began counts as its default, from
        `defaults`. Opening twice in one process is harmless; the first takes an old `stop` file away.
        """
        require_run_folder(path)
        run = cls(resolve_path(path).resolve())
        make_folder(run.path)
        is_new_here = run._lock()
        try:
            run._enter(stage, plain(settings), device, ignore, plain(defaults), is_new_here)
        except BaseException:
            run.close()
            raise
        return run

    def _lock(self) -> bool:
        """Lock the folder; False where this process has it already."""
        file = self.path / ".lock"
        if self.path in _locks:
            if file.exists():
                return False
            self.close()  # of a folder that was deleted
        _locks[self.path] = take_lock(file)
        (self.path / "stop").unlink(missing_ok=True)  # meant an earlier process
        return True

    def _enter(
        self,
        stage: str,
        settings: dict,
        device: str,
        ignore: Collection[str],
        defaults: dict,
        is_new_here: bool,
    ) -> None:
        """Compare the settings with those of `run.json`, and record that the stage begins or goes on."""
        if not (self.path / "run.json").exists():
            atomic_write(self.path / "run.json", '{"stages": {}}')
        known = read_run(self.path)["stages"].get(stage, {})
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if "settings" not in known:
            self.record(stage, settings=settings, started=now, **provenance(device))
            return
        asked = flat(settings)
        then = {key: value for key, value in flat(defaults).items() if key in asked} | flat(known["settings"])
        changes = [row for row in diff_settings(then, asked) if row[0].split(".")[0] not in ignore]
        if changes:
            rows = ", ".join(f"{key} {before!r} → {after!r}" for key, before, after in changes)
            raise other_run(self.path.name, f"settings for {stage}: {rows}")
        if is_new_here and not known.get("finished"):
            # an interrupted stage goes on, perhaps with other code, versions or variables: that stays visible
            facts = {"environment": {}} | provenance(device)
            always = ("device", "commit", "dirty", "code")
            changed = {k: v for k, v in facts.items() if k in always or v != known.get(k, {})}
            resumed = {"at": now} | changed
            self.record(stage, settings=settings, resumed=[*known.get("resumed", []), resumed])

    def record(self, stage: str, **facts: object) -> None:
        """Merge facts (seconds, peak_memory_mb, data checksums, finished=True, ...) into the stage's part of `run.json`."""
        if self.path not in _locks:
            raise RunError(
                f"run {self.path.name} is closed, so {stage} cannot record anything; RunFolder.open it again"
            )
        run = read_run(self.path)
        run.pop("metrics", None)
        run["stages"].setdefault(stage, {}).update(plain(facts))
        atomic_write(self.path / "run.json", json.dumps(run, indent=1, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Let other processes have the folder."""
        if lock := _locks.pop(self.path, None):
            lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
