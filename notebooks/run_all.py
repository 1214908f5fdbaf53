"""Run the notebooks in order, through papermill, into data/runs/<name>/.

A stage that is finished is skipped while its settings, its code and the files it read or made are what they were; so an
interrupted command goes on when it is given again. Where data or a training were made with other settings or lists, or a
finished training with other code, the whole run is renamed to <name>-before and begins anew. Exit code: 0 all went well, 1 a
notebook failed, 2 wrong usage, 130 interrupted.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import yaml

from folders import alone, forget_preparation, put_aside
from keep_outputs import OutputError, keep_figures, keep_outputs
from stages import (
    PREPARATION,
    STAGES,
    begun_otherwise,
    binding,
    check_training,
    evidence,
    news,
    plan,
    pointless,
    read_params,
    relative,
    stage_record,
)
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.notebook import ParameterError, declared
from wsfcn_lib.runs.paths import ROOT, RUNS
from wsfcn_lib.runs.storage import RunError

DEMO = RUNS / "demo"


class NotebookError(RuntimeError):
    """A notebook failed, stopped or took too long; the message names the cell, the error and the executed copy."""


def execute(stage: str, values: dict, copy: Path, timeout: float | None) -> None:
    """Run one notebook in a process of its own; papermill writes the executed copy cell by cell."""
    defaults = declared(STAGES[stage])
    given = {name: value for name, value in values.items() if value != defaults[name][1]}
    command = [sys.executable, "-m", "papermill", str(STAGES[stage]), str(copy), "-y", yaml.safe_dump(given)]
    command += ["--no-progress-bar", "--log-level", "ERROR", "--stdout-file", "-"]
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise NotebookError(failure(stage, copy, f"it took more than {timeout:g} s")) from None
    if done.returncode:
        raise NotebookError(failure(stage, copy, "\n".join(done.stderr.strip().splitlines()[-8:])))
    if not stage_record(ROOT / values["run"], stage).get("finished"):
        raise NotebookError(f"{stage} was stopped before its end; give the same command again to go on")


def failure(stage: str, copy: Path, reason: str) -> str:
    """Where and why a notebook failed, in a few lines; `reason` is told where no cell says more."""
    cells, heading, where = nbformat.read(copy, as_version=4).cells if copy.exists() else [], "", ""
    for cell in cells:
        heading = next(
            (f", section {line[3:]}" for line in cell.source.splitlines() if line.startswith("## ")), heading
        )
        errors = [output for output in cell.get("outputs", ()) if output.output_type == "error"]
        if errors or cell.metadata.get("papermill", {}).get("status") == "running":
            where = f", cell In [{cell.execution_count or '*'}]{heading}"
            reason = f"{errors[0].ename}: {errors[0].evalue}" if errors else reason
            break
    reason = "\n  ".join(reason.splitlines()[:15])
    return f"{stage}{where}\n  {reason}\n  executed copy: {relative(copy)}"


def run_stages(
    run: Path, values: dict[str, dict], only: tuple[str, ...], timeout: float | None, keep: bool = False
) -> str:
    """Execute the stages whose result is not there yet or stands on something that changed.

    Returns what changed where the run has to begin anew for it, else nothing. `keep` leaves a training of other code as it is.
    """
    (run / "notebooks").mkdir(parents=True, exist_ok=True)
    for stage in (stage for stage in STAGES if stage.startswith(only)):
        if why := pointless(stage, values):
            print(f"--- {stage}: left out, {why}", flush=True)
            continue
        changed = news(stage, values)
        if changed == []:
            print(f"--- {stage}: finished before, nothing changed", flush=True)
            continue
        anew = binding(stage, values)
        if keep and anew == ["training code"]:
            print(f"--- {stage}: trained by other code than today's, kept as asked", flush=True)
            continue
        if anew:
            return ", ".join(anew[:4])
        if stage == PREPARATION:
            forget_preparation(run, bool(changed))
        print(
            f"--- {stage}" + (f": again, since {', '.join(changed[:4])} changed" if changed else ""),
            flush=True,
        )
        began = time.perf_counter()
        execute(stage, values[stage], run / "notebooks" / f"{stage}.ipynb", timeout)
        with RunFolder.open(run, stage_record(run, stage)["settings"], stage) as folder:
            folder.record(stage, evidence=evidence(stage, values))
        print(f"--- {stage}: {time.perf_counter() - began:.0f} s", flush=True)
    return ""


def complete(run: Path, values: dict[str, dict], options: argparse.Namespace) -> None:
    """Bring one run to its end; an outdated one is put aside first, and nothing of it is lost."""
    if (options.fresh or options.commit) and run.exists():
        with alone(run):
            if begun_otherwise(run, values):
                check_training(values)
                put_aside(run, "other settings or code")
    while True:
        with alone(run):
            changed = run_stages(run, values, tuple(options.only or [""]), options.timeout, options.keep)
            if not changed:
                return
            check_training(values)
            put_aside(run, f"other {changed}")


def results(runs: list[Path]) -> str:
    """The table of the runs' results, and where their reports lie."""
    keys = {
        "mIoU": "mean_iou",
        "+ CRF": "mean_iou_crf",
        "true tags": "mean_iou_true_tags",
        "tag mAP": "mean_ap",
    }
    width = max(len(run.name) for run in runs)
    lines = [" " * width + "".join(f"{head:>11}" for head in (*keys, "images"))]
    for run in runs:
        metrics = read_run(run).get("metrics") if (run / "run.json").exists() else None
        numbers = [(metrics or {}).get(key) for key in keys.values()]
        cells = [f"{'-' if number is None else format(number, '.4f'):>11}" for number in numbers]
        lines.append(f"{run.name:{width}}" + "".join(cells) + f"{(metrics or {}).get('images', '-'):>11}")
    reports = [relative(run / "report.html") for run in runs if (run / "report.html").exists()]
    return "\n".join(
        [*lines, *(f"report: {report}" for report in reports or ["none yet, 05_evaluate writes it"])]
    )


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, dict[Path, dict[str, dict]]]:
    """The options, and {run folder: plan}; exits with code 2 where they make no sense."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--params",
        nargs="+",
        type=Path,
        metavar="YAML",
        help="settings unlike the notebooks'; one run for each file",
    )
    parser.add_argument(
        "--run-name", help="name of the folder in data/runs, or a path (default: demo, or the YAML's name)"
    )
    parser.add_argument("--only", nargs="+", metavar="NN", help="only these notebooks, such as 02 05")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for each notebook (default: none)")
    parser.add_argument(
        "--keep", action="store_true", help="do not train again where only the code changed since"
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="begin anew also where any other stage's settings or code changed",
    )
    parser.add_argument(
        "--commit", action="store_true", help="make the default run and keep its outputs in the notebooks"
    )
    options = parser.parse_args(argv)
    if options.keep and (options.fresh or options.commit):
        parser.error(
            "--keep leaves a training of other code, --fresh and --commit put it aside: choose one of them"
        )
    name = options.run_name
    if options.commit and (options.params or name or options.only):
        parser.error("--commit is about the default run: it takes no --params, --run-name or --only")
    if name and len(options.params or ()) > 1:
        parser.error(f"--run-name {name} would put {len(options.params)} runs into one folder; leave it out")
    if unknown := [
        item for item in options.only or () if sum(stage.startswith(item) for stage in STAGES) != 1
    ]:
        parser.error(f"--only {' '.join(unknown)}: choose from {', '.join(STAGES)}, or their numbers")
    plans = {}
    for path in options.params or [None]:
        try:
            given = read_params(path)
        except ParameterError as error:
            parser.error(str(error))
        if name:
            run = Path(name).resolve() if "/" in name else RUNS / name
        else:
            run = ROOT / given.get("run", RUNS / path.stem if path else DEMO)
        if run in plans:
            parser.error(f"{path} names the same run as a file before it: {relative(run)}")
        plans[run] = plan(given, run)
    return options, plans


def main(argv: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    options, plans = parse(argv)
    failed = False
    for run, values in plans.items():
        print(f"run {relative(run)}", flush=True)
        try:
            complete(run, values, options)
        except (NotebookError, RunError, OSError) as error:
            print(f"\nFAILED  {error}\n", file=sys.stderr, flush=True)
            failed = True
        except KeyboardInterrupt:
            print("\ninterrupted; give the same command again to go on", file=sys.stderr)
            return 130  # as shells have it
    print(results([*plans]))
    if options.commit and not failed:
        try:
            keep_outputs(DEMO / "notebooks", STAGES.values())
            keep_figures(DEMO)
        except OutputError as error:
            print(f"\nFAILED  {error}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
