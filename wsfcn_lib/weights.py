"""Weights from files: this kit's snapshots, the networks others released, ImageNet weights of backbones.

`load_network` opens a file that holds a whole network. `load_published` fills a network that is there, from a
file of the published programs: `published_names` maps our names to theirs.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile, is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wsfcn_lib.backbones import VGG16, MobileNetV2, ResNet, ResNet38
from wsfcn_lib.checkpoints import facts_of, foreign_format, is_snapshot, load_snapshot
from wsfcn_lib.config import NetConfig
from wsfcn_lib.data.model_zoo import ARTEFACTS, SHIPPED, WeightsError, check_content, initial_weights
from wsfcn_lib.data.voc import voc_classes
from wsfcn_lib.network import BaselineCAM, build_network
from wsfcn_lib.protocol import stated
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.storage import machine_fault
from wsfcn_lib.timm_trunk import HUB, TimmTrunk

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
CANVAS = 1024  # pixels, of both published evaluations
# settings by which networks differ in the names or shapes of their weights
SHAPING = (
    "backbone", "context", "fusion", "width", "fca_branches", "channel_attention", "align", "flow", "deep_width",
)  # fmt: skip


def load_network(source: Path | str) -> tuple[nn.Module, list[dict], dict]:
    """Read a whole network: a snapshot of this kit (.safetensors) or released weights (.pth, or their name).

    "shipped" is the snapshot that comes with the kit.

    Returns the same as `load_snapshot`: the network in evaluation mode, its foreground classes, and facts.
    The facts of released weights are recipe ("wsfcn" or "1stage"), canvas (pixels) and published (a row of
    PUBLISHED; empty for a file of another name). A name is one of `data.model_zoo`.

    Raises:
        CheckpointError, WeightsError: missing, unreadable, the file of a backbone alone, or a network nobody
            published.
    """
    path = SHIPPED if source == "shipped" else Path(source)
    if path.suffix == ".safetensors":
        net, classes, facts = load_snapshot(path)
        return net.to(memory_format=torch.channels_last), classes, facts  # as the views come
    path = initial_weights(source)
    state = read_state(path)
    config = released_config(state, path)
    classes = [info.model_dump() for info in voc_classes()]
    if config.num_classes != 1 + len(classes):
        raise WeightsError(
            f"{path} knows {config.num_classes - 1} classes, whose names no file of this kind holds, "
            f"and only VOC's {len(classes)} were released; load_published and save_snapshot convert it"
        )
    net = build_network(config)
    _fill(net, state, str(path))
    published = {ARTEFACTS[name].file: row for name, row in PUBLISHED.items()}
    facts = {
        "recipe": "1stage" if config.is_ancestor else "wsfcn",
        "canvas": CANVAS,
        "published": published.get(path.name, {}),
    }
    return net.to(memory_format=torch.channels_last).eval(), classes, facts


# an entry that only this backbone, context or fusion module has in the published files
_MARKS = {
    "backbone": {
        "b2.conv_branch2a.weight": "resnet38",
        "conv1_1.weight": "vgg16",
        "layer3.22.conv1.weight": "resnet101",
        "layer3.5.conv1.weight": "resnet50",
    },
    "context": {"fca.conv1.weight": "fca", "aspp.conv1.weight": "aspp"},
    "fusion": {"sf2.conv1h.weight": "sf2", "shallow_mask.fc_cls.0.weight": "gci"},
}


def released_config(state: dict[str, Tensor], path: Path) -> NetConfig:
    """Which network a published state dict belongs to; `path` is named in errors.

    Settings without weights cannot be known: dilations, gate and size penalty keep the defaults, which are
    those of VOC.
    """
    switches = {}
    for switch, marks in _MARKS.items():
        matches = [value for entry, value in marks.items() if entry in state]
        switches[switch] = matches[0] if matches else None
    first, last = state.get("last_conv.0.weight"), state.get("last_conv.8.weight")
    if None in switches.values() or first is None or last is None or first.ndim != 4 or last.ndim != 4:
        known = ", ".join(f"{switch} {value or 'unknown'}" for switch, value in switches.items())
        raise WeightsError(
            f"{path} holds no whole published network ({known}); name a file of WS-FCN or 1-stage-wseg; "
            "ImageNet files belong to initial_weights in 02_train"
        )
    try:
        return NetConfig(**switches, width=first.shape[0], num_classes=last.shape[0] + 1)
    except ValueError as error:
        raise WeightsError(f"{path} holds a network of a size that nobody published: {error}") from error


def start_from(net: nn.Module, name: str, classes: Sequence[str]) -> list[str]:
    """Fill `net` with what a training starts from; returns lines on what a user should know of it.

    Args:
        net: a `WSFCN` or `BaselineCAM`.
        name: ImageNet weights of its backbone, see `data.model_zoo.initial_weights`; HUB for those that timm
            fetches; or a snapshot of this kit, "shipped" or a file, of which all but what its classes shape
            is taken, and that too for classes of the same name.
        classes: names of the foreground classes.

    Raises:
        WeightsError, TrunkError, CheckpointError: missing, unreadable, or of another network.
    """
    lines = []
    backbone = net.backbone
    if name == HUB:
        if not isinstance(backbone, TimmTrunk):
            raise WeightsError(
                f"initial_weights={HUB!r} is for timm: backbones, not for {net.config.backbone}"
            )
        backbone.load(HUB)
    else:
        path = initial_weights(name)
        check_content(path)
        if path.suffix == ".safetensors" and is_snapshot(path):
            return _continue_from(net, path, classes)
        load_published(net, path)
    if isinstance(backbone, TimmTrunk) and backbone.licence:
        lines.append(
            f"weights of {backbone.name}: licence {backbone.licence}; read its terms before you use them"
        )
    return lines


def inherited_protocol(name: str) -> dict:
    """What a training takes over from the protocol of the snapshot it starts from; {} for other weights."""
    if name in ("", HUB):
        return {}
    return stated(facts_of(initial_weights(name)))


def _continue_from(net: nn.Module, path: Path, classes: Sequence[str]) -> list[str]:
    """Fill `net` from a snapshot of this kit; see `start_from`."""
    source, known, _ = load_snapshot(path)
    theirs, ours = source.config, net.config
    state, own = source.state_dict(), net.state_dict()
    by_class = [name for name in own if name in state and own[name].shape != state[name].shape]
    last = "classifier" if isinstance(net, BaselineCAM) else f"head.{len(net.head) - 1}"
    foreign = [name for name in by_class if not name.startswith(last)]
    if own.keys() != state.keys() or foreign:
        differing = _differences(theirs, ours, SHAPING)
        raise WeightsError(
            f"{path.name} is the snapshot of another network ({differing}); give these settings its "
            "values, or start from other weights"
        )
    names = [entry["name"] for entry in known]
    shared = [name for name in classes if name in names]
    for entry in (f"{last}.weight", f"{last}.bias"):
        if entry not in own:
            continue
        rows = own[entry].clone()
        for name in shared:
            rows[classes.index(name)] = state[entry][names.index(name)]
        state[entry] = rows
    net.load_state_dict(state)
    new = [name for name in classes if name not in names]
    lines = [f"starting from {path.name}, which knows {', '.join(names)}"]
    if new:
        lines.append(f"the weights of the last layer begin anew for {', '.join(new)}")
    others = [setting for setting in type(ours).model_fields if setting not in (*SHAPING, "num_classes")]
    if differing := _differences(theirs, ours, others):
        lines.append(f"its settings were others: {differing}")
    return lines


def _differences(theirs: NetConfig, ours: NetConfig, settings: Sequence[str]) -> str:
    """In words, which of `settings` a snapshot and a new training have not in common."""
    differing = []
    for setting in settings:
        a, b = getattr(theirs, setting), getattr(ours, setting)
        if a != b:
            differing.append(f"{setting} {a} there, {b} here")
    return "; ".join(differing)


def load_published(net: nn.Module, source) -> list[str]:
    """Fill `net` from a file of WS-FCN's or 1-stage-wseg's weights, or ImageNet weights of its backbone.

    Args:
        net: a `WSFCN` or `BaselineCAM`.
        source: path of a .pth file (only tensors are read) or a state dict; a `module.` prefix is dropped.

    Returns:
        Names of `net`'s parameters that the file does not hold: the decoder's, when it is an ImageNet file.

    Raises:
        WeightsError: not a state dict, or of another network; names the first missing and unexpected entries.
    """
    where = "the state dict" if isinstance(source, dict) else str(source)
    state = read_state(source)
    if isinstance(net.backbone, TimmTrunk):
        net.backbone.load(state)
        return [name for name in net.state_dict() if not name.startswith("backbone.")]
    return _fill(net, state, where)


# entries that are no weights of ours: PAMR's kernels, copies of fc8
CONSTANTS = re.compile(r"_aff\..*kernel$|(cls_branch\.2|mask_branch\.0)\.weight$")
IMAGENET_CLASSIFIER = re.compile(r"(fc|fc8|classifier(\.\d+)?|linear\d*)\.(weight|bias)$")


def _fill(net: nn.Module, state: dict[str, Tensor], where: str) -> list[str]:
    state = {name: tensor for name, tensor in state.items() if not CONSTANTS.search(name)}
    if isinstance(net.backbone, VGG16) and "features.0.weight" in state:
        state = _from_torchvision_vgg(net.backbone, state)
    own = net.state_dict()
    names = published_names(net)
    backbone = {ours: theirs for ours, theirs in names.items() if ours.startswith("backbone.")}
    decoder = {theirs for ours, theirs in names.items() if ours not in backbone}
    is_imagenet = not decoder & state.keys()
    if is_imagenet:
        names = backbone
        state = {name: tensor for name, tensor in state.items() if not IMAGENET_CLASSIFIER.match(name)}
    missing = []
    for ours, theirs in names.items():
        # torchvision's VGG has no fc6 and fc7 of this shape
        optional = is_imagenet and isinstance(net.backbone, VGG16) and theirs.startswith("fc")
        if theirs not in state and not optional and not ours.endswith("num_batches_tracked"):
            missing.append(theirs)
    unexpected = sorted(set(state) - set(names.values()))
    if missing or unexpected or not names:
        raise WeightsError(_mismatch(where, net, missing, unexpected))
    loaded = {ours: state[theirs] for ours, theirs in names.items() if theirs in state}
    for ours, tensor in loaded.items():
        if tensor.shape != own[ours].shape:
            shapes = f"{tuple(tensor.shape)} in the file, {tuple(own[ours].shape)} in the network"
            raise WeightsError(
                f"{where}: {names[ours]} has another shape ({shapes}); "
                "build the network with its num_classes and width"
            )
    net.load_state_dict(loaded, strict=False)
    return [name for name in own if name not in loaded and not name.endswith("num_batches_tracked")]


def _from_torchvision_vgg(backbone: VGG16, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename torchvision's `features.N` to our convolutions, which come in the same order."""
    ours = [name for name, _ in backbone.named_children() if name.startswith("conv")]
    features = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    numbers = sorted({int(name.split(".")[1]) for name in features})
    renamed = {}
    for name, tensor in features.items():
        _, number, kind = name.split(".")
        renamed[f"{ours[numbers.index(int(number))]}.{kind}"] = tensor
    return renamed


