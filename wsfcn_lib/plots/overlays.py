"""Activation maps over images. Pure functions of arrays: (H, W) in, (H, W, 3) uint8 out."""

import matplotlib
import numpy as np

from wsfcn_lib.data.painting import blend

_COLOURS = matplotlib.colormaps["inferno"]  # even to the eye, also without colour vision
DARKEST = 0.35  # where on that scale a map of 0 stands: below, it would darken photographs


def heat(image: np.ndarray, cam: np.ndarray, opacity: float = 0.85) -> np.ndarray:
    """An activation map (H, W) in [0, 1] over an image (H, W, 3) uint8, from violet to bright yellow.

    The opacity follows the map: where it is 0 the image stays as it is, where it is 1 its share is `opacity`.
    """
    cam = np.asarray(cam, np.float32)
    if cam.ndim != 2 or not ((cam >= -1e-6) & (cam <= 1 + 1e-6)).all():
        raise ValueError(
            f"cam is {cam.shape} in [{cam.min():.3g}, {cam.max():.3g}]; "
            "it must be (H, W) in [0, 1]: divide by its maximum"
        )
    cam = cam.clip(0, 1)
    colours = 255 * _COLOURS(DARKEST + (1 - DARKEST) * cam)[..., :3]
    return blend(image, colours, opacity * cam)
