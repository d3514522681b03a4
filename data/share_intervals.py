"""Wilson's interval of a share of right answers.

The score interval of Wilson (1927) keeps its width where all or none are right, since an error that was never seen may
still come; a bootstrap interval has none there.
"""

from scipy.stats import norm

Interval = tuple[float, float]


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


__all__ = ["Interval", "share_interval"]
