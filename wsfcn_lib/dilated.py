"""A dilated convolution without the taps that see only padding; output and gradients are nn.Conv2d's."""

from torch import Tensor, nn
from torch.nn.functional import conv2d


class DilatedConv2d(nn.Conv2d):
    """A convolution of stride 1 that keeps the size; taps that lie wholly outside the map are skipped, as they see only padding.

    `kernel` is odd, a number or (height, width).

    At 41 x 41 kernel 7 with dilation 36 keeps 3 of 7 taps, at half that size only the middle one.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], dilation: int = 1, bias: bool = False):
        tall, wide = kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        if not tall % 2 or not wide % 2:
            raise ValueError(f"kernel is {kernel}; a convolution that keeps the size needs odd numbers")
        padding = dilation * (tall // 2), dilation * (wide // 2)
        super().__init__(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=bias)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = []
        for axis, (kernel, dilation) in enumerate(zip(self.kernel_size, self.dilation)):
            live = min(kernel // 2, (x.shape[2 + axis] - 1) // dilation)  # taps on either side of the middle one
            weight = weight.narrow(2 + axis, kernel // 2 - live, 2 * live + 1)
            padding.append(live * dilation)
        return conv2d(x, weight, bias, 1, padding, self.dilation)
