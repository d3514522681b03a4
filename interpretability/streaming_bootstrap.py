"""Bootstrap intervals of means over any number of images, with memory for the resamples alone.

Drawing n of n images with replacement gives each a count that is close to Poisson(1) (Hanley and MacGibbon 2006;
Chamandy et al. 2012): so each image, as it comes, is added to each resample as often as its own draw says. The draws
depend on the seed and the image's number only: the resamples of several methods are of the same images, and their
differences are paired.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Args:
        mean: Over the images that have the measure.
        low: Lower end.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    def to_list(self) -> list[float]:
        """Mean, lower and upper end."""
        return [self.mean, self.low, self.high]


class StreamingBootstrap:
    """Resampled means of several measures.

    Args:
        measures: How many.
        samples: Resamples.
        seed: Of the draws.
    """

    def __init__(self, measures: int, samples: int = 1000, seed: int = 0) -> None:
        self.samples, self.seed = samples, seed
        # row 0 is the sum over images as they are, the others are resamples
        self._sums = np.zeros((samples + 1, measures))
        self._weights = np.zeros((samples + 1, measures))

    def update(self, first: int, values: np.ndarray) -> None:
        """Adds images.

        Args:
            first: The number of the first of them, from 0; each number once.
            values: (images, measures); NaN where an image lacks a measure.
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
        """(samples + 1, measures): the mean itself, then the resampled ones; NaN where no image has the measure."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._sums / self._weights

    def estimates(self, level: float = 0.95) -> list[Estimate]:
        """Each measure's mean and percentile interval."""
        return [estimate(column, level) for column in self.replicates.T]

    def differences(self, other: "StreamingBootstrap", level: float = 0.95) -> list[Estimate]:
        """Each measure's mean less the other's, over the same images.

        Raises:
            ValueError: The resamples are not the same ones.
        """
        if (self.samples, self.seed) != (other.samples, other.seed):
            raise ValueError(
                f"differences need the same resamples, got {self.samples} of seed {self.seed} and {other.samples} of "
                f"seed {other.seed}"
            )
        return [estimate(column, level) for column in (self.replicates - other.replicates).T]


def estimate(replicates: np.ndarray, level: float) -> Estimate:
    """The first value with the percentile interval of the others; NaN throughout where the first is none."""
    if not np.isfinite(replicates[0]):
        return Estimate(float("nan"), float("nan"), float("nan"))
    low, high = np.nanquantile(replicates[1:], [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(replicates[0]), float(low), float(high))


__all__ = ["Estimate", "StreamingBootstrap", "estimate"]