def _mismatch(where: str, net: nn.Module, missing: list[str], unexpected: list[str]) -> str:
    config = net.config
    kind = f"WSFCN({config.context}, {config.fusion})"
    if isinstance(net, BaselineCAM):
        kind = "BaselineCAM"
    message = f"{where} is not of this network, {kind} on {config.backbone}"
    if missing:
        message += f"; missing {len(missing)}, first {missing[0]!r}"
    if unexpected:
        message += f"; unexpected {len(unexpected)}, first {unexpected[0]!r}"
    return message + ". Choose backbone, context and fusion to match the file."


def read_state(source) -> dict[str, Tensor]:
    """Tensors by name, without `module.`, of a .pth file or a state dict; WeightsError for anything else."""
    where = "the argument"
    state = source
    if not isinstance(source, dict):
        where = str(source)
        state = _read_file(resolve_path(source))
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        if isinstance(state, dict) and {"net", "optimiser"} <= state.keys():
            raise WeightsError(
                f"{where} is a resume state of this kit, with which 02_train goes on; name a snapshot beside it, "
                "such as last.safetensors"
            )
        kind = f"dict of {len(state)}" if isinstance(state, dict) else type(state).__name__
        raise WeightsError(
            f"{where} is not a state dict (a {kind} was found); name a file of tensors by name"
        )
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _read_file(path: Path) -> object:
    if not path.is_file():
        raise WeightsError(
            f"no weights file at {path}; data/README.md says where each file comes from and belongs"
        )
    try:
        if foreign := foreign_format(path):
            raise WeightsError(f"{path} is {foreign}")
        if path.suffix == ".safetensors":
            return load_file(path)
        if is_zipfile(path):
            with ZipFile(path) as archive:
                size = sum(part.file_size for part in archive.infolist())
            if size > path.stat().st_size:
                raise UnpicklingError("its content is compressed, and might fill the memory")
        return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # torch raises a dozen kinds here
        raise WeightsError(f"{path} is not a readable file of tensors: {_cause(path, error)}") from error


