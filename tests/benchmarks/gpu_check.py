"""The first thing to run where there is a GPU: does the kit work on it, how fast, and what to send back. At most 12 minutes.

    make gpu-check
    WSFCN_VOC_ROOT=/path/to/VOC2012 make gpu-check                        # two epochs on photographs, too
    .venv/bin/python tests/benchmarks/gpu_check.py --device cpu --tiny    # rehearsed on a processor, small; writes where --home says

It writes data/results/bench/gpu.json after each part, so that neither one which fails nor a kill takes others along; each part that did not run
has a row that says so. Parts in their order: the tests that need a GPU; a training interrupted and resumed; ResNet38's training at the paper's size, batch 16 and 321 pixels; the animals of VOC;
then the rows of `make bench`, as many as the time allows.
"""

import argparse
import csv
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

from bench import HOME, SEED, STAGES, write_rows
from throughput import told, training

from factories import RESUMED_LOSSES, RESUMED_MAP, resume_differences, settings
from wsfcn_lib import NetConfig, TrainConfig
from wsfcn_lib.data import SourceSettings, prepare
from wsfcn_lib.data.glyphs import GlyphSettings

LIMIT = 11 * 60  # seconds, of which no part begins in the last; the twelfth minute is for what has begun
SHARE = {"gpu_tests": 180, "voc_animals": 300}  # of them, that a part in a process of its own may take
ANIMALS, RUN = ROOT / "notebooks/params/voc_animals.yaml", "data/runs/gpu_check"
TINY = NetConfig(backbone="tiny", width=16, dilations=(1, 2, 4, 6), num_classes=3)
BENCH = ("train_step", "pamr", "inference", "inference_bf16", "inference_rate", "fca", "pamr_floor", "loading", "crf", "confusion", "import")  # fmt: skip


def gpu_tests(device, seconds):
    """Passed, failed and skipped of the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/method/test_gpu.py"]
    code, output = finished(command, seconds)
    counts = re.findall(r"(\d+) (passed|failed|error|skipped)", output)
    if code:
        print(output[-3000:])
    return {"stage": "gpu_tests", **{kind: int(number) for number, kind in counts}, "ok": code == 0}


def finished(command, seconds):
    """Exit code and output of a command; after so many seconds it and all that it started are ended."""
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **out)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, output


def resume(device):
    """How far a training that was interrupted ends from one that was not, on the built-in scenes."""
    with tempfile.TemporaryDirectory() as home:
        glyphs = GlyphSettings(size=48, train=32, val=8, test=8)
        prepare(SourceSettings(raw=f"{home}/raw", glyphs=glyphs), Path(home, "prepared"))
        threads = torch.get_num_threads()
        losses, mean_ap = resume_differences(settings(Path(home, "prepared"), device=device.type), Path(home))
        torch.set_num_threads(threads)  # a training sets its own; what follows is measured with all
    row = {"stage": "resume", "losses": losses, "mean_ap": mean_ap, "allowed": [RESUMED_LOSSES, RESUMED_MAP]}
    return row | {"ok": losses <= RESUMED_LOSSES and mean_ap <= RESUMED_MAP}


def animals_parameters():
    """The parameters of the shipped network's training, cut to two of its twelve epochs."""
    given = yaml.safe_load(ANIMALS.read_text("utf-8"))
    steps = 2 * given["steps"] // given["epochs"]
    return given | {"run": RUN, "steps": steps, "epochs": 2, "warmup_epochs": 1}


def voc_animals(device, seconds):
    """Two epochs on photographs by the notebooks 01 and 02, as a user trains; the last rows of their log."""
    with tempfile.TemporaryDirectory() as home:
        params = Path(home, "gpu_check.yaml")
        params.write_text(yaml.safe_dump(animals_parameters()), "utf-8")
        asked = f"notebooks/run_all.py --params {params} --only 01 02 --fresh"
        code, output = finished([sys.executable, *asked.split()], seconds)
    if code:
        print(output[-3000:])
        return {"stage": "voc_animals", "ok": False}
    return {"stage": "voc_animals"} | last_values(ROOT / RUN / "log.csv") | {"ok": True}


