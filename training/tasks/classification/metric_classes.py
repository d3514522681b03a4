"""The metrics as `evaluate.Metric`s; none needs a download."""

from typing import Any

import datasets
import evaluate
import numpy as np
import torch

from .multi_label_metrics import MultiLabelCounts
from .single_label_metrics import ClassificationCounts

_F1 = "Powers 2011, https://arxiv.org/abs/2010.16061"
_CALIBRATION = "Guo et al. 2017, https://arxiv.org/abs/1706.04599"
_PRECISION = "Everingham et al. 2010, https://doi.org/10.1007/s11263-009-0275-4"


class _CountedMetric(evaluate.Metric):
    """Base of the metrics below: `predictions` are logits per class, `references` class indices."""

    value = "accuracy"
    citation = _F1
    multi_label = False

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("int64")
        features = datasets.Features(
            {
                "predictions": datasets.List(datasets.Value("float32")),
                "references": datasets.List(number) if self.multi_label else number,
            }
        )
        return evaluate.MetricInfo(
            description=f"{self.value} of a classifier",
            citation=self.citation,
            features=features,
            inputs_description=type(self).__doc__ or "",
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        logits = torch.tensor(np.asarray(predictions, dtype=np.float32))
        counts = (MultiLabelCounts if self.multi_label else ClassificationCounts)(logits.shape[1])
        counts.update(logits, torch.tensor(np.asarray(references)))
        return {self.value: counts.compute()[self.value]}


class ImageAccuracy(_CountedMetric):
    """Part of the images whose most likely class is theirs; an `evaluate.Metric` that needs no download."""

    value = "accuracy"


class ImageTop5Accuracy(_CountedMetric):
    """Part of the images whose class is among the five most likely."""

    value = "top5_accuracy"


class ImageMacroF1(_CountedMetric):
    """F1 averaged over the classes that occur."""

    value = "macro_f1"


class ImageCalibrationError(_CountedMetric):
    """Expected calibration error in 15 bins; `predictions` must be logits, not probabilities."""

    value = "expected_calibration_error"
    citation = _CALIBRATION


class ImageMeanAveragePrecision(_CountedMetric):
    """Average precision averaged over the classes that occur; `references` are 0 or 1 per class."""

    value = "mean_average_precision"
    citation = _PRECISION
    multi_label = True


__all__ = [
    "ImageAccuracy",
    "ImageCalibrationError",
    "ImageMacroF1",
    "ImageMeanAveragePrecision",
    "ImageTop5Accuracy",
]
