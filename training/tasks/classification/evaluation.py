"""Running a classifier over a split, in one process or shared out over many."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader

from ....data.images import BadImageError
from ....data.labelled.dataset import LabelledImages, collate
from ...runtime.loading_processes import outlive_requests
from ...runtime.progress import QuietReporter, Reporter
from ..partial_counts import PartialCounts
from .feature_cache import FeatureRows
from .metrics import counts_for


@dataclass
class Evaluation:
    """What a classifier did on a split.

    Args:
        counts: Of all processes together.
        bad_images: Names of the images that could not be decoded and were left out.
        loss: Of the split, where the counts do not know it.
    """

    counts: Any
    bad_images: list[str] = field(default_factory=list)
    loss: float | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """Every figure by its name, the loss among them."""
        known: dict[str, Any] = self.counts.compute()
        return known if self.loss is None else {"loss": self.loss, **known}

    @property
    def quality(self) -> float:
        """The figure that chooses the best epoch, larger is better; 0 where it is not defined."""
        return float(self.figures[self.counts.headline] or 0.0)


def default_workers() -> int:
    """Loading processes that leave the computing ones room: none on one core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores < 2 else min(8, cores // 2)


def part_of_split(size: int, batch_size: int, process: int = 0, processes: int = 1) -> list[tuple[list[int], int]]:
    """The batches of one process: rows, and how many of them count.

    Every process gets as many batches as the others, as sharded models need; one that has run out gets row 0, which
    does not count.
    """
    own = list(range(process, size, processes))
    longest = -(-size // processes)
    parts = [own[first : first + batch_size] for first in range(0, longest, batch_size)]
    return [(rows or [0], len(rows)) for rows in parts]


def batches(
    images: LabelledImages | FeatureRows,
    batch_size: int,
    workers: int,
    process: int = 0,
    processes: int = 1,
    done: int = 0,
) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
    """A process's batches of a split after the first `done`, and how many of their rows count."""
    parts = part_of_split(len(images), batch_size, process, processes)[done:]
    loader = DataLoader(
        images,
        batch_sampler=[rows for rows, _ in parts],
        num_workers=min(workers, len(images) // 512),  # a few are loaded faster without starting another process
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=outlive_requests,
    )
    yield from zip(loader, (count for _, count in parts), strict=True)


@torch.inference_mode()
def evaluate_classifier(
    model: nn.Module,
    images: LabelledImages | FeatureRows,
    num_labels: int,
    *,
    multi_label: bool = False,
    batch_size: int = 64,
    workers: int = 0,
    autocast: Any = None,
    accelerator: Accelerator | None = None,
    max_bad_share: float = 0.0,
    reporter: Reporter | None = None,
    partial: PartialCounts | None = None,
) -> Evaluation:
    """Counts of a classifier on a split; the model's mode is put back.

    Args:
        model: Returns `logits` (B, C) for `pixel_values`.
        images: With the evaluation transform.
        num_labels: C.
        multi_label: Whether an image has any number of labels.
        batch_size: Images at once.
        workers: Loading processes.
        autocast: A context manager factory for the forward pass; None computes in the weights' own type.
        accelerator: Shares the split out over its processes; every one gets the counts of all.
        max_bad_share: Part of the split that may be undecodable, where `images` skips such.
        reporter: Told of each batch.
        partial: Keeps the counts on disk, so that the evaluation can be resumed.

    Raises:
        BadImageError: An image cannot be decoded, or more than `max_bad_share` of them.
    """
    reporter = reporter or QuietReporter()
    process, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    device = next(model.parameters()).device
    counts, was_training = counts_for(num_labels, multi_label, process, processes), model.training
    done, bad = partial.load(counts) if partial is not None else (0, [])
    model.eval()
    reporter.start(f"evaluating {images.name}", len(images), done * batch_size * processes)
    try:
        loaded = batches(images, batch_size, workers, process, processes, done)
        for number, (batch, count) in enumerate(loaded, done + 1):
            pixels = batch["pixel_values"].to(device)
            if autocast is None:
                logits = model(pixel_values=pixels).logits
            else:
                with autocast():
                    logits = model(pixel_values=pixels).logits
            good = torch.arange(len(pixels)) < count
            if "bad" in batch:
                bad += [int(row) for row in batch["bad"][good] if row >= 0]
                good &= batch["bad"] < 0
            counts.update(logits[good.to(logits.device)], batch["labels"][good])
            if partial is not None:
                partial.save(counts, number, bad)
            reporter.advance(count * processes)
    finally:
        model.train(was_training)
        reporter.stop()
    if accelerator is not None and processes > 1:
        counts.load([accelerator.reduce(tensor.to(device), "sum").cpu() for tensor in counts.tensors()])
        bad = gather_object(bad)
    names = [images.describe(row) for row in sorted(bad)]
    check_bad_share(names, len(images), max_bad_share, images.name)
    return Evaluation(counts, names)


def check_bad_share(bad: list[str], size: int, largest: float, split: str) -> None:
    """Raises a `BadImageError` where more than a part `largest` of a split's images could not be decoded."""
    if len(bad) > largest * size:
        shown = ", ".join(bad[:5]) + (" and others" if len(bad) > 5 else "")
        raise BadImageError(
            f"{len(bad)} of {size} images of split {split!r} could not be decoded, more than data.max_bad_share "
            f"{largest:g}: {shown}"
        )


__all__ = ["Evaluation", "batches", "check_bad_share", "default_workers", "evaluate_classifier", "part_of_split"]