def _cause(path: Path, error: Exception) -> str:
    """Why a file cannot be read, and what helps: only one that may be torn is worth another download."""
    if told := machine_fault(error):
        return told
    is_pickle = is_zipfile(path) or path.open("rb").read(1) == b"\x80"
    if isinstance(error, UnpicklingError) and is_pickle:
        unknown = re.search(r"GLOBAL ([\w.]+)", str(error))
        if unknown and re.search(r"(^|\.)(nn|models|modules?)\.", unknown[1]):
            return (
                f"it holds a whole network ({unknown[1]}), and reading that may run code; another download gives "
                "the same. If you trust its source, take its tensors out in Python, where its program is installed: "
                "torch.save(torch.load(path, weights_only=False).state_dict(), new), with the key before .state_dict "
                "where it lies in a dictionary"
            )
        more = "it holds more than tensors"
        if unknown:
            more += f" ({unknown[1]})"
        elif "compressed" in str(error):
            more = str(error)
        return (
            f"{more}, and reading that may run code; another download gives the same. If you trust its source, "
            'take its tensors out in Python: torch.save(torch.load(path, weights_only=False)["state_dict"], new), '
            "with the key under which they lie"
        )
    return (
        f"{type(error).__name__}: it is torn or no weights file at all: compare its size with its source's, "
        "and download it again"
    )


