"""The CAM explorer: maps and labels are those of the library, uploads are seen, and gaps are said."""

import io
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from PIL import Image

from explored import SIZE, decoded, listed
from factories import needs_crf
from wsfcn_lib.checkpoints import load_snapshot
from wsfcn_lib.data.images import read_image
from wsfcn_lib.data.normalisation import denormalise, normalise
from wsfcn_lib.explore import draw
from wsfcn_lib.explore.browse import ANY, COLUMNS, LISTED, WORST
from wsfcn_lib.explore.cams import CamExplorer
from wsfcn_lib.explore.inspection import ALL_VIEWS, SHIPS, Inspector
from wsfcn_lib.explore.layers import labels, layered
from wsfcn_lib.infer import predict_masks, probabilities
from wsfcn_lib.losses import pseudo_labels
from wsfcn_lib.modules import resize
from wsfcn_lib.pamr import pamr
from wsfcn_lib.postprocess import crf, label_map


@pytest.fixture(scope="module")
def inspector(evaluated):
    return Inspector(str(evaluated[0]), "val", scales=(1.0, 1.5))


@pytest.fixture(scope="module")
def net(evaluated):
    return load_snapshot(evaluated[0] / "checkpoints" / "last.safetensors")[0]


@pytest.fixture
def explorer(evaluated):
    return CamExplorer(str(evaluated[0]), "val")


def test_the_plain_map_comes_first_and_pamr_is_shown_when_its_steps_are_moved(explorer):
    assert explorer.state["layer"] == "cam"
    explorer.controls["iterations"].value = 3
    assert explorer.state["layer"] == "pamr" and explorer.state["iterations"] == 3
    explorer.set(layer="pseudo")
    explorer.controls["iterations"].value = 5
    assert explorer.state["layer"] == "pseudo", "it depends on PAMR too"
    explorer.set(layer="cam", iterations=7)
    assert explorer.state["layer"] == "cam", "set by name, it says itself what to show"


