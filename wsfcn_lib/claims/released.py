"""Evaluate what others released and what lies on this disk: weights and masks, on VOC's val images.

`make released` prints ours beside the published numbers, and keeps the evidence in data/results/released_<key>, from
which CLAIMS.md is written. What lies nowhere is listed with its file, size, source and folder. Nothing is downloaded.
"""

import argparse
import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from wsfcn_lib.claims.costs import cpu_hours, in_hours
from wsfcn_lib.claims.evidence import RESULTS, figure, stages_of, unlike
from wsfcn_lib.claims.listing import Needs, Test, read_claims
from wsfcn_lib.claims.page import page
from wsfcn_lib.claims.rules import judge
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.manifest import Manifest, write_manifest
from wsfcn_lib.data.model_zoo import ARTEFACTS, Artefact, WeightsError
from wsfcn_lib.data.voc import FULL, find_voc, voc_classes
from wsfcn_lib.evaluation.inputs import Trained, load_trained
from wsfcn_lib.evaluation.mask_archives import score_archive
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.postprocess import crf_available
from wsfcn_lib.runs.folder import RunFolder
from wsfcn_lib.runs.notebook import finish
from wsfcn_lib.runs.paths import RUNS, resolve_path, use_utf8
from wsfcn_lib.runs.storage import RunError, atomic_write, checksum, make_folder
from wsfcn_lib.train import build_accelerator

STAGE = "05_evaluate"
EVIDENCE = ("run.json", "metrics.json", "per_image.csv")
KINDS = ("", "_crf", "_true_tags", "_crf_true_tags")  # of mean_iou, see `results.PostProcessing`


def released_artefacts() -> list[Artefact]:
    """The whole networks and the archives of masks among ARTEFACTS."""
    return [row for row in ARTEFACTS.values() if row.holds_network or not row.holds_weights]


def not_scored(artefact: Artefact) -> str:
    """Why an archive of masks cannot be scored on val; "" where it can."""
    if artefact.holds_network or "_val" in artefact.name:
        return ""
    if "_test" in artefact.name:
        return "VOC keeps the true masks of test; only its server scores them"
    return "masks of training images, to train a second network on"


def val_images() -> Manifest:
    """VOC's val images, where WSFCN_VOC_ROOT says or in data/raw/voc, as a manifest of their own.

    Raises DataError that says what is missing, and how to get it.
    """
    named = os.environ.get("WSFCN_VOC_ROOT", "")
    root = resolve_path(named or "data/raw/voc")
    try:
        listing = find_voc(root, voc_classes(), {"val": "val"})
    except DataError as error:
        raise DataError(
            f"VOC's val images are needed ({FULL['val']:,}, with their masks): {error}. Unpack "
            "VOCtrainval_11-May-2012.tar into data/raw/voc, or name the folder that holds VOCdevkit by WSFCN_VOC_ROOT, "
            "or let notebook 01 fetch them (dataset: voc, download: true)"
        ) from error
    if listing.missing:
        print(f"{len(listing.missing)} listed images lack a file, first {listing.missing[0]}")
    for line in listing.notes:
        print(line)
    return write_manifest("data/prepared/voc_val", listing.classes, listing.splits)


def network_settings(artefact: Artefact, trained: Trained, changes: dict) -> EvalSettings:
    """The settings that released weights are evaluated with: their own protocol, changed by `changes`."""
    fixed = {"images": "val", "snapshot": artefact.name, "use_crf": crf_available()}
    return EvalSettings(**trained.protocol | {"long_side": 0} | fixed | changes)


def mask_settings(artefact: Artefact) -> dict:
    """The settings that an archive of masks is scored with."""
    return {"images": "val", "masks": artefact.file}


