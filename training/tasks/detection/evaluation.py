"""Evaluation pass of a detector over images with boxes."""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from ....data.boxes.dataset import BoxImages, collate_boxes
from ....data.boxes.tables import ImageBoxes
from ...runtime.batch_loading import BatchLoader, KeptLoaders
from ..evaluation import Part, useful_workers
from .detections import Detections
from .loading import read_outputs
from .losses import SplitLoss
from .metrics import DetectionMetrics
from .third_party_losses import loss_of

IMAGES_PER_WORKER = 64
MOST_AT_ONCE = 8  # limit on the batch size, since images of a detector are large


def batches_of_one_shape(
    shapes: Sequence[tuple[int, ...]], batch_size: int, process: int = 0, processes: int = 1
) -> list[tuple[list[int], int]]:
    """Returns the batches of one process, each of images of one size, as rows and the number of rows that count.

    All processes get equally many batches, as sharded models need; a process without batches left gets row 0, which
    does not count.

    Args:
        shapes: Width and height of each image, used only to group equal sizes; with another number, to tell apart.
        batch_size: Largest number of images per batch.
        process: Index of this process.
        processes: Number of processes.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
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
            found, loss = self.found(_chosen(batch, good or [0]))
        if good:
            right = [rows[place] for place in good]
            metrics.update(right, found, [ImageBoxes.from_row(self.truths[row]) for row in right])
            metrics.loss_sum += loss.whole
            metrics.class_loss_sum += loss.classes
        return [row for row in rows[:count] if row in wrong]

    def found(self, batch: dict[str, Any]) -> tuple[list[Detections], SplitLoss]:
        """Returns the detections of each image, and the batch's contribution to the split's loss."""
        return self.answer(batch)

    def loss(self, metrics: DetectionMetrics, bad: list[int]) -> float | None:
        """Returns the loss of the split as one batch, independent of batching; None where the model computes none."""
        return self.answer.loss_of(metrics, bad)

    def describe(self, row: int) -> str:
        """Names the file or row of an image, for messages."""
        return self.images.describe(row)


def _chosen(batch: dict[str, Any], places: list[int]) -> dict[str, Any]:
    """Selects images of a batch, all of one shape."""
    taken = {name: value[places] for name, value in batch.items() if isinstance(value, torch.Tensor)}
    return {**taken, "labels": [batch["labels"][place] for place in places]}


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
        self.num_labels = int(own.config.num_labels)
        self.criterion = loss_of(own) if to_data is None else None
        if self.criterion is not None:
            self.sizes = [sum(not crowd for crowd in row) for row in images.table["crowd"]]
            self.counts = self.criterion.split_counts(self.sizes)

    def loss_of(self, counts: DetectionMetrics, bad: Sequence[int]) -> float | None:
        """Returns the split's loss, corrected for bad images: batches were divided by the counts of all images."""
        if self.criterion is None or not bad:
            return None if self.criterion is None else counts.loss_sum
        left = set(range(len(self.sizes))) - set(bad)
        boxes, classes = self.criterion.divisors(self.counts)
        right = self.criterion.split_counts([self.sizes[row] for row in left])
        fewer, fewer_classes = self.criterion.divisors(right)
        others = counts.loss_sum - counts.class_loss_sum
        return counts.class_loss_sum * classes / fewer_classes + others * boxes / fewer

    def __call__(self, batch: dict[str, Any]) -> tuple[list[Detections], SplitLoss]:
        """Returns the detections of each image, and the batch's contribution to the split's loss."""
        arguments: dict[str, Any] = {"pixel_values": batch["pixel_values"].to(self.device, non_blocking=True)}
        if self.masked:
            arguments["pixel_mask"] = batch["pixel_mask"].to(self.device, non_blocking=True)
        if self.criterion is None:
            outputs, loss = self.model(**arguments), SplitLoss()
        else:
            outputs, loss = self.criterion.evaluate(self.model, arguments, batch["labels"], self.counts)
        sizes = torch.stack([target["orig_size"] for target in batch["labels"]])
        try:
            found = read_outputs(self.processor, outputs, sizes, self.num_labels)
        except ValueError as error:
            names = ", ".join(self.images.describe(int(row)) for row in batch["index"][:8])
            raise ValueError(f"{error}; the images: {names}") from error
        return [self._renumbered(one) for one in found], loss

    def _renumbered(self, found: Detections) -> Detections:
        if self.numbers is None:
            return found
        classes = self.numbers[found.classes]
        known = classes >= 0
        return Detections(found.boxes[known], found.scores[known], classes[known])


__all__ = ["IMAGES_PER_WORKER", "MOST_AT_ONCE", "Answers", "BoxEvaluator", "batches_of_one_shape"]
