"""What a comparison consists of: numbers, each with its unit, its interval and the way it was got."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from ..training.bootstrap import Interval, percentile_interval

LEVEL, SAMPLES = 0.95, 1000


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
        interval: 95 %, by bootstrap; None where the number is exact, or single.
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


def count_of(number: int, thing: str) -> str:
    """Such as "1 thread" and "2 threads"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


__all__ = ["LEVEL", "SAMPLES", "Measurement", "Report", "Section", "bootstrap_interval", "count_of"]
