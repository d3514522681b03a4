"""Losses of detectors behind one contract: loss and named terms of a batch, and what its pieces must share.

A step's batch may be computed in pieces, one after the other and by several processes. The mean of the pieces' losses
is then minimised, which is the loss of the whole batch only if each piece divides its terms by counts of that batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ....modeling.detr_loss import average_over_processes, class_divisor, counts_of_sizes
from ....modeling.detr_targets import PaddedTargets, read_targets
from ....modeling.modeling_detr import HubDetrForObjectDetection

_LEARNED = ("class_labels", "boxes")


class SplitLoss(NamedTuple):
    """Contribution of a batch to the loss of a split that is computed as one batch.

    Args:
        whole: All terms, weighted and divided by the counts of the split.
        classes: Share of the terms in `whole` that are divided by the count of classes.
    """

    whole: float = 0.0
    classes: float = 0.0


class DetectorLoss(ABC):
    """Loss of a detector on batches of images with boxes, as `collate_boxes` returns them."""

    @abstractmethod
    def targets(self, batch: dict[str, Any], seeds: Sequence[int]) -> Any:
        """Checks the targets of a batch, on the host, and returns them as `__call__` expects them.

        Args:
            batch: Batch or piece of one, with `labels` and `pixel_values`.
            seeds: One seed per image, for the noise of denoising queries.

        Raises:
            ValueError: Targets are wrong; the message names the image.
        """

    @abstractmethod
    def shares(self, targets: Sequence[Any], device: torch.device) -> list[Any]:
        """Returns the `loss_counts` of each piece of a step's batch; every process must call it at the same step.

        Args:
            targets: Targets of the pieces of this process, as the method `targets` returns them.
            device: Device on which the processes exchange numbers.
        """

    @abstractmethod
    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes the loss of a batch, or of a piece of one, and its named terms.

        Args:
            model: Detector in training mode, possibly wrapped.
            batch: Batch on the model's device; `labels` are targets as the method `targets` returns them, and
                `loss_counts`, if there are any, those of `shares`.
        """

    @abstractmethod
    def split_counts(self, sizes: Sequence[int]) -> torch.Tensor:
        """Returns the counts of a split that its loss is divided by where it is computed as one batch.

        Args:
            sizes: Number of boxes of each image.
        """

    @abstractmethod
    def divisors(self, counts: torch.Tensor) -> tuple[float, float]:
        """Returns the divisors of the box terms and of the class terms, from counts as `split_counts` returns them."""

    @abstractmethod
    def evaluate(
        self, model: nn.Module, arguments: dict[str, Any], labels: Sequence[dict[str, Any]], counts: torch.Tensor
    ) -> tuple[Any, SplitLoss]:
        """Runs the model on images of one shape, and returns its outputs and the loss.

        Args:
            model: Detector in evaluation mode.
            arguments: Arguments of the model except the labels.
            labels: Targets of the images, on the host.
            counts: Counts of the split, as `split_counts` returns them.
        """


def learned(labels: Sequence[dict[str, Any]], device: torch.device, only: bool = False) -> list[dict[str, Any]]:
    """Copies the classes and boxes of targets to a device; other entries stay, or with `only` are left out."""
    return [
        {
            name: value.to(device, non_blocking=True) if name in _LEARNED else value
            for name, value in target.items()
            if name in _LEARNED or not only
        }
        for target in labels
    ]


class HubDetrLoss(DetectorLoss):
    """Loss of this package's DETR, which takes the counts of the whole batch."""

    def __init__(self, model: HubDetrForObjectDetection) -> None:
        self.config = model.config

    def targets(self, batch: dict[str, Any], seeds: Sequence[int]) -> PaddedTargets:
        """Returns the checked targets of a batch, with the noise of their denoising queries, drawn per sample."""
        labels, config = batch["labels"], self.config
        if isinstance(labels, PaddedTargets):
            return labels
        targets = read_targets(labels, len(labels), config, batch["pixel_values"].device)
        if config.denoising_queries:
            shape = (config.denoising_queries, 6)
            draws = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            targets.noise = torch.stack(draws).to(targets.boxes.device, non_blocking=True)
        return targets

    def shares(self, targets: Sequence[PaddedTargets], device: torch.device) -> list[Any]:
        """Returns the mean counts over all pieces and processes, the same for each piece."""
        counts = torch.stack([counts_of_sizes(piece.counts, self.config) for piece in targets]).mean(0)
        return [average_over_processes(counts, device)] * len(targets)

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes the loss, whose terms are divided by the batch's `loss_counts`."""
        arguments = {name: batch[name] for name in ("pixel_values", "pixel_mask", "labels")}
        outputs = model(**arguments, loss_counts=batch.get("loss_counts"))
        return outputs.loss, outputs.loss_dict

    def split_counts(self, sizes: Sequence[int]) -> torch.Tensor:
        """Returns the counts of boxes, matched boxes, images and denoised boxes."""
        return counts_of_sizes(sizes, self.config)

    def divisors(self, counts: torch.Tensor) -> tuple[float, float]:
        """Returns the number of boxes, and the sum of the weights of the queries, or with the focal loss the former."""
        number, matched, images, _ = counts.tolist()
        number = max(number, 1.0)
        return number, float(class_divisor(self.config, matched, images * self.config.num_queries, number))

    def evaluate(
        self, model: nn.Module, arguments: dict[str, Any], labels: Sequence[dict[str, Any]], counts: torch.Tensor
    ) -> tuple[Any, SplitLoss]:
        """Runs the model, whose loss is divided by the counts of the whole split."""
        moved = learned(labels, arguments["pixel_values"].device)
        outputs = model(**arguments, labels=moved, loss_counts=counts)
        classes = sum(float(term) for name, term in outputs.loss_dict.items() if name.startswith("loss_ce"))
        return outputs, SplitLoss(float(outputs.loss), self.config.class_loss_coefficient * classes)


__all__ = ["DetectorLoss", "HubDetrLoss", "SplitLoss", "learned"]
