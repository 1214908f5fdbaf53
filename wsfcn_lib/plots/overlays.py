"""Activation maps over images. Pure functions of arrays: (H, W) in, (H, W, 3) uint8 out."""

import matplotlib
import numpy as np

from wsfcn_lib.data.painting import blend

_COLOURS = matplotlib.colormaps["inferno"]  # even to the eye, also without colour vision


def heat(image: np.ndarray, cam: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """An activation map (H, W) in [0, 1] over an image (H, W, 3) uint8: dark = 0, bright yellow = 1."""
    cam = np.asarray(cam, np.float64)
    if cam.ndim != 2 or not ((cam >= -1e-6) & (cam <= 1 + 1e-6)).all():
        raise ValueError(
            f"cam is {cam.shape} in [{cam.min():.3g}, {cam.max():.3g}]; "
            "it must be (H, W) in [0, 1]: divide by its maximum"
        )
    return blend(image, 255 * _COLOURS(cam)[..., :3], opacity)
