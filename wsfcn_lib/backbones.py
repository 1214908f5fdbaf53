"""The backbones: networks that turn images (B, 3, H, W) into two maps of features.

`low` (B, low_channels, H/4, W/4) has the details, `deep` (B, deep_channels, H/stride, W/stride) the meaning.
Beside these numbers each backbone states its published learning-rate multipliers: old weights, old biases,
new weights, new biases.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu


def build_backbone(name: str, ancestor: bool = False) -> nn.Module:
    """Build a backbone by its name in `config.BACKBONES`; `ancestor` picks 1-stage-wseg's VGG stride."""
    builders = {
        "resnet38": ResNet38,
        "vgg16": lambda: VGG16(stride=8 if ancestor else 16),
        "resnet50": lambda: ResNet(50),
        "resnet101": lambda: ResNet(101),
        "mobilenet_v2": MobileNetV2,
        "tiny": Tiny,
    }
    return builders[name]()


class ResNet38(nn.Module):
    """WideResNet38 (model A1 of Wu et al.): 38 pre-activation layers, `deep` of 4096 channels at stride 8."""

    low_channels, deep_channels, stride = 256, 4096, 8
    lr_multipliers, ancestor_lr_multipliers = (1, 2, 20, 40), (1, 2, 10, 20)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.stage2 = self._stage(64, 128, 128, blocks=3, stride=2)
        self.stage3 = self._stage(128, 256, 256, blocks=3, stride=2)
        self.stage4 = self._stage(256, 512, 512, blocks=6, stride=2)
        self.stage5 = self._stage(512, 512, 1024, blocks=3, stride=1, dilation=2)
        self.stage6 = nn.Sequential(PreActivationBlock((1024, 512, 1024, 2048), (1, 3, 1), 1, (1, 4, 1), 0.3))
        self.stage7 = nn.Sequential(
            PreActivationBlock((2048, 1024, 2048, 4096), (1, 3, 1), 1, (1, 4, 1), 0.5)
        )
        self.norm = StoredNorm(4096)
        freeze(self.conv1, self.stage2, *stored_norms(self))

    @staticmethod
    def _stage(inputs, middle, outputs, blocks, stride, dilation=1):
        stage = nn.Sequential(PreActivationBlock((inputs, middle, outputs), (3, 3), stride, (1, dilation)))
        for _ in range(blocks - 1):
            stage.append(PreActivationBlock((outputs, middle, outputs), (3, 3), 1, (dilation, dilation)))
        return stage

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.stage3(self.stage2(self.conv1(x)))  # the raw sum: no norm, no ReLU
        deep = self.stage7(self.stage6(self.stage5(self.stage4(low))))
        return low, relu(self.norm(deep))


