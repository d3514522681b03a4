"""One pass of a detector over images with boxes."""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from ....data.boxes.dataset import BoxImages, collate_boxes
from ....data.boxes.tables import ImageBoxes
from ....modeling.detr_loss import class_divisor, loss_counts
from ....modeling.modeling_detr import HubDetrForObjectDetection
from ...runtime.loading_processes import outlive_requests
from ..evaluation import Part
from .detections import Detections
from .loading import read_outputs
from .metrics import DetectionMetrics

_LEARNED = ("class_labels", "boxes")
MOST_AT_ONCE = 8  # images of a detector are large


def batches_of_one_shape(
    shapes: Sequence[tuple[int, int]], batch_size: int, process: int = 0, processes: int = 1
) -> list[tuple[list[int], int]]:
    """The batches of one process, each of images of one size: rows, and how many of them count.

    Every process gets as many batches as the others, as sharded models need; one that has run out gets row 0, which
    does not count.

    Args:
        shapes: (width, height) of each image.
        batch_size: Most images of a batch.
        process: Number of this process.
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
    """A detector beside a split of images with boxes.

    Only boxes are kept of a batch's answers, so that memory grows with them and not with the logits. All images of a
    batch have one shape: without padding an answer does not depend on what else is in its batch, and is the one that
    `pipeline` gives.

    Args:
        model: Returns `logits` and `pred_boxes`.
        images: The split with the evaluation transform.
        processor: Image processor of the model, which reads the answers as `pipeline` does.
        num_labels: Number of classes of the data.
        to_data: The data's number of each class of the model, -1 where it has none; None where they are the same.
        autocast: Context manager factory for the forward pass; None computes in the weights' own type.
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
    ) -> None:
        self.model, self.images, self.name, self.autocast = model, images, images.name, autocast
        self.num_labels = num_labels
        self.truths = images.table.remove_columns("image")
        self.answer = Answers(model, images, processor, to_data)

    def __len__(self) -> int:
        return len(self.images)

    def new_metrics(self, process: int, processes: int) -> DetectionMetrics:  # noqa: ARG002
        """Empty counts, the same for every process."""
        return DetectionMetrics(self.num_labels)

    def parts(self, batch_size: int, process: int = 0, processes: int = 1) -> list[Part]:
        """The batches of one process, each of images of one shape."""
        shapes = list(zip(self.truths["width"], self.truths["height"], strict=True))
        return batches_of_one_shape(shapes, batch_size, process, processes)

    def loader(self, parts: Sequence[Part], workers: int) -> DataLoader[Any]:
        """The batches themselves; a few images are loaded faster without starting another process."""
        return DataLoader(
            self.images,
            batch_sampler=[rows for rows, _ in parts],
            num_workers=min(workers, len(self) // 64),
            collate_fn=collate_boxes,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=outlive_requests,
        )

    def add(self, metrics: DetectionMetrics, batch: dict[str, Any], part: Part) -> list[int]:
        """Computes a batch and counts its boxes; returns the rows that could not be decoded.

        Raises:
            ValueError: Answers are infinite or not a number; the images are named.
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
        """Loss of the split as one batch, whatever it was cut into; None of models of other libraries."""
        return self.answer.loss_of(metrics, bad)

    def describe(self, row: int) -> str:
        """File or row of an image, for messages."""
        return self.images.describe(row)


def _chosen(batch: dict[str, Any], places: list[int]) -> dict[str, Any]:
    """Some images of a batch, all of one shape."""
    taken = {name: value[places] for name, value in batch.items() if isinstance(value, torch.Tensor)}
    return {**taken, "labels": [batch["labels"][place] for place in places]}


class _Loss(NamedTuple):
    """The part of a split's loss that a batch has, and the class terms' part of that."""

    whole: float = 0.0
    classes: float = 0.0


class Answers:
    """Batches through the model and its processor.

    Args:
        model: In any mode.
        images: Of the split; its targets say what the loss is divided by.
        processor: Of the model.
        to_data: As in `BoxEvaluator`; with it there is no loss.
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
        """The loss of the split, whose batches were divided by the counts of all images, bad ones among them."""
        if self.divisors is None or not bad:
            return None if self.divisors is None else counts.loss_sum
        left = set(range(len(self.sizes))) - set(bad)
        (boxes, classes), (fewer, fewer_classes) = (
            self._by_term(divisors) for divisors in (self.divisors, self._divisors([self.sizes[row] for row in left]))
        )
        others = counts.loss_sum - counts.class_loss_sum
        return counts.class_loss_sum * classes / fewer_classes + others * boxes / fewer

    def _by_term(self, divisors: torch.Tensor) -> tuple[float, float]:
        """What the terms of boxes, and that of classes, are divided by."""
        number, matched, images, _ = divisors.tolist()
        number = max(number, 1.0)
        return number, class_divisor(self.config, matched, images * self.config.num_queries, number)

    def __call__(self, batch: dict[str, Any]) -> tuple[list[Detections], _Loss]:
        """What is found in each image, and the part of the split's loss that the batch has."""
        arguments: dict[str, Any] = {"pixel_values": batch["pixel_values"].to(self.device)}
        if self.masked:
            arguments["pixel_mask"] = batch["pixel_mask"].to(self.device)
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
        return {name: value.to(self.device) if name in _LEARNED else value for name, value in target.items()}

    def _renumbered(self, found: Detections) -> Detections:
        if self.numbers is None:
            return found
        classes = self.numbers[found.classes]
        known = classes >= 0
        return Detections(found.boxes[known], found.scores[known], classes[known])


__all__ = ["MOST_AT_ONCE", "Answers", "BoxEvaluator", "batches_of_one_shape"]
