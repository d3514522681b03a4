"""Error analysis of a detector in TIDE's categories (Bolya et al. 2020, https://arxiv.org/abs/2008.08115).

A found box is right if it overlaps a true box of its class by an IoU of at least 0.5 that no box with a higher score
has taken. A wrong box is classified by the true box that it overlaps most: wrong class (IoU of at least 0.5), wrong
location (0.1 to 0.5, right class), both (0.1 to 0.5, wrong class), duplicate (at least 0.5, right class, already
taken), or background (below 0.1). A true box is missed if no right box and no class or location error overlaps it.
Crowds, and boxes on them, are not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ....data.boxes.tables import ImageBoxes
from .detections import Detections, intersection_over_union

ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
FOREGROUND, BACKGROUND = 0.5, 0.1


@dataclass
class DetectionErrors:
    """Errors of a detector among boxes above a score.

    Args:
        threshold: Lowest score of the considered boxes.
        per_class: Counts (C, 7): right, then `ERRORS`; by the found class, for missed boxes by the true class.
        confusion: Counts (C + 1, C + 1), rows the true class, columns the found one; the last row is background taken
            for an object, the last column objects that were not found. A true box is paired with the best found box
            that overlaps it by an IoU of at least 0.5, of any class.
    """

    threshold: float
    per_class: np.ndarray
    confusion: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """Counts of right boxes and of each error over all classes."""
        return dict(zip(("correct", *ERRORS), map(int, self.per_class.sum(axis=0)), strict=True))

    @property
    def precision(self) -> float | None:
        """Share of the found boxes that are right, in [0, 1]; None if there are none."""
        counts = self.counts
        found = sum(counts.values()) - counts["missed"]
        return counts["correct"] / found if found else None

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Converts the errors to plain data for JSON."""
        fields = ("correct", *ERRORS)
        rows = [dict(zip(fields, map(int, row), strict=True)) for row in self.per_class]
        return {
            "threshold": self.threshold,
            "counts": self.counts,
            "per_class": [{"label": name, **row} for name, row in zip(names, rows, strict=True)],
            "confusion": self.confusion.tolist(),
        }


@dataclass
class _Tally:
    per_class: np.ndarray
    confusion: np.ndarray = field(repr=False)


def count_errors(
    pairs: Sequence[tuple[Detections, ImageBoxes]], num_labels: int, threshold: float | None = None
) -> DetectionErrors:
    """Counts the errors over all images.

    Args:
        pairs: Found and true boxes of each image.
        num_labels: Number of classes C.
        threshold: Lowest score of the considered boxes; None takes `best_threshold`.
    """
    threshold = best_threshold(pairs) if threshold is None else threshold
    tally = _Tally(
        np.zeros((num_labels, 1 + len(ERRORS)), dtype=np.int64),
        np.zeros((num_labels + 1, num_labels + 1), dtype=np.int64),
    )
    for found, true in pairs:
        _count_image(found.above(threshold), true, tally)
        _count_confusion(found.above(threshold), true, tally.confusion)
    return DetectionErrors(threshold, tally.per_class, tally.confusion)


def best_threshold(pairs: Sequence[tuple[Detections, ImageBoxes]]) -> float:
    """Finds the lowest score to accept that gives the best F1 over all classes; 0.5 if no box is right."""
    scores: list[np.ndarray] = []
    right: list[np.ndarray] = []
    total = 0
    for found, true in pairs:
        total += int((~true.crowd).sum())
        matched, ignored = match_boxes(found, true)
        scores.append(found.scores[~ignored])
        right.append(matched[~ignored] >= 0)
    score, hit = (np.concatenate(parts) if parts else np.empty(0) for parts in (scores, right))
    if not hit.any():
        return 0.5
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], hit[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + total)
    last = np.append(score[1:] < score[:-1], True)  # boxes of equal score are accepted together
    best = int(np.flatnonzero(last)[np.argmax(f1[last])])
    return float(score[best])


