"""A few steps of training, replayed on the inputs and draws with which the published programs were recorded.

`fixtures/README.md` describes the recordings. All is float64: these random networks are chaotic, so that float32's rounding
grows tenfold with each step. `replay` runs the kit's own network, optimiser and `train_step`; `faults` names what differs.
"""

import json
import re
import zlib
from contextlib import ExitStack
from functools import cache
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from published import FIXTURES, drawn
from wsfcn_lib import train as training
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.normalisation import normalise
from wsfcn_lib.weights import load_published, published_names

PROGRAMS = {
    "wsfcn": {"context": "fca", "fusion": "sf2"},
    "1stage": {"context": "aspp", "fusion": "gci"},
}
# largest relative difference that is rounding
TOLERANCE = {
    "losses": 1e-6,
    "gradient norms": 1e-5,
    "gradients": 1e-5,
    "weight changes": 1e-5,
    "momentum": 1e-5,
    "norm statistics": 1e-6,
    "zero gradients": 1e-6,
    "groups": 1e-9,
    "draws": 0.0,
    "same parameters": 0.0,
}
SINGLE = {"losses": 1e-5, "gradient norms": 5e-3}  # in float32, of the first step alone
# biases before a norm that trains: their gradient is zero but for rounding
ZERO = re.compile(r"sf2\.conv\d[hv]\.bias")


@cache
def recording(file, name):
    """One recorded training, such as ("trajectory_wsfcn_vgg16", "ae/noise"), by the keys of the README."""
    with np.load(FIXTURES / f"{file}.npz") as arrays:
        found = {
            key.removeprefix(f"{name}/"): arrays[key] for key in arrays.files if key.startswith(f"{name}/")
        }
    meta = json.loads(str(found.pop("meta")))
    return found | meta | {"tags": json.loads(meta["tags"]), "program": file.split("_")[1]}


