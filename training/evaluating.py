"""Running a classifier over a split."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from ..data.image_dataset import LabelledImages, collate
from .classification_metrics import ClassificationCounts
from .progress import QuietReporter, Reporter


def default_workers() -> int:
    """Loading processes that leave the computing ones room: none on one core, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores < 2 else min(8, cores // 2)


def batches(images: LabelledImages, batch_size: int, workers: int) -> Iterator[dict[str, torch.Tensor]]:
    """All images of a split, in order; a few are loaded faster without starting another process."""
    yield from DataLoader(
        images,
        batch_size=batch_size,
        num_workers=min(workers, len(images) // 512),
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
    )


@torch.inference_mode()
def evaluate_classifier(
    model: nn.Module,
    images: LabelledImages,
    num_labels: int,
    *,
    batch_size: int = 64,
    workers: int = 0,
    autocast: Any = None,
    reporter: Reporter | None = None,
) -> ClassificationCounts:
    """Counts of a classifier on a split; the model's mode is put back.

    Args:
        model: Returns `logits` (B, C) for `pixel_values`.
        images: With the evaluation transform.
        num_labels: C.
        batch_size: Images at once.
        workers: Loading processes.
        autocast: A context manager factory for the forward pass; None computes in the weights' own type.
        reporter: Told of each batch.
    """
    reporter = reporter or QuietReporter()
    device = next(model.parameters()).device
    counts, was_training = ClassificationCounts(num_labels), model.training
    model.eval()
    reporter.start(f"evaluating {images.name}", len(images))
    try:
        for batch in batches(images, batch_size, workers):
            pixels = batch["pixel_values"].to(device)
            if autocast is None:
                logits = model(pixel_values=pixels).logits
            else:
                with autocast():
                    logits = model(pixel_values=pixels).logits
            counts.update(logits, batch["labels"])
            reporter.advance(len(pixels))
    finally:
        model.train(was_training)
        reporter.stop()
    return counts


__all__ = ["batches", "default_workers", "evaluate_classifier"]
