"""Run the five notebooks in order, through papermill, into data/runs/<name>/.

A finished notebook is skipped while its parameters, its inputs and its own code are unchanged; so an interrupted command, run
again, goes on where it was. A training keeps its settings and data: with others it is refused, and --run-name or --fresh is the
way on. A change of the library makes nothing run again: delete data/runs/<name>/notebooks/05_evaluate.json to have that notebook
executed once more.
Exit code: 0 all went well, 1 a notebook failed, 2 wrong usage, 130 interrupted.
"""

import argparse
import csv
import hashlib
import json
import logging
import os
import re
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.glyphs import GlyphSettings
from wsfcn_lib.data.manifest import SPLITS
from wsfcn_lib.data.model_zoo import ARTEFACTS
from wsfcn_lib.data.scan import walk
from wsfcn_lib.runs.folder import read_run, require_run_folder, take_lock
from wsfcn_lib.runs.more import named_in_more
from wsfcn_lib.runs.notebook import (
    NOTEBOOKS,
    OTHER_NAMES,
    ParameterError,
    check_values,
    declared,
    known_settings,
    merged,
)
from wsfcn_lib.runs.paths import ROOT, RUNS, resolve_path, shell_path, shell_run, use_utf8
from wsfcn_lib.runs.provenance import notebook_hash
from wsfcn_lib.runs.run_diff import diff_settings
from wsfcn_lib.runs.settings import Settings, part_of
from wsfcn_lib.runs.storage import RunError, atomic_write, checksum, make_folder, writing

NETWORK = "checkpoints/*.safetensors"
FILES = {  # what a notebook reads in the run, or leaves there, so that what is lost is made again
    "01_prepare_data": [],
    "02_train": [NETWORK, "log.csv"],
    "03_explore": [NETWORK],
    "04_ablations": ["ablation.csv"],
    "05_evaluate": [NETWORK, "ablation.csv", "metrics.json", "per_image.csv", "figures/*.png", "report.html"],
}
RESULTS = ("mean_iou", "mean_iou_crf", "mean_iou_true_tags", "mean_ap")


class NotebookError(RuntimeError):
    """A notebook failed, stopped or took too long; the message names the cell, the error and the executed copy."""


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    options, runs = parse(arguments)
    failed = False
    for run, given in runs:
        print(f"run {shown(run)}", flush=True)
        try:
            if options.fresh and run.exists():
                put_aside(run)
            run_notebooks(run, given, options.only, options.timeout)
            if options.commit:
                from keep_outputs import keep_outputs  # which loads matplotlib

                keep_outputs(run)
        except (NotebookError, RunError, OSError) as error:
            print(f"\nFAILED  {error}\n", file=sys.stderr, flush=True)
            failed = True
        except KeyboardInterrupt:
            print("\ninterrupted; give the same command again, without --fresh, to go on", file=sys.stderr)
            return 130  # as shells have it
    print_results([run for run, _ in runs])
    return int(failed)


def run_notebooks(run: Path, given: dict, only: list[str], timeout: float | None) -> None:
    """Execute the notebooks of a run whose result is not there yet, or stands on something that changed."""
    lock = take_lock(
        make_folder(run) / ".run_all"
    )  # one command at a time; each notebook besides locks the run
    try:
        for name in NOTEBOOKS:
            if not name.startswith(tuple(only)):
                continue
            if name == "04_ablations" and lacks_masks(given):
                print(f"--- {name}: left out, no image of its split has a mask to compare by", flush=True)
                continue
            record = run / "notebooks" / f"{name}.json"
            changes = changes_since(record, state(name, run, given)) if is_finished(run, name) else None
            if changes == []:
                commit = read_run(run)["stages"][name].get("commit")
                print(f"--- {name}: finished before, nothing changed (made by commit {commit})", flush=True)
                continue
            print(f"--- {name}", *changes or [], flush=True)
            record.unlink(missing_ok=True)
            execute(name, run, given, timeout)
            atomic_write(record, json.dumps(state(name, run, given), indent=1, ensure_ascii=False))
    finally:
        lock.release()


