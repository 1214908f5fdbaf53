"""What a machine makes of the work: images a second in training and inference, and how near that is to what it could do.

The rows have no direct formulation; `bench.py` writes them beside those that have one.
"""

import numpy as np
import torch
from measure import timed, watched
from torch.utils.flop_counter import FlopCounterMode

from wsfcn_lib import NetConfig, TrainConfig
from wsfcn_lib.evaluation.schedules import hours
from wsfcn_lib.infer import predict_masks
from wsfcn_lib.network import build_network
from wsfcn_lib.pamr import pamr
from wsfcn_lib.protocol import SCALES
from wsfcn_lib.train import build_optimiser, train_step

NEIGHBOURS, ITERATIONS = 48, 10


def peak_flops(device, dtype=torch.bfloat16):
    """Operations a second of the fastest matrix product found: what 100 % is; on CUDA fp32 as convolutions have it, TF32."""
    best, usual = 0.0, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    for size in (1024, 2048, 4096) if device.type == "cpu" else (4096, 8192):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        best = max(best, 2 * size**3 / timed(lambda: a @ b, 5)[0])  # noqa: B023 - called at once
    torch.backends.cuda.matmul.allow_tf32 = usual
    return best


def bandwidth(device):
    """Bytes a second that a copy of a large tensor reads and writes."""
    source = torch.empty(2**26, device=device).normal_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / timed(lambda: target.copy_(source), 5)[0]


def training(device, config=None, batch=None, crop=321, repeats=3, precision="bf16", compiled=True):
    """Training in channels_last: images a second, share of the peak, hours for the schedules on VOC and COCO.

    megabytes: on CUDA all that a step holds at its peak, weights and momenta included; on a CPU what a step adds to the process.
    On CUDA, if `compiled`, once more with `torch.compile`, where a compiler is there.
    """
    batch, config = batch or (16 if device.type == "cuda" else 2), config or NetConfig()
    settings = TrainConfig(precision=precision, floor=0.0, batch_size=batch)
    images = torch.randn(batch, 3, crop, crop, device=device).to(memory_format=torch.channels_last)
    tags = torch.zeros(batch, config.num_classes - 1, device=device)
    tags[:, :2] = 1
    net = build_network(config).to(device, memory_format=torch.channels_last).train()
    optimiser = build_optimiser(net, settings)

    def step(model=net):
        losses = train_step(model, optimiser, images, tags, settings, 1.0, True, torch.Tensor.backward)
        assert np.isfinite(losses).all(), losses
        return losses

    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops()
    peak = peak_flops(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    (seconds, _), used = watched(lambda: timed(step, repeats), device)
    used = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else used
    row = {
        "stage": "training" if precision == "bf16" else f"training_{precision}",
        "backbone": config.backbone,
        "crop": crop,
        "batch": batch,
        "precision": precision,
        "images_per_second": batch / seconds,
        "megabytes": used and used / 1e6,
    }
    row |= {
        "gigaflop_per_image": flops / batch / 1e9,
        "gigaflops": flops / seconds / 1e9,
        "peak_gigaflops": peak / 1e9,
    }
    times = hours(batch / seconds)
    row |= {"share_of_peak": flops / seconds / peak, "voc_hours": times["VOC"], "coco_hours": times["COCO"]}
    if device.type == "cuda" and compiled:
        try:
            faster = torch.compile(net)
            row["compiled_images_per_second"] = batch / timed(lambda: step(faster), repeats)[0]
        except Exception as error:  # no compiler, or numbers that are none: eager is what the kit uses
            row["compiled_images_per_second"] = None
            print(f"torch.compile: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    return told(row, device)


def inference(device, config=None, size=(375, 500)):
    """Images a second by eight views of their own size in bf16."""
    net = build_network(config or NetConfig()).to(device, memory_format=torch.channels_last).eval()
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    seconds, _ = timed(lambda: predict_masks(net, image, SCALES, bf16=True), 1 if device.type == "cpu" else 3)
    return told(
        {"stage": "inference_rate", "views": 2 * len(SCALES), "images_per_second": 1 / seconds}, device
    )


def pamr_floor(device, size=(4, 21, 81, 81)):
    """PAMR beside the time to read affinities and masks and write masks, once an iteration, at a copy's bandwidth."""
    images, masks = torch.rand(size[0], 3, *size[2:], device=device), torch.rand(*size, device=device)
    seconds, _ = timed(lambda: pamr(images, masks), 5)
    values = size[0] * size[2] * size[3] * (2 * size[1] + NEIGHBOURS) * ITERATIONS
    floor = 4 * values / bandwidth(device)
    row = {"stage": "pamr_floor", "milliseconds": 1e3 * seconds, "floor_milliseconds": 1e3 * floor}
    return told(row | {"times_floor": seconds / floor}, device)


def told(row, device):
    """The row to four digits, printed."""
    row = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
    print(
        f"{row['stage']:16} " + ", ".join(f"{key} {value}" for key, value in row.items() if key != "stage"),
        flush=True,
    )
    return row | {"device": device.type}
