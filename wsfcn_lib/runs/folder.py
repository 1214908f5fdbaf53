"""A run is a folder: `run.json` says how its results came about, a lock keeps a second process out.

`python -m wsfcn_lib.runs` lists the runs; with two names it shows in what they differ.
"""

import fcntl
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from wsfcn_lib.runs.paths import ROOT, RUNS
from wsfcn_lib.runs.provenance import code_state, provenance
from wsfcn_lib.runs.run_diff import diff_settings, flat, plain
from wsfcn_lib.runs.storage import RunError, atomic_write, make_folder, writing

_locks = {}  # folder -> open lock file; one per process, because closing any handle of a file drops its POSIX lock


def read_run(path: Path | str) -> dict:
    """Return a run's `run.json`, with its `metrics.json` (if any) under the key `metrics`; takes no lock."""
    run, metrics = ROOT / path / "run.json", ROOT / path / "metrics.json"
    try:
        found = json.loads(run.read_text())
        return found | {"metrics": json.loads(metrics.read_text())} if metrics.exists() else found
    except FileNotFoundError:
        raise RunError(
            f"{path} is not a run: it has no run.json; notebooks/run_all.py --run-name makes one"
        ) from None
    except ValueError as error:
        raise RunError(
            f"{path} holds a damaged run.json or metrics.json ({error}); delete the run and make it again"
        ) from None


def list_runs(folder: Path | str = RUNS) -> list[dict]:
    """Return one row per run folder, oldest first: name, started, commit, finished (stages), mean_iou (or None)."""
    rows = []
    for path in (ROOT / folder).glob("*/run.json"):
        try:
            run = read_run(path.parent)
        except RunError:
            rows.append(
                {
                    "name": path.parent.name,
                    "started": "",
                    "commit": None,
                    "finished": ["damaged"],
                    "mean_iou": None,
                }
            )
            continue
        first = min(run["stages"].values(), key=lambda stage: stage.get("started", "9"), default={})
        row = {"name": path.parent.name, "started": first.get("started", ""), "commit": first.get("commit")}
        row["finished"] = [name for name, stage in run["stages"].items() if stage.get("finished")]
        rows.append(row | {"mean_iou": run.get("metrics", {}).get("mean_iou")})
    return sorted(rows, key=lambda row: row["started"])


def stop_requested(run: "RunFolder | Path | str") -> bool:
    """Tell whether somebody touched the file `stop` in the run's folder."""
    return (ROOT / getattr(run, "path", run) / "stop").exists()


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
        run = cls((ROOT / path).resolve())
        make_folder(run.path)
        fresh = run._lock()
        try:
            run._enter(stage, plain(settings), device, ignore, fresh, defaults)
        except BaseException:
            run.close()
            raise
        return run

    def _lock(self) -> bool:
        file = self.path / ".lock"
        if self.path in _locks and file.exists():
            return False
        with writing(file):
            handle = open(file, "a+")
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            advice = "wait for it, touch the run's file `stop`, shut down the notebook kernel, or choose another run name"
            raise RunError(f"run {self.path.name} is in use by process {handle.read()}: {advice}") from None
        handle.truncate(0)
        print(os.getpid(), end="", file=handle, flush=True)
        _locks[self.path] = handle
        (self.path / "stop").unlink(missing_ok=True)  # meant an earlier process
        return True

    def _enter(
        self, stage: str, settings: dict, device: str, ignore: Collection[str], fresh: bool, defaults: Mapping
    ) -> None:
        if not (self.path / "run.json").exists():
            atomic_write(self.path / "run.json", '{"stages": {}}')
        known, now = (
            read_run(self.path)["stages"].get(stage, {}),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        then = {k: v for k, v in flat(plain(defaults)).items() if k in flat(settings)} | flat(
            known.get("settings", settings)
        )
        changed = [row for row in diff_settings(then, settings) if row[0].split(".")[0] not in ignore]
        if changed:
            rows = "".join(f"\n  {key}: {old!r} → {new!r}" for key, old, new in changed)
            raise RunError(
                f"run {self.path.name} has other settings for {stage}:{rows}\nChoose another run name, or delete it."
            )
        if "settings" not in known:
            self.record(stage, settings=settings, started=now, **provenance(device))
        elif fresh and not known.get(
            "finished"
        ):  # an interrupted stage goes on, perhaps with other code: that stays visible
            resumed = {"at": now, "device": device, **code_state()}
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
        if handle := _locks.pop(self.path, None):
            handle.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
