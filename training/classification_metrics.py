"""Metrics of a classifier, counted batch by batch; memory does not grow with the number of images."""

from dataclasses import dataclass, field
from typing import Any

import datasets
import evaluate
import numpy as np
import torch

_CITATION = "Powers 2011, https://arxiv.org/abs/2010.16061"


@dataclass
class ClassificationCounts:
    """Counts of a single-label classifier.

    Args:
        num_labels: C.
        confusion: (C, C), rows the true class, columns the predicted one.
        top5: Images whose class is among the five most likely.
        loss_sum: Of the cross-entropy.
    """

    num_labels: int
    confusion: torch.Tensor = field(init=False)
    top5: int = 0
    loss_sum: float = 0.0

    def __post_init__(self) -> None:
        self.confusion = torch.zeros(self.num_labels, self.num_labels, dtype=torch.int64)

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch: logits (B, C) and class indices (B,)."""
        logits, labels = logits.detach().float().cpu(), labels.cpu()
        flat = labels * self.num_labels + logits.argmax(dim=-1)
        self.confusion += torch.bincount(flat, minlength=self.num_labels**2).view(self.num_labels, -1)
        best = logits.topk(min(5, self.num_labels), dim=-1).indices
        self.top5 += int((best == labels[:, None]).any(dim=-1).sum())
        self.loss_sum += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()

    def compute(self) -> dict[str, float]:
        """Accuracy, top-5 accuracy, loss, macro and weighted F1; each but the loss in [0, 1]."""
        correct, support, predicted = self._per_class()
        count = support.sum()
        if count == 0:
            raise ValueError("no image was counted")
        f1 = 2 * correct / np.maximum(support + predicted, 1)
        present = support > 0
        return {
            "accuracy": float(correct.sum() / count),
            "top5_accuracy": self.top5 / float(count),
            "loss": self.loss_sum / float(count),
            "macro_f1": float(f1[present].mean()),
            "weighted_f1": float((f1 * support).sum() / count),
        }

    def per_class(self, names: list[str]) -> list[dict[str, Any]]:
        """Precision, recall, F1 (in [0, 1]) and the number of images of each class."""
        correct, support, predicted = self._per_class()
        rows = zip(names, correct, support, predicted, strict=True)
        return [
            {
                "label": name,
                "precision": float(c / p) if p else 0.0,
                "recall": float(c / s) if s else 0.0,
                "f1": float(2 * c / (s + p)) if s + p else 0.0,
                "images": int(s),
            }
            for name, c, s, p in rows
        ]

    def _per_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counts = self.confusion.numpy().astype(np.float64)
        return counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)


class _ScoreMetric(evaluate.Metric):
    """Base of the metrics below: `predictions` are scores or logits per class, `references` class indices."""

    value = "accuracy"

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.List(datasets.Value("float32")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(
            description=f"{self.value} of a classifier", citation=_CITATION, features=features, inputs_description=""
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores = torch.tensor(np.asarray(predictions, dtype=np.float32))
        counts = ClassificationCounts(scores.shape[1])
        counts.update(scores, torch.tensor(np.asarray(references)))
        return {self.value: counts.compute()[self.value]}


class ImageAccuracy(_ScoreMetric):
    """Part of the images whose most likely class is theirs; an `evaluate.Metric` that needs no download."""

    value = "accuracy"


class ImageTop5Accuracy(_ScoreMetric):
    """Part of the images whose class is among the five most likely."""

    value = "top5_accuracy"


class ImageMacroF1(_ScoreMetric):
    """F1 averaged over the classes that occur."""

    value = "macro_f1"


__all__ = ["ClassificationCounts", "ImageAccuracy", "ImageMacroF1", "ImageTop5Accuracy"]
