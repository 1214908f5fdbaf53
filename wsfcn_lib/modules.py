"""The modules between backbone and head: context, fusion of shallow and deep features, stochastic gate.

FCA and SF2 are WS-FCN's (paper, sections III-B and III-C), ASPP and GCI those of its ancestor 1-stage-wseg.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, grid_sample, interpolate, relu

from wsfcn_lib.backbones import StoredNorm

# What each switch of the configuration builds.
# A context module maps deep (B, inputs, h, w) -> (B, width, h, w).
# A fusion module maps low (B, width, H/4, W/4), deep (B, width, h, w) -> shallow, deep, both as large as low.
CONTEXTS = {
    "fca": lambda inputs, config: FCA(
        inputs, config.width, config.dilations, config.fca_branches, config.channel_attention
    ),
    "aspp": lambda inputs, config: ASPP(inputs, config.width, config.dilations),
}
FUSIONS = {
    "sf2": lambda config: SF2(config.width, config.align, config.flow),
    "gci": lambda config: GCIDecoder(config.width),
}


class FCA(nn.Module):
    """Flexible context aggregation (section III-B): deep (B, C, h, w) -> (B, width, h, w).

    Kernels 1, 3, 5, 7 with `dilations`; one channel attention is shared by the four branches. For ablations:
    only the first `branches` of them, or no channel attention.
    """

    kernels = (1, 3, 5, 7)

    def __init__(self, inputs: int, width: int, dilations, branches: int = 4, attention: bool = True):
        super().__init__()
        self.kernels = self.kernels[:branches]
        self.branches = nn.ModuleList(
            GlobalConvolution(inputs, width, kernel, dilation)
            for kernel, dilation in zip(self.kernels, dilations)
        )
        self.channel_attention = ChannelAttention(width) if attention else nn.Identity()
        self.pooled = PooledBranch(inputs, width)
        self.project = nn.Conv2d((branches + 1) * width, width, 1, bias=False)
        self.norm = StoredNorm(width)
        self.spatial_attention = SpatialAttention()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.channel_attention(branch(x)) for branch in self.branches]
        x = self.norm(self.project(torch.cat((*branches, self.pooled(x)), 1)))
        return self.dropout(self.spatial_attention(x))


class GlobalConvolution(nn.Module):
    """One branch of FCA: a large dilated kernel as the sum of two paths, k x 1 then 1 x k and vice versa."""

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int):
        super().__init__()
        tall, wide = (kernel, 1), (1, kernel)
        self.tall_wide = nn.Sequential(
            DilatedConv2d(inputs, width, tall, dilation), DilatedConv2d(width, width, wide, dilation)
        )
        self.wide_tall = nn.Sequential(
            DilatedConv2d(inputs, width, wide, dilation), DilatedConv2d(width, width, tall, dilation)
        )
        self.unused_norm = StoredNorm(
            width
        )  # published checkpoints hold it, their forward pass never calls it

    def forward(self, x: Tensor) -> Tensor:
        return self.tall_wide(x) + self.wide_tall(x)


class ChannelAttention(nn.Module):
    """Weight each channel by sigmoid(MLP(average) + MLP(maximum)) of its map."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False), nn.ReLU(), nn.Conv2d(width, width, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        average, maximum = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return x * torch.sigmoid(self.mlp(average) + self.mlp(maximum))


