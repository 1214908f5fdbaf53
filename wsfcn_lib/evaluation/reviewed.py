"""What reviewers ask about weakly supervised masks beside mIoU: companions painted along, and calibration of tags."""

from collections.abc import Hashable, Sequence

import numpy as np

from wsfcn_lib.evaluation.image_counts import SPECK, Counts, drawn_counts
from wsfcn_lib.metrics import error_shares, mean_iou

BINS = 15  # of the calibration error, as in Guo et al.
PAIRS = 30  # so many pairs are listed


def co_occurrence(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often a companion is painted into images without it: alone, painted, together, (K, K) int64 each.

    From pixels per class that are right, true, predicted, (N, 3, K). Rows are classes of the truth, columns
    companions. alone: images whose truth has the class and not the companion; painted: those of them where
    the companion takes at least SPECK of the counted pixels; together: images whose truth has both. Tags alone
    cannot tell a train from its rails (EPS, Lee et al., CVPR 2021, counts such confusion in pixels; here an
    image is one case, as large as it may be). The background and pairs of a class with itself are 0.
    """
    counts = np.asarray(counts)
    true = counts[:, 1] > 0
    least = np.maximum(SPECK * counts[:, 1].sum(axis=1, keepdims=True), 1)
    painted = ~true & (counts[:, 2] >= least)
    pairs = np.stack([true.T.astype(np.int64) @ part.astype(np.int64) for part in (~true, painted, true)])
    pairs[:, 0] = pairs[:, :, 0] = 0
    pairs[:, range(pairs.shape[1]), range(pairs.shape[1])] = 0
    return pairs[0], pairs[1], pairs[2]


def companions(counts: Counts, names: Sequence[str], most: int = PAIRS) -> list[dict]:
    """The pairs whose companion is painted in most images: class, companion, together, alone, and by variant.

    `alone` as in `co_occurrence`; `painted`: {variant: images}. Sorted by the sum over the variants.
    """
    tables = {variant: co_occurrence(counts.of(variant)) for variant in counts.variants}
    alone, _, together = next(iter(tables.values()))
    total = sum(painted for _, painted, _ in tables.values())
    rows = []
    for place in np.argsort(-total, axis=None, kind="stable")[:most]:
        row, column = np.unravel_index(place, total.shape)
        if total[row, column]:
            rows.append(
                {
                    "class": names[row],
                    "companion": names[column],
                    "together": int(together[row, column]),
                    "alone": int(alone[row, column]),
                    "painted": {variant: int(each[1][row, column]) for variant, each in tables.items()},
                }
            )
    return rows


def per_class(counts: Counts, variant: Hashable, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """{class: boundary_iou, false_positive, false_negative}, shares of the union in 0..1; None for absent classes.

    With the class's IoU, the last two add up to 1, see `metrics.error_shares`.
    """
    once = np.ones((1, len(counts.images)))
    whole = drawn_counts(counts.of(variant), once)[0]
    strip = drawn_counts(counts.boundary[:, counts.variants.index(variant)], once)[0]
    rows = {}
    for index, name in enumerate(names):
        part, edge = whole[:, index, None], strip[:, index, None]
        values = (mean_iou(edge), *error_shares(part)) if part.any() else (None, None, None)
        keys = ("boundary_iou", "false_positive", "false_negative")
        rows[name] = {key: None if value is None else float(value) for key, value in zip(keys, values)}
    return rows


def tag_calibration(probabilities: np.ndarray, tags: np.ndarray, bins: int = BINS) -> dict[str, float]:
    """Whether a probability of 0.8 means 8 of 10: of (N, C) probabilities in [0, 1] and tags, all pairs alike.

    calibration_error: mean distance, over equal bins and weighted by their pairs, of a bin's mean probability
    from the share of its pairs that are there (Guo et al., ICML 2017, of a binary answer).
    brier: mean squared distance (Brier 1950). mean_probability and present: the two means, which tell in which
    direction. ValueError where there is nothing, or shapes differ.
    """
    probabilities, tags = np.asarray(probabilities, float), np.asarray(tags)
    if probabilities.shape != tags.shape or not probabilities.size:
        raise ValueError(
            f"probabilities have shape {probabilities.shape} and tags {tags.shape}; both must be (images, classes)"
        )
    flat, present = probabilities.ravel(), tags.ravel().astype(float)
    # not by torchmetrics, whose import takes longer than the counts of a hundred images; a test compares with it
    place = np.minimum((flat * bins).astype(int), bins - 1)
    off = np.bincount(place, flat) - np.bincount(place, present)  # of a bin: its pairs times its distance
    return {
        "calibration_error": float(np.abs(off).sum() / flat.size),
        "brier": float(np.mean((probabilities - tags) ** 2)),
        "mean_probability": float(probabilities.mean()),
        "present": float(tags.mean()),
    }
