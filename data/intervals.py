"""Confidence intervals: Wilson's of a proportion, and the percentile interval of resampled values.

The score interval of Wilson (1927) has a width above 0 even where all or no predictions are correct, since an error
that was not observed may still occur; a bootstrap interval has width 0 there.
"""

import numpy as np
from scipy.stats import norm

Interval = tuple[float, float]


def share_interval(part: float, whole: float, level: float = 0.95) -> Interval:
    """Wilson's confidence interval of a proportion, (low, high) in [0, 1].

    With p = part / whole, n = whole and z the normal quantile of (1 + level) / 2, its ends are the proportions q for
    which (p - q)^2 = z^2 q (1 - q) / n.

    Args:
        part: Number of successes; for dependent trials, the mean proportion times the effective number of trials.
        whole: Number of trials, above 0; it need not be an integer.
        level: Approximate probability that the interval contains the true proportion, in (0, 1).

    Raises:
        ValueError: An argument is out of its range.
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


def percentile_interval(values: np.ndarray, level: float) -> Interval:
    """Returns the central part of resampled values, ignoring NaN.

    Args:
        values: Resampled values, (samples,).
        level: Share of the values inside the interval, in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1, got {level!r}")
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


__all__ = ["Interval", "percentile_interval", "share_interval"]
