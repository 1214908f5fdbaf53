"""Kinds of GPU, by their data sheets; without PyTorch, so that whoever only reckons waits for nothing."""

from typing import NamedTuple

SHARES = (0.2, 0.5)  # of a GPU's peak that a training is assumed to reach; two CPU cores reach 0.73 of theirs


class GPU(NamedTuple):
    """A kind of GPU, by its data sheet: dense matrix products in TFLOP/s, and GB of memory."""

    bf16: float
    tf32: float  # what PyTorch computes fp32 convolutions in
    memory: int


GPUS = {
    "RTX 3090": GPU(71, 36, 24),
    "RTX 4090": GPU(165, 83, 24),
    "A100": GPU(312, 156, 40),
    "H100": GPU(989, 495, 80),
}
