"""The CAM explorer: every control shows, maps and labels are those of the library, and gaps are told in words."""

import io
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image

from explored import SIZE, decoded, make_run, moved
from wsfcn_lib import postprocess as crf_module
from wsfcn_lib.checkpoints import load_snapshot
from wsfcn_lib.data.normalisation import denormalise, normalise
from wsfcn_lib.explore import layers
from wsfcn_lib.explore.browse import ANY, BEST, WORST, image_scores
from wsfcn_lib.explore.cams import CUTS, MODES, CamExplorer
from wsfcn_lib.explore.inspection import SHIPS, VIEWS, Inspection, Inspector
from wsfcn_lib.explore.layers import ALL, LAYERS, Missing, changed, label_of, layered, map_of
from wsfcn_lib.infer import predict_masks, probabilities
from wsfcn_lib.losses import pseudo_labels
from wsfcn_lib.modules import resize
from wsfcn_lib.pamr import pamr
from wsfcn_lib.postprocess import label_map

CRF = pytest.mark.skipif(not crf_module.crf_available(), reason="pydensecrf2 is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("cams"))


@pytest.fixture(scope="module")
def explorer(run):
    return CamExplorer(str(run[0]), "val", scales=(1.0, 1.5))


@pytest.fixture(autouse=True)
def at_first(request):
    """Each test finds the module's explorer as it was at the beginning."""
    if "explorer" in request.fixturenames:
        explorer = request.getfixturevalue("explorer")
        before = explorer.state
        yield
        explorer.set(**{key: before[key] for key in ("run", "only", "order")})
        explorer.set(**before)
    else:
        yield


NEEDS = {
    "before": {"mode": MODES[1]},
    "after": {"mode": MODES[1]},
    "iterations": {"pamr": True, "cam": False},
}
NEEDS |= {f"{layer}_opacity": {layer: True} for layer in LAYERS} | {
    key: {"pseudo": True, "floor": 0.0} for key in CUTS
}
NEEDS |= {"view": {"mask": True}, "only": {"image": "b"}}
KEYS = ["order", "image", "target", "across", "down", "mode", *NEEDS, *LAYERS]


@pytest.mark.parametrize("key", KEYS)
def test_every_control_changes_the_picture(explorer, key):
    if key.startswith("crf") and not crf_module.crf_available():
        pytest.skip("pydensecrf2 is not installed")
    explorer.set(**{"image": "c"} | NEEDS.get(key, {}))
    before = explorer.picture
    assert not explorer.controls[key].disabled
    explorer.controls[key].value = moved(explorer.controls[key])
    assert explorer.error is None, explorer.error
    assert before.shape != explorer.picture.shape or (before != explorer.picture).any()
    assert (decoded(explorer) == explorer.render(explorer.state)).all()


LABELS = {"mode": MODES[1], "before": "label", "after": "truth", "pseudo": True}


@pytest.mark.parametrize(
    "state", [{}, {"mode": MODES[1]}, {"mask": True, "errors": True}, {"pseudo": True, "cam": False}, LABELS]
)
def test_a_control_that_changes_nothing_cannot_be_moved(explorer, state):
    explorer.set(**{"image": "c"} | state)
    before, idle = explorer.picture, [key for key, control in explorer.controls.items() if control.disabled]
    for key in idle:
        explorer.controls[key].value = moved(explorer.controls[key])
        assert before.shape == explorer.picture.shape and (before == explorer.picture).all(), key
    assert len(idle) > 5


def test_a_layer_that_is_on_has_a_coloured_button(explorer):
    explorer.set(cam=False, pamr=True)
    assert [layer for layer in LAYERS if explorer.controls[layer].button_style] == ["pamr"]
    explorer.controls["cam"].value = True
    assert [layer for layer in LAYERS if explorer.controls[layer].button_style] == ["cam", "pamr"]


def test_a_state_is_always_drawn_the_same(explorer):
    explorer.set(image="b", pseudo=True, errors=True)
    state, first = explorer.state, explorer.picture
    explorer.step(1)
    assert (explorer.picture != first).any() and (explorer.render(state) == first).all()


def test_a_look_is_what_the_library_computes(run):
    source = Inspector(str(run[0]), "val", scales=(1.0, 1.5))
    look, (net, _, _) = source.look("c"), load_snapshot(run[0] / "checkpoints" / "last.safetensors")
    one = predict_masks(net, look.rgb, (1.0,), flip=False)
    np.testing.assert_allclose(look.masks, one.masks, atol=1e-6)
    np.testing.assert_allclose(look.chances, probabilities(one.scores), atol=1e-6)
    images = normalise(look.rgb)[None]
    with torch.no_grad():
        masks = net(images).masks
    small = resize(denormalise(images), masks.shape[-2:], align_corners=True)
    for n in (0, 1, 10):
        refined = pamr(small, masks, source.trained.config.pamr_dilations, n)[0]
        torch.testing.assert_close(look.steps[n], refined, atol=1e-5, rtol=1e-5)
    every = predict_masks(net, look.rgb, (1.0, 1.5), flip=True)
    seen = source.look("c", VIEWS[1])
    np.testing.assert_allclose(seen.masks, every.masks, atol=1e-6)  # its weights lie in channels_last
    assert (seen.label == label_map(seen.masks, seen.predicted)).all()
    assert source.look("c", VIEWS[1]) is seen, "the network looks once"


def test_activation_maps_are_positive_logits_by_their_maximum(run):
    source = Inspector(str(run[0]), "val")
    net, look = load_snapshot(run[0] / "checkpoints" / "last.safetensors")[0], source.look("a")
    with torch.no_grad():
        logits = net(normalise(look.rgb)[None]).logits[0, 1:].clamp(min=0)
    torch.testing.assert_close(look.cams[1:], logits / logits.amax((1, 2), keepdim=True).clamp_min(1e-5))


def test_pseudo_labels_follow_the_cuts_and_the_tags(explorer):
    look = explorer.source(explorer.state["run"]).look("a")
    for cut in (0.3, 0.9):
        state = explorer.state | {"foreground_cut": cut, "background_cut": 0.6, "floor": 0.1, "iterations": 3}
        present = torch.zeros(3, 1, 1)
        present[[0, 1]] = 1  # background and the only tag, cat
        claimed = pseudo_labels((look.large(look.steps[3]) * present)[None], cut, 0.6, 0.1)[0].numpy()
        want = np.where(claimed.any(0), claimed.argmax(0), 255)
        assert (label_of(look, "pseudo", state) == want).all() and 2 not in want


def looked(masks, chances, truth=None, tags=None):
    steps = [torch.from_numpy(masks)] * 11
    return Inspection(
        np.full((*masks.shape[1:], 3), 90, np.uint8),
        truth,
        tags,
        np.array(chances),
        masks,
        steps[0],
        steps,
        "wsfcn",
    )


def plain(**more):
    state = {layer: False for layer in LAYERS} | {f"{layer}_opacity": 1.0 for layer in LAYERS}
    return state | {"target": ALL, "iterations": 0, "across": 0, "down": 0, "foreground_cut": 0.6} | more


NAMES, PALETTE = ("background", "cat", "dog"), np.zeros((256, 3), np.uint8)
PALETTE[1:3], PALETTE[255] = ((64, 0, 0), (64, 0, 128)), (224, 224, 192)
LEFT = np.zeros((3, 375, 500), np.float32)  # a cat in the left half
LEFT[0], LEFT[1, :, :250] = 0.2, 0.9


def test_errors_are_told_apart_and_only_of_the_class_asked_for():
    truth = np.zeros((375, 500), np.uint8)
    truth[:100, :250], truth[200:, 250:], truth[100:150, :250] = 2, 1, 255
    look = looked(LEFT, [0.9, 0.0], truth)
    kind = layers.errors_of(look, plain())[1]
    assert set(np.unique(kind[:100, :250])) == {3} and set(np.unique(kind[200:, 250:])) == {1}
    assert set(np.unique(kind[150:, :250])) == {2} and not kind[100:150].any()
    painted, entries, missing = layered(look, plain(errors=True), NAMES, PALETTE)
    assert (
        list(entries) == ["missed", "invented", "confused"]
        and not missing
        and (painted[:200, 250:] == 90).all()
    )
    of_dog = layered(look, plain(errors=True, target="dog"), NAMES, PALETTE)[0]
    assert (of_dog[100:] == 90).all() and (of_dog[:100, :250] != 90).any(), (
        "the dog is taken for a cat in one place"
    )


def test_no_class_above_the_cut_is_said():
    picture, _, words = layered(looked(LEFT, [0.05, 0.0]), plain(mask=True), NAMES, PALETTE)
    assert words[0].startswith("no class scores above 0.1") and len(np.unique(picture)) <= 3
    words = layered(looked(LEFT, [0.05, 0.0]), plain(cam=True, target="cat"), NAMES, PALETTE)[2]
    assert words == ["cat scores 0.05, not above 0.1: it has maps, but no prediction"]


def test_missing_truth_is_said_in_the_picture():
    look = looked(LEFT, [0.9, 0.0])
    words = layered(look, plain(truth=True, errors=True), NAMES, PALETTE)[2]
    assert words == ["no ground truth: this picture has no mask"]
    with pytest.raises(Missing, match="no ground truth"):
        changed(look, plain(before="label", after="truth"), NAMES, PALETTE)


def test_missing_crf_is_said_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydensecrf.densecrf", None)
    painted, _, words = layered(looked(LEFT, [0.9, 0.0]), plain(crf=True, label=True), NAMES, PALETTE)
    assert (
        words[0].startswith("no CRF: the dense CRF needs the package pydensecrf2") and (painted != 90).any()
    )
    assert "cat" in layers.reading(looked(LEFT, [0.9, 0.0]), plain(crf=True), NAMES)


def test_what_changed_shows_where(run):
    moved_left = LEFT.copy()
    moved_left[1, :, :50] = 0
    look = looked(moved_left, [0.9, 0.0])
    object.__setattr__(look, "steps", [torch.from_numpy(LEFT)] * 11)
    picture, entries, words = changed(look, plain(before="pamr", after="mask"), NAMES, PALETTE)
    still = np.unique(picture[:, 60:].reshape(-1, 3), axis=0)
    assert (
        len(still) == 1 and (picture[:, :40] != still[0]).any(2).all() and list(entries) == ["lost", "gained"]
    )
    assert words == "refined by PAMR → softmax mask, cat: mean 0.45 → 0.36"
    truth = look.label.copy()
    truth[:75] = 2
    other = looked(moved_left, [0.9, 0.0], truth)
    _, entries, words = changed(other, plain(before="label", after="truth"), NAMES, PALETTE)
    assert words == "prediction → ground truth: 20.0 % of the pixels changed" and list(entries) == ["now dog"]


def test_the_reading_is_of_the_place_under_the_cross():
    truth = np.zeros((375, 500), np.uint8)
    truth[:, :125] = 1
    look = looked(LEFT, [0.9, 0.3], truth)
    words = layers.reading(look, plain(across=10, down=50), NAMES)
    assert (
        words == "at the cross: cat · in truth cat · cat has mask 0.90 here and score 0.90 · IoU of cat 0.50"
    )
    words = layers.reading(look, plain(across=90, down=50, target="dog"), NAMES)
    assert (
        words
        == "at the cross: background · in truth background · dog has mask 0.00 here and score 0.30 · IoU of background 0.67"
    )


def test_maps_of_one_class_and_of_all_predicted():
    both = LEFT.copy()
    both[2, :, 250:] = 0.5
    look = looked(both, [0.9, 0.8])
    assert (map_of(look, "mask", plain(), [2]) == both[2]).all() and (
        map_of(look, "mask", plain(), [1, 2]) == both[1:].max(0)
    ).all()


def test_the_list_is_filtered_and_sorted_by_the_runs_scores(explorer, run):
    rows = [line.split(",") for line in (run[0] / "per_image.csv").read_text().splitlines()]
    iou = {row[0]: float(row[rows[0].index("iou")]) for row in rows[1:]}
    explorer.set(order=WORST)
    names = [name for _, name in explorer.controls["image"].options]
    assert names == sorted(iou, key=iou.get) and explorer.state["image"] == names[0]
    explorer.set(order=BEST)
    assert [name for _, name in explorer.controls["image"].options] == sorted(iou, key=iou.get, reverse=True)
    explorer.set(order="as listed", only="dog")
    assert [name for _, name in explorer.controls["image"].options] == ["b", "c"]
    explorer.back.click()
    assert explorer.state["image"] == "c"
    explorer.on.click()
    assert explorer.state["image"] == "b"


def test_an_upload_is_looked_at_and_a_bad_file_is_told(explorer):
    stream = io.BytesIO()
    Image.new("RGB", (1200, 300), (200, 30, 30)).save(stream, "PNG")
    explorer.upload.value = (
        {
            "name": "mine.png",
            "type": "image/png",
            "size": 1,
            "last_modified": datetime.now(UTC),
            "content": memoryview(stream.getvalue()),
        },
    )
    assert (
        explorer.state["image"] == "your own 1: mine.png"
        and explorer.error is None
        and "tags unknown" in explorer.note.value
    )
    assert explorer.source(explorer.state["run"]).look("your own 1: mine.png").rgb.shape == (125, 500, 3)
    explorer.upload.value = (
        {
            "name": "bad.png",
            "type": "image/png",
            "size": 1,
            "last_modified": datetime.now(UTC),
            "content": memoryview(b"nothing"),
        },
    )
    assert (
        "bad.png: not a readable picture" in explorer.note.value
        and (explorer.picture == decoded(explorer)).all()
    )


def test_no_scores_and_no_pictures_are_said(tmp_path):
    run, manifest = make_run(tmp_path, evaluated=False)
    explorer = CamExplorer(str(run), "val")
    explorer.set(order=WORST)
    assert (
        explorer.state["image"] is None
        and "run 05_evaluate on it" in explorer.note.value
        and explorer.error is None
    )
    (manifest.folder / "val.csv").write_text("image,tags,mask\n")
    empty = CamExplorer(str(run), "val")
    assert empty.state["image"] is None and "val holds no picture" in empty.note.value
    (run / "checkpoints" / "last.safetensors").unlink()
    explorer.refresh()
    assert "train the run with 02_train first" in explorer.note.value and explorer.picture.shape[2] == 3


def test_the_scores_of_another_split_are_not_taken(tmp_path):
    run, _ = make_run(tmp_path)
    assert image_scores(str(run), "val").keys() == set("abcde")
    (run / "metrics.json").write_text(
        (run / "metrics.json").read_text().replace('"split": "val"', '"split": "test"')
    )
    assert image_scores(str(run), "val") == {}


def test_a_picture_beyond_the_list_joins_it(tmp_path, monkeypatch):
    monkeypatch.setattr("wsfcn_lib.explore.browse.MOST", 2)
    explorer = CamExplorer(str(make_run(tmp_path, evaluated=False)[0]), "val")
    assert [value for _, value in explorer.controls["image"].options] == ["a", "b"]
    assert "first 2 of 5 pictures" in explorer.rest.value and explorer.rest.layout.display is None
    explorer.set(only="dog")
    assert explorer.rest.layout.display == "none", "the two of this class are all listed"
    explorer.set(only=ANY)
    explorer.set(image="d", cam=False)
    assert explorer.state["image"] == "d" and explorer.state["cam"] is False and explorer.error is None
    assert not explorer.on.disabled


def test_changes_between_labels_are_those_of_the_chosen_class(tmp_path):
    explorer = CamExplorer(str(make_run(tmp_path, evaluated=False)[0]), "val")
    explorer.set(image="c", mode=MODES[1], before="label", after="truth", target="cat")
    cat = explorer.picture
    explorer.set(target="dog")
    assert explorer.error is None and (cat != explorer.picture).any()


def test_a_new_snapshot_is_seen(tmp_path):
    run, _ = make_run(tmp_path, evaluated=False)
    explorer, path = CamExplorer(str(run), "val"), run / "checkpoints" / "last.safetensors"
    source = explorer.source(str(run))
    assert explorer.source(str(run)) is source
    path.with_name("e001Xs0.900.safetensors").write_bytes(path.read_bytes())
    assert explorer.source(str(run)) is not source


def test_the_network_that_ships_answers_at_once():
    explorer = CamExplorer("", "val")
    assert explorer.error is None and explorer.state["run"] == SHIPS and explorer.state["image"] == "portrait"
    assert "predicted person" in explorer.note.value and "dog" in explorer.controls["target"].options
    assert explorer.on.disabled and explorer.back.disabled, "there is one picture"
    before = explorer.picture
    explorer.set(target="dog")
    assert (explorer.picture[:400, :500] != before[:400, :500]).any() and ANY in explorer.controls[
        "only"
    ].options


@CRF
def test_the_crf_layer_is_the_librarys(explorer):
    look = explorer.source(explorer.state["run"]).look("c")
    want = crf_module.crf(look.rgb, look.masks, look.predicted, "wsfcn")
    assert (label_of(look, "crf", explorer.state) == want).all() and want.shape == SIZE
