"""Parity must break: every dilation, kernel, concat order and align_corners is altered in turn."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

import wsfcn_lib.modules as modules
from factories import replaced
from published import CASES, fixture, gci_error, published_network, relative_error
from wsfcn_lib.modules import resize
from wsfcn_lib.pamr import pamr

TOLERANCE = 1e-5
NETWORK_TOLERANCE = 1e-3


@contextmanager
def dilation_changed(conv):
    """One more pixel between the taps; the padding follows, so that only the reach differs."""
    padding = tuple(p + (k // 2) for p, k in zip(conv.padding, conv.kernel_size))
    with replaced(conv, "dilation", tuple(d + 1 for d in conv.dilation)), replaced(conv, "padding", padding):
        yield


@contextmanager
def kernel_cropped(conv):
    """The kernel loses its outer taps (a 1 x 1 kernel gains one): another kernel size, the same shapes."""
    weight = conv.weight.detach().clone()
    if max(conv.kernel_size) == 1:
        shifted = nn.Parameter(nn.functional.pad(weight, (0, 1)))
        with replaced(conv, "weight", shifted), replaced(conv, "kernel_size", (1, 2)):
            with replaced(
                conv,
                "forward",
                lambda x: nn.functional.conv2d(nn.functional.pad(x, (-1, 2)), shifted, conv.bias),
            ):
                yield
        return
    if conv.kernel_size[0] > 1:
        weight[:, :, [0, -1]] = 0
    if conv.kernel_size[1] > 1:
        weight[:, :, :, [0, -1]] = 0
    with replaced(conv, "weight", nn.Parameter(weight)):
        yield


@contextmanager
def reversed_concat():
    """torch.cat along channels takes its parts in the opposite order."""
    original = torch.cat
    with replaced(modules.torch, "cat", lambda parts, dim=0: original(tuple(parts)[::-1], dim)):
        yield


@contextmanager
def flipped_align_corners(function):
    """`resize` or `grid_sample` with the other align_corners."""
    original = getattr(modules, function)

    def flipped(*args, align_corners, **kwargs):
        return original(*args, align_corners=not align_corners, **kwargs)

    with replaced(modules, function, flipped):
        yield


def convolutions(module, mutable):
    return [
        (name, conv)
        for name, conv in module.named_modules()
        if isinstance(conv, nn.Conv2d) and mutable(name, conv)
    ]


def module_mutations():
    """(module, mutation, name) for all that can be wrong in the stand-alone modules."""
    for case, (build, _) in CASES.items():
        skip = "align." if case == "sf2" else "skip.|merge." if case == "gci" else "-"
        for name, conv in build().named_modules():
            if isinstance(conv, nn.Conv2d) and not name.startswith(tuple(skip.split("|"))):
                yield case, "kernel", name
                if max(conv.kernel_size) > 1:
                    yield case, "dilation", name
    yield from ((case, "concat", "") for case in ("fca", "aspp", "align"))
    yield from (("align", function, "") for function in ("resize", "grid_sample"))


@pytest.mark.parametrize("case, mutation, name", list(module_mutations()), ids=lambda value: value or None)
@torch.no_grad()
def test_module_mutation_is_noticed(case, mutation, name):
    build, error = CASES[case]
    module = build()
    conv = dict(module.named_modules())[name]
    context = {
        "kernel": lambda: kernel_cropped(conv),
        "dilation": lambda: dilation_changed(conv),
        "concat": reversed_concat,
        "resize": lambda: flipped_align_corners("resize"),
        "grid_sample": lambda: flipped_align_corners("grid_sample"),
    }[mutation]
    with context():
        assert error(module) > 10 * TOLERANCE
    assert error(module) < TOLERANCE


@torch.no_grad()
def test_exchanged_gci_cues_are_noticed():
    build, _ = CASES["gci"]
    module = build()
    half = module.cues[0].out_channels // 2
    for tensor in (*module.cues[0].parameters(), *module.cues[1].parameters(), *module.cues[1].buffers()):
        if tensor.dim():
            tensor.copy_(torch.cat((tensor[half:], tensor[:half])))
    assert gci_error(module) > 10 * TOLERANCE


@pytest.mark.parametrize("position", range(6))
def test_pamr_dilation_is_noticed(position):
    data, dilations = fixture("modules"), [1, 2, 4, 8, 12, 24]
    dilations[position] += 1
    out = pamr(data["pamr.image"], data["pamr.masks"], dilations=tuple(dilations))
    assert (out - data["pamr.out_paper"]).abs().max() > 10 * TOLERANCE


def network_error(net, key, file):
    data, images = fixture(file), fixture(file)["image"][:1]
    out = net(images)
    masks = resize(out.masks, images.shape[-2:], align_corners=True)
    return max(
        relative_error(masks[:, :, ::4, ::4], data[f"{key}/masks_s4"][:1]),
        relative_error(out.scores, data[f"{key}/cls"][:1]),
    )


@pytest.mark.parametrize(
    "backbone, kind", [("resnet38", "wsfcn"), ("vgg16", "wsfcn"), ("vgg16", "1stage"), ("resnet50", "wsfcn")]
)
@torch.no_grad()
def test_backbone_mutations_are_noticed(backbone, kind):
    """Each dilation and each layer that a careless copy would dilate or stride, in the whole network."""
    net = published_network(backbone, kind)
    key, file = f"{backbone}/ae", "networks" if kind == "wsfcn" else "networks_1stage"
    assert network_error(net, key, file) < NETWORK_TOLERANCE
    dilated = convolutions(net.backbone, lambda name, conv: max(conv.dilation) > 1)
    if backbone == "resnet50":
        dilated = convolutions(net.backbone.layer4, lambda name, conv: name.endswith("conv2"))
    if backbone == "vgg16":
        dilated += [("fc6", net.backbone.fc6)]
    assert len(dilated) == {"resnet38": 7, "vgg16": 4, "resnet50": 3}[backbone]
    for name, conv in dilated:
        with dilation_changed(conv):
            assert network_error(net, key, file) > 2 * NETWORK_TOLERANCE, (
                f"{name}: another dilation went unnoticed"
            )


@torch.no_grad()
def test_ancestor_decoder_mutations_are_noticed():
    """The skip concat and the upsampling of the GCI decoder are only reached through a whole network."""
    net = published_network("resnet50", "1stage")
    key, file = "resnet50/ae", "networks_1stage"
    assert network_error(net, key, file) < NETWORK_TOLERANCE
    with flipped_align_corners("resize"):
        assert network_error(net, key, file) > 2 * NETWORK_TOLERANCE
    conv = net.fusion.merge[0]  # concat (skip, deep) instead of (deep, skip) meets the weights in this order:
    with replaced(conv, "weight", nn.Parameter(conv.weight.roll(-net.config.width, dims=1))):
        assert network_error(net, key, file) > 2 * NETWORK_TOLERANCE
