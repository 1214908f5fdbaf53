"""The rules of verdicts: what holds, what does not, and that one seed decides nothing."""

import json
import re

import pytest

from wsfcn_lib.claims.evidence import RESULTS, find
from wsfcn_lib.claims.rules import DOES_NOT, HOLDS, NOT_RUN, RULES, UNDECIDED, judge
from wsfcn_lib.runs.folder import read_run


@pytest.mark.parametrize(
    "values, verdict, figure",
    [
        ([], NOT_RUN, ""),
        ([90.0], UNDECIDED, "90.0, one seed"),
        ([62.0, 61.9, 62.1], HOLDS, "62.0 ± 0.1, 3 seeds"),
        ([52.0, 51.9, 52.1], DOES_NOT, "52.0 ± 0.1, 3 seeds"),
        ([66.0, 58.0], UNDECIDED, "62.0 ± 5.7, 2 seeds"),
    ],
)
def test_reaches_a_number_by_an_interval_over_seeds(results, make_test, values, verdict, figure):
    for seed, value in enumerate(values):
        results.run("net" if seed == 0 else f"net_s{seed}", seed, mean_iou=value)
    finding = judge(make_test("reaches", "net", published=61.57, within=1.0), results.path)
    assert (finding.verdict, finding.figure) == (verdict, figure)
    assert len(finding.folders) == len(values)


def test_runs_of_one_seed_are_one(results, make_test):
    for name, value in (("a", 60.0), ("b", 62.0), ("c", 64.0)):
        results.run(name, seed=7, mean_iou=value)
    finding = judge(make_test("reaches", "a", "b", "c", published=1.0), results.path)
    assert (finding.verdict, finding.figure) == (UNDECIDED, "62.0, one seed")


def test_a_name_stands_for_its_seeds_and_no_other(results, make_test):
    for name in ("net", "net_s1", "net_s12", "net_small", "net_s1_old"):
        results.run(name, mean_iou=1)
    assert [path.name for path in find(results.path, ["net", "nothing"])] == ["net", "net_s1", "net_s12"]


PROTOCOL = {"canvas": 1024, "scales": [1.0, 2.0]}


@pytest.mark.parametrize(
    "value, images, settings, verdict, says",
    [
        (61.57, 1449, PROTOCOL, HOLDS, "0.00 points away"),
        (61.27, 1449, PROTOCOL, HOLDS, "0.30 points away"),
        (61.87, 1449, PROTOCOL, HOLDS, "0.30 points away"),
        (61.2, 1449, PROTOCOL, DOES_NOT, "0.37 points away"),
        (61.57, 249, PROTOCOL, UNDECIDED, "of 249 of the 1,449 images"),
        (61.57, 1449, PROTOCOL | {"canvas": 0}, UNDECIDED, "by another protocol: canvas 0"),
    ],
)
def test_released_weights_reproduce_on_all_images_by_the_published_protocol(
    results, make_test, value, images, settings, verdict, says
):
    results.run("released", None, settings, mean_iou=value, images=images)
    test = make_test("reproduces", "released", published=61.57, within=0.3, images=1449, settings=PROTOCOL)
    finding = judge(test, results.path)
    assert finding.verdict == verdict and says in finding.reason and finding.figure == f"{value:.2f}"


def test_one_of_two_published_numbers_will_do(results, make_test):
    results.run("released", None, mean_iou=63.2, images=9)
    test = make_test("reproduces", "released", published=61.57, or_published=63.23, within=0.3, images=9)
    assert judge(test, results.path).verdict == HOLDS
    results.run("released", None, mean_iou=62.4, images=9)
    assert judge(test, results.path).verdict == DOES_NOT


def test_a_command_repeats_on_several_machines(results, make_test):
    test = make_test("repeats", "here", "there", published=62.3, within=2.0)
    results.run("here", mean_iou=62.3)
    assert judge(test, results.path).verdict == UNDECIDED
    results.run("there", mean_iou=60.34)
    assert judge(test, results.path).verdict == HOLDS
    assert judge(test, results.path).figure == "61.3 ± 1.4, 2 runs of seed 0"
    results.run("there", mean_iou=60.2)
    assert judge(test, results.path).verdict == DOES_NOT


@pytest.mark.parametrize(
    "gains, verdict, figure",
    [
        ([5.0], UNDECIDED, "+5.0 points, one seed"),
        ([5.0, 5.5, 4.5], HOLDS, "+5.0 ± 0.5 points, 3 seeds"),
        ([-5.0, -5.5, -4.5], DOES_NOT, "−5.0 ± 0.5 points, 3 seeds"),
        ([5.0, -4.0, 2.0], UNDECIDED, "+1.0 ± 4.6 points, 3 seeds"),
    ],
)
def test_a_module_helps_where_its_effect_excludes_zero(results, make_test, gains, verdict, figure):
    results.ablation("ablation", gains)
    finding = judge(make_test("effect", "ablation", effect="context"), results.path)
    assert (finding.verdict, finding.figure) == (verdict, figure)
    nothing = judge(make_test("effect", "ablation", effect="fusion"), results.path)
    assert nothing.figure.startswith("+0.0")


