"""Bootstrap intervals computed from counts, without the counted images.

Shares of right answers have Wilson's interval instead (`data/share_intervals.py`). Other metrics have bootstrap
percentile intervals (Efron 1979), which reflect only the observed images; if all resampled values are equal, there is
no interval.

Drawing n of n images with replacement and counting them anew is the same as drawing the counts from a multinomial
distribution with the shares of the cells as probabilities: the images of one cell are alike in every metric that is
computed from the cells. So resampling the confusion matrix is exactly the bootstrap over images.
"""

from collections.abc import Iterator

import numpy as np


def varied(values: np.ndarray) -> bool:
    """Whether resampled values differ from each other, ignoring NaN."""
    known = values[~np.isnan(values)]
    return len(known) > 0 and bool(np.ptp(known) > 1e-12)


def resampled_counts(
    confusion: np.ndarray, samples: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draws confusion matrices of resampled images, reduced to counts per class.

    Args:
        confusion: Counts, (C, C), rows the true class.
        samples: Number of draws.
        generator: Random generator of the draws.

    Yields:
        Right answers, true images and predictions per class, each (C,).
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
    """Draws as many groups as there are, with replacement: how often each is drawn, float64 (samples, groups)."""
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=samples).astype(np.float64)


__all__ = ["group_draws", "resampled_counts", "varied"]
