"""Published checkpoints: their names for our parameters, and the door through which their files come in."""

import re
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor, nn

from wsfcn_lib.backbones import VGG16, MobileNetV2, ResNet, ResNet38
from wsfcn_lib.checkpoints import load_snapshot
from wsfcn_lib.config import NetConfig
from wsfcn_lib.data.model_zoo import ARTEFACTS, WeightsError
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.network import BaselineCAM, build_network

CONSTANTS = re.compile(
    r"_aff\..*kernel$|(cls_branch\.2|mask_branch\.0)\.weight$"
)  # PAMR's kernels; copies of fc8
IMAGENET_CLASSIFIER = re.compile(r"(fc|fc8|classifier(\.\d+)?|linear\d*)\.(weight|bias)$")
_RESNET38 = [
    (r"^conv1\.", "conv1a."),
    (r"^norm\.", "bn7."),
    (r"^stage(\d)\.0\.", r"b\1."),
    (r"^stage(\d)\.(\d)\.", r"b\1_\2."),
    (r"\.norms\.0\.", ".bn_branch2a."),
    (r"\.norms\.(\d)\.", r".bn_branch2b\1."),
    (r"\.convs\.0\.", ".conv_branch2a."),
    (r"\.convs\.(\d)\.", r".conv_branch2b\1."),
    (r"\.shortcut\.", ".conv_branch1."),
]
_CONTEXT = [
    (r"pooled\.conv\.", "global_avg_pool.1."),
    (r"pooled\.norm\.", "global_avg_pool.2."),
    (r"^project\.", "conv1."),
    (r"^norm\.", "bn1."),
]
_DECODER = {
    "fca": [
        (r"^branches\.0\.", "fca1."),
        (r"^branches\.1\.", "fca2."),
        (r"^branches\.2\.", "fca3."),
        (r"^branches\.3\.", "fca4."),
        (r"tall_wide\.0\.", "conv1_1."),
        (r"tall_wide\.1\.", "conv1_2."),
        (r"wide_tall\.0\.", "conv2_1."),
        (r"wide_tall\.1\.", "conv2_2."),
        (r"unused_norm\.", "bn."),
        (r"^channel_attention\.mlp\.", "ca.sharedMLP."),
        (r"^spatial_attention\.", "sa."),
        *_CONTEXT,
        (r"^", "fca."),
    ],
    "aspp": [
        (r"^branches\.0\.", "aspp1."),
        (r"^branches\.1\.", "aspp2."),
        (r"^branches\.2\.", "aspp3."),
        (r"^branches\.3\.", "aspp4."),
        (r"^(aspp\d)\.0\.", r"\1.atrous_conv."),
        (r"^(aspp\d)\.1\.", r"\1.bn."),
        *_CONTEXT,
        (r"^", "aspp."),
    ],
    "sf2": [
        (r"^align\.reduce_deep\.", "align1.down_h."),
        (r"^align\.reduce_low\.", "align1.down_l."),
        (r"^align\.flow\.", "align1.flow_make."),
        (r"^low(\d)\.0\.", r"sf2.conv\1h."),
        (r"^low(\d)\.1\.", r"sf2.bn\1h."),
        (r"^deep(\d)\.0\.", r"sf2.conv\1v."),
        (r"^deep(\d)\.1\.", r"sf2.bn\1v."),
    ],
    "gci": [
        (r"^skip\.", "fc8_skip."),
        (r"^merge\.", "fc8_x."),
        (r"^cues\.", "shallow_mask.fc_deep."),
        (r"^low\.", "shallow_mask.fc_skip."),
        (r"^out\.", "shallow_mask.fc_cls."),
    ],
}


def published_names(net: nn.Module) -> dict[str, str]:
    """Map the state-dict names of `net` to the names in the published checkpoints.

    Backbones map to their own publication (torchvision's names for the ResNets and MobileNetV2). `tiny`, and the
    adapters around other backbones, were never published and are left out.
    """
    return {name: published for name in net.state_dict() if (published := _published(net, name))}


def _published(net: nn.Module, name: str) -> str | None:
    part, rest = name.split(".", 1)
    if part == "backbone":
        if isinstance(net.backbone, ResNet38):
            return _rename(rest, _RESNET38)
        return rest if isinstance(net.backbone, VGG16 | ResNet | MobileNetV2) else None
    if isinstance(net, BaselineCAM):
        return f"fc8.{rest}"
    rules = {"context": net.config.context, "fusion": net.config.fusion}
    if part in rules:
        return _rename(rest, _DECODER[rules[part]])
    return f"last_conv.{rest}" if part == "head" else None


