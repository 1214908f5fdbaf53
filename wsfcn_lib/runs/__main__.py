"""List the runs, or tell in what two of them differ."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wsfcn_lib.runs.folder import list_runs, read_run
from wsfcn_lib.runs.paths import shell_run, use_utf8
from wsfcn_lib.runs.run_diff import diff_runs
from wsfcn_lib.runs.storage import RunError

HEADLINES = {
    "mean_iou": "mIoU",
    "mean_iou_crf": "mIoU + CRF",
    "mean_iou_true_tags": "mIoU, true tags",
    "mean_ap": "mAP of the tags",
    "images": "images",
}
WIDEST = 44  # letters of a cell


def main() -> None:
    """List the runs, or show in which settings two of them differ, and what they reached."""
    parser = argparse.ArgumentParser(prog="python -m wsfcn_lib.runs", description=main.__doc__)
    parser.add_argument("run", nargs="*", help="two names of folders in data/runs, or paths")
    parser.add_argument(
        "--all", action="store_true", help="also data, code, versions, machine, files, and every result"
    )
    options = parser.parse_args()
    if len(options.run) not in (0, 2):
        parser.error(f"give no run, or two to compare, not {len(options.run)}")
    lines = compared(*options.run, options.all) if options.run else listed()
    print(*lines, sep="\n")


def listed() -> list[str]:
    """A line for each run, oldest first."""
    rows = [("run", "started", "finished", "mIoU", "commit")]
    for row in list_runs():
        finished = " ".join(stage.partition("_")[0] for stage in row["finished"])
        score = "" if row["mean_iou"] is None else digits(row["mean_iou"])
        rows.append((row["name"], row["started"][:16], finished, score, (row["commit"] or "")[:10]))
    return aligned(rows)


def compared(first: str, second: str, everything: bool) -> list[str]:
    """The settings in which two runs differ, and their headline results; or everything in which they differ."""
    a, b = (read_run(shell_run(name)) for name in (first, second))
    differences = diff_runs(a, b)
    chosen = [row for row in differences if everything or row[0] == "settings"]
    heads = [Path(name).name for name in (first, second)]
    if heads[0] == heads[1]:
        heads = [first, second]
    rows = [("why", "what", *heads)]
    stages = [run["stages"] for run in (a, b)]
    lacking = [name for name in stages[0] | stages[1] if not all(name in each for each in stages)]
    for why, key, before, after in chosen:
        if everything or key.split(".")[1] not in lacking:
            rows.append((why, shortened(key), text(before), text(after)))
    for name in lacking:
        rows.append(("stage", name, *("there" if name in each else "not there" for each in stages)))
    if len(rows) == 1:
        rows.append(("settings", "none differs", "", ""))
    results = [run.get("metrics", {}) for run in (a, b)]
    for key, words in HEADLINES.items():
        values = [metrics.get(key) for metrics in results]
        if values != [None, None]:
            rows.append(("result", words, *map(text, values)))
    lines = aligned(rows)
    left = {}
    for why, *_ in [row for row in differences if row not in chosen]:
        left[why] = left.get(why, 0) + 1
    if left:
        counts = ", ".join(f"{count} of {why}" for why, count in left.items())
        lines.append(f"They differ in more ({counts}): --all shows it.")
    return lines


def shortened(key: str) -> str:
    """A dotted key as people say it: 02_train epochs for stages.02_train.settings.epochs."""
    return key.removeprefix("stages.").replace(".settings.", " ")


def text(value: object) -> str:
    """A value in one cell; a dash for none."""
    if value in (None, "(absent)", ""):
        return "–"
    if isinstance(value, list):
        words = ", ".join(map(text, value))
    else:
        words = digits(value) if isinstance(value, float) else str(value)
    return words if len(words) <= WIDEST else words[: WIDEST - 1] + "…"


def digits(value: float) -> str:
    """A number with three digits."""
    return f"{value:.3f}" if 0.1 <= abs(value) < 10 else f"{value:.3g}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


if __name__ == "__main__":
    use_utf8()
    try:
        main()
        sys.stdout.flush()
    except (RunError, ValueError) as error:
        sys.exit(str(error))
    except BrokenPipeError:  # who reads, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
