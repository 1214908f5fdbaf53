"""Views, fusion and `segment`, against the published protocol."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import oracles
from published import fixture, published_network, relative_error
from wsfcn_lib import WSFCN, NetConfig, infer, segment, weights
from wsfcn_lib.checkpoints import CheckpointError, save_snapshot
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.model_zoo import WeightsError
from wsfcn_lib.infer import (
    VIEW_LIMIT,
    Segmentation,
    at_size,
    predict_masks,
    shrink,
    view,
)
from wsfcn_lib.postprocess import label_map
from wsfcn_lib.protocol import LONG_SIDE, LONGEST, OWN_SCALES, SCALES, protocol_of, usual_side

TINY = NetConfig(backbone="tiny", width=16, dilations=(1, 2, 4, 6), num_classes=4)
CLASSES = [{"name": n, "mask_id": i, "colour": (9, i, 9)} for i, n in enumerate(("cat", "dog", "cow"), 1)]


class Canned(torch.nn.Module):
    """Answers each view with the masks that the published program computed for it."""

    def __init__(self, data):
        super().__init__()
        self.answers = [data[f"view_s{s}_f{f}"] for s in ("1", "0.5", "1.5", "2.0") for f in (0, 1)]
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        masks = self.answers.pop(0).float()[None]
        assert masks.shape[-2:] == images.shape[-2:], "views must have int(round(scale * size)) pixels"
        return type("Out", (), {"masks": masks, "scores": torch.zeros(1, 20)})


def test_fusion_is_the_published_one():
    data = fixture("inference")
    tags = data["tags"].numpy() > 0
    masks, _ = predict_masks(Canned(data).eval(), data["image"].numpy())
    masks[1:][~tags] = 0
    assert np.abs(masks - data["merged"].numpy()).max() < 2e-3  # the views are stored in half precision
    assert (label_map(masks, tags, "wsfcn") == data["label_map"].numpy()).all()
    assert (label_map(masks, tags, "1stage") == data["label_map_pow3"].numpy()).all()


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50"])
def test_view_protocol_on_the_canvas(backbone):
    data = fixture("views")
    net = published_network(backbone)
    out = predict_masks(net, data["image"].numpy(), canvas=int(data["canvas"]))
    assert relative_error(torch.from_numpy(out.masks), data[f"{backbone}.masks"]) < 1e-3
    assert relative_error(torch.from_numpy(out.scores), data[f"{backbone}.scores"]) < 1e-3
    if backbone == "resnet50":
        own = predict_masks(net, data["image"].numpy())
        assert np.abs(own.masks - out.masks).max() > 1e-3, "the canvas must make a difference"


def test_views_of_their_own_size_equal_the_direct_loop():
    net = WSFCN(TINY).eval()
    image = np.random.default_rng(1).integers(0, 256, (47, 62, 3), dtype=np.uint8)
    found, (masks, scores) = predict_masks(net, image), oracles.predict_masks(net, image, SCALES)
    assert np.abs(found.masks - masks).max() < 1e-4 and np.abs(found.scores - scores).max() < 1e-4


def test_mirrored_image_gives_mirrored_masks():
    net = WSFCN(TINY).eval()
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    straight, mirrored = predict_masks(net, image), predict_masks(net, np.ascontiguousarray(image[:, ::-1]))
    assert np.abs(straight.masks - mirrored.masks[:, :, ::-1]).max() < 1e-5
    assert np.abs(predict_masks(net, image, flip=False).masks - straight.masks).max() > 1e-4


def test_masks_are_probabilities_at_image_size():
    image = np.zeros((37, 51, 3), np.uint8)
    out = predict_masks(WSFCN(TINY).eval(), image, scales=(1, 0.5))
    assert out.masks.shape == (4, 37, 51) and out.scores.shape == (3,)
    assert np.allclose(out.masks.sum(0), 1, atol=1e-5)
    assert view(image, 1.5, False).shape == (1, 3, 56, 76)  # 55.5 rounds to even, as Python's round does


def test_bad_calls_say_what_to_do():
    net = WSFCN(TINY)
    image = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(ValueError, match="eval"):
        predict_masks(net, image)
    net.eval()
    with pytest.raises(ValueError, match="canvas=64; raise canvas"):
        predict_masks(net, image, canvas=64)
    with pytest.raises(ValueError, match="uint8 RGB"):
        predict_masks(net, image[..., 0])
    with pytest.raises(CheckpointError, match="no snapshot"):
        segment(image, "nowhere.safetensors")
    with pytest.raises(WeightsError, match="'nowhere' is neither a file nor a name of weights"):
        segment(image, "nowhere")


def test_a_view_too_large_is_refused_before_any_is_computed(monkeypatch):
    net = WSFCN(TINY).eval()
    net.register_forward_pre_hook(lambda *_: pytest.fail("the network must not run"))
    image = np.zeros((1025, 1024, 3), np.uint8)
    with pytest.raises(ValueError, match="2048x2050 exceeds the 4,194,304 pixels.*set long_side.*scales"):
        predict_masks(net, image, (1.0, 2.0))
    assert 2048 * 2048 <= VIEW_LIMIT
    assert max(SCALES) * LONG_SIDE <= VIEW_LIMIT**0.5, "what is shrunk by default always fits"
    small = WSFCN(TINY).eval()
    monkeypatch.setattr(infer, "VIEW_LIMIT", 64 * 64)
    assert predict_masks(small, image[:64, :64], (1.0,)).masks.shape == (4, 64, 64)
    assert predict_masks(small, image[:64, :80], (1.0,), canvas=96).masks.shape == (4, 64, 80)


def test_segment_takes_paths_pictures_and_arrays(tmp_path):
    torch.manual_seed(0)
    snapshot = save_snapshot(WSFCN(TINY), tmp_path / "net.safetensors", CLASSES, epoch=1)
    image = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "picture.png")
    answers = [segment(x, snapshot) for x in (image, Image.fromarray(image), tmp_path / "picture.png")]
    assert answers[0].names == ("background", "cat", "dog", "cow")
    assert answers[0].colours.tolist() == [[0, 0, 0], [9, 1, 9], [9, 2, 9], [9, 3, 9]]
    assert answers[0].labels.shape == (40, 56) and answers[0].masks.shape == (4, 40, 56)
    assert all(
        (a.labels == answers[0].labels).all() and np.allclose(a.masks, answers[0].masks) for a in answers
    )


def test_scales_and_recipe_come_with_the_weights(tmp_path):
    torch.manual_seed(0)
    net, image = WSFCN(TINY).eval(), np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    own = segment(
        image, save_snapshot(net, tmp_path / "a.safetensors", CLASSES, scales=(0.75, 1.0), recipe="1stage")
    )
    assert np.allclose(own.masks, predict_masks(net, image, (0.75, 1.0)).masks, atol=1e-6)
    assert (own.labels == label_map(own.masks, own.tags, "1stage")).all()
    bare = save_snapshot(net, tmp_path / "b.safetensors", CLASSES)
    assert np.allclose(segment(image, bare).masks, predict_masks(net, image, OWN_SCALES).masks, atol=1e-6)
    assert np.allclose(segment(image, bare, scales=[0.75, 1.0]).masks, own.masks, atol=1e-6)
    assert np.abs(segment(image, bare).masks - own.masks).max() > 1e-3


def test_large_images_are_seen_small_and_answered_large(tmp_path):
    torch.manual_seed(0)
    snapshot = save_snapshot(WSFCN(TINY), tmp_path / "net.safetensors", CLASSES, epoch=1)
    image = np.random.default_rng(1).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    plain, same = segment(image, snapshot, long_side=0), segment(image, snapshot)
    assert all((a == b).all() for a, b in zip(plain[:4], same[:4])), "small ones are seen as they are"
    half = segment(image, snapshot, long_side=40)
    small = segment(Image.fromarray(image).resize((40, 20), Image.Resampling.BICUBIC), snapshot)
    assert (half.scores == small.scores).all() and half.masks.shape == plain.masks.shape
    assert (half.labels == small.labels.repeat(2, 0).repeat(2, 1)).all()
    assert np.allclose(half.masks.sum(0), 1, atol=1e-5)
    between = (
        0.75 * small.masks[:, 10, 10] + 0.25 * small.masks[:, 10, 11]
    )  # the rows beside it, three to one, as well
    beside = 0.75 * small.masks[:, 11, 10] + 0.25 * small.masks[:, 11, 11]
    assert np.allclose(half.masks[:, 21, 21], 0.75 * between + 0.25 * beside, atol=1e-5)
    assert np.abs(half.masks - plain.masks).max() > 1e-3


def test_shrinking_keeps_the_shape_and_small_pictures():
    image = np.zeros((300, 1000, 3), np.uint8)
    assert shrink(image, 100).shape == (30, 100, 3) and shrink(image.transpose(1, 0, 2), 100).shape == (
        100,
        30,
        3,
    )
    assert shrink(image, 1000) is image and shrink(image, 0) is image and shrink(image, None) is image
    assert shrink(np.zeros((1, 1000, 3), np.uint8), 100).shape == (1, 100, 3)
    masks = np.zeros((3, 6, 4), np.float32)
    assert at_size(masks, (6, 4)) is masks and at_size(masks[:0], (12, 9)).shape == (0, 12, 9)
    with pytest.raises(ValueError, match="uint8 RGB"):
        shrink(image[..., 0], 100)


def test_a_network_ships_with_the_kit(tmp_path, monkeypatch):
    monkeypatch.setattr(infer, "SHIPPED", tmp_path / "shipped.safetensors")
    image = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(
        CheckpointError, match=r"shipped\.safetensors, the network that .* is missing; .*or name a run folder"
    ):
        segment(image)
    save_snapshot(WSFCN(TINY), tmp_path / "shipped.safetensors", CLASSES)
    assert segment(image).names == ("background", "cat", "dog", "cow")
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped.safetensors")
    assert segment(image, "shipped").names == ("background", "cat", "dog", "cow")


def test_an_image_is_shown_at_the_size_and_cut_that_belong_to_the_weights():
    assert usual_side({}) == protocol_of({})["long_side"] == LONG_SIDE
    assert usual_side({"crop": 96}) == 192 and usual_side({"crop": 321}) == LONGEST
    assert usual_side({"crop": 96, "long_side": 320}) == 320
    assert usual_side({"published": {}, "canvas": 1024}) == LONG_SIDE
    assert protocol_of({"crop": 96})["long_side"] == LONG_SIDE, "a data set has prepared its images"
    for wrong in ({"long_side": -1}, {"score_cut": 2}, {"scales": []}, {"recipe": "mine"}):
        with pytest.raises(CheckpointError, match=f"{next(iter(wrong))}.*"):
            protocol_of(wrong)


def test_the_cut_is_that_of_the_weights_unless_another_is_asked_for(tmp_path):
    torch.manual_seed(0)
    net, image = WSFCN(TINY), np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    plain = save_snapshot(net, tmp_path / "plain.safetensors", CLASSES)
    scores = segment(image, plain).scores
    cut = float(np.sort(scores)[1])  # of three classes one is above it
    careful = save_snapshot(net, tmp_path / "careful.safetensors", CLASSES, score_cut=cut)
    answer = segment(image, careful)
    assert answer.score_cut == cut and (answer.tags == (scores > cut)).all() and answer.tags.sum() == 1
    assert segment(image, careful, score_cut=0).tags.all()
    assert not segment(image, careful, score_cut=1).tags.any()
    assert segment(image, careful, score_cut=1).summary().startswith("no class above 1; strongest ")


def test_the_recipe_is_that_of_the_weights(monkeypatch):
    net, taken = WSFCN(TINY).eval(), []
    monkeypatch.setattr(
        infer, "label_map", lambda masks, tags, recipe: taken.append(recipe) or np.zeros((40, 40), np.uint8)
    )
    for facts, asked in (({"epoch": 3}, ""), ({"recipe": "1stage"}, ""), ({"recipe": "1stage"}, "wsfcn")):
        monkeypatch.setattr(infer, "load_network", lambda path, facts=facts: (net, CLASSES, facts))
        segment(np.zeros((40, 40, 3), np.uint8), "some.pth", asked)
    assert taken == ["wsfcn", "1stage", "wsfcn"]


def answer_of(labels, tags, scores):
    names, colours = ("background", "cat", "dog"), np.array([(0, 0, 0), (9, 99, 9), (9, 9, 199)], np.uint8)
    masks = np.zeros((3, *labels.shape), np.float32)
    image = np.full((*labels.shape, 3), 90, np.uint8)
    return Segmentation(masks, np.array(scores), np.array(tags), labels, names, colours, image, 0.1)


def test_an_answer_is_a_picture_in_a_notebook_and_a_sentence_elsewhere(tmp_path):
    labels = np.zeros((40, 50), np.uint8)
    labels[:10] = 2
    answer = answer_of(labels, (False, True), (0.04, 0.91))
    assert repr(answer) == "Segmentation of 50x40 pixels: dog 0.91, 25 % of the picture"
    shown = Image.open(io.BytesIO(answer._repr_png_()))
    path = answer.save(tmp_path / "answer")
    assert path == tmp_path / "answer.png" and np.array_equal(np.asarray(shown), np.asarray(Image.open(path)))
    assert shown.size[0] == 50 and shown.size[1] > 40
    assert answer.save(path) == path, "its own picture may be written anew"
    Image.new("RGB", (4, 4)).save(tmp_path / "mine.png")
    with pytest.raises(DataError, match="was not drawn by this kit"):
        answer.save(tmp_path / "mine.png")
    with pytest.raises(ValueError, match="answer.jpg is written as PNG; name it answer.png"):
        answer.save(tmp_path / "answer.jpg")


def test_an_answer_without_a_class_says_the_strongest():
    answer = answer_of(np.zeros((4, 5), np.uint8), (False, False), (0.04, 0.06))
    assert repr(answer).endswith("no class above 0.1; strongest dog 0.06")


def test_an_answer_is_shown_where_it_is_asked_for(monkeypatch):
    answer = answer_of(np.zeros((40, 50), np.uint8), (False, False), (0.04, 0.06))
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda picture: shown.append(picture.size))
    answer.show()
    monkeypatch.setattr(
        "builtins.get_ipython",
        lambda: SimpleNamespace(has_trait=lambda name: name == "kernel"),
        raising=False,
    )
    monkeypatch.setattr("builtins.display", shown.append, raising=False)
    answer.show()
    assert shown[0][0] == 50 and shown[1] is answer
