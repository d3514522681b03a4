"""Metrics of a classifier that gives each image one label; memory does not grow with the number of images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from .....data.intervals import Interval, percentile_interval, share_interval
from ....runtime.bootstrap import resampled_counts, varied
from ....runtime.exact_sums import rounded
from .calibration import CalibrationBins
from .f1_scores import class_rows, macro_f1, weighted_f1
from .reporting import measurements, save_plots
from .temperature import TemperatureSums


@dataclass
class ClassificationMetrics:
    """Counts of a single-label classifier.

    Args:
        num_labels: Number of classes C.
        confusion: Confusion matrix (C, C), rows the true class, columns the predicted one.
        top5: Number of images whose class is among the five most likely.
        loss_sum: Sum of the cross-entropy.
        calibration: Calibration of the most likely class.
        temperature: Sums from which temperature scaling is fitted.
        headline: Key in `compute` by which two models are compared.
    """

    num_labels: int
    confusion: torch.Tensor = field(init=False)
    top5: int = 0
    loss_sum: float = 0.0
    calibration: CalibrationBins = field(default_factory=CalibrationBins, repr=False)
    temperature: TemperatureSums = field(default_factory=TemperatureSums, repr=False)
    headline: str = "accuracy"

    def __post_init__(self) -> None:
        self.confusion = torch.zeros(self.num_labels, self.num_labels, dtype=torch.int64)

    @property
    def images(self) -> int:
        """Number of counted images."""
        return int(self.confusion.sum())

    @property
    def decisions(self) -> int:
        """Number of decisions whose mean the loss is: one per image."""
        return self.images

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch: logits (B, C) and class indices (B,).

        Raises:
            ValueError: A shape or a label does not fit, or a logit is infinite or NaN.
        """
        logits, labels = logits.detach().float().cpu(), labels.detach().cpu().long()
        self._check(logits, labels)
        predicted = logits.argmax(dim=-1)
        self.confusion.view(-1).index_add_(0, labels * self.num_labels + predicted, torch.ones_like(labels))
        best = logits.topk(min(5, self.num_labels), dim=-1).indices
        self.top5 += int((best == labels[:, None]).any(dim=-1).sum())
        log_probabilities = logits.double().log_softmax(dim=-1)
        self.loss_sum -= rounded(log_probabilities.gather(1, labels[:, None])).sum().item()
        self.calibration.update(log_probabilities.amax(dim=-1).exp(), predicted == labels)
        self.temperature.update(logits, labels)

    def _check(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.num_labels or labels.shape != logits.shape[:1]:
            raise ValueError(
                f"logits must be (B, {self.num_labels}) and labels (B,), got {tuple(logits.shape)} and "
                f"{tuple(labels.shape)}"
            )
        check_finite(logits)
        if bool(((labels < 0) | (labels >= self.num_labels)).any()):
            raise ValueError(f"labels must lie in 0 to {self.num_labels - 1}, got {labels.min()} to {labels.max()}")

    def compute(self) -> dict[str, float]:
        """Computes accuracy, top-5 accuracy, macro and weighted F1, calibration error (in [0, 1]) and the loss."""
        per_class = self._per_class()
        found, support, _ = per_class
        count = float(support.sum())
        if count == 0:
            raise ValueError("no image was counted")
        return {
            "accuracy": float(found.sum()) / count,
            "top5_accuracy": self.top5 / count,
            "loss": self.loss_sum / count,
            "macro_f1": float(macro_f1(*per_class)),
            "weighted_f1": float(weighted_f1(*per_class)),
            "expected_calibration_error": self.calibration.expected_error(),
        }

    def intervals(self, level: float = 0.95, samples: int = 1000, seed: int = 0) -> dict[str, Interval]:
        """Computes intervals (low, high) of accuracy and top-5 accuracy (Wilson), macro and weighted F1 (bootstrap).

        An interval shows how far a metric would move with other images of the same kind. F1 has no interval if every
        resampled set of images gives the same value, for example if all answers are right. The calibration error has
        none, since resampling increases it.

        Args:
            level: Approximate probability that an interval holds the true value, in (0, 1).
            samples: Number of resampled sets of images.
            seed: Seed of the draws.
        """
        generator = np.random.default_rng(seed)
        count = self.images
        if count == 0:
            raise ValueError("no image was counted")
        drawn = resampled_counts(self.confusion.numpy(), samples, generator)
        macro, weighted = np.array([(macro_f1(*counts), weighted_f1(*counts)) for counts in drawn]).T
        shares = {"accuracy": int(self.confusion.diagonal().sum()), "top5_accuracy": self.top5}
        resampled = {"macro_f1": macro, "weighted_f1": weighted}
        return {name: share_interval(right, count, level) for name, right in shares.items()} | {
            name: percentile_interval(values, level) for name, values in resampled.items() if varied(values)
        }

    def per_class(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Lists precision, recall, F1 (in [0, 1]) and the number of images per class."""
        return class_rows(names, *self._per_class())

    def reliability(self) -> list[dict[str, Any]]:
        """Lists confidence and accuracy in 15 bins; see `CalibrationBins.rows`."""
        return self.calibration.rows()

    def merge(self, accelerator: Accelerator) -> None:
        """Sums the counts of all processes, in every process."""
        device = accelerator.device
        self.load([accelerator.reduce(tensor.to(device), "sum").cpu() for tensor in self.tensors()])

    def measurements(self, names: list[str]) -> dict[str, Any]:
        """Returns the entries of `metrics.json` besides `compute`; see `reporting.measurements`."""
        return measurements(self, names)

    def save_plots(self, names: list[str], folder: Path) -> None:
        """Writes plots, see `reporting.save_plots`."""
        save_plots(self, names, folder)

    def tensors(self) -> list[torch.Tensor]:
        """Returns all counts as tensors; those of several processes may be added and passed to `load`."""
        totals = torch.tensor([self.top5, self.loss_sum], dtype=torch.float64)
        return [self.confusion.clone(), totals, self.calibration.sums.clone(), self.temperature.sums.clone()]

    def load(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces the counts by tensors in the form of `tensors`."""
        confusion, totals, calibration, temperature = (tensor.detach().cpu() for tensor in tensors)
        self.confusion = confusion
        self.top5, self.loss_sum = int(totals[0]), float(totals[1])
        self.calibration.sums, self.temperature.sums = calibration, temperature

    def _per_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counts = self.confusion.numpy().astype(np.float64)
        return counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)


def check_finite(logits: torch.Tensor) -> None:
    """Rejects logits (B, L) that cannot be ranked.

    Raises:
        ValueError: A logit is infinite or NaN.
    """
    if not bool(torch.isfinite(logits).all()):
        bad = int((~torch.isfinite(logits)).any(dim=-1).sum())
        raise ValueError(f"the logits of {bad} of {len(logits)} images are infinite or not a number")


__all__ = ["ClassificationMetrics", "check_finite"]
