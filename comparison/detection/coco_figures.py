"""Section "coco": COCO's figures of each detector, with intervals, and differences paired over images."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ...data.intervals import Interval, percentile_interval
from ...training.runtime.progress import Reporter
from ...training.tasks.detection.metrics import COCO_METRICS, coco_metrics
from ..measurement import LEVEL, Measurement, Section
from .detectors import BoxSample, Detector
from .resampled_figures import class_matches, resampled, resampling

PROTOCOLS = {
    "coco/figure-1": (
        "COCO's figures over the drawn images, boxes up to 100 per class and image; sizes are those of COCO in pixels "
        "of the picture: small below 32 x 32, large above 96 x 96. Interval: percentile bootstrap over images; "
        "the notes state the number of resamples."
    ),
    "coco/class-1": "As coco/figure-1: average precision over IoU 0.50 to 0.95 of one class.",
    "coco/difference-1": (
        "Difference of a figure of two detectors on the same images, in points; interval: bootstrap over images, both "
        "detectors on the same resample."
    ),
}
ABSENT = "no object to measure it on"


def measure_coco(
    detectors: Sequence[Detector], sample: BoxSample, seed: int, reporter: Reporter, samples: int
) -> Section:
    """Measures the section "coco".

    Args:
        detectors: Contestants.
        sample: Images with boxes.
        seed: Seed of the resampling.
        reporter: Receives the progress.
        samples: Number of resamples.
    """
    section = Section("coco", PROTOCOLS)
    weights = resampling(len(sample.table), samples, seed)
    reporter.start("coco", len(detectors))
    drawn: dict[str, np.ndarray] = {}
    for one in detectors:
        pairs = sample.pairs(one)
        matches = class_matches(pairs, len(sample.names))
        classes = resampled(matches, np.ones(len(pairs)))[1]
        found = [resampled(matches, row) for row in weights]
        drawn[one.name] = np.array([figures for figures, _ in found])
        stats = coco_metrics(pairs, len(sample.names)).stats
        for figure, value, values in zip(COCO_METRICS, stats, drawn[one.name].T, strict=True):
            at = {"figure": figure}
            section.measurements.append(_measured(one.name, "COCO", value, values, seed, "coco/figure-1", at))
        by_class = np.array([per_class for _, per_class in found]).T
        for name, value, values in zip(sample.names, classes, by_class, strict=True):
            at = {"class": name}
            section.measurements.append(_measured(one.name, "mAP by class", value, values, seed, "coco/class-1", at))
        reporter.advance()
    for first, second in combinations(detectors, 2):
        pair = f"{first.name} against {second.name}"
        for place, figure in enumerate(COCO_METRICS):
            left, right = (section.find("COCO", one.name, figure=figure)[0].value for one in (first, second))
            values = drawn[first.name][:, place] - drawn[second.name][:, place]
            value = np.nan if left is None or right is None else (left - right) / 100
            at = {"figure": figure}
            section.measurements.append(
                _measured(pair, "COCO difference", value, values, seed, "coco/difference-1", at, "points")
            )
    reporter.stop()
    objects = sum(len(true) - int(true.crowd.sum()) for _, true in sample.pairs(detectors[0]))
    section.notes.append(
        f"{len(sample.table)} of {sample.total} images of the {sample.split} split, {objects} objects; "
        f"{sample.runner.precision}; intervals from {samples:,} resamples"
    )
    return section


def _measured(
    name: str, quantity: str, value: float, values: np.ndarray, seed: int, protocol: str, at: dict[str, str],
    unit: str = "%",
) -> Measurement:  # fmt: skip
    """Makes a measurement from a share; below 0 or NaN stands for none, but for differences."""
    difference = unit == "points"
    if np.isnan(value) or (value < 0 and not difference):
        return Measurement(name, quantity, None, unit, protocol, seed, at=dict(at), note=ABSENT)
    return Measurement(name, quantity, 100 * float(value), unit, protocol, seed, _interval(values), dict(at))


def _interval(values: np.ndarray) -> Interval | None:
    """Interval in per cent; None if fewer than half of the resamples have a value."""
    known = values[~np.isnan(values)]
    if len(known) < max(2, len(values) / 2):
        return None
    low, high = percentile_interval(known, LEVEL)
    return 100 * low, 100 * high


__all__ = ["ABSENT", "PROTOCOLS", "measure_coco"]