class SpatialAttention(nn.Module):
    """Add to each place its own features, weighted by sigmoid(conv([channel mean, channel maximum]))."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        average, maximum = x.mean(1, keepdim=True), x.amax(1, keepdim=True)
        return x + x * torch.sigmoid(self.conv(torch.cat((average, maximum), 1)))


class PooledBranch(nn.Module):
    """Image-level context: global average pool, 1x1 conv, norm, ReLU, broadcast back over the map."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm = StoredNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.norm(self.conv(x.mean((2, 3), keepdim=True)))).expand(-1, -1, *x.shape[-2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling, 1-stage-wseg's context: deep (B, C, h, w) -> (B, width, h, w)."""

    kernels = (1, 3, 3, 3)

    def __init__(self, inputs: int, width: int, dilations):
        super().__init__()
        self.branches = nn.ModuleList(
            conv_norm_relu(inputs, width, kernel, norm=StoredNorm, dilation=dilation)
            for kernel, dilation in zip(self.kernels, dilations)
        )
        self.pooled = PooledBranch(inputs, width)
        self.project = nn.Conv2d(5 * width, width, 1, bias=False)
        self.norm = StoredNorm(width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((*(branch(x) for branch in self.branches), self.pooled(x)), 1)
        return self.dropout(relu(self.norm(self.project(x))))


class SF2(nn.Module):
    """Semantically consistent feature fusion (section III-C).

    low, deep -> (shallow, deep), both (B, width, H/4, W/4).
    For ablations: without `align` the deep features are only enlarged, which is what a flow of zero would do,
    so that a flow that is "held" there is the same. `flow` is else "free", as published, or "centred".
    """

    def __init__(self, width: int, align: bool = True, flow: str = "free"):
        super().__init__()
        self.align = Align(width, centred=flow == "centred") if align and flow != "held" else None
        for number in range(1, 5):
            self.add_module(f"low{number}", conv_norm_relu(width, width, 3, bias=True))
        for number in range(1, 5):
            self.add_module(f"deep{number}", conv_norm_relu(width, width, 3, bias=True))

    def fuse(self, low: Tensor, deep: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange what both streams agree on: their elementwise product feeds each of them."""
        low, deep = self.low1(low), self.deep1(deep)
        shared = self.low2(low) * self.deep2(deep)
        return self.low4(self.low3(shared) + low), self.deep4(self.deep3(shared) + deep)

    def forward(self, low: Tensor, deep: Tensor) -> tuple[Tensor, Tensor]:
        if self.align:
            deep = self.align(low, deep)
        else:
            deep = resize(deep, low.shape[-2:], align_corners=True)
        return self.fuse(low, deep)


class Align(nn.Module):
    """Warp the deep features onto the shallow grid by a learnt flow (section III-C).

    No loss holds the flow, so that it may move all masks of an image to one side; a `centred` one cannot, as
    its mean over the map is taken off.
    """

    def __init__(self, width: int, centred: bool = False):
        super().__init__()
        self.centred = centred
        self.reduce_deep = nn.Conv2d(width, width // 2, 1, bias=False)
        self.reduce_low = nn.Conv2d(width, width // 2, 1, bias=False)
        self.flow = nn.Conv2d(width, 2, 3, padding=1, bias=False)  # channel 0 moves along x

    def forward(self, low: Tensor, deep: Tensor) -> Tensor:
        height, width = low.shape[-2:]
        upsampled = resize(self.reduce_deep(deep), (height, width), align_corners=False)
        flow = self.flow(torch.cat((upsampled, self.reduce_low(low)), 1)).float()
        if self.centred:
            flow = flow - flow.mean((2, 3), keepdim=True)
        y = torch.linspace(-1, 1, height, device=low.device)
        x = torch.linspace(-1, 1, width, device=low.device)
        regular = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (height, width, 2), last axis (x, y)
        grid = regular + flow.permute(0, 2, 3, 1) / flow.new_tensor((width, height))
        # in fp32: bf16 would round the grid to a quarter of a pixel
        warped = grid_sample(deep.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        return warped.to(deep.dtype)


class GCIDecoder(nn.Module):
    """1-stage-wseg's decoder with global cue injection.

    low, deep -> (shallow, deep), both (B, width, H/4, W/4).
    """

    def __init__(self, width: int):
        super().__init__()
        skip = 3 * width // 16
        self.skip = conv_norm_relu(width, skip, 1)
        self.merge = conv_norm_relu(width + skip, width, 3)
        self.cues = conv_norm_relu(width, 2 * width, 1)
        self.low = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width, affine=False))
        self.out = conv_norm_relu(width, width, 1)

    def forward(self, low: Tensor, deep: Tensor) -> tuple[Tensor, Tensor]:
        deep = resize(deep, low.shape[-2:], align_corners=True)
        deep = self.merge(torch.cat((deep, self.skip(low)), 1))
        return self.inject(low, deep), deep

    def inject(self, low: Tensor, deep: Tensor) -> Tensor:
        """Global cue injection: scale and shift the shallow features by maxima of the whole deep map."""
        gamma, beta = self.cues(deep).amax((2, 3), keepdim=True).chunk(2, 1)
        return self.out(relu(self.low(low) * (gamma + 1) + beta))


def stochastic_gate(deep: Tensor, shallow: Tensor, rate: float, training: bool) -> Tensor:
    """Mix deep and shallow features by the stochastic gate of 1-stage-wseg; `rate` is its psi.

    In training each value is drawn, and its expectation is `deep`.
    """
    if not training:
        return (1 - rate) * deep + rate * shallow
    keep = torch.rand(deep.shape, device=deep.device) >= rate
    return torch.where(keep, (deep - rate * shallow) / (1 - rate), shallow)


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int, bias: bool = False, norm=nn.BatchNorm2d, dilation: int = 1
):
    """Convolution that keeps the size, BatchNorm, ReLU."""
    conv = DilatedConv2d(inputs, outputs, (kernel, kernel), dilation, bias)
    return nn.Sequential(conv, norm(outputs), nn.ReLU(inplace=True))


class DilatedConv2d(nn.Conv2d):
    """A convolution of stride 1 that keeps the size and skips the taps that lie wholly outside the map.

    They see only padding, so output and gradients are `nn.Conv2d`'s, in less time: at 41 x 41 kernel 7 with
    dilation 36 keeps 3 of 7 taps, at half that size only the middle one. `kernel` is (height, width), both
    odd.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], dilation: int = 1, bias: bool = False
    ):
        padding = dilation * (kernel[0] // 2), dilation * (kernel[1] // 2)
        super().__init__(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=bias)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = []
        for axis, (kernel, dilation) in enumerate(zip(self.kernel_size, self.dilation)):
            # taps on either side of the middle one that reach into the map
            live = min(kernel // 2, (x.shape[2 + axis] - 1) // dilation)
            weight = weight.narrow(2 + axis, kernel // 2 - live, 2 * live + 1)
            padding.append(live * dilation)
        return conv2d(x, weight, bias, 1, padding, self.dilation)


def resize(x: Tensor, size, align_corners: bool) -> Tensor:
    """Bilinear resize to (height, width)."""
    if x.shape[-2:] == tuple(size):
        return x
    return interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)