def test_a_click_moves_the_cross_to_its_pixel(explorer):
    explorer.set(image="b")
    top, left, height, width = draw.place_in_frame((*SIZE, 3))
    explorer.clicked(left, top + height - 1)
    assert (explorer.state["across"], explorer.state["down"]) == (0, 100)
    explorer.clicked(left + width // 2, top + height // 4)
    assert (explorer.state["across"], explorer.state["down"]) == (50, 25)
    explorer.clicked(5, 5000)
    assert explorer.state["down"] == 25, "the legend is no place of the picture"


def test_a_thumbnail_chooses_its_picture_and_shows_what_was_found(explorer):
    explorer.set(image="c", order=LISTED)
    width, height = draw.thumb_size()
    assert explorer.thumbnails(explorer.state) == list("abcde")
    strip = np.asarray(Image.open(io.BytesIO(explorer.strip.value)))
    assert strip.shape[1] == 5 * width
    assert (strip[:4, 2 * width : 3 * width] == draw.GAINED).all(), "the chosen one is framed"
    assert (strip[:4, :width] == draw.PAPER).all()
    explorer.strip_clicked(width // 2, 10)
    assert explorer.state["image"] == "a"
    seen = explorer.thumbnail(explorer.state, "a")
    plain = draw.fitted((*SIZE, 3), *draw.THUMB, shrink=True)(
        read_image(explorer.inspector(explorer.run).samples["a"].image)
    )
    assert seen.shape == plain.shape and (seen != plain).any()
    for nowhere in ((6 * width, 10), (10, height + 10)):
        explorer.strip_clicked(*nowhere)
        assert explorer.state["image"] == "a"
    assert explorer.page.thumbs == "pictures to choose from: a, b, c, d, e"


def test_thumbnails_stand_in_rows_as_wide_as_the_picture(explorer, monkeypatch):
    names = [f"{number}" for number in range(8)]
    monkeypatch.setattr(explorer, "thumbnails", lambda state: names)
    monkeypatch.setattr(explorer, "thumbnail", lambda state, name: draw.blank(*draw.THUMB))
    width, height = draw.thumb_size()
    strip = explorer.render_strip(explorer.state)
    assert strip.shape[:2] == (2 * height, COLUMNS * width) and strip.shape[1] == draw.WIDTH
    chosen = []
    explorer.controls["image"].options = names
    explorer.controls["image"].observe(lambda change: chosen.append(change["new"]), names="value")
    explorer.strip_clicked(2 * width + 5, height + 5)
    assert chosen[-1] == "7"


def test_layers_are_painted_once_while_the_cross_moves(explorer, monkeypatch):
    explorer.set(image="b", layer="pamr")
    drawn = []
    monkeypatch.setattr("wsfcn_lib.explore.cams.layered", lambda *args: drawn.append(1) or layered(*args))
    explorer.set(opacity=0.4)
    explorer.set(across=10)
    explorer.set(down=20)
    assert len(drawn) == 1


def test_a_stranger_to_the_data_is_told_what_the_network_knows():
    explorer = CamExplorer()
    assert (
        "This network knows cat, cow, dog, horse, person and sheep, and nothing else." in explorer.note.value
    )


def test_the_network_that_ships_is_looked_at_as_it_was_trained():
    explorer = CamExplorer()
    inspector = explorer.inspector(SHIPS)
    assert [*inspector.views[0]] == [1.25], "the scale that its file names"
    assert inspector.trained.config.pamr_dilations == (1, 2, 4, 8, 12), "not the paper's rings"
    assert explorer.state["background_cut"] == 0.8 and inspector.trained.config.crop == 240


def test_an_inspection_of_one_view_is_what_the_library_computes(inspector, net):
    seen = inspector.inspect("c")
    one = predict_masks(net, seen.rgb, (1.0,), flip=False)
    np.testing.assert_allclose(seen.masks, one.masks, atol=1e-6)
    np.testing.assert_allclose(seen.probabilities, probabilities(one.scores), atol=1e-6)
    images = normalise(seen.rgb)[None]
    with torch.no_grad():
        out = net(images)
    small = resize(denormalise(images), out.masks.shape[-2:], align_corners=True)
    for n in (0, 1, 10):
        refined = pamr(small, out.masks, inspector.trained.config.pamr_dilations, n)[0]
        torch.testing.assert_close(seen.refined[n], refined, atol=1e-5, rtol=1e-5)
    logits = out.logits[0, 1:].clamp(min=0)
    torch.testing.assert_close(seen.cams[1:], logits / logits.amax((1, 2), keepdim=True).clamp_min(1e-5))


def test_an_inspection_of_all_views_is_what_the_library_computes(inspector, net):
    seen = inspector.inspect("c", ALL_VIEWS)
    every = predict_masks(net, seen.rgb, (1.0, 1.5), flip=True)
    np.testing.assert_allclose(seen.masks, every.masks, atol=1e-6)  # its weights lie in channels_last
    assert (seen.label == label_map(seen.masks, seen.predicted)).all()
    assert inspector.inspect("c", ALL_VIEWS) is seen, "the network looks once"


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_pseudo_labels_follow_the_cuts_and_the_tags(explorer, inspector, cut):
    seen = inspector.inspect("a")
    state = explorer.state | {"foreground_cut": cut, "background_cut": 0.6, "floor": 0.1, "iterations": 3}
    present = torch.zeros(3, 1, 1)
    present[[0, 1]] = 1  # background and the only tag, cat
    claimed = pseudo_labels((seen.at_image_size(seen.refined[3]) * present)[None], cut, 0.6, 0.1)[0].numpy()
    expected = np.where(claimed.any(0), claimed.argmax(0), 255)
    assert (labels(seen, "pseudo", state) == expected).all() and 2 not in expected


@needs_crf
def test_the_crf_layer_is_the_librarys(explorer, inspector):
    seen = inspector.inspect("c")
    expected = crf(seen.rgb, seen.masks, seen.predicted, "wsfcn")
    assert (labels(seen, "crf", explorer.state) == expected).all() and expected.shape == SIZE


def upload(explorer, name, content):
    file = {"name": name, "type": "image/png", "size": len(content), "last_modified": datetime.now(UTC)}
    explorer.upload.value = (file | {"content": memoryview(content)},)


def test_an_upload_is_inspected_and_a_bad_file_is_said(explorer):
    stream = io.BytesIO()
    Image.new("RGB", (1200, 300), (200, 30, 30)).save(stream, "PNG")
    upload(explorer, "mine.png", stream.getvalue())
    name = "your own 1: mine.png"
    assert explorer.state["image"] == name and listed(explorer)[-1] == name
    assert (
        explorer.error is None and "This network knows cat and dog, and nothing else" in explorer.note.value
    )
    assert explorer.inspector(explorer.state["run"]).inspect(name).rgb.shape == (125, 500, 3)
    upload(explorer, "bad.png", b"nothing")
    assert "bad.png: not a readable picture" in explorer.note.value
    assert (explorer.picture == decoded(explorer)).all()


def test_no_scores_and_no_network_are_said(unevaluated):
    explorer = CamExplorer(str(unevaluated), "val")
    explorer.set(order=WORST)
    assert explorer.state["image"] is None and explorer.error is None
    assert "run 05_evaluate on it" in explorer.note.value
    (unevaluated / "checkpoints" / "last.safetensors").unlink()
    explorer.refresh()
    assert "train the run with 02_train first" in explorer.note.value and explorer.picture.shape[2] == 3


def test_the_network_that_ships_answers_at_once():
    explorer = CamExplorer("", "val")
    assert (
        explorer.error is None
        and explorer.state["run"] == SHIPS
        and listed(explorer) == ["cat", "cow", "dog", "horse", "sheep"]
    )
    assert "predicted cat" in explorer.note.value and ANY in explorer.controls["only"].options
    assert not explorer.next.disabled
    before = explorer.picture
    explorer.set(target="dog")
    assert (explorer.picture[:375, :500] != before[:375, :500]).any()


def test_a_new_snapshot_is_seen(unevaluated):
    explorer, path = CamExplorer(str(unevaluated), "val"), unevaluated / "checkpoints" / "last.safetensors"
    inspector = explorer.inspector(str(unevaluated))
    assert explorer.inspector(str(unevaluated)) is inspector
    path.with_name("e001Xs0.900.safetensors").write_bytes(path.read_bytes())
    assert explorer.inspector(str(unevaluated)) is not inspector
