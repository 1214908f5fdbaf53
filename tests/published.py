"""What the published programs computed, and the weights they computed it with.

Fixtures hold inputs and outputs only. Weights are drawn from the CRC-32 of each published name, so
any network that maps its names to the published ones can rebuild them: a wrong name shows as a wrong number.
"""

import json
import zlib
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from wsfcn_lib import WSFCN, BaselineCAM, NetConfig
from wsfcn_lib.modules import ASPP, FCA, SF2, Align, GCIDecoder
from wsfcn_lib.weights import published_names

FIXTURES = Path(__file__).parent / "fixtures"
BACKBONES = ("resnet38", "vgg16", "resnet50", "resnet101")


@cache
def fixture(name):
    """Arrays of one fixture file as tensors, by name."""
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@cache
def published_state(file):
    """Names, shapes, parameter groups and frozen layers of the published networks."""
    return json.loads((FIXTURES / f"{file}.json").read_text())


def drawn(name, shape, prefix=""):
    """The fixture value of the tensor with this published name."""
    source = "fc8.weight" if name in ("cls_branch.2.weight", "mask_branch.0.weight") else name
    rng = np.random.default_rng(zlib.crc32((prefix + source).encode()))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) >= 2:
        value = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        value = rng.uniform(0.5, 1.5, shape)
    else:
        value = rng.standard_normal(shape) * 0.1
    return torch.from_numpy(value * 12.0 if name == "last_conv.8.weight" else value).float()


def published_network(backbone, kind="wsfcn"):
    """A network in evaluation mode, filled with the fixture weights; `kind` is wsfcn, 1stage or cam."""
    switches = {"context": "aspp", "fusion": "gci"} if kind == "1stage" else {}
    with torch.device("meta"):  # no weights are drawn that the published ones would replace
        net = (BaselineCAM if kind == "cam" else WSFCN)(NetConfig(backbone=backbone, **switches))
    names, own = published_names(net), net.state_dict()
    state = dict(backbone_state(backbone))
    for ours in own.keys() - state.keys():
        state[ours] = drawn(names[ours], tuple(own[ours].shape))
    net.load_state_dict(state, assign=True)
    return net.eval()


@lru_cache(maxsize=1)  # the three networks on one backbone share its tensors: leave them as they are
def backbone_state(backbone):
    """The fixture weights of a backbone, by our names."""
    with torch.device("meta"):
        net = BaselineCAM(NetConfig(backbone=backbone))
    names = published_names(net)
    own = {name: tensor for name, tensor in net.state_dict().items() if name.startswith("backbone.")}
    return {name: drawn(names[name], tuple(tensor.shape)) for name, tensor in own.items()}


def fill_module(module, names, prefix):
    """Fill a stand-alone module; `names` maps its parameters to published ones, `prefix` seeds them."""
    own = module.state_dict()
    module.load_state_dict({ours: drawn(names[ours], tuple(own[ours].shape), prefix) for ours in own})
    return module.eval()


def module_names(net, part, published_prefix):
    """{name inside net.<part>: published name without its prefix}, taken from the network's own mapping."""
    chosen = {k: v for k, v in published_names(net).items() if k.startswith(part + ".")}
    return {k[len(part) + 1 :]: v.removeprefix(published_prefix) for k, v in chosen.items()}


def relative_error(ours, theirs):
    """Largest difference, relative to the largest published value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


with torch.device("meta"):  # only their names are asked for
    WSFCN_NAMES = WSFCN(NetConfig(backbone="resnet50"))
    ANCESTOR_NAMES = WSFCN(NetConfig(backbone="resnet50", context="aspp", fusion="gci"))


def filled_fca():
    return fill_module(FCA(32, 256, (1, 12, 24, 36)), module_names(WSFCN_NAMES, "context", "fca."), "fca.")


def filled_aspp():
    return fill_module(
        ASPP(32, 256, (1, 12, 24, 36)), module_names(ANCESTOR_NAMES, "context", "aspp."), "aspp."
    )


def filled_align():
    return fill_module(Align(256), module_names(WSFCN_NAMES, "fusion.align", "align1."), "align1.")


def filled_sf2():
    module = SF2(256)
    names = module_names(WSFCN_NAMES, "fusion", "sf2.")
    fill_module(module, names, "sf2.")  # align gets values too; `fuse` never uses it
    return module


def filled_gci():
    return fill_module(
        GCIDecoder(256), module_names(ANCESTOR_NAMES, "fusion", "shallow_mask."), "shallow_mask."
    )


def context_error(module, name, file):
    """Largest error over the square, wide and tall inputs, which together reach every tap."""
    data = fixture(file)
    errors = [relative_error(module(data[f"{name}.x"]), data[f"{name}.out"])]
    for shape in ("wide", "tall"):
        errors.append(
            relative_error(module(data[f"{name}.x_{shape}"])[:, ::8], data[f"{name}.out_{shape}_s8"])
        )
    return max(errors)


def align_error(module):
    data = fixture("modules")
    return relative_error(module(data["align.low"], data["align.high"]), data["align.out"])


def sf2_error(module):
    data = fixture("modules")
    low, deep = module.fuse(data["sf2.low"], data["sf2.high"])
    return max(relative_error(low, data["sf2.out_low"]), relative_error(deep, data["sf2.out_high"]))


def gci_error(module):
    data = fixture("modules_1stage")
    return relative_error(module.inject(data["gci.low"], data["gci.deep"]), data["gci.out"])


CASES = {
    "fca": (filled_fca, lambda m: context_error(m, "fca", "modules")),
    "aspp": (filled_aspp, lambda m: context_error(m, "aspp", "modules_1stage")),
    "align": (filled_align, align_error),
    "sf2": (filled_sf2, sf2_error),
    "gci": (filled_gci, gci_error),
}
