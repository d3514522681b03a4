"""Evaluation pass of a detector over images with boxes."""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ....data.boxes.dataset import BoxImages, collate_boxes
from ....data.boxes.tables import ImageBoxes
from ....modeling.detr_loss import class_divisor, loss_counts
from ....modeling.modeling_detr import HubDetrForObjectDetection
from ...runtime.batch_loading import BatchLoader, KeptLoaders
from ..evaluation import Part, useful_workers
from .detections import Detections
from .loading import read_outputs
from .metrics import DetectionMetrics

_LEARNED = ("class_labels", "boxes")
IMAGES_PER_WORKER = 64
MOST_AT_ONCE = 8  # limit on the batch size, since images of a detector are large


def batches_of_one_shape(
    shapes: Sequence[tuple[int, int]], batch_size: int, process: int = 0, processes: int = 1
) -> list[tuple[list[int], int]]:
    """Returns the batches of one process, each of images of one size, as rows and the number of rows that count.

    All processes get equally many batches, as sharded models need; a process without batches left gets row 0, which
    does not count.

    Args:
        shapes: Width and height of each image, used only to group equal sizes.
        batch_size: Largest number of images per batch.
        process: Index of this process.
        processes: Number of processes.
    """
    by_shape: dict[tuple[int, int], list[int]] = {}
    for row, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(row)
    batches = [rows[n : n + batch_size] for rows in by_shape.values() for n in range(0, len(rows), batch_size)]
    batches.sort(key=lambda rows: (-len(rows), rows))
    own = [(rows, len(rows)) for rows in batches[process::processes]]
    return own + [([0], 0)] * (-(-len(batches) // processes) - len(own))


class BoxEvaluator:
    """Evaluator of a detector on a split of images with boxes.

    Only the boxes of a batch are kept, so that memory grows with them and not with the logits. All images of a batch
    have one shape: without padding, the result of an image does not depend on the rest of its batch, and equals that of
    `pipeline`.

    Args:
        model: Detector that returns `logits` and `pred_boxes`.
        images: Split with the evaluation transform.
        processor: Image processor of the model, which decodes the outputs as `pipeline` does.
        num_labels: Number of classes of the data.
        to_data: Data's class number of each class of the model, -1 if it has none; None if they are equal.
        autocast: Context manager factory for the forward pass; None computes in the dtype of the weights.
        loaders: Loaders to use again; None makes a new one.
    """

    largest_batch: int | None = MOST_AT_ONCE

    def __init__(
        self,
        model: nn.Module,
        images: BoxImages,
        processor: Any,
        num_labels: int,
        to_data: Sequence[int] | None = None,
        autocast: Any = None,
        loaders: KeptLoaders | None = None,
    ) -> None:
        self.loaders = loaders or KeptLoaders()
        self.model, self.images, self.name, self.autocast = model, images, images.name, autocast
        self.num_labels = num_labels
        self.truths = images.table.remove_columns("image")
        self.answer = Answers(model, images, processor, to_data)

    def __len__(self) -> int:
        return len(self.images)

    def new_metrics(self, process: int, processes: int) -> DetectionMetrics:  # noqa: ARG002
        """Makes empty counts, the same for every process."""
        return DetectionMetrics(self.num_labels)

    def parts(self, batch_size: int, process: int = 0, processes: int = 1) -> list[Part]:
        """Returns the batches of one process, each of images of one shape."""
        shapes = list(zip(self.truths["width"], self.truths["height"], strict=True))
        return batches_of_one_shape(shapes, batch_size, process, processes)

    def loader(self, parts: Sequence[Part], workers: int) -> BatchLoader:
        """Loads the batches; few images are loaded without a loading process, which is faster."""
        useful = useful_workers(workers, len(self), IMAGES_PER_WORKER)
        return self.loaders.loader(self.images, [rows for rows, _ in parts], collate_boxes, useful, self.answer.device)

    def add(self, metrics: DetectionMetrics, batch: dict[str, Any], part: Part) -> list[int]:
        """Evaluates a batch and adds its boxes to the counts; returns the rows that could not be decoded.

        Raises:
            ValueError: Outputs are infinite or NaN; the message names the images.
        """
        rows, count = part
        wrong = {int(row) for row in batch.get("bad", ())}
        good = [place for place, row in enumerate(rows[:count]) if row not in wrong]
        with self.autocast() if self.autocast is not None else nullcontext():
            found, loss = self.answer(_chosen(batch, good or [0]))
        if good:
            right = [rows[place] for place in good]
            metrics.update(right, found, [ImageBoxes.from_row(self.truths[row]) for row in right])
            metrics.loss_sum += loss.whole
            metrics.class_loss_sum += loss.classes
        return [row for row in rows[:count] if row in wrong]

    def loss(self, metrics: DetectionMetrics, bad: list[int]) -> float | None:
        """Returns the loss of the split as one batch, independent of batching; None for third-party models."""
        return self.answer.loss_of(metrics, bad)

    def describe(self, row: int) -> str:
        """Names the file or row of an image, for messages."""
        return self.images.describe(row)


def _chosen(batch: dict[str, Any], places: list[int]) -> dict[str, Any]:
    """Selects images of a batch, all of one shape."""
    taken = {name: value[places] for name, value in batch.items() if isinstance(value, torch.Tensor)}
    return {**taken, "labels": [batch["labels"][place] for place in places]}


class _Loss(NamedTuple):
    """Contribution of a batch to a split's loss, and the share of the class terms in it."""

    whole: float = 0.0
    classes: float = 0.0


class Answers:
    """Forward pass of batches through the model, with decoding by its image processor.

    Args:
        model: Detector, in any mode.
        images: Images of the split, whose targets give the divisors of the loss.
        processor: Image processor of the model.
        to_data: Data's class number of each class of the model, as in `BoxEvaluator`; if given, no loss is computed.
    """

    def __init__(self, model: nn.Module, images: BoxImages, processor: Any, to_data: Sequence[int] | None) -> None:
        self.model, self.images, self.processor = model, images, processor
        self.device = next(model.parameters()).device
        self.numbers = None if to_data is None else np.asarray(to_data, dtype=np.int64)
        self.masked = "pixel_mask" in inspect.signature(model.forward).parameters
        own: Any = model.module if hasattr(model, "module") else model
        self.config = own.config
        self.num_labels = int(self.config.num_labels)
        self.divisors = None
        if isinstance(own, HubDetrForObjectDetection) and to_data is None:
            self.sizes = [sum(not crowd for crowd in row) for row in images.table["crowd"]]
            self.divisors = self._divisors(self.sizes)

    def _divisors(self, sizes: Sequence[int]) -> torch.Tensor:
        return loss_counts([{"class_labels": range(size)} for size in sizes], self.config)

    def loss_of(self, counts: DetectionMetrics, bad: Sequence[int]) -> float | None:
        """Returns the split's loss, corrected for bad images: batches were divided by the counts of all images."""
        if self.divisors is None or not bad:
            return None if self.divisors is None else counts.loss_sum
        left = set(range(len(self.sizes))) - set(bad)
        (boxes, classes), (fewer, fewer_classes) = (
            self._by_term(divisors) for divisors in (self.divisors, self._divisors([self.sizes[row] for row in left]))
        )
        others = counts.loss_sum - counts.class_loss_sum
        return counts.class_loss_sum * classes / fewer_classes + others * boxes / fewer

    def _by_term(self, divisors: torch.Tensor) -> tuple[float, float]:
        """Returns the divisors of the box terms and of the class term."""
        number, matched, images, _ = divisors.tolist()
        number = max(number, 1.0)
        return number, float(class_divisor(self.config, matched, images * self.config.num_queries, number))

    def __call__(self, batch: dict[str, Any]) -> tuple[list[Detections], _Loss]:
        """Returns the detections of each image, and the batch's contribution to the split's loss."""
        arguments: dict[str, Any] = {"pixel_values": batch["pixel_values"].to(self.device, non_blocking=True)}
        if self.masked:
            arguments["pixel_mask"] = batch["pixel_mask"].to(self.device, non_blocking=True)
        if self.divisors is not None:
            arguments |= {"labels": [self._moved(target) for target in batch["labels"]], "loss_counts": self.divisors}
        outputs = self.model(**arguments)
        loss = _Loss()
        if self.divisors is not None:
            classes = sum(float(term) for name, term in outputs.loss_dict.items() if name.startswith("loss_ce"))
            loss = _Loss(float(outputs.loss), self.config.class_loss_coefficient * classes)
        sizes = torch.stack([target["orig_size"] for target in batch["labels"]])
        try:
            found = read_outputs(self.processor, outputs, sizes, self.num_labels)
        except ValueError as error:
            names = ", ".join(self.images.describe(int(row)) for row in batch["index"][:8])
            raise ValueError(f"{error}; the images: {names}") from error
        return [self._renumbered(one) for one in found], loss

    def _moved(self, target: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value.to(self.device, non_blocking=True) if name in _LEARNED else value
            for name, value in target.items()
        }

    def _renumbered(self, found: Detections) -> Detections:
        if self.numbers is None:
            return found
        classes = self.numbers[found.classes]
        known = classes >= 0
        return Detections(found.boxes[known], found.scores[known], classes[known])


__all__ = ["IMAGES_PER_WORKER", "MOST_AT_ONCE", "Answers", "BoxEvaluator", "batches_of_one_shape"]
