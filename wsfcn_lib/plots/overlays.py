"""Labels and activation maps as RGB pictures. Pure functions of arrays: (H, W) in, (H, W, 3) uint8 out."""

import matplotlib
import numpy as np

_COLOURS = matplotlib.colormaps["inferno"]  # even to the eye, also without colour vision


def colour_labels(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Class indices (H, W) in the colours of a palette (256, 3) uint8 by class index (255 = ignored)."""
    label, palette = np.asarray(label), np.asarray(palette)
    is_map = label.ndim == 2 and label.dtype.kind in "iub"
    if not is_map or ((label < 0) | (label >= len(palette))).any():
        raise ValueError(
            f"labels are {label.dtype} {label.shape}; they must be (H, W) integers in 0..{len(palette) - 1}"
        )
    return palette[label.astype(np.intp)].astype(np.uint8)


def overlay(image: np.ndarray, label: np.ndarray, palette: np.ndarray, opacity: float = 0.65) -> np.ndarray:
    """Class colours laid over an image (H, W, 3) uint8; background (class 0) stays as photographed."""
    tinted = _blend(image, colour_labels(label, palette), opacity)
    return np.where(np.asarray(label)[..., None] == 0, image, tinted)


def heat(image: np.ndarray, cam: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """An activation map (H, W) in [0, 1] over an image (H, W, 3) uint8: dark = 0, bright yellow = 1."""
    cam = np.asarray(cam, np.float64)
    if cam.ndim != 2 or not ((cam >= -1e-6) & (cam <= 1 + 1e-6)).all():
        raise ValueError(
            f"cam is {cam.shape} in [{cam.min():.3g}, {cam.max():.3g}]; "
            "it must be (H, W) in [0, 1]: divide by its maximum"
        )
    return _blend(image, 255 * _COLOURS(cam)[..., :3], opacity)


def _blend(image: np.ndarray, colours: np.ndarray, opacity: float) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.shape != colours.shape:
        raise ValueError(
            f"image is {image.dtype} {image.shape}; it must be uint8 {colours.shape}: "
            "resize the map to the image"
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity}; it must lie in [0, 1]")
    return np.rint((1 - opacity) * image + opacity * colours).astype(np.uint8)
