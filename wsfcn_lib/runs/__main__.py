"""List the runs, or tell in what two of them differ."""

import argparse
import sys

from wsfcn_lib.runs.folder import list_runs, read_run
from wsfcn_lib.runs.paths import shell_run, use_utf8
from wsfcn_lib.runs.run_diff import diff_runs
from wsfcn_lib.runs.storage import RunError


def main() -> None:
    """List the runs, or explain in what two of them differ: settings, data, code, versions, machine; then their results."""
    parser = argparse.ArgumentParser(prog="python -m wsfcn_lib.runs", description=main.__doc__)
    parser.add_argument("run", nargs="*", help="two names of folders in data/runs, or paths")
    names = parser.parse_args().run
    if len(names) not in (0, 2):
        parser.error(f"give no run, or two to compare, not {len(names)}")
    if names:
        first, second = (read_run(shell_run(name)) for name in names)
        rows = [("why", "what", *names), *diff_runs(first, second)]
    else:
        head = ("name", "started", "commit", "finished", "mean_iou")
        rows = [head, *(row.values() for row in list_runs())]
    for row in rows:
        print(*row, sep="\t")


if __name__ == "__main__":
    use_utf8()
    try:
        main()
    except (RunError, ValueError) as error:
        sys.exit(str(error))
