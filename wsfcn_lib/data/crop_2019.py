"""The random crop of torchvision 0.2.1, which WS-FCN and 1-stage-wseg pin; later versions draw another.

On pictures of VOC's sizes it keeps 0.81 of the picture on average, against 0.93 by the rule since torchvision
0.3, and stretches less: 55 % of its crops are squares, against 1 %. WS-FCN's code needs a newer torchvision than
it pins, so its numbers come from the newer rule, and 1-stage-wseg's probably from this one.
"""

import math
from typing import Any

import torch
from torchvision.transforms import v2


class Crop2019(v2.RandomResizedCrop):
    """`v2.RandomResizedCrop` by the older rule.

    The ratio of width and height is uniform in `ratio`, and turned over half the time (later: log-uniform). Where
    none of ten tries fits, the largest square in the middle is taken (later: the whole picture, or its middle at the
    nearest ratio); of VOC's crops that happens to more than half.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        """Top, left, height and width of the part to crop."""
        height, width = v2.functional.get_size(flat_inputs[0])
        for _ in range(10):
            area = height * width * _uniform(*self.scale)
            ratio = _uniform(*self.ratio)
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if _uniform(0, 1) < 0.5:
                w, h = h, w
            if w <= width and h <= height:
                top, left = _place(height - h), _place(width - w)
                return {"top": top, "left": left, "height": h, "width": w}
        side = min(height, width)
        return {"top": (height - side) // 2, "left": (width - side) // 2, "height": side, "width": side}


def _uniform(low: float, high: float) -> float:
    return torch.empty(1).uniform_(low, high).item()


def _place(room: int) -> int:
    """0 to `room`, both included."""
    return int(torch.randint(room + 1, (1,)))
