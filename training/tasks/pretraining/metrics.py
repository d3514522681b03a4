"""Metrics of pretraining: the loss, and how many directions the features of a split use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ...runtime.exact_sums import rounded


def effective_rank(moments: torch.Tensor) -> float:
    """Effective rank of features: exp of the entropy of their singular values' shares (RankMe, equation 2).

    It is near 1 where all images have the same features up to a factor, and at most the number of images or the width.
    Source: Garrido et al. 2023, https://arxiv.org/abs/2210.02885; the mean is not subtracted.

    Args:
        moments: Sum of the products f f^T over images, (D, D) fp64.

    Returns:
        A number from 1, or 0 where all features are 0.
    """
    values = torch.linalg.eigvalsh(moments).clamp(min=0).sqrt()
    total = values.sum()
    if not total > 0:
        return 0.0
    shares = values / total
    return float(torch.exp(-torch.xlogy(shares, shares).sum()))


class PretrainingMetrics:
    """Sum of the loss and products of the features over the images of a split.

    Args:
        width: Width D of the features.
    """

    def __init__(self, width: int) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64)  # images, losses
        self.moments = torch.zeros(width, width, dtype=torch.float64)

    @property
    def headline(self) -> str:
        """Metric by which epochs are compared."""
        return "effective_rank_share"

    def update(self, losses: torch.Tensor, features: torch.Tensor) -> None:
        """Adds images.

        Args:
            losses: Loss of each image, (B,).
            features: Pooled features, (B, D).
        """
        self.sums += torch.stack([torch.tensor(float(len(losses)), dtype=torch.float64), rounded(losses).sum().cpu()])
        own = features.double().cpu()
        self.moments += own.T @ own

    def compute(self) -> dict[str, Any]:
        """Computes `loss`, `effective_rank`, and `effective_rank_share`, its part of what is possible, in [0, 1]."""
        images, losses = self.sums.tolist()
        rank = effective_rank(self.moments)
        most = max(1.0, min(images, float(len(self.moments))))
        return {
            "loss": losses / max(1.0, images),
            "effective_rank": rank,
            "effective_rank_share": min(1.0, rank / most),
        }

    def tensors(self) -> list[torch.Tensor]:
        """Returns all sums as tensors."""
        return [self.sums.clone(), self.moments.clone()]

    def load(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces the sums by tensors in the form of `tensors`."""
        self.sums, self.moments = (tensor.clone() for tensor in tensors)

    def merge(self, accelerator: Accelerator) -> None:
        """Merges the sums of all processes, in every process."""
        merged = [accelerator.reduce(tensor.to(accelerator.device)).cpu() for tensor in self.tensors()]
        self.load(merged)

    def measurements(self, names: list[str]) -> dict[str, Any]:  # noqa: ARG002
        """Returns the entries of `metrics.json` besides `compute`; there are no classes."""
        return {"per_class": []}

    def save_plots(self, names: list[str], folder: Path) -> None:
        """Writes nothing: the learning curves show all there is."""


__all__ = ["PretrainingMetrics", "effective_rank"]
