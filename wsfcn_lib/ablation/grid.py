"""The ablation grid {ASPP, FCA} x {GCI, SF2}: both published systems are corners of it, and all cells share one schedule.

`python -m wsfcn_lib.ablation FOLDER` trains and measures one cell, whose settings come as JSON on standard input.
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
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.provenance import files_of, peak_memory_mb, provenance
from wsfcn_lib.runs.run_diff import diff_settings, plain
from wsfcn_lib.runs.storage import RunError, atomic_write, make_folder, writing
from wsfcn_lib.train import FREE, THREADS, build_accelerator, show_progress, train
from wsfcn_lib.train import STAGE as TRAINING

STAGE = "04_ablations"
BOTH = {"context": "fca", "fusion": "sf2"}
TITLES = {f"{context}-{fusion}": f"{context} + {fusion}".upper() for context, fusion in CORNERS} | {
    "cam": "CAM baseline"
}
TITLES |= {"aspp-gci": "ASPP + GCI (1-stage)", "fca-sf2": "FCA + SF2 (WS-FCN)"}
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
# The last snapshot: choosing one by validation would look at the split that the cells may be compared on.
QUICK = EvalSettings(images="val", snapshot="last", scales=(1.0,), use_crf=False)


def configurations(seeds: Iterable[int], baseline: bool = False, details: int = 0) -> dict[str, dict]:
    """{name: settings in which a cell differs}: the grid, if asked the CAM baseline, and DETAILS for so many of the seeds.

    Seed by seed, the grid first, so that an interrupted ablation holds whole seeds.
    """
    kinds = {f"{context}-{fusion}": {"context": context, "fusion": fusion} for context, fusion in CORNERS}
    kinds |= {"cam": {"context": "none"}} if baseline else {}
    inside = {name.replace(" ", "-"): BOTH | change for name, change in DETAILS.items()}
    found = {}
    for place, seed in enumerate(seeds):
        chosen = kinds | inside if place < details else kinds
        found |= {f"{name}-s{seed}": change | {"seed": seed} for name, change in chosen.items()}
    return found


def variant_of(cell: str) -> str:
    """What a cell is called in tables: the words of its name, without the seed."""
    name = cell.rpartition("-s")[0]
    return TITLES.get(name, name.replace("-", " "))


def reuse_training(run: Path, configs: Mapping[Path, TrainConfig]) -> None:
    """Copy the run's own finished training into a cell of the same settings that has not begun, which then need not train."""
    stage = read_run(run)["stages"].get(TRAINING, {})
    then = TrainConfig().model_dump() | stage.get("settings", {})
    for folder, config in configs.items():
        same = not [row for row in diff_settings(then, config.model_dump()) if row[0] not in FREE]
        if same and stage.get("finished") and not folder.exists():
            beside = folder.with_name(f".{folder.name}")  # renamed when whole
            shutil.rmtree(beside, ignore_errors=True)
            make_folder(beside / "checkpoints")
            for file in (run / "log.csv", *(run / "checkpoints").glob("*.safetensors")):
                with writing(copy := beside / file.relative_to(run)):
                    shutil.copy(file, copy)
            atomic_write(beside / "run.json", json.dumps({"stages": {TRAINING: stage}}))
            beside.rename(folder)


def is_measured(folder: Path, settings: EvalSettings, masks: str) -> bool:
    """Whether a cell's folder holds what these settings ask for, measured by these masks (a cell that tells none counts)."""
    stage = (read_run(folder)["stages"] if (folder / "run.json").exists() else {}).get(STAGE, {})
    return (
        stage.get("settings") == asked(settings)
        and stage.get("masks", masks) == masks
        and (folder / DIAGNOSTICS_FILE).exists()
    )


def masks_of(manifest: Manifest, images: str) -> str:
    """A checksum over the masks that a split is measured by, and the names of its images."""
    digest = hashlib.sha256()
    for sample in manifest.samples(images):
        digest.update(sample.name.encode() + (sample.mask.read_bytes() if sample.mask else b""))
    return digest.hexdigest()[:16]


def asked(settings: EvalSettings) -> dict:
    """The settings of an evaluation that make its numbers, as run.json holds them."""
    return plain(settings.model_dump(exclude={"processes"}))


