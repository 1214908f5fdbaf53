"""Pseudo masks and CAMs as files: their content, going on after a stop, and never mixing two networks."""

import numpy as np
import pytest
import torch
from PIL import Image

from factories import QUICK, Painter, folder_of, needs_crf, slow_labels
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_image, read_mask
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.evaluation.export import export, export_training, fingerprint
from wsfcn_lib.evaluation.results import PostProcessing
from wsfcn_lib.infer import predict_masks, probabilities
from wsfcn_lib.postprocess import crf, label_map
from wsfcn_lib.runs.folder import read_run
from wsfcn_lib.runs.storage import RunError


@pytest.fixture
def manifest(tmp_path):
    """Four training pictures with tags, and no mask file anywhere."""
    manifest = folder_of(tmp_path)
    for sample in manifest.samples("test"):
        sample.mask.unlink()
    (manifest.folder / "train_masks.csv").unlink()
    return Manifest.load(manifest.folder)


class Counting(Painter):
    """Counts the pictures it sees, and breaks off after `lasts` of them (two views each)."""

    def __init__(self, lasts=99):
        super().__init__()
        self.seen, self.lasts = 0, lasts

    def forward(self, images):
        self.seen += 1
        if self.seen > 2 * self.lasts:
            raise KeyboardInterrupt
        return super().forward(images)


def times(folder):
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("p*.*")}


@pytest.mark.parametrize("recipe", ["wsfcn", "1stage"])
def test_masks_and_cams_are_those_of_the_true_tags(manifest, tmp_path, recipe):
    net, settings = Painter().eval(), QUICK.model_copy(update={"recipe": recipe})
    assert export_training(net, manifest, settings, tmp_path / "out") == 4
    written = sorted(path.name for path in (tmp_path / "out" / "pseudo_masks").iterdir())
    assert written == ["p1.png", "p2.png", "p3.png", "p4.png"]
    for sample in manifest.samples("train"):
        path = tmp_path / "out" / "pseudo_masks" / f"{sample.name}.png"
        assert Image.open(path).mode == "P" and Image.open(path).getpalette()[3 * 7 : 3 * 7 + 3] == [
            7,
            200,
            9,
        ]
        labels = slow_labels(net, manifest, sample, settings, PostProcessing(recipe, False, "true"))
        assert (read_mask(path, manifest) == labels).all()
        file = np.load(tmp_path / "out" / "cams" / f"{sample.name}.npz")
        assert sorted(file) == ["cams", "classes"] and file["cams"].dtype == np.float16
        assert file["classes"].tolist() == [c for c in (1, 2, 3) if sample.tags[c - 1]]
        masks = predict_masks(net, read_image(sample.image), settings.scales, settings.flip).masks
        assert file["cams"].shape == (len(file["classes"]), *labels.shape)
        for cam, c in zip(file["cams"], file["classes"]):
            assert np.abs(cam - masks[c]).max() < 5e-4
    run = read_run(tmp_path / "out")["stages"]["export"]
    assert (
        run["finished"]
        and run["settings"]["recipe"] == recipe
        and run["settings"]["weights"] == fingerprint(net)
    )


@needs_crf
def test_masks_may_be_refined_by_the_crf(manifest, tmp_path):
    net, settings = Painter().eval(), QUICK.model_copy(update={"use_crf": True, "processes": 1})
    export_training(net, manifest, settings, tmp_path / "with", cams=False)
    export_training(net, manifest, QUICK, tmp_path / "without", cams=False)
    differ = 0
    for sample in manifest.samples("train"):
        image, tags = np.array(read_image(sample.image)), np.array(sample.tags)
        expected = crf(image, predict_masks(net, image, QUICK.scales).masks, tags)
        refined, plain = (
            read_mask(tmp_path / folder / "pseudo_masks" / f"{sample.name}.png", manifest)
            for folder in ("with", "without")
        )
        assert (refined == expected).all()
        differ += (plain != expected).any()
    assert differ and not (tmp_path / "with" / "cams").exists()


def test_it_goes_on_where_it_stopped(manifest, tmp_path):
    settings = QUICK.model_copy(update={"flip": False})
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert export_training(Counting().eval(), manifest, settings, whole) == 4
    with pytest.raises(KeyboardInterrupt):
        export_training(Counting(lasts=2).eval(), manifest, settings, part)
    before, net = times(part), Counting().eval()
    assert sorted(before) == ["cams/p1.npz", "cams/p2.npz", "pseudo_masks/p1.png", "pseudo_masks/p2.png"]
    (part / "pseudo_masks" / "p2.png").unlink()
    assert export_training(net, manifest, settings, part) == 3 and net.seen == 6
    assert {
        name: times(part)[name] for name in ("cams/p1.npz", "pseudo_masks/p1.png")
    }.items() <= before.items()
    for name in times(whole):
        assert (part / name).read_bytes() == (whole / name).read_bytes(), name
    done, net = times(part), Counting().eval()
    assert export_training(net, manifest, settings, part) == net.seen == 0 and times(part) == done


