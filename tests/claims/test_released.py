"""`make released`, on files with the names, shapes and layouts of the released ones, and a VOC of three images."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from factories import BIRD, needs_crf, released_file
from wsfcn_lib.claims import released as module
from wsfcn_lib.claims.evidence import RESULTS
from wsfcn_lib.claims.released import mask_folders, released, released_artefacts
from wsfcn_lib.data import model_zoo
from wsfcn_lib.data.classes import voc_palette
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.model_zoo import ARTEFACTS
from wsfcn_lib.runs import paths

NAMES = ("2007_000033", "2007_000042", "2007_000061")
QUICK = {
    "scales": (1.0,),
    "flip": False,
    "canvas": 0,
    "use_crf": False,
}  # the published protocol takes minutes


def truth(k):
    """A bird in the right half of a picture of 40 x 48, and a border that is ignored."""
    ids = np.zeros((40, 48), np.uint8)
    ids[:, 24 + k :] = BIRD
    ids[:2] = 255
    return ids


def png(ids):
    picture = Image.fromarray(ids)
    picture.putpalette(np.asarray(voc_palette(), np.uint8).ravel().tolist())
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty repository beside an empty VOC; its results hold the bench, which hours are reckoned with."""
    monkeypatch.delenv("WSFCN_WEIGHTS", raising=False)
    monkeypatch.delenv("WSFCN_VOC_ROOT", raising=False)
    for owner in (model_zoo, paths):
        monkeypatch.setattr(owner, "ROOT", tmp_path)
    bench = tmp_path / "data" / "results" / "bench"
    bench.mkdir(parents=True)
    (bench / "cpu.json").write_text((RESULTS / "bench" / "cpu.json").read_text())
    return tmp_path


@pytest.fixture
def voc(home):
    base = home / "data" / "raw" / "voc" / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    for k, name in enumerate(NAMES):
        Image.new("RGB", (48, 40), (90, 120, 30 * k)).save(base / "JPEGImages" / f"{name}.jpg")
        (base / "SegmentationClass" / f"{name}.png").write_bytes(png(truth(k)))
    (base / "ImageSets/Segmentation/val.txt").write_text("\n".join(NAMES) + "\n")
    return base


def place(home, name, files=None, **changes):
    """A released file where it belongs: weights of ResNet50's shapes, or an archive of {member: bytes}."""
    row = ARTEFACTS[name]
    (home / row.folder).mkdir(parents=True, exist_ok=True)
    path = home / row.folder / row.file
    if files is None:
        return released_file(path, "resnet50", name)
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for member, content in files.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def run(home, **changes):
    return released(home / "data" / "results", home / "data" / "runs", **changes)


def evidence(home, name):
    folder = home / "data" / "results" / f"released_{name}"
    return json.loads((folder / "metrics.json").read_text()), json.loads((folder / "run.json").read_text())


def right(k):
    ids = truth(k)
    ids[ids == 255] = 0
    return ids


def test_where_nothing_lies_each_file_is_listed_with_size_source_and_folder(home, capsys, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)  # nothing is fetched
    assert run(home) == 0
    told = capsys.readouterr().out
    assert told.startswith("None of the released weights and masks lies here")
    rows = released_artefacts()
    assert {row.name for row in rows} >= {"wsfcn", "1stage", "wsfcn_val", "1stage_val"}
    for row in rows:
        assert f"{row.file}, {row.mb:g} MB" in told and (row.url or row.page) in told
        assert f"into {row.folder}" in told
    assert "resnet38" not in told, "weights to begin with are no result"
    assert not list((home / "data").glob("results/released_*"))


def test_without_images_it_says_which_and_how_to_get_them(home, capsys):
    place(home, "wsfcn_val", {f"{NAMES[0]}.png": png(right(0))})
    assert run(home) == 1
    told = capsys.readouterr().err
    assert "VOC's val images are needed (1,449, with their masks)" in told
    assert "VOCtrainval_11-May-2012.tar" in told and "WSFCN_VOC_ROOT" in told and "download: true" in told


def test_masks_of_wsfcn_are_scored_and_give_evidence(home, voc, capsys):
    files = {f"val_results/{name}.png": png(right(k)) for k, name in enumerate(NAMES)}
    place(home, "wsfcn_val", files)
    assert run(home) == 0
    told = capsys.readouterr().out
    metrics, record = evidence(home, "wsfcn_val")
    assert metrics["images"] == 3 and metrics["mean_iou"] == 1.0
    stage = record["stages"]["05_evaluate"]
    assert stage["finished"] and stage["seconds"] >= 0 and stage["settings"]["masks"] == "val_results.tar"
    line = next(line for line in told.splitlines() if line.startswith("WS-FCN's masks of VOC val"))
    assert line.split()[5:9] == ["100.00", "61.57", "or", "63.23"]
    assert "undecided at this scale (of 3 of the 1,449 images)" in line
    page = (home / "data" / "results" / "CLAIMS.md").read_text()
    assert "| 100.00 |" in page and "[released_wsfcn_val](released_wsfcn_val)" in page
    assert str(home) not in json.dumps(record), "no path of this machine"
    run(home)
    assert "wsfcn_val: evaluated before" in capsys.readouterr().out
    place(home, "wsfcn_val", files | {f"val_results/{NAMES[0]}.png": png(np.zeros((40, 48), np.uint8))})
    run(home)
    assert evidence(home, "wsfcn_val")[0]["mean_iou"] < 1, "another file of that name is scored anew"


