"""Bootstrap intervals from counts, without the images that were counted.

Shares of right answers have Wilson's interval instead (`data/share_intervals.py`). Other figures have bootstrap
percentile intervals (Efron 1979), which know only of what was seen; where all resampled values are one, there is no
interval.

Drawing n of n images with replacement and counting them anew is the same as drawing the counts from a multinomial
distribution with the shares of the cells as probabilities: the images of one cell are alike in all that is computed
from the cells. So the confusion matrix is resampled, not the images, and that is the bootstrap over images itself.
"""

from collections.abc import Iterator

import numpy as np

from ...data.share_intervals import Interval


def percentile_interval(values: np.ndarray, level: float) -> Interval:
    """The middle part of resampled values, those that are no number left out.

    Args:
        values: (samples,).
        level: Part of them that lies inside, in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1, got {level!r}")
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def varied(values: np.ndarray) -> bool:
    """Whether resampled values differ from each other, those that are no number left out."""
    known = values[~np.isnan(values)]
    return len(known) > 0 and bool(np.ptp(known) > 1e-12)


def resampled_counts(
    confusion: np.ndarray, samples: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Confusion matrices of resampled images, as the images per class that are found, are there and are claimed.

    Args:
        confusion: (C, C) counts, rows the true class.
        samples: How many.
        generator: Of the draws.

    Yields:
        Three times (C,).
    """
    true, predicted = np.nonzero(confusion)
    cells = confusion[true, predicted]
    count, shares, right = len(confusion), cells / cells.sum(), true == predicted
    for _ in range(samples):
        drawn = generator.multinomial(cells.sum(), shares)
        found = np.bincount(true[right], weights=drawn[right], minlength=count)
        support = np.bincount(true, weights=drawn, minlength=count)
        yield found, support, np.bincount(predicted, weights=drawn, minlength=count)


def group_draws(groups: int, samples: int, generator: np.random.Generator) -> np.ndarray:
    """(samples, groups), how often each group is drawn when as many groups are drawn with replacement."""
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=samples).astype(np.float64)


__all__ = ["group_draws", "percentile_interval", "resampled_counts", "varied"]
