"""COCO's figures of resampled images (https://cocodataset.org/#detection-eval), for intervals and paired differences.

Found boxes are matched with true boxes once per image. A resample is a weight per image, the number of times that it
was drawn; with all weights 1 the figures are those of COCO's own code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...data.boxes.tables import ImageBoxes
from ...training.tasks.detection.detections import RECALLS, Detections, intersection_over_union
from .detectors import Pairs

IOUS = np.linspace(0.5, 0.95, 10)
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
_LOW, _HIGH = np.array(list(SIZES.values())).T[:, :, None]  # (4, 1)


class _ImageMatches(NamedTuple):
    """Matches of one class in one image: found boxes (n) at each size and IoU, and true boxes that count, by size."""

    scores: np.ndarray  # (n,)
    right: np.ndarray  # (4, 10, n)
    wrong: np.ndarray  # (4, 10, n)
    objects: np.ndarray  # (4,)


@dataclass(frozen=True)
class ClassMatches:
    """Matches of one class in all images; found boxes in falling order of scores.

    Args:
        image: Number of each found box's image, (n,).
        rank: Place of each found box among those of its image, from 0, (n,).
        right: Whether it is right at each size and IoU, (4, 10, n).
        wrong: Whether it is wrong; a box that is neither does not count, (4, 10, n).
        objects: Number of true boxes that count, by size and image, (4, images).
    """

    image: np.ndarray
    rank: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    objects: np.ndarray

    def precision(self, weights: np.ndarray) -> np.ndarray:
        """Computes average precision (4, 10) by size and IoU; NaN where no object counts.

        Args:
            weights: Number of times that each image counts, (images,).
        """
        found, own = np.full((len(SIZES), len(IOUS)), np.nan), weights[self.image]
        totals = self.objects @ weights
        known = np.flatnonzero(totals)
        right, wrong = (np.cumsum(kind[known] * own, axis=2) for kind in (self.right, self.wrong))
        recall, precision = right / totals[known, None, None], right / (right + wrong + np.spacing(1))
        best = np.zeros((len(known), len(IOUS), len(own) + 1))  # the last: beyond the highest recall
        best[:, :, :-1] = np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]
        for place, size in enumerate(known):
            for row in range(len(IOUS)):
                found[size, row] = best[place, row, recall[place, row].searchsorted(RECALLS)].mean()
        return found

    def recall(self, weights: np.ndarray, size: int, most: int) -> np.ndarray:
        """Computes recall (10,) by IoU from the `most` best boxes of an image; NaN where no object counts."""
        total = self.objects[size] @ weights
        if total == 0:
            return np.full(len(IOUS), np.nan)
        own = weights[self.image] * (self.rank < most)
        recall: np.ndarray = self.right[size] @ own / total
        return recall


def class_matches(pairs: Pairs, num_labels: int) -> list[ClassMatches]:
    """Matches found and true boxes of each class as COCO does.

    Args:
        pairs: Found and true boxes of each image, at most 100 found of each class.
        num_labels: Number of classes.
    """
    return [_of_class([_matches(found, true, number) for found, true in pairs]) for number in range(num_labels)]


def resampled(matches: Sequence[ClassMatches], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes COCO's twelve figures, in the order of `COCO_METRICS`, and the mAP of each class; NaN for none.

    Args:
        matches: Matches of each class.
        weights: Number of times that each image counts, (images,).

    Returns:
        Figures (12,) and (C,), in [0, 1].
    """
    precision = np.array([one.precision(weights) for one in matches])  # (C, 4, 10)
    recalls = [(0, 1), (0, 10), (0, 100), (1, 100), (2, 100), (3, 100)]
    recall = [np.array([one.recall(weights, *which) for one in matches]) for which in recalls]
    parts = [precision[:, 0], precision[:, 0, 0], precision[:, 0, 5], *(precision[:, size] for size in (1, 2, 3))]
    return np.array([_mean(part) for part in (*parts, *recall)]), precision[:, 0].mean(axis=1)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _matches(found: Detections, true: ImageBoxes, number: int) -> _ImageMatches:
    mine, theirs = found.classes == number, true.classes == number
    scores, boxes, truths = found.scores[mine], found.boxes[mine], true.boxes[theirs]
    crowd, area = true.crowd[theirs], true.area[theirs]
    skipped = crowd | (area < _LOW) | (area > _HIGH)  # (4, G)
    sides = boxes[:, 2:] - boxes[:, :2]
    beyond = (sides.prod(axis=1) < _LOW) | (sides.prod(axis=1) > _HIGH)  # (4, n)
    right = np.zeros((len(SIZES), len(IOUS), len(boxes)), dtype=bool)
    wrong = np.repeat(~beyond[:, None], len(IOUS), axis=1)
    free = np.ones((len(SIZES), len(IOUS), len(truths)), dtype=bool)
    iou = intersection_over_union(boxes, truths, crowd)
    least = np.minimum(IOUS, 1 - 1e-10)
    touching = np.flatnonzero(iou.max(axis=1, initial=0.0) >= least[0])
    for row in touching:
        counted, where = _best(iou[row], free & ~skipped[:, None])
        hit = counted >= least
        other, elsewhere = _best(iou[row], (free | crowd) & skipped[:, None])
        aside = ~hit & (other >= least)
        right[:, :, row] = hit
        wrong[:, :, row] &= ~hit
        wrong[:, :, row] &= ~aside
        for taken, place in ((hit, where), (aside, elsewhere)):
            sizes, steps = np.nonzero(taken)
            free[sizes, steps, place[sizes, steps]] = False
    return _ImageMatches(scores, right, wrong, (~skipped).sum(axis=1))


def _best(iou: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest IoU (4, 10) with an allowed true box, -1 for none, and its place; of equals the last."""
    values = np.where(allowed, iou, -1.0)[:, :, ::-1]
    first = values.argmax(axis=2)
    return np.take_along_axis(values, first[:, :, None], axis=2)[:, :, 0], values.shape[2] - 1 - first


def _of_class(images: Sequence[_ImageMatches]) -> ClassMatches:
    scores = np.concatenate([one.scores for one in images])
    order = np.argsort(-scores, kind="stable")
    counts = [len(one.scores) for one in images]
    return ClassMatches(
        np.repeat(np.arange(len(images)), counts)[order],
        np.concatenate([np.arange(count) for count in counts])[order],
        np.concatenate([one.right for one in images], axis=2)[:, :, order],
        np.concatenate([one.wrong for one in images], axis=2)[:, :, order],
        np.stack([one.objects for one in images], axis=1),
    )


def resampling(images: int, samples: int, seed: int) -> np.ndarray:
    """Draws how often each image counts in each resample, (samples, images) float64."""
    rows = np.random.default_rng(seed).integers(images, size=(samples, images))
    return np.stack([np.bincount(row, minlength=images) for row in rows]).astype(np.float64)


__all__ = ["IOUS", "SIZES", "ClassMatches", "class_matches", "resampled", "resampling"]
