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
    assert rows_of(page(copy))[claim][5:7] == [HOLDS, "61.9 ± 0.5, 2 runs of seed 0"]
    change(copy / "demo", mean_iou=0.3)  # from which the claim was read, and which tests nothing
    assert rows_of(page(copy))[claim][5:7] == [HOLDS, "61.9 ± 0.5, 2 runs of seed 0"]
    change(copy / "demo_other", mean_iou=0.5)
    assert rows_of(page(copy))[claim][5] == DOES_NOT


def test_the_hours_of_a_row_are_those_of_its_own_notebooks(copy):
    """02 and 05 of the demo, which ran 04 too; 02 and 04 of an ablation."""

    def hours(folders, names):
        stages = [json.loads((copy / folder / "run.json").read_text())["stages"] for folder in folders]
        return sum(stage[name]["seconds"] for stage in stages for name in names) / 3600

    rows = rows_of(page(copy))
    demo = hours(["demo_other", "demo_third"], ["02_train", "05_evaluate"])
    assert rows["61.0 by make demo"][8] == f"{demo:.1f}" == "0.3"
    path = copy / "ablation_voc_animals" / "run.json"
    record = json.loads(path.read_text())
    record["stages"]["04_ablations"]["seconds"] = 20 * 3600
    record["stages"]["05_evaluate"] = {"seconds": 50 * 3600}
    path.write_text(json.dumps(record))
    assert (
        rows_of(page(copy))["FCA helps"][8]
        == f"{hours(['ablation_voc_animals'], ['02_train', '04_ablations']):.0f}"
    )


def test_no_claim_rests_on_runs_made_for_another_question():
    names = [name for claim in CLAIMS for test in claim.tests for name in (*test.evidence, *test.ceiling)]
    assert not [name for name in names if name.startswith("precision")]


def test_own_numbers_are_not_tested_by_what_they_were_read_from():
    for claim in CLAIMS:
        if claim.of == "This kit":
            assert all(test.origin for test in claim.tests), claim.claim


def test_without_the_bench_the_page_says_what_to_run(copy):
    (copy / "bench" / "cpu.json").unlink()
    text = page(copy)
    assert "`bench/cpu.json`, which is missing: run `make bench` first, then `make claims` again" in text
    assert rows_of(text)["61.57 on VOC val"][5] == "not run: needs 1 GPU, hours not known"
    assert "two CPU cores about" not in text and "](bench/cpu.json)" not in text


def test_further_seeds_are_found_by_their_names(copy):
    """The claim is the mean of three seeds, which decide nothing about it; others do, and a copy is none."""
    claims = ("50.2 on six animals of VOC val", "53.1 on six animals of VOC val, CRF")
    rows = rows_of(page(copy))
    assert [rows[claim][5] for claim in claims] == [UNDECIDED, UNDECIDED]
    shutil.copytree(copy / "voc_animals_s2", copy / "voc_animals_s3")
    text = page(copy)
    assert rows_of(text)[claims[0]][6] == "50.2 ± 0.9, 3 seeds"
    assert "left out: voc_animals_s3 (a copy of another)" in text
    shutil.rmtree(copy / "voc_animals_s3")
    repeat(copy, "voc_animals", "voc_animals_s3", 3, mean_iou=0.512, mean_iou_crf=0.30)
    assert rows_of(page(copy))[claims[0]][5:7] == [UNDECIDED, "51.2, one seed"]
    repeat(copy, "voc_animals", "voc_animals_s4", 4, mean_iou=0.515, mean_iou_crf=0.30)
    repeat(copy, "voc_animals", "voc_animals_s5", 5, mean_iou=0.510, mean_iou_crf=0.31)
    rows = rows_of(page(copy))
    assert rows[claims[0]][5:7] == [HOLDS, "51.2 ± 0.3, 3 seeds"] and rows[claims[0]][8] == "4.5"
    assert rows[claims[1]][5:7] == [DOES_NOT, "30.3 ± 0.6, 3 seeds"]


def test_a_toy_named_like_a_full_run_changes_no_row(copy):
    """Three seeds of a tiny network, with the published number and more: they stand in the note, with why."""
    before = rows_of(page(copy))
    for seed, folder in enumerate(("voc_resnet38", "voc_resnet38_s1", "voc_resnet38_s2")):
        repeat(copy, "demo", folder, seed, mean_iou=0.9 + seed / 100)
    shutil.copytree(copy / "ablation_glyphs", copy / "ablation_voc_resnet38")
    text = page(copy)
    assert rows_of(text) == before
    note = text.split("### Note 1\n")[1].split("### Note 2\n")[0]
    assert "left out: voc_resnet38 (dataset glyphs instead of voc" in note
    assert "backbone tiny instead of resnet38" in note and "images 200 instead of 1449" in note
    note = text.split("### Note 8\n")[1].split("### Note 9\n")[0]
    assert "left out: ablation_voc_resnet38 (dataset glyphs" in note and "epochs 6 instead of 31" in note


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
    row = {"stage": "training_fp32", "voc_hours": 3.2, "megabytes": 30000.0, "device": "cuda"}
    row |= {"backbone": "resnet38", "crop": 321, "batch": 16}
    (copy / "bench" / "gpu.json").write_text(json.dumps([row | {"stage": "training", "voc_hours": 1.5}, row]))
    (copy / "bench" / "gpu_machine.json").write_text(json.dumps({"device": "cuda", "seconds": 180}))
    assert rows_of(page(copy))["fast"][4:] == ["full", HOLDS, "3.2 h", "GPU (cuda)", "0.1", "30.0 GB"]
    (copy / "bench" / "gpu.json").write_text(json.dumps([row | {"backbone": "tiny"}]))
    assert rows_of(page(copy))["fast"][5] == UNDECIDED


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
