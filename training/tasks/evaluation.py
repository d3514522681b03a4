"""Evaluation of a model on a split, in one process or shared among several, for every task."""

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

Part = tuple[list[int], int]  # rows of a batch, and the number of rows that count


class Metrics(Protocol):
    """Counts of a model's answers, added batch by batch, from which metrics are computed."""

    @property
    def headline(self) -> str:
        """Key in `compute` by which epochs and models are compared; larger is better."""

    def compute(self) -> dict[str, Any]:
        """Computes every metric, by name."""

    def tensors(self) -> list[torch.Tensor]:
        """Returns all counts as tensors, for a file or another process."""

    def load(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces the counts by tensors in the form of `tensors`."""

    def merge(self, accelerator: Accelerator) -> None:
        """Merges the counts of all processes, in every process."""

    def measurements(self, names: list[str]) -> dict[str, Any]:
        """Returns the entries of `metrics.json` besides `compute`: intervals, classes, errors.

        Args:
            names: Class names, in label order.
        """

    def save_plots(self, names: list[str], folder: Path) -> None:
        """Writes plots of the counts into a run's folder."""


def shared_parts(count: int, batch_size: int, process: int, processes: int) -> list[Part]:
    """Returns the batches of one process, which gets every image p + k * `processes`.

    All processes get equally many batches, as sharded models need; a process without rows left gets row 0, which does
    not count.

    Args:
        count: Number of images of the split.
        batch_size: Images per batch.
        process: Number p of the process.
        processes: Number of processes.
    """
    own = list(range(process, count, processes))
    longest = -(-count // processes)
    parts = [own[first : first + batch_size] for first in range(0, longest, batch_size)]
    return [(rows or [0], len(rows)) for rows in parts]


class SplitEvaluator(Protocol):
    """Evaluator of a model on a split: loads batches, and counts the answers."""

    model: nn.Module
    name: str  # name of the split
    largest_batch: int | None  # largest batch size that the model can take; None if unlimited

    def new_metrics(self, process: int, processes: int) -> Metrics:
        """Makes empty counts for one of several processes; process p gets every image p + k * `processes`."""

    def __len__(self) -> int:
        """Number of images."""

    def parts(self, batch_size: int, process: int, processes: int) -> list[Part]:
        """Returns the batches of one process, as many as every other process has."""

    def loader(self, parts: Sequence[Part], workers: int) -> Iterable[dict[str, Any]]:
        """Loads the batches."""

    def add(self, metrics: Any, batch: dict[str, Any], part: Part) -> list[int]:
        """Evaluates a batch and adds it to the counts; returns the rows that could not be decoded."""

    def loss(self, metrics: Any, bad: list[int]) -> float | None:
        """Returns the loss of the split without the `bad` rows; None if the metrics hold it or there is none."""

    def describe(self, row: int) -> str:
        """Names the file or row of an image, for messages."""


@dataclass
class Evaluation:
    """Result of a model on a split.

    Args:
        metrics: Counts of all processes together.
        bad_images: Names of the images that could not be decoded and were left out.
        loss: Loss of the split, if the metrics do not hold it.
    """

    metrics: Metrics
    bad_images: list[str] = field(default_factory=list)
    loss: float | None = None

    @property
    def values(self) -> dict[str, Any]:
        """Every metric by name, including the loss."""
        known: dict[str, Any] = self.metrics.compute()
        return known if self.loss is None else {"loss": self.loss, **known}

    @property
    def quality(self) -> float:
        """Metric that selects the best epoch; larger is better; 0 if it is undefined."""
        return float(self.values[self.metrics.headline] or 0.0)


def default_workers() -> int:
    """Returns the default number of loading processes: one per core, shared by a launch's processes; none on one core.

    A launcher of several processes per machine states their number in LOCAL_WORLD_SIZE.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores < 2 else max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))


def useful_workers(workers: int, images: int, images_each: int) -> int:
    """Number of loading processes, at most one per `images_each` images: fewer load faster without another process."""
    return min(workers, images // images_each)


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
    """Computes the metrics of a model on a split; the model's mode is restored afterwards.

    Args:
        evaluator: Evaluator of the model on the split.
        batch_size: Images per batch, limited by the evaluator's `largest_batch`.
        workers: Number of loading processes.
        accelerator: Accelerator whose processes share the split; each of them gets the metrics of all.
        max_bad_share: Share of the split that may be undecodable, in [0, 1], if the evaluator skips such images.
        reporter: Receives the progress of each batch.
        partial: Partial counts kept on disk, so that the evaluation can be resumed.

    Raises:
        BadImageError: An image cannot be decoded, or more than the share `max_bad_share` of them.
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
    """Raises a `BadImageError` if more than the share `largest` of a split's images could not be decoded."""
    if len(bad) > largest * size:
        shown = ", ".join(bad[:5]) + (" and others" if len(bad) > 5 else "")
        raise BadImageError(
            f"{len(bad)} of {size} images of split {split!r} could not be decoded, more than data.max_bad_share "
            f"{largest:g}: {shown}"
        )


__all__ = [
    "Evaluation",
    "Metrics",
    "Part",
    "SplitEvaluator",
    "check_bad_share",
    "default_workers",
    "evaluate_split",
    "shared_parts",
    "useful_workers",
]
