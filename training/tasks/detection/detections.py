"""What a detector found in an image, as little as evaluation needs to keep."""

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 100  # detections of an image and class that COCO counts

RECALLS = np.linspace(0, 1, 101)  # recall at which COCO reads precision


@dataclass(frozen=True)
class Detections:
    """Boxes found in one image, the best first.

    Args:
        boxes: (m, 4) fp64, left, top, right, bottom in pixels of the upright image.
        scores: (m,) fp64 in [0, 1], falling.
        classes: (m,) int64, from 0.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def best(cls, boxes: Any, scores: Any, classes: Any, most: int | None = MOST) -> "Detections":
        """The `most` best of each class from arrays or tensors in any order; of equal scores the first.

        Raises:
            ValueError: The shapes do not fit, or a number is infinite or none.
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
        """Those of a score of at least `threshold`."""
        count = int((self.scores >= threshold).sum())
        return Detections(self.boxes[:count], self.scores[:count], self.classes[:count])


def _counted(seen: np.ndarray, number: int) -> int:
    seen[number] += 1
    return int(seen[number])


def intersection_over_union(found: np.ndarray, true: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """(M, N) of boxes (M, 4) and (N, 4); of a crowd the part of the found box that it covers, as COCO has it."""
    first = np.maximum(found[:, None, :2], true[None, :, :2])
    second = np.minimum(found[:, None, 2:], true[None, :, 2:])
    common = (second - first).clip(0).prod(axis=2)
    area = (found[:, 2:] - found[:, :2]).prod(axis=1)[:, None]
    union = area + (true[:, 2:] - true[:, :2]).prod(axis=1)[None] - common
    if crowd is not None:
        union = np.where(crowd[None], area, union)
    return common / np.maximum(union, 1e-300)


__all__ = ["MOST", "RECALLS", "Detections", "intersection_over_union"]