def execute(name: str, run: Path, given: dict, timeout: float | None) -> None:
    """Run one notebook; papermill writes the executed copy cell by cell. `timeout` is the seconds each cell may take."""
    import papermill  # takes seconds, which a command that has nothing to do need not wait

    copy = make_folder(run / "notebooks") / f"{name}.ipynb"
    changed = injected(name, given | {"run": shown(run)})
    options = {"progress_bar": False, "stdout_file": sys.stdout, "execution_timeout": timeout}
    options["extra_arguments"] = ["--log-level=ERROR"]  # else each kernel warns of its connection
    try:
        with writing(copy):
            papermill.execute_notebook(NOTEBOOKS[name], copy, changed, **options)
    except papermill.PapermillExecutionError as error:
        raise NotebookError(failure(name, copy, f"{error.ename}: {error.evalue}")) from None
    except TimeoutError:
        raise NotebookError(failure(name, copy, f"it took more than {timeout:g} s")) from None
    except RuntimeError as error:
        reason = (
            f"{error}: the system ended its process, perhaps for want of memory; lower batch_size, crop or workers "
            "(those of a training that began: workers alone), and give the same command again to go on"
        )
        raise NotebookError(failure(name, copy, reason)) from None
    if not is_finished(run, name):
        raise NotebookError(f"{name} was stopped before its end; give the same command again to go on")
    write_page(copy)
    if (run / "report.html").exists():
        from wsfcn_lib.evaluation.report import write_report

        write_report(run)  # once more, with the link to this page


def write_page(copy: Path) -> None:
    """Write an executed notebook as a page beside it, for who has no Jupyter."""
    from nbconvert import HTMLExporter  # which takes a second

    quiet = logging.getLogger("wsfcn_lib.pages")
    quiet.setLevel(logging.ERROR)  # else it counts pictures that have no text beside them
    page, _ = HTMLExporter(log=quiet).from_filename(str(copy))
    atomic_write(copy.with_suffix(".html"), page)


def failure(name: str, copy: Path, reason: str) -> str:
    """Where and why a notebook failed: the last cell that began, the heading above it, and the end of the reason."""
    number, heading = 0, ""
    for cell in json.loads(copy.read_text("utf-8"))["cells"]:
        if cell["metadata"].get("papermill", {}).get("start_time"):
            number += cell["cell_type"] == "code"
            if cell["source"][0].startswith("## "):
                heading = ", section " + cell["source"][0].removeprefix("## ").strip()
    end = "\n  ".join(reason.splitlines()[-10:])
    return f"{name}, cell In [{number}]{heading}\n  {end}\n  executed copy: {shown(copy)}"


def parameters_of(name: str, given: dict) -> dict:
    """All settings of a notebook: its defaults, and what is given instead, in `more` or beside it."""
    given = merged(given)
    return {key: given.get(key, default) for key, (_, default) in known_settings(NOTEBOOKS[name]).items()}


def injected(name: str, given: dict) -> dict:
    """What papermill is to write into a notebook: what differs from its defaults, in `more` what has its place there."""
    own, defaults = declared(NOTEBOOKS[name]), parameters_of(name, {})
    changed = {key: value for key, value in parameters_of(name, given).items() if value != defaults[key]}
    beside = {key: value for key, value in changed.items() if key in own}
    more = {key: value for key, value in changed.items() if key not in own}
    return beside | ({"more": more} if more else {})


def recorded(name: str, given: dict) -> dict:
    """The settings that a notebook names itself, and of all others of TrainConfig those that are given.

    So a setting that a later library adds makes nothing again.
    """
    named, defaults = declared(NOTEBOOKS[name]).keys() | named_in_more(name), parameters_of(name, {})
    settings = parameters_of(name, given)
    return {key: value for key, value in settings.items() if key in named or value != defaults[key]}


def data_of(given: dict) -> Path:
    """The folder of the prepared data."""
    return resolve_path(parameters_of("02_train", given)["data"])


def state(name: str, run: Path, given: dict) -> dict:
    """What the result of a notebook stands on: its parameters, its own code, the lists of the data, and other files."""
    data = data_of(given)
    if name == "01_prepare_data":
        files = [*sources(given), data / "images", data / "masks"]
    else:
        files = [path for pattern in FILES[name] for path in run.glob(pattern)]
    return {
        "parameters": recorded(name, given),
        "notebook": notebook_hash(NOTEBOOKS[name]),
        "lists": {path.name: checksum(path) for path in [*data.glob("*.csv"), *data.glob("classes.json")]},
        "files": fingerprint(files),
    }


def sources(given: dict) -> list[Path]:
    """The folders and lists that a data set is made from."""
    own = parameters_of("01_prepare_data", given)
    places = [own["raw"] or f"data/raw/{own['dataset']}", own["root"], own["sbd_root"], *own["ids"].values()]
    if own["dataset"] == "voc":
        places.append(os.environ.get("WSFCN_VOC_ROOT"))
    return [resolve_path(place) for place in places if place]


