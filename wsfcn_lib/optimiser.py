"""The optimiser of a training: the published one, or AdamW for small networks that start from nothing."""

import torch
from torch import nn

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.modules import Align

FLOW_RATE = 0.01  # of SF2's flow under AdamW, over that of other new weights


def build_optimiser(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 over the four parameter groups, as published; or AdamW, over five where there is SF2.

    AdamW takes steps of one size however small the gradient, and nothing in the losses holds SF2's flow in place: at its full
    rate it grew until the masks lay beside the objects. So there the flow forms a fifth group, at FLOW_RATE.
    """
    groups = net.parameter_groups(config.lr, config.weight_decay, config.lr_multipliers)
    if config.optimiser == "adamw":
        flow = {id(m.flow.weight) for m in net.modules() if isinstance(m, Align)}
        slow = [groups[2] | {"params": [p for p in groups[2]["params"] if id(p) in flow], "lr": FLOW_RATE * groups[2]["lr"]}]
        groups[2]["params"] = [p for p in groups[2]["params"] if id(p) not in flow]
        groups += slow if flow else []
    groups = [group | {"base_lr": group["lr"]} for group in groups]
    return torch.optim.SGD(groups, momentum=0.9) if config.optimiser == "sgd" else torch.optim.AdamW(groups, fused=True)