@pytest.mark.parametrize("name, tags", [("1stage_val", ""), ("1stage_val_clean", "_true_tags")])
def test_the_ancestors_archive_has_masks_with_and_without_crf(home, voc, name, tags, capsys):
    files = {f"x/{image}.png": png(np.zeros((40, 48), np.uint8)) for image in NAMES}
    files |= {f"x/crf/{image}.png": png(right(k)) for k, image in enumerate(NAMES)}
    files |= {f"x/vis/{image}.png": b"a drawing" for image in NAMES}
    assert mask_folders(place(home, name, files)) == ["x", "x/crf"]
    assert run(home) == 0
    metrics, _ = evidence(home, name)
    assert metrics[f"mean_iou_crf{tags}"] == 1.0 and 0 < metrics[f"mean_iou{tags}"] < 0.5
    published = {"": ("59.70", "62.70"), "_true_tags": ("63.40", "65.30")}[tags]
    told = capsys.readouterr().out
    for number, kind in zip(published, ("", ", CRF")):
        line = next(line for line in told.splitlines() if f"{number}  undecided" in line)
        assert kind in line


def test_what_cannot_be_scored_is_named(home, voc, capsys):
    (voc / "JPEGImages" / f"{NAMES[1]}.jpg").unlink()
    place(home, "wsfcn_val", {f"{NAMES[0]}.png": png(right(0))})
    place(home, "wsfcn_test", {"a.png": b"x"})
    place(home, "1stage_train_clean", {"a.png": b"x"})
    assert run(home) == 0
    told = capsys.readouterr().out
    assert "wsfcn_test: test_results.tar is not scored: VOC keeps the true masks of test" in told
    assert "1stage_train_clean: train_results_clean.tgz is not scored: masks of training images" in told
    assert f"1 listed images lack a file, first val: {NAMES[1]}: " in told
    assert evidence(home, "wsfcn_val")[0]["images"] == 1, "of those with a mask in the archive"


def test_one_bad_file_does_not_stop_the_others(home, voc, capsys):
    place(home, "wsfcn_val", {"readme.txt": b"x"})
    place(home, "1stage_val", {f"{name}.png": png(right(k)) for k, name in enumerate(NAMES)})
    assert run(home) == 1
    assert "wsfcn_val: " in (told := capsys.readouterr()).err and "no PNG is in it" in told.err
    assert evidence(home, "1stage_val")[0]["mean_iou"] == 1.0
    (home / "data/raw/masks/val_results.tar").write_bytes(b"torn")
    assert run(home) == 1
    assert "no readable archive" in capsys.readouterr().err
    with pytest.raises(DataError, match="no readable archive"):
        mask_folders(home / "data/raw/masks/val_results.tar")


def test_two_folders_of_one_kind_are_refused(home, voc, capsys):
    files = {f"{folder}/{name}.png": png(right(k)) for folder in "ab" for k, name in enumerate(NAMES)}
    place(home, "wsfcn_val", files)
    assert run(home) == 1
    assert "two folders hold masks of one kind, b among them" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["wsfcn", "1stage"])
def test_weights_are_evaluated_by_their_own_recipe(home, voc, name, capsys):
    """They see birds everywhere: where the masks paint one, half of each picture is right."""
    place(home, name)
    assert run(home, **QUICK) == 0
    metrics, record = evidence(home, name)
    stage = record["stages"]["05_evaluate"]
    assert stage["settings"]["recipe"] == name and stage["settings"]["snapshot"] == name
    assert stage["weights"] == ARTEFACTS[name].file and len(stage["sha256"]) == 64
    assert metrics["images"] == 3 and metrics["recipe"] == name and metrics["mean_iou"] is not None
    assert metrics["mean_iou_true_tags"] is not None and metrics["mean_iou_crf"] is None
    assert (home / "data/results" / f"released_{name}" / "per_image.csv").is_file()
    assert not (home / "data/results" / f"released_{name}" / "masks").exists(), "masks stay with the run"
    assert (home / "data/runs" / f"released_{name}" / "masks" / "val").is_dir()
    published = {"wsfcn": "61.57", "1stage": "59.70"}[name]
    line = next(line for line in capsys.readouterr().out.splitlines() if f" {published} " in line)
    assert f"{100 * metrics['mean_iou']:.2f}" in line and "undecided at this scale" in line