def fingerprint(places: list[Path]) -> str:
    """A hash over the names, sizes and times of files, and of all files in folders; it reads none of them."""
    lines = []
    for place in places:
        inner = walk(place, defaultdict(list))  # follows links, without circles
        for path in [place, *(place / name for name in inner if not name.name.startswith("."))]:
            if path.is_file():
                facts = path.stat()
                lines.append(f"{path.relative_to(place.parent)} {facts.st_size} {facts.st_mtime_ns}\n")
    return hashlib.sha256(os.fsencode("".join(sorted(lines)))).hexdigest()[:16]


def changes_since(record: Path, now: dict) -> list[str] | None:
    """What is other than when a notebook finished, such as parameters.lr or lists.train.csv; None where it never did."""
    if not record.exists():
        return None
    try:
        return [key for key, _, _ in diff_settings(json.loads(record.read_text("utf-8")), now)]
    except (ValueError, AttributeError):
        return [f"{shown(record)} is damaged"]


def is_finished(run: Path, name: str) -> bool:
    """Whether the run's run.json, which may have been lost, says that a notebook was executed to its end."""
    return (run / "run.json").exists() and bool(read_run(run)["stages"].get(name, {}).get("finished"))


def lacks_masks(given: dict) -> bool:
    """Whether the list of the ablation's split names no mask; False where there is no list, of which notebook 04 tells."""
    split = parameters_of("04_ablations", given)["ablation_images"]
    path = data_of(given) / f"{split}.csv"
    if not path.is_file():
        return False
    with open(path, newline="", encoding="utf-8") as file:
        return not any(row.get("mask") for row in csv.DictReader(file))


def put_aside(run: Path) -> None:
    """Rename a run to <name>-before (-before2, ...).

    RunError for what is no run, and where somebody works on it or on one of its ablation's runs.
    """
    require_run_folder(run)
    before, number = run.with_name(f"{run.name}-before"), 1
    while before.exists():
        number += 1
        before = run.with_name(f"{run.name}-before{number}")
    with ExitStack() as locks:
        for path in [run / ".run_all", *run.rglob(".lock")]:
            locks.callback(take_lock(path).release)
        run.rename(before)
    print(f"what was {shown(run)} is kept as {shown(before)}", flush=True)


def print_results(runs: list[Path]) -> None:
    """Print the runs' results, and where their reports lie."""
    for run in runs:
        path = run / "metrics.json"
        metrics = {}
        try:
            metrics = read_run(run)["metrics"] if path.exists() else {}
        except (RunError, OSError) as error:
            print(error, file=sys.stderr)
        numbers = [f"{key} {metrics[key]:.4f}" for key in RESULTS if metrics.get(key) is not None]
        for path in sorted(run.glob("metrics_*.json")):  # of lists and folders of pictures
            found = json.loads(path.read_text("utf-8"))
            if found.get("mean_iou") is None and "images" in found:
                unpainted = found.get("nothing_painted", 0)
                numbers.append(
                    f"{found['split']}: {found['images']} pictures, nothing painted in {unpainted}"
                )
        print(run.name, *numbers or ["no results yet"], sep="  ")
        if (run / "report.html").exists():
            print(f"report: {shown(run / 'report.html')}")


def shown(path: Path) -> str:
    """A path as people type it from the repository."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, list[tuple[Path, dict]]]:
    """The options, and (run folder, given parameters) of each run; exits with code 2 where they make no sense."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--params",
        nargs="+",
        type=Path,
        metavar="YAML",
        help="files of parameters that differ from the notebooks' own, a run each",
    )
    add(
        "--run-name",
        metavar="NAME",
        help="name of a folder in data/runs, or a path; default: demo, or the name of the YAML",
    )
    numbers = [name[:2] for name in NOTEBOOKS]
    add(
        "--only",
        nargs="+",
        metavar="NN",
        choices=[*numbers, *NOTEBOOKS],
        default=numbers,
        help="the notebooks to run, by number; default: all",
    )
    add(
        "--timeout", type=float, metavar="SECONDS", help="the longest that a cell may take; default: no limit"
    )
    add("--fresh", action="store_true", help="begin anew; a run that has this name is kept as NAME-before")
    add(
        "--commit", action="store_true", help="execute the default run, and keep its outputs in the notebooks"
    )
    options = parser.parse_args(arguments)
    name = options.run_name
    if options.commit and (options.params or name or options.only != numbers):
        parser.error("--commit is about the default run: it takes no --params, --run-name or --only")
    if name and len(options.params or []) > 1:
        parser.error(f"--run-name {name} would put {len(options.params)} runs into one folder; leave it out")
    runs = []
    for path in options.params or [None]:
        try:
            given = read_parameters(shell_path(path)) if path else {}
            own = resolve_path(given.pop("run", RUNS / (path.stem if path else "demo")))
            folder = shell_run(name) if name else own
            require_run_folder(folder)
            check_settings(given, options.only, folder)
        except (OSError, ValueError, RunError) as error:
            parser.error(f"{path or '--run-name'}: {error}")
        runs.append((folder, given))
    return options, runs


