"""Streaming bootstrap: intervals of means over any number of images, in memory for the resampled sums only.

When n of n images are drawn with replacement, the count of each image is close to Poisson(1) (Hanley and MacGibbon
2006; Chamandy et al. 2012). Each image is therefore added to each resample as often as a Poisson draw says. The draws
depend only on the seed and the image's number, so that the resamples of several methods contain the same images and
their differences are paired.
"""

from dataclasses import dataclass

import numpy as np

from ...data.intervals import percentile_interval, share_interval


@dataclass(frozen=True)
class Estimate:
    """Mean with its interval.

    Args:
        mean: Mean over the images that have the measure.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    mean: float
    low: float
    high: float

    def to_list(self) -> list[float]:
        """Mean, lower end and upper end as a list."""
        return [self.mean, self.low, self.high]


class StreamingBootstrap:
    """Resampled means of several measures.

    Args:
        measures: Number of measures.
        samples: Number of resamples; 1000 by default.
        seed: Random seed of the draws; 0 by default.
    """

    def __init__(self, measures: int, samples: int = 1000, seed: int = 0) -> None:
        self.samples, self.seed = samples, seed
        # row 0 is the sum over the original images, the other rows are resamples
        self._sums = np.zeros((samples + 1, measures))
        self._weights = np.zeros((samples + 1, measures))

    def update(self, first: int, values: np.ndarray) -> None:
        """Adds images.

        Args:
            first: Number of the first image, from 0; each image is added once.
            values: Measures (images, measures); NaN where an image lacks a measure.
        """
        values = np.asarray(values, dtype=np.float64)
        known = np.isfinite(values)
        for offset, (row, has) in enumerate(zip(np.where(known, values, 0.0), known, strict=True)):
            draws = np.random.default_rng([self.seed, first + offset]).poisson(1.0, self.samples)
            times = np.concatenate([[1], draws])[:, None]
            self._sums += times * row
            self._weights += times * has

    @property
    def replicates(self) -> np.ndarray:
        """Means (samples + 1, measures): the original one, then the resampled ones; NaN if no image has the measure."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._sums / self._weights

    @property
    def counts(self) -> np.ndarray:
        """Number of images that have each measure, (measures,)."""
        return self._weights[0]

    def estimates(self, level: float = 0.95) -> list[Estimate]:
        """Mean of each measure with its percentile interval at the given confidence level."""
        return [estimate(column, level) for column in self.replicates.T]

    def differences(self, other: "StreamingBootstrap", level: float = 0.95) -> list[Estimate]:
        """Mean of each measure minus that of `other` over the same images, with its percentile interval.

        Raises:
            ValueError: The two use different resamples.
        """
        self._check_paired(other)
        return [estimate(column, level) for column in (self.replicates - other.replicates).T]

    def share(self, place: int, level: float = 0.95) -> Estimate:
        """Mean of a measure that is a share in [0, 1], with Wilson's interval, which has a width at 0 and 1 too.

        Args:
            place: Index of the measure.
            level: Approximate confidence level of the interval, in (0, 1); 0.95 by default.
        """
        mean, images = float(self.replicates[0, place]), float(self.counts[place])
        if not np.isfinite(mean):
            return Estimate(mean, mean, mean)
        return Estimate(mean, *share_interval(min(mean, 1.0) * images, images, level))

    def share_difference(self, other: "StreamingBootstrap", place: int, level: float = 0.95) -> Estimate:
        """Difference of two shares over the same images, with an interval from those of both (Zou and Donner 2008).

        With a and b the shares, (l, u) and (m, v) their intervals and r the correlation of the resampled shares, the
        lower end is a - b - sqrt((a - l)^2 - 2 r (a - l) (v - b) + (v - b)^2), and the upper end is its mirror image.

        Args:
            other: Bootstrap whose share is subtracted.
            place: Index of the measure in both.
            level: Approximate confidence level of the interval, in (0, 1); 0.95 by default.

        Raises:
            ValueError: The two use different resamples.
        """
        self._check_paired(other)
        own, its = self.share(place, level), other.share(place, level)
        columns = np.stack([self.replicates[1:, place], other.replicates[1:, place]])
        columns = columns[:, np.isfinite(columns).all(axis=0)]
        varied = columns.shape[1] > 1 and bool((np.ptp(columns, axis=1) > 1e-12).all())
        correlation = float(np.corrcoef(columns)[0, 1]) if varied else 0.0
        difference = own.mean - its.mean
        below = _joined(own.mean - own.low, its.high - its.mean, correlation)
        above = _joined(own.high - own.mean, its.mean - its.low, correlation)
        return Estimate(difference, max(-1.0, difference - below), min(1.0, difference + above))

    def _check_paired(self, other: "StreamingBootstrap") -> None:
        if (self.samples, self.seed) != (other.samples, other.seed):
            raise ValueError(
                f"differences need the same resamples, got {self.samples} of seed {self.seed} and {other.samples} of "
                f"seed {other.seed}"
            )


def _joined(first: float, second: float, correlation: float) -> float:
    return float(max(0.0, first**2 - 2 * correlation * first * second + second**2) ** 0.5)


def estimate(replicates: np.ndarray, level: float) -> Estimate:
    """First value with the percentile interval of the others; all NaN if the first value is not finite."""
    if not np.isfinite(replicates[0]):
        return Estimate(float("nan"), float("nan"), float("nan"))
    return Estimate(float(replicates[0]), *percentile_interval(replicates[1:], level))


__all__ = ["Estimate", "StreamingBootstrap", "estimate"]
