"""The rules of verdicts: what holds, what does not, and that one seed decides nothing."""

import json
import re

import pytest

from wsfcn_lib.claims.evidence import RESULTS, distinct, find, unlike
from wsfcn_lib.claims.listing import read_claims
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


def test_runs_of_another_seed_and_copies_repeat_nothing(results, make_test):
    test = make_test("repeats", "here", "there", published=62.3, within=2.0)
    results.run("here", seed=3, mean_iou=62.3)
    results.run("here_s4", seed=4, mean_iou=20.0)
    results.run("there", seed=3, mean_iou=62.3)
    finding = judge(test, results.path)
    assert (finding.verdict, finding.figure) == (UNDECIDED, "62.3, one run")
    assert finding.left_out == ("here_s4 (seed 4 instead of 3)", "there (a copy of another)")
    results.run("there", seed=3, mean_iou=61.3)
    assert judge(test, results.path).figure == "61.8 ± 0.7, 2 runs of seed 3"


def test_a_copy_is_no_second_seed(results, make_test):
    for seed in range(3):
        results.run(f"net_s{seed}", seed, mean_iou=70)
    finding = judge(make_test("reaches", "net", published=60), results.path)
    assert (finding.verdict, finding.figure) == (UNDECIDED, "70.0, one seed")
    assert len(finding.folders) == 1 and len(finding.left_out) == 2
    assert len(distinct([results.path / "a", results.path / "b"])) == 2, "without numbers nothing is a copy"


def test_a_number_is_not_tested_by_the_runs_that_it_was_read_from(results, make_test):
    test = make_test("reaches", "net", origin=["net_s1", "net_s2"], published=60)
    results.run("net_s1", 1, mean_iou=60)
    results.run("net_s2", 2, mean_iou=60.1)
    finding = judge(test, results.path)
    assert (finding.verdict, finding.figure) == (UNDECIDED, "60.0 ± 0.1, 2 seeds")
    assert finding.reason == "the number is their own, so only another run can test it"
    results.run("net_s10", 10, mean_iou=60.1)
    assert judge(test, results.path).left_out == ("net_s10 (a copy of another)",), "not net_s2 of net_s10"
    results.run("net_s10", 10, mean_iou=70)
    results.run("net_s11", 11, mean_iou=70.1)
    finding = judge(test, results.path)
    assert (finding.verdict, finding.figure) == (HOLDS, "70.0 ± 0.1, 2 seeds")
    assert finding.left_out == ("net_s1 (the number is its own)", "net_s2 (the number is its own)")
    repeats = make_test("repeats", "net_s1", "net_s10", origin=["net_s1"], published=60, within=20)
    results.run("net_s10", 1, mean_iou=70)
    assert judge(repeats, results.path).figure == "70.0, one run"
    assert judge(make_test("reaches", "none", origin=["none"], published=1), results.path).verdict == NOT_RUN


FULL = {
    (test.rule, test.evidence[0], test.effect): test
    for claim in read_claims().claims
    for test in claim.tests
    if test.scale in ("full", "short schedule") and test.run
}
TRAININGS = [test for test in FULL.values() if test.rule in ("reaches", "share")]
ABLATIONS = [test for test in FULL.values() if test.rule in ("effect", "without")]


def whole(results, name, test, seed, value, training=None, steps=None, **metrics):
    """A folder as a training at the published size would leave it; `training` and metrics change it."""
    found = {"split": test.split, "images": test.images, test.key: value} | metrics
    training = test.run["02_train"] | (training or {})
    settings = test.run["05_evaluate"] | {"snapshot": "best"}
    steps = test.steps if steps is None else steps
    folder = results.run(name, seed, settings, training=training, steps=steps, **found)
    results.stage(folder, "01_prepare_data", test.run["01_prepare_data"] | {"raw": ""})
    return folder


