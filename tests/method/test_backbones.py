"""The backbones beyond parity: the fast depthwise convolution is the plain one, output and gradients."""

import pytest
import torch
from torch import nn

from wsfcn_lib.backbones import DepthwiseConv2d, MobileNetV2

SHAPES = [(1, 1, 1, 3), (1, 2, 2, 3), (1, 0, 1, 3), (1, 4, 2, 5), (2, 1, 1, 3)]


@pytest.mark.parametrize("stride, padding, dilation, kernel", SHAPES)
def test_output_and_gradients_are_those_of_the_plain_layer(stride, padding, dilation, kernel):
    torch.manual_seed(0)
    shape = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": 6,
        "bias": False,
    }
    plain, fast = nn.Conv2d(6, 6, **shape).double(), DepthwiseConv2d(6, 6, **shape).double()
    fast.load_state_dict(plain.state_dict())
    image = torch.randn(2, 6, 12, 11, dtype=torch.double)
    found = []
    for layer in (plain, fast):
        x = image.clone().requires_grad_()
        out = layer(x)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append((out, x.grad, layer.weight.grad))
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_a_frozen_layer_passes_the_gradient_on():
    layer = DepthwiseConv2d(4, 4, 3, padding=1, groups=4, bias=False).requires_grad_(False)
    x = torch.randn(1, 4, 5, 5, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.abs().sum() > 0 and layer.weight.grad is None


def test_bf16_is_used_under_autocast_and_the_gradient_comes_in_fp32():
    layer, x = DepthwiseConv2d(4, 4, 3, padding=1, groups=4, bias=False), torch.randn(1, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    exact = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
    exact.load_state_dict(layer.state_dict())
    exact(x).square().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(layer.weight.grad, exact.weight.grad, rtol=0.05, atol=0.5)


def test_the_backbone_uses_it_everywhere_and_keeps_its_names():
    layers = [m for m in MobileNetV2().modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(layers) == 17 and all(isinstance(layer, DepthwiseConv2d) for layer in layers)
