"""Evaluation pass of a classifier over labelled images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ....data.labelled.dataset import LabelledImages, collate
from ...runtime.batch_loading import BatchLoader, KeptLoaders
from ..evaluation import Part, shared_parts, useful_workers
from .feature_cache import FeatureRows
from .metrics.choice import metrics_for
from .metrics.multi_label import MultiLabelMetrics
from .metrics.single_label import ClassificationMetrics

IMAGES_PER_WORKER = 512


class LabelEvaluator:
    """Evaluator of a classifier on a split of labelled images.

    Args:
        model: Classifier that returns `logits` (B, C) for `pixel_values`.
        images: Split with the evaluation transform, or its cached features.
        num_labels: Number of classes C.
        multi_label: Whether an image has any number of labels.
        autocast: Context manager factory for the forward pass; None computes in the dtype of the weights.
        loaders: Loaders to use again; None makes a new one.
        headline: Metric by which evaluations of images with one label each are compared.
    """

    largest_batch: int | None = None

    def __init__(
        self,
        model: nn.Module,
        images: LabelledImages | FeatureRows,
        num_labels: int,
        multi_label: bool = False,
        autocast: Any = None,
        loaders: KeptLoaders | None = None,
        headline: str = "accuracy",
    ) -> None:
        self.loaders = loaders or KeptLoaders()
        self.model, self.images, self.name, self.autocast = model, images, images.name, autocast
        self.num_labels, self.multi_label, self.headline = num_labels, multi_label, headline
        self.device = next(model.parameters()).device

    def __len__(self) -> int:
        return len(self.images)

    def new_metrics(self, process: int, processes: int) -> ClassificationMetrics | MultiLabelMetrics:
        """Makes empty counts for one of several processes."""
        return metrics_for(self.num_labels, self.multi_label, process, processes, self.headline)

    def parts(self, batch_size: int, process: int = 0, processes: int = 1) -> list[Part]:
        """Returns the batches of one process, each as rows and the number of rows that count."""
        return shared_parts(len(self), batch_size, process, processes)

    def loader(self, parts: Sequence[Part], workers: int) -> BatchLoader:
        """Loads the batches; few images are loaded without a loading process, which is faster."""
        useful = useful_workers(workers, len(self), IMAGES_PER_WORKER)
        return self.loaders.loader(self.images, [rows for rows, _ in parts], collate, useful, self.device)

    def add(
        self, metrics: ClassificationMetrics | MultiLabelMetrics, batch: dict[str, torch.Tensor], part: Part
    ) -> list[int]:
        """Evaluates a batch and adds it to the counts; returns the rows that could not be decoded."""
        pixels = batch["pixel_values"].to(self.device, non_blocking=True)
        if self.autocast is None:
            logits = self.model(pixel_values=pixels).logits
        else:
            with self.autocast():
                logits = self.model(pixel_values=pixels).logits
        good = torch.arange(len(pixels)) < part[1]
        bad: list[int] = []
        if "bad" in batch:
            bad = [int(row) for row in batch["bad"][good] if row >= 0]
            good &= batch["bad"] < 0
        metrics.update(logits[good.to(logits.device)], batch["labels"][good])
        return bad

    def loss(self, metrics: Any, bad: list[int]) -> None:
        """Returns None: the metrics hold the loss."""

    def describe(self, row: int) -> str:
        """Names the file or row of an image, for messages."""
        return self.images.describe(row)


__all__ = ["IMAGES_PER_WORKER", "LabelEvaluator"]
