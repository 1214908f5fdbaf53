"""What the stages of a run are, which settings each takes, and whether its result still stands. Used by run_all.py."""

import functools
import hashlib
from pathlib import Path

import yaml

from training_code import training_code
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.notebook import NOTEBOOKS, ParameterError, check_values, declared
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import code_hash
from wsfcn_lib.runs.run_diff import diff_settings, plain
from wsfcn_lib.runs.storage import RunError
from wsfcn_lib.train import WITHOUT_EFFECT

STAGES = {path.stem: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
PREPARATION, TRAINING = "01_prepare_data", "02_train"
LISTS = ("files.classes.json", "files.train.csv", "files.val.csv")  # a training stands on these
# of the preparation's settings those that change no training image; where they do, the lists tell
HARMLESS = ("download", "strict", "root", "sbd_root", "test_images", "test_list")
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
    return {
        stage: {n: given.get(n, what[1]) for n, what in declared(path).items()}
        for stage, path in STAGES.items()
    }


@functools.cache
def _checksum(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def evidence(stage: str, values: dict[str, dict]) -> dict:
    """What the result of a stage stands on: settings, code, and checksums of the files it read or made."""
    run, data = ROOT / values[stage]["run"], ROOT / values["02_train"]["data"]
    found = [
        *data.glob("*.csv"),
        *data.glob("classes.json"),
        *(f for pattern in FILES.get(stage, ()) for f in run.glob(pattern)),
    ]
    files = {str(path.relative_to(run if run in path.parents else data)): path for path in sorted(found)}
    sums = {
        name: _checksum(path, path.stat().st_size, path.stat().st_mtime_ns) for name, path in files.items()
    }
    settings = {name: value for name, value in values[stage].items() if name != "run"}
    code = {"training code": training_code()} if stage == TRAINING else {"code": code_hash(STAGES[stage])}
    known = {"settings": settings, **code, "files": sums}
    if stage == PREPARATION:
        try:
            manifest = Manifest.load(data)
            known["images"] = sum(
                sample.image.is_file() for split in manifest.splits for sample in manifest.samples(split)
            )
        except DataError:
            known["images"] = 0
    if stage == "05_evaluate":
        known["report.html"] = (
            run / "report.html"
        ).exists()  # it tells the time, so its checksum tells nothing
    return known


def stage_record(run: Path, stage: str) -> dict:
    """What run.json says of a stage; empty where there is no such stage yet."""
    return read_run(run)["stages"].get(stage, {}) if (run / "run.json").exists() else {}


def changes(stage: str, values: dict[str, dict]) -> list[str] | None:
    """What changed since a stage was finished, such as settings.lr, code, files.train.csv; None where it never was.

    A parameter that a notebook has got since then, at its default, is no change; nor is the code of a training from before
    training code was recorded, of which nobody knows.
    """
    known = stage_record(ROOT / values[stage]["run"], stage)
    if not known.get("finished") or "evidence" not in known:
        return None
    usual = {f"settings.{name}": what[1] for name, what in declared(STAGES[stage]).items()}
    rows = [
        row
        for row in diff_settings(known["evidence"], evidence(stage, values))
        if row[1] != "(absent)" or row[2] != usual.get(row[0])
    ]
    unknown = (
        ("code", "training code") if stage == TRAINING and "training code" not in known["evidence"] else ()
    )
    return [key for key, *_ in rows if key not in unknown]


def news(stage: str, values: dict[str, dict]) -> list[str] | None:
    """`changes` as people read them."""
    found = changes(stage, values)
    return found and [key.removeprefix("settings.").removeprefix("files.") for key in found]


def pointless(stage: str, values: dict[str, dict]) -> str:
    """Why a stage cannot say anything about these data; nothing where it can, or where they are not there yet."""
    data = ROOT / values["02_train"]["data"]
    try:
        split = values["04_ablations"]["ablation_images"]
        masked = stage != "04_ablations" or any(sample.mask for sample in Manifest.load(data).samples(split))
    except DataError:
        return ""  # the notebook will meet the fault too, and tell it
    return "" if masked else f"no image of {split} has a mask to compare by"


def binding(stage: str, values: dict[str, dict]) -> list[str]:
    """Those changes that a run cannot take up: settings that make other data or another training, lists, training code.

    A list that is not there binds nobody: notebook 01 may write it again as it was. A training that was interrupted goes on with
    other code, which its record then shows; of one that another launcher ended, the code is not compared either.
    """
    data, free = ROOT / values[TRAINING]["data"], {PREPARATION: HARMLESS, TRAINING: WITHOUT_EFFECT}
    known, found = stage_record(ROOT / values[stage]["run"], stage), []
    if (
        stage == TRAINING and known and "evidence" not in known
    ):  # interrupted, or ended by another launcher than run_all.py
        return _other_beginning(known, values)
    for key in changes(stage, values) or () if stage in free else ():
        kind, _, name = key.partition(".")
        listed = stage == TRAINING and (key == "training code" or key in LISTS and (data / name).is_file())
        if listed or kind == "settings" and name.rpartition(".")[2] not in free[stage]:
            found.append(name or key)
    return found


def _other_beginning(known: dict, values: dict[str, dict]) -> list[str]:
    """What a training began with that is other now, settings or lists; one without files yet binds nobody."""
    if not any((ROOT / values[TRAINING]["run"] / "checkpoints").glob("*")):
        return []
    try:
        now, lists = (
            plain(training(values).model_dump()),
            Manifest.load(ROOT / values[TRAINING]["data"]).checksums(),
        )
    except ValueError:  # of settings that make no training, or data that are not there: notebook 02 tells
        return []
    changed = [key for key, *_ in diff_settings(plain(TrainConfig().model_dump()) | known["settings"], now)]
    names = [name.removeprefix("files.") for name in LISTS]
    began = known.get("data", {})
    other = [name for name in names if name in lists and name in began and lists[name] != began[name]]
    return [key for key in changed if key.partition(".")[0] not in WITHOUT_EFFECT] + other


def training(values: dict[str, dict]) -> TrainConfig:
    """The settings of the training, as notebook 02 puts them together; ValueError where they make none."""
    given = values[TRAINING]
    return TrainConfig(
        **{name: value for name, value in given.items() if name in TrainConfig.model_fields} | given["more"]
    )


def check_training(values: dict[str, dict]) -> None:
    """RunError where the settings make no training: before a run is put aside for them."""
    try:
        training(values)
    except ValueError as error:
        raise RunError(f"these settings make no training, so the run stays as it is: {error}") from None


def begun_otherwise(run: Path, values: dict[str, dict]) -> bool:
    """Whether a stage of the run was begun with other settings or code than now."""
    for stage in values:
        known, now = stage_record(run, stage), evidence(stage, values)
        if then := known.get("evidence"):
            if any(then.get(key) != now[key] for key in now if key in ("settings", "code", "training code")):
                return True
        elif known and known.get("code") != code_hash():
            return True
    return False