def test_the_published_protocol_is_what_it_asks_for(home, voc, monkeypatch):
    """Without changes: eight views on the canvas, with CRF; so the numbers could decide."""
    asked = []

    def note(net, manifest, settings, run):
        asked.append(settings)
        raise DataError("only the settings are looked at")

    monkeypatch.setattr(module, "evaluate", note)
    place(home, "wsfcn")
    assert run(home) == 1
    (settings,) = asked
    tests = module.claimed("released_wsfcn", "mean_iou")
    assert tests and all(
        settings.model_dump(mode="json")[key] == value
        for test in tests
        for key, value in test.settings.items()
    )
    assert (settings.score_cut, settings.long_side, settings.images) == (0.1, 0, "val")


PUBLISHED = {"canvas": 1024, "scales": [1.0, 0.5, 1.5, 2.0], "flip": True}


def as_if_published(home, **changes):
    """Say in the evidence of `wsfcn` that it was made by the published protocol, changed so; its metrics and folder."""
    folder = home / "data/results/released_wsfcn"
    metrics, record = evidence(home, "wsfcn")
    record["stages"]["05_evaluate"]["settings"] |= PUBLISHED | changes
    (folder / "run.json").write_text(json.dumps(record))
    return metrics, folder


@pytest.mark.parametrize(
    "stored, crf, again",
    [
        ({"use_crf": False}, True, "evaluated before, with use_crf False instead of True"),
        ({"use_crf": False}, False, ""),
        ({"use_crf": True}, True, ""),
        ({"use_crf": True}, False, ""),  # a number with CRF is not given up for none
        ({"use_crf": True, "processes": 7}, True, ""),
        ({"use_crf": True, "canvas": 0}, True, "evaluated before, with canvas 0 instead of 1024"),
        ({"use_crf": True, "score_cut": 0.3}, True, "evaluated before, with score_cut 0.3 instead of 0.1"),
    ],
)
def test_what_was_evaluated_by_other_settings_is_evaluated_again(
    home, voc, monkeypatch, capsys, stored, crf, again
):
    place(home, "wsfcn")
    run(home, **QUICK)
    as_if_published(home, **stored)
    asked = []
    monkeypatch.setattr(module, "crf_available", lambda: crf)
    monkeypatch.setattr(module, "evaluate_network", lambda trained, settings, *_: asked.append(settings))
    capsys.readouterr()
    run(home)
    told = capsys.readouterr().out
    assert len(asked) == bool(again) and ("delete that to do it again" in told) == (not again)
    if again:
        assert f"({again})" in told and asked[0].use_crf == crf and asked[0].canvas == 1024


def test_a_setting_that_the_evidence_does_not_know_had_its_default(home, voc, capsys):
    place(home, "wsfcn")
    run(home, **QUICK)
    folder = home / "data/results/released_wsfcn"
    _, record = evidence(home, "wsfcn")
    del record["stages"]["05_evaluate"]["settings"]["bf16"]
    (folder / "run.json").write_text(json.dumps(record))
    run(home, **QUICK)
    assert "wsfcn: evaluated before, see" in capsys.readouterr().out
    record["stages"]["05_evaluate"]["finished"] = False
    (folder / "run.json").write_text(json.dumps(record))
    run(home, **QUICK)
    assert "(never evaluated to its end)" in capsys.readouterr().out


def test_a_number_on_all_images_decides(home, voc, capsys):
    """What a whole evaluation would write, written by hand."""
    place(home, "wsfcn")
    run(home, **QUICK)
    metrics, folder = as_if_published(home, use_crf=True)
    for value, verdict in ((0.6150, "holds"), (0.55, "does not")):
        (folder / "metrics.json").write_text(json.dumps(metrics | {"mean_iou": value, "images": 1449}))
        capsys.readouterr()
        run(home)
        line = next(line for line in capsys.readouterr().out.splitlines() if " 61.57 " in line)
        assert f" {verdict} (" in line
        row = next(
            line
            for line in (folder.parent / "CLAIMS.md").read_text().splitlines()
            if "| 61.57 on VOC val |" in line
        )
        assert f"| released weights | {verdict} | {100 * value:.2f} |" in row


@pytest.mark.slow
@needs_crf
def test_the_whole_published_protocol_once(home, voc, capsys):
    """Eight views on the canvas of 1,024, both recipes, CRF: nothing is left out but images."""
    (voc / "ImageSets/Segmentation/val.txt").write_text(NAMES[0] + "\n")
    place(home, "wsfcn")
    assert run(home) == 0
    metrics, record = evidence(home, "wsfcn")
    assert metrics["images"] == 1
    assert all(metrics[f"mean_iou{kind}"] is not None for kind in module.KINDS)
    assert {(row["recipe"], row["crf"], row["tags"]) for row in metrics["variants"]} == {
        (recipe, crf, tags)
        for recipe in ("wsfcn", "1stage")
        for crf in (False, True)
        for tags in ("predicted", "true")
    }
    told = capsys.readouterr().out
    for number in ("61.57", "63.23", "65.02"):
        assert any(
            f" {number}  undecided at this scale (of 1 of the 1,449 images)" in line
            for line in told.splitlines()
        )
