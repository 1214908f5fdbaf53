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
from wsfcn_lib.data.normalisation import denormalise, normalise
from wsfcn_lib.explore.browse import ANY, WORST
from wsfcn_lib.explore.cams import CamExplorer
from wsfcn_lib.explore.inspection import ALL_VIEWS, SHIPS, Inspector
from wsfcn_lib.explore.layers import LAYERS, labels
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


def test_a_layer_that_is_on_has_a_coloured_button(explorer):
    explorer.set(cam=False, pamr=True)
    assert [layer for layer in LAYERS if explorer.controls[layer].button_style] == ["pamr"]
    explorer.controls["cam"].value = True
    assert [layer for layer in LAYERS if explorer.controls[layer].button_style] == ["cam", "pamr"]


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
    assert explorer.error is None and "tags unknown" in explorer.note.value
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
    assert (explorer.picture[:400, :500] != before[:400, :500]).any()


def test_a_new_snapshot_is_seen(unevaluated):
    explorer, path = CamExplorer(str(unevaluated), "val"), unevaluated / "checkpoints" / "last.safetensors"
    inspector = explorer.inspector(str(unevaluated))
    assert explorer.inspector(str(unevaluated)) is inspector
    path.with_name("e001Xs0.900.safetensors").write_bytes(path.read_bytes())
    assert explorer.inspector(str(unevaluated)) is not inspector
