"""Training crops: ImageNet's normalisation, the published augmentation, draws that belong to the sample."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.glyphs import GLYPH_CLASSES, GlyphSettings
from wsfcn_lib.data.images import read_image
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.normalisation import MEAN, STD, denormalise, normalise
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.data.training_set import TrainSet, epoch_batches


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    """A few scenes, their masks deleted after the tags were taken."""
    root = tmp_path_factory.mktemp("glyphs")
    glyphs = GlyphSettings(size=64, train=8, val=4, test=0)
    report = prepare(SourceSettings(raw=str(root), glyphs=glyphs), root / "prepared")
    shutil.rmtree(root / "VOCdevkit/VOC2012/SegmentationClass")
    return report.manifest


def test_training_pictures_come_without_masks(manifest):
    data = TrainSet(manifest, "train", 48, seed=0)
    image, tags, index = data[(0, 3)]
    assert image.shape == (3, 48, 48) and image.dtype == tags.dtype == torch.float32 and index == 3
    assert tuple(tags.bool().tolist()) == manifest.samples("train")[3].tags
    assert not [name for name in vars(data) if "mask" in name]


def test_a_sample_depends_on_seed_epoch_and_index_alone(manifest):
    data, again = TrainSet(manifest, "train", 48, seed=0), TrainSet(manifest, "train", 48, seed=0)
    first = data[(2, 5)][0]
    torch.manual_seed(99)
    again[(0, 1)]
    assert torch.equal(first, again[(2, 5)][0])
    assert not torch.equal(first, data[(3, 5)][0])
    assert not torch.equal(first, TrainSet(manifest, "train", 48, seed=1)[(2, 5)][0])


def test_the_global_generator_is_left_alone(manifest):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    TrainSet(manifest, "train", 48, seed=0)[(0, 0)]
    assert torch.equal(before, torch.random.get_rng_state())


def test_workers_change_nothing(manifest):
    data = TrainSet(manifest, "train", 48, seed=0)
    batches = [[(1, index) for index in batch] for batch in epoch_batches(len(data), 4, 0, 1)]
    alone, by_workers = (list(DataLoader(data, batch_sampler=batches, num_workers=n)) for n in (0, 2))
    assert len(alone) == len(by_workers) == 2
    for batch, other in zip(alone, by_workers):
        assert all(torch.equal(part, other_part) for part, other_part in zip(batch, other, strict=True))


def test_without_augmentation_the_whole_picture_comes_back(manifest):
    data = TrainSet(manifest, "val", 64, seed=0, augment=False)
    image, _, _ = data[2]
    assert torch.equal(image, data[(5, 2)][0])
    assert torch.equal(image, normalise(read_image(manifest.samples("val")[2].image)))


def test_the_shorter_side_is_resized_and_the_middle_cut_out(manifest, tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    Image.fromarray(wide).save(tmp_path / "train0.png")
    (tmp_path / "classes.json").write_text((manifest.folder / "classes.json").read_text())
    (tmp_path / "train.csv").write_text(f"image,tags\ntrain0.png,{GLYPH_CLASSES[0]}\n")
    image, _, _ = TrainSet(Manifest.load(tmp_path), "train", 40, seed=0, augment=False)[0]
    assert image.shape == (3, 40, 40) and denormalise(image)[:, :, 3:-3].min() > 0.99


def test_normalising_follows_imagenet_and_can_be_undone():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    slow = (np.transpose(image / 255, (2, 0, 1)) - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    tensor = normalise(image)
    assert tensor.is_contiguous() and np.allclose(tensor, slow, atol=1e-5)
    assert np.allclose(denormalise(tensor[None])[0] * 255, np.transpose(image, (2, 0, 1)), atol=1e-3)
    assert denormalise(torch.full((1, 3, 2, 2), 9.0)).max() == 1


def test_the_augmentation_is_as_strong_as_published(manifest):
    """Of many draws: half are flipped, crops keep 0.9 of the area, the mean colour moves, not too far."""
    ramp = Image.fromarray(
        np.repeat(np.linspace(40, 215, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    )
    chain = TrainSet(manifest, "train", 64, seed=0).chain
    torch.manual_seed(0)
    drawn = np.stack([np.asarray(chain(ramp)).astype(float) for _ in range(300)])
    flipped = drawn[:, :, :8].mean((1, 2, 3)) > drawn[:, :, -8:].mean((1, 2, 3))
    assert 0.4 < flipped.mean() < 0.6
    brightness = drawn.mean((1, 2, 3)) / np.asarray(ramp).mean()
    assert 0.65 < brightness.min() < 0.8 and 1.2 < brightness.max() < 1.35
    crop, flip, jitter = chain.transforms
    assert (crop.scale, crop.interpolation.value, flip.p) == ((0.9, 1.0), "bicubic", 0.5)
    assert crop.ratio == pytest.approx((3 / 4, 4 / 3))
    for name, reach in {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3}.items():
        assert getattr(jitter, name) == pytest.approx((1 - reach, 1 + reach))
    assert jitter.hue == pytest.approx((-0.1, 0.1))


def test_an_epoch_visits_each_image_once_and_drops_the_rest():
    batches = epoch_batches(23, 5, seed=3, epoch=4)
    seen = sum(batches, [])
    assert [len(batch) for batch in batches] == [5] * 4
    assert len(set(seen)) == 20 and set(seen) <= set(range(23))
    assert batches == epoch_batches(23, 5, seed=3, epoch=4)
    assert batches != epoch_batches(23, 5, seed=3, epoch=5)
    assert batches != epoch_batches(23, 5, seed=4, epoch=4)
    assert epoch_batches(4, 5, 0, 0) == []


def test_a_bad_picture_is_named_when_it_is_asked_for(manifest, tmp_path):
    (tmp_path / "classes.json").write_text((manifest.folder / "classes.json").read_text())
    (tmp_path / "train.csv").write_text(f"image,tags\ngone.jpg,{GLYPH_CLASSES[0]}\n")
    with pytest.raises(DataError, match="gone.jpg: the file is missing"):
        TrainSet(Manifest.load(tmp_path), "train", 48, seed=0)[(0, 0)]
