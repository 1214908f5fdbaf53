"""What a file of released weights is: read from its entries, with the protocol and the numbers that belong to it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from wsfcn_lib import weights
from wsfcn_lib.artefacts import ARTEFACTS, WeightsError
from wsfcn_lib.checkpoints import load_snapshot
from wsfcn_lib.config import NetConfig
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.network import build_network

# mIoU in percent on VOC 2012, by split; val_true_tags is the upper bound that papers call clean
PUBLISHED = {
    "wsfcn": {"val": 61.57, "val_crf": 63.23, "test": 62.30, "test_crf": 64.22},
    "1stage": {"val": 59.7, "val_crf": 62.7, "test": 62.7, "test_crf": 64.3, "val_true_tags": 63.4, "val_true_tags_crf": 65.3},
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
    state = {name.removeprefix("module."): tensor for name, tensor in weights.read_state(path).items()}
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
        raise WeightsError(f"{told}, and only VOC's {len(classes)} were released; load_published and save_snapshot convert it")
    net = build_network(found.config)
    weights.load_published(net, path)
    return (
        net.to(memory_format=torch.channels_last).eval(),
        classes,
        {"recipe": found.recipe, "canvas": found.canvas, "published": found.published},
    )
