"""CLAIMS.md: it is what the results say today, and says something else where they do."""

import json
import re
import shutil

import pytest

from wsfcn_lib.claims.evidence import RESULTS
from wsfcn_lib.claims.listing import SCALES, Claim, read_claims
from wsfcn_lib.claims.page import NO_BREAK, PAGE, page, speaking
from wsfcn_lib.claims.rules import DOES_NOT, HOLDS, NOT_RUN, UNDECIDED, Finding
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.weights import PUBLISHED

CLAIMS = read_claims().claims


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(RESULTS, tmp_path / "results")


def rows_of(text):
    """{claim: cells} of the table."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.replace(NO_BREAK, " ").splitlines()
        if line.startswith("| [")
    ]
    return {row[1]: row for row in cells}


def change(folder, **values):
    """Write other numbers into a folder's metrics.json."""
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | values))


def repeat(copy, name, new, seed, **values):
    """Another training of the same kind, as a folder of its own."""
    folder = shutil.copytree(copy / name, copy / new)
    run = json.loads((folder / "run.json").read_text())
    run["stages"]["02_train"]["settings"]["seed"] = seed
    (folder / "run.json").write_text(json.dumps(run))
    change(folder, **values)


def test_the_page_is_current():
    assert PAGE.read_text("utf-8") == page(), "results or claims changed: make claims"


def test_a_changed_figure_makes_it_stale(copy):
    assert page(copy) == PAGE.read_text("utf-8")
    change(copy / "voc_animals", mean_iou=0.4)
    stale = page(copy)
    assert stale != PAGE.read_text("utf-8") and "50.2 ± 0.9, 3 seeds" not in stale


def test_a_changed_figure_changes_the_verdict(copy):
    claim = "61.0 by make demo"
    assert rows_of(page(copy))[claim][5] == HOLDS
    change(copy / "demo_other", mean_iou=0.5)
    assert rows_of(page(copy))[claim][5] == DOES_NOT


def test_further_seeds_are_found_by_their_names(copy):
    for seed in (1, 2):
        shutil.rmtree(copy / f"voc_animals_s{seed}")
    assert rows_of(page(copy))["50.2 on six animals of VOC val"][6] == "51.2, one seed"
    repeat(copy, "voc_animals", "voc_animals_s1", 1, mean_iou=0.515, mean_iou_crf=0.30)
    repeat(copy, "voc_animals", "voc_animals_s2", 2, mean_iou=0.510, mean_iou_crf=0.31)
    change(copy / "voc_animals", mean_iou_crf=0.30)
    rows = rows_of(page(copy))
    row = rows["50.2 on six animals of VOC val"]
    assert row[5:7] == [HOLDS, "51.2 ± 0.3, 3 seeds"] and row[8] == "4.5"
    assert rows["53.1 on six animals of VOC val, CRF"][5:7] == [DOES_NOT, "30.3 ± 0.6, 3 seeds"]


def test_a_ceiling_is_found_by_its_name(copy):
    claim = "a single stage suffices"
    assert rows_of(page(copy))[claim][5].startswith(NOT_RUN)
    repeat(copy, "voc_animals", "voc_animals_masks", 0, mean_iou=0.64)
    row = rows_of(page(copy))[claim]
    assert row[4:7] == ["photographs", UNDECIDED, "80.0 %, one seed"]


def test_an_ablation_of_photographs_and_a_gpu_are_found_by_their_names(copy):
    shutil.copytree(copy / "ablation_glyphs", copy / "ablation_photos")
    assert rows_of(page(copy))["FCA helps"][4:7] == [
        "photographs",
        UNDECIDED,
        "−4.0 ± 2.8 points, 3 seeds",
    ]
    assert rows_of(page(copy))["fast"][5] == "not run: needs 1 GPU, about 0.1 h"
    rows = [{"stage": "training", "voc_hours": 3.2, "megabytes": 30000.0, "device": "cuda"}]
    (copy / "bench" / "gpu.json").write_text(json.dumps(rows))
    (copy / "bench" / "gpu_machine.json").write_text(json.dumps({"device": "cuda", "seconds": 180}))
    assert rows_of(page(copy))["fast"][4:] == ["full", HOLDS, "3.2 h", "GPU (cuda)", "0.1", "30.0 GB"]


def test_which_test_speaks_for_a_claim():
    """Of those that decide the largest; else of those that ran; what stands beside never."""
    rules = {"full": "reaches", "photographs": "reaches", "scenes": "reaches"}
    tests = [
        {"scale": scale, "command": "x", "evidence": ["x"], "rule": rule, "published": 1}
        for scale, rule in rules.items()
    ]
    tests.append({"scale": "full", "command": "x", "evidence": ["x"], "rule": "aside"})
    tests = Claim(of="x", claim="x", where=["x"], tests=tests).tests

    def chosen(*verdicts):
        return speaking(tests, [Finding(verdict) for verdict in verdicts])

    assert chosen(NOT_RUN, NOT_RUN, NOT_RUN, UNDECIDED) == 0
    assert chosen(NOT_RUN, UNDECIDED, UNDECIDED, UNDECIDED) == 1
    assert chosen(NOT_RUN, UNDECIDED, HOLDS, UNDECIDED) == 2
    assert chosen(DOES_NOT, UNDECIDED, HOLDS, UNDECIDED) == 0


def test_it_reads_well():
    text = PAGE.read_text("utf-8")
    paragraph = text.split("\n\n")[1]
    assert len(re.findall(r"\.(?= |$)", paragraph)) == 3, "the introduction has three sentences"
    rows = rows_of(text).values()
    assert len(rows) == len(CLAIMS), "no two claims of one name"
    for row in rows:
        shown = [re.sub(r"\]\([^)]*\)", "]", cell) for cell in row]
        assert len(row) == 10 and all(row) and max(map(len, shown)) <= 60, row
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (PAGE.parent / link).exists(), link
    for anchor in re.findall(r"\(#note-(\d+)\)", text):
        assert f"### Note {anchor}\n" in text


def test_commands_are_there():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for test in (test for claim in CLAIMS for test in claim.tests):
        for file in re.findall(r"\S+\.(?:yaml|py)\b", test.command):
            assert (ROOT / file).is_file(), test.command
        if made := re.match(r"make (\S+)", test.command):
            assert made[1] in targets
        else:
            assert "run_all.py --params notebooks/params/" in test.command
    assert {test.scale for claim in CLAIMS for test in claim.tests} == set(SCALES)


def test_published_numbers_stand_where_they_are_claimed():
    """Those of the programs as `weights.PUBLISHED` has them, our own in the README."""
    kinds = {
        "val": "",
        "val_crf": "_crf",
        "val_true_tags": "_true_tags",
        "val_true_tags_crf": "_crf_true_tags",
    }
    tests = [test for claim in CLAIMS for test in claim.tests]
    for system, numbers in PUBLISHED.items():
        for kind, number in numbers.items():
            if kind in kinds:
                claimed = [
                    t
                    for t in tests
                    if f"released_{system}" in t.evidence and t.key == f"mean_iou{kinds[kind]}"
                ]
            else:
                folder = {"wsfcn": "voc_resnet38_test", "1stage": "voc_resnet38_1stage_test"}[system]
                claimed = [
                    t
                    for t in tests
                    if folder in t.evidence and t.key == f"mean_iou{kind.removeprefix('test')}"
                ]
            assert number in [test.published for test in claimed], (system, kind)
    readme = (ROOT / "README.md").read_text("utf-8")
    ours = [test.published for claim in CLAIMS if claim.where == ("This kit README",) for test in claim.tests]
    assert ours and all(f" {number} " in readme for number in ours)
