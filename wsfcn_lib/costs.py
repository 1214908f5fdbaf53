"""What a variant costs, to be seen beside what it brings: parameters, FLOPs, time and memory of a training step."""

import time

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.job import build_accelerator, build_optimiser
from wsfcn_lib.network import build_network
from wsfcn_lib.train import train_step


def cost(config: TrainConfig, num_classes: int, steps: int = 3) -> dict[str, float]:
    """Measure a network of these settings on noise; random states stay as they are.

    Returns:
        parameters; gflops: 10^9 operations of convolutions and products (a multiplication and an addition count 2) of one
        crop going forward; step_ms: median time of `steps` training steps with mask loss on one batch of one class, PAMR
        included; activations_mb: what such a step holds for its way back, the weights included, the same on any machine.
    """
    device, kept, times = build_accelerator(config).device, {}, []
    with torch.random.fork_rng():
        net = build_network(config.network(num_classes)).to(device, memory_format=torch.channels_last)
        size, config = config.batch_size // config.accumulate, config.model_copy(update={"accumulate": 1})  # one part of a batch
        images = torch.randn(size, 3, config.crop, config.crop, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        tags = torch.eye(num_classes - 1, device=device)[:1].expand(size, -1)
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            net.eval()(images[:1])
        optimiser = build_optimiser(net.train(), config)
        given = net, optimiser, images, tags, config, 1.0, True, torch.Tensor.backward
        with saved_tensors_hooks(lambda x: kept.update({x.untyped_storage().data_ptr(): x.untyped_storage()}) or x, lambda x: x):
            train_step(*given)  # it warms up too: libraries choose their kernels
        for _ in range(steps):
            began = time.perf_counter()
            train_step(*given)  # it reads its losses, so a GPU has finished too
            times.append(time.perf_counter() - began)
    out = {"parameters": sum(p.numel() for p in net.parameters()), "gflops": flops.get_total_flops() / 1e9}
    held = sum(storage.nbytes() for storage in kept.values())
    return out | {"step_ms": 1000 * sorted(times)[len(times) // 2], "activations_mb": held / 1e6}