class VGG16(nn.Module):
    """VGG16 with fc6, fc7 as convolutions; `stride` is 16 in WS-FCN (conv4_1 strides), 8 in 1-stage-wseg."""

    low_channels, deep_channels = 256, 1024
    lr_multipliers, ancestor_lr_multipliers = (1, 2, 20, 40), (1, 2, 10, 20)

    def __init__(self, stride: int = 16):
        super().__init__()
        self.stride = stride
        inputs = 3
        for stage, (channels, convs) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
            dilation = 2 if stage == 5 else 1
            for i in range(1, convs + 1):
                step = stride // 8 if (stage, i) == (4, 1) else 1
                self.add_module(f"conv{stage}_{i}", nn.Conv2d(inputs, channels, 3, step, dilation, dilation))
                inputs = channels
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=1)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.dropout = nn.Dropout2d(0.5)
        freeze(self.conv1_1, self.conv1_2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for stage, convs in enumerate((2, 2, 3, 3, 3), start=1):
            for i in range(1, convs + 1):
                x = relu(getattr(self, f"conv{stage}_{i}")(x))
            if stage == 3:
                low = x
            if stage < 5:
                x = max_pool2d(x, 3, stride=2 if stage < 4 else 1, padding=1)
        return low, relu(self.fc7(self.dropout(relu(self.fc6(x)))))


class ResNet(nn.Module):
    """torchvision's ResNet-50 or -101 without classifier: `low` is layer1, `deep` is layer4 at stride 16."""

    low_channels, deep_channels, stride = 256, 2048, 16
    lr_multipliers, ancestor_lr_multipliers = (1, 1, 20, 10), (1, 1, 10, 10)

    def __init__(self, depth: int):
        super().__init__()
        from torchvision import models  # most of a second to import, which other backbones need not pay

        net = getattr(models, f"resnet{depth}")(weights=None, norm_layer=StoredNorm)
        first = net.layer4[0]  # it would go on to stride 32; no dilation makes up for it: as published
        first.conv2.stride = (1, 1)
        first.downsample[0].stride = (1, 1)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(name, getattr(net, name))
        freeze(self.conv1, *stored_norms(self))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return low, self.layer4(self.layer3(self.layer2(low)))


class MobileNetV2(nn.Module):
    """torchvision's MobileNetV2, held at stride 8 by dilation: a network that a laptop can train."""

    low_channels, deep_channels, stride = 24, 1280, 8
    lr_multipliers, ancestor_lr_multipliers = (1, 1, 20, 10), (1, 1, 10, 10)

    def __init__(self):
        super().__init__()
        from torchvision.models import mobilenet_v2  # see ResNet

        self.features = mobilenet_v2(weights=None, norm_layer=StoredNorm).features
        for index, layer in enumerate(self.features):
            for conv in layer.modules():
                if not isinstance(conv, nn.Conv2d) or conv.kernel_size != (3, 3):
                    continue
                if (
                    index >= 7
                ):  # layers 7 and 14 would go on to strides 16 and 32: what follows dilates instead
                    dilation = 1
                    if index > 7:
                        dilation = 2
                    if index > 14:
                        dilation = 4
                    conv.stride = (1, 1)
                    conv.dilation = conv.padding = (dilation, dilation)
                if conv.groups > 1:
                    conv.__class__ = DepthwiseConv2d  # the same layer, with a faster backward pass
        freeze(self.features[0], *stored_norms(self))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.features[:4](x)
        return low, self.features[4:](low)


class Tiny(nn.Module):
    """A small residual network for the built-in scenes, trained from nothing: its BatchNorms learn."""

    low_channels, deep_channels, stride = 32, 64, 8
    lr_multipliers = ancestor_lr_multipliers = (1, 1, 1, 1)

    def __init__(self):
        super().__init__()
        self.stem = _unit(3, 16, stride=2)
        self.low = nn.Sequential(_unit(16, 32, stride=2), _Residual(32))
        self.deep = nn.Sequential(_unit(32, 64, stride=2), _Residual(64), _Residual(64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low(self.stem(x))
        return low, self.deep(low)


class PreActivationBlock(nn.Module):
    """Residual block of BN-ReLU-conv units; a 1x1 shortcut where the shape changes."""

    def __init__(self, channels, kernels, stride=1, dilations=(1, 1), dropout=0.0):
        super().__init__()
        self.norms = nn.ModuleList()
        self.convs = nn.ModuleList()
        for inputs, outputs, kernel, dilation in zip(channels, channels[1:], kernels, dilations):
            step = 1 if self.convs else stride  # the first convolution strides
            padding = dilation * (kernel // 2)
            self.norms.append(StoredNorm(inputs))
            self.convs.append(nn.Conv2d(inputs, outputs, kernel, step, padding, dilation, bias=False))
        self.shortcut = None
        if stride != 1 or channels[0] != channels[-1]:
            self.shortcut = nn.Conv2d(channels[0], channels[-1], 1, stride, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.norms[0](x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.convs[0](y)
        for norm, conv in zip(self.norms[1:], self.convs[1:]):
            y = conv(self.dropout(relu(norm(y))))
        return shortcut + y


def _unit(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.units = nn.Sequential(_unit(channels, channels), _unit(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.units(x)


class StoredNorm(nn.BatchNorm2d):
    """BatchNorm that stays in evaluation mode: it uses its stored statistics and never updates them."""

    def train(self, mode: bool = True):
        """Stay in evaluation mode whatever the network does."""
        return super().train(False)


def stored_norms(net: nn.Module) -> list[nn.Module]:
    """All `StoredNorm` inside a network."""
    return [module for module in net.modules() if isinstance(module, StoredNorm)]


def freeze(*modules: nn.Module) -> None:
    """Take the parameters of `modules` out of training."""
    for module in modules:
        module.requires_grad_(False)


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with groups = channels and no bias; its backward pass is fast on processors (at stride 1).

    For the gradient of 960 channels at 20 x 20 (batch 16, two cores) PyTorch's own takes 27 to 45 ms, where
    the forward pass takes 2. Output and gradients are the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        reach = self.dilation[0] * (self.kernel_size[0] - 1)
        if x.device.type != "cpu" or self.stride != (1, 1) or self.padding[0] > reach:
            return super().forward(x)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
        return _DepthwiseConvolution.apply(x, weight, self.padding[0], self.dilation[0])


class _DepthwiseConvolution(torch.autograd.Function):
    """The gradient of the input is a depthwise convolution by the mirrored kernel, and computed as one."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return conv2d(x, weight, None, 1, padding, dilation, groups=len(weight))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        x, weight = ctx.saved_tensors
        channels = len(weight)
        to_input = to_weight = None
        if ctx.needs_input_grad[0]:
            padding = ctx.dilation * (weight.shape[-1] - 1) - ctx.padding
            mirrored = weight.flip(2, 3)
            to_input = conv2d(gradient, mirrored, None, 1, padding, ctx.dilation, groups=channels)
        if ctx.needs_input_grad[1]:  # in fp32: five times as fast as in bf16, and more exact
            to_weight = torch.nn.grad.conv2d_weight(
                x.float(), weight.shape, gradient.float(), 1, ctx.padding, ctx.dilation, channels
            ).to(weight.dtype)
        return to_input, to_weight, None, None
