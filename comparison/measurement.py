"""What a comparison consists of: numbers, each with its unit, its interval and the way it was got."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from ..data.share_intervals import Interval, share_interval
from ..training.runtime.bootstrap import percentile_interval

LEVEL, SAMPLES = 0.95, 1000
# For protocols: the intervals of `mean_share_interval` with one trial per image, and with several.
WILSON = "interval: Wilson's over images"
WILSON_IMAGES = "interval: Wilson's, with the effective number of trials (Korn and Graubard 1998)"


@dataclass(frozen=True)
class Measurement:
    """One number.

    Args:
        contestant: Whose; "A against B" of two.
        quantity: What, such as "latency".
        value: The number; None where there is none, and `note` says why.
        unit: Such as "ms"; "1" of a plain number.
        protocol: Id of the text that says how it was measured.
        seed: Of its random choices, images drawn included; None where there are none.
        interval: 95 %, Wilson's for shares and by bootstrap for all else; None where the number is exact, or single.
        at: Under which conditions, such as {"pixels": 224}.
        note: What a reader must know of this one number.
    """

    contestant: str
    quantity: str
    value: float | None
    unit: str
    protocol: str
    seed: int | None = None
    interval: Interval | None = None
    at: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass
class Section:
    """A part of the comparison.

    Args:
        name: As `--sections` has it.
        protocols: Text by id of how each number was measured.
        measurements: The numbers.
        notes: What holds for all of them.
        maps: Tables for pictures: by contestant, or by a name of what they show, rows of numbers.
    """

    name: str
    protocols: dict[str, str]
    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    maps: dict[str, list[list[float]]] = field(default_factory=dict)

    def find(self, quantity: str, contestant: str | None = None, **at: Any) -> list[Measurement]:
        """Those of a quantity, of one contestant, under these conditions."""
        return [
            one
            for one in self.measurements
            if one.quantity == quantity
            and contestant in (None, one.contestant)
            and all(one.at.get(name) == value for name, value in at.items())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "protocols": self.protocols,
            "measurements": [one.to_dict() for one in self.measurements],
            "notes": self.notes,
            "maps": self.maps,
        }


class Report(Protocol):
    """What a report is written of; `Comparison` is one."""

    contestants: list[dict[str, Any]]
    sections: list[Section]
    about: dict[str, Any]

    @property
    def verdict(self) -> list[str]:
        """Sentences that follow from the figures."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        ...


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, seed: int, statistic: Callable[..., Any] = np.mean
) -> Interval | None:
    """The 95 % percentile interval of a statistic over resampled values; None of fewer than two.

    Args:
        values: (n,), or (n, k) whose rows are drawn.
        seed: Of the draws.
        statistic: Takes values and `axis`.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return None
    rows = np.random.default_rng(seed).integers(len(values), size=(SAMPLES, len(values)))
    return percentile_interval(np.asarray(statistic(values[rows], axis=1)), LEVEL)


def mean_share_interval(shares: Sequence[float] | np.ndarray, trials: int = 1) -> Interval | None:
    """Wilson's 95 % interval of the mean of shares, in [0, 1]; None of no shares.

    With one trial per image it is that of a rate. With several, which depend on each other, the number of trials is
    replaced by the effective one, m (1 - m) / var(m) with m the mean (Korn and Graubard 1998), but not below the number
    of images nor above that of all trials: where all shares are 1 it is the number of images, as if an image's trials
    all went the same way.

    Args:
        shares: (n,), of each image, in [0, 1].
        trials: How many each of them is the share of.
    """
    values = np.asarray(shares, dtype=np.float64)
    count = len(values)
    if not count:
        return None
    mean = min(1.0, max(0.0, float(values.mean())))
    effective = float(count)
    if count > 1 and trials > 1 and (variance := float(values.var(ddof=1)) / count) > 0:
        effective = min(max(mean * (1 - mean) / variance, count), count * trials)
    return share_interval(mean * effective, effective, LEVEL)


def weighted_interval(parts: Sequence[tuple[float, float, Interval | None]]) -> Interval | None:
    """The interval of a weighted sum of independent shares (Zou and Donner 2008); None where one has none.

    Each end is as far from the sum as the square root of the summed squares of the weighted distances of the parts'
    ends from their shares.

    Args:
        parts: Weight, share and interval of each; those of weight 0 are left out.
    """
    used = [part for part in parts if part[0] > 0]
    total = sum(weight * share for weight, share, _ in used)
    below = above = 0.0
    for weight, share, interval in used:
        if interval is None:
            return None
        below += (weight * (share - interval[0])) ** 2
        above += (weight * (interval[1] - share)) ** 2
    return max(0.0, total - below**0.5), min(1.0, total + above**0.5)


def in_percent(interval: Interval | None) -> Interval | None:
    """An interval of a share in per cent."""
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def count_of(number: int, thing: str) -> str:
    """Such as "1 thread" and "2 threads"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


__all__ = [
    "LEVEL",
    "SAMPLES",
    "WILSON",
    "WILSON_IMAGES",
    "Measurement",
    "Report",
    "Section",
    "bootstrap_interval",
    "count_of",
    "in_percent",
    "mean_share_interval",
    "weighted_interval",
]
