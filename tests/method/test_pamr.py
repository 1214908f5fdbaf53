"""PAMR against a slow version written from its definition, and its memory."""

import pytest
import torch
from torch.nn.functional import interpolate

import oracles
from wsfcn_lib.pamr import pamr


def slow_pamr(image, masks, dilations, iterations):
    """One image (3, H, W) and masks (K, H, W), pixel by pixel."""
    _, height, width = image.shape
    shifts = [(d * y, d * x) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1)]
    ring = [i for i, shift in enumerate(shifts) if shift != (0, 0)]

    def around(array, y, x):
        places = [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx in shifts]
        return torch.stack([array[:, a, b] for a, b in places], 1)

    weights = {}
    for y in range(height):
        for x in range(width):
            colours = around(image, y, x)
            deviation = colours.std(1, unbiased=True, keepdim=True)
            distance = (colours - image[:, y, x, None]).abs() / (1e-8 + 0.1 * deviation)
            weights[y, x] = (-distance.mean(0)[ring]).softmax(0)
    for _ in range(iterations):
        masks = torch.stack(
            [
                torch.stack([around(masks, y, x)[:, ring] @ weights[y, x] for x in range(width)], 1)
                for y in range(height)
            ],
            1,
        )
    return masks


@pytest.mark.parametrize("size", [(40, 52), (81, 81)])
def test_equals_the_direct_formulation(size):
    torch.manual_seed(0)
    images = interpolate(torch.rand(2, 3, 9, 9), size, mode="bicubic").clamp(0, 1)
    images[:, :, :20, :20] = 0.5  # flat, where the deviation is 0
    masks = torch.rand(2, 5, *size).softmax(1)
    assert (pamr(images, masks) - oracles.pamr(images, masks)).abs().max() < 1e-5


@pytest.fixture
def scene():
    torch.manual_seed(0)
    return torch.rand(2, 3, 9, 11), torch.rand(2, 4, 9, 11)


@pytest.mark.parametrize("dilations, iterations", [((1,), 1), ((1, 2, 4), 3)])
def test_equals_the_slow_version(scene, dilations, iterations):
    images, masks = scene
    fast = pamr(images, masks, dilations, iterations)
    slow = torch.stack([slow_pamr(i, m, dilations, iterations) for i, m in zip(images, masks)])
    assert (fast - slow).abs().max() < 1e-6


def test_masks_take_the_image_size_first(scene):
    images, masks = scene
    small = interpolate(masks, (5, 6), mode="bilinear", align_corners=True)
    large = interpolate(small, (9, 11), mode="bilinear", align_corners=True)
    assert torch.equal(pamr(images, small, (1,), 2), pamr(images, large, (1,), 2))
    assert torch.equal(pamr(images, large, (1,), 0), large)


def test_classes_do_not_interact_and_mass_stays_in_range(scene):
    images, masks = scene
    whole = pamr(images, masks)
    assert torch.allclose(whole[:, 1:3], pamr(images, masks[:, 1:3]), atol=1e-6)
    assert whole.min() >= masks.min() and whole.max() <= masks.max() + 1e-6
    assert torch.allclose(pamr(images, torch.ones(2, 1, 9, 11)), torch.ones(2, 1, 9, 11), atol=1e-5)


def test_absent_classes_stay_at_zero_and_the_others_as_they_are(scene):
    images, masks = scene
    present = torch.tensor([[True, False, True, False], [True, True, True, False]])
    whole = pamr(images, masks, (1, 2), 3)
    some = pamr(images, masks, (1, 2), 3, present)
    assert torch.allclose(some, whole * present[:, :, None, None], atol=1e-6) and not some[~present].any()
    assert not pamr(images, masks, (1, 2), 3, torch.zeros_like(present)).any()


def test_a_mask_spreads_within_its_colour_only():
    image = torch.zeros(1, 3, 12, 12)
    image[..., 6:] = 1
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:5, 1:4] = 1
    refined = pamr(image, mask, (1, 2), 10)[0, 0]
    assert refined[:, :5].mean() > 10 * refined[:, 7:].mean()


def test_no_gradient_and_no_giant_tensor():
    masks = torch.rand(1, 9, 24, 24, requires_grad=True)
    largest = 0
    whole = 9 * 48 * 24 * 24

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                    largest = max(largest, tensor.untyped_storage().nbytes() // tensor.element_size())
            return out

    with Watch():
        out = pamr(torch.rand(1, 3, 24, 24), masks)
    assert not out.requires_grad
    assert 0 < largest < whole / 2, f"PAMR built a tensor of {largest} values; (K, 48, H, W) has {whole}"


def test_unequal_batches_are_refused():
    with pytest.raises(ValueError, match="2 images and 3 sets of masks"):
        pamr(torch.rand(2, 3, 8, 8), torch.rand(3, 2, 8, 8))
