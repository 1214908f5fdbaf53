"""The ablation grid {ASPP, FCA} x {GCI, SF2}, whose corners are both published systems.

All configurations share one schedule. Each of the grid is a run of its own.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count, repeat
from pathlib import Path

import torch

from wsfcn_lib.ablation.statistics import CORNERS
from wsfcn_lib.checkpoints import find_snapshot, load_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.evaluation.diagnostics import DIAGNOSTICS_FILE, Diagnostics, DiagnosticsRecorder
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.runs.folder import RunFolder, read_run
from wsfcn_lib.runs.log import show_progress
from wsfcn_lib.runs.paths import ROOT, resolve_path
from wsfcn_lib.runs.provenance import files_of, peak_memory_mb, provenance
from wsfcn_lib.runs.run_diff import diff_settings, plain
from wsfcn_lib.runs.storage import RunError, atomic_write, make_folder, writing
from wsfcn_lib.train import DEFAULT_THREADS, WITHOUT_EFFECT, build_accelerator, train
from wsfcn_lib.train import STAGE as TRAINING

STAGE = "04_ablations"
WSFCN = {"context": "fca", "fusion": "sf2"}
TITLES = {
    "aspp-gci": "ASPP + GCI (1-stage)",
    "aspp-sf2": "ASPP + SF2",
    "fca-gci": "FCA + GCI",
    "fca-sf2": "FCA + SF2 (WS-FCN)",
    "cam": "CAM baseline",
}
DETAILS = {  # inside the modules: one line each, all else as in WS-FCN
    "FCA of 2 branches": {"fca_branches": 2},
    "no channel attention": {"channel_attention": False},
    "no align": {"align": False},
    "gate rate 0": {"gate_rate": 0.0},
    "gate rate 0.5": {"gate_rate": 0.5},
    "PAMR 0 iterations": {"pamr_iterations": 0},
    "PAMR 5 iterations": {"pamr_iterations": 5},
    "no size penalty": {"size_power": None},
}
# The last snapshot: choosing one by validation would look at the split that they may be compared on.
QUICK = EvalSettings(images="val", snapshot="last", scales=(1.0,), use_crf=False)


def configurations(seeds: Iterable[int], baseline: bool = False, details: int = 0) -> dict[str, dict]:
    """{name: settings in which a configuration differs}, such as fca-sf2-s0.

    The grid, if asked the CAM baseline, and DETAILS for so many of the seeds. Seed by seed, the grid first,
    so that an interrupted ablation holds whole seeds.
    """
    changes = {f"{context}-{fusion}": {"context": context, "fusion": fusion} for context, fusion in CORNERS}
    if baseline:
        changes["cam"] = {"context": "none"}
    inside = {name.replace(" ", "-"): WSFCN | change for name, change in DETAILS.items()}
    settings = {}
    for number, seed in enumerate(seeds):
        chosen = changes | inside if number < details else changes
        for name, change in chosen.items():
            settings[f"{name}-s{seed}"] = change | {"seed": seed}
    return settings


def variant_of(name: str) -> str:
    """What a configuration is called in tables, from the name of its folder; the same for all seeds."""
    variant = name.rpartition("-s")[0]
    return TITLES.get(variant, variant.replace("-", " "))


def reuse_training(run: Path, configs: Mapping[Path, TrainConfig]) -> None:
    """Copy the run's own finished training to where a configuration has its settings and has not begun."""
    stage = read_run(run)["stages"].get(TRAINING, {})
    if not stage.get("finished"):
        return
    trained = TrainConfig().model_dump() | stage["settings"]
    for folder, config in configs.items():
        different = {key for key, *_ in diff_settings(trained, config.model_dump())}
        if folder.exists() or different - set(WITHOUT_EFFECT):
            continue
        partial = folder.with_name(f".{folder.name}")  # renamed when whole
        shutil.rmtree(partial, ignore_errors=True)
        make_folder(partial / "checkpoints")
        for file in (run / "log.csv", *(run / "checkpoints").glob("*.safetensors")):
            copy = partial / file.relative_to(run)
            with writing(copy):
                shutil.copy(file, copy)
        atomic_write(partial / "run.json", json.dumps({"stages": {TRAINING: stage}}))
        partial.rename(folder)


def is_measured(folder: Path, settings: EvalSettings, masks: str) -> bool:
    """Whether a folder holds what these settings measure by these masks (or does not say its masks)."""
    if not (folder / "run.json").exists() or not (folder / DIAGNOSTICS_FILE).exists():
        return False
    stage = read_run(folder)["stages"].get(STAGE, {})
    return stage.get("settings") == _measuring(settings) and stage.get("masks", masks) == masks


def masks_of(manifest: Manifest, images: str) -> str:
    """A checksum over the masks that a split is measured by, and the names of its images."""
    digest = hashlib.sha256()
    for sample in manifest.samples(images):
        digest.update(sample.name.encode())
        if sample.mask:
            digest.update(sample.mask.read_bytes())
    return digest.hexdigest()[:16]


