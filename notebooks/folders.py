"""Who works in a run's folder, and how an outdated one is put aside. Used by run_all.py."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages import PREPARATION, relative

from wsfcn_lib.runs import RunError, read_run, writing


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Keep a second command out of the run; each notebook besides locks it for itself. RunError where one is at work."""
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        file = open(run / ".run_all", "a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it, however the command ends
        except OSError:
            told = f"another run_all.py works on {relative(run)}"
            raise RunError(f"{told}: wait for it, interrupt it, or choose another name with --run-name") from None
        yield


def require_idle(run: Path) -> None:
    """RunError where a process works on the run or on a cell of its ablation."""
    for path in sorted(run.rglob(".lock")):
        with open(path, "a+") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                told = f"{relative(path.parent)} is in use by process {lock.read()}, so {run.name} cannot be put aside"
                raise RunError(f"{told}: wait for it, touch the file `stop` there, or choose another run name") from None


def forget_failed_preparation(run: Path) -> None:
    """Let a run whose preparation failed, and which holds nothing else, take other settings; a stage else keeps its own."""
    stages = read_run(run)["stages"] if (run / "run.json").exists() else {}
    if [*stages] == [PREPARATION] and not stages[PREPARATION].get("finished"):
        require_idle(run)
        (run / "run.json").unlink()


def put_aside(run: Path, why: str) -> Path:
    """Rename a run to <name>-before (-before2, ...), so that it begins anew; RunError where somebody works on it."""
    require_idle(run)
    taken = (run.with_name(f"{run.name}-before{number}") for number in ("", *range(2, 1000)))
    before = next(path for path in taken if not path.exists())
    run.rename(before)
    print(f"{relative(run)} was made with {why}; it is kept as {relative(before)}", flush=True)
    return before
