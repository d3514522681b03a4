"""What a run's folder says of a classifier's metrics besides their values: intervals, classes, plots."""

from pathlib import Path
from typing import Any, Protocol

import torch

from .....data.share_intervals import Interval
from ...plots import save_confusion_matrix, save_reliability

LARGEST_CONFUSION = 200  # classes whose confusion is kept in `metrics.json`


class Counted(Protocol):
    """Counts of a classifier, whether an image has one label or any number of them."""

    @property
    def confusion(self) -> torch.Tensor | None:
        """(C, C), rows the true class; None where an image has any number of labels."""

    def intervals(self) -> dict[str, Interval]:
        """Intervals (low, high) of metrics, by name."""

    def per_class(self, names: list[str]) -> list[dict[str, Any]]:
        """Metrics of each class."""

    def reliability(self) -> list[dict[str, Any]]:
        """Confidence against accuracy."""


def measurements(counts: Counted, names: list[str]) -> dict[str, Any]:
    """Intervals, classes, confusion and calibration, for `metrics.json`."""
    confusion = counts.confusion
    return {
        "intervals": {name: list(ends) for name, ends in counts.intervals().items()},
        "share_intervals": "wilson",  # of accuracies; runs without the entry have bootstrap intervals of all metrics
        "per_class": counts.per_class(names),
        "confusion": confusion.tolist() if confusion is not None and len(names) <= LARGEST_CONFUSION else None,
        "reliability": counts.reliability(),
    }


def save_plots(counts: Counted, names: list[str], folder: Path) -> None:
    """Writes `reliability.png`, and `confusion_matrix.png` where an image has one label."""
    if counts.confusion is not None:
        save_confusion_matrix(counts.confusion.numpy(), names, folder / "confusion_matrix.png")
    if bins := counts.reliability():
        save_reliability(bins, folder / "reliability.png")


__all__ = ["measurements", "save_plots"]