def run_configuration(config: TrainConfig, folder: Path | str, settings: EvalSettings = QUICK) -> list[dict]:
    """Train one cell in a run folder of its own and measure it, unless both are done there already.

    Returns a row for each recipe, CRF or not, and tags (predicted, true): dataset, run, variant, context, fusion, seed,
    recipe, crf, tags, and what `Diagnostics.measures` gives, in 0..1.
    Raises RunError where the folder holds other settings, was trained on other lists, or training was stopped; DataError,
    before any training, where no image to measure on has a mask.
    """
    folder, manifest = ROOT / folder, Manifest.load(ROOT / config.data)
    if not any(sample.mask for sample in manifest.samples(settings.images)):
        text = (
            f"{config.data}: no image of {settings.images} has a mask, and the variants are compared by masks"
        )
        raise DataError(f"{text}; add masks of some, or leave 04_ablations out")
    device, masks = build_accelerator(config).device, masks_of(manifest, settings.images)
    with RunFolder.open(
        folder, config.model_dump(), TRAINING, str(device), FREE, TrainConfig().model_dump()
    ) as run:
        trained = read_run(folder)["stages"][TRAINING]
        if not trained.get("finished"):
            for _ in show_progress(train(config, folder), config.epochs):
                pass
        elif trained["data"] != manifest.checksums():
            raise RunError(
                f"{folder.name} was trained on other lists than {config.data} holds now; delete {folder}"
            )
        if not read_run(folder)["stages"][TRAINING].get("finished"):
            raise RunError(
                f"{folder.name} was stopped before its last epoch; run the notebook again, it continues"
            )
        if not is_measured(folder, settings, masks):
            counter, began = DiagnosticsRecorder(manifest), time.perf_counter()
            net = load_snapshot(find_snapshot(folder, settings.snapshot))[0].to(device)
            evaluate(net, manifest, settings, folder, [counter.add])
            counter.save(folder)
            done = {
                "seconds": round(time.perf_counter() - began, 1),
                "peak_memory_mb": peak_memory_mb(),
                "masks": masks,
            }
            run.record(
                STAGE,
                settings=asked(settings),
                finished=True,
                files=files_of(folder),
                **done,
                **provenance(str(device)),
            )
    counts, cell = Diagnostics.load(folder), {"dataset": Path(config.data).name, "run": folder.name}
    cell |= {
        "variant": variant_of(folder.name),
        "context": config.context,
        "fusion": config.fusion,
        "seed": config.seed,
    }
    return [cell | variant._asdict() | counts.measures(variant) for variant in counts.variants]


def run_configurations(
    configs: Mapping[Path, TrainConfig], settings: EvalSettings = QUICK, jobs: int = 1
) -> list[dict]:
    """The rows of all cells, {folder: settings}; with several `jobs`, so many are trained at a time, each in its own process.

    Several GPUs are shared out among them; on a CPU they share the cores.
    """
    manifest = Manifest.load(ROOT / next(iter(configs.values())).data) if configs else None
    masks = masks_of(manifest, settings.images) if configs else ""
    todo = [
        (folder, config)
        for folder, config in configs.items()
        if not is_measured(ROOT / folder, settings, masks)
    ]
    if jobs > 1:
        shares = [{"threads": config.threads or max(1, THREADS // jobs)} for _, config in todo]
        with ThreadPoolExecutor(jobs) as pool:
            work = [
                (f, c.model_copy(update=share), settings, k)
                for k, ((f, c), share) in enumerate(zip(todo, shares))
            ]
            list(pool.map(_apart, *zip(*work)) if work else ())
    rows = []
    for folder, config in configs.items():
        print(f"--- {Path(folder).name}", flush=True)
        rows += run_configuration(config, folder, settings)
    return rows


def _apart(folder: Path, config: TrainConfig, settings: EvalSettings, number: int) -> None:
    """One cell in a process of its own; RunError with what it said where it fails."""
    gpus = range(torch.cuda.device_count())
    seen = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, gpus))).split(",")
    place = {"CUDA_VISIBLE_DEVICES": seen[number % len(gpus)]} if len(gpus) > 1 else {}
    given = json.dumps({"training": config.model_dump(), "evaluation": settings.model_dump()})
    command = [sys.executable, "-m", "wsfcn_lib.ablation.grid", str(folder)]
    done = subprocess.run(
        command, input=given, text=True, capture_output=True, cwd=ROOT, env=os.environ | place
    )
    if done.returncode:
        said = done.stderr.strip() or f"it ended with code {done.returncode}, perhaps for want of memory"
        raise RunError(f"{folder.name} failed: {said[-2000:]}")
    print(f"{folder.name} is trained and measured", flush=True)


def main() -> None:
    """Train and measure the cell in the folder that the command names."""
    given = json.load(sys.stdin)
    try:
        run_configuration(
            TrainConfig(**given["training"]), Path(sys.argv[1]), EvalSettings(**given["evaluation"])
        )
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