def pictures(step, height, width, count=2):
    """(count, 3, H, W) float32, normalised: colour waves with a little noise, of 8 bits."""
    batch = []
    for number in range(count):
        rng = np.random.default_rng([7, step, number])
        y, x = np.mgrid[0:height, 0:width]
        picture = np.full((height, width, 3), 0.5)
        for _ in range(6):
            waves_y, waves_x, phase = rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(0, 2 * np.pi)
            wave = np.sin(2 * np.pi * (waves_y * y / height + waves_x * x / width) + phase)
            picture += wave[..., None] * rng.uniform(-0.2, 0.2, 3)
        picture += 0.03 * rng.standard_normal((height, width, 3))
        eight_bits = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
        exact = (eight_bits / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        batch.append(torch.from_numpy(exact.transpose(2, 0, 1).astype(np.float32)))
        assert (batch[-1] - normalise(eight_bits)).abs().max() < 1e-6
    return torch.stack(batch)


class Draws:
    """What dropouts and gate draw: call n of a run gives default_rng([11, n])'s uniform numbers."""

    def __init__(self):
        self.shapes = []

    def uniform(self, shape, **_):
        rng = np.random.default_rng([11, len(self.shapes)])
        self.shapes.append(tuple(shape))
        return torch.from_numpy(rng.random(tuple(shape), dtype=np.float32))

    def dropout(self, x, p=0.5, training=True, inplace=False):
        return self._drop(x, x.shape, p, training)

    def dropout2d(self, x, p=0.5, training=True, inplace=False):
        return self._drop(x, (*x.shape[:2], 1, 1), p, training)

    def _drop(self, x, shape, p, training):
        if not training or p == 0:
            return x
        return x * ((self.uniform(shape) >= p).to(x.dtype) / (1 - p))


def projection(name, tensor):
    """[norm, three products with standard normal vectors that the name draws]: a tensor's fingerprint."""
    flat = tensor.detach().double().contiguous().flatten().numpy()
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    products = [flat @ rng.standard_normal(flat.size, dtype=np.float32).astype(np.float64) for _ in range(3)]
    return np.array([np.linalg.norm(flat), *products])


def settings_of(recorded):
    """The settings of a recorded training: what its program published for such a network, on a processor."""
    modules = PROGRAMS[recorded["program"]]
    if recorded["model"] == "bsl":
        modules = {"context": "none", "program": recorded["program"]}
    return TrainConfig(
        backbone=recorded["backbone"],
        **modules,
        lr=recorded["lr"],
        gate_rate=0.3 if recorded["variant"] == "noise" else 0.0,
        batch_size=2,
        device="cpu",
    )


def recorded_network(config, recorded, dtype):
    """The network in training mode, filled with the recorded training's first weights."""
    net = training.build_network(config.network(21))
    names = published_names(net)
    own = net.state_dict()
    load_published(net, {names[ours]: drawn(names[ours], tuple(own[ours].shape)) for ours in own})
    if recorded["model"] == "ae":
        net.head[-1].bias.data += recorded["shift"]
    if recorded["variant"] != "noise":
        for module in net.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
    return net.to(dtype=dtype, memory_format=torch.channels_last).train()


def replay(recorded, steps=None, dtype=torch.float64, **changes):
    """Train as recorded; returns the recording's quantities by its keys, dicts by published name for arrays.

    `steps` ends it earlier, without what is known at the end alone; `changes` are other settings.
    """
    config = settings_of(recorded).model_copy(update=changes)
    net = recorded_network(config, recorded, dtype)
    optimiser = training.build_optimiser(net, config)
    names = published_names(net)
    weights = {names[name]: weight for name, weight in net.named_parameters()}
    buffers = {names[name]: buffer for name, buffer in net.named_buffers()}
    before = {name: tensor.detach().clone() for name, tensor in (weights | buffers).items()}
    own = {id(weight): name for name, weight in weights.items()}
    group = {}
    for number, entry in enumerate(optimiser.param_groups):
        group |= {own[id(weight)]: number for weight in entry["params"]}
    options = ("lr", "weight_decay", "momentum", "dampening", "nesterov")
    found = {"group": group, "requires_grad": {name: w.requires_grad for name, w in weights.items()}}
    found["group_opts"] = [[float(entry[option]) for option in options] for entry in optimiser.param_groups]
    found |= {"loss_cls": [], "loss_mask": [], "grad_norm": []}
    update = optimiser.step

    def watched_update():
        gradients = {name: weights[name].grad for name in group}
        found["grad_none"] = sorted(name for name, gradient in gradients.items() if gradient is None)
        gradients = {name: gradient for name, gradient in gradients.items() if gradient is not None}
        squares = [0.0] * 4
        for name, gradient in gradients.items():
            squares[group[name]] += gradient.double().square().sum().item()
        step = len(found["grad_norm"])
        found["grad_norm"].append(np.sqrt(squares))
        for key, at in (("grad0", 0), ("grad_mask", recorded["warm"])):
            if step == at:
                found[key] = {name: projection(name, gradient) for name, gradient in gradients.items()}
        update()

    draws, steps = Draws(), steps or recorded["steps"]
    with ExitStack() as patches:
        if dtype == torch.float64:  # losses and PAMR ask for float32
            patches.enter_context(patch.object(torch.Tensor, "float", lambda tensor: tensor))
        if recorded["variant"] == "noise":
            patches.enter_context(patch.object(nn.functional, "dropout", draws.dropout))
            patches.enter_context(patch.object(nn.functional, "dropout2d", draws.dropout2d))
            patches.enter_context(patch.object(torch, "rand", draws.uniform))
        patches.enter_context(patch.object(optimiser, "step", watched_update))
        for step in range(steps):
            tags = torch.zeros(2, 20, dtype=dtype)
            for row, present in zip(tags, recorded["tags"]):
                row[present] = 1
            images = pictures(step, *recorded["size"]).to(dtype).to(memory_format=torch.channels_last)
            with_masks = step >= recorded["warm"]
            losses = training.train_step(
                net, optimiser, images, tags, config, 1.0, with_masks, torch.Tensor.backward
            )
            for key, loss in zip(("loss_cls", "loss_mask"), losses):
                found[key].append(loss)
    if steps < recorded["steps"]:
        return found
    found |= {"delta": {}, "momentum": {}, "stat": {}}
    for name, weight in weights.items():
        found["delta"][name] = projection(name, weight.detach() - before[name])
        momentum = optimiser.state.get(weight, {}).get("momentum_buffer")
        if momentum is not None:
            found["momentum"][name] = projection(name, momentum)
    for name, buffer in buffers.items():
        if not name.endswith("num_batches_tracked") and not torch.equal(buffer, before[name]):
            found["stat"][name] = buffer.numpy()
    found["draws"] = [str(shape) for shape in draws.shapes[:20]]
    return found


def differences(found, recorded):
    """The largest relative difference of each quantity in TOLERANCE; infinite where one side alone has it."""
    worst = {}

    def note(quantity, difference):
        difference = difference if np.isfinite(difference) else np.inf
        worst[quantity] = max(worst.get(quantity, 0.0), float(difference))

    def compare(quantity, ours, theirs):
        theirs = np.asarray(theirs, float)
        note(quantity, np.max(np.abs(np.asarray(ours, float) - theirs) / np.maximum(np.abs(theirs), 1e-12)))

    steps, warm = len(found["loss_cls"]), recorded["warm"]
    compare("losses", found["loss_cls"], recorded["loss_cls"][:steps])
    if recorded["model"] == "ae" and steps > warm:
        compare("losses", found["loss_mask"][warm:], recorded["loss_mask"][warm:steps])
    compare("gradient norms", found["grad_norm"], recorded["grad_norm"][:steps])

    names = [str(name) for name in recorded["param_names"]]
    for key, quantity in (
        ("grad0", "gradients"),
        ("grad_mask", "gradients"),
        ("delta", "weight changes"),
        ("momentum", "momentum"),
    ):
        for name, theirs in zip(names, recorded[key]):
            ours = found.get(key, {}).get(name)
            if key not in found:
                continue
            if (ours is None) != np.isnan(theirs[0]):
                note("same parameters", np.inf)
            elif ours is not None and (ZERO.fullmatch(name) or theirs[0] < 1e-9):
                note("zero gradients", max(ours[0], theirs[0]))
            elif ours is not None:
                note(quantity, np.abs(ours - theirs).max() / theirs[0])

    alike = found["grad_none"] == [str(name) for name in recorded["grad_none"]]
    alike &= [found["group"].get(name, -1) for name in names] == recorded["group"].tolist()
    alike &= [found["requires_grad"].get(name) for name in names] == recorded["requires_grad"].tolist()
    note("same parameters", 0.0 if alike else np.inf)
    compare("groups", found["group_opts"], recorded["group_opts"])

    if "stat" in found:
        theirs = {key.removeprefix("stat:"): recorded[key] for key in recorded if key.startswith("stat:")}
        note("norm statistics", 0.0 if found["stat"].keys() == theirs.keys() else np.inf)
        for name in found["stat"].keys() & theirs.keys():
            largest = np.abs(found["stat"][name] - theirs[name]).max()
            note("norm statistics", largest / np.abs(theirs[name]).max())
        note("draws", 0.0 if found["draws"] == [str(s) for s in recorded["draw_shapes"]] else np.inf)
    return worst


def faults(found, recorded, tolerance=TOLERANCE):
    """{quantity: its largest relative difference} of those beyond the tolerance."""
    worst = differences(found, recorded)
    return {name: worst[name] for name, limit in tolerance.items() if worst.get(name, 0.0) > limit}