_RESNET38 = {
    r"^conv1\.": "conv1a.",
    r"^norm\.": "bn7.",
    r"^stage(\d)\.0\.": r"b\1.",
    r"^stage(\d)\.(\d)\.": r"b\1_\2.",
    r"\.norms\.0\.": ".bn_branch2a.",
    r"\.norms\.(\d)\.": r".bn_branch2b\1.",
    r"\.convs\.0\.": ".conv_branch2a.",
    r"\.convs\.(\d)\.": r".conv_branch2b\1.",
    r"\.shortcut\.": ".conv_branch1.",
}
_CONTEXT = {
    r"pooled\.conv\.": "global_avg_pool.1.",
    r"pooled\.norm\.": "global_avg_pool.2.",
    r"^project\.": "conv1.",
    r"^norm\.": "bn1.",
}
_DECODER = {
    "fca": {
        r"^branches\.0\.": "fca1.",
        r"^branches\.1\.": "fca2.",
        r"^branches\.2\.": "fca3.",
        r"^branches\.3\.": "fca4.",
        r"tall_wide\.0\.": "conv1_1.",
        r"tall_wide\.1\.": "conv1_2.",
        r"wide_tall\.0\.": "conv2_1.",
        r"wide_tall\.1\.": "conv2_2.",
        r"unused_norm\.": "bn.",
        r"^channel_attention\.mlp\.": "ca.sharedMLP.",
        r"^spatial_attention\.": "sa.",
        **_CONTEXT,
        r"^": "fca.",
    },
    "aspp": {
        r"^branches\.0\.": "aspp1.",
        r"^branches\.1\.": "aspp2.",
        r"^branches\.2\.": "aspp3.",
        r"^branches\.3\.": "aspp4.",
        r"^(aspp\d)\.0\.": r"\1.atrous_conv.",
        r"^(aspp\d)\.1\.": r"\1.bn.",
        **_CONTEXT,
        r"^": "aspp.",
    },
    "sf2": {
        r"^align\.reduce_deep\.": "align1.down_h.",
        r"^align\.reduce_low\.": "align1.down_l.",
        r"^align\.flow\.": "align1.flow_make.",
        r"^low(\d)\.0\.": r"sf2.conv\1h.",
        r"^low(\d)\.1\.": r"sf2.bn\1h.",
        r"^deep(\d)\.0\.": r"sf2.conv\1v.",
        r"^deep(\d)\.1\.": r"sf2.bn\1v.",
    },
    "gci": {
        r"^skip\.": "fc8_skip.",
        r"^merge\.": "fc8_x.",
        r"^cues\.": "shallow_mask.fc_deep.",
        r"^low\.": "shallow_mask.fc_skip.",
        r"^out\.": "shallow_mask.fc_cls.",
    },
}


def published_names(net: nn.Module) -> dict[str, str]:
    """Map the state-dict names of `net` to the names in the published checkpoints.

    Backbones map to their own publication (torchvision's names for the ResNets and MobileNetV2). What was
    never published is left out: `tiny`, the adapters around other backbones, context and fusion modules of
    your own.
    """
    names = {}
    for name in net.state_dict():
        part, rest = name.split(".", 1)
        rules = None
        if part == "backbone" and isinstance(net.backbone, ResNet38):
            rules = _RESNET38
        elif part == "backbone" and isinstance(net.backbone, VGG16 | ResNet | MobileNetV2):
            rules = {}  # the names are theirs
        elif part == "classifier":
            rules = {r"^": "fc8."}
        elif part == "head":
            rules = {r"^": "last_conv."}
        elif part in ("context", "fusion"):
            rules = _DECODER.get(getattr(net.config, part))
        if rules is not None:
            for pattern, replacement in rules.items():
                rest = re.sub(pattern, replacement, rest)
            names[name] = rest
    return names