def test_cams_can_be_added_later(manifest, tmp_path, monkeypatch):
    net = Painter().eval()
    export_training(net, manifest, QUICK, tmp_path / "out", cams=False)
    before = times(tmp_path / "out")
    monkeypatch.setattr(
        "wsfcn_lib.evaluation.scoring.label_map", lambda *job: pytest.fail("the masks are there already")
    )
    assert export_training(net, manifest, QUICK, tmp_path / "out") == 4
    after = times(tmp_path / "out")
    assert before.items() <= after.items() and len(after) == 2 * len(before) == 8


def test_a_folder_takes_one_network_and_one_recipe(manifest, tmp_path):
    net = Painter().eval()
    export_training(net, manifest, QUICK, tmp_path / "out")
    free = {"processes": 1, "images": "test", "snapshot": "last"}
    assert export_training(net, manifest, QUICK.model_copy(update=free), tmp_path / "out") == 0
    with pytest.raises(RunError, match="run out has other settings for export: recipe 'wsfcn' → '1stage'"):
        export_training(net, manifest, QUICK.model_copy(update={"recipe": "1stage"}), tmp_path / "out")
    with torch.no_grad():
        net.paint.bias[0] += 1e-3
    with pytest.raises(RunError, match="weights '[0-9a-f]{16}' → '[0-9a-f]{16}'"):
        export_training(net, manifest, QUICK, tmp_path / "out")


def test_pictures_without_tags_take_the_predicted_ones(manifest, tmp_path):
    (tmp_path / "holiday").mkdir()
    for name in ("p1", "p2"):
        (tmp_path / f"{name}.jpg").rename(tmp_path / "holiday" / f"{name}.jpg")
    net, settings = (
        Painter().eval(),
        QUICK.model_copy(update={"images": str(tmp_path / "holiday"), "score_cut": 0.2}),
    )
    with pytest.raises(
        DataError, match="no picture of images='.*holiday' has a tag; tag them, or use tags='predicted'"
    ):
        export(net, manifest, settings, tmp_path / "out", tags="true")
    with pytest.raises(ValueError, match="tags is 'none'; it must be one of 'true', 'predicted'"):
        export(net, manifest, settings, tmp_path / "out", tags="none")
    assert not (tmp_path / "out").exists()
    assert export(net, manifest, settings, tmp_path / "out") == 2
    kinds = set()
    for name in ("p1", "p2"):
        masks, scores = predict_masks(net, read_image(tmp_path / "holiday" / f"{name}.jpg"), settings.scales)
        present = np.flatnonzero(probabilities(scores) > 0.2) + 1
        file = np.load(tmp_path / "out" / "cams" / f"{name}.npz")
        assert file["classes"].tolist() == present.tolist() and file["cams"].shape == (
            len(present),
            *masks.shape[1:],
        )
        assert set(np.unique(read_mask(tmp_path / "out" / "masks" / f"{name}.png", manifest))) <= {
            0,
            *present,
        }
        kinds.add(len(present))
    assert kinds - {0, 3}, "some classes are believed present, some absent"


@pytest.mark.parametrize("use_crf", [False, pytest.param(True, marks=needs_crf)])
def test_large_pictures_are_seen_small_and_written_large(manifest, tmp_path, use_crf):
    settings = QUICK.model_copy(update={"long_side": 13, "use_crf": use_crf, "processes": 1})
    export_training(Painter().eval(), manifest, settings, tmp_path / "out")
    for sample in manifest.samples("train"):
        image = np.asarray(
            Image.fromarray(read_image(sample.image)).resize((13, 10), Image.Resampling.BICUBIC)
        )
        masks, tags = predict_masks(Painter().eval(), image, settings.scales).masks, np.array(sample.tags)
        small = crf(image, masks, tags) if use_crf else label_map(masks, tags)
        labels = read_mask(tmp_path / "out" / "pseudo_masks" / f"{sample.name}.png", manifest)
        assert (labels == small.repeat(2, 0).repeat(2, 1)).all()
        assert np.load(tmp_path / "out" / "cams" / f"{sample.name}.npz")["cams"].shape == (tags.sum(), 20, 26)