def evaluate_network(trained: Trained, settings: EvalSettings, manifest: Manifest, run: Path) -> None:
    """Evaluate released weights into a run folder."""
    device = build_accelerator(trained.config).device
    images = len(manifest.samples("val"))
    if device.type == "cpu" and images > 100:
        needs = Needs(evaluated=images, canvas=settings.canvas)
        if hours := cpu_hours(needs, read_claims().compute, RESULTS):
            print(f"on two CPU cores this takes about {in_hours(hours)} h")
    used = settings.model_dump()
    began = time.perf_counter()
    with RunFolder.open(run, used, STAGE, str(device), ignore=used) as folder:
        evaluate(trained.net.to(device), manifest, settings, run)
        facts = {"weights": trained.path.name, "sha256": checksum(trained.path), "data": manifest.checksums()}
        finish(folder, STAGE, began, device, settings=used, **facts)


def score_masks(artefact: Artefact, path: Path, manifest: Manifest, run: Path) -> None:
    """Score an archive of masks, its folders with and without CRF apart, into a run folder."""
    began = time.perf_counter()
    truth = "_true_tags" if artefact.name.endswith("_clean") else ""
    metrics, tables, used = {"split": "val"}, [], mask_settings(artefact)
    for inside in mask_folders(path):
        ending = ("_crf" if PurePosixPath(inside).name.endswith("crf") else "") + truth
        if "mean_iou" + ending in metrics:
            raise DataError(f"{path}: two folders hold masks of one kind, {inside} among them; leave one")
        score = score_archive(path, manifest, manifest.masked_samples("val"), inside)
        counted = score.metrics()
        for name in ("mean_iou", "per_class_iou", "precision", "recall"):
            metrics[name + ending] = counted[name]
        metrics["images"] = min(counted["images"], metrics.get("images", counted["images"]))
        tables.append(pd.DataFrame(score.rows).set_index("image").add_suffix(ending))
    with RunFolder.open(run, used, STAGE, ignore=used) as folder:
        atomic_write(run / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        atomic_write(run / "per_image.csv", pd.concat(tables, axis=1).to_csv())
        finish(folder, STAGE, began, sha256=checksum(path), data=manifest.checksums(), settings=used)


def mask_folders(path: Path) -> list[str]:
    """Folders in an archive that hold PNGs, "." for its top; those of drawings (`vis`) are left out."""
    try:
        with tarfile.open(path) as archive:
            names = [PurePosixPath(member.name) for member in archive if member.isreg()]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{path}: no readable archive ({error}); compare its size with its source's"
        ) from error
    hold = {str(name.parent) for name in names if name.suffix == ".png" and not name.name.startswith(".")}
    folders = sorted(folder for folder in hold if PurePosixPath(folder).name != "vis")
    if not folders:
        raise DataError(f"{path}: no PNG is in it; it should hold one for each image of val")
    return folders


def not_known(path: Path, manifest: Manifest, evidence: Path, asked: dict) -> str:
    """Why the evidence does not tell what is asked for, in words; "" where it does.

    It does where it is of this very file, these images and these settings. One with CRF tells what one without would
    tell, too, and how many processes computed it changes nothing; a setting that it does not know had its default.
    """
    stage = stages_of(evidence).get(STAGE, {})
    if not stage.get("finished"):
        return "never evaluated to its end"
    if stage.get("sha256") != checksum(path):
        return "evaluated before, when it was another file"
    if stage.get("data") != manifest.checksums():
        return "evaluated before, on other images"
    stored = EvalSettings().model_dump(mode="json") | stage.get("settings", {})
    free = {"processes"} | ({"use_crf"} if stored["use_crf"] else set())
    other = unlike(stored, {name: value for name, value in asked.items() if name not in free})
    return f"evaluated before, with {', '.join(other)}" if other else ""


