"""Evaluate a trained run as accelerate starts it, on as many processes; writes what 05_evaluate writes first.

accelerate launch -m wsfcn_lib.evaluation data/runs/<name>     # shares the list among the processes
python -m wsfcn_lib.evaluation score A --truth DIR --classes voc        # anyone's masks, see `compare_command`
python -m wsfcn_lib.evaluation compare A B --truth DIR --classes voc
"""

import argparse
import json
import sys
import time

from wsfcn_lib.data.files import read_text
from wsfcn_lib.evaluation.compare_command import COMMANDS, run
from wsfcn_lib.runs.paths import shell_path, use_utf8

STAGE = "05_evaluate"


def main() -> None:
    """Evaluate the run that the command names, and record it; the first process tells the result."""
    # here, as masks of others need no network
    from wsfcn_lib.evaluation.inputs import load_trained
    from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate, process
    from wsfcn_lib.runs.folder import RunFolder
    from wsfcn_lib.runs.notebook import finish
    from wsfcn_lib.runs.processes import leave_others
    from wsfcn_lib.train import build_accelerator

    parser = argparse.ArgumentParser(
        prog="accelerate launch -m wsfcn_lib.evaluation",
        description=main.__doc__,
        epilog="Masks of anyone: python -m wsfcn_lib.evaluation score --help, and compare --help",
    )
    parser.add_argument("run", help="run folder, such as data/runs/demo")
    parser.add_argument(
        "--settings", help="JSON file of EvalSettings; what it leaves out is as in 05_evaluate"
    )
    arguments = parser.parse_args()
    try:
        place, given = shell_path(arguments.run), {}
        if arguments.settings:
            given = json.loads(read_text(shell_path(arguments.settings)))
        trained = load_trained(place, given.get("snapshot", "best"))
        settings = EvalSettings(**{"images": "test"} | trained.protocol | given)
        began = time.perf_counter()
        device = build_accelerator(trained.config).device
        first = process()[0] == 0
        used = {"settings": settings.model_dump(), "weights": trained.path.name}
        if first:
            folder = RunFolder.open(place, used["settings"], STAGE, ignore=used["settings"])
        results = evaluate(trained.net.to(device), trained.manifest, settings, place)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        where = f" (settings: {arguments.settings})" if arguments.settings else ""
        sys.exit(f"{type(error).__name__}: {error}{where}")
    if first:
        finish(folder, STAGE, began, device, **used, data=trained.manifest.checksums())
        metrics = results.metrics()
        print(json.dumps({key: metrics[key] for key in metrics if key.startswith(("images", "mean"))}))
    leave_others()


if __name__ == "__main__":
    use_utf8()
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.exit(run(sys.argv[1:]))
    main()
