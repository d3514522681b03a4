"""One pass of a model over a split, in one process or shared out over many; the same for every task."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from ...data.images import BadImageError
from ..runtime.progress import QuietReporter, Reporter
from .partial_counts import PartialCounts

Part = tuple[list[int], int]  # rows of a batch, and how many of them count


class Metrics(Protocol):
    """What is counted of a model's answers, batch by batch."""

    @property
    def headline(self) -> str:
        """The key of `compute` by which epochs and models are compared; larger is better."""

    def compute(self) -> dict[str, Any]:
        """Every metric by its name."""

    def tensors(self) -> list[torch.Tensor]:
        """All that was counted, for a file or another process."""

    def load(self, tensors: Sequence[torch.Tensor]) -> None:
        """Takes what `tensors` gave, in place of its own."""

    def merge(self, accelerator: Accelerator) -> None:
        """Makes the counts of each process those of all processes together."""

    def measurements(self, names: list[str]) -> dict[str, Any]:
        """What `metrics.json` says besides `compute`: intervals, classes, errors.

        Args:
            names: Class names, in label order.
        """

    def save_plots(self, names: list[str], folder: Path) -> None:
        """Writes plots of what was counted into a run's folder."""


class SplitEvaluator(Protocol):
    """A model beside a split: what is loaded, and what is counted of the answers."""

    model: nn.Module
    name: str  # of the split
    largest_batch: int | None  # images at once, where a model cannot take any number

    def new_metrics(self, process: int, processes: int) -> Metrics:
        """Empty counts for one of several processes, of which number p is given every image p + k * `processes`."""

    def __len__(self) -> int:
        """Number of images."""

    def parts(self, batch_size: int, process: int, processes: int) -> list[Part]:
        """The batches of one process, as many as every other process has."""

    def loader(self, parts: Sequence[Part], workers: int) -> Iterable[dict[str, Any]]:
        """The batches themselves."""

    def add(self, metrics: Any, batch: dict[str, Any], part: Part) -> list[int]:
        """Computes a batch and counts its answers; returns the rows that could not be decoded."""

    def loss(self, metrics: Any, bad: list[int]) -> float | None:
        """Loss of the split without the `bad` rows; None where the metrics hold it, or where there is none."""

    def describe(self, row: int) -> str:
        """File or row of an image, for messages."""


@dataclass
class Evaluation:
    """What a model did on a split.

    Args:
        metrics: Counts of all processes together.
        bad_images: Names of the images that could not be decoded and were left out.
        loss: Loss of the split, where the metrics do not hold it.
    """

    metrics: Metrics
    bad_images: list[str] = field(default_factory=list)
    loss: float | None = None

    @property
    def values(self) -> dict[str, Any]:
        """Every metric by its name, the loss among them."""
        known: dict[str, Any] = self.metrics.compute()
        return known if self.loss is None else {"loss": self.loss, **known}

    @property
    def quality(self) -> float:
        """The metric that chooses the best epoch, larger is better; 0 where it is not defined."""
        return float(self.values[self.metrics.headline] or 0.0)


def default_workers() -> int:
    """Loading processes that leave the computing ones room: none on one core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores < 2 else min(8, cores // 2)


@torch.inference_mode()
def evaluate_split(
    evaluator: SplitEvaluator,
    *,
    batch_size: int = 64,
    workers: int = 0,
    accelerator: Accelerator | None = None,
    max_bad_share: float = 0.0,
    reporter: Reporter | None = None,
    partial: PartialCounts | None = None,
) -> Evaluation:
    """Metrics of a model on a split; the model's mode is put back.

    Args:
        evaluator: The model and the split.
        batch_size: Images at once, at most those that the evaluator takes.
        workers: Loading processes.
        accelerator: Shares the split out over its processes; every one gets the metrics of all.
        max_bad_share: Part of the split that may be undecodable, where the evaluator skips such.
        reporter: Told of each batch.
        partial: Keeps the counts on disk, so that the evaluation can be resumed.

    Raises:
        BadImageError: An image cannot be decoded, or more than `max_bad_share` of them.
    """
    reporter = reporter or QuietReporter()
    process, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    metrics, was_training = evaluator.new_metrics(process, processes), evaluator.model.training
    done, bad = partial.load(metrics) if partial is not None else (0, [])
    evaluator.model.eval()
    parts = evaluator.parts(min(batch_size, evaluator.largest_batch or batch_size), process, processes)
    before = sum(count for _, count in parts[:done])
    reporter.start(f"evaluating {evaluator.name}", len(evaluator), before * processes)
    try:
        loaded = zip(evaluator.loader(parts[done:], workers), parts[done:], strict=True)
        for number, (batch, part) in enumerate(loaded, done + 1):
            bad += evaluator.add(metrics, batch, part)
            if partial is not None:
                partial.save(metrics, number, bad)
            reporter.advance(part[1] * processes)
    finally:
        evaluator.model.train(was_training)
        reporter.stop()
    if accelerator is not None and processes > 1:
        metrics.merge(accelerator)
        bad = gather_object(bad)
    names = [evaluator.describe(row) for row in sorted(bad)]
    check_bad_share(names, len(evaluator), max_bad_share, evaluator.name)
    return Evaluation(metrics, names, evaluator.loss(metrics, bad))


def check_bad_share(bad: list[str], size: int, largest: float, split: str) -> None:
    """Raises a `BadImageError` where more than a part `largest` of a split's images could not be decoded."""
    if len(bad) > largest * size:
        shown = ", ".join(bad[:5]) + (" and others" if len(bad) > 5 else "")
        raise BadImageError(
            f"{len(bad)} of {size} images of split {split!r} could not be decoded, more than data.max_bad_share "
            f"{largest:g}: {shown}"
        )


__all__ = ["Evaluation", "Metrics", "Part", "SplitEvaluator", "check_bad_share", "default_workers", "evaluate_split"]
