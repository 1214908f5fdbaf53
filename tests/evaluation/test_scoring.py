"""Evaluation of a split, against a slow loop over pixels, with and without masks and CRF."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from factories import CLASSES, NAMES, QUICK, SIZE, Painter, folder_of, mean, needs_crf, slow_iou, slow_labels
from wsfcn_lib.checkpoints import load_snapshot, save_snapshot
from wsfcn_lib.config import NetConfig
from wsfcn_lib.data import images as image_files
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_image, read_mask, save_mask
from wsfcn_lib.evaluation.diagnostics import DiagnosticsRecorder
from wsfcn_lib.evaluation.inputs import manifest_of
from wsfcn_lib.evaluation.results import EvaluationResults, PostProcessing
from wsfcn_lib.evaluation.scoring import (
    EvalSettings,
    add_metrics,
    evaluate,
    post_processings,
    predict,
    unpainted,
)
from wsfcn_lib.infer import predict_masks, probabilities, segment
from wsfcn_lib.network import build_network
from wsfcn_lib.postprocess import crf, crf_many, label_map
from wsfcn_lib.runs.settings import SettingsError


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("recipe", ["wsfcn", "1stage"])
@pytest.mark.parametrize("use_crf", [False, pytest.param(True, marks=needs_crf)])
def test_numbers_are_those_of_a_loop_over_pixels(tmp_path, recipe, use_crf):
    manifest, net = folder_of(tmp_path), Painter().eval()
    settings = QUICK.model_copy(update={"recipe": recipe, "use_crf": use_crf, "processes": 1})
    results = evaluate(net, manifest, settings, tmp_path)
    truths = [read_mask(s.mask, manifest) for s in manifest.samples("test")]
    pairs = {
        v: [(slow_labels(net, manifest, s, settings, v), t) for s, t in zip(manifest.samples("test"), truths)]
        for v in post_processings(settings, with_truth=True)
    }
    assert (
        len(
            {
                str(np.bincount(labels.ravel(), minlength=4))
                for labels, _ in pairs[PostProcessing(recipe, False, "predicted")]
            }
        )
        > 2
    )
    for variant, found in pairs.items():
        assert results.matrices[variant].mean_iou() == pytest.approx(mean(slow_iou(found)))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    plain = slow_iou(pairs[PostProcessing(recipe, False, "predicted")])
    assert metrics["per_class_iou"] == pytest.approx(dict(zip(NAMES, plain.values())))
    assert metrics["mean_iou"] == pytest.approx(mean(plain))
    assert metrics["mean_iou_true_tags"] == pytest.approx(
        mean(slow_iou(pairs[PostProcessing(recipe, False, "true")]))
    )
    found = {PostProcessing(row["recipe"], row["crf"], row["tags"]): row for row in metrics["variants"]}
    assert set(found) == set(pairs) and len(pairs) == 4 * (1 + use_crf)
    for variant, row in found.items():
        iou = slow_iou(pairs[variant])
        assert row["mean_iou"] == pytest.approx(mean(iou)) and row["precision"].keys() == row[
            "recall"
        ].keys() == {*NAMES}
        assert row["per_class_iou"] == pytest.approx(dict(zip(NAMES, iou.values())))
    assert (metrics["images"], metrics["split"], metrics["recipe"]) == (5, "test", recipe)
    assert 0 < metrics["mean_ap"] <= 1
    assert (metrics["mean_iou_crf"] is not None) == use_crf == (tmp_path / "masks" / "test_crf").is_dir()
    for row, *pair in zip(
        rows_of(tmp_path / "per_image.csv"), pairs[PostProcessing(recipe, False, "predicted")]
    ):
        assert float(row["iou"]) == pytest.approx(mean(slow_iou(pair)), abs=1e-4)


@needs_crf
def test_order_and_columns(tmp_path):
    manifest = folder_of(tmp_path)
    both = []
    for processes in (1, 2):
        settings = QUICK.model_copy(update={"use_crf": True, "processes": processes})
        both.append(evaluate(Painter().eval(), manifest, settings, tmp_path))
        rows = rows_of(tmp_path / "per_image.csv")
        assert [row["image"] for row in rows] == ["p4", "p3", "p2", "p1", "p0"], "the order of the list"
        assert list(rows[0]) == [
            "image",
            "tags",
            "predicted",
            "painted",
            "iou",
            "iou_true_tags",
            "iou_crf",
            "iou_crf_true_tags",
        ]
        assert rows[-1]["tags"] == "cow" and rows[0]["tags"] == "cat;dog"
        assert set(rows[0]["predicted"].split(";")) <= set(NAMES[1:])
    assert both[0].rows == both[1].rows and both[0].metrics() == both[1].metrics()


def test_images_without_masks_are_predicted_but_not_measured(tmp_path):
    manifest, net = folder_of(tmp_path, masked=()), Painter().eval()
    evaluate(net, manifest, QUICK, tmp_path)
    metrics, rows = json.loads((tmp_path / "metrics.json").read_text()), rows_of(tmp_path / "per_image.csv")
    assert metrics["images"] == len(rows) == len(list((tmp_path / "masks" / "test").glob("*.png"))) == 5
    assert metrics["mean_iou"] is metrics["mean_iou_true_tags"] is metrics["mean_iou_crf"] is None
    assert list(rows[0]) == ["image", "tags", "predicted", "painted"] and "per_class_iou" not in metrics
    # some with, some without: the numbers are those of the former
    (tmp_path / "some").mkdir()
    some = folder_of(tmp_path / "some", masked=(1, 3))
    results = evaluate(net, some, QUICK, tmp_path / "some")
    alone = EvaluationResults(some, QUICK)
    for result in predict(net, some, [s for s in some.samples("test") if s.mask], QUICK):
        alone.add(result)
    assert results.metrics()["mean_iou"] == alone.metrics()["mean_iou"] > 0
    assert [row["iou"] != "" for row in rows_of(tmp_path / "some" / "per_image.csv")] == [
        False,
        True,
        False,
        True,
        False,
    ]


def test_masks_are_palette_pictures_of_mask_ids(tmp_path):
    manifest = folder_of(tmp_path, count=2)
    labels = np.array([[0, 1, 2], [3, 3, 0]], np.uint8)
    save_mask(tmp_path / "deep" / "er" / "m.png", labels, manifest)
    picture = Image.open(tmp_path / "deep" / "er" / "m.png")
    assert picture.mode == "P" and np.asarray(picture).tolist() == [[0, 3, 7], [200, 200, 0]]
    assert np.asarray(picture.convert("RGB"))[0].tolist() == [[0, 0, 0], [3, 200, 9], [7, 200, 9]]
    assert (read_mask(tmp_path / "deep" / "er" / "m.png", manifest) == labels).all()


def test_a_mask_of_another_size_is_named(tmp_path):
    manifest = folder_of(tmp_path, count=2, size=(20, 24))
    with pytest.raises(
        DataError, match=r"p1\.png: the mask is \(24, 20\), its image \(26, 20\) \(width, height\)"
    ):
        evaluate(Painter().eval(), manifest, QUICK, tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_results_come_one_by_one(tmp_path):
    manifest = folder_of(tmp_path, count=2)
    samples = manifest.samples("test")
    samples[1].image.unlink()
    results = predict(Painter().eval(), manifest, samples, QUICK)
    assert next(results).sample.name == "p1"
    with pytest.raises(DataError, match="p0.jpg: the file is missing"):
        next(results)


@pytest.mark.parametrize("use_crf", [False, pytest.param(True, marks=needs_crf)])
def test_a_bad_picture_costs_a_folder_only_itself(tmp_path, use_crf, capsys):
    """Of a folder, the pictures that open are evaluated; a list and a split are what they are."""
    manifest, net, run = folder_of(tmp_path), Painter().eval(), tmp_path / "run"
    (tmp_path / "holiday").mkdir()
    for k in range(5):
        (tmp_path / f"p{k}.jpg").rename(tmp_path / "holiday" / f"p{k}.jpg")
    for name in ("p0.jpg", "p3.jpg", "p9.JPG"):
        (tmp_path / "holiday" / name).write_bytes(b"torn")
    settings = QUICK.model_copy(
        update={"images": str(tmp_path / "holiday"), "use_crf": use_crf, "processes": 2}
    )
    results = evaluate(net, manifest, settings, run)
    assert [row["image"] for row in results.rows] == [
        row["image"] for row in rows_of(run / "per_image_holiday.csv")
    ]
    assert [row["image"] for row in rows_of(run / "scores_holiday.csv")] == ["p1", "p2", "p4"]
    told = json.loads((run / "metrics_holiday.json").read_text())
    assert told["images"] == 3 and [line.split(": ")[0] for line in told["left_out"]] == [
        str(tmp_path / "holiday" / name) for name in ("p0.jpg", "p3.jpg", "p9.JPG")
    ]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]
    assert said == [f"left out: {line}" for line in told["left_out"]] and "not a readable picture" in said[0]
    for name in ("p1.jpg", "p2.jpg", "p4.jpg"):
        (tmp_path / "holiday" / name).unlink()
    with pytest.raises(DataError, match="none of its 3 pictures can be opened; first: .*p0.jpg: not"):
        evaluate(net, manifest, settings, run)
    (tmp_path / "p3.jpg").write_bytes(b"torn")
    (tmp_path / "dev.txt").write_text("p3\n")
    for images in ("test", str(tmp_path / "dev.txt"), str(tmp_path / "p3.jpg")):
        with pytest.raises(DataError, match=r"p\d.jpg: "):
            evaluate(net, manifest, settings.model_copy(update={"images": images}), tmp_path / "other")


@needs_crf
def test_segment_refines_a_file(tmp_path):
    folder_of(tmp_path, count=2)
    net = build_network(NetConfig(backbone="tiny", width=16, dilations=(1, 2, 3, 4), num_classes=4))
    snapshot = save_snapshot(net, tmp_path / "net.safetensors", [c.model_dump() for c in CLASSES])
    found = segment(tmp_path / "p1.jpg", snapshot, use_crf=True)
    assert found.names == NAMES and found.labels.shape == SIZE
    assert (found.labels == segment(Image.open(tmp_path / "p1.jpg"), snapshot, use_crf=True).labels).all()
    image = np.array(read_image(tmp_path / "p1.jpg"))
    assert (found.labels == crf(image, found.masks, found.tags)).all()


@pytest.mark.parametrize(
    "wrong",
    [{"recipe": "voc"}, {"scales": ()}, {"canvas": -1}, {"score_cut": 1.5}, {"processes": 0}, {"crf": 1}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        EvalSettings(**wrong)


def test_a_folder_needs_nothing_but_a_snapshot(tmp_path):
    (tmp_path / "holiday").mkdir()
    rng = np.random.default_rng(1)
    for name in ("b.png", "a.jpg"):
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8)).save(tmp_path / "holiday" / name)
    net = build_network(NetConfig(backbone="tiny", width=16, dilations=(1, 2, 3, 4), num_classes=4))
    snapshot = save_snapshot(net, tmp_path / "net.safetensors", [c.model_dump() for c in CLASSES])
    net, classes, _ = load_snapshot(snapshot)
    settings = QUICK.model_copy(update={"images": str(tmp_path / "holiday"), "score_cut": 0.0})
    run = tmp_path / "run"
    evaluate(net, manifest_of(classes), settings, run)
    metrics = json.loads((run / "metrics_holiday.json").read_text())
    assert (metrics["images"], metrics["split"], metrics["variants"]) == (2, "holiday", []), (
        "no path, no number"
    )
    assert metrics["source"] == str(tmp_path / "holiday") and not list(run.glob("*e.csv")) + list(
        run.glob("metrics.json")
    )
    assert [key for key, value in metrics.items() if value is None] == [
        *("mean_iou", "mean_iou_true_tags", "mean_iou_crf", "mean_iou_crf_true_tags", "mean_ap")
    ]
    shares = []
    for name in "ab":
        shares.append((read_mask(run / "masks" / "holiday" / f"{name}.png", manifest_of(classes)) > 0).mean())
    assert [list(row.values()) for row in rows_of(run / "per_image_holiday.csv")] == [
        [n, "", "cat;dog;cow", str(round(share, 4))] for n, share in zip("ab", shares)
    ]
    assert sorted(path.name for path in (run / "masks" / "holiday").iterdir()) == ["a.png", "b.png"]
    for name, row in zip(("a.jpg", "b.png"), rows_of(run / "scores_holiday.csv")):
        masks, scores = predict_masks(net, read_image(tmp_path / "holiday" / name), settings.scales)
        assert row.pop("image") == name[0] and list(row) == list(NAMES[1:])
        assert [float(value) for value in row.values()] == pytest.approx(probabilities(scores), abs=6e-5)
        expected = label_map(masks, np.ones(3), "wsfcn")
        assert (
            read_mask(run / "masks" / "holiday" / f"{name[0]}.png", manifest_of(classes)) == expected
        ).all()


def test_pictures_without_a_painted_pixel_are_counted_and_named_with_the_reason(tmp_path, capsys):
    manifest, net = folder_of(tmp_path), Painter().eval()
    evaluate(net, manifest, QUICK.model_copy(update={"score_cut": 1.0}), tmp_path)
    line = "no pixel painted in 5 of 5 pictures, first p4, p3, p2: in 5 no class scores above 1"
    assert line in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text())["nothing_painted"] == 5
    results = EvaluationResults(manifest, QUICK)
    (result,) = predict(net, manifest, manifest.samples("test")[:1], QUICK)
    result.tags["predicted"][:] = True
    for labels in result.labels.values():
        labels[:] = 0
    results.add(result)
    assert unpainted(results).endswith(
        "in 1 of 1 pictures, first p4: in 1 a class does, and its masks stay below the background"
    )


def test_a_list_is_scored_like_its_images(tmp_path):
    manifest, net = folder_of(tmp_path), Painter().eval()
    (tmp_path / "dev.txt").write_text("p3\np1\n")
    results = evaluate(
        net, manifest, QUICK.model_copy(update={"images": str(tmp_path / "dev.txt")}), tmp_path
    )
    alone = EvaluationResults(manifest, QUICK)
    for result in predict(
        net, manifest, [s for s in manifest.samples("test") if s.name in ("p1", "p3")], QUICK
    ):
        alone.add(result)
    assert results.metrics() | {"split": "test"} == alone.metrics() and results.metrics()["split"] == "dev"
    assert [row["image"] for row in results.rows] == ["p3", "p1"] and (
        tmp_path / "masks" / "dev" / "p1.png"
    ).is_file()
    assert [row["image"] for row in rows_of(tmp_path / "per_image_dev.csv")] == ["p3", "p1"]


def test_lists_and_folders_leave_the_numbers_of_others_alone(tmp_path):
    manifest, net, run = folder_of(tmp_path), Painter().eval(), tmp_path / "run"
    evaluate(net, manifest, QUICK, run)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert before.keys() == {"metrics.json", "per_image.csv", "scores.csv"}
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "dev.txt").write_text("p3\n")
    one, two = (
        QUICK.model_copy(update={"images": str(tmp_path / place / "dev.txt")}) for place in ("one", "two")
    )
    for _ in range(2):  # the same list once more is welcome
        evaluate(net, manifest, one, run)
    own = (run / "metrics_dev.json").read_bytes()
    with pytest.raises(
        DataError,
        match=r"metrics_dev\.json is of .*one/dev\.txt, not of .*two/dev\.txt: rename this, or choose",
    ):
        evaluate(net, manifest, two, run)
    assert (run / "metrics_dev.json").read_bytes() == own
    assert before == {name: (run / name).read_bytes() for name in before}


def test_metrics_can_be_added_to(tmp_path):
    add_metrics(tmp_path / "m.json", mean_iou=0.5)
    add_metrics(tmp_path / "m.json", training={"cam": np.float64(0.25)}, mean_iou=0.75)
    assert json.loads((tmp_path / "m.json").read_text()) == {"mean_iou": 0.75, "training": {"cam": 0.25}}


@pytest.mark.parametrize("use_crf", [False, pytest.param(True, marks=needs_crf)])
def test_large_pictures_are_shrunk_and_their_labels_enlarged(tmp_path, use_crf):
    manifest, net = folder_of(tmp_path), Painter().eval()
    settings = QUICK.model_copy(update={"use_crf": use_crf, "processes": 1})
    (large,) = predict(
        net, manifest, manifest.samples("test")[:1], settings.model_copy(update={"long_side": 26})
    )
    (plain,) = predict(net, manifest, manifest.samples("test")[:1], settings)
    assert all((large.labels[v] == plain.labels[v]).all() for v in plain.labels), "not larger than 26 pixels"
    (half,) = predict(
        net, manifest, manifest.samples("test")[:1], settings.model_copy(update={"long_side": 13})
    )
    image = np.asarray(
        Image.fromarray(read_image(half.sample.image)).resize((13, 10), Image.Resampling.BICUBIC)
    )
    masks, scores = predict_masks(net, image, settings.scales)
    tags = probabilities(scores) > settings.score_cut
    small = crf(image, masks, tags, "wsfcn") if use_crf else label_map(masks, tags, "wsfcn")
    assert half.labels.keys() == plain.labels.keys() and half.size == SIZE
    assert (
        half.labels[PostProcessing("wsfcn", use_crf, "predicted")] == small.repeat(2, 0).repeat(2, 1)
    ).all()
    assert evaluate(net, manifest, settings.model_copy(update={"long_side": 13}), tmp_path / "run").matrices


@needs_crf
def test_the_crf_runs_once_for_tags_that_are_the_true_ones(tmp_path, monkeypatch):
    manifest, net = folder_of(tmp_path), Painter().eval()
    settings = QUICK.model_copy(update={"use_crf": True, "processes": 1})
    counts = []

    def counting(jobs, processes):
        jobs = list(jobs)
        counts.append(len(jobs))
        return crf_many(jobs, processes)

    monkeypatch.setattr("wsfcn_lib.evaluation.scoring.crf_many", counting)
    sample = manifest.samples("test")[0]
    (result,) = predict(net, manifest, [sample], settings)
    same = replace(sample, tags=tuple(result.tags["predicted"].tolist()))
    (result,) = predict(net, manifest, [same], settings)
    assert same.tags != sample.tags and counts == [4, 2]
    for variant in post_processings(settings, with_truth=True):
        assert (result.labels[variant] == slow_labels(net, manifest, same, settings, variant)).all()


def test_each_picture_and_each_mask_is_opened_once(tmp_path, monkeypatch):
    opened = []
    decode = image_files._decode
    monkeypatch.setattr(
        image_files, "_decode", lambda path, *more: opened.append(path) or decode(path, *more)
    )
    manifest = folder_of(tmp_path)
    recorder = DiagnosticsRecorder()
    evaluate(Painter().eval(), manifest, QUICK, tmp_path, [recorder.add])
    assert len(opened) == len(set(opened)) == 10 and len(recorder.images) == 5
    opened.clear()
    (tmp_path / "holiday").mkdir()
    (tmp_path / "p0.jpg").rename(tmp_path / "holiday" / "p0.jpg")
    (tmp_path / "holiday" / "p1.jpg").write_bytes(b"torn")
    holiday = QUICK.model_copy(update={"images": str(tmp_path / "holiday")})
    evaluate(Painter().eval(), manifest, holiday, tmp_path)
    assert [path.name for path in opened] == ["p0.jpg", "p1.jpg"]
