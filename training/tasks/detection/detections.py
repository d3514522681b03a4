"""Detections in an image: boxes, scores and classes, as needed for evaluation."""

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 100  # limit of COCO on detections per image and class

RECALLS = np.linspace(0, 1, 101)  # recall values at which COCO evaluates precision


@dataclass(frozen=True)
class Detections:
    """Boxes found in one image, in order of falling score.

    Args:
        boxes: Boxes (left, top, right, bottom) in pixels of the upright image, (m, 4) float64.
        scores: Scores in [0, 1], falling, (m,) float64.
        classes: Class numbers from 0, (m,) int64.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def best(cls, boxes: Any, scores: Any, classes: Any, most: int | None = MOST) -> "Detections":
        """Keeps the `most` best boxes of each class from arrays or tensors in any order; among equal scores the first.

        Raises:
            ValueError: The shapes do not fit, or a number is infinite or NaN.
        """
        box = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        score, number = np.asarray(scores, dtype=np.float64), np.asarray(classes, dtype=np.int64)
        if not len(box) == len(score) == len(number):
            raise ValueError(f"there are {len(box)} boxes, {len(score)} scores and {len(number)} classes")
        if not (np.isfinite(box).all() and np.isfinite(score).all()):
            raise ValueError("a detection's box or score is infinite or not a number")
        order = np.argsort(-score, kind="stable")
        if most is not None and len(order) > most:
            seen = np.zeros(int(number.max()) + 1, dtype=np.int64)
            order = np.array([row for row in order if _counted(seen, int(number[row])) <= most], dtype=np.int64)
        return cls(box[order], score[order], number[order])

    def above(self, threshold: float) -> "Detections":
        """Keeps the boxes with a score of at least `threshold`."""
        count = int((self.scores >= threshold).sum())
        return Detections(self.boxes[:count], self.scores[:count], self.classes[:count])


def _counted(seen: np.ndarray, number: int) -> int:
    seen[number] += 1
    return int(seen[number])


def intersection_over_union(found: np.ndarray, true: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Computes IoU (M, N) of boxes (M, 4) and (N, 4); for a crowd, the covered share of the found box, as COCO does."""
    first = np.maximum(found[:, None, :2], true[None, :, :2])
    second = np.minimum(found[:, None, 2:], true[None, :, 2:])
    common = (second - first).clip(0).prod(axis=2)
    area = (found[:, 2:] - found[:, :2]).prod(axis=1)[:, None]
    union = area + (true[:, 2:] - true[:, :2]).prod(axis=1)[None] - common
    if crowd is not None:
        union = np.where(crowd[None], area, union)
    return common / np.maximum(union, 1e-300)


__all__ = ["MOST", "RECALLS", "Detections", "intersection_over_union"]
