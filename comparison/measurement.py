"""Data structures of a comparison: numbers with unit, interval and protocol, grouped in sections."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from ..data.intervals import Interval, percentile_interval, share_interval

LEVEL, SAMPLES = 0.95, 1000
# Texts for protocols: the intervals of `mean_share_interval` with one trial per image, and with several.
WILSON = "interval: Wilson's over images"
WILSON_IMAGES = "interval: Wilson's, with the effective number of trials (Korn and Graubard 1998)"


@dataclass(frozen=True)
class Measurement:
    """One measured number.

    Args:
        contestant: Name of the contestant; "A against B" for a pair.
        quantity: Name of the measured quantity, such as "latency".
        value: Measured number; None if there is none, with the reason in `note`.
        unit: Unit, such as "ms"; "1" for a plain number.
        protocol: Id of the text that says how it was measured.
        seed: Seed of random choices, including the drawn images; None if there are none.
        interval: Interval of 95 %, Wilson's for shares and bootstrap for others; None if the number is exact or single.
        at: Conditions of the measurement, such as {"pixels": 224}.
        note: Remark on this number for the reader.
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
        """Converts the measurement to plain data."""
        return asdict(self)


@dataclass
class Section:
    """Section of a comparison.

    Args:
        name: Name of the section, as in `--sections`.
        protocols: Texts by id that say how each number was measured.
        measurements: Measured numbers.
        notes: Remarks on all of the numbers.
        maps: Tables of numbers for plots, by contestant or by a name of their content.
    """

    name: str
    protocols: dict[str, str]
    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    maps: dict[str, list[list[float]]] = field(default_factory=dict)

    def find(self, quantity: str, contestant: str | None = None, **at: Any) -> list[Measurement]:
        """Selects the measurements of a quantity, optionally of one contestant and under the given conditions."""
        return [
            one
            for one in self.measurements
            if one.quantity == quantity
            and contestant in (None, one.contestant)
            and all(one.at.get(name) == value for name, value in at.items())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Converts the section to plain data."""
        return {
            "name": self.name,
            "protocols": self.protocols,
            "measurements": [one.to_dict() for one in self.measurements],
            "notes": self.notes,
            "maps": self.maps,
        }


class Report(Protocol):
    """Content of a report; implemented by `Comparison`."""

    contestants: list[dict[str, Any]]
    sections: list[Section]
    about: dict[str, Any]

    @property
    def verdict_by_heading(self) -> dict[str, list[str]]:
        """Sentences derived from the measurements, by heading."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Converts the content to plain data."""
        ...


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, seed: int, statistic: Callable[..., Any] = np.mean
) -> Interval | None:
    """Computes the 95 % percentile interval of a statistic over resampled values; None for fewer than two values.

    Args:
        values: Values (n,), or (n, k) of which rows are resampled.
        seed: Seed of the resampling.
        statistic: Function of resampled values and `axis`.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return None
    rows = np.random.default_rng(seed).integers(len(values), size=(SAMPLES, len(values)))
    return percentile_interval(np.asarray(statistic(values[rows], axis=1)), LEVEL)


def mean_share_interval(shares: Sequence[float] | np.ndarray, trials: int = 1) -> Interval | None:
    """Computes Wilson's 95 % interval of the mean of shares, in [0, 1]; None without shares.

    With one trial per image it is the interval of a rate. With several trials per image, which depend on each other,
    their number is replaced by the effective one, m (1 - m) / var(m) with m the mean (Korn and Graubard 1998), limited
    to between the number of images and that of all trials. If all shares are 1 it is the number of images, as if all
    trials of an image had one outcome.

    Args:
        shares: Share of each image, in [0, 1], (n,).
        trials: Number of trials per image.
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
    """Computes the interval of a weighted sum of independent shares (Zou and Donner 2008); None if a part has none.

    The distance of each end from the sum is the square root of the summed squares of the weighted distances of the
    parts' ends from their shares.

    Args:
        parts: Weight, share and interval of each part; parts with weight 0 are left out.
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
    """Converts an interval of a share to per cent."""
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def count_of(number: int, thing: str) -> str:
    """Formats a number of things, such as "1 thread" and "2 threads"."""
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
