"""What pseudo labels cover, and how much of it is right."""

import numpy as np

from wsfcn_lib.data.classes import IGNORE


def label_shares(labels: np.ndarray, tags: np.ndarray, truth: np.ndarray | None = None) -> dict[str, float]:
    """Shares in 0..1 of the pseudo labels (H, W) of one image: class indices, 255 where no or no single class claims.

    `tags` (K - 1,) bool are the image's. foreground, background: of the pixels that are labelled so; right: of
    the foreground labels, by the truth (H, W), nan where nothing can be judged; complete: 1 where background and
    each class have a label, 0 for an image that has no mask loss.
    """
    background = labels == 0
    foreground = ~background & (labels != IGNORE)
    right = np.nan
    if truth is not None and (judged := foreground & (truth != IGNORE)).any():
        right = (labels == truth)[judged].mean()
    wanted = np.append(0, np.flatnonzero(tags) + 1)
    return {
        "foreground": foreground.mean(),
        "background": background.mean(),
        "right": right,
        "complete": float(np.isin(wanted, labels).all()),
    }
