"""From pictures to what the networks take, and back: ImageNet's mean and standard deviation."""

import torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, RGB in [0, 1]
_SCALE, _OFFSET = 1 / (255 * torch.tensor(STD)), torch.tensor(MEAN) / torch.tensor(STD)


def normalise(image) -> torch.Tensor:
    """(H, W, 3) uint8 RGB array -> (3, H, W) float32, ImageNet-normalised."""
    return torch.tensor(image).mul(_SCALE).sub_(_OFFSET).permute(2, 0, 1).contiguous()


def denormalise(images: torch.Tensor) -> torch.Tensor:
    """(..., 3, H, W) ImageNet-normalised -> RGB in [0, 1]; inverse of `normalise`."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (images * std + mean).clamp(0, 1)