def evaluate_all(found: dict[str, Path], results: Path, runs: Path, changes: dict) -> list[str]:
    """Evaluate each found artefact, unless that is done; returns a line for each that could not be."""
    manifest, faults = val_images(), []
    for name, path in found.items():
        artefact, run = ARTEFACTS[name], runs / f"released_{name}"
        evidence = results / run.name
        try:
            if artefact.holds_network:
                trained = load_trained(run, artefact.name, str(manifest.folder))
                settings = network_settings(artefact, trained, changes)
                asked = settings.model_dump(mode="json")
            else:
                asked = mask_settings(artefact)
            reason = not_known(path, manifest, evidence, asked)
            if not reason:
                print(
                    f"{name}: evaluated before, see data/results/{evidence.name}; delete that to do it again"
                )
                continue
            print(f"{name}: {path.name} ({reason})")
            if artefact.holds_network:
                evaluate_network(trained, settings, manifest, run)
            else:
                score_masks(artefact, path, manifest, run)
        except (DataError, WeightsError, RunError) as error:
            faults.append(f"{name}: {error}")
            continue
        make_folder(evidence)
        for file in EVIDENCE:
            shutil.copy(run / file, evidence / file)
    return faults


def table(names: Iterable[str], results: Path) -> str:
    """A line for each number of the artefacts: what it is, ours, published, verdict and why."""
    lines = [f"{'':44} {'ours':>6} {'published':>14}  verdict"]
    for name in names:
        folder = results / f"released_{name}"
        for kind in KINDS:
            key = f"mean_iou{kind}"
            ours = figure(folder, key)
            tests = claimed(folder.name, key)
            if ours is None:
                continue
            # of two claims of one number (65.02 in the abstract, 63.23 in the README) each has its line
            for test in tests or [None]:
                what = f"{ARTEFACTS[name].what}{kind.replace('_crf', ', CRF').replace('_true_tags', ', true tags')}"
                verdict, published = "nothing is published", "–"
                if test:
                    finding = judge(test, results)
                    verdict = f"{finding.verdict} ({finding.reason})"
                    goals = (test.published, test.or_published)
                    published = " or ".join(f"{goal:.2f}" for goal in goals if goal is not None)
                lines.append(f"{what:44} {100 * ours:6.2f} {published:>14}  {verdict}")
    return "\n".join(lines)


def claimed(folder: str, key: str) -> list[Test]:
    """The tests that a number of a folder of results decides."""
    tests = [test for claim in read_claims().claims for test in claim.tests]
    return [test for test in tests if folder in test.evidence and test.key == key]


def what_is_missing(missing: Iterable[Artefact]) -> str:
    """File, size, source and folder of artefacts that lie nowhere."""
    lines = ["Not here:"]
    for row in missing:
        source = row.url or f"by hand: {row.page}"
        lines += [f"  {row.file}, {row.mb:g} MB: {row.what}", f"    from {source}", f"    into {row.folder}"]
        if row.url:
            lines.append(f"    or: python -m wsfcn_lib.data.downloads {row.name}")
        if reason := not_scored(row):
            lines.append(f"    not scored here: {reason}")
    return "\n".join(lines)


def released(results: Path = RESULTS, runs: Path = RUNS, **changes: object) -> int:
    """Evaluate what lies here, print the table, write CLAIMS.md anew; returns 1 where something failed.

    `changes` are settings of the evaluation other than published; with them a number decides nothing.
    """
    artefacts = released_artefacts()
    found = {row.name: path for row in artefacts if (path := row.find())}
    missing = [row for row in artefacts if row.name not in found]
    if not found:
        print(
            "None of the released weights and masks lies here; weights may also lie where WSFCN_WEIGHTS says."
        )
    for name in [name for name in found if not_scored(ARTEFACTS[name])]:
        print(f"{name}: {found.pop(name).name} is not scored: {not_scored(ARTEFACTS[name])}")
    faults = []
    if found:
        try:
            faults = evaluate_all(found, results, runs, changes)
        except DataError as error:
            faults = [str(error)]
        print(table(found, results))
        atomic_write(results / "CLAIMS.md", page(results))
    if missing:
        print(what_is_missing(missing))
    for line in faults:
        print(line, file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    use_utf8()
    argparse.ArgumentParser(
        prog="python -m wsfcn_lib.claims.released",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    try:
        sys.exit(released())
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
