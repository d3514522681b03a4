"""Metrics of pretraining: the loss, how many directions the features of a split use, and what they tell of a probe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ...runtime.exact_sums import rounded
from .probe import Probe

# Features whose effective rank is below this number, or this share of what is possible, have collapsed.
COLLAPSED_RANK, COLLAPSED_SHARE = 2.0, 0.01


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
        probe: Labelled images by which features are judged, or None.
    """

    def __init__(self, width: int, probe: Probe | None = None) -> None:
        self.probe = probe
        if probe is not None:
            self.probed = torch.zeros(len(probe.labels), width)
            self.known = torch.zeros(len(probe.labels))
        self.sums = torch.zeros(2, dtype=torch.float64)  # images, losses
        self.moments = torch.zeros(width, width, dtype=torch.float64)

    @property
    def headline(self) -> str:
        """Metric by which epochs are compared: k-NN accuracy on the probe, without one the share of the rank."""
        return "effective_rank_share" if self.probe is None else "knn_accuracy"

    def update(self, losses: torch.Tensor, features: torch.Tensor) -> None:
        """Adds images.

        Args:
            losses: Loss of each image, (B,).
            features: Pooled features, (B, D).
        """
        self.sums += torch.stack([torch.tensor(float(len(losses)), dtype=torch.float64), rounded(losses).sum().cpu()])
        own = features.double().cpu()
        self.moments += own.T @ own

    def add_probe(self, rows: torch.Tensor, features: torch.Tensor) -> None:
        """Adds pooled features (B, D) of the probe's images, which are in the given rows (B,)."""
        self.probed[rows] = features.float().cpu()
        self.known[rows] = 1

    def compute(self) -> dict[str, Any]:
        """Computes `loss`, `effective_rank` and its share of what is possible, and with a probe `knn_accuracy`."""
        images, losses = self.sums.tolist()
        rank = effective_rank(self.moments)
        most = max(1.0, min(images, float(len(self.moments))))
        found = {
            "loss": losses / max(1.0, images), "effective_rank": rank, "effective_rank_share": min(1.0, rank / most),
        }  # fmt: skip
        return found if self.probe is None else found | {"knn_accuracy": self._knn_accuracy()}

    def _knn_accuracy(self) -> float:
        assert self.probe is not None
        return self.probe.accuracy(self.probed, self.known > 0)

    @property
    def collapsed(self) -> bool:
        """True if the features of all images are nearly the same."""
        values = self.compute()
        low = values["effective_rank_share"] < COLLAPSED_SHARE
        return bool(self.sums[0] > 1) and (low or values["effective_rank"] < COLLAPSED_RANK)

    def tensors(self) -> list[torch.Tensor]:
        """Returns all sums as tensors."""
        kept = [self.sums, self.moments, *([] if self.probe is None else [self.probed, self.known])]
        return [tensor.clone() for tensor in kept]

    def load(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces the sums by tensors in the form of `tensors`."""
        self.sums, self.moments, *probed = (tensor.clone() for tensor in tensors)
        if self.probe is not None:
            self.probed, self.known = probed

    def merge(self, accelerator: Accelerator) -> None:
        """Merges the sums of all processes, in every process."""
        merged = [accelerator.reduce(tensor.to(accelerator.device)).cpu() for tensor in self.tensors()]
        self.load(merged)

    def measurements(self, names: list[str]) -> dict[str, Any]:  # noqa: ARG002
        """Returns the entries of `metrics.json` besides `compute`; there are no classes."""
        about = {"per_class": [], "collapsed": self.collapsed}
        return about if self.probe is None else about | {"probe": {"images": int(self.known.sum())}}

    def save_plots(self, names: list[str], folder: Path) -> None:
        """Writes nothing: the learning curves show all there is."""


__all__ = ["PretrainingMetrics", "effective_rank"]
