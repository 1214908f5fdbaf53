"""The direct formulation of what the library computes fast; tests compare with it, `make bench` times it."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv2d, interpolate, multilabel_soft_margin_loss, pad

from wsfcn_lib.infer import pad_to, view


def pamr(images, masks, dilations=(1, 2, 4, 8, 12, 24), iterations=10):
    """PAMR by one-hot kernels, all neighbours of all values in memory. Masks at the images' size."""
    kernels = torch.eye(9, device=images.device)[[0, 1, 2, 3, 5, 6, 7, 8]].reshape(8, 1, 3, 3)

    def neighbours(x):  # (B, C, H, W) → (B, C, 8 * D, H, W)
        flat = x.flatten(0, 1)[:, None]
        around = [conv2d(pad(flat, [d] * 4, mode="replicate"), kernels, dilation=d) for d in dilations]
        return torch.cat(around, 1).unflatten(0, x.shape[:2])

    around, centre = neighbours(images), images[:, :, None]
    whole = torch.cat(
        (around, centre.expand(-1, -1, len(dilations), -1, -1)), 2
    )  # each 3 x 3 kernel holds the centre
    distance = (around - centre).abs() / (1e-8 + 0.1 * whole.std(2, keepdim=True))
    affinity = (-distance.mean(1, keepdim=True)).softmax(2)
    for _ in range(iterations):
        masks = (neighbours(masks) * affinity).sum(2)
    return masks


def confusion(prediction, truth, num_classes):
    """Pixel by pixel: rows = truth, columns = prediction."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            if truth[row, column] != 255:
                matrix[truth[row, column], prediction[row, column]] += 1
    return matrix


def crf(probabilities, image, sxy):
    """The dense CRF over all classes, absent ones too; probabilities (K, H, W)."""
    import pydensecrf.densecrf
    import pydensecrf.utils

    classes, height, width = probabilities.shape
    field = pydensecrf.densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(pydensecrf.utils.unary_from_softmax(probabilities)))
    field.addPairwiseGaussian(sxy=3, compat=3)
    field.addPairwiseBilateral(sxy=sxy, srgb=13, rgbim=np.copy(image), compat=10)
    return np.argmax(field.inference(10), axis=0).reshape(height, width)


@torch.no_grad()
def predict_masks(net, image, scales, canvas=None):
    """Each view and its mirror image alone, in fp32; masks (K, H, W) and scores (K-1,)."""
    masks, scores = [], []
    for scale in scales:
        for flip in (False, True):
            seen, rows, columns = view(image, scale, flip), slice(None), slice(None)
            if canvas:
                seen, rows, columns = pad_to(seen, canvas)
            out = net(seen.contiguous().to(next(net.parameters()).device))
            large = interpolate(out.masks, seen.shape[-2:], mode="bilinear", align_corners=True)[
                ..., rows, columns
            ]
            large = interpolate(large, image.shape[:2], mode="bilinear", align_corners=False)
            masks.append(large.flip(-1) if flip else large)
            scores.append(out.scores)
    return torch.cat(masks).mean(0).cpu().numpy(), torch.cat(scores).amax(0).cpu().numpy()


class all_taps:
    """Within this context dilated convolutions compute every tap, as `nn.Conv2d` does."""

    def __enter__(self):
        from wsfcn_lib.modules import DilatedConv2d

        self.kind, self.fast = DilatedConv2d, DilatedConv2d._conv_forward
        DilatedConv2d._conv_forward = nn.Conv2d._conv_forward

    def __exit__(self, *error):
        self.kind._conv_forward = self.fast


def train_losses(out, images, tags, cuts=(0.7, 0.6), floor=0.2):
    """Classification and mask loss of a batch, PAMR over every class, `images` in [0, 1] (paper, III-D)."""
    small = interpolate(images, out.masks.shape[-2:], mode="bilinear", align_corners=True)
    present = torch.cat((torch.ones_like(tags[:, :1]), tags), 1)[:, :, None, None]
    with torch.no_grad():
        refined = pamr(small, out.masks) * present
        refined = interpolate(refined, images.shape[-2:], mode="bilinear", align_corners=True)
        cut = torch.tensor([cuts[0]] + [cuts[1]] * (refined.shape[1] - 1))[:, None, None].to(images.device)
        claimed = (refined > (refined.amax((2, 3), keepdim=True) * cut).clamp_min(floor)).float()
        pseudo = claimed * (claimed.sum(1, keepdim=True) == 1)
    counts = pseudo.sum((2, 3))
    balance = (counts.sum(1, keepdim=True) - counts) / (1 + counts.sum(1, keepdim=True))
    large = interpolate(out.logits, images.shape[-2:], mode="bilinear", align_corners=True)
    entropy = -(large.log_softmax(1) * pseudo * balance[:, :, None, None]).sum(1).mean((1, 2))
    complete = ((counts > 0) | (present[:, :, 0, 0] == 0)).all(1)
    return multilabel_soft_margin_loss(out.scores, tags), (entropy * complete).mean()