def match_boxes(found: Detections, true: ImageBoxes, overlap: float = FOREGROUND) -> tuple[np.ndarray, np.ndarray]:
    """Assigns found boxes to true boxes of the same class, highest scores first.

    Returns:
        Index of the true box or -1, (m,), and whether a box without a true box lies on a crowd of its class, (m,).
    """
    matched, ignored = np.full(len(found), -1), np.zeros(len(found), dtype=bool)
    if not len(found) or not len(true):
        return matched, ignored
    iou = intersection_over_union(found.boxes, true.boxes, true.crowd)
    same = found.classes[:, None] == true.classes[None]
    free = ~true.crowd
    for row in range(len(found)):
        candidates = np.where(same[row] & free, iou[row], -1.0)
        best = int(candidates.argmax())
        if candidates[best] >= overlap:
            matched[row], free[best] = best, False
        else:
            ignored[row] = bool((same[row] & true.crowd & (iou[row] >= overlap)).any())
    return matched, ignored


class ImageErrors(NamedTuple):
    """Kind of each box of an image.

    Args:
        kinds: "correct", one of `ERRORS`, or "" (on a crowd, not counted) for each found box.
        missed: Indices of the true boxes that are missed.
    """

    kinds: list[str]
    missed: np.ndarray


def image_errors(found: Detections, true: ImageBoxes) -> ImageErrors:
    """Tells the kinds of errors in one image, of all found boxes whatever their score."""
    matched, ignored = match_boxes(found, true)
    covered = np.zeros(len(true), dtype=bool)
    covered[matched[matched >= 0]] = True
    objects = np.flatnonzero(~true.crowd)
    iou = intersection_over_union(found.boxes, true.boxes[objects])
    same = found.classes[:, None] == true.classes[objects][None]
    touched, kinds = [], []
    for row in range(len(found)):
        if ignored[row] or matched[row] >= 0:
            kinds.append("" if ignored[row] else "correct")
            continue
        kind, other = _kind(iou[row], same[row])
        kinds.append(kind)
        if kind in ("classification", "localisation"):
            touched.append(objects[other])
    covered[touched] = True
    return ImageErrors(kinds, objects[~covered[objects]])


def _count_image(found: Detections, true: ImageBoxes, tally: _Tally) -> None:
    kinds, missed = image_errors(found, true)
    for kind, number in zip(kinds, found.classes, strict=True):
        if kind:
            tally.per_class[int(number), ("correct", *ERRORS).index(kind)] += 1
    for number in true.classes[missed]:
        tally.per_class[int(number), -1] += 1


def _kind(iou: np.ndarray, same: np.ndarray) -> tuple[str, int]:
    """Returns the kind of error of a box that has no true box, and the index of the true box that it concerns."""
    if len(iou) == 0:
        return "background", -1
    right, wrong = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
    if right.max() >= FOREGROUND:
        return "duplicate", int(right.argmax())
    if wrong.max() >= FOREGROUND:
        return "classification", int(wrong.argmax())
    if right.max() >= BACKGROUND:
        return "localisation", int(right.argmax())
    if wrong.max() >= BACKGROUND:
        return "both", int(wrong.argmax())
    return "background", -1


def _count_confusion(found: Detections, true: ImageBoxes, confusion: np.ndarray) -> None:
    """Pairs found with true boxes of any class, highest scores first, preferring the right class among overlaps."""
    iou = intersection_over_union(found.boxes, true.boxes, true.crowd)
    free, nothing = ~true.crowd, len(confusion) - 1
    for row in range(len(found)):
        number = int(found.classes[row])
        fitting = free & (iou[row] >= FOREGROUND)
        if fitting.any():
            best = int(np.where(fitting, iou[row] + (true.classes == number), -1.0).argmax())
            free[best] = False
            confusion[int(true.classes[best]), number] += 1
        elif not (true.crowd & (iou[row] >= FOREGROUND)).any():
            confusion[nothing, number] += 1
    for number in true.classes[free & ~true.crowd]:
        confusion[int(number), nothing] += 1


__all__ = [
    "ERRORS",
    "DetectionErrors",
    "ImageErrors",
    "best_threshold",
    "count_errors",
    "image_errors",
    "match_boxes",
]
