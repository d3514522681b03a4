"""Intervals from counts, without the images that were counted: Wilson's for shares, bootstrap for all else.

A share of right answers has the score interval of Wilson (1927), which keeps its width where all or none are right: an
error that was never seen may still come. Other figures have bootstrap percentile intervals (Efron 1979), which know
only of what was seen; where all resampled values are one, there is no interval.

Drawing n of n images with replacement and counting them anew is the same as drawing the counts from a multinomial
distribution with the shares of the cells as probabilities: the images of one cell are alike in all that is computed
from the cells. So the confusion matrix is resampled, not the images, and that is the bootstrap over images itself.
"""

from collections.abc import Iterator

import numpy as np
from scipy.stats import norm

Interval = tuple[float, float]


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


def share_interval(part: float, whole: float, level: float = 0.95) -> Interval:
    """Wilson's interval of a share, (low, high) in [0, 1].

    With p = part / whole, n = whole and z the normal quantile of the level, its ends are those shares q for which
    (p - q)^2 = z^2 q (1 - q) / n.

    Args:
        part: Number of successes; of trials that depend on each other, the mean share times the effective number.
        whole: Number of trials, above 0; it need not be whole.
        level: Chance that the interval holds the true share, about, in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1, got {level!r}")
    if not 0 <= part <= whole or not whole > 0:
        raise ValueError(f"a share is 0 to all of at least one, got {part!r} of {whole!r}")
    squared = float(norm.ppf((1 + level) / 2)) ** 2
    share = part / whole
    middle = (part + squared / 2) / (whole + squared)
    half = (squared * (whole * share * (1 - share) + squared / 4)) ** 0.5 / (whole + squared)
    low = 0.0 if part == 0 else max(0.0, middle - half)
    high = 1.0 if part == whole else min(1.0, middle + half)
    return low, high


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


__all__ = ["Interval", "group_draws", "percentile_interval", "resampled_counts", "share_interval", "varied"]
