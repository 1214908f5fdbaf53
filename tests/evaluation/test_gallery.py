"""The gallery of an evaluation: each picture under its mask, with the truth's outline, worst first."""

import json

import numpy as np
from PIL import Image

from factories import QUICK, folder_of
from wsfcn_lib.data.images import read_image, read_mask, save_mask
from wsfcn_lib.evaluation import gallery
from wsfcn_lib.evaluation.gallery import painted, write_gallery
from wsfcn_lib.evaluation.results import EvaluationResults

ROWS = {"p0": (0.9, 0.5), "p1": (0.2, 0.0), "p2": (0.7, 0.1)}  # IoU and painted share


def evaluated(tmp_path, masked=range(5), settings=QUICK):
    """A run with masks of three of the five pictures, and the results as `evaluate` would return them."""
    manifest = folder_of(tmp_path, masked=masked)
    results = EvaluationResults(manifest, settings)
    label = np.zeros(read_image(manifest.samples("test")[0].image).shape[:2], np.uint8)
    label[5:9, 5:9] = 2
    for name, (iou, share) in ROWS.items():
        row = {"image": name, "tags": "cat", "predicted": "cat;dog", "painted": share}
        results.rows.append(row | ({"iou": iou} if masked else {}))
        save_mask(tmp_path / "run" / "masks" / "test" / f"{name}.png", label, manifest)
    results.rows.append({"image": "p4", "tags": "", "predicted": "", "painted": 0.0})  # whose mask is lost
    return manifest, results, label


def entries_of(run):
    return json.loads((run / "gallery" / "pictures.json").read_text("utf-8"))


def test_all_pictures_stand_in_it_worst_first(tmp_path):
    manifest, results, _ = evaluated(tmp_path)
    run = tmp_path / "run"
    assert write_gallery(run, manifest.samples("test"), results) == 3
    content = entries_of(run)
    assert (content["title"], content["of"]) == ("test", 4)
    assert [(entry["name"], entry["caption"]) for entry in content["pictures"]] == [
        ("p1", "nothing painted (cat, dog) · IoU 0.20"),
        ("p2", "cat, dog · IoU 0.70"),
        ("p0", "cat, dog · IoU 0.90"),
    ]
    assert sorted(path.name for path in (run / "gallery").glob("*.jpg")) == [
        "0000.jpg",
        "0001.jpg",
        "0002.jpg",
    ]
    with Image.open(run / "gallery" / "0000.jpg") as image:
        assert image.format == "JPEG" and max(image.size) <= gallery.SIDE


def test_without_a_truth_the_pictures_keep_their_order_and_an_older_gallery_goes(tmp_path):
    manifest, results, _ = evaluated(tmp_path, masked=())
    run = tmp_path / "run"
    (run / "gallery").mkdir()
    (run / "gallery" / "0009.jpg").write_bytes(b"old")
    write_gallery(run, manifest.samples("test"), results)
    assert [entry["name"] for entry in entries_of(run)["pictures"]] == ["p0", "p1", "p2"]
    assert not (run / "gallery" / "0009.jpg").exists()


def test_of_many_pictures_some_are_taken_from_end_to_end(tmp_path, monkeypatch):
    manifest, results, _ = evaluated(tmp_path)
    monkeypatch.setattr(gallery, "MOST", 2)
    assert write_gallery(tmp_path / "run", manifest.samples("test"), results) == 2
    assert [entry["name"] for entry in entries_of(tmp_path / "run")["pictures"]] == ["p1", "p0"]


def test_the_mask_is_tinted_and_outlined_in_white_the_truth_in_black(tmp_path):
    manifest, _, label = evaluated(tmp_path)
    sample = next(sample for sample in manifest.samples("test") if sample.name == "p0")
    image, picture = read_image(sample.image), painted(sample, tmp_path / "run/masks/test/p0.png", manifest)
    truth = read_mask(sample.mask, manifest)
    same = truth[1:, 1:] == truth[:-1, 1:]
    same &= truth[1:, 1:] == truth[1:, :-1]
    inside = np.zeros(label.shape, bool)
    inside[6:8, 6:8] = True
    plain = ~inside & (label == 0)
    changed = (picture != image).any(-1)
    black = (picture == 0).all(-1)
    assert changed[inside].all(), "tinted"
    assert (black | ~changed)[plain].all(), "background stays as photographed, but for the truth's outline"
    if not same.all():
        assert black.any()
    bare = type(sample)(sample.name, sample.image, sample.tags, None)
    white = (painted(bare, tmp_path / "run/masks/test/p0.png", manifest) == 255).all(-1)
    assert white[5, 5:9].all() and white[5:9, 5].all() and not white[inside & (image != 255).all(-1)].all()
