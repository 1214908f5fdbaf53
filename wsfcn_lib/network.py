"""The networks: WS-FCN (with 1-stage-wseg as its other corner) and the CAM baseline."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from wsfcn_lib.backbones import Tiny, build_backbone
from wsfcn_lib.config import NetConfig
from wsfcn_lib.losses import image_scores
from wsfcn_lib.modules import ASPP, FCA, SF2, Align, GCIDecoder, conv_norm_relu, stochastic_gate

CAM_BACKGROUND = 0.1


class NetOutput(NamedTuple):
    """What every network returns. K counts background, which comes first.

    logits: (B, K, h, w) class logits at stride 4 (the baseline: at the stride of `deep`), background constant 1.
    masks: (B, K, h, w) softmax of the logits (the baseline: (B, K, H, W) normalised CAMs).
    scores: (B, K-1) image scores; a sigmoid makes them probabilities.
    """

    logits: Tensor
    masks: Tensor
    scores: Tensor


def with_background(maps: Tensor, value: float) -> Tensor:
    """Prepend a constant background channel to (B, K-1, h, w)."""
    return torch.cat((maps.new_full((maps.shape[0], 1, *maps.shape[-2:]), value), maps), 1)


class _Network(nn.Module):
    config: NetConfig
    backbone: nn.Module

    def parameter_groups(self, lr: float, weight_decay: float, multipliers=None) -> list[dict]:
        """Split the trainable parameters as published: old weights, old biases, new weights, new biases.

        "Old" is the backbone. Learning rates are `lr` times the multipliers (default: those of the program and
        backbone; cells between the two programs use WS-FCN's); biases have no weight decay.
        """
        if multipliers is None:
            multipliers = self.backbone.lr_multipliers
            if self.config.is_ancestor and not isinstance(self.backbone, Tiny):
                multipliers = (*multipliers[:2], 10, 10 * multipliers[1])
        groups = [
            {"params": [], "lr": lr * m, "weight_decay": d}
            for m, d in zip(multipliers, (weight_decay, 0.0) * 2)
        ]
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                index = 2 * (not name.startswith("backbone.")) + name.endswith(".bias")
                groups[index]["params"].append(parameter)
        return groups


class WSFCN(_Network):
    """WS-FCN (paper, figure 2): backbone, context module, fusion of shallow and deep features, gate, head.

    `WSFCN(config)(images)` takes (B, 3, H, W) float32, ImageNet-normalised, and returns a `NetOutput`.
    """

    def __init__(self, config: NetConfig):
        super().__init__()
        if config.context == "none":
            raise ValueError(
                "WSFCN needs a context module: context is 'none', choose 'fca' or 'aspp', or build a BaselineCAM"
            )
        self.config = config
        width = config.width
        self.backbone = build_backbone(config.backbone, config.is_ancestor)
        low, deep = self.backbone.low_channels, self.backbone.deep_channels
        self.low_adapter = conv_norm_relu(low, width, 1) if low != width else nn.Identity()
        self.deep_adapter = nn.Identity()
        if config.deep_width and config.deep_width < deep:
            self.deep_adapter, deep = conv_norm_relu(deep, config.deep_width, 1), config.deep_width
        fca = (
            {"branches": config.fca_branches, "attention": config.channel_attention}
            if config.context == "fca"
            else {}
        )
        self.context = {"fca": FCA, "aspp": ASPP}[config.context](deep, width, config.dilations, **fca)
        self.fusion = SF2(width, config.align) if config.fusion == "sf2" else GCIDecoder(width)
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
        low, deep = self.low_adapter(low), self.context(self.deep_adapter(deep))
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
        for align in (m for m in self.fusion.modules() if isinstance(m, Align)):
            for conv in align.children():
                conv.reset_parameters()  # the published flow starts from PyTorch's small default


class BaselineCAM(_Network):
    """The CAM baseline: backbone and a linear classifier (Zhou et al. 2016), with the published normalisation."""

    def __init__(self, config: NetConfig):
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, config.is_ancestor)
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
    size = -(-crop // net.backbone.stride)
    found = []
    if isinstance(net, WSFCN):
        for kernel, dilation in zip(net.context.kernels, net.config.dilations):
            offsets = [dilation * tap for tap in range(1, kernel // 2 + 1) if dilation * tap >= size]
            if offsets:
                found.append((kernel, dilation, offsets))
    return found