def read_parameters(path: Path) -> dict:
    """The parameters in a YAML file; ParameterError unless each is one of some notebook's, with a value of its type."""
    try:
        given = yaml.load(path.read_bytes(), ParameterLoader)
    except yaml.YAMLError as error:
        raise ParameterError(yaml_fault(error)) from None
    if given is None:
        raise ParameterError(
            "it holds no parameter; write some, or leave --params out for the default run ({} stands for none)"
        )
    if not isinstance(given, dict):
        raise ParameterError(
            f"it holds a {type(given).__name__}; write lines such as `epochs: 20`, with a blank after the colon"
        )
    check_values(given)
    return given


class Amounts(Settings):
    """What notebooks 03 to 05 are asked for beside the settings of an evaluation."""

    count: int = Field(1, ge=1)
    sampled: int = Field(1, ge=1)
    seeds: int = Field(1, ge=1)
    jobs: int = Field(1, ge=1)
    export: Literal["", "server", "training", "weights"] = ""


def check_settings(given: dict, only: list[str], run: Path) -> None:
    """Raise a ValueError where a notebook that is to run would, perhaps after hours of training."""
    checks = (check_preparation, check_training, check_exploration, check_ablation, check_evaluation)
    for name, check in zip(NOTEBOOKS, checks):
        if name.startswith(tuple(only)):
            own = parameters_of(name, given)
            try:
                if check is check_ablation:
                    check_start(given)
                check(own)
                Amounts(**part_of(Amounts, own))
                for kind in ("images", "picture", "masks", "snapshot"):
                    if kind in own:
                        check_place(kind, own[kind], [run, data_of(given), *sources(given)])
            except ValueError as error:
                raise ParameterError(f"{name}: {error}") from None


def check_preparation(own: dict) -> None:
    from wsfcn_lib.data.preparation import SourceSettings

    sizes = {name: own[f"{name}_images"] for name in SPLITS}
    try:
        GlyphSettings(size=own["image_size"], seed=own["data_seed"], **sizes)
    except ValueError as error:
        raise ParameterError(f"{error}; {OTHER_NAMES['glyphs']}") from None
    lists = {name: own[f"{name}_list"] for name in SPLITS if own[f"{name}_list"]}
    SourceSettings(**part_of(SourceSettings, own) | {"masks": own["train_masks"], "lists": lists})


def check_training(own: dict) -> None:
    TrainConfig(**part_of(TrainConfig, own))


def check_start(given: dict) -> None:
    """Raise a ValueError where notebook 04 would compare what its schedule and its other modules cannot have."""
    given = merged(given)
    weights = str(given.get("initial_weights", ""))
    begun = weights == "shipped" or weights.endswith(".safetensors")
    for name, stands in (("steps", given.get("steps")), ("initial_weights", begun)):
        if stands:
            raise ParameterError(
                f"{name}={given[name]!r} would hold for each configuration, whose schedule is `ablation_epochs` and "
                "whose modules differ; leave this notebook out: --only 01 02 03 05"
            )


def check_exploration(own: dict) -> None:
    from wsfcn_lib.evaluation.scoring import EvalSettings

    EvalSettings(**part_of(EvalSettings, own))
    if own["images"] not in SPLITS:
        raise ParameterError(
            f"images={own['images']!r} is no split ({', '.join(SPLITS)}), and this notebook shows no other pictures; "
            "write a split, or leave it out: --only 01 02 05"
        )


def check_ablation(own: dict) -> None:
    from wsfcn_lib.evaluation.scoring import EvalSettings

    TrainConfig(epochs=own["ablation_epochs"], warmup_epochs=own["ablation_warmup"], device=own["device"])
    if own["ablation_images"] not in SPLITS:
        raise ParameterError(
            f"ablation_images={own['ablation_images']!r} is no split; choose one of {', '.join(SPLITS)}"
        )
    EvalSettings(scales=own["ablation_scales"])


