"""Classification results in a run's folder besides the metric values: intervals, classes and plots."""

from pathlib import Path
from typing import Any, Protocol

import torch

from .....data.intervals import Interval
from ...plots import save_confusion_matrix, save_reliability

LARGEST_CONFUSION = 200  # limit on the number of classes for storing the confusion matrix in `metrics.json`


class Counted(Protocol):
    """Counts of a classifier, for one label or any number of labels per image."""

    @property
    def confusion(self) -> torch.Tensor | None:
        """Confusion matrix (C, C), rows the true class; None if an image has any number of labels."""

    def intervals(self) -> dict[str, Interval]:
        """Computes intervals (low, high) of metrics, by name."""

    def per_class(self, names: list[str]) -> list[dict[str, Any]]:
        """Computes the metrics of each class."""

    def reliability(self) -> list[dict[str, Any]]:
        """Lists confidence and accuracy per bin."""


def measurements(counts: Counted, names: list[str]) -> dict[str, Any]:
    """Collects intervals, metrics per class, confusion and calibration for `metrics.json`."""
    confusion = counts.confusion
    return {
        "intervals": {name: list(ends) for name, ends in counts.intervals().items()},
        "share_intervals": "wilson",  # of accuracies; older runs lack this entry and have bootstrap intervals
        "per_class": counts.per_class(names),
        "confusion": confusion.tolist() if confusion is not None and len(names) <= LARGEST_CONFUSION else None,
        "reliability": counts.reliability(),
    }


def save_plots(counts: Counted, names: list[str], folder: Path) -> None:
    """Writes `reliability.png`, and `confusion_matrix.png` if each image has one label."""
    if counts.confusion is not None:
        save_confusion_matrix(counts.confusion.numpy(), names, folder / "confusion_matrix.png")
    if bins := counts.reliability():
        save_reliability(bins, folder / "reliability.png")


__all__ = ["measurements", "save_plots"]
