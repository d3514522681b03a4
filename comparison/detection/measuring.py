"""Sections of a comparison of detectors."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...training.runtime.precision import resolve_precision
from ...training.runtime.progress import Reporter
from ..cost import CostSettings
from ..image_sample import Runner
from ..measurement import SAMPLES, Section
from .coco_figures import measure_coco
from .detectors import BoxSample, Detector, check_classes, draw_box_images
from .errors import measure_errors
from .speed import QUICK_SIDES, SpeedSettings, measure_speed

QUICK_SAMPLES = 200
PICTURE_HW = (480, 640)  # of a typical picture where no data are given


def detector_measures(
    detectors: Sequence[Detector], wanted: Sequence[str], data: Any, *, quick: bool, images: int | None,
    split: str | None, seed: int, precision: str, cost: CostSettings | None, reporter: Reporter,
) -> dict[str, Callable[[], Section]]:  # fmt: skip
    """Draws the images, checks the classes, and returns the function that measures each section.

    Args:
        detectors: Contestants.
        wanted: Names of the sections.
        data: Data set with boxes; None if only "cost" is measured.
        quick: Whether to use fewer images, resamples, sides and rounds.
        images: Number of images; None takes 400, or 100 with `quick`.
        split: Name of the split.
        seed: Seed of all random choices.
        precision: "auto", "fp32" or "bf16".
        cost: Sides, rounds and batch size of the section "cost"; None derives them from `quick`.
        reporter: Receives the progress.

    Raises:
        DataError: The data cannot be used, or a detector does not know a class of it.
    """
    runner = Runner(resolve_precision(precision, torch.device("cpu")), batch_size=8)
    sample: BoxSample | None = None
    if data is not None:
        sample = draw_box_images(data, images or (100 if quick else 400), seed, split, runner)
        check_classes(detectors, sample)
    settings = SpeedSettings(sides=QUICK_SIDES, rounds=5) if quick else SpeedSettings()
    if cost is not None:
        settings = SpeedSettings(cost.sides, cost.rounds, cost.batch_size)
    measures: dict[str, Callable[[], Section]] = {
        "cost": lambda: measure_speed(
            detectors, PICTURE_HW if sample is None else sample.size, settings, runner, seed, reporter
        )
    }
    if sample is not None:
        resamples = QUICK_SAMPLES if quick else SAMPLES
        measures["coco"] = lambda: measure_coco(detectors, sample, seed, reporter, resamples)
        measures["errors"] = lambda: measure_errors(detectors, sample, seed, reporter)
    assert set(wanted) <= set(measures)
    return measures


__all__ = ["PICTURE_HW", "QUICK_SAMPLES", "detector_measures"]