def _measuring(settings: EvalSettings) -> dict:
    """The settings of an evaluation that its numbers depend on, as run.json holds them."""
    return plain(settings.model_dump(exclude={"processes"}))


def run_configuration(config: TrainConfig, folder: Path | str, settings: EvalSettings = QUICK) -> list[dict]:
    """Train one configuration in a run folder of its own and measure it, unless both are done there already.

    Returns a row for each recipe, CRF or not, and tags (predicted, true): dataset, run, variant, context,
    fusion, seed, recipe, crf, tags, and what `Diagnostics.measures` gives, in 0..1.
    Raises RunError where the folder holds other settings, was trained on other lists, or training was
    stopped; DataError, before any training, where no image to measure on has a mask.
    """
    folder, manifest = resolve_path(folder), Manifest.load(config.data)
    if not any(sample.mask for sample in manifest.samples(settings.images)):
        raise DataError(
            f"{config.data}: no image of {settings.images} has a mask, and variants are compared by masks; "
            "add masks of some, or leave 04_ablations out"
        )
    device = build_accelerator(config).device
    defaults = TrainConfig().model_dump()
    with RunFolder.open(folder, config.model_dump(), TRAINING, str(device), WITHOUT_EFFECT, defaults) as run:
        _train(config, folder, manifest)
        if not is_measured(folder, settings, masks_of(manifest, settings.images)):
            _measure(run, manifest, settings, device)
    diagnostics = Diagnostics.load(folder)
    row = {
        "dataset": Path(config.data).name,
        "run": folder.name,
        "variant": variant_of(folder.name),
        "context": config.context,
        "fusion": config.fusion,
        "seed": config.seed,
    }
    return [row | each._asdict() | diagnostics.measures(each) for each in diagnostics.variants]


def _train(config: TrainConfig, folder: Path, manifest: Manifest) -> None:
    """Train to the end, unless that is done."""
    stage = read_run(folder)["stages"][TRAINING]
    if stage.get("finished"):
        if stage["data"] != manifest.checksums():
            raise RunError(
                f"{folder.name} was trained on other lists than {config.data} holds now; "
                f"choose another run name, or move {folder} away to train it again"
            )
        return
    for _ in show_progress(train(config, folder), config.epochs):
        pass
    if not read_run(folder)["stages"][TRAINING].get("finished"):
        raise RunError(
            f"{folder.name} was stopped before its last epoch; run the notebook again, it continues"
        )


def _measure(run: RunFolder, manifest: Manifest, settings: EvalSettings, device: torch.device) -> None:
    """Evaluate the network of a run, and keep the diagnostics and how they came about."""
    began = time.perf_counter()
    recorder = DiagnosticsRecorder()
    net = load_snapshot(find_snapshot(run.path, settings.snapshot))[0].to(device)
    evaluate(net, manifest, settings, run.path, [recorder.add])
    recorder.save(run.path)
    run.record(
        STAGE,
        settings=_measuring(settings),
        finished=True,
        files=files_of(run.path),
        seconds=round(time.perf_counter() - began, 1),
        peak_memory_mb=peak_memory_mb(),
        masks=masks_of(manifest, settings.images),
        **provenance(str(device)),
    )


def run_configurations(
    configs: Mapping[Path, TrainConfig], settings: EvalSettings = QUICK, jobs: int = 1
) -> list[dict]:
    """The rows of all configurations, {folder: settings}.

    With several `jobs`, so many are trained at a time, each in its own process. Several GPUs are shared out
    among them; on a CPU they share the cores.
    """
    if jobs > 1:
        todo = {}
        for folder, config in configs.items():
            masks = masks_of(Manifest.load(config.data), settings.images)
            if not is_measured(resolve_path(folder), settings, masks):
                threads = config.threads or max(1, DEFAULT_THREADS // jobs)
                todo[folder] = config.model_copy(update={"threads": threads})
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(_run_process, todo, todo.values(), repeat(settings), count()))
    rows = []
    for folder, config in configs.items():
        print(f"--- {Path(folder).name}", flush=True)
        rows += run_configuration(config, folder, settings)
    return rows


def _run_process(folder: Path, config: TrainConfig, settings: EvalSettings, number: int) -> None:
    """One configuration in its own process, on a GPU by its number; RunError with the reason if it fails."""
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    gpus = torch.cuda.device_count()
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number % gpus]
    process = subprocess.run(
        [sys.executable, "-m", "wsfcn_lib.ablation", str(folder)],
        input=json.dumps({"training": config.model_dump(), "evaluation": settings.model_dump()}),
        encoding="utf-8",
        errors="replace",
        capture_output=True,
        cwd=ROOT,
        env=environment,
    )
    if process.returncode:
        reason = process.stderr.strip()[-2000:]
        raise RunError(
            f"{folder.name} failed: "
            + (reason or f"it ended with code {process.returncode}, perhaps for want of memory")
        )
    print(f"{folder.name} is trained and measured", flush=True)