def test_every_test_at_full_size_asks_for_it():
    for test in [test for claim in read_claims().claims for test in claim.tests if test.scale == "full"]:
        if test.rule == "aside":
            continue
        if test.rule == "at_most":
            assert test.row == {"backbone": "resnet38", "crop": 321, "batch": 16}
            continue
        stage = test.run["04_ablations"]["training"] if test in ABLATIONS else test.run["02_train"]
        assert stage.items() >= {"backbone": "resnet38", "crop": 321, "batch_size": 16}.items()
        assert {"epochs", "warmup_epochs"} <= stage.keys() and test.run["01_prepare_data"]["dataset"]
        assert test.steps == stage["epochs"] * (test.needs.images // 16)
        if test in TRAININGS:
            assert test.split and test.images and test.run["05_evaluate"]["canvas"] >= 1024
    assert len(TRAININGS) >= 5 and len(ABLATIONS) == 6


@pytest.mark.parametrize("test", TRAININGS, ids=lambda test: f"{test.rule} {test.evidence[0]}")
def test_a_toy_named_like_a_full_run_proves_nothing(results, test):
    (name,), toy = test.evidence, {"backbone": "tiny", "crop": 64, "epochs": 2, "warmup_epochs": 1}
    for ceiling in test.ceiling:
        for seed in range(3):
            masks = {"supervision": "masks"}
            whole(results, f"{ceiling}_s{seed}", test, seed, 90 + seed / 10, masks)
    for seed in range(3):
        whole(results, f"{name}_s{seed}", test, seed, 90 + seed / 10, toy, 40, images=20)
    finding = judge(test, results.path)
    assert (finding.verdict, finding.folders) == (NOT_RUN, ())
    (first, *_), length = finding.left_out, f"{test.steps:,}"
    for part in ("backbone tiny instead of resnet38", "crop 64 instead of 321", "epochs 2 instead of "):
        assert part in first
    assert f"images 20 instead of {test.images}" in first and f"40 steps instead of {length}" in first
    for seed in range(3):
        whole(results, f"{name}_s{seed}", test, seed, 90 + seed / 10)
    assert judge(test, results.path).verdict == HOLDS and judge(test, results.path).left_out == ()


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"training": {"backbone": "tiny"}}, "backbone tiny instead of resnet38"),
        ({"training": {"crop": 320}}, "crop 320 instead of 321"),
        ({"training": {"epochs": 30}}, "epochs 30 instead of 31"),
        ({"training": {"warmup_epochs": 6}}, "warmup_epochs 6 instead of 7"),
        ({"training": {"supervision": "masks"}}, "supervision masks instead of tags"),
        ({"steps": 1000}, "1,000 steps instead of 20,491"),
        ({"steps": 0}, "no log of its training"),
        ({"images": 249}, "images 249 instead of 1449"),
        ({"split": "test"}, "split test instead of val"),
    ],
)
def test_each_of_what_makes_a_run_full_is_looked_at(results, changes, says):
    test = FULL["reaches", "voc_resnet38", ""]
    whole(results, "voc_resnet38", test, 0, 90, **changes)
    finding = judge(test, results.path)
    assert (finding.verdict, finding.left_out) == (NOT_RUN, (f"voc_resnet38 ({says})",))


def test_the_data_and_the_views_of_a_full_run_are_looked_at(results):
    test = FULL["reaches", "voc_resnet38", ""]
    folder = whole(results, "voc_resnet38", test, 0, 90)
    assert judge(test, results.path).verdict == UNDECIDED
    results.stage(
        folder, "01_prepare_data", test.run["01_prepare_data"] | {"max_side": 64, "classes": ["cat"]}
    )
    assert "classes ['cat'] instead of [], max_side 64 instead of 0" in judge(test, results.path).left_out[0]
    whole(results, "voc_resnet38", test, 0, 90)
    results.stage(folder, "05_evaluate", test.run["05_evaluate"] | {"canvas": 0})
    assert "canvas 0 instead of 1024" in judge(test, results.path).left_out[0]
    record = json.loads((folder / "run.json").read_text())
    del record["stages"]["05_evaluate"]
    (folder / "run.json").write_text(json.dumps(record))
    assert judge(test, results.path).left_out == ("voc_resnet38 (05_evaluate not finished)",)


