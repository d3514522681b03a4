"""Calibration of a classifier's probabilities (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

from typing import Any

import torch

from ....runtime.exact_sums import rounded

BINS = 15


class CalibrationBins:
    """Counts of decisions by confidence, in equal-width bins (low, high] of [0, 1].

    A decision is the predicted label of an image, or each yes or no to a label if an image has any number of labels.

    Attributes:
        sums: Number of decisions, sum of their confidence, and number of right decisions per bin; (3, 15), float64.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(3, BINS, dtype=torch.float64)

    def update(self, confidence: torch.Tensor, right: torch.Tensor) -> None:
        """Adds decisions: confidence in [0, 1] and whether each was right, both of the same shape."""
        confidence = confidence.double().flatten()
        inner_edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1]
        number = torch.bucketize(confidence, inner_edges)  # an edge belongs to the bin below it
        values = torch.stack([torch.ones_like(confidence), rounded(confidence), right.double().flatten()])
        self.sums.index_add_(1, number, values)

    def expected_error(self) -> float:
        """Computes the mean distance of confidence and accuracy, in [0, 1], bins weighted by decisions (eq. 3)."""
        decisions, confidence, right = self.sums
        return float((confidence - right).abs().sum() / decisions.sum())

    def rows(self) -> list[dict[str, Any]]:
        """Lists per bin `low`, `high`, `images` (decisions), mean `confidence` and `accuracy` (both None if empty)."""
        rows: list[dict[str, Any]] = []
        for number, (decisions, confidence, right) in enumerate(self.sums.T.tolist()):
            means = (confidence / decisions, right / decisions) if decisions else (None, None)
            rows.append(
                {
                    "low": number / BINS,
                    "high": (number + 1) / BINS,
                    "images": int(decisions),
                    "confidence": means[0],
                    "accuracy": means[1],
                }
            )
        return rows


__all__ = ["BINS", "CalibrationBins"]
