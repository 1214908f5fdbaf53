"""What the stages of a run are, which settings each takes, and whether its result still stands. Used by run_all.py."""

import ast
import functools
import hashlib
from pathlib import Path

import yaml

from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.job import FREE
from wsfcn_lib.notebook import NOTEBOOKS, ParameterError, check_values, declared
from wsfcn_lib.runs import ROOT, code_hash, compare, read_run

STAGES = {path.stem: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
PREPARATION, TRAINING = "01_prepare_data", "02_train"
LISTS = ("classes.json", "train.csv", "val.csv")  # a training stands on these
NETWORK = ("checkpoints/*.safetensors",)
FILES = {  # what a stage reads or makes in the run; the lists of the data come on top
    "02_train": (*NETWORK, "log.csv"),
    "03_explore": NETWORK,
    "04_ablations": ("ablation.csv",),
    "05_evaluate": (*NETWORK, "ablation.csv", "metrics.json", "per_image.csv", "figures/*.png"),
}


def relative(path: Path) -> str:
    """A path as people type it from the repository."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def read_params(path: Path | None) -> dict:
    """The settings in a YAML file, each of which some notebook declares, with a value of its type."""
    try:
        given = yaml.safe_load(path.read_text("utf-8")) or {} if path else {}
        if not isinstance(given, dict):
            raise ParameterError(f"it holds a {type(given).__name__}; write lines such as `epochs: 20`")
        everything = {name: what for notebook in STAGES.values() for name, what in declared(notebook).items()}
        check_values(everything, given)
    except (OSError, yaml.YAMLError, ParameterError) as error:
        raise ParameterError(f"{path}: {error}") from None
    return given


def plan(given: dict, run: Path) -> dict[str, dict]:
    """{stage: {parameter: value}}: the notebooks' defaults, and what is given instead."""
    given = given | {"run": relative(run)}
    return {stage: {n: given.get(n, what[1]) for n, what in declared(path).items()} for stage, path in STAGES.items()}


@functools.cache
def _checksum(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def training_files(library: Path = ROOT / "wsfcn_lib") -> list[Path]:
    """The library's files that wsfcn_lib.train imports, and those they import; not what only draws."""
    found, waiting = set(), ["wsfcn_lib.train"]
    while waiting:
        name = waiting.pop()
        base = library.parent.joinpath(*name.split("."))
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if base == library or file in found or not file.is_file() or file.stem in ("panels", "plots"):
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):  # the library names its modules in full
                waiting += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sorted(found)


@functools.cache
def training_code() -> str:
    """16 hex digits over the code a training depends on: an explorer or a report that changed makes none again."""
    digest = hashlib.sha256()
    for path in training_files():
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def evidence(stage: str, values: dict[str, dict]) -> dict:
    """What the result of a stage stands on: settings, code, and checksums of the files it read or made."""
    run, data = ROOT / values[stage]["run"], ROOT / values["02_train"]["data"]
    found = [*data.glob("*.csv"), *data.glob("classes.json"), *(f for pattern in FILES.get(stage, ()) for f in run.glob(pattern))]
    files = {str(path.relative_to(run if run in path.parents else data)): path for path in sorted(found)}
    sums = {name: _checksum(path, path.stat().st_size, path.stat().st_mtime_ns) for name, path in files.items()}
    settings = {name: value for name, value in values[stage].items() if name != "run"}
    known = {"settings": settings, "code": training_code() if stage == TRAINING else code_hash(STAGES[stage])}
    known["files"] = sums
    if stage == PREPARATION:
        try:
            manifest = Manifest.load(data)
            known["images"] = sum(sample.image.is_file() for split in manifest.splits for sample in manifest.samples(split))
        except DataError:
            known["images"] = 0
    if stage == "05_evaluate":
        known["report.html"] = (run / "report.html").exists()  # it tells the time, so its checksum tells nothing
    return known


def stage_record(run: Path, stage: str) -> dict:
    """What run.json says of a stage; empty where there is no such stage yet."""
    return read_run(run)["stages"].get(stage, {}) if (run / "run.json").exists() else {}


def news(stage: str, values: dict[str, dict]) -> list[str] | None:
    """What changed since a stage was finished (nothing: []); None where it never was."""
    known = stage_record(ROOT / values[stage]["run"], stage)
    if not known.get("finished") or "evidence" not in known:
        return None
    return [
        key.removeprefix("settings.").removeprefix("files.") for key, *_ in compare(known["evidence"], evidence(stage, values))
    ]


def pointless(stage: str, values: dict[str, dict]) -> str:
    """Why a stage cannot say anything about these data; nothing where it can, or where they are not there yet."""
    data = ROOT / values["02_train"]["data"]
    try:
        split = values["04_ablations"]["ablation_images"]
        masked = stage != "04_ablations" or any(sample.mask for sample in Manifest.load(data).samples(split))
    except DataError:
        return ""  # the notebook will meet the fault too, and tell it
    return "" if masked else f"no image of {split} has a mask to compare by"


def binding(stage: str, changed: list[str] | None, values: dict[str, dict]) -> list[str]:
    """Those changes that the run cannot take up: settings of data and training, lists, and the code that trained."""
    if stage not in (PREPARATION, TRAINING):
        return []  # made again in place
    others = ("code", *LISTS) if stage == TRAINING else ()
    names = [name for name in changed or () if name in others or name.split(".")[0] in values[stage]]
    return [name for name in names if name.split(".")[-1] not in FREE]


def begun_otherwise(run: Path, values: dict[str, dict]) -> bool:
    """Whether a stage of the run was begun with other settings or code than now."""
    for stage in values:
        known, now = stage_record(run, stage), evidence(stage, values)
        then = {"settings": now["settings"], "code": now["code"] if known.get("code") == code_hash() else ""}
        if known and any(known.get("evidence", then)[key] != now[key] for key in ("settings", "code")):
            return True
    return False