@pytest.mark.parametrize("test", ABLATIONS, ids=lambda test: f"{test.rule} {test.effect} {test.scale}")
def test_modules_are_judged_at_full_size_by_the_published_length(results, test):
    """31 epochs, 7 of them warm-up; the file's own quarter of that has a scale of its own."""
    (name,) = test.evidence
    folder = results.ablation(name, [5.0, 5.1, 5.2], {"PAMR 0 iterations": [4.0, 4.1, 4.2]})
    test = test.model_copy(update={"effect": test.effect and "context"})  # the one that this table has

    def as_run(training, steps):
        asked = test.run["04_ablations"]
        results.stage(folder, "01_prepare_data", test.run["01_prepare_data"])
        results.stage(folder, "04_ablations", asked | {"training": asked["training"] | training})
        (folder / "logs").mkdir(exist_ok=True)
        for log in ("fca-sf2-s0", "aspp-gci-s0"):
            (folder / "logs" / f"{log}.csv").write_text(f"step\n0\n{steps}\n")
        return judge(test, results.path)

    length = {"full": (31, 7, 20_491), "short schedule": (8, 2, 5_288)}[test.scale]
    asked = test.run["04_ablations"]["training"]
    assert (asked["epochs"], asked["warmup_epochs"], test.steps) == length
    assert as_run({}, test.steps).verdict == HOLDS
    other = {"epochs": 4, "warmup_epochs": 1}
    found = as_run(other, test.steps)
    assert found.verdict == NOT_RUN and "warmup_epochs 1 instead of" in found.left_out[0]
    assert as_run({"backbone": "tiny"}, test.steps).verdict == NOT_RUN
    assert as_run({}, test.steps - 1).verdict == NOT_RUN


def test_settings_within_settings_are_looked_at():
    assert unlike({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}) == []
    assert unlike({"a": {"b": 1, "c": 2}}, {"a": {"b": 2}}) == ["b 1 instead of 2"]
    assert unlike({"a": {"b": 1}}, {"a": {}}) == ["a {'b': 1} instead of {}"]
    assert unlike({}, {"a": {"b": 2}}) == ["a None instead of {'b': 2}"]


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


FULL_ROW = {"backbone": "resnet38", "crop": 321, "batch": 16}


@pytest.mark.parametrize(
    "changes, verdict, says",
    [
        ({}, HOLDS, "allowed 24"),
        ({"backbone": "tiny"}, UNDECIDED, "measured with backbone tiny instead of resnet38"),
        ({"crop": 48}, UNDECIDED, "measured with crop 48 instead of 321"),
        ({"batch": 2}, UNDECIDED, "measured with batch 2 instead of 16"),
    ],
)
def test_speed_is_that_of_the_published_network_and_batch(results, make_test, changes, verdict, says):
    (results.path / "bench").mkdir(parents=True)
    row = {"stage": "training", "voc_hours": 5.0, "device": "cuda"} | FULL_ROW | changes
    (results.path / "bench/gpu.json").write_text(json.dumps([row]))
    test = make_test("at_most", "bench/gpu.json", key="voc_hours", at_most=24, unit="h", row=FULL_ROW)
    assert (judge(test, results.path).verdict, judge(test, results.path).reason) == (verdict, says)


@pytest.mark.parametrize("rule", ["at_most", "aside"])
@pytest.mark.parametrize(
    "stage, figure", [("training", "3 h"), ("training_fp32", "7 h"), ("train_step", "9 h")]
)
def test_the_bench_is_asked_for_one_stage(results, make_test, rule, stage, figure):
    """Whatever stands before it, and however its name begins; rows without the number are passed over."""
    (results.path / "bench").mkdir(parents=True)
    numbers = {"train_step": 9.0, "training_fp32": 7.0, "training": 3.0, "trainings": 1.0}
    rows = [{"stage": stage, "left_out": "no time is left", "device": "cuda"}]
    rows += [{"stage": name, "voc_hours": number, "device": "cuda"} for name, number in numbers.items()]
    (results.path / "bench/gpu.json").write_text(json.dumps(rows))
    test = make_test(rule, "bench/gpu.json", stage=stage, key="voc_hours", at_most=24, unit="h")
    assert judge(test, results.path).figure == figure
    assert make_test(rule, "bench/gpu.json").stage == "training"
    (results.path / "bench/gpu.json").write_text(json.dumps(rows[:1]))
    assert judge(test, results.path).verdict == NOT_RUN


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
