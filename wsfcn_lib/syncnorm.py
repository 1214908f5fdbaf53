"""BatchNorm over several processes: with it, any number of them trains as one does with the same global batch."""

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn


class _Mean(torch.autograd.Function):
    """The mean of a tensor over all processes; so is its gradient, since each process's loss is a mean over its share."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Mean.apply(gradient)


class SyncedNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the statistics of the global batch, whose shares must be equal; for what `nn.SyncBatchNorm` cannot.

    That one serves GPUs alone. Evaluation uses the stored statistics, as ever.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        exact = x.float()
        mean = _Mean.apply(exact.mean((0, 2, 3)))[:, None, None]
        variance = _Mean.apply((exact - mean).square().mean((0, 2, 3)))
        count = x.numel() / x.shape[1] * dist.get_world_size()
        if count <= 1:
            raise ValueError(f"a norm that trains got one value per channel, from a map of {tuple(x.shape)}; raise batch_size")
        with torch.no_grad():
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        y = (exact - mean) * (variance + self.eps).rsqrt()[:, None, None]
        y = y if self.weight is None else y * self.weight[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)


def synchronise(net: nn.Module, accelerator: Accelerator) -> None:
    """Exchange every norm that trains (not those that keep their stored statistics) for one over all processes, if several.

    Then any number of processes trains as one does with the same global batch.
    """
    for parent in [*net.modules()] if accelerator.num_processes > 1 else ():
        for name, norm in parent.named_children():
            if type(norm) is nn.BatchNorm2d and accelerator.device.type == "cuda":
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(norm))
            elif type(norm) is nn.BatchNorm2d:
                norm.__class__ = SyncedNorm  # it differs only in how it computes