def test_the_ablation_of_the_most_seeds_speaks(results, make_test):
    results.ablation("new", [5.0])
    results.ablation("old", [5.0, 5.1, 5.2])
    finding = judge(make_test("effect", "new", "old", effect="context"), results.path)
    assert [path.name for path in finding.folders] == ["old"] and finding.verdict == HOLDS


def test_what_leaving_a_part_out_costs(results, make_test):
    test = make_test("without", "ablation", variant="PAMR 0 iterations")
    results.ablation("ablation", [0.0, 0.0, 0.0])
    assert judge(test, results.path).verdict == NOT_RUN
    results.ablation("ablation", [0.0, 1.0, 3.0], {"PAMR 0 iterations": [4.0, 4.1, 4.2]})
    finding = judge(test, results.path)
    assert (finding.verdict, finding.figure) == (HOLDS, "+4.1 ± 0.1 points, 3 seeds")
    results.ablation("ablation", [0.0, 1.0, 3.0], {"PAMR 0 iterations": [-4.0, -4.1, -4.2]})
    assert judge(test, results.path).verdict == DOES_NOT


def test_a_gain_within_runs(results, make_test):
    test = make_test("gain", "net", key="after", over="before")
    results.run("net", 0, after=40, before=30)
    assert (judge(test, results.path).verdict, judge(test, results.path).figure) == (
        UNDECIDED,
        "+10.0 points, one seed",
    )
    results.run("net_s1", 1, after=51, before=40)
    assert judge(test, results.path).verdict == HOLDS
    results.run("net_s1", 1, after=30, before=40)
    assert judge(test, results.path).verdict == UNDECIDED


def test_a_share_of_the_ceiling_is_paired_by_seed(results, make_test):
    test = make_test("share", "tags", ceiling=["masks"], at_least=0.75)
    results.run("tags", 0, mean_iou=51.2)
    assert judge(test, results.path).verdict == NOT_RUN
    results.run("masks", 0, mean_iou=64)
    assert (judge(test, results.path).verdict, judge(test, results.path).figure) == (
        UNDECIDED,
        "80.0 %, one seed",
    )
    results.run("tags_s1", 1, mean_iou=48)
    assert judge(test, results.path).figure == "80.0 %, one seed"
    results.run("masks_s1", 1, mean_iou=60)
    assert judge(test, results.path).verdict == HOLDS
    results.run("masks", 0, mean_iou=102.4)
    results.run("masks_s1", 1, mean_iou=96)
    assert judge(test, results.path).verdict == DOES_NOT


@pytest.mark.parametrize(
    "device, hours, verdict", [("cuda", 5.0, HOLDS), ("cuda", 25.0, DOES_NOT), ("cpu", 5.0, UNDECIDED)]
)
def test_speed_is_that_of_a_gpu(results, make_test, device, hours, verdict):
    bench = results.path / "bench" / "gpu.json"
    test = make_test("at_most", "bench/gpu.json", key="voc_hours", at_most=24, unit="h")
    assert judge(test, results.path).verdict == NOT_RUN
    bench.parent.mkdir(parents=True)
    bench.write_text(json.dumps([{"stage": "training", "voc_hours": hours, "device": device}]))
    assert (judge(test, results.path).verdict, judge(test, results.path).figure) == (verdict, f"{hours:g} h")


def test_what_stands_beside_decides_nothing(results, make_test):
    for seed in range(3):
        results.run(f"net_s{seed}", seed, mean_iou=90 + seed / 10)
    finding = judge(make_test("aside", "net", why="other classes"), results.path)
    assert (finding.verdict, finding.reason) == (UNDECIDED, "other classes")
    assert finding.figure == "90.1 ± 0.1, 3 seeds"


def test_the_effects_are_those_that_the_ablation_recorded(make_test):
    """The notebook that made the tables wrote its own conclusion; the page must come to the same numbers."""
    for name in ("ablation_glyphs", "ablation_voc_animals"):
        words = read_run(RESULTS / name)["stages"]["04_ablations"]["conclusion"]
        for effect, change in (("context", "FCA instead of ASPP"), ("fusion", "SF2 instead of GCI")):
            points = re.search(rf"{change}: ([+-][\d.]+) points", words)[1]
            interval = re.search(rf"{change}: \S+ points \(95 % interval over seeds (\S+) to (\S+),", words)
            finding = judge(make_test("effect", name, effect=effect), RESULTS)
            assert finding.figure.split()[0] == points.replace("-", "−")
            if interval:
                ends = " to ".join(interval.groups()).replace("-", "−")
                assert f"95 % interval over seeds {ends}" in finding.reason


def test_every_rule_is_told():
    import wsfcn_lib.claims.rules as rules

    assert re.findall(r"^\| (\w+) +\|", rules.__doc__, re.M)[1:] == list(RULES)