def _rename(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def load_published(net: nn.Module, source) -> list[str]:
    """Fill `net` from a published file: WS-FCN's or 1-stage-wseg's weights, or ImageNet weights of its backbone.

    Args:
        net: a `WSFCN` or `BaselineCAM`.
        source: path of a .pth file (only tensors are read) or a state dict; a `module.` prefix is dropped.

    Returns:
        Names of `net`'s parameters that the file does not hold: the decoder's, when it is an ImageNet file.

    Raises:
        WeightsError: not a state dict, or of another network; names the first missing and unexpected entries.
    """
    where = "the state dict" if isinstance(source, dict) else str(source)
    state = {k.removeprefix("module."): v for k, v in read_state(source).items()}
    state = {k: v for k, v in state.items() if not CONSTANTS.search(k)}
    if isinstance(net.backbone, VGG16) and "features.0.weight" in state:
        state = _from_torchvision_vgg(net.backbone, state)
    names, own = published_names(net), net.state_dict()
    backbone = {ours: theirs for ours, theirs in names.items() if ours.startswith("backbone.")}
    if not set(state) & {theirs for ours, theirs in names.items() if ours not in backbone}:
        names = backbone  # an ImageNet file: no entry of a decoder
        state = {k: v for k, v in state.items() if not IMAGENET_CLASSIFIER.match(k)}
    required = [theirs for ours, theirs in names.items() if not ours.endswith("num_batches_tracked")]
    missing = [name for name in required if name not in state]
    if isinstance(net.backbone, VGG16) and names is backbone:
        missing = [
            name for name in missing if not name.startswith("fc")
        ]  # torchvision's VGG has no such layers
    unexpected = sorted(set(state) - set(names.values()))
    if missing or unexpected or not names:
        raise WeightsError(_mismatch(where, net, missing, unexpected))
    for ours, theirs in names.items():
        if theirs in state and state[theirs].shape != own[ours].shape:
            shapes = f"{tuple(state[theirs].shape)} in the file, {tuple(own[ours].shape)} in the network"
            raise WeightsError(
                f"{where}: {theirs} has another shape ({shapes}); build the network with its num_classes and width"
            )
    net.load_state_dict(
        {ours: state[theirs] for ours, theirs in names.items() if theirs in state}, strict=False
    )
    return [name for name in own if names.get(name) not in state and not name.endswith("num_batches_tracked")]


def read_state(source) -> dict[str, Tensor]:
    """The tensors of a .pth file, or of a state dict as it is; WeightsError where there is nothing else to it."""
    if isinstance(source, dict):
        state = source
    else:
        path = Path(source)
        if not path.is_file():
            raise WeightsError(
                f"no weights file at {path}; data/README.md says where each file comes from and belongs"
            )
        try:
            if (
                is_zipfile(path)
                and sum(part.file_size for part in ZipFile(path).infolist()) > path.stat().st_size
            ):
                raise ValueError("its content is compressed, and might fill the memory")
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (
            Exception
        ) as error:  # torch raises a dozen kinds here; every one of them means the same to the user
            told = str(error).splitlines()[0] if isinstance(error, ValueError) else type(error).__name__
            raise WeightsError(
                f"{path} is not a readable .pth of tensors ({told}); download it again"
            ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        kind = f"dict of {len(state)}" if isinstance(state, dict) else type(state).__name__
        raise WeightsError(
            f"{source if not isinstance(source, dict) else 'the argument'} is not a state dict (a {kind} was found)"
        )
    return state


def _from_torchvision_vgg(backbone: VGG16, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename torchvision's `features.N` to our convolutions, which come in the same order."""
    ours = [name for name, module in backbone.named_children() if name.startswith("conv")]
    numbers = sorted({int(k.split(".")[1]) for k in state if k.startswith("features.")})
    renamed = {f"features.{n}.": f"{name}." for n, name in zip(numbers, ours)}
    features = {k: v for k, v in state.items() if k.startswith("features.")}
    return {re.sub(r"^features\.\d+\.", lambda m: renamed[m.group()], k): v for k, v in features.items()}


def _mismatch(where: str, net: nn.Module, missing: list[str], unexpected: list[str]) -> str:
    c = net.config
    kind = "BaselineCAM" if isinstance(net, BaselineCAM) else f"WSFCN({c.context}, {c.fusion})"
    parts = [f"{where} is not of this network, {kind} on {c.backbone}"]
    for kind, names in (("missing", missing), ("unexpected", unexpected)):
        parts += [f"{kind} {len(names)}, first {names[0]!r}"] if names else []
    return "; ".join(parts) + ". Choose backbone, context and fusion to match the file."


# mIoU in percent on VOC 2012, by split; val_true_tags is the upper bound that papers call clean
PUBLISHED = {
    "wsfcn": {"val": 61.57, "val_crf": 63.23, "test": 62.30, "test_crf": 64.22},
    "1stage": {
        "val": 59.7,
        "val_crf": 62.7,
        "test": 62.7,
        "test_crf": 64.3,
        "val_true_tags": 63.4,
        "val_true_tags_crf": 65.3,
    },
}
_CONTEXTS = {"fca.conv1.weight": "fca", "aspp.conv1.weight": "aspp"}
_FUSIONS = {"sf2.conv1h.weight": "sf2", "shallow_mask.fc_cls.0.weight": "gci"}
_BACKBONES = {
    "b2.conv_branch2a.weight": "resnet38",
    "conv1_1.weight": "vgg16",
    "layer3.22.conv1.weight": "resnet101",
    "layer3.5.conv1.weight": "resnet50",
}


@dataclass(frozen=True)
class Released:
    """A released network: how to build it, how its authors evaluated it, and what they published for this very file."""

    config: NetConfig
    recipe: str  # "wsfcn" or "1stage"
    canvas: int  # pixels
    published: dict[str, float]  # a row of PUBLISHED; empty for a file of another name


def released(path: Path | str) -> Released:
    """Tell from a .pth file of a whole network which network it is; `load_published` then fills it.

    Settings without weights cannot be told: dilations, gate and size penalty keep the defaults, which are those of VOC.

    Raises:
        WeightsError: unreadable, or the file of a backbone alone, or of a network that nobody published.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in read_state(path).items()}
    found = {}
    for part, marks in {"backbone": _BACKBONES, "context": _CONTEXTS, "fusion": _FUSIONS}.items():
        found[part] = next((value for entry, value in marks.items() if entry in state), None)
    head = [state.get(f"last_conv.{layer}.weight", Tensor()) for layer in (0, 8)]
    if None in found.values() or any(weight.ndim != 4 for weight in head):
        told = ", ".join(f"{part} {value or 'unknown'}" for part, value in found.items())
        advice = "name a file of WS-FCN or 1-stage-wseg; ImageNet files belong to initial_weights in 02_train"
        raise WeightsError(f"{path} holds no whole published network ({told}); {advice}")
    try:
        config = NetConfig(**found, width=head[0].shape[0], num_classes=head[1].shape[0] + 1)
    except ValueError as error:
        raise WeightsError(f"{path} holds a network of a size that nobody published: {error}") from error
    names = {ARTEFACTS[key].file: rows for key, rows in PUBLISHED.items()}
    return Released(config, "1stage" if config.is_ancestor else "wsfcn", 1024, names.get(Path(path).name, {}))


def load_network(path: Path | str) -> tuple[nn.Module, list[dict], dict]:
    """Read the file of a whole network: a snapshot of this kit (.safetensors), or released weights (any other ending).

    Returns the same as `load_snapshot`: the network in evaluation mode, its foreground classes, and facts. The facts of
    released weights are recipe, canvas and published, see `Released`.
    """
    if Path(path).suffix == ".safetensors":
        net, *rest = load_snapshot(path)
        return net.to(memory_format=torch.channels_last), *rest  # as the views come
    found, classes = released(path), [info.model_dump() for info in voc_classes()]
    if found.config.num_classes != 1 + len(classes):
        told = f"{path} knows {found.config.num_classes - 1} classes, whose names no file of this kind tells"
        raise WeightsError(
            f"{told}, and only VOC's {len(classes)} were released; load_published and save_snapshot convert it"
        )
    net = build_network(found.config)
    load_published(net, path)
    return (
        net.to(memory_format=torch.channels_last).eval(),
        classes,
        {"recipe": found.recipe, "canvas": found.canvas, "published": found.published},
    )