def check_evaluation(own: dict) -> None:
    from wsfcn_lib.evaluation.scoring import UNSAID, EvalSettings

    asked = part_of(EvalSettings, own)
    EvalSettings(**{name: value for name, value in asked.items() if value != UNSAID.get(name)})


def check_place(name: str, value: str, made: list[Path]) -> None:
    """Raise ParameterError for a file or folder that is not there, nor will be made: what lies below `made` may be."""
    networks = [known for known, row in ARTEFACTS.items() if row.holds_network]
    names = {"images": SPLITS, "ablation_images": SPLITS, "snapshot": ("best", "last", "shipped", *networks)}
    known = names.get(name, ("",))
    if value in known:
        return
    place = resolve_path(value)
    if not value.strip() or not (place.exists() or any(place.is_relative_to(folder) for folder in made)):
        kinds = {"images": "split", "ablation_images": "split", "snapshot": "name"}
        kind = f"neither a {kinds[name]} ({', '.join(known)}) nor" if name in kinds else "not"
        other = "; the folder of VOC's training masks is train_masks" if name == "masks" else ""
        raise ParameterError(
            f"{name}={value!r} is {kind} a file or folder (looked at {place}); correct it{other}"
        )


class ParameterLoader(yaml.SafeLoader):
    """YAML as people mean it: a name twice is an error, and only true, false, null and numbers are no text.

    A name without a value is an error too. YAML 1.1 reads no and on as bool, 010 as octal, 12:30 as sexagesimal, 2007_000032 as an integer and
    2024-01-01 as a date, which are text here; and 1e-3 as text, which is a number here. 1e3 is an integer.
    """

    yaml_implicit_resolvers = {}

    def construct_mapping(self, node, deep=False):
        lines = {}
        for key, value in node.value:
            fault = None
            if not isinstance(key, yaml.ScalarNode):
                fault = "a name must be plain text, such as epochs"
            elif key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                fault = f"{key.value!r} stands here and in line {lines[key.value]}; keep one of them"
            elif isinstance(value, yaml.ScalarNode) and not value.value and not value.style:
                fault = (
                    f"{key.value!r} has no value; give one (text may be '', a setting null), or leave it out"
                )
            if fault:
                raise yaml.MarkedYAMLError(problem=fault, problem_mark=key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_yaml_float(self, node):
        number = super().construct_yaml_float(node)
        is_whole = "e" in node.value.lower() and "." not in node.value and number.is_integer()
        return int(number) if is_whole else number


for tag, pattern, first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", "[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+",
        "-+.0123456789",
    ),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", "<<", "<"),
):
    ParameterLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"^({pattern})$"), list(first)
    )
ParameterLoader.add_constructor("tag:yaml.org,2002:float", ParameterLoader.construct_yaml_float)


def yaml_fault(error: yaml.YAMLError) -> str:
    """What is wrong in a file of parameters, in one line, and what to do."""
    if isinstance(error, yaml.reader.ReaderError):
        if "special" in error.reason:
            return f"at position {error.position} it has the sign U+{error.character:04X}, which no text has; remove it"
        return f"it is not UTF-8 at position {error.position} ({error.reason}); save it as UTF-8"
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem_mark:
        return " ".join(str(error).split())
    advice = {
        r"'\t'": "; indent with blanks, not tabs",
        "cannot start any token": "; put the value in quotes: '...'",
        "escape": "; put it in single quotes: '...'",
        "mapping values are not allowed": "; write one `name: value` a line, and text that has a colon in quotes: '...'",
        "could not find expected ':'": "; write lines such as `epochs: 20`, with a blank after the colon",
        "another document": "; leave out the line ---",
        "'<document start>'": "; begin all lines at the left margin",
        "expected alphabetic or numeric character": "; put the value in quotes: '...'",
        "undefined alias": "; put the value in quotes: '...'",
        "for the tag": "; leave out what begins with !, or put the value in quotes: '...'",
        "expected ',' or": "; close the bracket, and put text that has brackets or commas in quotes: '...'",
        "unexpected end of stream": "; close the quote",
    }
    words = next((told for part, told in advice.items() if part in error.problem), "")
    return f"line {error.problem_mark.line + 1}: {error.problem}{words}"


if __name__ == "__main__":
    use_utf8()
    sys.exit(main())
