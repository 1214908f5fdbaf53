"""Run notebooks 03 and 05 on a finished run again and again, through papermill and through nbval, and tell the stalls.

    .venv/bin/python .ci/stress.py [passes, default 20] [seconds each may take, default 300]

Widgets stall rarely, so one quiet pass proves little. The run, data/runs/stress, has the settings of smoke.yaml. Exit code: 1
where a pass failed or stalled.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from wsfcn_lib.runs.notebook import known_settings
from wsfcn_lib.runs.paths import ROOT

SMOKE = ROOT / "notebooks" / "params" / "smoke.yaml"
STAGES = ("03_explore", "05_evaluate")


def commands(stage: str, home: Path) -> dict[str, list[str]]:
    """What to call for a pass, by its kind; nbval executes again what papermill left in `home`."""
    given, copy = (
        yaml.safe_load(SMOKE.read_text("utf-8")) | {"run": "data/runs/stress"},
        str(home / f"{stage}.ipynb"),
    )
    known = {name: given[name] for name in known_settings(f"notebooks/{stage}.ipynb") if name in given}
    options = [
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-sanitize-with",
        "tests/nbval.cfg",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    papermill = [f"notebooks/{stage}.ipynb", copy, "-y", yaml.safe_dump(known), "--no-progress-bar"]
    return {
        "papermill": [sys.executable, "-m", "papermill", *papermill],
        "nbval": [sys.executable, "-m", "pytest", *options, copy],
    }


def once(command: list[str], limit: int) -> str:
    """What went wrong in a pass, in words; empty where nothing did."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=limit)
    except subprocess.TimeoutExpired:
        return f"STALLED, ended after {limit} s"
    return "" if done.returncode == 0 else f"FAILED\n{(done.stdout + done.stderr)[-1500:]}"


def main(passes: int = 20, limit: int = 300) -> int:
    """Make the run where needed, then all passes; returns the exit code."""
    make = [sys.executable, "notebooks/run_all.py", "--params", str(SMOKE), "--run-name", "stress"]
    subprocess.run(make, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    bad = 0
    with tempfile.TemporaryDirectory() as home:
        ways = {
            (stage, kind): command
            for stage in STAGES
            for kind, command in commands(stage, Path(home)).items()
        }
        for number in range(1, passes + 1):
            for (stage, kind), command in ways.items():
                began = time.perf_counter()
                wrong = once(command, limit)
                bad += bool(wrong)
                print(
                    f"{number:3} {stage:12} {kind:10} {time.perf_counter() - began:5.0f} s  {wrong or 'well'}",
                    flush=True,
                )
    print(f"{bad} of {passes * len(ways)} passes stalled or failed")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
