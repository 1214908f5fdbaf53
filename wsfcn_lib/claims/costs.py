"""What a test took, from its records; and what it would take that nobody ran, from counted operations."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsfcn_lib.claims.evidence import read_json, stages_of
from wsfcn_lib.claims.listing import Compute, Needs

TRAINING = ("02_train", "05_evaluate")  # what a number of a network takes
ABLATION = ("02_train", "04_ablations")  # what a row of an ablation's table takes
BENCH = "bench/cpu.json"


@dataclass(frozen=True)
class Cost:
    """Machine, in words; hours of computing; MB of memory of the largest process. 0: not known."""

    machine: str = ""
    hours: float = 0.0
    memory_mb: float = 0.0


def cost_of(folders: Iterable[Path], stages: tuple[str, ...] = TRAINING) -> Cost:
    """What these stages of folders of results took, added up; of a file of the bench by its _machine.json.

    Hours of an ablation are at least those that the logs of its trainings add up to: some were made before, in
    a run of their own.
    """
    machines, hours, memory = [], 0.0, 0.0
    for folder in folders:
        if folder.suffix == ".json":
            facts = read_json(folder.with_name(f"{folder.stem}_machine.json"))
            records = [facts] if facts else []
            rows = [row for row in read_json(folder) if row["stage"].startswith("training")]
            memory = max([memory, *(row.get("megabytes") or 0 for row in rows)])
        else:
            records = [stage for name, stage in stages_of(folder).items() if name in stages]
        seconds = sum(record.get("seconds", 0) for record in records)
        logs = folder.glob("logs/*.csv") if stages == ABLATION else ()
        logged = sum(seconds_of(log, batch_of(folder)) for log in logs)
        hours += max(seconds, logged) / 3600
        memory = max([memory, *(record.get("peak_memory_mb", 0) for record in records)])
        machines += [machine_of(record) for record in records]
    return Cost(", ".join(dict.fromkeys(machines)), hours, memory)


def machine_of(stage: dict) -> str:
    """The machine that a stage of run.json names."""
    device = str(stage.get("device", "cpu"))
    if device == "cpu":
        return f"CPU, {stage.get('cpus', '?')} cores"
    return stage.get("gpu") or f"GPU ({device})"


def batch_of(folder: Path) -> int:
    """Images of a step of the trainings that an ablation's folder keeps the logs of."""
    return stages_of(folder)["04_ablations"]["settings"]["training"]["batch_size"]


def seconds_of(log: Path, batch: int) -> float:
    """Seconds of a training, by the images a second that its log has at some steps."""
    seconds, before = 0.0, 0
    with log.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row.get("images_per_second"):
                step = int(row["step"])
                seconds += batch * (step - before) / float(row["images_per_second"])
                before = step
    return seconds


def bench_of(results: Path) -> dict:
    """The row of a training on the cores of the bench, by which hours are reckoned; {} where there is none."""
    rows = [row for row in read_json(results / BENCH) if row["stage"] == "training"]
    return rows[0] if rows else {}


def operations(needs: Needs, compute: Compute, results: Path) -> float:
    """10^9 operations of a test; those of a training step are the bench's (crops of 321 pixels, PAMR aside).

    0 where there is no bench: not known. So are the hours that follow from it.
    """
    if not (bench := bench_of(results)):
        return 0.0
    step = bench["gigaflop_per_image"]
    trained = needs.images // needs.batch * needs.batch * needs.epochs * step
    view = compute.forward_gflop_per_megapixel * needs.canvas**2 / 1e6
    return trained + needs.evaluated * needs.views * view


def gpu_hours(needs: Needs, compute: Compute, results: Path) -> float:
    """Hours of a test on the assumed GPU; the CRF, on the CPU meanwhile, is not counted."""
    return operations(needs, compute, results) / (1e3 * compute.tflops * compute.share) / 3600


def cpu_hours(needs: Needs, compute: Compute, results: Path) -> float:
    """Hours of a test on the two cores of the bench, at the speed that their training had."""
    bench = bench_of(results)
    return operations(needs, compute, results) / bench["gigaflops"] / 3600 if bench else 0.0


def in_hours(hours: float) -> str:
    """Hours to a tenth, from ten on to one: "0.1", "5.4", "40"; never "0.0"."""
    return f"{hours:.0f}" if hours >= 9.95 else f"{max(hours, 0.1):.1f}"
