"""How fast is the library, beside the direct formulations in tests/oracles.py? Writes data/results/bench/{cpu,gpu}.json.

    make bench                                                        # all stages, some minutes on two cores
    .venv/bin/python tests/benchmarks/bench.py --only pamr fca        # prints these, writes nothing

Nothing else should run meanwhile. Each stage: the same inputs and the same process for both; the best of several calls, of
inference and the training step the only or the second one. Rates, `loading` and `import` have no direct formulation.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from torch.nn.functional import interpolate

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

from around import loading, starting
from measure import compare, largest, share, timed
from throughput import inference, pamr_floor, training

import oracles
from wsfcn_lib import NetConfig, TrainConfig
from wsfcn_lib.data.normalisation import normalise
from wsfcn_lib.infer import predict_masks
from wsfcn_lib.metrics import ConfusionMatrix
from wsfcn_lib.modules import FCA
from wsfcn_lib.network import build_network
from wsfcn_lib.pamr import pamr
from wsfcn_lib.postprocess import BILATERAL_SXY, crf, crf_many, crf_masks
from wsfcn_lib.protocol import SCALES
from wsfcn_lib.runs.provenance import code_state, provenance
from wsfcn_lib.runs.storage import atomic_write
from wsfcn_lib.train import build_optimiser, train_step

SEED = 0
HOME = ROOT / "data" / "results" / "bench"


def smooth(*size, cells=8, noise=0.03):
    """Random pictures (B, C, H, W) in [0, 1] with regions and edges, as photographs have."""
    coarse = torch.rand(*size[:2], cells, cells)
    return (interpolate(coarse, size[2:], mode="bicubic") + noise * torch.randn(*size)).clamp(0, 1)


def picture(height, width):
    """One of these as (H, W, 3) uint8."""
    return np.ascontiguousarray((255 * smooth(1, 3, height, width)[0].permute(1, 2, 0)).byte().numpy())


def bench_pamr(device):
    images, masks = smooth(4, 3, 81, 81).to(device), smooth(4, 21, 81, 81).to(device)
    return compare("pamr", lambda: pamr(images, masks), lambda: oracles.pamr(images, masks), largest, device)


def bench_confusion(device):
    truth, prediction = (smooth(1, 21, 375, 500)[0].argmax(0).byte().numpy() for _ in range(2))

    def fast():
        matrix = ConfusionMatrix(21)
        matrix.update(prediction, truth)
        return matrix.matrix

    return compare(
        "confusion", fast, lambda: oracles.confusion(prediction, truth, 21), largest, torch.device("cpu")
    )


def photograph(height, width):
    """matplotlib's portrait of Grace Hopper (US Navy, public domain), (H, W, 3) uint8; noise would not do for a CRF."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as file:
        return np.array(file.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def bench_crf(device):
    image = photograph(375, 500)
    masks, tags = (4 * smooth(1, 21, 375, 500)[0]).softmax(0).numpy(), np.zeros(20, bool)
    tags[[2, 14]] = True  # with the background three classes

    def direct():
        return oracles.crf(crf_masks(masks, tags, "wsfcn"), image, BILATERAL_SXY["wsfcn"])

    row = compare("crf", lambda: crf(image, masks, tags), direct, share, torch.device("cpu"), (3, 2))
    seconds = {}
    for processes in (1, 2):
        jobs = [(str(number), image, masks, tags, "wsfcn") for number in range(24)]
        list(crf_many(jobs[:2], processes))
        seconds[processes] = timed(lambda: list(crf_many(jobs, processes)), 1)[0]  # noqa: B023 - called at once
    return row | {"pool_ratio": round(seconds[1] / seconds[2], 2), "pool_processes": 2, "images": 24}


def bench_inference(device, bf16=False):
    torch.manual_seed(SEED)
    net = build_network(NetConfig()).to(memory_format=torch.channels_last).eval().to(device)
    image = picture(188, 250)
    own = oracles.predict_masks(net, image, SCALES)[0]  # without canvas; both sides are timed warm
    name = "inference_bf16" if bf16 else "inference"

    def difference(found, canvas):
        return largest(found.masks, own)

    direct = build_network(NetConfig()).eval()
    direct.load_state_dict(net.state_dict())
    return compare(
        name,
        lambda: predict_masks(net, image, SCALES, bf16=bf16),
        lambda: oracles.predict_masks(direct.to(device), image, SCALES, canvas=512),
        difference,
        device,
        (2, 1),
    )


def bench_fca(device):
    """As the network runs it, in channels_last; `taps_ratio` is what skipping taps alone brings there."""
    net, x = FCA(4096, 256, (1, 12, 24, 36)).eval().to(device), torch.randn(4, 4096, 41, 41, device=device)
    last, images = FCA(4096, 256, (1, 12, 24, 36)).eval(), x.to(memory_format=torch.channels_last)
    last.load_state_dict(net.state_dict())
    last.to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def all_taps(net, x):
        with oracles.all_taps():
            return net(x)

    row = compare(
        "fca", torch.no_grad()(lambda: last(images)), lambda: all_taps(net, x), largest, device, (5, 3)
    )
    same_layout = timed(lambda: all_taps(last, images), 5)[0]
    return row | {"taps_ratio": round(1000 * same_layout / row["milliseconds"], 2)}


def bench_train_step(device, batch=2):
    torch.manual_seed(SEED)
    seen = smooth(batch, 3, 321, 321)
    tags = torch.zeros(batch, 20)
    tags[:, [2, 14]] = 1
    images = torch.stack([normalise((255 * one.permute(1, 2, 0)).byte().numpy()) for one in seen])
    quiet = {
        "gate_rate": 0.0,
        "floor": 0.0,
    }  # nothing draws; without a floor an untrained network has pseudo labels too
    fast_settings, state = TrainConfig(precision="bf16", **quiet), build_network(NetConfig()).state_dict()

    def network(memory_format):
        net = build_network(NetConfig(gate_rate=0.0)).to(device, memory_format=memory_format).train()
        net.load_state_dict(state)
        for module in net.modules():
            if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                module.p = 0.0
        return net, build_optimiser(net, fast_settings)

    net, optimiser = network(torch.channels_last)
    fast_images = images.to(device, memory_format=torch.channels_last)

    def fast():
        torch.manual_seed(SEED)
        return train_step(
            net, optimiser, fast_images, tags.to(device), fast_settings, 1.0, True, torch.Tensor.backward
        )

    plain, plain_optimiser = network(torch.contiguous_format)

    def direct():
        torch.manual_seed(SEED)
        out = plain(images.to(device))
        losses = oracles.train_losses(out, seen.to(device), tags.to(device), floor=0.0)
        plain_optimiser.zero_grad()
        sum(losses).backward()
        plain_optimiser.step()
        assert losses[1] > 0, "the mask loss must take part"
        return [loss.item() for loss in losses]

    first = {}

    def kept(name, step):
        losses = step()
        return first.setdefault(name, losses)

    def difference(a, b):  # of the losses of the first step, in relation to them: bf16 against fp32
        return (np.abs(np.subtract(a, b)) / np.abs(b)).max()

    return compare(
        "train_step", lambda: kept("fast", fast), lambda: kept("direct", direct), difference, device, (3, 2)
    )


STAGES = {
    "pamr": bench_pamr,
    "confusion": bench_confusion,
    "crf": bench_crf,
    "fca": bench_fca,
    "inference": bench_inference,
    "inference_bf16": lambda device: bench_inference(device, bf16=True),
    "train_step": bench_train_step,
    "training": training,
    "inference_rate": inference,
    "pamr_floor": pamr_floor,
    "loading": loading,
    "import": starting,
}


def write_rows(rows, device, began, command, home=HOME):
    """Write rows, and beside them the machine, code and seconds since `began` behind them; the first file's path."""
    home.mkdir(parents=True, exist_ok=True)
    name = {"cpu": "cpu", "cuda": "gpu"}[device.type]
    path = home / f"{name}.json"
    atomic_write(path, json.dumps(rows, indent=1) + "\n")
    facts = provenance(device.type) | code_state() | {"threads": torch.get_num_threads(), "seed": SEED}
    facts |= {"command": command, "seconds": round(time.perf_counter() - began, 1)}
    atomic_write(home / f"{name}_machine.json", json.dumps(facts, indent=1) + "\n")
    return path


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=STAGES, help="these stages; nothing is written")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    options = parser.parse_args()
    device, rows, began = torch.device(options.device), [], time.perf_counter()
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}, seed {SEED}"
    )
    print(f"{'stage':16} {'ratio':>10} {'here':>14} {'direct':>14}")
    for name in options.only or STAGES:
        torch.manual_seed(SEED)
        rows.append(STAGES[name](device))
    rates = {row["stage"]: row for row in rows}
    if {
        "training",
        "loading",
    } <= rates.keys():  # how many times what training consumes one loader process delivers
        rates["loading"]["ratio"] = round(
            rates["loading"]["images_per_second"] / rates["training"]["images_per_second"], 2
        )
        print(f"one loader process delivers {rates['loading']['ratio']:.1f} times what training consumes")
    if not options.only:
        print(f"written: {write_rows(rows, device, began, 'make bench').relative_to(ROOT)}")


if __name__ == "__main__":
    main()
