"""The networks: WS-FCN (with 1-stage-wseg as its other corner) and the CAM baseline."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from wsfcn_lib.backbones import build_backbone
from wsfcn_lib.config import TIMM, NetConfig
from wsfcn_lib.losses import image_scores
from wsfcn_lib.modules import CONTEXTS, FUSIONS, Align, conv_norm_relu, stochastic_gate
from wsfcn_lib.timm_trunk import TimmTrunk

CAM_BACKGROUND = 0.1


class NetOutput(NamedTuple):
    """What every network returns. K counts background, which comes first.

    logits: (B, K, h, w) class logits at stride 4 (the baseline: at the stride of `deep`), background constant
        1.
    masks: (B, K, h, w) softmax of the logits (the baseline: (B, K, H, W) normalised CAMs).
    scores: (B, K-1) image scores; a sigmoid makes them probabilities.
    """

    logits: Tensor
    masks: Tensor
    scores: Tensor


def backbone_of(config: NetConfig) -> nn.Module:
    """The backbone that a configuration names: one of those in `backbones`, or a network of timm."""
    if config.backbone.startswith(TIMM):
        return TimmTrunk(config.backbone.removeprefix(TIMM), config.output_stride or 16)
    return build_backbone(config.backbone, config.is_ancestor)


def with_background(maps: Tensor, value: float) -> Tensor:
    """Prepend a constant background channel to (B, K-1, h, w)."""
    batch, _, height, width = maps.shape
    background = maps.new_full((batch, 1, height, width), value)
    return torch.cat((background, maps), 1)


class _Network(nn.Module):
    config: NetConfig
    backbone: nn.Module

    def parameter_groups(self, lr: float, weight_decay: float, multipliers=None) -> list[dict]:
        """Split the trainable parameters as published: old weights, old biases, new weights, new biases.

        "Old" is the backbone. Learning rates are `lr` times the multipliers (default: those of the program
        and backbone; without a `program` chosen, configurations between the two use WS-FCN's); biases have no
        weight decay.
        """
        if multipliers is None and self.config.is_ancestor:
            multipliers = self.backbone.ancestor_lr_multipliers
        elif multipliers is None:
            multipliers = self.backbone.lr_multipliers
        old_weights, old_biases, new_weights, new_biases = groups = [
            {"params": [], "lr": lr * multiplier, "weight_decay": weight_decay} for multiplier in multipliers
        ]
        old_biases["weight_decay"] = new_biases["weight_decay"] = 0.0
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.startswith("backbone."):
                group = old_biases if name.endswith(".bias") else old_weights
            else:
                group = new_biases if name.endswith(".bias") else new_weights
            group["params"].append(parameter)
        return groups


class WSFCN(_Network):
    """WS-FCN (paper, figure 2): backbone, context module, fusion of shallow and deep features, gate, head.

    `WSFCN(config)(images)` takes (B, 3, H, W) float32, ImageNet-normalised, and returns a `NetOutput`.
    """

    def __init__(self, config: NetConfig):
        super().__init__()
        if config.context == "none":
            raise ValueError(
                f"context is 'none': choose one of {', '.join(CONTEXTS)}, or build a BaselineCAM"
            )
        self.config = config
        width = config.width
        self.backbone = backbone_of(config)
        low, deep = self.backbone.low_channels, self.backbone.deep_channels
        self.low_adapter = nn.Identity()
        if low != width:
            self.low_adapter = conv_norm_relu(low, width, 1)
        self.deep_adapter = nn.Identity()
        if config.deep_width and config.deep_width < deep:
            self.deep_adapter = conv_norm_relu(deep, config.deep_width, 1)
            deep = config.deep_width
        self.context = CONTEXTS[config.context](deep, config)
        self.fusion = FUSIONS[config.fusion](config)
        self.head = nn.Sequential(
            *conv_norm_relu(width, width, 3),
            nn.Dropout(0.5),
            *conv_norm_relu(width, width, 3),
            nn.Dropout(0.1),
            nn.Conv2d(width, config.num_classes - 1, 1),
        )
        self._initialise()

    def forward(self, images: Tensor) -> NetOutput:
        low, deep = self.backbone(images)
        low = self.low_adapter(low)
        deep = self.context(self.deep_adapter(deep))
        shallow, deep = self.fusion(low, deep)
        features = stochastic_gate(deep, shallow, self.config.gate_rate, self.training)
        logits = with_background(self.head(features).float(), 1.0)
        scores = image_scores(logits, self.config.size_power, self.config.size_offset)
        return NetOutput(logits, logits.softmax(1), scores)

    def _initialise(self) -> None:
        for part in (self.low_adapter, self.deep_adapter, self.context, self.fusion, self.head):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)
                    if module.bias is not None and module is not self.head[-1]:
                        nn.init.zeros_(module.bias)
        for module in self.fusion.modules():
            if isinstance(module, Align):
                for conv in module.children():
                    conv.reset_parameters()  # the published flow starts from PyTorch's small default


class BaselineCAM(_Network):
    """The CAM baseline: backbone and linear classifier (Zhou et al. 2016), normalised as published."""

    def __init__(self, config: NetConfig):
        super().__init__()
        self.config = config
        self.backbone = backbone_of(config)
        self.dropout = nn.Dropout2d(0.5)
        self.classifier = nn.Conv2d(self.backbone.deep_channels, config.num_classes - 1, 1, bias=False)
        nn.init.xavier_uniform_(self.classifier.weight)

    def forward(self, images: Tensor) -> NetOutput:
        _, deep = self.backbone(images)
        scores = self.classifier(self.dropout(deep).mean((2, 3), keepdim=True)).flatten(1).float()
        maps = self.classifier(deep).float()
        cams = relu(interpolate(maps, images.shape[-2:], mode="bilinear", align_corners=True))
        cams = cams / (1e-5 + cams.amax((2, 3), keepdim=True))
        return NetOutput(with_background(maps, 1.0), with_background(cams, CAM_BACKGROUND), scores)


def build_network(config: NetConfig) -> nn.Module:
    """The network a configuration describes: `WSFCN`, or `BaselineCAM` where `context` is "none"."""
    return BaselineCAM(config) if config.context == "none" else WSFCN(config)


def unreachable_taps(net: nn.Module, crop: int) -> list[tuple[int, int, list[int]]]:
    """Context taps that see only padding at every place of the training map, so that they never learn.

    Returns:
        (kernel, dilation, offsets) of each branch that has such taps, offsets in pixels of the deep map.
    """
    if not isinstance(net, WSFCN):
        return []
    size = math.ceil(crop / net.backbone.stride)
    blind = []
    for kernel, dilation in zip(getattr(net.context, "kernels", ()), net.config.dilations):
        offsets = [dilation * tap for tap in range(1, kernel // 2 + 1) if dilation * tap >= size]
        if offsets:
            blind.append((kernel, dilation, offsets))
    return blind
