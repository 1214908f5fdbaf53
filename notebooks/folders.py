"""Who works in a run's folder, and how an outdated one is put aside. Used by run_all.py."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from stages import PREPARATION, relative
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.storage import RunError, atomic_write, make_folder, writing


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Keep a second command out of the run; each notebook besides locks it for itself. RunError where one is at work."""
    with writing(make_folder(run)):
        file = open(run / ".run_all", "a")
    with file:
        try:
            fcntl.flock(
                file, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # the system lets go of it, however the command ends
        except OSError:
            told = f"another run_all.py works on {relative(run)}"
            raise RunError(
                f"{told}: wait for it, interrupt it, or choose another name with --run-name"
            ) from None
        yield


@contextmanager
def idle(run: Path, purpose: str) -> Iterator[None]:
    """Hold all locks of a run and of its ablation's cells; RunError where somebody works on one."""
    with ExitStack() as locks:
        for path in sorted(run.rglob(".lock")):
            lock = locks.enter_context(open(path, "a+"))
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                told = f"{relative(path.parent)} is in use by process {lock.read()}, so {run.name} cannot {purpose}"
                advice = "wait for it, touch the file `stop` there, shut down the notebook kernel, or choose another run name"
                raise RunError(f"{told}: {advice}") from None
        yield


def forget_preparation(run: Path, changed: bool) -> None:
    """Let a run take other settings of its preparation, which change no data, or where it failed and nothing else is there."""
    known = read_run(run) if (run / "run.json").exists() else {"stages": {}}
    failed = [*known["stages"]] == [PREPARATION] and not known["stages"][PREPARATION].get("finished")
    if PREPARATION in known["stages"] and (failed or changed):
        with idle(run, "take other settings"):
            del known["stages"][PREPARATION]
            atomic_write(
                run / "run.json", json.dumps({"stages": known["stages"]}, indent=1, ensure_ascii=False) + "\n"
            )


def put_aside(run: Path, why: str) -> Path:
    """Rename a run to <name>-before (-before2, ...), so that it begins anew; RunError where somebody works on it."""
    taken = (run.with_name(f"{run.name}-before{number}") for number in ("", *range(2, 1000)))
    before = next(path for path in taken if not path.exists())
    with idle(run, "be put aside"):
        run.rename(before)
    print(f"{relative(run)} was made with {why}; it is kept as {relative(before)}", end="; ")
    print("to have it back, rename it and give its settings again", flush=True)
    return before