def last_values(log):
    """The last value of what a log says of each row: losses, images a second, the share of the time it waits, mAP."""
    with open(log, newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("step", "classification_loss", "mask_loss", "images_per_second", "stall", "val_loss", "val_map")
    return {name: [float(row[name]) for row in rows if row[name]][-1] for name in names}


def parts_of(device, tiny):
    """The parts in their order: by name, functions of the seconds that are left, which return a row."""
    parts = {
        "gpu_tests": lambda left: gpu_tests(device, min(left, SHARE["gpu_tests"])),
        "resume": lambda left: resume(device),
    }
    if tiny:
        parts["training"] = lambda left: training(device, TINY, 2, 48, 1)
        parts["training_fp32"] = lambda left: training(device, TINY, 2, 48, 1, "fp32")
    else:
        parts["training"] = lambda left: training(device, batch=16, compiled=False)
        parts["training_fp32"] = lambda left: training(device, batch=16, precision="fp32", compiled=False)
    parts["voc_animals"] = lambda left: voc_animals(device, min(left, SHARE["voc_animals"]))
    for name in ("pamr",) if tiny else BENCH:
        parts[name] = lambda left, name=name: STAGES[name](device)
    return parts


NOT_REACHED = "the check ended before it"


def left_out(name, left):
    """Why a part does not run, or an empty text."""
    if name == "voc_animals" and not os.environ.get("WSFCN_VOC_ROOT"):
        return "WSFCN_VOC_ROOT names no photographs"
    return "no time is left" if left < 60 else ""


def check(device, tiny=False, home=HOME, limit=LIMIT, command="make gpu-check"):
    """Run all parts; write their rows after each, and of those to come that they were not reached; returns all."""
    began, parts = time.perf_counter(), parts_of(device, tiny)
    rows = {name: {"stage": name, "left_out": NOT_REACHED, "device": device.type} for name in parts}
    for name, part in parts.items():
        left = limit - (time.perf_counter() - began)
        if reason := left_out(name, left):
            print(f"{name:16} left out: {reason}", flush=True)
            rows[name]["left_out"] = reason
        else:
            rows[name] = row_of(name, part, left, device)
        write_rows([*rows.values()], device, began, command, home)
    return [*rows.values()]


def row_of(name, part, left, device):
    """The row that a part returns, or one on what went wrong."""
    torch.manual_seed(SEED)
    try:
        row = part(left)
        row = told(row, device) if "ok" in row else row
    except Exception as error:  # what goes wrong on a machine that nobody knows is what it is run to see
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        print(f"{name:16} FAILED: {reason}", flush=True)
        row = {"stage": name, "ok": False, "error": reason, "device": device.type}
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def summary(rows, device, home):
    """What a reader of the whole should know, in lines."""
    by_stage, lines = {row["stage"]: row for row in rows}, [""]
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 1e9
        lines.append(f"{torch.cuda.get_device_name(device)}, {memory:.0f} GB, torch {torch.__version__}")
    for stage in ("training", "training_fp32"):
        row = by_stage[stage]
        if "images_per_second" in row:
            usual = " (as the parameter files train)" if row["precision"] == TrainConfig().precision else ""
            lines.append(
                f"{stage}, {row['precision']}{usual}: {row['images_per_second']:g} images/s, {100 * row['share_of_peak']:.0f} % of the matrix peak, "
                f"{(row['megabytes'] or 0) / 1000:.1f} GB; VOC {row['voc_hours']:g} h, COCO {row['coco_hours']:g} h"
            )
    failed = [row["stage"] for row in rows if row.get("ok") is False]
    reasons = {}
    for row in rows:
        if "left_out" in row:
            reasons.setdefault(row["left_out"], []).append(row["stage"])
    lines += [f"LEFT OUT, {reason}: {', '.join(stages)}" for reason, stages in reasons.items()]
    lines.append(f"FAILED: {', '.join(failed)}" if failed else "nothing failed of what ran")
    name = "gpu" if device.type == "cuda" else "cpu"
    lines.append(f"Send back: {home / name}.json, {home / name}_machine.json, and all that was printed here.")
    return lines


def main():
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and few rows, to rehearse")
    parser.add_argument("--home", type=Path, default=HOME, help="folder for the rows")
    options = parser.parse_args()
    usual = options.home.resolve() == HOME.resolve()
    if usual and options.tiny:
        sys.exit(
            "--tiny rehearses on a tiny network, whose numbers are not those of data/results/bench: name another folder "
            "with --home, or leave --tiny out"
        )
    if usual and options.device == "cpu":
        sys.exit("name a folder with --home: data/results/bench/cpu.json is what `make bench` measures")
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA GPU: compare the driver with torch.version.cuda; see --help")
    device = torch.device(options.device)
    rows = check(device, options.tiny, options.home)
    print("\n".join(summary(rows, device, options.home)))
    return any(row.get("ok") is False for row in rows)


if __name__ == "__main__":
    sys.exit(main())
