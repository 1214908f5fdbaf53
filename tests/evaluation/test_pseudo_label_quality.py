"""The quality of CAMs, refined CAMs and pseudo labels on training masks, against loops over pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from factories import CLASSES, NAMES, SIZE, Painter, folder_of, mean, slow_iou
from wsfcn_lib.checkpoints import CheckpointError, save_snapshot
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_image, read_mask
from wsfcn_lib.data.manifest import write_manifest
from wsfcn_lib.evaluation.cam_cuts import CUTS
from wsfcn_lib.evaluation.pseudo_label_quality import KINDS, pseudo_label_quality, quality_over_training
from wsfcn_lib.infer import predict_masks, probabilities
from wsfcn_lib.network import build_network
from wsfcn_lib.pamr import pamr
from wsfcn_lib.postprocess import label_map

CONFIG = TrainConfig(
    backbone="tiny", width=16, dilations=(1, 2, 3, 4), pamr_dilations=(1, 2), pamr_iterations=2
)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def enlarged(maps, size):
    return interpolate(torch.from_numpy(maps)[None], size, mode="bilinear", align_corners=True)[0].numpy()


def strongest(maps):
    return maps.argmax(0)


def cut(maps, config):
    """Each class claims the pixels above its threshold; only what exactly one class claims is labelled."""
    labels = np.full(maps.shape[1:], 255)
    limits = [
        max(config.floor, m.max() * (config.foreground_cut if c else config.background_cut))
        for c, m in enumerate(maps)
    ]
    for y, x in np.ndindex(labels.shape):
        claims = [c for c in range(len(maps)) if maps[c, y, x] > limits[c]]
        labels[y, x] = claims[0] if len(claims) == 1 else 255
    return labels


def slow_maps(net, image, tags, config):
    """The masks of an image and those after PAMR, (K, H, W), step by step as the method writes them."""
    tensor = torch.from_numpy(((image / 255 - MEAN) / STD).transpose(2, 0, 1)[None]).float()
    with torch.no_grad():
        masks = net(tensor).masks[0].numpy()
    for c, present in enumerate(tags, 1):
        masks[c] *= present
    small = enlarged((image / 255).astype(np.float32).transpose(2, 0, 1), masks.shape[1:])
    refined = pamr(
        torch.from_numpy(small)[None],
        torch.from_numpy(masks)[None],
        config.pamr_dilations,
        config.pamr_iterations,
    )
    return enlarged(masks, image.shape[:2]), enlarged(refined[0].numpy(), image.shape[:2])


def slow_stages(net, image, tags, config):
    """The labels of the three kinds."""
    masks, refined = slow_maps(net, image, tags, config)
    labels = {
        "cam": strongest(masks),
        "refined_cam": strongest(refined),
        "pseudo_labels": cut(refined, config),
    }
    found, scores = predict_masks(net, image, scales=(1,), flip=False)
    return labels | {"prediction": label_map(found, probabilities(scores) > 0.1, "wsfcn")}


@pytest.mark.parametrize(
    "changes", [{}, {"background_cut": 0.95, "floor": 0.3, "pamr_iterations": 8, "pamr_dilations": (1, 3)}]
)
def test_numbers_are_those_of_loops_over_pixels(tmp_path, changes):
    manifest, net, config = folder_of(tmp_path), Painter().eval(), CONFIG.model_copy(update=changes)
    pairs, labelled, counted = {kind: [] for kind in KINDS}, 0, 0
    for sample in manifest.samples("train"):
        truth = read_mask(manifest.train_masks()[sample.name], manifest)
        found = slow_stages(net, read_image(sample.image), sample.tags, config)
        counted += (truth != 255).sum()
        labelled += ((truth != 255) & (found["pseudo_labels"] != 255)).sum()
        known = np.where(found["pseudo_labels"] == 255, 255, truth)  # what carries no label is left out
        for kind, labels in found.items():
            pairs[kind].append((labels, known if kind == "pseudo_labels" else truth))
    quality = pseudo_label_quality(net, manifest, config)
    expected = {kind: slow_iou(pair) for kind, pair in pairs.items()}
    assert quality["images"] == 4
    for kind, iou in expected.items():
        assert quality[kind] == pytest.approx(mean(iou))
        assert quality["per_class_iou"][kind] == pytest.approx(dict(zip(NAMES, iou.values())))
    assert len({round(quality[kind], 6) for kind in expected}) == 4, (
        "the four must differ for this to show anything"
    )
    assert (
        quality["pseudo_coverage"] == pytest.approx(labelled / counted) and 0.05 < labelled / counted < 0.95
    )


def test_cuts_are_chosen_on_every_second_image_and_measured_on_the_others(tmp_path):
    manifest, net = folder_of(tmp_path), Painter().eval()
    pairs = {kind: [] for kind in ("cam", "refined_cam")}
    for sample in manifest.samples("train"):
        truth = read_mask(manifest.train_masks()[sample.name], manifest)
        for kind, maps in zip(pairs, slow_maps(net, read_image(sample.image), sample.tags, CONFIG)):
            pairs[kind].append((maps[1:], truth))
    quality = pseudo_label_quality(net, manifest, CONFIG)

    def iou_at(chosen, cut):
        return mean(slow_iou([(np.where(m.max(0) > cut, 1 + m.argmax(0), 0), t) for m, t in chosen]))

    for kind, found in quality["cuts"].items():
        dev, test = pairs[kind][::2], pairs[kind][1::2]
        on_dev = [iou_at(dev, cut) for cut in CUTS[::10]]
        assert iou_at(dev, found["cut"]) >= max(on_dev) - 1e-9
        assert found["mean_iou"] == pytest.approx(iou_at(test, found["cut"]))
        assert found["fixed_cut"] == 0.25
        assert found["mean_iou_fixed"] == pytest.approx(iou_at(test, 0.25))
        assert found["peak"] == pytest.approx(iou_at(test, found["peak_cut"]))
        assert found["peak"] >= max(found["mean_iou"], found["mean_iou_fixed"])
    assert pseudo_label_quality(net, manifest, CONFIG, limit=1)["cuts"] == {"cam": None, "refined_cam": None}


def test_a_network_in_training_is_judged_in_evaluation_mode(tmp_path):
    manifest = folder_of(tmp_path)
    torch.manual_seed(0)
    net = build_network(CONFIG.network(4)).train()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    quality = pseudo_label_quality(net, manifest, CONFIG)
    assert net.training and all((value == state[name]).all() for name, value in net.state_dict().items())
    assert quality == pseudo_label_quality(net.eval(), manifest, CONFIG) and quality["cam"] > 0


def test_limit_takes_images_from_the_whole_list(tmp_path):
    manifest, net = folder_of(tmp_path), Painter().eval()
    masks = manifest.train_masks()
    samples = [replace(sample, mask=masks[sample.name]) for sample in manifest.samples("train")]
    ends = write_manifest(tmp_path / "ends", manifest.classes, {"train": [samples[0], samples[3]]})
    assert pseudo_label_quality(net, manifest, CONFIG, limit=2) == pseudo_label_quality(net, ends, CONFIG)
    assert pseudo_label_quality(net, manifest, CONFIG, limit=9) == pseudo_label_quality(
        net, manifest, CONFIG, limit=0
    )


def test_large_pictures_are_shrunk_and_their_labels_enlarged(tmp_path):
    manifest, sizes = folder_of(tmp_path), []

    class Recording(Painter):
        def forward(self, images):
            sizes.append(tuple(images.shape[-2:]))
            return super().forward(images)

    plain = pseudo_label_quality(Recording().eval(), manifest, CONFIG, long_side=26)
    assert set(sizes) == {SIZE} and plain == pseudo_label_quality(Painter().eval(), manifest, CONFIG)
    quality = pseudo_label_quality(Recording().eval(), manifest, CONFIG, long_side=13)
    assert sizes[-4:] == [(10, 13)] * 4 and quality != plain
    pairs = []
    for sample in manifest.samples("train"):
        small = np.asarray(
            Image.fromarray(read_image(sample.image)).resize((13, 10), Image.Resampling.BICUBIC)
        )
        labels = slow_stages(Painter().eval(), small, sample.tags, CONFIG)["cam"]
        pairs.append(
            (labels.repeat(2, 0).repeat(2, 1), read_mask(manifest.train_masks()[sample.name], manifest))
        )
    assert quality["cam"] == pytest.approx(mean(slow_iou(pairs)))


def test_snapshots_give_a_row_for_each_epoch(tmp_path):
    """Two files of one epoch count once; the order is that of the epochs, not of the names."""
    manifest, nets, classes = folder_of(tmp_path), {}, [c.model_dump() for c in CLASSES]
    (tmp_path / "checkpoints").mkdir()
    for name, epoch in (("e010Xs0.5", 10), ("epoch-002", 2), ("last", 10)):
        torch.manual_seed(epoch)
        nets[epoch] = build_network(CONFIG.network(4))
        save_snapshot(nets[epoch], tmp_path / "checkpoints" / f"{name}.safetensors", classes, epoch=epoch)
    found = quality_over_training(tmp_path, manifest, CONFIG, limit=3)
    assert found.epoch.tolist() == [2, 10] and list(found) == ["epoch", *KINDS, "pseudo_coverage"]
    for _, row in found.iterrows():
        quality = pseudo_label_quality(nets[row.epoch].eval(), manifest, CONFIG, limit=3)
        assert all(row[kind] == pytest.approx(quality[kind]) for kind in KINDS)
    assert found.cam[0] != found.cam[1]
    with pytest.raises(CheckpointError, match="no snapshot in"):
        quality_over_training(tmp_path / "other", manifest, CONFIG)


def test_only_images_with_masks_count(tmp_path):
    (tmp_path / "some").mkdir()
    some = folder_of(tmp_path / "some", masked=(1, 3))
    assert pseudo_label_quality(Painter().eval(), some, CONFIG)["images"] == 2
    (tmp_path / "none").mkdir()
    none = folder_of(tmp_path / "none", masked=())
    with pytest.raises(
        DataError, match="prepared: no training image has a mask in train_masks.csv, so there is nothing to"
    ):
        pseudo_label_quality(Painter().eval(), none, CONFIG)
    (tmp_path / "odd").mkdir()
    odd = folder_of(tmp_path / "odd", size=(20, 24))
    with pytest.raises(
        DataError, match=r"p1\.png: the mask is \(24, 20\), its image \(26, 20\) \(width, height\)"
    ):
        pseudo_label_quality(Painter().eval(), odd, CONFIG)
