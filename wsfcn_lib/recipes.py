"""The two published rules for the background, by name: WS-FCN's ("wsfcn") and its ancestor's ("1stage"). No torch.

Everywhere: masks (K, H, W) are class probabilities in [0, 1], class 0 is background; tags (K-1,) of 0/1 say which
foreground classes the image holds, tags[c-1] being class c. A class without a tag never appears in a result.
"""

import numpy as np

RECIPES = ("wsfcn", "1stage")
BACKGROUND_MASK = 0.25  # wsfcn: a pixel is foreground where some present class exceeds this


def label_map(masks: np.ndarray, tags: np.ndarray, recipe: str = "wsfcn") -> np.ndarray:
    """Label of each pixel without CRF: argmax over background and present classes → (H, W) uint8.

    wsfcn: the background mask is the constant 0.25. 1stage: the network's background mask, cubed.
    """
    masks = _present_masks(masks, tags, recipe)
    masks[0] = BACKGROUND_MASK if recipe == "wsfcn" else masks[0] ** 3
    return masks.argmax(axis=0).astype(np.uint8)


def crf_masks(masks: np.ndarray, tags: np.ndarray, recipe: str = "wsfcn") -> np.ndarray:
    """Input of the dense CRF → (K, H, W) float32 in [0, 1], absent classes 0, not renormalised.

    wsfcn: background = (1 - max over the present foreground)^5. 1stage: the network's background mask, cubed.
    """
    masks = _present_masks(masks, tags, recipe)
    masks[0] = (1 - masks[1:].max(axis=0)) ** 5 if recipe == "wsfcn" else masks[0] ** 3
    return masks


def present_classes(tags: np.ndarray) -> np.ndarray:
    """Background and the tagged classes, as ascending uint8 class indices."""
    tags = np.asarray(tags)
    if not np.isin(tags, (0, 1)).all():
        raise ValueError(f"tags hold {tags[~np.isin(tags, (0, 1))][0]}; they must be 0 or 1: cut scores at a threshold first")
    return np.flatnonzero(np.concatenate([[1], tags])).astype(np.uint8)


def _present_masks(masks: np.ndarray, tags: np.ndarray, recipe: str) -> np.ndarray:
    """A checked float32 copy of the masks with absent classes set to 0."""
    masks, tags = np.asarray(masks), np.asarray(tags)
    if recipe not in RECIPES:
        raise ValueError(f"recipe is {recipe!r}; it must be one of {', '.join(map(repr, RECIPES))}")
    if masks.ndim != 3 or not 2 <= masks.shape[0] <= 255 or tags.shape != (masks.shape[0] - 1,):
        shapes = f"masks have shape {masks.shape} and tags {tags.shape}"
        raise ValueError(f"{shapes}; they must be (K, H, W), K in 2..255, and (K-1,): tags leave the background out")
    if masks.dtype.kind != "f" or not np.isfinite(masks).all():
        raise ValueError(f"masks of {masks.dtype} hold no finite probabilities; look at the network's output for this image")
    present = np.zeros(masks.shape, np.float32)
    present[present_classes(tags)] = masks[present_classes(tags)]
    return present
