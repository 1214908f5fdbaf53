"""A bar for what takes more than a moment."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def progress(items: Iterable | None, name: str, total: int | None = None, least: int = 0, **options) -> tqdm:
    """A bar that is readable in a notebook, a terminal and a log; none for at most `least` things, done in two seconds."""
    return tqdm(
        items,
        name,
        total,
        disable=least > 0 and total <= least,
        file=sys.stdout,
        mininterval=5,
        ncols=80,
        **options,
    )
