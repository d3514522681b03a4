"""Section "errors": kinds of errors of each detector, as TIDE tells them apart (https://arxiv.org/abs/2008.08115)."""

from collections.abc import Sequence

import numpy as np

from ...training.runtime.progress import Reporter
from ...training.tasks.detection.error_kinds import ERRORS, best_threshold, image_errors
from ..measurement import Measurement, Section, bootstrap_interval
from .detectors import BoxSample, Detector, Pairs
from .resampled_figures import SIZES

KINDS = ("correct", *ERRORS)
PROTOCOLS = {
    "errors/threshold-1": "Lowest score to accept that gives the best F1 over all classes on the drawn images.",
    "errors/kind-1": (
        "Boxes from that score on, in TIDE's kinds, per 100 true boxes: classification (IoU of at least 0.5 with an "
        "object of another class), localisation (0.1 to 0.5, right class), both, duplicate, background (below 0.1), "
        "and true boxes that are missed. Interval: bootstrap over images of the ratio."
    ),
    "errors/size-1": (
        "As errors/kind-1, per 100 true boxes of a size: a wrong box counts at its own size, a missed one at that of "
        "the true box (small below 32 x 32 pixels, large above 96 x 96)."
    ),
}


def measure_errors(detectors: Sequence[Detector], sample: BoxSample, seed: int, reporter: Reporter) -> Section:
    """Measures the section "errors".

    Args:
        detectors: Contestants.
        sample: Images with boxes.
        seed: Seed of the resampling.
        reporter: Receives the progress.
    """
    section = Section("errors", PROTOCOLS)
    reporter.start("errors", len(detectors))
    for one in detectors:
        pairs = sample.pairs(one)
        threshold = best_threshold(pairs)
        section.measurements.append(
            Measurement(one.name, "score threshold", threshold, "1", "errors/threshold-1", seed)
        )
        counts, objects = error_counts(pairs, threshold)
        for place, kind in enumerate(KINDS):
            section.measurements.append(
                _rate(one.name, "errors", counts[:, 0, place], objects[:, 0], "errors/kind-1", {"kind": kind}, seed)
            )
        for size, name in enumerate(SIZES):
            for place, kind in enumerate(KINDS):
                if size == 0:
                    continue
                at = {"size": name, "kind": kind}
                section.measurements.append(
                    _rate(
                        one.name, "errors by size", counts[:, size, place], objects[:, size], "errors/size-1", at, seed
                    )
                )
        reporter.advance()
    reporter.stop()
    section.notes.append(
        "kinds are counted from one score on, the best of each detector by F1; TIDE's own summary, the average "
        "precision that mending each kind would gain, is not computed"
    )
    return section


def error_counts(pairs: Pairs, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts kinds and true boxes of each image by size.

    Args:
        pairs: Found and true boxes of each image.
        threshold: Lowest score of the considered boxes.

    Returns:
        Counts (images, 4, 7) by size (all, small, medium, large) and `KINDS`, and true boxes (images, 4).
    """
    counts = np.zeros((len(pairs), len(SIZES), len(KINDS)))
    objects = np.zeros((len(pairs), len(SIZES)))
    for row, (found, true) in enumerate(pairs):
        kept = found.above(threshold)
        kinds, missed = image_errors(kept, true)
        areas = (kept.boxes[:, 2:] - kept.boxes[:, :2]).prod(axis=1)
        for kind, area in zip(kinds, areas, strict=True):
            if kind:
                counts[row, _sizes(area), KINDS.index(kind)] += 1
        for area in true.area[missed]:
            counts[row, _sizes(area), -1] += 1
        for area in true.area[~true.crowd]:
            objects[row, _sizes(area)] += 1
    return counts, objects


def _sizes(area: float) -> list[int]:
    """Returns "all" and the one size of an area; on a border the larger."""
    return [0, max(place for place, (low, _) in enumerate(SIZES.values()) if place and area >= low)]


def _rate(
    name: str, quantity: str, counts: np.ndarray, objects: np.ndarray, protocol: str, at: dict[str, str], seed: int
) -> Measurement:
    unit = "per 100 objects"
    if not objects.sum():
        return Measurement(name, quantity, None, unit, protocol, seed, at=dict(at), note="no object of this size")
    value = 100 * counts.sum() / objects.sum()
    interval = bootstrap_interval(
        np.column_stack([counts, objects]), seed,
        lambda drawn, axis: 100 * drawn[..., 0].sum(axis=axis) / np.maximum(drawn[..., 1].sum(axis=axis), 1),
    )  # fmt: skip
    return Measurement(name, quantity, float(value), unit, protocol, seed, interval, dict(at))


__all__ = ["KINDS", "PROTOCOLS", "error_counts", "measure_errors"]
