"""Which images of a split are shown or looked at."""

from collections.abc import Sequence

import numpy as np

from wsfcn_lib.data.manifest import Sample


def varied(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Samples that bring a class not yet seen, in their order, then the first others; `count` at most."""
    seen, news, others = set(), [], []
    for sample in samples:
        classes = {*np.flatnonzero(sample.tags)}
        (others if classes <= seen else news).append(sample)
        seen |= classes
    return (news + others)[:count]


def spread_out(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` samples, spread evenly over all of them."""
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[place] for place in places]
